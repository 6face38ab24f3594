"""Interpolation standard deviation: how unevenly the picture changes on an even walk between two noises."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smoothnb.images import to_pixels
from smoothnb.latents import seeded_noise, slerp
from smoothnb.progress import progress_bar
from smoothnb.sampling import generate


@dataclass(frozen=True)
class ISTD:
    """Result of `istd`.

    Attributes:
        value: Mean over prompts of the standard deviation of neighbours' distances.
        distances: Of neighbouring pictures, for each prompt.
    """

    value: float
    distances: Float[Tensor, "prompt step"]


def walk(pipe, number: int, num_ratios: int = 11, seed: int = 0) -> Float[Tensor, "ratio channel height width"]:
    """The noises of one of `istd`'s walks: between two that depend on (seed, number) alone, at even ratios."""
    first = (seed * 1_000_003 + number) * 2
    return slerp(*seeded_noise(pipe, [first, first + 1]), np.linspace(0, 1, num_ratios))


def istd(
    pipe,
    prompts: Sequence[str],
    num_ratios: int = 11,
    guidance_scale: float = 7.5,
    num_inference_steps: int = 50,
    seed: int = 0,
    progress: bool = True,
) -> ISTD:
    """Interpolation standard deviation, as the supplement defines it in A.3.

    For each prompt two noises are drawn, mixed by slerp at even ratios from 0 to 1, and each mix is made a picture. The
    L2 distances between neighbouring pictures have a standard deviation (of the population); ISTD is its mean over
    prompts. It is 0 where each step changes the picture by as much as any other.

    Args:
        pipe: A diffusers pipeline.
        prompts: What to draw.
        num_ratios: Pictures on each walk, 11 in the paper.
        guidance_scale: As in `generate`.
        num_inference_steps: As in `generate`.
        seed: Of the noises, see `walk`: all models see the same.
        progress: Whether to show a progress bar.

    Returns:
        The value and the distances, for pixels in [0, 1].

    Raises:
        ValueError: If there are no prompts, or less than three ratios.
    """
    if not len(prompts) or num_ratios < 3:
        raise ValueError(
            f"expected at least one prompt and three ratios, got {len(prompts)} prompts and {num_ratios} ratios"
        )
    rows = []
    with progress_bar(len(prompts), "walks", progress) as bar:
        for i, prompt in enumerate(prompts):
            frames = generate(
                pipe, prompt, latents=walk(pipe, i, num_ratios, seed), guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps, progress=False,
            )  # fmt: skip
            pixels = to_pixels(frames, frames[0].height, frames[0].width)
            rows.append((pixels[1:] - pixels[:-1]).flatten(1).norm(dim=1))
            bar.update()
    distances = torch.stack(rows)
    return ISTD(distances.std(dim=1, correction=0).mean().item(), distances)
