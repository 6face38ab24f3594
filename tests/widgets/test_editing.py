"""The editing widget without a browser: prompts set as if typed."""

import pytest
from PIL import Image, ImageChops

from smoothnb import EditSlider, difference, load_pipeline
from smoothnb.inversion.ddim import ddim_invert
from smoothnb.postcards import edit_as_stated, example_scene, picture

SOURCE, TARGET = "a red house in a meadow at sunset", "a blue house in a meadow at sunset"


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline("postcard")


@pytest.fixture
def made(pipe):
    scene, inverted = example_scene("house"), []

    def invert(pipe, picture, prompt):
        inverted.append(prompt)
        return ddim_invert(pipe, picture, prompt, 3, progress=False)

    def answer(prompt):
        return picture(edit_as_stated(scene, prompt))

    widget = EditSlider(pipe, picture(scene), SOURCE, TARGET, answer, invert, switches=(0.8, 0.0))
    yield widget, inverted
    widget.slider.stop()


def same(a, b):
    return ImageChops.difference(a, b).getbbox() is None


def test_picture_edit_true_edit_and_difference_stand_side_by_side(made):
    widget, inverted = made
    frames = widget.wait().slider.frames
    assert list(frames) == ["picture", "edit", "true edit", "difference"]
    assert widget.slider.value == 0.8 and widget.slider.etas == [0.0, 0.8]
    held, edited = frames["edit"]
    assert not same(held, edited) and inverted == [SOURCE]
    assert same(frames["difference"][1], difference(frames["picture"][1], edited))
    assert same(frames["true edit"][0], picture(edit_as_stated(example_scene("house"), TARGET)))


def test_another_target_needs_no_new_inversion_and_another_source_does(made):
    widget, inverted = made
    before = widget.wait().slider
    before.value = 0.0
    widget.target.value = "a white house in a meadow at sunset"
    after = widget.wait().slider
    assert after is not before and after.value == 0.0 and widget.children[-1] is after
    assert not same(after.frames["edit"][1], before.frames["edit"][1]) and inverted == [SOURCE]
    widget.source.value = "a house in a meadow at sunset"
    widget.wait()
    assert inverted == [SOURCE, "a house in a meadow at sunset"]


def test_what_is_wrong_is_said_and_the_pictures_stay(made):
    widget, _ = made
    before = widget.slider
    widget.target.value = ""
    assert "target prompt is empty" in widget._said.value and widget.slider is before
    widget.target.value = "a blue <b> in a meadow"
    assert "never seen &quot;b&quot;" in widget._said.value and widget.slider is not before


def test_a_true_edit_that_cannot_be_is_left_out(made):
    widget, _ = made
    widget.target.value = "a red sailboat in a meadow at sunset"
    assert "no true edit is known: a sailboat needs" in widget._said.value
    assert "true edit" not in widget.slider.frames


def test_without_a_scene_there_is_no_true_edit(pipe):
    with pytest.raises(ValueError, match="equal to the source prompt"):
        EditSlider(pipe, picture(example_scene("house")), SOURCE, SOURCE)
    widget = EditSlider(
        pipe, picture(example_scene("house")), SOURCE, TARGET, switches=(0.2,), options={"method": "sdedit"},
        invert=lambda pipe, picture, prompt: ddim_invert(pipe, picture, prompt, 5, progress=False),
    )  # fmt: skip
    assert list(widget.wait().slider.frames) == ["picture", "edit", "difference"]
    assert repr(widget) == f"EditSlider({SOURCE!r} to {TARGET!r})"


def test_a_difference_is_grey_and_as_large_as_the_first():
    a, b = Image.new("RGB", (4, 4), (10, 20, 30)), Image.new("RGB", (8, 8), (20, 20, 10))
    assert difference(a, b, 2).getpixel((0, 0)) == (40, 40, 40)
    assert difference(a, a).getbbox() is None and difference(a, b, 100).getpixel((0, 0)) == (255, 255, 255)
