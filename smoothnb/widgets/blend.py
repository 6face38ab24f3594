"""Two sliders: the mixing ratio η, and the smoothness of the model."""

from collections.abc import Mapping, Sequence

import traitlets

from smoothnb._utils import checks
from smoothnb._utils.arguments import checked
from smoothnb.widgets.mixing import MixingSlider, Row


def by_smoothness(name: str, value: object, _: object = None) -> Mapping[float, Row]:
    """Checks rows by smoothness."""
    if not isinstance(value, Mapping):
        raise TypeError(f"expected {name} by smoothness, got {checks.shown(value)}")
    return {checks.number(0)("smoothness", level): row for level, row in value.items()}


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
