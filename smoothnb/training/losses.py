"""The denoising loss of diffusion models (Eq. 2), offset noise, and prompt dropout."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from smoothnb._utils.checks import at_least
from smoothnb.schedule import PerSample, Samples, Schedule, Timesteps, checked_timesteps

Predict = Callable[[Tensor, Tensor], Tensor]
"""A model: predict(x_t, t) returns ε̂ or v̂, as its schedule's prediction type says, in the shape of x_t."""


def offset_noise(
    shape: tuple[int, ...], offset: float = 0.0, generator: torch.Generator | None = None
) -> Float[Tensor, "..."]:
    """Normal noise; an offset adds one more normal number to each channel (Guttenberg 2023).

    A model trained with it learns to change a picture's overall brightness, which plain noise hardly affects.

    Args:
        shape: Batch and channels come first.
        offset: Standard deviation of the added numbers; 0 for none.
        generator: A generator on the CPU.

    Returns:
        Noise in float32 on the CPU.
    """
    noise = torch.randn(shape, generator=generator, dtype=torch.float32)
    if offset:
        sizes = (*shape[:2], *(1,) * (len(shape) - 2))
        noise += offset * torch.randn(sizes, generator=generator, dtype=torch.float32)
    return noise


def drop_prompts(
    embeds: Float[Tensor, "batch token width"],
    empty: Float[Tensor, "1 token width"],
    share: float,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch token width"]:
    """Replaces a random fraction of the embeddings by that of the empty prompt, for classifier-free guidance."""
    dropped = torch.rand(len(embeds), generator=generator, dtype=torch.float32) < share
    return torch.where(dropped.to(embeds.device)[:, None, None], empty, embeds)


def base_loss(
    predict: Predict,
    schedule: Schedule,
    x0: Samples,
    noise: Samples,
    timesteps: Timesteps,
    min_snr_gamma: float | None = None,
) -> PerSample:
    """The denoising loss, Eq. 2 of the supplement: ‖ε - ε_θ(x_t, t)‖², averaged over the values of each sample.

    Args:
        predict: The model.
        schedule: Its noise schedule; a model that predicts v, x_0 or a velocity has that as its target.
        x0: Clean samples: latents or pixels.
        noise: ε, see `offset_noise`.
        timesteps: t of each sample, on any device.
        min_snr_gamma: γ of min-SNR weighting (Hang et al. 2023 use 5); None weights all timesteps equally.

    Returns:
        The loss of each sample.
    """
    at_least(0, min_snr_gamma=min_snr_gamma)
    timesteps = checked_timesteps(schedule, timesteps, x0=x0, noise=noise)
    prediction = predict(schedule.add_noise(x0, noise, timesteps), timesteps)
    return denoising_loss(prediction, schedule, x0, noise, timesteps, min_snr_gamma)


def denoising_loss(
    prediction: Tensor, schedule: Schedule, x0: Tensor, noise: Tensor, timesteps: Tensor, min_snr_gamma: float | None
) -> PerSample:
    """`base_loss` for a given prediction."""
    if prediction.shape != x0.shape:
        raise ValueError(
            f"expected predict to return a tensor of shape {tuple(x0.shape)}, got {tuple(prediction.shape)}"
        )
    error = (prediction.float() - schedule.target(x0, noise, timesteps).float()).square().flatten(1).mean(1)
    if min_snr_gamma is None:
        return error
    snr = schedule.snr(timesteps)
    # The weight of an error in x_0 is min(SNR, γ).
    return error * snr.clamp(max=min_snr_gamma) * schedule.clean_error(timesteps).square()
