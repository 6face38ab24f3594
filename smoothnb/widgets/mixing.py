"""Sliders over the mixing ratio η, and over the smoothness of the model."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import traitlets
from PIL import Image
from torch import Tensor

from smoothnb._utils.checks import at_least
from smoothnb.figures.export import save_frames
from smoothnb.figures.strips import rows_of
from smoothnb.widgets.drawing import Drawing
from smoothnb.widgets.viewer import FrameViewer

Row = Sequence[Image.Image] | Iterator[Image.Image]
"""Frames of a path, or an iterator that draws them, such as `interpolate` returns."""


class MixingSlider(FrameViewer):
    """Shows frames along a path between two latents, with a slider and a play button.

    Drag the slider, or click it and use the arrow keys. All frames are sent to the browser, which swaps them on its
    own. Without a browser, set `value` or `index`.

    A row can be an iterator that draws its frames. A background thread then draws one frame after another, alternating
    between rows, and the slider shows the nearest available frame; `wait` waits for all of them. At most one slider
    draws at a time: a new one stops the previous one, as `stop` does. Rows must not share a pipeline whose smoothness
    is changed in between.

        etas = sn.coarse_to_fine(17)
        rows = {"base": sn.interpolate(pipe, 1, 2, etas, prompt, batch_size=1), ...}
        slider = sn.MixingSlider(rows, etas)

    Args:
        frames: PIL images along the path, or an iterator of them; or several rows by name, shown side by side.
        etas: Mixing ratio of each frame, in the order of the frames; by default evenly spaced from 0 to 1. Required for
            iterators. The slider runs from the lowest to the highest.
        labels: A caption for each frame; by default "η = 0.30" and so on.
        width: Width of a picture on screen, in pixels.
        interval: Time between two frames of the play button, in milliseconds.
        axis: Name of the slider's quantity, for screen readers; its last word is shown next to the slider.

    Attributes:
        index: Index of the frame shown.
        value: Its mixing ratio. Setting it shows the nearest frame.
        etas: All mixing ratios, in increasing order.
        frames: Frames by the name of their row ("" for a single one), in this order; None for those still to be drawn.

    Raises:
        ValueError: If there are no frames, rows differ in length, ratios repeat, or frames, etas and labels differ in
            number.
        TypeError: If a frame is not a PIL image.
    """

    value = traitlets.Float(0.0)
    _drawer: Drawing | None = None

    def __init__(
        self,
        frames: Row | Mapping[str, Row],
        etas: Sequence[float] | np.ndarray | Tensor | None = None,
        labels: Sequence[str] | None = None,
        width: int = 384,
        interval: int = 250,
        axis: str = "mixing ratio η",
    ):
        at_least(1, interval=interval)
        rows = {str(name): row for name, row in (frames if isinstance(frames, Mapping) else {"": frames}).items()}
        streams = {name: row for name, row in rows.items() if isinstance(row, Iterator)}
        if streams and etas is None:
            raise ValueError(
                "expected etas for frames that are still to be drawn, in the order in which they are drawn"
            )
        ready = {name: row for name, row in rows.items() if name not in streams}
        ready = rows_of(ready) if ready or not streams else {}
        count = len(next(iter(ready.values()))) if ready else len(etas)
        etas = [i / max(1, count - 1) for i in range(count)] if etas is None else [float(eta) for eta in etas]
        labels = [f"η = {eta:.2f}" for eta in etas] if labels is None else list(labels)
        for name, given in (("etas", etas), ("labels", labels)):
            if len(given) != count or not given:
                raise ValueError(f"expected {count or 'some'} {name}, one for each frame, got {len(given)}")
        if len(set(etas)) < count or not all(map(math.isfinite, etas)):
            raise ValueError(f"expected etas that are finite and differ from one another, got {etas}")

        order = sorted(range(count), key=etas.__getitem__)
        self.etas, self.labels = [etas[i] for i in order], [labels[i] for i in order]
        super().__init__(list(rows), self.etas, [self.labels], width, _interval=interval, _axis=axis)
        places = [order.index(i) for i in range(count)]
        numbers = {name: row for row, name in enumerate(rows)}
        with self.hold_sync():
            for name, row in ready.items():
                for place, frame in zip(places, row, strict=True):
                    self._put(numbers[name], place, frame)
        self.value = self.etas[0]
        self.observe(lambda change: setattr(self, "value", self.etas[change["new"]]), names="index")
        self.observe(lambda change: setattr(self, "index", self.etas.index(change["new"])), names="value")
        self.on_msg(lambda _, message, __: self.stop() if message == "stop" else None)
        if streams:
            iterators = {numbers[name]: row for name, row in streams.items()}
            self._drawer = Drawing(iterators, places, self._put, self._report)

    def __repr__(self) -> str:
        quantity = self._axis.split()[-1]
        return f"{type(self).__name__}({len(self.etas)} frames, {quantity} from {self.etas[0]:g} to {self.etas[-1]:g})"

    def wait(self) -> "MixingSlider":
        """Blocks until all frames are drawn. Ctrl-C stops the drawing; frames already drawn remain.

        Returns:
            The slider itself.

        Raises:
            RuntimeError: If the drawing was stopped.
            Exception: The error that ended the drawing.
        """
        if self._drawer:
            self._drawer.wait()
        return self

    def stop(self) -> None:
        """Stops the drawing after the current frame; frames already drawn remain."""
        if self._drawer:
            self._drawer.stop()

    def close(self) -> None:
        self.stop()
        super().close()

    def save(self, path: str | Path, size: int = 256) -> Path:
        """Waits for all frames and saves them: an animation that plays back and forth (.gif, .mp4), or a strip (.png).

        Args:
            path: The file; missing folders are created.
            size: Width of a frame in an animation, in pixels.

        Returns:
            The path.

        Raises:
            ValueError: If the file has another suffix.
            ImportError: If imageio-ffmpeg, which writes .mp4, is not installed.
        """
        at_least(1, size=size)
        self.wait()
        return save_frames(path, self.frames, self.labels, self._interval, size)

    @traitlets.validate("value")
    def _valid_value(self, proposal: dict) -> float:
        value = proposal["value"]
        if not math.isfinite(value):
            raise traitlets.TraitError(f"expected a finite mixing ratio, got {value}")
        return min(self.etas, key=lambda eta: abs(eta - value))

    def _report(self, drawing: Drawing) -> None:
        self._drawing = drawing.running
        self._status = drawing.status


class BlendSlider(MixingSlider):
    """A `MixingSlider` over paths of the same noises, with a second slider for the smoothness of the model.

    Args:
        frames: PIL images along the path, or an iterator of them, by smoothness in increasing order.
        etas: As in `MixingSlider`.
        width: Width of the picture on screen, in pixels.
        interval: Time between two frames of the play button, in milliseconds.

    Attributes:
        level: Index of the path shown.
        smoothness: Its smoothness. Setting it shows the path with the nearest one.

    Raises:
        ValueError: As `MixingSlider`; or if smoothness does not increase.
    """

    _control = traitlets.Unicode("blend").tag(sync=True)
    smoothness = traitlets.Float(0.0)

    def __init__(
        self,
        frames: Mapping[float, Row],
        etas: Sequence[float] | np.ndarray | Tensor | None = None,
        width: int = 384,
        interval: int = 250,
    ):
        self.levels = [float(level) for level in frames]
        for level in self.levels:
            at_least(0, smoothness=level)
        if not self.levels or self.levels != sorted(set(self.levels)):
            raise ValueError(f"expected paths by increasing smoothness, got {self.levels}")
        names = [f"smoothness {level:.2f}" for level in self.levels]
        super().__init__(dict(zip(names, frames.values(), strict=True)), etas, width=width, interval=interval)
        self._levels = names
        self.smoothness = self.levels[0]
        self.observe(lambda change: setattr(self, "smoothness", self.levels[change["new"]]), names="level")
        self.observe(lambda change: setattr(self, "level", self.levels.index(change["new"])), names="smoothness")

    def __repr__(self) -> str:
        return f"BlendSlider({len(self.etas)} frames at {len(self.levels)} levels of smoothness)"

    @traitlets.validate("smoothness")
    def _valid_smoothness(self, proposal: dict) -> float:
        return min(self.levels, key=lambda level: abs(level - proposal["value"]))
