"""The noise schedule: adds noise to clean samples, and converts predictions to clean samples or noise."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothnb._utils import checks

Samples = Float[Tensor, "batch *shape"]
"""A batch of latents or pixels, of any shape."""
PerSample = Float[Tensor, " batch"]
"""One number for each sample of a batch."""
Timesteps = Int[Tensor, " batch"]
"""t of each sample of a batch, from 0."""

PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True, eq=False)
class Schedule:
    """ᾱ_t of every training timestep, and the model's prediction type.

    Samples may have any shape after their batch axis: latents or pixels. Timesteps may be on any device; results are on
    the device of the samples.

    Attributes:
        alpha_bar: ᾱ_t for t = 0 … T - 1, decreasing from near 1 to near 0.
        prediction_type: "epsilon": the model predicts the noise ε. "v_prediction": it predicts
            v = √ᾱ_t ε - √(1-ᾱ_t) x_0 (Salimans & Ho 2022).

    Raises:
        ValueError: If ᾱ lies outside (0, 1) or the prediction type is unknown.
    """

    alpha_bar: Float[Tensor, " timesteps"]
    prediction_type: str = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"expected a prediction type of {' or '.join(PREDICTION_TYPES)}, got {self.prediction_type!r}"
            )
        if checks.floating("alpha_bar", self.alpha_bar).ndim != 1 or not len(self.alpha_bar):
            raise ValueError(f"expected ᾱ as a vector over timesteps, got shape {tuple(self.alpha_bar.shape)}")
        if not ((self.alpha_bar > 0) & (self.alpha_bar < 1)).all():
            raise ValueError(
                "expected ᾱ_t between 0 and 1, both excluded; a schedule with zero terminal SNR has no x̂_0 at its last "
                "timestep"
            )

    @classmethod
    def of(cls, scheduler) -> "Schedule":
        """The schedule of a diffusers scheduler."""
        return cls(scheduler.alphas_cumprod, scheduler.config.prediction_type)

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def scales(self, timesteps: Timesteps, like: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1-ᾱ_t), reshaped to broadcast over a batch of samples, in float32."""
        alpha_bar = self.alpha_bar.to(like.device, torch.float32)[timesteps.to(like.device)]
        alpha_bar = alpha_bar.reshape(-1, *(1,) * (like.ndim - 1))
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def snr(self, timesteps: Timesteps) -> PerSample:
        """Signal-to-noise ratio ᾱ_t / (1-ᾱ_t)."""
        alpha_bar = self.alpha_bar.to(timesteps.device, torch.float32)[timesteps]
        return alpha_bar / (1 - alpha_bar)

    def add_noise(self, x0: Samples, noise: Samples, timesteps: Timesteps) -> Samples:
        """x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε."""
        signal, sigma = self.scales(timesteps, x0)
        return (signal * x0 + sigma * noise).to(x0.dtype)

    def target(self, x0: Samples, noise: Samples, timesteps: Timesteps) -> Samples:
        """The training target of the model."""
        if self.prediction_type == "epsilon":
            return noise
        signal, sigma = self.scales(timesteps, x0)
        return (signal * noise - sigma * x0).to(x0.dtype)

    def clean(
        self,
        x_t: Samples,
        prediction: Samples,
        timesteps: Timesteps,
    ) -> Samples:
        """x̂_0 in float32, as the model's prediction at x_t implies it.

        For ε it is (x_t - √(1-ᾱ_t) ε̂) / √ᾱ_t, for v it is √ᾱ_t x_t - √(1-ᾱ_t) v̂.
        """
        signal, sigma = self.scales(timesteps, x_t)
        if self.prediction_type == "epsilon":
            return (x_t.float() - sigma * prediction.float()) / signal
        return signal * x_t.float() - sigma * prediction.float()

    def noise(self, x_t: Samples, prediction: Samples, timesteps: Timesteps) -> Samples:
        """ε̂ in float32, as the model's prediction at x_t implies it: itself, or for v √ᾱ_t v̂ + √(1-ᾱ_t) x_t."""
        if self.prediction_type == "epsilon":
            return prediction.float()
        signal, sigma = self.scales(timesteps, x_t)
        return signal * prediction.float() + sigma * x_t.float()


def checked_timesteps(schedule: Schedule, timesteps: Timesteps, **samples: Samples) -> Timesteps:
    """Moves timesteps to the device of the samples.

    Raises:
        ValueError, TypeError: Unless all batches have one shape and one device, and each sample a valid timestep.
    """
    for name, batch in samples.items():
        checks.floating(name, batch)
    shapes = {name: tuple(batch.shape) for name, batch in samples.items()}
    if len(set(shapes.values())) > 1 or min(len(shape) for shape in shapes.values()) < 2:
        raise ValueError(f"expected batches of one shape, at least batch × values, got {shapes}")
    places = {name: batch.device for name, batch in samples.items()}
    if len(set(places.values())) > 1:
        raise ValueError(f"expected batches on one device, got {places}: move them with .to(device)")
    count = len(next(iter(samples.values())))
    if not isinstance(timesteps, Tensor) or timesteps.is_floating_point() or timesteps.dtype == torch.bool:
        raise TypeError(f"expected timesteps as a tensor of whole numbers, got {checks.shown(timesteps)}")
    if timesteps.shape != (count,) or timesteps.is_meta:
        raise ValueError(f"expected {count} timesteps, one for each sample, got {checks.shown(timesteps)}")
    if count and not ((timesteps >= 0) & (timesteps < len(schedule))).all():
        raise ValueError(f"expected timesteps from 0 to {len(schedule) - 1}, got {timesteps.tolist()[:5]}")
    return timesteps.to(next(iter(places.values())))
