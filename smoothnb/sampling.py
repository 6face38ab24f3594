"""Guided sampling, a step at a time."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from smoothnb._utils import checks
from smoothnb._utils.arguments import checked
from smoothnb._utils.console import progress_bar, warn
from smoothnb._utils.memory import oom_hint
from smoothnb.images import to_pil
from smoothnb.latents import decode, decode_pixels, seeded_noise


@dataclass(frozen=True)
class Step:
    """The state of a batch after one sampling step.

    Attributes:
        index: Of the step, from 0.
        timestep: The t at which the noise was predicted.
        latents: x after the step; after the last one, the latents of the pictures.
        x0: The clean latents that the prediction at t implies (x̂0 in the paper).
    """

    index: int
    timestep: int
    latents: Float[Tensor, "batch channel height width"]
    x0: Float[Tensor, "batch channel height width"]


Texts = str | Sequence[str] | Float[Tensor, "text token embedding"]
"""One prompt, several, or their embeddings."""


class TruncatedPromptWarning(UserWarning):
    """A prompt has more tokens than the text encoder takes."""


@torch.no_grad()
def embed(pipe, prompts: str | Sequence[str]) -> Float[Tensor, "text token embedding"]:
    """Embeddings of prompts, ξ in the paper. What is too long is cut, with a `TruncatedPromptWarning`."""
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    most = pipe.tokenizer.model_max_length
    # With all tokens of textual inversions, as the pipeline has it.
    spelled = pipe.maybe_convert_prompt(prompts, pipe.tokenizer)
    for prompt, tokens in zip(prompts, pipe.tokenizer(spelled, verbose=False).input_ids, strict=True):
        if len(tokens) > most:
            warn(
                f"the text encoder takes {most} tokens, and this prompt has {len(tokens)}: its end is left out. "
                f"Shorten {prompt!r}",
                TruncatedPromptWarning,
            )
    return pipe.encode_prompt(prompts, pipe.device, 1, False)[0]


@checked()
def sample(
    pipe,
    prompt: Texts,
    latents: Float[Tensor, "*batch channel height width"] | None = None,
    seed: int | Sequence[int] = 0,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    negative_prompt: str | Float[Tensor, "*step_and_sample token embedding"] = "",
) -> Iterator[Step]:
    """Runs DDIM sampling with classifier-free guidance and yields every step.

    ε̂ = ε_θ(x_t, t, ∅) + w (ε_θ(x_t, t, ξ) - ε_θ(x_t, t, ∅)), with the guidance scale w, the prompt's embedding ξ and
    the negative prompt's ∅ (Ho & Salimans 2022); then one step of the pipeline's scheduler (Song et al. 2020 for DDIM).
    The pipeline itself is left as it was.

    Args:
        pipe: A diffusers pipeline.
        prompt: One prompt for the whole batch, or one for each sample; or their embeddings, as `embed` gives them.
        latents: Starting noise of unit variance: one latent for all prompts, or one for each sample.
        seed: Of the starting noise where `latents` is None: one for all prompts, or one for each sample.
        num_inference_steps: How many steps, at least 1.
        guidance_scale: w, at least 1; 1 is no guidance, and half the work.
        negative_prompt: What to steer away from; or its embedding, or a series with one embedding for each step, such
            as the null-text embeddings of an `Inversion` (step × token × width, or step × sample × token × width).

    Returns:
        An iterator over steps; each costs one pass through the UNet. Arguments are checked at once.

    Raises:
        ValueError: If prompts and latents do not pair up, or a number lies outside its range.
    """
    latents = seeded_noise(pipe, seed) if latents is None else latents
    latents = latents[None] if latents.ndim == 3 else latents
    prompts = [prompt] if isinstance(prompt, str) else prompt
    count = max(len(prompts), len(latents))
    if len(prompts) not in (1, count) or len(latents) not in (1, count) or not len(prompts):
        raise ValueError(f"{len(prompts)} prompts and {len(latents)} latents do not pair up: one, or as many of each")
    series = negative_prompt if isinstance(negative_prompt, Tensor) else embed(pipe, negative_prompt)
    series = series[:, None] if series.ndim == 3 else series.reshape(-1, *series.shape[-3:])
    if len(series) not in (1, num_inference_steps):
        raise ValueError(
            f"the series holds {len(series)} embeddings for {num_inference_steps} steps: give num_inference_steps="
            f"{len(series)}"
        )
    embeds = prompts if isinstance(prompts, Tensor) else embed(pipe, prompts)
    embeds, series = (x.to(pipe.device, pipe.unet.dtype) for x in (embeds, series))
    latents = latents.to(pipe.device, pipe.unet.dtype).expand(count, -1, -1, -1) * pipe.scheduler.init_noise_sigma
    series = series.expand(num_inference_steps, -1, -1, -1)
    if series.shape[1] not in (1, count) or series.shape[2] != embeds.shape[1]:
        raise ValueError(
            f"the series is of shape {tuple(series.shape)}, step × sample × token × width: expected 1 or {count} "
            f"samples and {embeds.shape[1]} tokens, as the prompts have"
        )
    return _steps(pipe, latents, embeds.expand(count, -1, -1), series, guidance_scale)


def _steps(pipe, latents: Tensor, embeds: Tensor, series: Tensor, guidance_scale: float) -> Iterator[Step]:
    def noise(index: int, t: Tensor, x: Tensor) -> Tensor:
        return guided_noise(pipe, x, t, embeds, series[index], guidance_scale)

    return denoise(pipe, latents, noise, len(series))


def guided_noise(pipe, x: Tensor, t: Tensor, embeds: Tensor, null: Tensor, guidance_scale: float) -> Tensor:
    """ε̂ of classifier-free guidance, as in `sample`, with scaled latents x and one embedding for each of them."""
    if guidance_scale == 1:
        return pipe.unet(x, t, encoder_hidden_states=embeds).sample
    both = torch.cat([null.expand_as(embeds), embeds])
    without, within = pipe.unet(torch.cat([x, x]), t, encoder_hidden_states=both).sample.chunk(2)
    return without + guidance_scale * (within - without)


def denoise(
    pipe,
    latents: Tensor,
    noise: Callable[[int, Tensor, Tensor], Tensor],
    num_inference_steps: int,
    first: int = 0,
    settle: Callable[[int, Tensor], Tensor] = lambda index, x: x,
) -> Iterator[Step]:
    """DDIM sampling with whatever noise is found: what `sample` and `edit_text` have in common.

    Args:
        pipe: A diffusers pipeline; it is left as it was.
        latents: x to start from, in the UNet's type.
        noise: From index, timestep and latents, scaled as the scheduler asks, to ε̂ (or v̂).
        num_inference_steps: Of the whole sampling.
        first: Index of the step to start with.
        settle: From the index and x after the step to what goes on in its place.

    Yields:
        Every step.
    """
    scheduler = scheduler_for(pipe, num_inference_steps)
    for index, t in enumerate(scheduler.timesteps[first:], first):
        # Gradients are off for the step alone: what runs between two steps is the caller's.
        with oom_hint("sampling", "give fewer latents or prompts at a time"), torch.no_grad():
            found = noise(index, t, scheduler.scale_model_input(latents, t))
            step = scheduler.step(found, t, latents)
            latents = settle(index, step.prev_sample)
        yield Step(index, int(t), latents, step.pred_original_sample)


def scheduler_for(pipe, num_inference_steps: int):
    """A scheduler like the pipeline's, set to so many steps: the pipeline's own stays as it is."""
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(num_inference_steps, device=pipe.device)
    return scheduler


@checked()
def finish(pipe, steps: Iterable[Step], progress: bool = True) -> list[Image.Image]:
    """Runs sampling to its end, and decodes what came out.

    Args:
        pipe: The pipeline of the steps.
        steps: Such as `sample` or `edit_text` gives.
        progress: Whether to show a progress bar.

    Returns:
        RGB pictures, one for each sample.

    Raises:
        ValueError: If there are no steps.
    """
    last = None
    with progress_bar(None, "sampling", progress) as bar:
        for step in checks.iterable("steps", steps):
            last = checks.of(Step, "a Step, such as sample gives")("each of the steps", step)
            bar.update()
    if last is None:
        raise ValueError("expected at least one step, got none: has this iterator been used up before?")
    return decode(pipe, last.latents)


@checked()
def generate(
    pipe,
    prompt: Texts,
    seeds: int | Sequence[int] = 0,
    latents: Float[Tensor, "*batch channel height width"] | None = None,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    negative_prompt: str | Float[Tensor, "*step_and_sample token embedding"] = "",
    batch_size: int = 16,
    progress: bool = True,
) -> list[Image.Image]:
    """Draws pictures: `sample` to its end, then `decode`.

    Args:
        pipe: A diffusers pipeline.
        prompt: One prompt for all pictures, or one for each; or their embeddings.
        seeds: Of the starting noise where `latents` is None: one for all prompts, or one for each picture.
        latents: Starting noise of unit variance: one latent for all prompts, or one for each picture.
        num_inference_steps: How many steps, at least 1.
        guidance_scale: At least 1; 1 is no guidance.
        negative_prompt: As in `sample`.
        batch_size: How many pictures are drawn at a time.
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
    pipe,
    prompt: Texts,
    seeds: int | Sequence[int] = 0,
    latents: Float[Tensor, "*batch channel height width"] | None = None,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    negative_prompt: str | Float[Tensor, "*step_and_sample token embedding"] = "",
    batch_size: int = 16,
    progress: bool = True,
) -> Float[Tensor, "picture 3 picture_height picture_width"]:
    """What `generate` rounds to 8 bits: pixels in [0, 1], float32, on the CPU."""
    latents = seeded_noise(pipe, seeds) if latents is None else latents
    latents = latents[None] if latents.ndim == 3 else latents
    prompts = [prompt] if isinstance(prompt, str) else prompt
    count = max(len(prompts), len(latents))
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
