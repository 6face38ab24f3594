import base64
import io

import numpy as np
import pytest
import traitlets
from PIL import Image

from smoothnb import MixingSlider, strip
from smoothnb.widgets import viewer

GREYS = [0, 60, 120, 180, 240]


def frames(greys=GREYS, size=(8, 4)):
    return [Image.new("RGB", size, (g, g, g)) for g in greys]


def shown(slider, row=0):
    """The grey of the picture that the browser shows in a row."""
    place = slider._shown[row][slider.index]
    if place < 0:
        return None
    picture = Image.open(io.BytesIO(base64.b64decode(getattr(slider, f"_picture_{row}_{place}"))))
    return picture.getpixel((0, 0))[0]


def state(slider):
    return slider.index, slider.value, slider._captions[0][slider.index], shown(slider)


def test_the_first_frame_is_shown_at_the_start():
    assert state(MixingSlider(frames())) == (0, 0.0, "η = 0.00", 0)


@pytest.mark.parametrize(
    "move",
    [
        lambda s: setattr(s, "index", 3),
        lambda s: setattr(s, "value", 0.75),
        lambda s: setattr(s, "value", 0.7),
        lambda s: s.set_state({"index": 3}),  # as the browser does
    ],
)
def test_all_ways_to_move_show_the_same(move):
    slider = MixingSlider(frames())
    move(slider)
    assert state(slider) == (3, 0.75, "η = 0.75", 180)
    slider.value = -5
    assert state(slider) == (0, 0.0, "η = 0.00", 0)


def test_ratios_that_are_not_even_snap_to_the_nearest():
    slider = MixingSlider(frames([0, 50, 100]), etas=[0, 0.1, 1])
    slider.value = 0.5
    assert (slider.index, slider.value) == (1, 0.1)
    assert state(slider)[2] == "η = 0.10"


def test_frames_in_any_order_are_sorted_by_their_ratio():
    slider = MixingSlider(frames([0, 240, 120]), etas=[0, 1, 0.5], labels=["start", "end", "middle"])
    assert slider.etas == [0, 0.5, 1]
    assert slider._captions == [["start", "middle", "end"]]
    slider.value = 0.5
    assert shown(slider) == 120
    assert [frame.getpixel((0, 0))[0] for frame in slider.frames[""]] == [0, 120, 240]


def test_labels_replace_captions():
    slider = MixingSlider(frames([0, 50]), labels=["noise A", "noise B"])
    slider.index = 1
    assert state(slider)[2] == "noise B"


def test_rows_move_together():
    slider = MixingSlider({"base": frames([0, 50]), "smooth": frames([100, 150])})
    slider.index = 1
    assert (shown(slider, 0), shown(slider, 1)) == (50, 150)
    assert slider._names == ["base", "smooth"]


def test_where_no_widget_runs_a_line_of_text_stands_in():
    assert MixingSlider(frames())._repr_mimebundle_()[0]["text/plain"] == "MixingSlider(5 frames, η from 0 to 1)"
    assert repr(MixingSlider(frames(), range(5), axis="sampling step")) == "MixingSlider(5 frames, step from 0 to 4)"


def test_a_single_frame_is_enough():
    assert state(MixingSlider(frames([77]))) == (0, 0.0, "η = 0.00", 77)


def test_frames_are_encoded_once(monkeypatch):
    calls = []
    encode = viewer.png
    monkeypatch.setattr(viewer, "png", lambda *args: calls.append(args) or encode(*args))
    slider = MixingSlider(frames())
    slider.index = 4
    slider.index = 0
    assert len(calls) == len(GREYS)


def test_small_frames_are_enlarged_and_large_ones_kept():
    sizes = [Image.open(io.BytesIO(viewer.png(f, 40))).size for f in (frames(size=(8, 4))[0], frames(size=(80, 40))[0])]
    assert sizes == [(40, 20), (80, 40)]


@pytest.mark.parametrize(("trait", "wrong"), [("index", 5), ("index", -1), ("value", float("nan"))])
def test_positions_that_do_not_exist_raise_and_change_nothing(trait, wrong):
    slider = MixingSlider(frames())
    slider.index = 2
    before = state(slider)
    with pytest.raises(traitlets.TraitError):
        setattr(slider, trait, wrong)
    assert state(slider) == before


WRONG_FRAMES = [
    ([], ValueError, "at least one frame"),
    ({}, ValueError, "no rows"),
    ({"a": []}, ValueError, "at least one frame"),
    ({"a": frames([1]), "b": frames([1, 2])}, ValueError, "equal length, got {'a': 1, 'b': 2}"),
]


@pytest.mark.parametrize(("given", "error", "message"), WRONG_FRAMES)
@pytest.mark.parametrize("make", [MixingSlider, strip])
def test_wrong_frames_say_what_came(make, given, error, message):
    with pytest.raises(error, match=message):
        make(given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"etas": [0, 1]}, "expected 5 etas, one for each frame, got 2"),
        ({"labels": ["a"]}, "expected 5 labels, one for each frame, got 1"),
        ({"etas": [0, 0.2, 0.2, 0.5, 1]}, "differ from one another"),
        ({"etas": [0, 0.2, float("nan"), 0.5, 1]}, "finite"),
    ],
)
def test_wrong_options_say_what_came(options, message):
    with pytest.raises(ValueError, match=message):
        MixingSlider(frames(), **options)


def test_a_strip_shows_every_frame_in_its_place():
    sheet = np.asarray(strip({"base": frames([10, 20]), "smooth": frames([30, 40])}, size=16).convert("L"))
    found = [[g for g in (10, 20, 30, 40) if g in np.unique(half)] for half in np.split(sheet[:, -44:], 2, axis=1)]
    assert found == [[10, 30], [20, 40]]


def test_a_strip_is_as_large_as_its_frames_and_margins():
    assert strip(frames([0, 0, 0]), size=16).size == (6 + 3 * 22, 6 + 14)
    labelled = strip(frames([0, 0, 0]), labels=["η = 0", "", "η = 1"], size=16)
    assert labelled.width == 72
    assert labelled.height > 20


def test_labels_are_drawn_and_counted():
    plain, labelled = (
        np.asarray(strip(frames([255, 255]), labels=labels, size=64).convert("L")) for labels in (None, ["η", "1"])
    )
    assert plain.min() == 255
    assert labelled.min() < 128
    with pytest.raises(ValueError, match="expected 2 labels"):
        strip(frames([0, 0]), labels=["one"])
