"""Sampling with classifier-free guidance, step by step."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from smoothnb._utils.checks import at_least
from smoothnb._utils.console import progress_bar, warn
from smoothnb._utils.memory import oom_hint
from smoothnb._utils.pipeline import Pipeline, check_embeddings, check_latents, check_pipeline
from smoothnb.images import to_pil
from smoothnb.latents import Seeds, decode, decode_pixels, seeded_noise
from smoothnb.models.parts import ddim, device_of, recommended_guidance


@dataclass(frozen=True)
class Step:
    """The state of a batch after one sampling step.

    Attributes:
        index: Index of the step, from 0.
        timestep: The t at which the noise was predicted.
        latents: x after the step; after the last one, the latents of the pictures.
        x0: The clean latents that the prediction at t implies, x̂_0.
    """

    index: int
    timestep: int
    latents: Float[Tensor, "batch channel height width"]
    x0: Float[Tensor, "batch channel height width"]


Texts = str | Sequence[str] | Float[Tensor, "text token embedding"]
"""One prompt, several, or their embeddings."""


class TruncatedPromptWarning(UserWarning):
    """A prompt has more tokens than the text encoder accepts."""


@torch.no_grad()
def embed(pipe: Pipeline, prompts: str | Sequence[str]) -> Float[Tensor, "text token embedding"]:
    """Embeddings ξ of prompts. Prompts that are too long are truncated with a `TruncatedPromptWarning`."""
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    most = pipe.tokenizer.model_max_length
    # With all tokens of textual inversions, as the pipeline has it.
    spelled = pipe.maybe_convert_prompt(prompts, pipe.tokenizer)
    for prompt, tokens in zip(prompts, pipe.tokenizer(spelled, verbose=False).input_ids, strict=True):
        if len(tokens) > most:
            warn(
                f"the text encoder takes {most} tokens, and this prompt has {len(tokens)}: its end is ignored. "
                f"Shorten {prompt!r}",
                TruncatedPromptWarning,
            )
    return pipe.encode_prompt(prompts, device_of(pipe), 1, False)[0]


def sample(
    pipe: Pipeline,
    prompt: Texts,
    latents: Float[Tensor, "*batch channel height width"] | None = None,
    seed: Seeds = 0,
    num_inference_steps: int = 50,
    guidance_scale: float | None = None,
    negative_prompt: str | Float[Tensor, "*step_and_sample token embedding"] = "",
) -> Iterator[Step]:
    """Runs DDIM sampling with classifier-free guidance and yields every step.

    ε̂ = ε_θ(x_t, t, ∅) + w (ε_θ(x_t, t, ξ) - ε_θ(x_t, t, ∅)), with the guidance scale w, the prompt's embedding ξ and
    the negative prompt's ∅ (Ho & Salimans 2022); then one step of DDIM (Song et al. 2020), whatever scheduler the
    pipeline has. The pipeline itself is left as it was.

    Args:
        pipe: A diffusers pipeline.
        prompt: One prompt for the whole batch, or one for each sample; or their embeddings, as `embed` gives them.
        latents: Starting noise of unit variance: one latent for all prompts, or one for each sample.
        seed: Seed of the starting noise if `latents` is None: one for all prompts, or one for each sample.
        num_inference_steps: Number of sampling steps, at least 1.
        guidance_scale: w, at least 1; 1 disables guidance and halves the cost. By default what the model recommends
            (`recommended_guidance`).
        negative_prompt: A prompt to steer away from, its embedding, or a series with one embedding for each step, such
            as the null-text embeddings of an `Inversion` (step × token × width, or step × sample × token × width).

    Returns:
        An iterator over steps; each costs one pass through the UNet. Arguments are checked at once.

    Raises:
        ValueError: If prompts and latents differ in number, or a number is out of range.
    """
    check_pipeline(pipe, num_inference_steps)
    check_embeddings(pipe, negative_prompt=negative_prompt)
    prompts, latents, count = _paired(pipe, prompt, latents, seed)
    guidance_scale = recommended_guidance(pipe, guidance_scale)
    series = negative_prompt if isinstance(negative_prompt, Tensor) else embed(pipe, negative_prompt)
    series = series[:, None] if series.ndim == 3 else series.reshape(-1, *series.shape[-3:])
    if len(series) not in (1, num_inference_steps):
        raise ValueError(
            f"the series holds {len(series)} embeddings for {num_inference_steps} steps: give num_inference_steps="
            f"{len(series)}"
        )
    embeds = prompts if isinstance(prompts, Tensor) else embed(pipe, prompts)
    embeds, series, latents = (x.to(device_of(pipe), pipe.unet.dtype) for x in (embeds, series, latents))
    latents = latents.expand(count, -1, -1, -1)
    series = series.expand(num_inference_steps, -1, -1, -1)
    if series.shape[1] not in (1, count) or series.shape[2] != embeds.shape[1]:
        raise ValueError(
            f"the series is of shape {tuple(series.shape)}, step × sample × token × width: expected 1 or {count} "
            f"samples and {embeds.shape[1]} tokens, as the prompts have"
        )
    return _steps(pipe, latents, embeds.expand(count, -1, -1), series, guidance_scale)


def _paired(pipe: Pipeline, prompt: Texts, latents: Tensor | None, seed: Seeds) -> tuple[Texts, Tensor, int]:
    """Prompts (or embeddings) and latents, and how many samples they make: there is one of each kind, or that many."""
    check_embeddings(pipe, prompt=prompt)
    latents = seeded_noise(pipe, seed) if latents is None else latents
    check_latents(pipe, latents)
    latents = latents[None] if latents.ndim == 3 else latents
    prompts = [prompt] if isinstance(prompt, str) else prompt if isinstance(prompt, Tensor) else list(prompt)
    count = max(len(prompts), len(latents))
    if len(prompts) not in (1, count) or len(latents) not in (1, count) or not len(prompts):
        raise ValueError(f"{len(prompts)} prompts and {len(latents)} latents do not pair up: one, or as many of each")
    return prompts, latents, count


def _steps(pipe: Pipeline, latents: Tensor, embeds: Tensor, series: Tensor, guidance_scale: float) -> Iterator[Step]:
    def noise(index: int, t: Tensor, x: Tensor) -> Tensor:
        return guided_noise(pipe, x, t, embeds, series[index], guidance_scale)

    return denoise(pipe, latents, noise, len(series))


def guided_noise(pipe: Pipeline, x: Tensor, t: Tensor, embeds: Tensor, null: Tensor, guidance_scale: float) -> Tensor:
    """ε̂ of classifier-free guidance, see `sample`, for latents x and one embedding for each."""
    if guidance_scale == 1:
        return pipe.unet(x, t, encoder_hidden_states=embeds).sample
    both = torch.cat([null.expand_as(embeds), embeds])
    without, within = pipe.unet(torch.cat([x, x]), t, encoder_hidden_states=both).sample.chunk(2)
    return without + guidance_scale * (within - without)


def denoise(
    pipe: Pipeline,
    latents: Tensor,
    noise: Callable[[int, Tensor, Tensor], Tensor],
    num_inference_steps: int,
    first: int = 0,
    settle: Callable[[int, Tensor], Tensor] = lambda index, x: x,
) -> Iterator[Step]:
    """DDIM sampling with any noise prediction: the loop behind `sample`, `edit_text` and `drag`.

    Args:
        pipe: A diffusers pipeline, which is left as it was.
        latents: Initial x, in the UNet's type.
        noise: From index, timestep and latents to ε̂ (or v̂).
        num_inference_steps: Number of steps of the whole sampling.
        first: Index of the first step to run.
        settle: Called with the index and x after each step; the result replaces x.

    Yields:
        Every step.
    """
    scheduler = scheduler_for(pipe, num_inference_steps)
    for index, t in enumerate(scheduler.timesteps[first:], first):
        # Gradients are disabled within the step only: code between two steps belongs to the caller.
        with oom_hint("sampling", "give fewer latents or prompts at a time"), torch.no_grad():
            step = scheduler.step(noise(index, t, latents), t, latents)
            latents = settle(index, step.prev_sample)
        yield Step(index, int(t), latents, step.pred_original_sample)


def scheduler_for(pipe: Pipeline, num_inference_steps: int, **settings: object):
    """The DDIM scheduler of the pipeline's model, set to this number of steps; see `ddim`."""
    # All timesteps of the training start at 0.
    offset = {"steps_offset": 0} if num_inference_steps == len(pipe.scheduler.alphas_cumprod) else {}
    scheduler = ddim(pipe.scheduler, **offset | settings)
    scheduler.set_timesteps(num_inference_steps, device=device_of(pipe))
    return scheduler


