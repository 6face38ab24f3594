"""A slider over the mixing ratio η: drag it, and watch the picture change."""

import io
import math
from collections.abc import Sequence

import ipywidgets as widgets
import traitlets
from PIL import Image

from smoothnb.widgets.strips import Frames, rows_of


def png(frame: Image.Image, width: int) -> bytes:
    """One frame as PNG, smaller ones enlarged to a width in pixels (Lanczos: a browser's own enlarging is blurred)."""
    if frame.width < width:
        frame = frame.resize((width, round(frame.height * width / frame.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    frame.convert("RGB").save(buffer, "png")
    return buffer.getvalue()


class MixingSlider(widgets.VBox):
    """Frames along a path between two latents, behind a slider and a play button.

    Frames are encoded once, at the start; moving the slider only swaps them. Without a browser, set `value` or `index`.

    Args:
        frames: PIL images along the path, or a mapping from names to such rows, shown side by side.
        etas: The mixing ratio of each frame, in rising order; by default evenly from 0 to 1.
        labels: A caption for each frame; by default "η = 0.30" and alike.
        width: Of a picture on screen, in pixels.
        interval: Between two frames of the play button, in milliseconds.

    Attributes:
        index: Number of the frame shown, from 0.
        value: Its mixing ratio. Setting it shows the frame with the nearest one.

    Raises:
        ValueError: If there are no frames, rows differ in length, etas do not rise, or etas and labels do not pair up
            with frames.
        TypeError: If a frame is no PIL image.
    """

    index = traitlets.Int(0)
    value = traitlets.Float(0.0)

    def __init__(
        self,
        frames: Frames,
        etas: Sequence[float] | None = None,
        labels: Sequence[str] | None = None,
        width: int = 384,
        interval: int = 250,
    ):
        rows = rows_of(frames)
        count = len(next(iter(rows.values())))
        self.etas = [i / max(1, count - 1) for i in range(count)] if etas is None else [float(eta) for eta in etas]
        self.labels = [f"η = {eta:.2f}" for eta in self.etas] if labels is None else list(labels)
        for name, given in (("etas", self.etas), ("labels", self.labels)):
            if len(given) != count:
                raise ValueError(f"expected {count} {name}, one for each frame, got {len(given)}")
        if not all(a < b for a, b in zip(self.etas, self.etas[1:], strict=False)):
            raise ValueError(f"expected etas in rising order, got {self.etas}")

        self._pngs = [[png(frame, width) for frame in row] for row in rows.values()]
        layout = widgets.Layout(width=f"{width}px", height="auto")
        self.pictures = [widgets.Image(format="png", value=row[0], layout=layout) for row in self._pngs]
        self.caption = widgets.Label(self.labels[0])
        self.slider = widgets.IntSlider(
            min=0, max=count - 1, description="η", readout=False, continuous_update=True,
            layout=widgets.Layout(width=f"{width}px"), style={"description_width": "initial"},
        )  # fmt: skip
        self.play = widgets.Play(min=0, max=count - 1, interval=interval)
        # `jslink` would spare the round trip to the kernel, but does nothing in Colab.
        widgets.link((self.play, "value"), (self.slider, "value"))
        columns = [
            widgets.VBox([widgets.Label(name), picture] if name else [picture])
            for name, picture in zip(rows, self.pictures, strict=True)
        ]
        super().__init__([widgets.HBox(columns), widgets.HBox([self.play, self.slider, self.caption])])
        self.value = self.etas[0]
        self.slider.observe(self._on_slider, names="value")
        self.observe(self._on_index, names="index")
        self.observe(self._on_value, names="value")

    def __repr__(self) -> str:
        return f"MixingSlider({len(self.etas)} frames, η from {self.etas[0]:g} to {self.etas[-1]:g})"

    @traitlets.validate("index")
    def _valid_index(self, proposal: dict) -> int:
        if not 0 <= proposal["value"] < len(self.etas):
            raise traitlets.TraitError(f"expected an index from 0 to {len(self.etas) - 1}, got {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("value")
    def _valid_value(self, proposal: dict) -> float:
        value = proposal["value"]
        if not math.isfinite(value):
            raise traitlets.TraitError(f"expected a finite mixing ratio, got {value}")
        return min(self.etas, key=lambda eta: abs(eta - value))

    def _on_slider(self, change: dict) -> None:
        self.index = change["new"]

    def _on_value(self, change: dict) -> None:
        self.index = self.etas.index(change["new"])

    def _on_index(self, change: dict) -> None:
        index = change["new"]
        for picture, pngs in zip(self.pictures, self._pngs, strict=True):
            picture.value = pngs[index]
        self.caption.value = self.labels[index]
        self.value = self.etas[index]
        self.slider.value = index
