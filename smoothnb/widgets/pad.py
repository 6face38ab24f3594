"""A pad over mixes of four noises."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import traitlets
from PIL import Image

from smoothnb._utils.checks import at_least
from smoothnb._utils.files import expanded
from smoothnb.figures.strips import MARGIN, rows_of, strip
from smoothnb.images import save_picture
from smoothnb.widgets.viewer import FrameViewer


def pad_weights(rows: int, columns: int | None = None) -> np.ndarray:
    """Bilinear weights of four noises over a grid, for `mix`.

    At a point (u, v), with u to the right and v downwards, they are (1 - u)(1 - v), u (1 - v), (1 - u) v and u v for
    the corners top left, top right, bottom left and bottom right.

    Args:
        rows: Number of rows, at least 2.
        columns: Number of columns, at least 2; by default equal to rows.

    Returns:
        Weights of points × corners, row by row. They are at least 0, and sum to 1 at each point.

    Raises:
        ValueError: If there are fewer than two rows or columns.
    """
    columns = rows if columns is None else columns
    at_least(2, rows=rows, columns=columns)
    v, u = (x.ravel() for x in np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij"))
    return np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], axis=1)


class MixingPad(FrameViewer):
    """A square pad over pictures between four noises at its corners; click or drag on it, or use the arrow keys.

    `mix(noises, pad_weights(n))` gives the noises. All pictures are sent to the browser, which swaps them on its own.
    Without a browser, set `u` and `v`, or `index` and `level`.

    Args:
        frames: PIL images of the grid, row by row, in the order of `pad_weights`.
        columns: Number of columns; by default the grid is square.
        corners: Names of the noises: top left, top right, bottom left, bottom right.
        width: Width of the picture and of the pad on screen, in pixels.

    Attributes:
        u: Horizontal position in [0, 1], from the left. Setting it shows the nearest picture.
        v: Vertical position in [0, 1], from the top. Setting it shows the nearest picture.
        index: Index of the column.
        level: Index of the row.
        weights: Weights of the four noises at the picture shown.

    Raises:
        ValueError: If there are fewer than two rows or columns, frames do not fill the rows, or there are not four
            names.
        TypeError: If a frame is not a PIL image.
    """

    _control = traitlets.Unicode("pad").tag(sync=True)
    u = traitlets.Float(0.0)
    v = traitlets.Float(0.0)

    def __init__(
        self,
        frames: Sequence[Image.Image],
        columns: int | None = None,
        corners: Sequence[str] = ("A", "B", "C", "D"),
        width: int = 320,
    ):
        frames = list(frames)
        count = len(frames)
        columns = math.isqrt(count) if columns is None else columns
        if columns < 2 or count % columns or count // columns < 2:
            raise ValueError(f"expected at least two rows of {max(2, columns)} columns, got {count} frames")
        if len(corners) != 4:
            raise ValueError(f"expected four names of corners, got {len(corners)}")
        rows = rows_of({f"row {i}": frames[i * columns : (i + 1) * columns] for i in range(count // columns)})
        self.corners = list(corners)
        self._us, self._vs = (np.linspace(0, 1, n).tolist() for n in (columns, len(rows)))
        self._weights = pad_weights(len(rows), columns).reshape(len(rows), columns, 4)
        captions = [[self._caption(weights) for weights in row] for row in self._weights]
        super().__init__(list(rows), self._us, captions, width, _corners=self.corners)
        with self.hold_sync():
            for r, row in enumerate(rows.values()):
                for c, frame in enumerate(row):
                    self._put(r, c, frame)
        self.observe(lambda change: setattr(self, "u", self._us[change["new"]]), names="index")
        self.observe(lambda change: setattr(self, "v", self._vs[change["new"]]), names="level")
        self.observe(lambda change: setattr(self, "index", self._us.index(change["new"])), names="u")
        self.observe(lambda change: setattr(self, "level", self._vs.index(change["new"])), names="v")

    def __repr__(self) -> str:
        return f"MixingPad({len(self._vs)} × {len(self._us)} pictures between {', '.join(self.corners)})"

    @property
    def weights(self) -> np.ndarray:
        return self._weights[self.level, self.index]

    def sheet(self, size: int = 112) -> Image.Image:
        """All pictures on one sheet, each `size` pixels wide."""
        sheets = [strip(row, size=size) for row in self.frames.values()]
        # Neighbouring rows share a margin.
        step = sheets[0].height - MARGIN
        whole = Image.new("RGB", (sheets[0].width, step * len(sheets) + MARGIN), "white")
        for r, sheet in enumerate(sheets):
            whole.paste(sheet, (0, r * step))
        return whole

    def save(self, path: str | Path, size: int = 112) -> Path:
        """Saves `sheet` to a picture file, and returns the path; missing folders are created.

        Raises:
            ValueError: If Pillow does not know the suffix.
        """
        path = expanded(path)
        save_picture(self.sheet(size), path)
        return path

    @traitlets.validate("u", "v")
    def _valid_ratio(self, proposal: dict) -> float:
        value, name = proposal["value"], proposal["trait"].name
        if not math.isfinite(value):
            raise traitlets.TraitError(f"expected {name} as a finite number, got {value}")
        return min(self._us if name == "u" else self._vs, key=lambda ratio: abs(ratio - value))

    def _caption(self, weights: np.ndarray) -> str:
        return " · ".join(f"{name} {weight:.2f}" for name, weight in zip(self.corners, weights, strict=True))
