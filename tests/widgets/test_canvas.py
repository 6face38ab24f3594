import base64
import io

import numpy as np
import pytest
import traitlets
from PIL import Image

from smoothnb.widgets.canvas import DragCanvas

PICTURE = Image.new("RGB", (40, 20), "#2f6690")
LEFT = np.arange(40) < 10
MASK = np.broadcast_to(LEFT, (20, 40))


@pytest.fixture
def canvas():
    return DragCanvas(PICTURE, handles=[(1, 2), (5, 6)], targets=[(3, 4), (7, 8)], mask=MASK)


def from_browser(opaque):
    """A mask as a browser sends it: any colour, opaque where it was painted."""
    alpha = Image.fromarray(np.where(opaque, 255, 0).astype("uint8"))
    picture = Image.new("RGBA", alpha.size, "#ffd23f")
    picture.putalpha(alpha)
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def white(canvas):
    return None if canvas.mask is None else np.asarray(canvas.mask) == 255


def test_handles_targets_and_mask_are_as_given(canvas):
    assert canvas.arrows == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert canvas.handles == [(1, 2), (5, 6)] and canvas.targets == [(3, 4), (7, 8)]
    assert canvas.mask.mode == "L" and set(np.unique(canvas.mask)) == {0, 255}
    np.testing.assert_array_equal(white(canvas), MASK)
    sent = Image.open(io.BytesIO(base64.b64decode(canvas._picture)))
    assert sent.size == PICTURE.size and sent.tobytes() == PICTURE.tobytes()


def test_a_picture_is_enough():
    canvas = DragCanvas(np.zeros((20, 40, 3), dtype=np.uint8))
    assert canvas.picture.size == (40, 20)
    assert (canvas.arrows, canvas.handles, canvas.targets, canvas.mask) == ([], [], [], None)


def test_the_corners_are_within_the_picture_and_points_are_rounded_to_a_tenth(canvas):
    canvas.arrows = [[0, 0, 40, 20], (1.26, 2.999, 39.96, 1)]
    assert canvas.arrows == [[0, 0, 40, 20], [1.3, 3, 40, 1]]


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(MASK),  # mode "1"
        Image.fromarray(np.where(MASK, 128, 127).astype("uint8")),
        Image.fromarray(np.where(MASK, 255, 0).astype("uint8")).convert("RGB"),
    ],
)
def test_masks_are_pictures_too(mask):
    canvas = DragCanvas(PICTURE)
    canvas.mask = mask
    np.testing.assert_array_equal(white(canvas), MASK)
    canvas.mask = canvas.mask
    np.testing.assert_array_equal(white(canvas), MASK)
    canvas.mask = None
    assert canvas.mask is None


def test_what_the_browser_sends_is_taken(canvas):
    canvas.set_state({"arrows": [[1, 1, 9.5, 9]], "_mask": from_browser(~MASK)})
    assert canvas.handles == [(1, 1)] and canvas.targets == [(9.5, 9)]
    np.testing.assert_array_equal(white(canvas), ~MASK)


def test_undo_goes_back_change_by_change(canvas):
    canvas.arrows = [[1, 1, 9, 9]]
    canvas.mask = ~MASK
    canvas.arrows = []
    canvas.undo()
    assert canvas.handles == [(1, 1)]
    canvas.undo()
    np.testing.assert_array_equal(white(canvas), MASK)
    assert canvas.handles == [(1, 1)]
    for _ in range(2):  # once more than there are changes
        canvas.undo()
        assert canvas.handles == [(1, 2), (5, 6)]
        np.testing.assert_array_equal(white(canvas), MASK)
    canvas.arrows = [[1, 1, 9, 9]]
    canvas.undo()
    assert canvas.handles == [(1, 2), (5, 6)]


@pytest.mark.parametrize("clear", [DragCanvas.clear, lambda c: c.set_state({"arrows": [], "_mask": ""})])
def test_clearing_is_one_step_to_undo(canvas, clear):
    clear(canvas)
    assert (canvas.arrows, canvas.mask) == ([], None)
    # As the button of the browser does.
    canvas._handle_custom_msg("undo", [])
    assert canvas.handles == [(1, 2), (5, 6)]
    np.testing.assert_array_equal(white(canvas), MASK)


def test_setting_what_is_there_is_no_change(canvas):
    canvas.arrows = []
    canvas.arrows = []
    canvas.mask = MASK
    canvas.undo()
    assert canvas.handles == [(1, 2), (5, 6)]


def test_it_says_what_is_on_it(canvas):
    assert repr(canvas) == "DragCanvas(40×20, 2 arrows, with a mask)"
    canvas.arrows, canvas.mask = canvas.arrows[:1], None
    assert repr(canvas) == "DragCanvas(40×20, 1 arrow)"
    canvas.clear()
    assert repr(canvas) == "DragCanvas(40×20, 0 arrows)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"handles": [(1, 2)]}, "a target for each handle, got 1 handles and 0 targets"),
        ({"handles": [(1, 2, 3)], "targets": [(1, 2)]}, r"every handle as \(x, y\) in pixels, got \(1, 2, 3\)"),
        ({"handles": [(1, 2)], "targets": [(1, 2), (3,)]}, r"every target as \(x, y\)"),
        (
            {"handles": [(41, 2)], "targets": [(1, 2)]},
            r"handle \(41, 2\) lies outside .* x from 0 to 40, y from 0 to 20",
        ),
        ({"handles": [(1, 2)], "targets": [(1, -0.5)]}, r"target \(1, -0.5\) lies outside"),
        ({"handles": [(1, 2)], "targets": [(float("nan"), 2)]}, r"every target as \(x, y\)"),
        ({"mask": np.ones((40, 20), dtype=bool)}, "a mask of the picture's size, 40×20, got 20×40"),
        ({"mask": np.zeros((20, 40), dtype=bool)}, "white somewhere"),
        ({"mask": np.full((20, 40), 2.0)}, r"pixels in \[0, 1\]"),
    ],
)
def test_wrong_arguments_say_what_came(options, message):
    with pytest.raises(ValueError, match=message):
        DragCanvas(PICTURE, **options)


def test_a_mask_is_what_it_is_for_drag(canvas):
    layer = np.full((20, 40, 4), 255, np.uint8)
    layer[..., 3] = 255 * MASK
    for mask in (layer, MASK.astype(float), MASK.astype(np.uint8), Image.fromarray(layer)):
        canvas.mask = None
        canvas.mask = mask
        np.testing.assert_array_equal(white(canvas), MASK)


@pytest.mark.parametrize(
    ("arrows", "message"),
    [
        ([[1, 2, 3]], r"arrows as \[x0, y0, x1, y1\], got \[\[1, 2, 3\]\]"),
        ([1, 2, 3, 4], "arrows as"),
        # What a browser could send.
        ([[1, 2, 3, None]], "arrows as"),
        ([[1, 2, float("inf"), 4]], r"every end of an arrow as \(x, y\)"),
        ([[1, 2, 3, 4], [1, 2, 3, 20.4]], r"\(3, 20.4\) lies outside .* y from 0 to 20"),
    ],
)
def test_wrong_arrows_raise_and_change_nothing(canvas, arrows, message):
    for change in (lambda: setattr(canvas, "arrows", arrows), lambda: canvas.set_state({"arrows": arrows})):
        with pytest.raises(traitlets.TraitError, match=message):
            change()
        assert canvas.handles == [(1, 2), (5, 6)]
    canvas.undo()
    assert canvas.handles == [(1, 2), (5, 6)]
