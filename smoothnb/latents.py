"""Latents: into and out of the autoencoder (Eq. 1), noise that a seed brings back, and the way between (Eq. 3)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from smoothnb._utils import arguments, checks
from smoothnb._utils.arguments import checked
from smoothnb._utils.memory import oom_hint
from smoothnb.images import ImageLike, to_pil, to_pixels

PARALLEL = 1e-7
"""Angle in radians below which two directions count as one: lerp and slerp then agree to the last bit of float32."""
OPPOSITE = 1e-4
"""Angle in radians short of π below which rounding alone would choose the great circle between two directions."""


TENSOR = checks.of(Tensor, "a tensor")


@checked(a=TENSOR, b=TENSOR)
def slerp(
    a: Float[Tensor, "..."], b: Float[Tensor, "..."], eta: float | Sequence[float] | np.ndarray | Tensor
) -> Float[Tensor, "..."]:
    """Spherical linear interpolation, Eq. 3 of the supplement: ε^η = slerp(ε^a, ε^b, η).

    Equal steps of η are equal turns of the angle ω between a and b:
    ε^η = (sin((1 - η) ω) a + sin(η ω) b) / sin ω.

    A tensor of one to three dimensions is one vector. The leading dimension of a tensor of four (a batch of latents)
    counts samples, each with an angle of its own.

    Args:
        a: Where η = 0 lies.
        b: Where η = 1 lies; same shape, dtype and device as a.
        eta: Mixing ratio in [0, 1], or a sequence of them.

    Returns:
        For a single ratio the shape of a; for a sequence a new leading axis with one mix for each ratio. dtype and
        device are those of a. Ratios of 0 and 1 give a and b exactly. Parallel vectors are mixed by lerp.

    Raises:
        ValueError: If shapes, dtypes or devices differ, a number is not finite, a vector is zero, a ratio lies outside
            [0, 1], or a and b point in opposite directions, as infinitely many great circles then join them.
    """
    _check_pair(a, b)
    ratios = _table("eta", eta)
    if ratios.ndim > 1 or ratios.numel() == 0 or not ((ratios >= 0) & (ratios <= 1)).all():
        raise ValueError(f"expected eta as a number in [0, 1] or a sequence of such numbers, got {eta}")

    sample_dims = 1 if a.ndim == 4 else 0
    u, v = (_unit(x, sample_dims) for x in (a, b))
    # The arc cosine of ⟨u, v⟩ would lose half the digits near 0 and π; this does not (Kahan).
    omega = 2 * torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1))
    if (torch.pi - omega < OPPOSITE).any():
        raise ValueError(
            "a and b point in opposite directions: infinitely many great circles join them, and none is right. "
            "Draw b from another seed, or go through a third point"
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


@checked(noises=checks.finite, weights=None)
def mix(
    noises: Float[Tensor, "corner ..."], weights: Sequence[float] | Sequence[Sequence[float]] | np.ndarray | Tensor
) -> Float[Tensor, "..."]:
    """A mix of several noises that is normal noise again: Σ wᵢ xᵢ / √(Σ wᵢ²).

    Any weighted sum of independent normal noises is normal, of variance Σ wᵢ²; dividing by its root brings the variance
    back to 1 (Bodin et al. 2024, "Linear combinations of Gaussian latents"). For two noises of equal length at right
    angles this is slerp at another pace.

    Args:
        noises: Two or more, stacked.
        weights: One for each noise, at least 0 and not all 0; or rows of such weights. Only their proportions count.

    Returns:
        One mix of the shape of a noise; for rows of weights a new leading axis. A single weight that is not 0 gives
        that noise exactly.

    Raises:
        ValueError: If weights and noises do not pair up, or a weight is negative or not finite, or all are 0.
    """
    if not noises.ndim or not len(noises):
        raise ValueError(f"expected noises, stacked along the first axis, got shape {tuple(noises.shape)}")
    w = _table("weights", weights)
    if w.ndim not in (1, 2) or w.shape[-1] != len(noises) or 0 in w.shape:
        raise ValueError(f"expected {len(noises)} weights, one for each noise, or rows of them, got {tuple(w.shape)}")
    if not torch.isfinite(w).all() or (w < 0).any() or (w.sum(-1) == 0).any():
        raise ValueError(f"expected weights of at least 0, not all 0, got {weights}")
    working = torch.promote_types(noises.dtype, torch.float32)
    w = (w / w.norm(dim=-1, keepdim=True)).to(noises.device, working)
    return torch.tensordot(w, noises.to(working), dims=1).to(noises.dtype)


def _table(name: str, given: object) -> Float[Tensor, "..."]:
    """Numbers in float64, in however many rows they came."""
    try:
        if isinstance(given, Sequence) and not isinstance(given, str):
            given = np.asarray([np.asarray(row) for row in given])
        given = given if isinstance(given, Tensor) else torch.from_numpy(np.asarray(given))
        if given.dtype != torch.bool and not given.is_complex():
            return given.to("cpu", torch.float64)
    # What numpy and torch raise of other things, and of tensors without numbers.
    except (TypeError, ValueError, NotImplementedError, RuntimeError):
        pass
    raise ValueError(f"expected {name} as numbers, got {checks.shown(given)}")


def _check_pair(a: Tensor, b: Tensor) -> None:
    for name, x in (("a", a), ("b", b)):
        if not x.is_floating_point():
            raise ValueError(f"expected {name} in floating point, got {x.dtype}")
        if not 1 <= x.ndim <= 4 or x.numel() == 0:
            raise ValueError(f"expected {name} with one to four dimensions, none empty, got shape {tuple(x.shape)}")
    for what in ("shape", "dtype", "device"):
        if getattr(a, what) != getattr(b, what):
            raise ValueError(f"a and b must have the same {what}, got {getattr(a, what)} and {getattr(b, what)}")
    for name, x in (("a", a), ("b", b)):
        if not torch.isfinite(checks.floating(name, x)).all():
            raise ValueError(f"{name} holds numbers that are not finite")


def _unit(x: Tensor, sample_dims: int) -> Float[Tensor, "*samples values"]:
    """Unit vectors in float64, on the CPU: Apple's GPUs have no float64."""
    x = x.cpu().double().flatten(sample_dims)
    norm = x.norm(dim=-1, keepdim=True)
    if (norm == 0).any():
        raise ValueError("a zero vector has no direction to turn from or to")
    return x / norm


