import base64
import io

import pytest
import traitlets
from PIL import Image

from smoothnb import BlendSlider

LEVELS = {0.0: [0, 10, 20], 0.5: [100, 110, 120], 1.0: [200, 210, 220]}


def frames(levels=LEVELS):
    return {level: [Image.new("RGB", (8, 4), (g, g, g)) for g in greys] for level, greys in levels.items()}


def state(slider):
    place = slider._shown[slider.level][slider.index]
    picture = Image.open(io.BytesIO(base64.b64decode(getattr(slider, f"_picture_{slider.level}_{place}"))))
    return slider.level, slider.smoothness, slider._levels[slider.level], slider.index, picture.getpixel((0, 0))[0]


@pytest.mark.parametrize(
    "move",
    [
        lambda s: setattr(s, "level", 1),
        lambda s: setattr(s, "smoothness", 0.5),
        lambda s: setattr(s, "smoothness", 0.6),
        lambda s: s.set_state({"level": 1}),  # as the browser does
    ],
)
def test_all_ways_to_choose_a_level_show_the_same(move):
    slider = BlendSlider(frames())
    assert state(slider) == (0, 0.0, "smoothness 0.00", 0, 0)
    move(slider)
    assert state(slider) == (1, 0.5, "smoothness 0.50", 0, 100)


def test_the_ratio_stays_where_it_is_when_the_level_changes_and_the_level_when_the_ratio_does():
    slider = BlendSlider(frames())
    slider.index = 2
    slider.level = 2
    assert state(slider) == (2, 1.0, "smoothness 1.00", 2, 220)
    slider.value = 0.5
    assert state(slider) == (2, 1.0, "smoothness 1.00", 1, 210)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({}, "increasing smoothness"),
        ({1.0: [1], 0.0: [1]}, "increasing smoothness"),
        ({0.0: [1, 2], 1.0: [1]}, "equal length, got .*: 2, .*: 1"),
    ],
)
def test_wrong_paths_are_named(levels, message):
    with pytest.raises(ValueError, match=message):
        BlendSlider(frames(levels))


def test_a_level_that_is_not_there_is_named():
    with pytest.raises(traitlets.TraitError, match="from 0 to 2, got 3"):
        BlendSlider(frames()).level = 3
