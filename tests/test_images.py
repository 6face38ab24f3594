import io
import logging
import struct

import numpy as np
import pytest
import torch
from PIL import Image

import smoothnb.images
from smoothnb.images import to_mask, to_pil, to_pixels, to_rgb


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


def jpeg(exif, **options):
    """A picture of 40×24 with this EXIF block, damaged or not."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 24)).save(buffer, "jpeg", **options)
    block = b"Exif\0\0" + exif
    start, rest = buffer.getvalue()[:2], buffer.getvalue()[2:]
    return io.BytesIO(start + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + rest)


def tiff(*entries):
    rows = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + bytes(4)


TURN = (0x0112, 3, 1, struct.pack("<HH", 6, 0))


@pytest.mark.parametrize(
    ("exif", "turned"),
    [
        (tiff(TURN), True),
        (tiff(TURN, (0x011A, 2, 4, b"abc\0"), (0x8769, 4, 1, struct.pack("<I", 9999))), True),
        (tiff(TURN, (0x0100, 2, 4, b"abc\0")), True),
        (tiff(TURN, (0x011A, 5, 1, struct.pack("<I", 9999))), True),
        (tiff(TURN)[:14], False),
        (tiff((0x0112, 2, 2, b"6\0\0\0")), False),
        (tiff((0x0112, 3, 1, struct.pack("<HH", 9, 0))), False),
        (b"II*\0\xff\xff\xff\x7f", False),
        (b"\0\x08\0\2", False),
        (b"", False),
    ],
)
def test_a_turn_is_applied_and_damaged_exif_is_ignored(exif, turned):
    upright = to_rgb(jpeg(exif))
    assert upright.size == ((24, 40) if turned else (40, 24))
    assert to_rgb(upright).size == upright.size, "a turn is not applied twice"


def profile(space, gamma=2.2, primaries=()):
    """A small ICC profile of grey, or of RGB with these primaries: XYZ for D50."""

    def xyz(values):
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    curve = b"curv" + bytes(4) + struct.pack(">IHH", 1, round(gamma * 256), 0)
    tags = {b"wtpt": xyz((0.9642, 1, 0.8249))}
    tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, primaries), strict=False))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC") if primaries else (b"kTRC",), curve)
    table, body = b"", b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(value))
        body += value
    head = struct.pack(">I4xI", 132 + len(table) + len(body), 0x02100000) + b"mntr" + space + b"XYZ " + bytes(12)
    head = (head + b"acsp").ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


ADOBE = profile(
    b"RGB ", 2.19921875, ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
)
GREY = profile(b"GRAY", 1.0)


@pytest.mark.parametrize(
    ("mode", "colour", "data", "expected"),
    [
        ("RGB", (200, 80, 60), ADOBE, (230, 79, 56)),
        ("RGBA", (200, 80, 60, 255), ADOBE, (230, 79, 56)),
        ("RGBA", (200, 80, 60, 0), ADOBE, (255, 255, 255)),
        ("L", 100, ADOBE, (100, 100, 100)),
        ("L", 55, GREY, (128, 128, 128)),
        ("LA", (55, 255), GREY, (128, 128, 128)),
        ("I;16", 55 * 257, GREY, (128, 128, 128)),
    ],
)
def test_an_embedded_profile_is_converted_to_srgb(tmp_path, mode, colour, data, expected):
    image = Image.new(mode, (4, 4), colour)
    image.save(tmp_path / "p.png", icc_profile=data)
    found = to_rgb(tmp_path / "p.png")
    assert np.abs(np.subtract(found.getpixel((0, 0)), expected)).max() <= 1
    assert to_rgb(found).tobytes() == found.tobytes(), "a profile is not applied twice"


def test_a_palette_with_a_profile(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 80, 60, 1, 2, 3])
    image.putdata([0, 1])
    image.save(tmp_path / "p.png", transparency=1, icc_profile=ADOBE)
    assert [pixel(tmp_path / "p.png", (x, 0)) for x in (0, 1)] == [(230, 79, 56), (255, 255, 255)]


def cmyk_profile():
    """A printer's profile whose black alone counts: from no ink, white, to full ink, black."""
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    ramp = bytes(range(256))
    # Lightness, a and b for each corner of the four inks; the last ink runs fastest.
    corners = bytes([255, 128, 128, 0, 128, 128]) * 8
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + corners + ramp * 3
    head = struct.pack(">I4xI", 144 + len(table), 0x02100000) + b"prtrCMYKLab " + bytes(12)
    head = (head + b"acsp").ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


def test_cmyk_goes_through_its_profile(tmp_path):
    for colour, expected in (((255, 0, 0, 0), 255), ((0, 0, 0, 255), 0)):
        Image.new("CMYK", (8, 8), colour).save(tmp_path / "p.tif", icc_profile=cmyk_profile())
        assert pixel(tmp_path / "p.tif") == (expected,) * 3


@pytest.mark.parametrize("data", [b"no profile", ADOBE[:200], GREY, cmyk_profile()])
def test_a_broken_profile_is_ignored_with_a_warning(tmp_path, caplog, data):
    smoothnb.images._say_once.cache_clear()
    Image.new("RGB", (4, 4), (200, 80, 60)).save(tmp_path / "p.png", icc_profile=data)
    with caplog.at_level(logging.WARNING):
        assert pixel(tmp_path / "p.png") == (200, 80, 60)
    assert "colour profile is ignored" in caplog.text


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert pixel(tmp_path / name) == (255, 0, 0)


WHERE = np.array([[True, False], [False, True]])
BYTES = WHERE.astype(np.uint8) * 255


def layer(colour):
    """Strokes of one colour on a transparent layer."""
    return Image.merge("RGBA", [*Image.new("RGB", (2, 2), colour).split(), Image.fromarray(BYTES)])


def palette(mask):
    image = Image.fromarray(mask).convert("P")
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    "mask",
    [
        WHERE, BYTES, BYTES // 255, WHERE.astype(float), WHERE.astype(np.float16), np.stack([BYTES] * 3, -1),
        torch.from_numpy(WHERE), torch.from_numpy(WHERE)[None], torch.from_numpy(WHERE).bfloat16(),
        Image.fromarray(WHERE), Image.fromarray(BYTES), Image.fromarray(BYTES).convert("RGB"), layer("white"),
        layer("white").convert("LA"), layer("white").convert("RGBa"), palette(BYTES),
        Image.fromarray(BYTES.astype(np.uint16) * 257), Image.fromarray(WHERE.astype(np.float32)),
    ],
)  # fmt: skip
def test_white_and_opaque_may_change_in_masks_of_every_kind(mask, tmp_path):
    found = to_mask(mask, (2, 2))
    assert found.mode == "L" and np.array_equal(np.asarray(found), BYTES)
    if isinstance(mask, Image.Image) and mask.mode not in ("F", "RGBa"):
        mask.save(tmp_path / "mask.png")
        assert np.array_equal(np.asarray(to_mask(tmp_path / "mask.png", (2, 2))), BYTES)


def test_transparent_or_black_may_not_change():
    for mask in (layer("black"), Image.new("RGBA", (2, 2), (255, 255, 255, 0)), Image.new("LA", (2, 2), (255, 100))):
        assert not to_mask(mask, (2, 2)).getbbox()
    with pytest.raises(ValueError, match="the picture's size, 3×2, got 2×2"):
        to_mask(WHERE, (3, 2))


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