def picture_size(pipe, height: int | None = None, width: int | None = None) -> tuple[int, int]:
    """Height and width in pixels: those asked for, else those that the pipeline was trained for.

    Raises:
        ValueError: If one is no positive multiple of the autoencoder's factor.
    """
    size, factor = pipe.unet.config.sample_size, pipe.vae_scale_factor
    own_height, own_width = (size, size) if isinstance(size, int) else size
    height = own_height * factor if height is None else height
    width = own_width * factor if width is None else width
    if height <= 0 or width <= 0 or height % factor or width % factor:
        raise ValueError(f"expected height and width as positive multiples of {factor}, got {height} and {width}")
    return height, width


@checked()
def seeded_noise(
    pipe, seed: int | Sequence[int], height: int | None = None, width: int | None = None
) -> Float[Tensor, "..."]:
    """Normal noise in a pipeline's latent shape, the same for a seed on every device and in every precision.

    Numbers are drawn in float32 by a CPU generator, one for each seed, and moved then: a sample does not depend on its
    neighbours in a batch. In float32 they are those of `pipe(..., generator=torch.Generator().manual_seed(seed))`.

    Args:
        pipe: A diffusers pipeline.
        seed: One seed, or a sequence.
        height: Of the picture, in pixels; the model's own by default.
        width: Of the picture, in pixels; the model's own by default.

    Returns:
        For one seed latents of channels × height × width, for a sequence a batch of them, unit variance, on the
        pipeline's device and in its dtype.

    Raises:
        ValueError: If there is no seed, or a size is no positive multiple of the autoencoder's factor.
    """
    sizes = picture_size(pipe, height, width)
    shape = (pipe.unet.config.in_channels, *(size // pipe.vae_scale_factor for size in sizes))
    seeds = [seed] if isinstance(seed, int) else list(seed)
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
    noise = noise.to(pipe.device, pipe.unet.dtype)
    return noise[0] if isinstance(seed, int) else noise


@checked()
@oom_hint("encoding pictures", "give fewer pictures at a time")
@torch.no_grad()
def encode(
    pipe, images: ImageLike | Sequence[ImageLike], height: int | None = None, width: int | None = None
) -> Float[Tensor, "batch channel latent_height latent_width"]:
    """Pictures to latents, Eq. 1 of the supplement: z_0 = E(x_0).

    E(x_0) is the mean of the autoencoder's posterior, so that the same picture always has the same latent, times the
    pipeline's scaling factor.

    Args:
        pipe: A diffusers pipeline.
        images: One picture or a sequence: PIL, path, array or tensor, of any mode and size. The turn in EXIF is
            applied, alpha is flattened on white, other sizes are cropped around the middle and resized (logged once).
        height: To resize to, in pixels; the model's own by default.
        width: To resize to, in pixels; the model's own by default.

    Returns:
        Latents of about unit variance, on the pipeline's device and in its dtype.

    Raises:
        ValueError: If there is no picture, one cannot be read, or a size is no multiple of the autoencoder's factor.
    """
    return encode_pixels(pipe, to_pixels(images, *picture_size(pipe, height, width))).to(pipe.vae.dtype)


@torch.no_grad()
def encode_pixels(
    pipe, pixels: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch channel latent_height latent_width"]:
    """Eq. 1 on pixels in [0, 1] that already have their size: what `encode` comes to, in float32."""
    pixels = pixels.to(pipe.device, pipe.vae.dtype)
    return pipe.vae.encode(pixels * 2 - 1).latent_dist.mean.float() * pipe.vae.config.scaling_factor


@checked(latents=arguments.shaped_latents)
def decode(pipe, latents: Float[Tensor, "*batch channel height width"], batch_size: int = 4) -> list[Image.Image]:
    """Latents to pictures, Eq. 1 of the supplement: x_0 = D(z_0).

    Args:
        pipe: A diffusers pipeline.
        latents: One latent of channels × height × width, or a batch.
        batch_size: How many are decoded at a time. The decoder takes the most memory of all parts, and more at a time
            are not faster.

    Returns:
        RGB pictures, one for each latent.

    Raises:
        FloatingPointError: If the decoder overflows, as some do in float16.
    """
    return to_pil(decode_pixels(pipe, latents, batch_size))


@oom_hint("decoding pictures", "give a smaller batch_size")
@torch.no_grad()
def decode_pixels(
    pipe, latents: Float[Tensor, "*batch channel height width"], batch_size: int = 4
) -> Float[Tensor, "picture 3 picture_height picture_width"]:
    """What `decode` rounds to 8 bits: pixels in [0, 1], float32, on the CPU."""
    latents = latents[None] if latents.ndim == 3 else latents
    parts = []
    for part in latents.split(batch_size):
        part = part.to(pipe.device, pipe.vae.dtype) / pipe.vae.config.scaling_factor
        pixels = pipe.vae.decode(part).sample / 2 + 0.5
        if not torch.isfinite(pixels).all():
            raise FloatingPointError(
                f"decoding gave numbers that are not finite, in {pipe.vae.dtype}: check the latents, or load the "
                "pipeline with dtype=torch.float32"
            )
        parts.append(pixels.clamp(0, 1).float().cpu())
    return torch.cat(parts)
