"""Settings of a drag: our defaults, and those of DragDiffusion as published."""

import math
from dataclasses import dataclass, replace

from smoothnb._utils.checks import at_least, check_seeds, within
from smoothnb._utils.pipeline import Pipeline, check_pipeline
from smoothnb.dragging.reference import self_attention_layers

DEFAULT_LENGTHS = {"radius": 1 / 8, "tracking_radius": 1 / 16, "spacing": 1 / 64, "stride": 1 / 8, "arrival": 1 / 16}
"""Lengths that are left as None, as fractions of the picture's shorter side."""


@dataclass(frozen=True)
class DragOptions:
    """Settings of `drag`. Lengths are in pixels of the picture that the model draws; None scales them to its size.

    The defaults differ from DragDiffusion's, see docs/drag.md for measurements: the wanted features are those of the
    start, from two blocks and a larger patch; strides are longer; supervision continues during sampling, which has
    fewer steps; latents outside the mask are restored after each step; and no LoRA of the picture is trained.

    Attributes:
        num_inference_steps: Number of sampling steps.
        strength: In (0, 1]: t / T of the latent that is optimized.
        max_steps: Maximum number of optimization steps at that t; 0 leaves everything to `follow`.
        learning_rate: Learning rate of Adam on the latent.
        softness: Adam's ε in units of the first gradient's root mean square: latents with much smaller gradients hardly
            move. Almost 0 as published.
        blocks: Indices of the up blocks of the UNet whose features are used; -1 is the last.
        standardize: Whether feature channels are standardized, so that none dominates.
        radius: Half the side of the supervised patch around a handle; by default 1/8 of the picture's shorter side.
        tracking_radius: Half the side of the patch that tracking searches; by default 1/16.
        spacing: Distance between neighbouring points of a patch; by default 1/64.
        stride: Length of a step towards the target; by default 1/8.
        arrival: Distance at which a handle has reached its target; by default 1/16.
        wanted: Which features supervision wants at the next position: those of the handle at the "start" or "now".
        follow: In [0, 1]: fraction of the sampling steps during which supervision continues.
        keep: How latents outside the mask are preserved: "exact" restores them after each step, "penalty" is the mask
            term of DragDiffusion.
        mask_weight: λ, the weight of that term.
        reference_attention: Whether self-attention takes its keys and values from the source picture.
        reference_layer: Index of the first self-attention layer that does; by default the tenth of sixteen, as in
            DragDiffusion, or the same fraction.
        lora_steps: Training steps of a LoRA of the picture, on top of the smooth one; 0 for none.
        lora_rank: Rank of that LoRA.
        lora_learning_rate: Learning rate of its Adam.
        seed: Seed of its training.

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

        at_least(1, num_inference_steps=self.num_inference_steps)
        at_least(0, max_steps=self.max_steps, lora_steps=self.lora_steps, mask_weight=self.mask_weight)
        at_least(0, reference_layer=self.reference_layer)
        within(0, 1, follow=self.follow)
        check_seeds([self.seed])
        expect(
            0 < self.strength <= 1 and self.steps_from_noise > 0,
            "strength",
            "in (0, 1], worth at least one of the sampler's steps",
        )
        expect(bool(self.blocks), "blocks", "with at least one up block")
        expect(self.wanted in ("start", "now"), "wanted", '"start" or "now"')
        expect(self.keep in ("exact", "penalty"), "keep", '"exact" or "penalty"')
        for name in ("learning_rate", "softness", "lora_learning_rate", "lora_rank"):
            expect(0 < getattr(self, name) < math.inf, name, "above 0")

    @property
    def steps_from_noise(self) -> int:
        """Number of sampling steps from the optimized latent to the picture."""
        return round(self.strength * self.num_inference_steps)

    def resolved(self, pipe: Pipeline, size: tuple[int, int]) -> "DragOptions":
        """Fills in every length for a picture of this height and width, and checks the options against the model.

        Raises:
            ValueError: If a length is not above 0 or exceeds half the shorter side, or the UNet has no such block or
                layer.
        """
        check_pipeline(pipe, self.num_inference_steps)
        blocks, layers = len(pipe.unet.up_blocks), len(self_attention_layers(pipe.unet))
        if not all(-blocks <= block < blocks for block in self.blocks):
            raise ValueError(f"expected blocks from {-blocks} to {blocks - 1}, as the UNet has them, got {self.blocks}")
        if self.reference_layer is not None and self.reference_layer >= layers:
            raise ValueError(f"expected reference_layer from 0 to {layers - 1}, got {self.reference_layer}")
        side, lengths = min(size), {}
        for name, fraction in DEFAULT_LENGTHS.items():
            value = getattr(self, name)
            lengths[name] = value = side * fraction if value is None else value
            if not 0 < value <= side / 2:
                raise ValueError(
                    f"expected {name} above 0 and at most {side / 2:g}, half the picture's shorter side; got {value:g}"
                )
        return replace(self, **lengths)


DRAG_DIFFUSION = DragOptions(
    lora_steps=80, num_inference_steps=50, max_steps=80, learning_rate=0.01, softness=1e-8, blocks=(-2,),
    standardize=False, radius=2, tracking_radius=6, spacing=2, stride=2, arrival=4, wanted="now", follow=0,
    keep="penalty",
)  # fmt: skip
"""DragDiffusion as published. Its lengths are for 512×512, where a feature covers two pixels."""
