"""How a drag is carried out: settings, with those of DragDiffusion as published beside our own."""

from dataclasses import dataclass, fields

from smoothnb._utils import checks

SHARES = {"radius": 1 / 8, "tracking_radius": 1 / 16, "spacing": 1 / 64, "stride": 1 / 8, "arrival": 1 / 16}
"""Lengths that are not given, as shares of the picture's shorter side."""


@dataclass(frozen=True)
class DragOptions:
    """Settings of `drag`. Lengths are in pixels of the picture that the model draws; None scales them to its size.

    The defaults differ from DragDiffusion's, as measured in docs/drag.md: features are wanted as the handle had them at
    the start, in two blocks and a larger patch; strides are long; supervision goes on while sampling, in fewer steps;
    what the mask leaves out is put back after each step; and no LoRA of the picture is trained.

    Attributes:
        num_inference_steps: Of the sampler.
        strength: In (0, 1]: t / T of the latent that is changed.
        max_steps: Of motion supervision at that t, at most; 0 leaves all of it to `follow`.
        learning_rate: Of Adam on the latent.
        softness: Adam's ε, beside a gradient of unit size: what has hardly any gradient hardly moves. As published,
            next to nothing.
        blocks: Up blocks of the UNet whose features count, -1 being the last.
        standardize: Whether channels of features are standardized, so that none drowns another.
        radius: Half the side of the patch that is supervised around a handle; an eighth of the picture's shorter side.
        tracking_radius: Likewise for tracking; a sixteenth.
        spacing: Between two places in a patch; a 64th.
        stride: How far ahead features are wanted; an eighth.
        arrival: Distance to its target at which a handle has arrived; a sixteenth.
        wanted: Around the next place: the features that the handle had at the "start", or those it has "now".
        follow: In [0, 1]: share of the sampling steps at which supervision goes on.
        keep: What keeps latents outside the mask as they are: "exact" puts them back after each step, "penalty" is the
            mask term of DragDiffusion.
        mask_weight: Of that term, λ.
        reference_attention: Whether self-attention takes keys and values from the picture before.
        reference_layer: From which of its layers on; as far up as in DragDiffusion, ten of sixteen.
        lora_steps: Of training a LoRA on the picture beforehand, on top of the smooth one; 0 for none.
        lora_rank: Of that LoRA.
        lora_learning_rate: Of Adam on it.
        seed: Of its training.

    Raises:
        ValueError: If a setting lies outside its range.
    """

    num_inference_steps: int = 25
    strength: float = 0.7
    max_steps: int = 60
    learning_rate: float = 0.15
    softness: float = 0.3
    blocks: tuple[int, ...] = (-2, -1)
    standardize: bool = True
    radius: float | None = None
    tracking_radius: float | None = None
    spacing: float | None = None
    stride: float | None = None
    arrival: float | None = None
    wanted: str = "start"
    follow: float = 0.6
    keep: str = "exact"
    mask_weight: float = 0.1
    reference_attention: bool = True
    reference_layer: int | None = None
    lora_steps: int = 0
    lora_rank: int = 16
    lora_learning_rate: float = 5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        def expect(good: bool, name: str, what: str) -> None:
            if not good:
                raise ValueError(f"expected {name} {what}, got {getattr(self, name)!r}")

        for setting in fields(self):
            value, name = getattr(self, setting.name), setting.name
            if setting.type is int:
                checks.whole()(name, value)
            elif setting.type is bool:
                checks.flag(name, value)
            elif setting.type is float or (value is not None and setting.type == float | None):
                checks.number()(name, value)
        for block in checks.several("blocks", self.blocks):
            checks.whole()("blocks", block)
        if self.reference_layer is not None:
            checks.whole(0)("reference_layer", self.reference_layer)
        checks.seed("seed", self.seed)
        expect(self.num_inference_steps >= 1, "num_inference_steps", "of at least 1")
        expect(
            0 < self.strength <= 1 and self.count > 0,
            "strength",
            "in (0, 1], worth at least one of the sampler's steps",
        )
        expect(bool(self.blocks), "blocks", "with at least one up block")
        expect(0 <= self.follow <= 1, "follow", "in [0, 1]")
        expect(self.wanted in ("start", "now"), "wanted", '"start" or "now"')
        expect(self.keep in ("exact", "penalty"), "keep", '"exact" or "penalty"')
        for name in ("max_steps", "lora_steps", "mask_weight"):
            expect(getattr(self, name) >= 0, name, "of at least 0")
        for name in ("learning_rate", "softness", "lora_learning_rate", "lora_rank"):
            expect(0 < getattr(self, name) < float("inf"), name, "above 0")

    @property
    def count(self) -> int:
        """How many of the sampler's steps lead from the latent that is changed to the picture."""
        return round(self.strength * self.num_inference_steps)

    def length(self, name: str, side: int) -> float:
        """A length in pixels.

        Args:
            name: Of the setting.
            side: The picture's shorter one, of which the length is a share if the setting is None.

        Raises:
            ValueError: If it is not above 0, or larger than half the side.
        """
        value = getattr(self, name)
        value = side * SHARES[name] if value is None else value
        if not 0 < value <= side / 2:
            raise ValueError(
                f"expected {name} above 0 and at most {side / 2:g}, half the picture's shorter side; got {value:g}"
            )
        return value


DRAG_DIFFUSION = DragOptions(
    lora_steps=80, num_inference_steps=50, max_steps=80, learning_rate=0.01, softness=1e-8, blocks=(-2,),
    standardize=False, radius=2, tracking_radius=6, spacing=2, stride=2, arrival=4, wanted="now", follow=0,
    keep="penalty",
)  # fmt: skip
"""DragDiffusion as published. Lengths are those that it has at 512×512, where a feature is worth two pixels."""
