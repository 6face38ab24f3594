"""Pictures with captions: folders, postcards, and what is wrong with them."""

import json
import logging

import pytest
import torch
from PIL import Image

from smoothnb.training.datasets import PostcardStream, image_folder, open_data


@pytest.fixture
def folder(tmp_path):
    lines = []
    for i in range(5):
        Image.new("RGB", (40, 32), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"picture {i}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def red(pixels):
    return [round(picture[0].mean().item() * 255 / 50) for picture in pixels]


def test_pictures_keep_their_captions_and_each_epoch_has_another_order(folder):
    data = image_folder(folder, 16, 16, seed=3)
    pixels, captions = data.take(range(20))
    assert pixels.shape == (20, 3, 16, 16)
    assert captions == [f"picture {i}" for i in red(pixels)]
    epochs = [captions[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(epoch) == [f"picture {i}" for i in range(5)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("kind", ["folder", "postcard"])
def test_a_number_is_the_same_picture_whatever_was_taken_before(folder, kind):
    def fresh():
        return image_folder(folder, 16, 16) if kind == "folder" else PostcardStream(16, 16)

    pixels, captions = fresh().take([3, 17, 4])
    again, told = fresh().take([4])
    assert torch.equal(again[0], pixels[2]) and told == captions[2:]


def test_an_unreadable_file_is_named_once_counted_and_replaced(folder, caplog):
    (folder / "2.png").write_bytes(b"no picture")
    (folder / "4.png").unlink()
    with caplog.at_level(logging.WARNING):
        data = image_folder(folder, 32, 40)
        _, captions = data.take(range(10))
    assert set(captions) == {"picture 0", "picture 1", "picture 3"}
    assert len(data.unreadable) == 2
    for name in ("2.png", "4.png"):
        assert sum(name in record.getMessage() for record in caplog.records) == 1


def test_no_picture_that_can_be_read_is_an_error(folder):
    for path in folder.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 5 pictures can be read"):
        image_folder(folder, 16, 16).take([0])


def test_a_folder_without_metadata_is_taken_with_empty_captions(folder, caplog):
    (folder / "metadata.jsonl").unlink()
    _, captions = image_folder(folder, 16, 16).take(range(5))
    assert captions == [""] * 5
    assert "no metadata.jsonl" in caplog.text


def test_what_is_wrong_with_data_is_said(folder, tmp_path):
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a"}\n{"file": "1.png"}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*metadata\.jsonl"):
        image_folder(folder, 16, 16)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="no picture in"):
        open_data(str(empty), 16, 16)
    with pytest.raises(FileNotFoundError, match="looked from"):
        open_data("./nowhere", 16, 16)
    with pytest.raises(ValueError, match="postcards are square"):
        open_data("postcard", 16, 24)


def test_postcards_come_in_styles():
    plain, neon = (open_data(name, 64, 64, seed=3) for name in ("postcard", "postcard-neon"))
    (ours, captions), (theirs, same) = plain.take([5, 6]), neon.take([5, 6])
    assert captions == same and theirs.mean() < 0.6 * ours.mean()
