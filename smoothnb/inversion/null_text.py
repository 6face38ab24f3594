"""Null-text inversion: embeddings that undo what guidance adds (Eq. 4), one series for several pictures (Eq. 5)."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from smoothnb._utils import checks
from smoothnb._utils.arguments import checked
from smoothnb._utils.console import progress_bar, warn
from smoothnb._utils.memory import spared
from smoothnb._utils.temporarily import frozen
from smoothnb.images import ImageLike
from smoothnb.inversion.inversion import Inversion, cache_file, cached, ddim_invert, keep, predict
from smoothnb.inversion.series import Making, MakingFile
from smoothnb.inversion.soap import Soap
from smoothnb.latents import picture_size
from smoothnb.sampling import embed
from smoothnb.schedule import Schedule

STARTS = ("prompt", "empty")
FIRST_RATE, LAST_RATE = 0.05, 0.02
"""Length of an inner step at x_T and at x_1, as root mean square beside embeddings of about 1."""
LAST_PART, LAST_EFFORT = 0.1, 3
"""In this part of the sampling steps, the last, this many times as many inner steps: what they leave, none mends."""


@checked(prompt=checks.texts, guidance_scale=checks.number())
@spared("seeking null-text embeddings", "give fewer pictures at a time, one by one where they share no series")
def null_text_invert(
    pipe,
    images: ImageLike | Sequence[ImageLike],
    prompt: str | Sequence[str] = "",
    guidance_scale: float = 7.5,
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

    Guidance drives the sampler away from the way that DDIM inversion came. One embedding ∅_t a step, in the place of
    the empty prompt's, brings it back: it is sought so that the guided step from x_t ends at the inversion's x̃_{t-1},
    for all pictures at once where they are several.

    The sampler's step is linear in the noise that the model finds under ∅_t, so each picture says at once which noise
    would be right, and what is left is to fit it. The UNet is frozen and sees all pictures in one batch; `Soap`
    descends, and keeps what it knows of the problem from one t to the next. An inner step is one forward and one
    backward pass; the best embedding met is kept, and the last step's is where the next t starts. What one t leaves,
    the next ones mend; the last tenth of them, which nothing follows, may take three times as many inner steps.

    Interrupted (Ctrl-C), the steps that are done are kept, and those that are not get the last embedding found. With a
    cache, they are kept there too, and written every few seconds anyway: after a kill, the same call goes on from
    there, and ends as one that was never stopped.

    Args:
        pipe: A diffusers pipeline; no weight gets a gradient.
        images: One picture or several, as `encode` takes them.
        prompt: For all pictures, or one for each.
        guidance_scale: w, above 1.
        num_inference_steps: Of the sampler.
        inner_steps: For each t, at most, and three times as many in the last tenth. 0 keeps the start: with "prompt"
            that is negative-prompt inversion (Miyake et al. 2023), which costs nothing beyond DDIM inversion.
        shared: Whether several pictures share one series (Eq. 5). Otherwise each gets its own, in the same batch.
        start: Where ∅_T is sought first: "prompt", the prompts' own embedding (their mean where a series is shared),
            under which guidance has no effect, or "empty", that of the empty prompt, as Mokady et al. do.
        tolerance: Mean squared error of x_{t-1} at which a t is done.
        fixed_point_steps: Of the DDIM inversion before, see `ddim_invert`.
        height: To resize to, in pixels; the model's own by default.
        width: To resize to, in pixels; the model's own by default.
        cache: Folder in which finished inversions are kept, and looked for by picture, model and settings.
        progress: Whether to show a progress bar, with the current error.

    Returns:
        The inversion with its series.

    Raises:
        ValueError: As in `ddim_invert`, or if guidance_scale is not above 1, where ∅_t has no effect.
        FloatingPointError: If the model finds noise that is not finite.
        torch.OutOfMemoryError: If memory runs out; the message says what to lower.
    """
    if not guidance_scale > 1:
        raise ValueError(f"expected guidance_scale above 1, got {guidance_scale}: without guidance use ddim_invert")
    if start not in STARTS:
        raise ValueError(
            f"expected inner_steps of at least 0 and start as one of {STARTS}, got {inner_steps} and {start!r}"
        )
    file = cache_file(
        cache, pipe, images, prompt=prompt, guidance_scale=guidance_scale, num_inference_steps=num_inference_steps,
        inner_steps=inner_steps, shared=shared, start=start, tolerance=tolerance, fixed_point_steps=fixed_point_steps,
        size=picture_size(pipe, height, width),
    )  # fmt: skip
    if (there := cached(file, pipe)) is not None:
        return there
    found = ddim_invert(pipe, images, prompt, num_inference_steps, fixed_point_steps, height, width, cache, progress)
    schedule, embeds = Schedule.of(pipe.scheduler), embed(pipe, found.settings.prompts)
    null = (embeds if start == "prompt" else embed(pipe, [""] * len(found))).float()
    null = null.mean(0, keepdim=True) if shared else null
    kept, soap = MakingFile(file), Soap()
    making = kept.restored(Making(found.latents, null), num_inference_steps)
    soap.load_state_dict(making.memory)
    # The noise is handed over as such, whatever the model predicts.
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.register_to_config(prediction_type="epsilon")
    scheduler.set_timesteps(num_inference_steps, device=pipe.device)
    with frozen(pipe.unet), progress_bar(num_inference_steps, "null text", progress) as bar:
        try:
            bar.update(len(making.series))
            for index, t in enumerate(scheduler.timesteps):
                if index < len(making.series):
                    continue
                x, target = making.x, found.trajectory[-2 - index]
                with torch.no_grad():
                    pull = guidance_scale * predict(pipe, schedule, x, t, embeds)
                    without = scheduler.step(pull, int(t), x).prev_sample
                    # The step is linear in the noise, with the same slope everywhere.
                    slope = (scheduler.step(pull + 1, int(t), x).prev_sample - without).mean() * (1 - guidance_scale)

                def noise(null: Tensor, x: Tensor = x, t: Tensor = t) -> Tensor:
                    return predict(pipe, schedule, x, t, null.expand(len(x), -1, -1))

                rate = FIRST_RATE + (LAST_RATE - FIRST_RATE) * index / num_inference_steps
                limit = tolerance / slope.square().item()
                effort = inner_steps * (LAST_EFFORT if index >= (1 - LAST_PART) * num_inference_steps else 1)
                wanted = (target - without) / slope
                best, under_it, null = _fit(noise, making.null, wanted, effort, limit, rate, soap)
                x = without + slope * under_it
                making = Making(x, null, (*making.series, best), soap.state_dict())
                kept.keep(making)
                bar.set_postfix(error=f"{(x - target).square().mean().item():.1e}")
                bar.update()
        except KeyboardInterrupt:
            done = len(making.series)
            warn(f"interrupted after {done} of {num_inference_steps} steps: the others are not sought")
            kept.keep(making, now=True)
            file = None
        except Exception:
            kept.keep(making, now=True)
            raise
    series = making.series or (making.null,)
    series += series[-1:] * (num_inference_steps - len(series))
    inversion = replace(
        found, series=torch.stack(series), settings=replace(found.settings, guidance_scale=guidance_scale)
    )
    if keep(inversion, file):
        kept.remove()
    return inversion


