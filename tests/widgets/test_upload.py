import io

import pytest
from PIL import Image

from smoothnb import PictureUpload

DEFAULT = Image.new("RGB", (4, 4), (1, 2, 3))


def file_of(picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, "png", **options)
    return {"name": "mine.png", "type": "image/png", "size": 1, "last_modified": 0, "content": buffer.getvalue()}


def test_until_a_picture_is_chosen_another_stands_in():
    upload = PictureUpload(DEFAULT)
    assert upload.picture == DEFAULT and not upload.chosen
    assert repr(upload) == "PictureUpload(no picture chosen yet)"
    # In ipywidgets 7 it has none.
    assert not upload.has_trait("tooltip") or "picture" in upload.tooltip


def test_the_picture_chosen_is_rgb_and_upright():
    upload = PictureUpload(DEFAULT)
    turned = Image.Exif()
    turned[0x0112] = 6
    file = file_of(Image.new("L", (4, 2), 77), exif=turned)
    upload._trait_values["value"] = (file,)
    assert upload.chosen and upload.picture.mode == "RGB"
    assert upload.picture.size == (2, 4) and upload.picture.getpixel((0, 0)) == (77, 77, 77)


def test_the_value_of_ipywidgets_7_is_understood():
    upload = PictureUpload(DEFAULT)
    upload._trait_values["value"] = {"mine.png": file_of(Image.new("RGB", (3, 3), (9, 8, 7)))}
    assert upload.picture.getpixel((0, 0)) == (9, 8, 7)


def test_other_files_are_refused():
    upload = PictureUpload(DEFAULT)
    upload._trait_values["value"] = (file_of(DEFAULT) | {"content": b"text"},)
    with pytest.raises(ValueError, match="not a picture that Pillow can read"):
        _ = upload.picture
