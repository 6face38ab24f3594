"""Prompts from files as users have them, and a download that goes wrong."""

import hashlib
import json
import zipfile

import pytest

from smoothnb import read_prompts
from smoothnb.evaluation.prompts import COCO_CAPTIONS, coco_captions
from smoothnb.postcards.stream import held_out_prompts

COCO = {
    "annotations": [
        {"image_id": image, "id": 10 * image + number, "caption": f"  caption {number}\nof {image} "}
        for image in (30, 7, 12, 99)
        for number in (2, 1)
    ]
}


def test_postcards_have_their_own():
    assert read_prompts(count=3) == held_out_prompts(3)
    assert len(read_prompts()) == 500


def test_of_coco_each_picture_gives_its_first_caption(tmp_path):
    file = tmp_path / "captions.json"
    file.write_text(json.dumps(COCO))
    every = [f"caption 1 of {image}" for image in (7, 12, 30, 99)]
    assert read_prompts(file, 4) == every
    two = read_prompts(file, 2)
    assert two == read_prompts(str(file), 2) and two == sorted(two, key=every.index) and set(two) < set(every)
    assert len({tuple(read_prompts(file, 2, seed)) for seed in range(20)}) > 3
    with pytest.raises(ValueError, match="holds 4 prompts, fewer than the requested 500"):
        read_prompts(file)


def test_a_text_file_has_one_a_line(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("a wolf\n\n  a fox  \r\nein Bär\n", encoding="utf-8")
    assert read_prompts(file) == ["a wolf", "a fox", "ein Bär"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_where_they_end_in_every_encoding(tmp_path, encoding, end):
    (tmp_path / "a.txt").write_bytes(f"a house\u2028in a meadow{end}{end}a Bär\x85{end}".encode(encoding))
    assert read_prompts(tmp_path / "a.txt") == ["a house\u2028in a meadow", "a Bär"]


def test_what_is_no_text_file_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("a house\na Bär".encode("cp1252"))
    with pytest.raises(ValueError, match=r"line 2 of .*a\.txt is not in UTF-8"):
        read_prompts(tmp_path / "a.txt")
    (tmp_path / "metadata.jsonl").write_text('{"text": "a house"}')
    with pytest.raises(ValueError, match="one prompt a line"):
        read_prompts(tmp_path / "metadata.jsonl")


@pytest.mark.parametrize(("name", "text"), [("a.txt", "\n \n"), ("a.json", '{"annotations": []}')])
def test_an_empty_file_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} holds no prompts"):
        read_prompts(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        "{}",
        '{"annotations": [{"image": 3}]}',
        '{"annotations": [{"image_id": 3, "id": 1, "caption": null}]}',
    ],
)
def test_json_of_another_kind_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="no captions as COCO writes them"):
        read_prompts(tmp_path / "a.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        read_prompts(tmp_path / "nowhere.txt")


@pytest.fixture
def archive(tmp_path):
    file = tmp_path / "annotations.zip"
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr(COCO_CAPTIONS, json.dumps(COCO))
        opened.writestr("annotations/instances_val2017.json", "large")
    return file


def test_captions_are_downloaded_once(archive, tmp_path):
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    cache = tmp_path / "cache"
    file = coco_captions(archive.as_uri(), md5, cache)
    assert json.loads(file.read_text()) == COCO
    archive.unlink()
    assert coco_captions(archive.as_uri(), md5, cache) == file
    assert [p.name for p in cache.iterdir()] == [file.name], "the archive is not kept"


def test_what_has_another_checksum_is_not_used(archive, tmp_path):
    with pytest.raises(OSError, match="expected 0000"):
        coco_captions(archive.as_uri(), "0000", tmp_path / "cache")
    with pytest.raises(OSError, match="cannot download"):
        coco_captions((tmp_path / "nowhere.zip").as_uri(), "0000", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
