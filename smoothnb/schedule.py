"""The noise schedule: adds noise to clean samples, and converts predictions to clean samples or noise."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothnb._utils.checks import check_floating, shown

Samples = Float[Tensor, "batch *shape"]
"""A batch of latents or pixels, of any shape."""
PerSample = Float[Tensor, " batch"]
"""One number for each sample of a batch."""
Timesteps = Int[Tensor, " batch"]
"""t of each sample of a batch, from 0."""

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction")


@dataclass(frozen=True, eq=False)
class Schedule:
    """How noisy x_t is at every training timestep, and what a model predicts there.

    Diffusion models mix a clean sample x_0 and noise ε so that the variance is kept, flow-matching models (Lipman et
    al. 2022; Stable Diffusion 3, FLUX) on a straight line. With α_t for the signal's part and σ_t for the noise's:

    | prediction type | the model predicts | x_t = α_t x_0 + σ_t ε |
    |---|---|---|
    | "epsilon" | ε | α_t = √ᾱ_t, σ_t = √(1-ᾱ_t) |
    | "v_prediction" (Salimans & Ho 2022) | α_t ε - σ_t x_0 | the same |
    | "sample" | x_0 | the same |
    | "flow_prediction" | ε - x_0, the velocity of x_t | α_t = 1 - σ_t |

    Samples may have any shape after their batch axis: latents or pixels. Timesteps may be on any device; results are on
    the device of the samples.

    Attributes:
        alpha_bar: ᾱ_t for t = 0 … T - 1, falling: the share of the signal in the variance, α_t² / (α_t² + σ_t²). For
            flow matching, use float64, as σ_t is computed from it.
        prediction_type: One of the table.

    Raises:
        ValueError: If ᾱ leaves (0, 1), or the prediction type is another. Only where ε is not predicted may ᾱ be 0.
    """

    alpha_bar: Float[Tensor, " timesteps"]
    prediction_type: str = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"expected a prediction type of {' or '.join(PREDICTION_TYPES)}, got {self.prediction_type!r}"
            )
        if self.alpha_bar.ndim != 1 or not len(self.alpha_bar):
            raise ValueError(f"expected ᾱ of each timestep in a row, got shape {tuple(self.alpha_bar.shape)}")
        if not ((self.alpha_bar >= 0) & (self.alpha_bar < 1)).all():
            raise ValueError("expected ᾱ_t between 0 and 1")
        if self.prediction_type == "epsilon" and (self.alpha_bar == 0).any():
            raise ValueError(
                "expected ᾱ_t above 0: with zero terminal SNR, the noise that a model predicts at the last timestep "
                "says nothing about x̂_0"
            )

    @classmethod
    def of(cls, scheduler) -> "Schedule":
        """The training schedule of a diffusers scheduler; for flow matching with its shift, unless that is dynamic.

        Raises:
            ValueError: If the scheduler has neither ᾱ_t nor the σ_t of flow matching.
        """
        config, name = scheduler.config, type(scheduler).__name__
        if name.startswith("FlowMatch") or config.get("use_flow_sigmas"):
            shift = 1.0 if config.get("use_dynamic_shifting") else config.get("shift", config.get("flow_shift", 1.0))
            steps = config.num_train_timesteps
            sigma = torch.arange(1, steps + 1, dtype=torch.float64) / steps
            sigma = shift * sigma / (1 + (shift - 1) * sigma)
            return cls((1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2), "flow_prediction")
        if not hasattr(scheduler, "alphas_cumprod"):
            raise ValueError(f"expected a scheduler with the noise levels of a diffusion or flow model, got {name}")
        return cls(scheduler.alphas_cumprod, config.prediction_type)

    def __len__(self) -> int:
        return len(self.alpha_bar)

    @cached_property
    def signal(self) -> Float[Tensor, " timesteps"]:
        """α_t in float32, on the CPU."""
        return self._scales[0]

    @cached_property
    def sigma(self) -> Float[Tensor, " timesteps"]:
        """σ_t in float32, on the CPU. Flow-matching models of diffusers are given 1000 σ_t for t."""
        return self._scales[1]

    @cached_property
    def _scales(self) -> tuple[Tensor, Tensor]:
        alpha_bar = self.alpha_bar.cpu().double()
        signal, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        total = signal + sigma if self.prediction_type == "flow_prediction" else 1
        return (signal / total).float(), (sigma / total).float()

    def scales(self, timesteps: Timesteps, like: Tensor) -> tuple[Tensor, Tensor]:
        """α_t and σ_t, each shaped to be multiplied with a batch of samples, in float32."""
        shape = (-1, *(1,) * (like.ndim - 1))
        return tuple(table.to(like.device)[timesteps.to(like.device)].reshape(shape) for table in self._scales)

    def snr(self, timesteps: Timesteps) -> PerSample:
        """Signal-to-noise ratio α_t² / σ_t² = ᾱ_t / (1-ᾱ_t)."""
        signal, sigma = self.scales(timesteps, timesteps)
        return (signal / sigma).square()

    def _parts(self, signal: Tensor, sigma: Tensor) -> tuple[Tensor | int, Tensor | int]:
        """How much of x_0 and of ε is in a prediction."""
        kinds = {"epsilon": (0, 1), "v_prediction": (-sigma, signal), "sample": (1, 0), "flow_prediction": (-1, 1)}
        return kinds[self.prediction_type]

    def add_noise(self, x0: Samples, noise: Samples, timesteps: Timesteps) -> Samples:
        """x_t = α_t x_0 + σ_t ε."""
        signal, sigma = self.scales(timesteps, x0)
        return (signal * x0 + sigma * noise).to(x0.dtype)

    def target(self, x0: Samples, noise: Samples, timesteps: Timesteps) -> Samples:
        """What the model is to predict."""
        of_x0, of_noise = self._parts(*self.scales(timesteps, x0))
        return (of_x0 * x0 + of_noise * noise).to(x0.dtype)

    # x_t and the prediction are two linear equations for x_0 and ε.

    def clean(self, x_t: Samples, prediction: Samples, timesteps: Timesteps) -> Samples:
        """x̂_0 in float32, as the model's prediction at x_t implies it.

        For ε it is (x_t - √(1-ᾱ_t) ε̂) / √ᾱ_t, for v it is √ᾱ_t x_t - √(1-ᾱ_t) v̂, for a velocity u it is x_t - σ_t û.
        """
        signal, sigma = self.scales(timesteps, x_t)
        of_x0, of_noise = self._parts(signal, sigma)
        return (of_noise * x_t.float() - sigma * prediction.float()) / (signal * of_noise - sigma * of_x0)

    def noise(self, x_t: Samples, prediction: Samples, timesteps: Timesteps) -> Samples:
        """ε̂ in float32, as the model's prediction at x_t implies it: for v, it is √ᾱ_t v̂ + √(1-ᾱ_t) x_t."""
        if self.prediction_type == "epsilon":
            return prediction.float()
        signal, sigma = self.scales(timesteps, x_t)
        of_x0, of_noise = self._parts(signal, sigma)
        return (signal * prediction.float() - of_x0 * x_t.float()) / (signal * of_noise - sigma * of_x0)

    def clean_error(self, timesteps: Timesteps) -> PerSample:
        """How far x̂_0 is off for an error of 1 in the prediction: √(1-ᾱ_t) / √ᾱ_t for ε, σ_t for v and velocity."""
        signal, sigma = self.scales(timesteps, timesteps)
        of_x0, of_noise = self._parts(signal, sigma)
        return sigma / (signal * of_noise - sigma * of_x0).abs()


def checked_timesteps(schedule: Schedule, timesteps: Timesteps, **samples: Samples) -> Timesteps:
    """Moves timesteps to the device of the samples.

    Raises:
        ValueError: Unless all batches are in floating point, of one shape and on one device, and each sample has a
            valid timestep.
    """
    check_floating(**samples)
    shapes = {name: tuple(batch.shape) for name, batch in samples.items()}
    if len(set(shapes.values())) > 1 or min(len(shape) for shape in shapes.values()) < 2:
        raise ValueError(f"expected batches of one shape, at least batch × values, got {shapes}")
    places = {name: batch.device for name, batch in samples.items()}
    if len(set(places.values())) > 1:
        raise ValueError(f"expected batches on one device, got {places}: move them with .to(device)")
    count = len(next(iter(samples.values())))
    if timesteps.shape != (count,) or timesteps.is_floating_point():
        raise ValueError(f"expected {count} timesteps as whole numbers, one for each sample, got {shown(timesteps)}")
    if count and not ((timesteps >= 0) & (timesteps < len(schedule))).all():
        raise ValueError(f"expected timesteps from 0 to {len(schedule) - 1}, got {timesteps.tolist()[:5]}")
    return timesteps.to(next(iter(places.values())))
