"""Settings of a training."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args, get_origin

from smoothnb._utils.checks import at_least, within
from smoothnb._utils.files import expanded

AT_LEAST_1 = (
    "steps", "batch_size", "gradient_accumulation_steps", "regularize_every", "checkpoint_every", "keep_checkpoints",
    "height", "width",
)  # fmt: skip
AT_LEAST_0 = (
    "rank", "warmup_steps", "strip_every", "regularizer_weight", "weight_decay", "noise_offset", "max_grad_norm",
    "min_snr_gamma",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run. The defaults of the method are the paper's.

    Attributes:
        model: The model to train: a name, folder or hub id, as `load_pipeline` takes it.
        output_dir: Folder for the LoRA, checkpoints and figures.
        data: "postcard" for the stream of postcards, "postcard-film" and "postcard-neon" in these styles; a folder of
            pictures with captions in metadata.jsonl, metadata.csv or text files, see `image_folder`; or the id of a
            data set on the hub.
        steps: Number of optimizer steps.
        batch_size: Number of pictures per process and batch.
        gradient_accumulation_steps: Number of batches per optimizer step.
        learning_rate: Learning rate of AdamW after the warm-up.
        learning_rate_schedule: "constant", as in the paper, or "cosine", which decays to 0 at the last step.
        warmup_steps: Number of steps over which the learning rate rises.
        weight_decay: Weight decay of AdamW.
        max_grad_norm: Gradients are clipped to this norm.
        rank: Rank of the LoRA on the UNet's attention (q, k, v, out); 0 trains all weights of the UNet instead.
        regularizer: "paper" is Eq. 10, with one constant a for all t. "per_timestep" is (length / a - 1)² with an a for
            each of 20 ranges of t, see `RunningConstant`.
        regularizer_weight: λ; 0 disables the regularizer, for controls.
        regularize_every: Lazy regularization: the regularizer is applied at every k-th step, with k times the weight.
        min_snr_gamma: γ of min-SNR weighting of the base loss; None disables it.
        noise_offset: See `losses.offset_noise`.
        drop_prompt: Fraction of captions that are replaced by the empty one.
        height: Height of the pictures, in pixels; by default the model's own.
        width: Width of the pictures, in pixels; by default the model's own.
        mixed_precision: Precision of the UNet; the LoRA itself is float32.
        gradient_checkpointing: Saves memory at about a third more time.
        checkpoint_every: Number of steps between checkpoints.
        keep_checkpoints: Number of most recent checkpoints to keep.
        strip_every: Number of steps between figures of an interpolation; 0 for none.
        strip_prompt: Prompt of these figures.
        tracker: An experiment tracker such as tensorboard; its package must be installed.
        seed: Seed of weights, data and noise.
    """

    model: str = "postcard"
    output_dir: Path = Path("runs/smooth")
    data: str = "postcard"
    steps: int = 1000
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-4
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    rank: int = 8
    regularizer: Literal["paper", "per_timestep"] = "paper"
    regularizer_weight: float = 1.0
    regularize_every: int = 1
    min_snr_gamma: float | None = None
    noise_offset: float = 0.0
    drop_prompt: float = 0.1
    height: int | None = None
    width: int | None = None
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = False
    checkpoint_every: int = 250
    keep_checkpoints: int = 2
    strip_every: int = 0
    strip_prompt: str = "a red house in a meadow at sunset"
    tracker: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, name = getattr(self, setting.name), setting.name
            if get_origin(setting.type) is Literal and value not in get_args(setting.type):
                raise ValueError(f"expected {name} as one of {get_args(setting.type)}, got {value!r}")
        object.__setattr__(self, "output_dir", expanded(self.output_dir))
        at_least(1, **{name: getattr(self, name) for name in AT_LEAST_1})
        at_least(0, **{name: getattr(self, name) for name in AT_LEAST_0})
        within(0, 1, drop_prompt=self.drop_prompt)
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"expected learning_rate above 0, got {self.learning_rate}")
