"""Latents: the autoencoder (Eq. 1), noise from seeds, and interpolation (Eq. 3)."""

from collections.abc import Iterable, Sequence
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from smoothnb._utils.checks import at_least, check_finite, check_seeds
from smoothnb._utils.memory import oom_hint
from smoothnb._utils.pipeline import Pipeline, check_latents, check_pipeline
from smoothnb.images import ImageLike, to_pil, to_pixels
from smoothnb.models.parts import device_of

PARALLEL = 1e-7
"""Angle in radians below which two vectors count as parallel; lerp and slerp then agree to float32 precision."""
OPPOSITE = 1e-4
"""Distance of an angle from π, in radians, below which rounding errors would determine the great circle."""

Seeds = SupportsIndex | Iterable[SupportsIndex]
"""One seed, or several; integers of numpy and torch are welcome."""


def slerp(
    a: Float[Tensor, "..."], b: Float[Tensor, "..."], eta: float | Sequence[float] | np.ndarray | Tensor
) -> Float[Tensor, "..."]:
    """Spherical linear interpolation, Eq. 3 of the supplement: ε^η = slerp(ε^a, ε^b, η).

    Equal steps of η turn by equal parts of the angle ω between a and b:
    ε^η = (sin((1 - η) ω) a + sin(η ω) b) / sin ω.

    A tensor with one to three dimensions is a single vector. A tensor with four is a batch of latents, each with its
    own angle.

    Args:
        a: The end at η = 0.
        b: The end at η = 1; same shape, dtype and device as a.
        eta: Mixing ratio in [0, 1], or a sequence of them.

    Returns:
        A tensor of the shape of a for a single ratio; for a sequence, a new leading axis with one entry for each ratio.
        dtype and device are those of a. Ratios of 0 and 1 give a and b exactly. Parallel vectors are mixed by lerp.

    Raises:
        ValueError: If shapes, dtypes or devices differ, a number is not finite, a vector is zero, a ratio lies outside
            [0, 1], or a and b are antiparallel, so that infinitely many great circles join them.
    """
    _check_pair(a, b)
    ratios = _table(eta)
    if ratios.ndim > 1 or ratios.numel() == 0 or not ((ratios >= 0) & (ratios <= 1)).all():
        raise ValueError(f"expected eta as a number in [0, 1] or a sequence of such numbers, got {eta}")

    sample_dims = 1 if a.ndim == 4 else 0
    u, v = (_unit(x, sample_dims) for x in (a, b))
    # Unlike the arc cosine of ⟨u, v⟩, this is accurate near 0 and π (Kahan).
    omega = 2 * torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1))
    if (torch.pi - omega < OPPOSITE).any():
        raise ValueError(
            "a and b point in opposite directions: infinitely many great circles join them. "
            "Draw b from another seed, or interpolate by way of a third point"
        )
    omega = omega.reshape(omega.shape + (1,) * (a.ndim - sample_dims))
    ratios = ratios.reshape(ratios.shape + (1,) * a.ndim)
    parallel = omega < PARALLEL
    sine = torch.where(parallel, 1.0, omega.sin())
    weight_a = torch.where(parallel, 1 - ratios, ((1 - ratios) * omega).sin() / sine)
    weight_b = torch.where(parallel, ratios, (ratios * omega).sin() / sine)

    working = torch.promote_types(a.dtype, torch.float32)
    weight_a, weight_b = (w.to(working).to(a.device) for w in (weight_a, weight_b))
    return (weight_a * a.to(working) + weight_b * b.to(working)).to(a.dtype)