def _fit(
    noise: Callable[[Tensor], Tensor], start: Tensor, wanted: Tensor, inner_steps: int, limit: float, rate: float,
    soap: Soap,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Seeks the embeddings under which the model finds the noise that is wanted.

    Args:
        noise: From embeddings (series × token × embedding) to noise for each picture.
        start: Embeddings to start from: one for all pictures, or one for each.
        wanted: Noise.
        inner_steps: At most.
        limit: Mean squared error at which to stop.
        rate: Length of a step.
        soap: Keeps its state.

    Returns:
        The best embeddings met, the noise under them, and the embeddings to go on from.
    """
    least, best, under_best, null = None, start, wanted, start
    for number in range(max(1, inner_steps)):
        with torch.enable_grad():
            null = null.detach().requires_grad_()
            found = noise(null)
        residual = wanted - found.detach()
        error = residual.square().flatten(1).mean(1)
        error = error if len(null) == len(error) else error.mean(0, keepdim=True)
        if not torch.isfinite(error).all():
            raise FloatingPointError("the model found noise that is not finite: load it with dtype=torch.float32")
        better = torch.ones_like(error, dtype=torch.bool) if least is None else error < least
        least = error if least is None else torch.where(better, error, least)
        better = better[:, None, None]
        best, under_best = (
            torch.where(better, null.detach(), best),
            torch.where(better[..., None], found.detach(), under_best),
        )
        if not inner_steps or (least <= limit).all():
            return best, under_best, best
        # Brought to unit size for the backward pass, as small gradients vanish in float16.
        size = residual.square().mean().sqrt().clamp(min=1e-12)
        (gradient,) = torch.autograd.grad(found, null, residual / size)
        null = null.detach() + rate * soap.direction(gradient, turn=not number)
    return best, under_best, null
