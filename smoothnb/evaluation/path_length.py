"""Perceptual path length: the perceptual distance of a small step in the noise."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from smoothnb._utils.checks import at_least, shown, within
from smoothnb._utils.console import progress_bar
from smoothnb._utils.memory import oom_hint
from smoothnb._utils.pipeline import Pipeline, check_pipeline
from smoothnb.evaluation._istd import walk
from smoothnb.latents import slerp
from smoothnb.sampling import embed, generate_pixels


@oom_hint("measuring path lengths", "give a smaller batch_size")
def path_lengths(
    pipe: Pipeline,
    prompts: Sequence[str],
    distances: Callable[[Tensor, Tensor], Tensor],
    epsilon: float = 1e-2,
    guidance_scale: float | None = None,
    num_inference_steps: int = 50,
    seed: int = 0,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 22,
    progress: bool = True,
) -> Float[Tensor, " prompt"]:
    """Perceptual path lengths (Karras et al. 2019, "A Style-Based Generator Architecture"); PPL is their mean.

    d(G(slerp(a, b, t)), G(slerp(a, b, t + ε))) / ε² for each prompt, with two noises a and b as in `istd` and t drawn
    uniformly from [0, 1 - ε]. Noises and t of prompt i depend on (seed, i) only.

    Args:
        pipe: A diffusers pipeline.
        prompts: The prompts.
        distances: d, from two batches of pictures in [0, 1] to a squared distance for each pair, such as
            `Judge.distances`.
        epsilon: Step in η, in (0, 1). StyleGAN's 1e-4 is too small for half precision.
        guidance_scale: As in `generate`.
        num_inference_steps: As in `generate`.
        seed: Seed of noises and t.
        height: Height of the pictures, in pixels; by default the model's own.
        width: Width of the pictures, in pixels; by default the model's own.
        batch_size: Number of pictures drawn at a time, two for each prompt.
        progress: Whether to show a progress bar.

    Returns:
        One path length for each prompt.

    Raises:
        ValueError: If there are no prompts, or a number is out of range.
    """
    check_pipeline(pipe, num_inference_steps)
    at_least(1, batch_size=batch_size)
    within(-(2**31), 2**32 - 1, seed=seed)
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts or not 0 < epsilon < 1:
        raise ValueError(f"expected prompts and an epsilon in (0, 1), got {len(prompts)} prompts and {epsilon}")
    found = []
    together = max(1, batch_size // 2)
    with progress_bar(len(prompts), "path lengths", progress) as bar:
        for first in range(0, len(prompts), together):
            numbers = range(first, min(first + together, len(prompts)))
            ends = [walk(pipe, number, 2, seed, height, width) for number in numbers]
            # These seeds differ from all seeds of the noises.
            sources = [torch.Generator().manual_seed(seed << 32 | i) for i in numbers]
            ts = [torch.rand((), generator=source, dtype=torch.float32).item() for source in sources]
            near = [
                slerp(a, b, [t * (1 - epsilon), t * (1 - epsilon) + epsilon])
                for (a, b), t in zip(ends, ts, strict=True)
            ]
            pixels = generate_pixels(
                pipe, embed(pipe, [prompts[i] for i in numbers]).repeat_interleave(2, 0), latents=torch.cat(near),
                num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, batch_size=batch_size,
                progress=False,
            )  # fmt: skip
            seen = distances(pixels[::2], pixels[1::2])
            if not isinstance(seen, Tensor) or seen.shape != (len(numbers),):
                raise ValueError(
                    f"expected distances to return a tensor with one value for each of {len(numbers)} pairs, got "
                    f"{shown(seen)}"
                )
            found.append(seen / epsilon**2)
            bar.update(len(numbers))
    return torch.cat(found)
