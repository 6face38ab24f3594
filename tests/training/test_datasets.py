"""Pictures with captions: folders, postcards, and what is wrong with them."""

import io
import json
import logging
import struct

import datasets
import pytest
import torch
from PIL import Image

from smoothnb.training.datasets import PostcardStream, hub_dataset, image_folder, open_data


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


def pictures(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names or ("0.png", "1.png", "2.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (50 * i, 0, 0)).save(folder / name)
    return folder


def jsonl(*captions, column="text"):
    rows = [{"file_name": f"{i}.png", column: text} for i, text in enumerate(captions)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def captions_of(folder):
    """By the picture's name."""
    data = open_data(str(folder), 8, 8)
    found = {path.name: text for path, text in zip(data.images, data.captions, strict=True)}
    # Pictures and captions stay together.
    pixels, texts = data.take(range(len(data.images)))
    assert [found[f"{i}.png"] for i in red(pixels)] == texts
    return found


THREE = {"0.png": "a red house", "1.png": "a blue house", "2.png": "a tree"}


@pytest.mark.parametrize(
    "name", ["metadata.jsonl", "train/metadata.jsonl", "data/train/metadata.jsonl", "a [1] */x/metadata.jsonl"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("column", ["text", "caption"])
def test_json_lines_are_found_in_every_layout(tmp_path, name, encoding, column):
    pictures((tmp_path / name).parent)
    (tmp_path / name).write_text(jsonl(*THREE.values(), column=column), encoding=encoding)
    assert captions_of(tmp_path) == THREE


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_are_read(tmp_path, encoding):
    table = 'file_name,text\n0.png,"a house, red"\n\n1.png,"two\nlines"\n2.png,7 trees\n'
    (pictures(tmp_path) / "metadata.csv").write_text(table, encoding=encoding)
    assert captions_of(tmp_path) == {"0.png": "a house, red", "1.png": "two\nlines", "2.png": "7 trees"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_files_beside_pictures_are_read(tmp_path, encoding, caplog):
    for name, text in THREE.items():
        pictures(tmp_path).joinpath(name).with_suffix(".txt").write_text(f"{text}\n", encoding=encoding)
    assert captions_of(tmp_path) == THREE and not caplog.records
    (tmp_path / "1.txt").unlink()
    assert captions_of(tmp_path) == THREE | {"1.png": ""}
    assert "1 of its 3 pictures have no .txt file" in caplog.text
    (tmp_path / "1.txt").write_text("un café", encoding="cp1252")
    with pytest.raises(ValueError, match=r"line 1 of .*1\.txt is not in UTF-8"):
        open_data(str(tmp_path), 8, 8)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_a_line_ends_where_it_ends_and_not_at_other_marks(tmp_path, mark):
    text = f"a house{mark}in a meadow"
    row = json.dumps({"file_name": "0.png", "text": text}, ensure_ascii=mark < " ")
    (pictures(tmp_path, "0.png") / "metadata.jsonl").write_text(row, encoding="utf-8")
    assert captions_of(tmp_path) == {"0.png": text}


@pytest.mark.parametrize(
    "line",
    [
        '{"file_name": "1.png", "text": null}',
        '{"file_name": "1.png", "text": ["a blue house", "a house"]}',
        '{"file_name": "1.png", "text": 7}',
        '{"file_name": "1.png", "text": {"en": "a house"}}',
        '{"file_name": "1.png", "text": true}',
        '{"file_name": "1.png"}',
        '{"file_name": null, "text": "a house"}',
        '{"file_name": "../1.png", "text": "a house"}',
        '{"text": "a house"}',
        '["1.png", "a house"]',
        '{"file_name": "1.png", "text": "a hou',
        "1.png a house",
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_a_line_that_is_no_picture_with_a_caption_is_refused_by_its_number(tmp_path, line, alone):
    first = "" if alone else '{"file_name": "0.png", "text": "a house"}'
    (pictures(tmp_path) / "metadata.jsonl").write_text(f"{first}\n\n{line}\n")
    with pytest.raises(ValueError, match=r"line 3 of .*metadata\.jsonl is not as expected"):
        open_data(str(tmp_path), 8, 8)


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("file_name,text\n0.png,a\n1.png,\n", 3),
        ("file_name,text\n0.png,a\n1.png,NA\n", 3),
        ("file_name,text\n0.png,1\n1.png,2\n", 2),
        ("file_name,text\n0.png,a\n1.png,b, c\n", 3),
        ("file_name,text\n0.png,a, b\n1.png,b, c\n", 2),
        ("file_name;text\n0.png;a\n", 2),
        ("file_name,label\n0.png,a\n", 2),
    ],
)
def test_a_row_of_a_table_is_refused_by_its_line(tmp_path, table, line):
    (pictures(tmp_path) / "metadata.csv").write_text(table)
    with pytest.raises(ValueError, match=rf"line {line} of .*metadata\.csv is not as expected"):
        open_data(str(tmp_path), 8, 8)


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        (jsonl("a house", "a café"), "cp1252", r"line 2 of .*metadata\.jsonl is not in UTF-8"),
        (jsonl("a house"), "utf-16", r"cannot read .*metadata\.jsonl"),
        ("", "utf-8", r"cannot read .*metadata\.jsonl"),
        (jsonl("a house").replace("0.png", "other.png"), "utf-8", "no picture in .* has a row"),
    ],
)
def test_metadata_of_another_kind_is_named(tmp_path, text, encoding, message):
    (pictures(tmp_path) / "metadata.jsonl").write_text(text, encoding=encoding)
    with pytest.raises(ValueError, match=message):
        open_data(str(tmp_path), 8, 8)


def said(caplog):
    return {line.split(":")[0].split(", ", 1)[1] for line in caplog.messages if line.startswith("Left out")}


def test_what_is_left_out_is_counted_and_named_once(tmp_path, caplog):
    pictures(tmp_path, *(f"train/{i}.png" for i in range(4)), "test/5.png", "train/.ipynb_checkpoints/0-checkpoint.png")
    (tmp_path / "train" / "7.heic").write_bytes(b"")
    rows = jsonl("a house", "a house", "a tree")
    rows += jsonl("a house", "another caption") + '{"file_name": "9.png", "text": "a house"}\n'
    (tmp_path / "train" / "metadata.jsonl").write_text(rows)
    with caplog.at_level(logging.WARNING):
        data = open_data(str(tmp_path), 8, 8)
        _, texts = data.take(range(8))
    assert set(texts) == {"a house", "a tree", "another caption"} and len(data.images) == 5
    assert said(caplog) == {
        "1 hidden pictures", "1 pictures of a kind that is not read", f"1 pictures outside of {tmp_path / 'train'}",
        "1 rows that are there twice", "1 rows whose pictures are missing", "1 pictures that no row names",
    }  # fmt: skip
    assert sum("9.png (line 6 of" in message for message in caplog.messages) == 1


def test_metadata_beside_the_split_folders_names_what_is_trained_on(tmp_path, caplog):
    pictures(tmp_path, "train/0.png", "train/1.png", "test/2.png")
    rows = [{"file_name": name, "text": name} for name in ("train/0.png", "train\\1.png", "test/2.png")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with caplog.at_level(logging.WARNING):
        assert captions_of(tmp_path) == {"0.png": "train/0.png", "1.png": "train\\1.png"}
    assert f"1 rows of pictures outside of {tmp_path / 'train'}" in said(caplog)


@pytest.mark.parametrize(
    "name", [".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/0.png", "._0.png", ".thumbs/a/0.png"]
)
def test_hidden_copies_are_not_trained_on(tmp_path, name, caplog):
    pictures(tmp_path, "0.png", name)
    assert captions_of(tmp_path) == {"0.png": ""}
    assert f"Left out, 1 hidden pictures: {tmp_path / name}" in caplog.text


def test_pictures_of_every_kind_are_taken(tmp_path):
    names = ["a.jpg", "b.JPEG", "c.gif", "d.webp", "e.tif"]
    pictures(tmp_path, *names)
    (tmp_path / "a.jpg").rename(tmp_path / "a.jfif")
    assert [path.name for path in open_data(str(tmp_path), 8, 8).images] == ["a.jfif", *names[1:]]


def test_damaged_exif_does_not_end_a_training(tmp_path):
    for i, broken in enumerate(
        (b"II*\0\xff\xff\xff\x7f", b"II*\0\x08\0\0\0\x01\0\x1a\x01\x02\0\x04\0\0\0abc\0\0\0\0\0")
    ):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "jpeg")
        block = b"Exif\0\0" + broken
        block = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
        (tmp_path / f"{i}.jpg").write_bytes(buffer.getvalue()[:2] + block + buffer.getvalue()[2:])
    data = open_data(str(tmp_path), 8, 8)
    assert data.take(range(4))[0].shape == (4, 3, 8, 8) and not data.unreadable


def test_a_data_set_of_the_hub_is_checked_before_the_first_step(tmp_path, monkeypatch):
    def rows(captions):
        columns = {"photo": [str(pictures(tmp_path) / f"{i}.png") for i in range(3)], "caption": captions}
        return datasets.Dataset.from_dict(columns).cast_column("photo", datasets.Image())

    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: rows([*THREE.values()]))
    pixels, texts = hub_dataset("me/mine", 8, 8).take(range(3))
    assert [THREE[f"{i}.png"] for i in red(pixels)] == texts
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: rows(["a", None, "b"]))
    with pytest.raises(ValueError, match='row 1 of "me/mine" has no text'):
        hub_dataset("me/mine", 8, 8)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: rows(["a"] * 3).remove_columns("caption"))
    with pytest.raises(ValueError, match=r"a column of pictures and one of captions .*got photo"):
        hub_dataset("me/mine", 8, 8)