def mix(
    noises: Float[Tensor, "corner ..."], weights: Sequence[float] | Sequence[Sequence[float]] | np.ndarray | Tensor
) -> Float[Tensor, "..."]:
    """Mixes several noises into noise of unit variance: Σ wᵢ xᵢ / √(Σ wᵢ²).

    A weighted sum of independent normal noises is normal with variance Σ wᵢ²; dividing by its square root restores unit
    variance (Bodin et al. 2024, "Linear combinations of Gaussian latents"). For two orthogonal noises of equal length
    this traces the same arc as slerp, at another speed.

    Args:
        noises: Two or more noises, stacked.
        weights: One for each noise, at least 0 and not all 0; or rows of such weights. Only their ratios matter.

    Returns:
        A tensor of the shape of one noise; for rows of weights, a new leading axis. If only one weight is not 0, the
        result is that noise exactly.

    Raises:
        ValueError: If weights and noises differ in number, or a weight is negative or not finite, or all are 0.
    """
    check_finite(noises=noises)
    w = _table(weights)
    if w.ndim not in (1, 2) or w.shape[-1] != len(noises) or 0 in w.shape:
        raise ValueError(f"expected {len(noises)} weights, one for each noise, or rows of them, got {tuple(w.shape)}")
    if not torch.isfinite(w).all() or (w < 0).any() or (w.sum(-1) == 0).any():
        raise ValueError(f"expected weights of at least 0, not all 0, got {weights}")
    working = torch.promote_types(noises.dtype, torch.float32)
    w = (w / w.norm(dim=-1, keepdim=True)).to(noises.device, working)
    return torch.tensordot(w, noises.to(working), dims=1).to(noises.dtype)


def _table(given: object) -> Float[Tensor, "..."]:
    """Converts numbers, or rows of numbers, to float64 on the CPU."""
    if isinstance(given, Sequence):
        # Rows may be arrays or tensors.
        given = np.asarray([np.asarray(row) for row in given])
    given = given if isinstance(given, Tensor) else torch.from_numpy(np.asarray(given))
    return given.to("cpu", torch.float64)


def _check_pair(a: Tensor, b: Tensor) -> None:
    for name, x in (("a", a), ("b", b)):
        if not 1 <= x.ndim <= 4 or x.numel() == 0:
            raise ValueError(f"expected {name} with one to four dimensions, none empty, got shape {tuple(x.shape)}")
    for what in ("shape", "dtype", "device"):
        if getattr(a, what) != getattr(b, what):
            raise ValueError(f"a and b must have the same {what}, got {getattr(a, what)} and {getattr(b, what)}")
    check_finite(a=a, b=b)


def _unit(x: Tensor, sample_dims: int) -> Float[Tensor, "*samples values"]:
    """Unit vectors in float64, on the CPU: Apple's GPUs have no float64."""
    x = x.cpu().double().flatten(sample_dims)
    norm = x.norm(dim=-1, keepdim=True)
    if (norm == 0).any():
        raise ValueError("slerp of a zero vector is undefined")
    return x / norm


def picture_size(pipe: Pipeline, height: int | None = None, width: int | None = None) -> tuple[int, int]:
    """Height and width in pixels: as given, or those that the pipeline was trained for.

    Raises:
        ValueError: If one is not a positive multiple of the autoencoder's factor.
    """
    size, factor = pipe.unet.config.sample_size, pipe.vae_scale_factor
    own_height, own_width = (size, size) if isinstance(size, int) else size
    height = own_height * factor if height is None else height
    width = own_width * factor if width is None else width
    if height <= 0 or width <= 0 or height % factor or width % factor:
        raise ValueError(f"expected height and width as positive multiples of {factor}, got {height} and {width}")
    return height, width


