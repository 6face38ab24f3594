"""A canvas to draw arrows and a mask on a picture."""

import base64
import io
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from PIL import Image

from smoothnb._utils.checks import PointList, at_least, check_points
from smoothnb.images import ImageLike, to_mask, to_rgb

HERE = Path(__file__).parent
Point = tuple[float, float]
"""x to the right and y downwards, in pixels of the picture: it spans [0, width] × [0, height]."""


class DragCanvas(anywidget.AnyWidget):
    """A picture to draw on: arrows from handles to targets, and a mask of the region that may change.

    Drag from a handle to its target to draw an arrow; drag one of its ends to move it. "paint" and "erase" draw the
    mask. After a click on the picture, keys work too: arrow keys (with Shift by 10 pixels), Enter to press and release,
    Escape, Delete, Ctrl+Z. Without a browser, pass handles, targets and mask, or set `arrows` and `mask`, which also
    updates the browser.

        canvas = sn.DragCanvas("house.png", handles=[(88, 180)], targets=[(88, 120)])

    Args:
        picture: The picture, in any form that `encode` takes.
        handles: Points (x, y) to drag, in pixels of the picture.
        targets: One target for each handle.
        mask: The initial `mask`.
        width: Width of the picture on screen, in pixels.

    Attributes:
        picture: The picture in mode RGB.
        arrows: [x0, y0, x1, y1] from each handle to its target, in pixels rounded to a tenth. Set a new list to change
            them.

    Raises:
        ValueError: If handles and targets differ in number, a point lies outside the picture, or the mask differs in
            size from the picture or is black everywhere. Setting `arrows` raises traitlets.TraitError instead.
        TypeError: If the mask has another type.
    """

    _esm = HERE / "canvas.js"
    # The style is shared with the other widgets.
    _css = "".join((HERE / name).read_text(encoding="utf-8") for name in ("frames.css", "canvas.css"))

    arrows = traitlets.List().tag(sync=True)
    _picture = traitlets.Unicode().tag(sync=True)
    # A PNG as text, opaque where the picture may change, which a browser can draw directly; "" for no mask.
    _mask = traitlets.Unicode().tag(sync=True)
    _width = traitlets.Int().tag(sync=True)
    _status = traitlets.Unicode().tag(sync=True)
    # Disables drawing.
    _busy = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        picture: ImageLike,
        handles: PointList = (),
        targets: PointList = (),
        mask: ImageLike | None = None,
        width: int = 384,
    ):
        at_least(1, width=width)
        self.picture = to_rgb(picture)
        starts, ends = (
            check_points(name, points, self.picture.size) for name, points in (("handle", handles), ("target", targets))
        )
        if len(starts) != len(ends):
            raise ValueError(f"expected a target for each handle, got {len(starts)} handles and {len(ends)} targets")
        arrows = [[*start, *end] for start, end in zip(starts, ends, strict=True)]
        # The undo history is kept here, as the browser loses it with the view.
        self._history: list[tuple[list, str]] = []
        super().__init__(
            arrows=arrows, _mask=self._encoded(mask), _picture=_png_text(self.picture), _width=width,
        )  # fmt: skip
        self._state = (self.arrows, self._mask)
        self.observe(self._remember, names=["arrows", "_mask"])
        self.on_msg(lambda _, message, __: self.undo() if message == "undo" else None)

    def __repr__(self) -> str:
        width, height = self.picture.size
        count = len(self.arrows)
        mask = ", with a mask" if self._mask else ""
        return f"DragCanvas({width}×{height}, {count} arrow{'' if count == 1 else 's'}{mask})"

    @property
    def handles(self) -> list[Point]:
        """Points (x, y) to drag."""
        return [(x, y) for x, y, _, _ in self.arrows]

    @property
    def targets(self) -> list[Point]:
        """Targets of the handles."""
        return [(x, y) for _, _, x, y in self.arrows]

    @property
    def mask(self) -> Image.Image | None:
        """White (255) where the picture may change, black (0) elsewhere; None if all of it may change.

        Set it to a picture of the same size, as in `to_mask`, or to None.
        """
        if not self._mask:
            return None
        alpha = Image.open(io.BytesIO(base64.b64decode(self._mask))).convert("RGBA").getchannel("A")
        return alpha.point(lambda value: 255 * (value > 127))

    @mask.setter
    def mask(self, mask: ImageLike | None) -> None:
        self._mask = self._encoded(mask)

    def clear(self) -> None:
        """Removes all arrows and the mask; `undo` restores them."""
        self._set([], "")

    def undo(self) -> None:
        """Reverts the last change to arrows or mask, if there is one."""
        if self._history:
            self._state = self._history.pop()
            self._set(*self._state)

    def _set(self, arrows: list, mask: str) -> None:
        # As one change, and one step to undo.
        with self.hold_trait_notifications():
            self.arrows, self._mask = arrows, mask

    def _remember(self, _: object) -> None:
        state = (self.arrows, self._mask)
        if state != self._state:
            self._history.append(self._state)
            self._state = state

    def _encoded(self, mask: ImageLike | None) -> str:
        if mask is None:
            return ""
        grey = to_mask(mask, self.picture.size)
        if not grey.getbbox():
            raise ValueError(
                "expected a mask that is white somewhere, got a black one: use None to let all of it change"
            )
        return _png_text(Image.merge("LA", [Image.new("L", grey.size, 255), grey]))

    @traitlets.validate("arrows")
    def _valid_arrows(self, proposal: dict) -> list[list[float]]:
        arrows = proposal["value"]
        try:
            if any(np.shape(arrow) != (4,) or None in arrow for arrow in arrows):
                raise ValueError(f"expected arrows as [x0, y0, x1, y1], got {arrows!r}")
            ends = [end for arrow in arrows for end in (arrow[:2], arrow[2:])]
            return np.reshape(check_points("end of an arrow", ends, self.picture.size), (-1, 4)).round(1).tolist()
        except (TypeError, ValueError) as error:
            raise traitlets.TraitError(str(error)) from error


def _png_text(picture: Image.Image) -> str:
    # As text, because Colab can lose binary messages of custom widgets.
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()
