"""Two sliders: the mixing ratio η, and how much of the smooth model is blended in."""

from collections.abc import Mapping, Sequence

import traitlets

from smoothnb._utils import checks
from smoothnb._utils.arguments import checked
from smoothnb.widgets.mixing import MixingSlider, Row


def by_smoothness(name: str, value: object, _: object = None) -> Mapping[float, Row]:
    """Rows by smoothness."""
    if not isinstance(value, Mapping):
        raise TypeError(f"expected {name} by smoothness, got {checks.shown(value)}")
    return {checks.number(0)("smoothness", level): row for level, row in value.items()}


class BlendSlider(MixingSlider):
    """A `MixingSlider` over several paths of the same noises, with a second slider that chooses the path.

    Args:
        frames: By smoothness, in rising order: the PIL images along the path drawn with it, or an iterator of them.
        etas: As in `MixingSlider`.
        width: Of the picture on screen, in pixels.
        interval: Between two frames of the play button, in milliseconds.

    Attributes:
        level: Number of the path shown, from 0.
        smoothness: The smoothness it was drawn with. Setting it shows the path with the nearest one.

    Raises:
        ValueError: As `MixingSlider`; or if smoothness does not rise.
    """

    _control = traitlets.Unicode("blend").tag(sync=True)
    smoothness = traitlets.Float(0.0)

    @checked(frames=by_smoothness, width=checks.whole(1), etas=checks.reals)
    def __init__(
        self,
        frames: Mapping[float, Row],
        etas: Sequence[float] | None = None,
        width: int = 384,
        interval: int = 250,
    ):
        self.levels = [float(level) for level in frames]
        if not self.levels or self.levels != sorted(set(self.levels)):
            raise ValueError(f"expected paths by rising smoothness, got {self.levels}")
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
