"""Null-text inversion: embeddings that compensate for guidance (Eq. 4), one series for several pictures (Eq. 5)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from smoothnb._utils.checks import at_least
from smoothnb._utils.console import progress_bar, warn
from smoothnb._utils.memory import oom_hint
from smoothnb._utils.pipeline import Pipeline, check_pipeline
from smoothnb._utils.temporarily import frozen
from smoothnb.images import ImageLike
from smoothnb.inversion.ddim import invert_batch, predict_noise
from smoothnb.inversion.inversion import Inversion, PictureBatch, cached, prompts_for
from smoothnb.inversion.soap import Soap
from smoothnb.latents import picture_size
from smoothnb.models.parts import recommended_guidance
from smoothnb.sampling import embed, scheduler_for
from smoothnb.schedule import Schedule

STARTS = ("prompt", "empty")
FIRST_RATE, LAST_RATE = 0.05, 0.02
"""Root mean square of an inner step at x_T and at x_1, for embeddings of about unit size."""
LAST_PART, LAST_EFFORT = 0.1, 3
"""The last LAST_PART of the steps get LAST_EFFORT times the inner steps: no later step can correct them."""


@oom_hint("optimizing null-text embeddings", "give fewer pictures at a time, or one by one with shared=False")
def null_text_invert(
    pipe: Pipeline,
    images: ImageLike | Iterable[ImageLike],
    prompt: str | Sequence[str] = "",
    guidance_scale: float | None = None,
    num_inference_steps: int = 50,
    inner_steps: int = 10,
    shared: bool = True,
    start: str = "prompt",
    tolerance: float = 3e-5,
    fixed_point_steps: int = 0,
    height: int | None = None,
    width: int | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Inversion:
    """Null-text inversion (Mokady et al. 2023): Eq. 4 of the supplement for one picture, Eq. 5 for several.

    Guidance pulls the sampler away from the trajectory of DDIM inversion. One embedding ∅_t for each step, in place of
    the empty prompt's, compensates for that: it is optimized so that the guided step from x_t ends at the inversion's
    x̃_{t-1}, for all pictures at once.

    The step is linear in the predicted noise. So the noise that ∅_t should give is known for each picture, and the
    embedding is fitted to it by `Soap`, which carries its statistics from one t to the next. The UNet is frozen and
    processes all pictures in one batch; an inner step is one forward and one backward pass. The best embedding is kept,
    and the last one is the start for the next t. Later steps correct the error that a step leaves, so the last tenth of
    the steps gets three times as many inner steps.

    On Ctrl-C the embeddings found so far are returned, and the last of them stands for the remaining steps; such a
    result is not stored in the cache.

    Args:
        pipe: A diffusers pipeline. Its weights get no gradients.
        images: One picture or several, in any form that `encode` takes.
        prompt: One prompt for all pictures, or one for each.
        guidance_scale: w, above 1; by default what the model recommends, else 7.5.
        num_inference_steps: Number of sampler steps.
        inner_steps: Maximum number of inner steps at each t; three times as many in the last tenth. 0 keeps the start:
            with start="prompt" that is negative-prompt inversion (Miyake et al. 2023), as cheap as DDIM inversion.
        shared: Whether several pictures share one series (Eq. 5). Otherwise each gets its own, in the same batch.
        start: Initial ∅_T: "prompt" is the prompts' own embedding (their mean for a shared series), with which guidance
            has no effect; "empty" is that of the empty prompt, as in Mokady et al.
        tolerance: Mean squared error of x_{t-1} at which the inner steps stop.
        fixed_point_steps: Number of fixed-point iterations of DDIM inversion, see `ddim_invert`.
        height: Height to resize to, in pixels; by default the model's own.
        width: Width to resize to, in pixels; by default the model's own.
        cache: Folder that stores inversions by pictures, model and settings.
        progress: Whether to show a progress bar.

    Returns:
        The inversion with its null-text series.

    Raises:
        ValueError: As in `ddim_invert`; or if guidance_scale is not above 1, where ∅_t has no effect.
        FloatingPointError: If the model predicts noise that is not finite.
        torch.OutOfMemoryError: If memory runs out; the message says what to reduce.
    """
    check_pipeline(pipe, num_inference_steps)
    at_least(0, inner_steps=inner_steps, tolerance=tolerance, fixed_point_steps=fixed_point_steps)
    guidance_scale = recommended_guidance(pipe, guidance_scale)
    if not guidance_scale > 1:
        raise ValueError(f"expected guidance_scale above 1, got {guidance_scale}: without guidance use ddim_invert")
    if start not in STARTS:
        raise ValueError(f"expected start as one of {STARTS}, got {start!r}")
    batch, size = PictureBatch.of(images), picture_size(pipe, height, width)
    prompts = prompts_for(prompt, len(batch.pictures))

    def invert() -> tuple[Inversion, bool]:
        ddim = invert_batch(pipe, batch, prompts, num_inference_steps, fixed_point_steps, size, cache, progress)
        embeds = embed(pipe, prompts)
        null = (embeds if start == "prompt" else embed(pipe, [""] * len(ddim))).float()
        null = null.mean(0, keepdim=True) if shared else null
        steps = null_text_steps(pipe, ddim.trajectory, embeds, null, guidance_scale, inner_steps, tolerance)
        series: list[Tensor] = []
        with frozen(pipe.unet), progress_bar(num_inference_steps, "null text", progress) as bar:
            try:
                for embedding, error in steps:
                    series.append(embedding)
                    bar.set_postfix(error=f"{error:.1e}")
                    bar.update()
            except KeyboardInterrupt:
                warn(f"interrupted after {len(series)} of {num_inference_steps} steps: the last embedding is repeated")
        complete = len(series) == num_inference_steps
        series = [*series, *[series[-1] if series else null] * (num_inference_steps - len(series))]
        settings = replace(ddim.settings, guidance_scale=guidance_scale)
        return replace(ddim, series=torch.stack(series), settings=settings), complete

    return cached(
        invert, cache, pipe, batch, prompts=prompts, guidance_scale=guidance_scale,
        num_inference_steps=num_inference_steps, inner_steps=inner_steps, shared=shared, start=start,
        tolerance=tolerance, fixed_point_steps=fixed_point_steps, size=size,
    )  # fmt: skip


def null_text_steps(
    pipe: Pipeline, trajectory: Tensor, embeds: Tensor, null: Tensor, guidance_scale: float, inner_steps: int,
    tolerance: float,
) -> Iterator[tuple[Tensor, float]]:  # fmt: skip
    """Optimizes ∅_T … ∅_1 along a trajectory.

    Args:
        pipe: A diffusers pipeline.
        trajectory: x̃_0 … x̃_T of DDIM inversion.
        embeds: Embedding of each picture's prompt.
        null: Initial embeddings: one for all pictures, or one for each.
        guidance_scale: w.
        inner_steps: As in `null_text_invert`.
        tolerance: As in `null_text_invert`.

    Yields:
        ∅_t, and the mean squared error of x_{t-1} under it.
    """
    schedule, soap, count = Schedule.of(pipe.scheduler), Soap(), len(trajectory) - 1
    # `predict_noise` returns ε̂ whatever the model predicts.
    scheduler = scheduler_for(pipe, count, prediction_type="epsilon")
    x = trajectory[-1]
    for index, t in enumerate(scheduler.timesteps):
        target = trajectory[-2 - index]
        with torch.no_grad():
            towards = guidance_scale * predict_noise(pipe, schedule, x, t, embeds)
            without = scheduler.step(towards, int(t), x).prev_sample
            # The step is linear in the noise, with the same slope for all values.
            slope = (scheduler.step(towards + 1, int(t), x).prev_sample - without).mean() * (1 - guidance_scale)

        def noise(null: Tensor, x: Tensor = x, t: Tensor = t) -> Tensor:
            return predict_noise(pipe, schedule, x, t, null.expand(len(x), -1, -1))

        rate = FIRST_RATE + (LAST_RATE - FIRST_RATE) * index / count
        limit = tolerance / slope.square().item()
        effort = inner_steps * (LAST_EFFORT if index >= (1 - LAST_PART) * count else 1)
        best, best_noise, null = _fit(noise, null, (target - without) / slope, effort, limit, rate, soap)
        x = without + slope * best_noise
        yield best, (x - target).square().mean().item()


def _fit(
    noise: Callable[[Tensor], Tensor], start: Tensor, wanted: Tensor, inner_steps: int, limit: float, rate: float,
    soap: Soap,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Fits embeddings so that the model predicts the wanted noise.

    Args:
        noise: From embeddings (series × token × embedding) to the noise of each picture.
        start: Initial embeddings: one for all pictures, or one for each.
        wanted: The wanted noise.
        inner_steps: Maximum number of steps.
        limit: Mean squared error at which to stop.
        rate: Root mean square of a step.
        soap: The optimizer; its state is updated.

    Returns:
        The best embeddings, the noise under them, and the embeddings to continue from.
    """
    least, best, best_noise, null = None, start, wanted, start
    for number in range(max(1, inner_steps)):
        with torch.enable_grad():
            null = null.detach().requires_grad_()
            predicted = noise(null)
        residual = wanted - predicted.detach()
        error = residual.square().flatten(1).mean(1)
        error = error if len(null) == len(error) else error.mean(0, keepdim=True)
        if not torch.isfinite(error).all():
            raise FloatingPointError("the model predicts noise that is not finite: load it with dtype=torch.float32")
        better = torch.ones_like(error, dtype=torch.bool) if least is None else error < least
        least = error if least is None else torch.where(better, error, least)
        better = better[:, None, None]
        best = torch.where(better, null.detach(), best)
        best_noise = torch.where(better[..., None], predicted.detach(), best_noise)
        if not inner_steps or (least <= limit).all():
            return best, best_noise, best
        # Scaled to unit size for the backward pass, as small gradients underflow in float16.
        size = residual.square().mean().sqrt().clamp(min=1e-12)
        (gradient,) = torch.autograd.grad(predicted, null, residual / size)
        null = null.detach() + rate * soap.direction(gradient, turn=not number)
    return best, best_noise, null
