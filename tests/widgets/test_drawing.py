"""Frames that are still being drawn while the slider is there."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from smoothnb import BlendSlider, MixingSlider, coarse_to_fine, interpolate

ORDER = [0, 1, 0.5]


class Painter:
    """An iterator of grey frames that draws each when it may, and notes by its name that it did."""

    def __init__(self, greys, name="", log=None, may=0):
        self.greys, self.name, self.log = iter(greys), name, [] if log is None else log
        self.gate = threading.Semaphore(may)

    def __iter__(self):
        return self

    def __next__(self):
        grey = next(self.greys)
        assert self.gate.acquire(timeout=10)
        self.log.append(self.name)
        if isinstance(grey, Exception):
            raise grey
        return Image.new("RGB", (8, 4), (grey, grey, grey))


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


def shown(slider, row=0):
    """By place, the number of the frame that the browser shows; -1 for none."""
    return slider._shown[row]


def greys(slider, name=""):
    return [frame and frame.getpixel((0, 0))[0] for frame in slider.frames[name]]


def test_the_nearest_frame_stands_in_for_those_to_come():
    painter = Painter([10, 30, 20])
    slider = MixingSlider(painter, ORDER)
    assert shown(slider) == [-1, -1, -1]
    assert slider._status == "0 of 3 pictures drawn: the nearest one is shown instead of the others"
    painter.gate.release()
    until(lambda: shown(slider) == [0, 0, 0])
    painter.gate.release()
    until(lambda: shown(slider) == [0, 0, 2])
    assert greys(slider) == [10, None, 30]
    until(lambda: slider._status.startswith("2 of 3"))
    assert slider._drawing
    painter.gate.release()
    assert slider.wait() is slider
    assert (shown(slider), greys(slider)) == ([0, 1, 2], [10, 20, 30])
    assert slider._status == "" and not slider._drawing


def test_rows_take_turns_and_the_first_picture_does_not_wait_for_the_second():
    log = []
    base, smooth = Painter([1, 2, 3], "base", log), Painter([4, 5, 6], "smooth", log)
    slider = MixingSlider({"base": base, "smooth": smooth}, ORDER)
    base.gate.release()
    until(lambda: shown(slider, 0) == [0, 0, 0])
    assert shown(slider, 1) == [-1, -1, -1]
    base.gate.release(2)
    smooth.gate.release(3)
    slider.wait()
    assert log == ["base", "smooth"] * 3


def test_rows_that_are_there_stand_beside_rows_to_come():
    ready = [Image.new("RGB", (8, 4), (g, g, g)) for g in (1, 3, 2)]
    slider = MixingSlider({"ready": ready, "to come": Painter([4, 6, 5], may=3)}, ORDER).wait()
    assert (greys(slider, "ready"), greys(slider, "to come")) == ([1, 2, 3], [4, 5, 6])


def test_the_slider_moves_while_frames_come():
    painter = Painter([10, 30, 20], may=1)
    slider = MixingSlider(painter, ORDER)
    slider.set_state({"index": 2})
    assert slider.value == 1
    painter.gate.release(2)
    slider.wait()
    assert slider.index == 2


def test_levels_of_smoothness_may_be_to_come_too():
    slider = BlendSlider({0.0: Painter([1, 3, 2], may=3), 1.0: Painter([4, 6, 5], may=3)}, ORDER).wait()
    slider.smoothness = 1
    assert greys(slider, "smoothness 1.00") == [4, 5, 6]


@pytest.mark.parametrize(
    ("drawn", "error", "message"),
    [
        ([10, OSError("no room")], OSError, "no room"),
        ([10], ValueError, "expected 3 frames in every row, got 1"),
        ([10, 30, 20, 40], ValueError, "expected 3 frames in every row, one for each ratio, got more"),
    ],
)
def test_what_goes_wrong_is_shown_and_raised_by_wait(drawn, error, message):
    slider = MixingSlider(Painter(drawn, may=9), ORDER)
    for _ in range(2):
        with pytest.raises(error, match=message):
            slider.wait()
    assert f"{error.__name__}: {message}" in slider._status
    assert shown(slider)[0] == 0
    with pytest.raises(error, match=message):
        slider.save("never.gif")


def test_other_things_than_pictures_are_named():
    with pytest.raises(TypeError, match="frames as PIL images, got str"):
        MixingSlider(iter(["a", "b"]), [0, 1]).wait()


@pytest.mark.parametrize("end", [lambda s: s.stop(), lambda s: s.close(), lambda s: s._handle_custom_msg("stop", [])])
def test_a_stopped_slider_keeps_what_it_has(end):
    painter = Painter([10, 30, 20], may=1)
    slider = MixingSlider(painter, ORDER)
    until(lambda: shown(slider) == [0, 0, 0])
    end(slider)
    painter.gate.release(9)
    with pytest.raises(RuntimeError, match=r"stopped after \d of 3 pictures"):
        slider.wait()
    assert greys(slider)[:2] == [10, None]


def test_ctrl_c_in_wait_stops_the_drawing(monkeypatch):
    painter = Painter([10, 30, 20], may=1)
    slider = MixingSlider(painter, ORDER)
    until(lambda: greys(slider)[0] == 10)

    def interrupted(timeout):
        raise KeyboardInterrupt

    # A real signal would reach whichever place of the main thread it finds, pytest's own among them.
    with monkeypatch.context() as patch:
        patch.setattr(slider._drawer._over, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            slider.wait()
    painter.gate.release(9)
    with pytest.raises(RuntimeError, match="stopped"):
        slider.wait()
    assert greys(slider)[0] == 10


def test_a_new_slider_stops_the_one_before_it():
    log = []
    first = Painter([10, 30, 20], "first", log, may=1)
    one = MixingSlider(first, ORDER)
    until(lambda: log == ["first"])
    two = MixingSlider(Painter([1, 3, 2], "second", log, may=9), ORDER)
    first.gate.release(9)
    two.wait()
    assert log[-3:] == ["second"] * 3
    assert log.count("first") <= 2  # the frame at hand is finished
    with pytest.raises(RuntimeError, match=r"stopped after \d of 3"):
        one.wait()


def test_frames_to_come_need_their_ratios():
    with pytest.raises(ValueError, match="expected etas for frames that are still to be drawn"):
        MixingSlider(Painter([1]))
    with pytest.raises(ValueError, match="expected some etas"):
        MixingSlider(Painter([1]), [])


def test_interpolations_of_two_models_come_together(tiny_pipe):
    etas = coarse_to_fine(5)
    paths = {
        name: interpolate(tiny_pipe, *seeds, etas, "a house", num_inference_steps=2, batch_size=1)
        for name, seeds in {"there": (1, 2), "back": (2, 1)}.items()
    }
    found = MixingSlider(paths, etas).wait().frames
    for there, back in zip(found["there"], reversed(found["back"]), strict=True):
        assert np.abs(np.asarray(there, int) - np.asarray(back, int)).max() <= 2