def finish(pipe: Pipeline, steps: Iterable[Step], progress: bool = True) -> list[Image.Image]:
    """Runs sampling to its end and decodes the result.

    Args:
        pipe: The pipeline of the steps.
        steps: Steps of `sample` or `edit_text`.
        progress: Whether to show a progress bar.

    Returns:
        RGB pictures, one for each sample.

    Raises:
        ValueError: If there are no steps.
    """
    last = None
    with progress_bar(None, "sampling", progress) as bar:
        for step in steps:
            last = step
            bar.update()
    if last is None:
        raise ValueError("expected at least one step, got none: this iterator may have been consumed before")
    return decode(pipe, last.latents)


def generate(
    pipe: Pipeline,
    prompt: Texts,
    seeds: Seeds = 0,
    latents: Float[Tensor, "*batch channel height width"] | None = None,
    num_inference_steps: int = 50,
    guidance_scale: float | None = None,
    negative_prompt: str | Float[Tensor, "*step_and_sample token embedding"] = "",
    batch_size: int = 16,
    progress: bool = True,
) -> list[Image.Image]:
    """Generates pictures: runs `sample` to its end, then `decode`.

    Args:
        pipe: A diffusers pipeline.
        prompt: One prompt for all pictures, or one for each; or their embeddings.
        seeds: Seeds of the starting noise if `latents` is None: one for all prompts, or one for each picture.
        latents: Starting noise of unit variance: one latent for all prompts, or one for each picture.
        num_inference_steps: Number of sampling steps, at least 1.
        guidance_scale: As in `sample`.
        negative_prompt: As in `sample`.
        batch_size: Number of pictures drawn at a time.
        progress: Whether to show a progress bar.

    Returns:
        RGB pictures, one for each sample.

    Raises:
        ValueError: As in `sample`.
    """
    pixels = generate_pixels(
        pipe, prompt, seeds, latents, num_inference_steps, guidance_scale, negative_prompt, batch_size, progress
    )
    return to_pil(pixels)


