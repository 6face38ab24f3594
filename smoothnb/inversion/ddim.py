"""DDIM inversion."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from diffusers import DDIMInverseScheduler
from PIL import Image
from torch import Tensor

from smoothnb._utils.checks import at_least
from smoothnb._utils.console import progress_bar
from smoothnb._utils.memory import oom_hint
from smoothnb._utils.pipeline import Pipeline, check_pipeline
from smoothnb.images import ImageLike
from smoothnb.inversion.inversion import Inversion, PictureBatch, Settings, cached, prompts_for
from smoothnb.latents import encode, picture_size
from smoothnb.models.parts import device_of
from smoothnb.sampling import embed, generate, scheduler_for
from smoothnb.schedule import Schedule


def predict_noise(pipe: Pipeline, schedule: Schedule, x: Tensor, t: Tensor, embeds: Tensor) -> Tensor:
    """ε̂ in float32, whatever the UNet's type and prediction."""
    dtype = pipe.unet.dtype
    prediction = pipe.unet(x.to(dtype), t, encoder_hidden_states=embeds.to(dtype)).sample
    return schedule.noise(x, prediction, t.expand(len(x)))


def ddim_inverse_steps(
    pipe: Pipeline, x: Tensor, embeds: Tensor, num_inference_steps: int, fixed_point_steps: int = 0
) -> Iterator[Tensor]:
    """Yields x̃_1 … x̃_T of DDIM inversion, from x_0 in float32.

    Raises:
        FloatingPointError: If a latent is not finite.
    """
    schedule = Schedule.of(pipe.scheduler)
    # `predict_noise` returns ε̂ whatever the model predicts.
    forward = scheduler_for(pipe, num_inference_steps, prediction_type="epsilon")
    scheduler = DDIMInverseScheduler.from_config(forward.config)
    scheduler.alphas_cumprod, scheduler.initial_alpha_cumprod = forward.alphas_cumprod, forward.final_alpha_cumprod
    scheduler.set_timesteps(num_inference_steps, device_of(pipe))
    for t in scheduler.timesteps:
        noisier = x
        for _ in range(1 + fixed_point_steps):
            with torch.no_grad():
                noisier = scheduler.step(predict_noise(pipe, schedule, noisier, t, embeds), int(t), x).prev_sample
        x = noisier
        if not torch.isfinite(x).all():
            raise FloatingPointError(f"DDIM inversion overflowed in {pipe.unet.dtype} at t = {int(t)}")
        yield x


@oom_hint("inverting pictures", "give fewer pictures at a time")
@torch.no_grad()
def ddim_invert(
    pipe: Pipeline,
    images: ImageLike | Iterable[ImageLike],
    prompt: str | Sequence[str] = "",
    num_inference_steps: int = 50,
    fixed_point_steps: int = 0,
    height: int | None = None,
    width: int | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Inversion:
    """DDIM inversion (Song et al. 2020): runs the sampler backwards, without guidance.

    The step from t-1 to t needs the noise that the model predicts at x_t, which is still unknown. DDIM uses the
    prediction at x_{t-1} instead, and the errors add up. Each fixed-point step repeats the prediction at the estimate
    of x_t; a few of them make the inversion nearly exact for sampling without guidance.

    Args:
        pipe: A diffusers pipeline.
        images: One picture or several, in any form that `encode` takes.
        prompt: One prompt for all pictures, or one for each; "" inverts without text.
        num_inference_steps: Number of sampler steps; reconstruct with the same number.
        fixed_point_steps: Number of fixed-point iterations; each costs as much as the inversion itself.
        height: Height to resize to, in pixels; by default the model's own.
        width: Width to resize to, in pixels; by default the model's own.
        cache: Folder that stores inversions by pictures, model and settings.
        progress: Whether to show a progress bar.

    Returns:
        The inversion, without a null-text series.

    Raises:
        ValueError: If prompts and pictures differ in number, or a number or size is out of range.
        FloatingPointError: If a latent is not finite.
    """
    check_pipeline(pipe, num_inference_steps)
    at_least(0, fixed_point_steps=fixed_point_steps)
    batch = PictureBatch.of(images)
    return invert_batch(
        pipe, batch, prompts_for(prompt, len(batch.pictures)), num_inference_steps, fixed_point_steps,
        picture_size(pipe, height, width), cache, progress,
    )  # fmt: skip


def invert_batch(
    pipe: Pipeline, batch: PictureBatch, prompts: tuple[str, ...], num_inference_steps: int, fixed_point_steps: int,
    size: tuple[int, int], cache: str | Path | None, progress: bool,
) -> Inversion:  # fmt: skip
    """`ddim_invert` of decoded pictures."""

    def invert() -> tuple[Inversion, bool]:
        x = encode(pipe, batch.pictures, *size).float()
        trajectory = [x]
        with progress_bar(num_inference_steps, "inverting", progress) as bar:
            for noisier in ddim_inverse_steps(pipe, x, embed(pipe, prompts), num_inference_steps, fixed_point_steps):
                trajectory.append(noisier)
                bar.update()
        settings = Settings.of(pipe, prompts, num_inference_steps)
        return Inversion(torch.stack(trajectory), None, settings), True

    return cached(
        invert, cache, pipe, batch, prompts=prompts, num_inference_steps=num_inference_steps,
        fixed_point_steps=fixed_point_steps, size=size,
    )  # fmt: skip


def reconstruct(pipe: Pipeline, inversion: Inversion, progress: bool = True) -> list[Image.Image]:
    """Draws the pictures of an inversion, with the prompts and guidance that it was made for.

    Raises:
        ValueError: If the inversion belongs to another model.
    """
    inversion.check(pipe)
    settings = inversion.settings
    return generate(
        pipe, settings.prompts, 0, inversion.latents, settings.num_inference_steps, settings.guidance_scale,
        "" if inversion.series is None else inversion.series, progress=progress,
    )  # fmt: skip
