"""Guided sampling, a step at a time."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from smoothnb.latents import decode, seeded_noise
from smoothnb.progress import progress_bar


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


def sample(
    pipe,
    prompt: str | Sequence[str],
    latents: Float[Tensor, "*batch channel height width"] | None = None,
    seed: int | Sequence[int] = 0,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    negative_prompt: str = "",
) -> Iterator[Step]:
    """Runs DDIM sampling with classifier-free guidance and yields every step.

    ε̂ = ε_θ(x_t, t, ∅) + w (ε_θ(x_t, t, ξ) - ε_θ(x_t, t, ∅)), with the guidance scale w, the prompt's embedding ξ and
    the negative prompt's ∅ (Ho & Salimans 2022); then one step of the pipeline's scheduler (Song et al. 2020 for DDIM).
    The pipeline itself is left as it was.

    Args:
        pipe: A diffusers pipeline.
        prompt: One prompt for the whole batch, or one for each sample.
        latents: Starting noise of unit variance: one latent for all prompts, or one for each sample.
        seed: Of the starting noise where `latents` is None: one for all prompts, or one for each sample.
        num_inference_steps: How many steps, at least 1.
        guidance_scale: w, at least 1; 1 is no guidance, and half the work.
        negative_prompt: What to steer away from.

    Returns:
        An iterator over steps; each costs one pass through the UNet. Arguments are checked at once.

    Raises:
        ValueError: If prompts and latents do not pair up, or a number lies outside its range.
    """
    if num_inference_steps < 1:
        raise ValueError(f"expected num_inference_steps of at least 1, got {num_inference_steps}")
    if not guidance_scale >= 1:
        raise ValueError(f"expected guidance_scale of at least 1 (1 is no guidance), got {guidance_scale}")
    latents = seeded_noise(pipe, seed) if latents is None else latents
    latents = latents[None] if latents.ndim == 3 else latents
    channels = pipe.unet.config.in_channels
    if latents.shape[1] != channels or not torch.isfinite(latents).all():
        raise ValueError(
            f"expected finite latents with {channels} channels, got shape {tuple(latents.shape)}; "
            "draw some with seeded_noise(pipe, seeds)"
        )
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    count = max(len(prompts), len(latents))
    if len(prompts) not in (1, count) or len(latents) not in (1, count) or not prompts:
        raise ValueError(f"{len(prompts)} prompts and {len(latents)} latents do not pair up: one, or as many of each")

    guided = guidance_scale > 1
    with torch.no_grad():
        embeds, negative_embeds = pipe.encode_prompt(
            prompts, pipe.device, 1, guided, [negative_prompt] * len(prompts) if guided else None
        )
    embeds = [x.expand(count, -1, -1) for x in ((negative_embeds, embeds) if guided else (embeds,))]
    latents = latents.to(pipe.device, pipe.unet.dtype).expand(count, -1, -1, -1)
    return _steps(pipe, latents, torch.cat(embeds), num_inference_steps, guidance_scale)


def _steps(pipe, latents: Tensor, embeds: Tensor, num_inference_steps: int, guidance_scale: float) -> Iterator[Step]:
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(num_inference_steps, device=pipe.device)
    latents = latents * scheduler.init_noise_sigma
    for index, t in enumerate(scheduler.timesteps):
        # Gradients are off for the step alone: what runs between two steps is the caller's.
        with torch.no_grad():
            copies = torch.cat([latents] * (len(embeds) // len(latents)))
            noise = pipe.unet(scheduler.scale_model_input(copies, t), t, encoder_hidden_states=embeds).sample
            if guidance_scale > 1:
                unconditional, conditional = noise.chunk(2)
                noise = unconditional + guidance_scale * (conditional - unconditional)
            step = scheduler.step(noise, t, latents)
        latents = step.prev_sample
        yield Step(index, int(t), latents, step.pred_original_sample)


def generate(
    pipe,
    prompt: str | Sequence[str],
    seeds: int | Sequence[int] = 0,
    latents: Float[Tensor, "*batch channel height width"] | None = None,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    negative_prompt: str = "",
    batch_size: int = 16,
    progress: bool = True,
) -> list[Image.Image]:
    """Draws pictures: `sample` to its end, then `decode`.

    Args:
        pipe: A diffusers pipeline.
        prompt: One prompt for all pictures, or one for each.
        seeds: Of the starting noise where `latents` is None: one for all prompts, or one for each picture.
        latents: Starting noise of unit variance: one latent for all prompts, or one for each picture.
        num_inference_steps: How many steps, at least 1.
        guidance_scale: At least 1; 1 is no guidance.
        negative_prompt: What to steer away from.
        batch_size: How many pictures are drawn at a time.
        progress: Whether to show a progress bar.

    Returns:
        RGB pictures, one for each sample.

    Raises:
        ValueError: As in `sample`.
    """
    latents = seeded_noise(pipe, seeds) if latents is None else latents
    latents = latents[None] if latents.ndim == 3 else latents
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    count = max(len(prompts), len(latents))
    pictures: list[Image.Image] = []
    batches = [slice(start, start + batch_size) for start in range(0, count, batch_size)]
    with progress_bar(len(batches) * num_inference_steps, "sampling", progress) as bar:
        for batch in batches:
            own_prompts = prompts if len(prompts) == 1 else prompts[batch]
            own_latents = latents if len(latents) == 1 else latents[batch]
            steps = sample(pipe, own_prompts, own_latents, 0, num_inference_steps, guidance_scale, negative_prompt)
            for step in steps:
                final = step.latents
                bar.update()
            pictures += decode(pipe, final, batch_size)
    return pictures
