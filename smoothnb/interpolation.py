"""Interpolation between two noises or two real pictures (supplement A.3 and A.4)."""

import operator
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smoothnb._utils.checks import at_least
from smoothnb._utils.pipeline import Pipeline, check_latents, check_pipeline
from smoothnb.images import neighbour_distances
from smoothnb.inversion.inversion import Inversion
from smoothnb.latents import seeded_noise, slerp
from smoothnb.models.parts import device_of, recommended_guidance
from smoothnb.sampling import embed, generate

End = int | Tensor | Inversion
"""An end of a path: a seed, a latent of channels × height × width, or the inversion of one picture."""


def coarse_to_fine(count: int) -> list[float]:
    """Evenly spaced ratios from 0 to 1, ordered from coarse to fine: ends, middle, quarters, …

    Raises:
        ValueError: If count is less than 2.
    """
    at_least(2, count=count)
    order = [0, count - 1]
    while gaps := [(b - a, a, b) for a, b in zip(sorted(order), sorted(order)[1:], strict=False) if b - a > 1]:
        widest = max(gap for gap, _, _ in gaps)
        order += [(a + b) // 2 for gap, a, b in gaps if gap == widest]
    return [i / (count - 1) for i in order]


def interpolate(
    pipe: Pipeline,
    a: End,
    b: End,
    etas: int | Sequence[float] | np.ndarray | Tensor = 11,
    prompt: str | None = None,
    prompt_b: str | None = None,
    guidance_scale: float | None = None,
    num_inference_steps: int | None = None,
    batch_size: int = 8,
    spacing: str = "eta",
) -> Iterator[Image.Image]:
    """Draws the pictures between two ends, and yields them as they are ready.

    Latents are mixed by slerp (Eq. 3). Two prompts are mixed as embeddings, linearly. Two inversions that share a
    null-text series keep it for all frames, as in the supplement (A.4); separate series are mixed linearly.

    Args:
        pipe: A diffusers pipeline.
        a: The end at η = 0: a seed, a latent, or an inversion.
        b: The end at η = 1.
        etas: Number of evenly spaced ratios from 0 to 1, or the ratios themselves. Frames come in their order; use
            `coarse_to_fine(count)` for a preview.
        prompt: The prompt; by default that of the inversion, else "".
        prompt_b: The prompt at η = 1; by default that of b's inversion, else `prompt`.
        guidance_scale: w; by default that of the inversions, else what the model recommends, else 7.5.
        num_inference_steps: Number of sampling steps; by default that of the inversions, else 50.
        batch_size: Maximum number of pictures drawn at a time; it is halved if the GPU runs out of memory.
        spacing: "eta" draws at the ratios given. "even" moves the ratios between the ends until neighbouring pictures
            are about equally far apart, as DiffMorpher does (Zhang et al. 2023). It draws up to four times as many
            pictures, yields them at the end, and changes the speed along the path, not the path: where a picture
            jumps however finely the path is cut, it still jumps.

    Returns:
        An iterator of pictures. Arguments are checked when the function is called.

    Raises:
        ValueError: If the ends do not fit each other or the pipeline, or a number is out of range.
    """
    check_pipeline(pipe, num_inference_steps)
    at_least(1, batch_size=batch_size)
    inversions = [end for end in (a, b) if isinstance(end, Inversion)]
    for inversion in inversions:
        inversion.check(pipe)
        if len(inversion) != 1:
            raise ValueError(f"expected the inversion of one picture, got {len(inversion)}: take one, inversion[0]")
    settings = [inversion.settings for inversion in inversions]
    steps = _agreed("num_inference_steps", num_inference_steps, [s.num_inference_steps for s in settings], 50)
    guidance = _agreed("guidance_scale", guidance_scale, [s.guidance_scale for s in settings], None)
    guidance = recommended_guidance(pipe, guidance)
    count = operator.index(etas) if np.ndim(etas) == 0 else None
    at_least(1, etas=count)
    ratios = np.asarray(etas, dtype=float) if count is None else np.linspace(0, 1, count)
    # The noise of a seed takes the size of the other end.
    sizes = [end.shape[-2:] for end in (_latents(a), _latents(b)) if end is not None]
    size = [side * pipe.vae_scale_factor for side in sizes[0]] if sizes else []
    ends = _latent(pipe, "a", a, *size), _latent(pipe, "b", b, *size)
    if spacing not in ("eta", "even"):
        raise ValueError(f"expected spacing 'eta' or 'even', got {spacing!r}")
    if spacing == "even" and (count is None or len(ratios) < 3):
        raise ValueError(f"expected etas as a number of at least 3 for even spacing, got {etas}")

    own = [end.settings.prompts[0] if isinstance(end, Inversion) else None for end in (a, b)]
    first = next((p for p in (prompt, own[0], own[1]) if p is not None), "")
    last = next((p for p in (prompt_b, prompt, own[1]) if p is not None), first)
    prompts = embed(pipe, first), embed(pipe, last)
    empty = embed(pipe, "").float()
    series = [end.series[:, 0] if isinstance(end, Inversion) and end.series is not None else empty for end in (a, b)]
    series = torch.broadcast_tensors(*(x.to(device_of(pipe)) for x in series))

    def draw(latents: Tensor, ratios: np.ndarray) -> Iterator[Image.Image]:
        embeds, nulls = (_between(*pair, ratios) for pair in (prompts, series))
        return _frames(pipe, latents, embeds, nulls, guidance, steps, batch_size)

    latents = slerp(*ends, ratios)
    if spacing == "eta":
        return draw(latents, ratios)
    return _evenly(lambda some: draw(slerp(*ends, some), some), ratios)


def _evenly(draw: Callable[[np.ndarray], Iterator[Image.Image]], ratios: np.ndarray, rounds: int = 3) -> Iterator:
    """Frames at ratios that divide the path into parts of equal length, measured along all frames drawn so far."""
    drawn = dict(zip(ratios, draw(ratios), strict=True))
    for _ in range(rounds):
        known = np.array(sorted(drawn))
        length = np.concatenate([[0], neighbour_distances([drawn[ratio] for ratio in known]).cumsum(0)])
        wanted = np.interp(np.linspace(0, length[-1], len(ratios)), length, known)
        ratios = np.concatenate([ratios[:1], wanted[1:-1], ratios[-1:]])
        new = np.setdiff1d(ratios, known)
        if len(new):
            drawn |= zip(new, draw(new), strict=True)
    yield from (drawn[ratio] for ratio in ratios)


def _agreed(name: str, given: float | None, found: Sequence[float], default: float | None):
    values = set(found) if given is None else {given, *found}
    if len(values) > 1:
        raise ValueError(f"{name} differs between the argument and the inversions: {sorted(values)}")
    return values.pop() if values else default


def _latents(end: End) -> Tensor | None:
    """The latents of an end; None for a seed."""
    if isinstance(end, Inversion):
        return end.latents
    return end if isinstance(end, Tensor) and end.ndim else None


def _latent(pipe: Pipeline, name: str, end: End, *size: int) -> Tensor:
    """The latent of an end, without a batch axis."""
    latent = _latents(end)
    latent = seeded_noise(pipe, end, *size) if latent is None else latent
    check_latents(pipe, latent)
    if latent.ndim == 4:
        if len(latent) != 1:
            raise ValueError(f"expected {name} as one latent, got {len(latent)}: take one, latents[0]")
        latent = latent[0]
    return latent.to(device_of(pipe), pipe.unet.dtype)


def _between(a: Tensor, b: Tensor, ratios: np.ndarray) -> Tensor:
    """Linear interpolation along a new leading axis; equal ends give a single entry."""
    if torch.equal(a, b):
        return a[None]
    mixed = torch.as_tensor(ratios, dtype=torch.float32, device=a.device).reshape(-1, *(1,) * a.ndim)
    return ((1 - mixed) * a.float() + mixed * b.float()).to(a.dtype)


def _frames(
    pipe: Pipeline, latents: Tensor, embeds: Tensor, series: Tensor, guidance_scale: float, steps: int, batch_size: int
) -> Iterator[Image.Image]:
    """Embeddings and series are one for all frames, or one for each."""
    done = 0
    while done < len(latents):
        batch = slice(done, done + batch_size)
        own_embeds, own_series = (x if len(x) == 1 else x[batch] for x in (embeds, series))
        try:
            frames = generate(
                pipe, own_embeds[:, 0], 0, latents[batch], steps, guidance_scale, own_series.transpose(0, 1),
                batch_size, progress=False,
            )  # fmt: skip
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size = (batch_size + 1) // 2
            torch.cuda.empty_cache()
            continue
        yield from frames
        done += len(frames)
