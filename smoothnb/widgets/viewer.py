"""What the sliders and the pad share: rows of pictures, sent to the browser once, and swapped there."""

import base64
import io
import threading
from collections.abc import Sequence
from pathlib import Path

import anywidget
import traitlets
from PIL import Image

from smoothnb.images import to_rgb

HERE = Path(__file__).parent


def png(frame: Image.Image, width: int) -> bytes:
    """One frame as PNG, smaller ones enlarged to a width in pixels (Lanczos: a browser's own enlarging is blurred)."""
    if frame.width < width:
        frame = frame.resize((width, round(frame.height * width / frame.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    to_rgb(frame).save(buffer, "png")
    return buffer.getvalue()


def nearest(positions: Sequence[float], there: Sequence[bool]) -> list[int]:
    """For each position the number of the nearest one that is there; -1 if none is."""
    found = [i for i, is_there in enumerate(there) if is_there]
    return [min(found, key=lambda i: abs(positions[i] - position), default=-1) for position in positions]


class FrameViewer(anywidget.AnyWidget):
    """Rows of pictures, of which those at one place are on show.

    Args:
        names: Of the rows.
        positions: Of the places along a row, in rising order.
        captions: For each place; a row of them for each row of pictures, or one for all rows.
        width: Of a picture on screen, in pixels.
        traits: Others, as the subclass declares them.

    Attributes:
        index: Number of the place, from 0.
        level: Number of the row, from 0, where the control chooses it.
        frames: By the row's name: the pictures; None where one is still to come.
    """

    _esm = HERE / "frames.js"
    _css = HERE / "frames.css"

    index = traitlets.Int(0).tag(sync=True)
    level = traitlets.Int(0).tag(sync=True)
    # What moves the place: "slider", with all rows side by side; or "blend" or "pad", which choose the row too.
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
        # traitlets holds notifications back meanwhile, and one from a thread that draws could get lost.
        with self._lock:
            super().set_state(sync_data)

    def _put(self, row: int, place: int, frame: object) -> None:
        """Takes a picture in, and shows it where none is nearer."""
        if not isinstance(frame, Image.Image):
            raise TypeError(f"expected frames as PIL images, got {type(frame).__name__}")
        # As text: Colab has lost binary messages of widgets that are not ipywidgets' own.
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
