"""The drag editor without a browser: arrows set as if drawn, and a stand-in for the drag that goes on when it may."""

import threading
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from smoothnb import DragEditor, Dragged, DragOptions, MixingSlider
from smoothnb.widgets import drag_editor

PICTURE = Image.new("RGB", (96, 64), "#2f6690")
ARROW = {"handles": [(20, 30)], "targets": [(40, 30)]}
GREYS = [Image.new("RGB", (64, 64), (grey, grey, grey)) for grey in (10, 20, 30)]


class Drag:
    """In place of `drag`: takes a step of 5 px whenever it may, and notes what it was called with."""

    def __init__(self, may=99, reason="arrived"):
        self.calls, self.gate, self.reason, self.began = [], threading.Semaphore(may), reason, threading.Event()

    def __call__(self, pipe, image, prompt, handles, targets, mask, options, *, frames, callback, progress):
        self.calls.append(
            {"size": image.size, "handles": handles, "targets": targets, "mask": mask, "frames": frames, "thread":
             threading.current_thread()}
        )  # fmt: skip
        steps, reason = 0, self.reason
        try:
            callback(0, 20.0)
            for steps in range(1, 5):
                self.began.set()
                assert self.gate.acquire(timeout=10)
                callback(steps, 20.0 - 5 * steps)
        except KeyboardInterrupt:
            reason = "interrupted"
            warnings.warn(f"interrupted after {steps} steps: the best so far is drawn", stacklevel=3)
        return Dragged(
            GREYS[-1], torch.zeros(steps + 1, 1, 2), [1.0] * steps, reason, {"motion": 2.25, "sampling": 1.0}, GREYS,
            [0, 2, 4],
        )  # fmt: skip


@pytest.fixture
def stand_in(monkeypatch):
    def stand_in(*args, **options):
        drag = Drag(*args, **options)
        monkeypatch.setattr(drag_editor, "drag", drag)
        return drag

    return stand_in


@pytest.fixture
def edit(tiny_pipe):
    made = []

    def edit(**options):
        made.append(DragEditor(tiny_pipe, PICTURE, "a house", **{**ARROW, **options}))
        return made[-1]

    yield edit
    for editor in made:
        editor.close()


def said(editor):
    """By what the canvas says, in turn."""
    lines = []
    editor.canvas.observe(lambda change: lines.append(change["new"]), names="_status")
    return lines


def shown(editor):
    """What stands next to the canvas."""
    (both,) = editor.children
    assert both.children[0].children[0] is editor.canvas
    return list(both.children[1:])


def test_the_result_stands_beside_the_canvas_with_a_slider_over_the_steps(edit, stand_in):
    stand_in()
    editor = edit()
    assert editor.result is None and editor.slider is None and shown(editor) == []
    lines = said(editor)
    assert editor.drag() is editor and editor.wait() is editor
    assert lines == [
        "inverting the picture", "step 0: 20 px left", "step 1: 15 px left", "step 2: 10 px left",
        "step 3: 5 px left", "step 4: 0 px left, drawing the pictures", "arrived after 4 steps (3.2 s)",
    ]  # fmt: skip
    slider = editor.slider
    assert isinstance(slider, MixingSlider) and shown(editor) == [slider]
    assert slider.frames == {"": GREYS} and slider.etas == [0, 2, 4] and slider.value == 4
    assert slider.labels == ["step 0", "step 2", "step 4"] and slider._axis == "optimization step"
    assert editor.result.picture is GREYS[-1] and editor.error is None and editor.canvas._status


def test_the_drag_is_that_of_the_canvas_at_the_size_of_the_model(edit, stand_in):
    drag = stand_in()
    editor = edit(frames=3)
    assert editor.canvas.picture.size == (64, 64) and editor.canvas._width == 256
    editor.canvas.set_state({"arrows": [[1, 2, 3, 40]]})
    editor.canvas.mask = np.arange(64 * 64).reshape(64, 64) % 64 < 10
    editor._begin.click()
    editor.wait()
    (call,) = drag.calls
    assert (call["size"], call["handles"], call["targets"], call["frames"]) == ((64, 64), [(1, 2)], [(3, 40)], 3)
    assert call["mask"].size == (64, 64) and call["mask"].getbbox() == (0, 0, 10, 64)
    assert call["thread"] is not threading.main_thread()


def test_meanwhile_nothing_can_be_drawn_or_begun(edit, stand_in):
    drag = stand_in(may=0)
    editor = edit()
    assert not editor._begin.disabled and editor._end.layout.visibility == "hidden"
    editor._begin.click()
    assert drag.began.wait(10)
    assert editor.canvas._busy and editor._begin.disabled and editor._end.layout.visibility == "visible"
    editor._begin.click()
    with pytest.raises(RuntimeError, match="a drag is running"):
        editor.drag()
    drag.gate.release(99)
    editor.wait()
    assert not editor.canvas._busy and not editor._begin.disabled and editor._end.layout.visibility == "hidden"
    assert len(drag.calls) == 1


