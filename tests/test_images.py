import numpy as np
import pytest
import torch
from PIL import Image

from smoothnb.images import to_pil, to_pixels, to_rgb


def pixel(image, at=(0, 0)):
    return to_rgb(image).getpixel(at)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 100, 0, 255), (200, 100, 0)),
        ("LA", (0, 0), (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("I;16", 32896, (128, 128, 128)),
        ("I", 65535, (255, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, expected):
    assert pixel(Image.new(mode, (4, 4), colour)) == expected


def test_half_transparent_black_is_grey_on_white():
    assert pixel(Image.new("RGBA", (2, 2), (0, 0, 0, 128))) == (127, 127, 127)


def test_a_palette_with_a_transparent_colour_is_flattened(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    image.save(tmp_path / "p.png", transparency=0)
    assert [pixel(tmp_path / "p.png", (x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 255, 0)]


def test_exif_turns_the_picture(tmp_path):
    image = Image.new("RGB", (20, 10), "blue")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert to_rgb(str(tmp_path / "turned.png")).size == (10, 20)


def test_arrays_and_tensors():
    levels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert np.array_equal(np.asarray(to_rgb(levels)), levels)
    assert np.array_equal(np.asarray(to_rgb(levels.astype(np.float32) / 255)), levels)
    assert np.array_equal(np.asarray(to_rgb(torch.from_numpy(levels).permute(2, 0, 1))), levels)
    assert np.array_equal(np.asarray(to_rgb(torch.from_numpy(levels).permute(2, 0, 1).bfloat16() / 255)), levels)
    assert pixel(levels[..., 0]) == (0, 0, 0)
    assert pixel(levels[..., 1:2]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("/no/such/picture.png", FileNotFoundError, "no picture at"),
        (np.zeros((2, 2, 5), np.uint8), ValueError, "channels"),
        (np.zeros(3, np.uint8), ValueError, "channels"),
        (np.zeros((0, 2, 3), np.uint8), ValueError, "channels"),
        (np.full((2, 2), -0.5), ValueError, r"pixels in \[0, 1\]"),
        (np.full((2, 2), np.nan), ValueError, r"pixels in \[0, 1\]"),
        (np.zeros((2, 2), np.int64), ValueError, "int64"),
    ],
)
def test_wrong_pictures_say_what_came(image, error, message):
    with pytest.raises(error, match=message):
        to_rgb(image)


def test_a_file_that_is_no_picture(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"notes\.txt as a picture"):
        to_rgb(tmp_path / "notes.txt")


def test_the_middle_is_kept_when_proportions_differ():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    assert torch.equal(to_pixels(wide, 10, 10), torch.ones(1, 3, 10, 10))


def test_pixels_come_back_as_they_were():
    levels = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3), dtype=np.uint8)
    back = np.stack([np.asarray(p) for p in to_pil(to_pixels(levels, 8, 6))])
    assert np.array_equal(back, levels)
    with pytest.raises(ValueError, match="at least one picture"):
        to_pixels([], 8, 8)
