"""Base of the sliders and the pad: rows of pictures that are sent to the browser once and swapped there."""

import base64
import io
import threading
from collections.abc import Sequence
from pathlib import Path

import anywidget
import traitlets
from PIL import Image

from smoothnb._utils.checks import at_least
from smoothnb.images import to_rgb

HERE = Path(__file__).parent


def png(frame: Image.Image, width: int) -> bytes:
    """Encodes a frame as PNG; smaller frames are enlarged by Lanczos, as browsers blur them."""
    if frame.width < width:
        frame = frame.resize((width, round(frame.height * width / frame.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    to_rgb(frame).save(buffer, "png")
    return buffer.getvalue()


def nearest(positions: Sequence[float], there: Sequence[bool]) -> list[int]:
    """Index of the nearest available position for each position; -1 if there is none."""
    found = [i for i, is_there in enumerate(there) if is_there]
    return [min(found, key=lambda i: abs(positions[i] - position), default=-1) for position in positions]


class FrameViewer(anywidget.AnyWidget):
    """Shows one column of several rows of pictures.

    Args:
        names: Names of the rows.
        positions: Positions of the columns, in increasing order.
        captions: Captions of the columns; one row for each row of pictures, or one for all.
        width: Width of a picture on screen, in pixels.
        traits: Traits of the subclass.

    Attributes:
        index: Index of the column.
        level: Index of the row, if the control selects it.
        frames: Pictures by the name of their row; None for those still to be drawn.
    """

    _esm = HERE / "frames.js"
    _css = HERE / "frames.css"

    index = traitlets.Int(0).tag(sync=True)
    level = traitlets.Int(0).tag(sync=True)
    # "slider" shows all rows side by side; "blend" and "pad" select the row too.
    _control = traitlets.Unicode("slider").tag(sync=True)
    _names = traitlets.List().tag(sync=True)
    _captions = traitlets.List().tag(sync=True)
    _levels = traitlets.List().tag(sync=True)
    _corners = traitlets.List().tag(sync=True)
    _shown = traitlets.List().tag(sync=True)
    _axis = traitlets.Unicode("mixing ratio η").tag(sync=True)
    _width = traitlets.Int().tag(sync=True)
    _interval = traitlets.Int().tag(sync=True)
    _status = traitlets.Unicode().tag(sync=True)
    _drawing = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self, names: Sequence[str], positions: Sequence[float], captions: Sequence[Sequence[str]], width: int, **traits,
    ):  # fmt: skip
        at_least(1, width=width)
        count = len(positions)
        self._positions = list(positions)
        self._lock = threading.RLock()
        self.frames: dict[str, list[Image.Image | None]] = {name: [None] * count for name in names}
        self.add_traits(
            **{_trait(r, i): traitlets.Unicode().tag(sync=True) for r in range(len(self.frames)) for i in range(count)}
        )
        super().__init__(
            _names=list(names), _captions=[list(row) for row in captions], _width=width,
            _shown=[[-1] * count for _ in names], **traits,
        )  # fmt: skip

    def set_state(self, sync_data: dict) -> None:
        # traitlets defers notifications here, and one from the drawing thread could get lost.
        with self._lock:
            super().set_state(sync_data)

    def _put(self, row: int, place: int, frame: object) -> None:
        """Adds a picture, and shows it where none is nearer."""
        if not isinstance(frame, Image.Image):
            raise TypeError(f"expected frames as PIL images, got {type(frame).__name__}")
        # As text, because Colab can lose binary messages of custom widgets.
        encoded = base64.b64encode(png(frame, self._width)).decode()
        with self._lock:
            self.frames[self._names[row]][place] = frame
            setattr(self, _trait(row, place), encoded)
            shown = list(self._shown)
            shown[row] = nearest(self._positions, [f is not None for f in self.frames[self._names[row]]])
            self._shown = shown

    @traitlets.validate("index")
    def _valid_index(self, proposal: dict) -> int:
        return _within(proposal["value"], len(self._positions), "an index")

    @traitlets.validate("level")
    def _valid_level(self, proposal: dict) -> int:
        return _within(proposal["value"], len(self.frames), "a level")


def _trait(row: int, place: int) -> str:
    return f"_picture_{row}_{place}"


def _within(value: int, count: int, what: str) -> int:
    if not 0 <= value < count:
        raise traitlets.TraitError(f"expected {what} from 0 to {count - 1}, got {value}")
    return value