@pytest.mark.parametrize(
    "end", [lambda e: e._end.click(), lambda e: e.stop(), lambda e: MixingSlider(iter(GREYS), [0])]
)
def test_stopped_it_draws_the_best_so_far(edit, stand_in, end):
    drag = stand_in(may=0)
    editor = edit()
    lines = said(editor)
    editor.drag()
    assert drag.began.wait(10)
    end(editor)
    drag.gate.release(99)
    editor.wait()
    assert lines[-2:] == [
        "step 1: 15 px left, drawing the pictures", "stopped after 1 step: the best so far is drawn (3.2 s)",
    ]  # fmt: skip
    assert editor.result.reason == "interrupted" and editor.error is None and editor.slider.frames[""] == GREYS


def test_ctrl_c_in_wait_stops_it(edit, stand_in, monkeypatch):
    drag = stand_in(may=0)
    editor = edit().drag()
    assert drag.began.wait(10)

    def interrupted(timeout):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(editor._drawer._over, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            editor.wait()
    drag.gate.release(99)
    assert editor.wait().result.reason == "interrupted"


def test_a_drag_stopped_before_it_began_says_so(edit, stand_in):
    drag = stand_in(may=0)
    first, second = edit().drag(), edit()
    assert drag.began.wait(10)
    second.drag().stop()
    drag.gate.release(99)
    with pytest.raises(RuntimeError, match="stopped after 0 of 1"):
        second.wait()
    assert second.canvas._status == "stopped before it started" and second.result is None
    assert first.wait().result.reason == "interrupted"


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("steps", "ended after 4 steps: max_steps allows no more (3.2 s)"),
        ("lost", "lost sight of a handle after 4 steps: the best so far is drawn (3.2 s)"),
    ],
)
def test_it_says_why_it_ended(edit, stand_in, reason, message):
    stand_in(reason=reason)
    assert edit().drag().wait().canvas._status == message


def test_what_is_wrong_is_said_and_what_was_there_stays(edit):
    editor = edit(options=DragOptions(num_inference_steps=4, max_steps=2))
    result, slider = editor.drag().wait().result, editor.slider
    arrows = editor.canvas.arrows
    editor.canvas.arrows = []
    with pytest.raises(ValueError, match="there is no arrow yet"):
        editor.drag().wait()
    editor.canvas.arrows = arrows
    editor.canvas.mask = np.arange(64 * 64).reshape(64, 64) % 64 > 50
    with pytest.raises(ValueError, match=r"the mask excludes the handle \(20, 30\)"):
        editor.drag().wait()
    assert editor.canvas._status == str(editor.error) and isinstance(editor.error, ValueError)
    assert editor.result is result and editor.slider is slider and editor.canvas.arrows == arrows
    assert shown(editor) == [slider] and not editor.canvas._busy
    editor.canvas.mask = None
    assert editor.drag().wait().result is not result and editor.error is None
    assert editor.slider is not slider and shown(editor) == [editor.slider]


def test_what_was_said_is_forgotten_once_arrows_or_mask_change(edit, stand_in):
    drag = stand_in(may=0)
    editor = edit().drag()
    assert drag.began.wait(10)
    editor.canvas.arrows = [[1, 2, 30, 40]]
    assert editor.canvas._status
    drag.gate.release(99)
    assert editor.wait().canvas._status.startswith("arrived")
    editor.canvas.undo()
    assert editor.canvas._status == "" and editor.result is not None


def test_errors_that_are_no_fault_of_arrows_say_their_kind(edit, monkeypatch):
    def broken(*_, **__):
        raise FloatingPointError("not finite")

    monkeypatch.setattr(drag_editor, "drag", broken)
    editor = edit()
    with pytest.raises(FloatingPointError, match="not finite"):
        editor.drag().wait()
    assert editor.canvas._status == "FloatingPointError: not finite"


def test_a_real_drag_draws_its_steps(edit):
    editor = edit(options=DragOptions(num_inference_steps=4, max_steps=2), frames=3)
    result = editor.drag().wait().result
    assert editor.slider.frames[""] == result.frames and editor.slider.etas == result.frame_steps
    assert result.picture.size == (64, 64) and editor.canvas._status.endswith(" s)")


def test_a_real_drag_is_stopped_without_a_warning(edit, monkeypatch):
    editor = edit(options=DragOptions(num_inference_steps=4, max_steps=50, arrival=0.001))
    editor.canvas.observe(lambda change: "step 1" in change["new"] and editor.stop(), names="_status")
    assert editor.drag().wait().result.reason == "interrupted"
    assert editor.canvas._status.startswith("stopped after 2 steps: the best so far is drawn")


def test_it_says_what_is_on_it(edit):
    assert repr(edit()) == "DragEditor('a house', DragCanvas(64×64, 1 arrow))"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 1}, "frames of at least 2, got 1"),
        ({"handles": [(80, 30)]}, r"handle \(80, 30\) lies outside .* x from 0 to 64"),
        ({"targets": []}, "a target for each handle"),
    ],
)
def test_wrong_arguments_say_what_came(edit, options, message):
    with pytest.raises(ValueError, match=message):
        edit(**options)