@oom_hint("drawing pictures", "give a smaller batch_size")
def generate_pixels(
    pipe: Pipeline,
    prompt: Texts,
    seeds: Seeds = 0,
    latents: Float[Tensor, "*batch channel height width"] | None = None,
    num_inference_steps: int = 50,
    guidance_scale: float | None = None,
    negative_prompt: str | Float[Tensor, "*step_and_sample token embedding"] = "",
    batch_size: int = 16,
    progress: bool = True,
) -> Float[Tensor, "picture 3 picture_height picture_width"]:
    """Like `generate`, but returns pixels in [0, 1], float32, on the CPU."""
    check_pipeline(pipe, num_inference_steps)
    at_least(1, batch_size=batch_size)
    prompts, latents, count = _paired(pipe, prompt, latents, seeds)
    parts: list[Tensor] = []
    batches = [slice(start, start + batch_size) for start in range(0, count, batch_size)]
    with progress_bar(len(batches) * num_inference_steps, "sampling", progress) as bar:
        for batch in batches:
            own_prompts = prompts if len(prompts) == 1 else prompts[batch]
            own_latents = latents if len(latents) == 1 else latents[batch]
            series = negative_prompt
            if isinstance(series, Tensor) and series.ndim == 4 and series.shape[1] > 1:
                series = series[:, batch]
            steps = sample(pipe, own_prompts, own_latents, 0, num_inference_steps, guidance_scale, series)
            for step in steps:
                final = step.latents
                bar.update()
            parts.append(decode_pixels(pipe, final))
    return torch.cat(parts)