def _normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def seeded_noise(
    pipe: Pipeline, seed: Seeds, height: int | None = None, width: int | None = None
) -> Float[Tensor, "..."]:
    """Normal noise in a pipeline's latent shape; a seed gives the same noise on every device and in every precision.

    Each seed has its own CPU generator, which draws in float32: a sample does not depend on the rest of the batch. In
    float32 the numbers are those of `pipe(..., generator=torch.Generator().manual_seed(seed))`.

    Args:
        pipe: A diffusers pipeline.
        seed: One seed, or a sequence of seeds.
        height: Height of the picture, in pixels; by default the model's own.
        width: Width of the picture, in pixels; by default the model's own.

    Returns:
        Latents of shape channels × height × width for one seed, a batch of them for a sequence; unit variance, on the
        pipeline's device and in its dtype.

    Raises:
        ValueError: If there is no seed, or a size is not a positive multiple of the autoencoder's factor.
    """
    check_pipeline(pipe)
    single = np.ndim(seed) == 0
    seeds = check_seeds([seed] if single else seed)
    sizes = picture_size(pipe, height, width)
    shape = (pipe.unet.config.in_channels, *(size // pipe.vae_scale_factor for size in sizes))
    noise = torch.stack([_normal(shape, s) for s in seeds])
    noise = noise.to(device_of(pipe), pipe.unet.dtype)
    return noise[0] if single else noise


@oom_hint("encoding pictures", "give fewer pictures at a time")
@torch.no_grad()
def encode(
    pipe: Pipeline, images: ImageLike | Sequence[ImageLike], height: int | None = None, width: int | None = None
) -> Float[Tensor, "batch channel latent_height latent_width"]:
    """Encodes pictures to latents, Eq. 1 of the supplement: z_0 = E(x_0).

    E(x_0) is the mean of the autoencoder's posterior, so that it is deterministic, times the pipeline's scaling factor.

    Args:
        pipe: A diffusers pipeline.
        images: One picture or several: PIL, path, array or tensor, of any mode and size. EXIF orientation is applied,
            alpha is flattened on white, and other sizes are cropped around the centre and resized (logged once).
        height: Height to resize to, in pixels; by default the model's own.
        width: Width to resize to, in pixels; by default the model's own.

    Returns:
        Latents of about unit variance, on the pipeline's device and in its dtype.

    Raises:
        ValueError: If there is no picture, one cannot be read, or a size is not a multiple of the autoencoder's factor.
    """
    check_pipeline(pipe)
    return encode_pixels(pipe, to_pixels(images, *picture_size(pipe, height, width))).to(pipe.vae.dtype)


@torch.no_grad()
def encode_pixels(
    pipe: Pipeline, pixels: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch channel latent_height latent_width"]:
    """`encode` for pixels in [0, 1] that already have the right size; float32."""
    encoded = pipe.vae.encode(pixels.to(device_of(pipe), pipe.vae.dtype) * 2 - 1)
    # A tiny autoencoder returns latents, not a distribution.
    mean = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
    return mean.float() * pipe.vae.config.scaling_factor


def decode(
    pipe: Pipeline, latents: Float[Tensor, "*batch channel height width"], batch_size: int = 4
) -> list[Image.Image]:
    """Decodes latents to pictures, Eq. 1 of the supplement: x_0 = D(z_0).

    Args:
        pipe: A diffusers pipeline.
        latents: One latent of channels × height × width, or a batch.
        batch_size: Number of latents decoded at a time. The decoder needs the most memory of all parts, and larger
            batches are not faster.

    Returns:
        RGB pictures, one for each latent.

    Raises:
        FloatingPointError: If the decoder overflows, as some do in float16.
    """
    check_pipeline(pipe)
    check_latents(pipe, latents, finite=False)
    at_least(1, batch_size=batch_size)
    return to_pil(decode_pixels(pipe, latents, batch_size))


@oom_hint("decoding pictures", "give a smaller batch_size")
@torch.no_grad()
def decode_pixels(
    pipe: Pipeline, latents: Float[Tensor, "*batch channel height width"], batch_size: int = 4
) -> Float[Tensor, "picture 3 picture_height picture_width"]:
    """Like `decode`, but returns pixels in [0, 1], float32, on the CPU."""
    latents = latents[None] if latents.ndim == 3 else latents
    parts = []
    for part in latents.split(batch_size):
        part = part.to(device_of(pipe), pipe.vae.dtype) / pipe.vae.config.scaling_factor
        pixels = pipe.vae.decode(part).sample / 2 + 0.5
        if not torch.isfinite(pixels).all():
            raise FloatingPointError(
                f"decoding gave numbers that are not finite, in {pipe.vae.dtype}: check the latents, or load the "
                "pipeline with dtype=torch.float32"
            )
        parts.append(pixels.clamp(0, 1).float().cpu())
    return torch.cat(parts)
