"""Two sliders: the mixing ratio η, and how much of the smooth model is blended in."""

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import traitlets
from PIL import Image

from smoothnb.widgets.mixing import MixingSlider, png


class BlendSlider(MixingSlider):
    """A `MixingSlider` over several paths of the same noises, with a second slider that chooses the path.

    Args:
        frames: By smoothness, in rising order: the PIL images along the path drawn with it.
        etas: The mixing ratio of each frame, in rising order; by default evenly from 0 to 1.
        width: Of the picture on screen, in pixels.
        interval: Between two frames of the play button, in milliseconds.

    Attributes:
        level: Number of the path shown, from 0.
        smoothness: The smoothness it was drawn with. Setting it shows the path with the nearest one.

    Raises:
        ValueError: As `MixingSlider`; or if smoothness does not rise.
    """

    level = traitlets.Int(0)
    smoothness = traitlets.Float(0.0)

    def __init__(
        self,
        frames: Mapping[float, Sequence[Image.Image]],
        etas: Sequence[float] | None = None,
        width: int = 384,
        interval: int = 250,
    ):
        self.levels = [float(level) for level in frames]
        if not self.levels or self.levels != sorted(set(self.levels)):
            raise ValueError(f"expected paths by rising smoothness, got {self.levels}")
        paths = [list(path) for path in frames.values()]
        super().__init__(paths[0], etas, width=width, interval=interval)
        if len({len(path) for path in paths}) > 1:
            raise ValueError(f"expected paths of equal length, got {[len(path) for path in paths]}")
        self._paths = [self._pngs, *([[png(frame, width) for frame in path]] for path in paths[1:])]
        self.blend = widgets.IntSlider(
            min=0, max=len(paths) - 1, description="smooth", readout=False, continuous_update=True,
            layout=widgets.Layout(width=f"{max(160, width - 140)}px"),
        )  # fmt: skip
        self.blend_caption = widgets.Label()
        self.children = (*self.children, widgets.HBox([self.blend, self.blend_caption]))
        self.smoothness = self.levels[0]
        self.blend.observe(lambda change: setattr(self, "level", change["new"]), names="value")
        self.observe(self._on_level, names="level")
        self.observe(lambda change: setattr(self, "level", self.levels.index(change["new"])), names="smoothness")
        self._on_level({"new": 0})

    def __repr__(self) -> str:
        return f"BlendSlider({len(self.etas)} frames at {len(self.levels)} levels of smoothness)"

    @traitlets.validate("level")
    def _valid_level(self, proposal: dict) -> int:
        if not 0 <= proposal["value"] < len(self.levels):
            raise traitlets.TraitError(f"expected a level from 0 to {len(self.levels) - 1}, got {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("smoothness")
    def _valid_smoothness(self, proposal: dict) -> float:
        return min(self.levels, key=lambda level: abs(level - proposal["value"]))

    def _on_level(self, change: dict) -> None:
        level = change["new"]
        self._pngs = self._paths[level]
        self.pictures[0].value = self._pngs[0][self.index]
        self.blend_caption.value = f"smoothness {self.levels[level]:.2f}"
        self.smoothness = self.levels[level]
        self.blend.value = level
