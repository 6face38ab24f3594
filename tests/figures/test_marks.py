"""Arrows and masks drawn on pictures."""

import numpy as np
import pytest
from PIL import Image

from smoothnb.figures import mark

GREY = Image.new("RGB", (64, 32), (100, 100, 100))


def test_what_is_dragged_where_is_seen():
    mask = Image.new("L", (64, 32))
    mask.paste(255, (0, 0, 32, 32))
    sheet = np.asarray(mark(GREY, [(8, 16)], [(24, 16)], mask=mask, width=256)).astype(int)
    assert sheet.shape == (128, 256, 3)
    assert sheet[64, 32, 0] > sheet[64, 32, 2] + 60, "the handle is red"
    assert sheet[64, 96, 2] > sheet[64, 96, 0] + 60, "the target is blue"
    assert (sheet[64, 60] > 200).all(), "the line between is white"
    assert (sheet[5, 5] == 100).all() and (sheet[5, 250] == 45).all(), "what may not change is darker"


def test_a_path_is_drawn_through_its_points():
    sheet = np.asarray(mark(GREY, paths=[[(8, 8), (40, 8), (40, 24)]], width=256))
    for x, y in ((8, 8), (24, 8), (40, 16), (40, 24)):
        assert (sheet[4 * y, 4 * x] > 200).all()


def test_what_does_not_pair_up_is_named():
    with pytest.raises(ValueError, match="one for each of 2 handles, got 1"):
        mark(GREY, [(1, 2), (3, 4)], [(5, 6)])
    with pytest.raises(ValueError, match="mask of the picture's size"):
        mark(GREY, mask=Image.new("L", (8, 8)))
