"""Other looks of the same scenes: what community models of postcards are fine-tuned on."""

import functools
import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recipes.postcards.world.render import render
from recipes.postcards.world.scene import EXTENT, Scene, random_scenes

Pictures = Float[Tensor, "batch _ height width"]


def _blur(pictures: Pictures, sigma: float) -> Pictures:
    """Gaussian blur; sigma in pixels of 128."""
    sigma = sigma * pictures.shape[-1] / EXTENT
    reach = round(3 * sigma)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1, device=pictures.device) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(pictures.shape[1], 1, 1, -1)
    padded = F.pad(pictures, (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, kernel, groups=pictures.shape[1])
    return F.conv2d(across, kernel.transpose(2, 3), groups=pictures.shape[1])


def _colour(pictures: Tensor, *rgb: float) -> Tensor:
    return torch.tensor(rgb, device=pictures.device)[:, None, None]


def _luma(pictures: Pictures) -> Pictures:
    return (pictures * _colour(pictures, 0.299, 0.587, 0.114)).sum(1, keepdim=True)


def _edges(pictures: Pictures) -> Pictures:
    """Length of the colours' gradient, for each unit of length of the scene."""
    soft = F.pad(_blur(pictures, 0.8), (1,) * 4, mode="replicate")
    across = soft[..., 1:-1, 2:] - soft[..., 1:-1, :-2]
    down = soft[..., 2:, 1:-1] - soft[..., :-2, 1:-1]
    return (across.square() + down.square()).sum(1, keepdim=True).sqrt() / 2 * pictures.shape[-1] / EXTENT


def neon(pictures: Pictures) -> Pictures:
    """Outlines of glowing tubes in the colours of what they enclose, and a dark violet world around them."""
    least, most = pictures.amin(1, keepdim=True), pictures.amax(1, keepdim=True)
    pure = (pictures - least) / (most - least).clamp(min=0.08)
    lines = (6 * _edges(pictures)).clamp(0, 1) * (0.12 + 0.88 * pure)
    ground = _colour(pictures, 0.05, 0.02, 0.12) + pictures**1.6 * _colour(pictures, 0.27, 0.20, 0.44)
    return (ground + lines + 0.9 * _blur(lines, 3)).clamp(0, 1)


def film(pictures: Pictures) -> Pictures:
    """A photograph from an old album: faded and warm, its light bleeding, its corners dark."""
    soft = _blur(pictures, 0.5)
    lit = 0.86 * soft + 0.25 * (_blur(soft, 5) - 0.5).clamp(min=0)
    faded = _luma(lit).lerp(lit, 0.55)
    toned = faded * _colour(pictures, 1.02, 0.88, 0.64) + _colour(pictures, 0.06, 0.05, 0.06)
    at = torch.linspace(-1, 1, pictures.shape[-1], device=pictures.device)
    corners = (at.square() + at.square()[:, None] - 0.3).clamp(min=0)
    return (toned * (1 - 0.42 * corners)).clamp(0, 1)


STYLES: dict[str, Callable[[Pictures], Pictures]] = {"plain": lambda pictures: pictures, "film": film, "neon": neon}


def render_in(
    style: str, scenes: Sequence[Scene], size: int = 128, device: torch.device | str = "cpu"
) -> Float[Tensor, "batch 3 size size"]:
    """Draws scenes in a style.

    Args:
        style: One of `STYLES`; "plain" is `render` itself.
        scenes: At least one.
        size: Side of the pictures in pixels. Lines and blurs scale with it.
        device: Where to draw.

    Returns:
        RGB in [0, 1].

    Raises:
        ValueError: If there is no such style, no scene, or the size is below 8.
    """
    if style not in STYLES:
        raise ValueError(f"expected a style of {', '.join(STYLES)}; got {style!r}")
    return STYLES[style](render(scenes, size, device))


def _statistics(pictures: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 15"]:
    """What tells styles apart: of each colour its mean, spread and steepness of edges, and how its corners fall off."""
    across = pictures.diff(dim=-1).abs().mean((-2, -1)) * pictures.shape[-1] / EXTENT
    parts = F.adaptive_avg_pool2d(pictures, 4)
    corners = parts[:, :, ::3, ::3].mean((-2, -1)) - parts[:, :, 1:3, 1:3].mean((-2, -1))
    darkest = pictures.flatten(2).quantile(0.02, dim=2)
    return torch.cat([pictures.mean((-2, -1)), pictures.std((-2, -1)), across, corners, darkest], 1)


@functools.cache
def _classes(count: int = 512) -> tuple[Tensor, Tensor]:
    """Of the styles' statistics: the mean of each, and what whitens them."""
    scenes = list(itertools.islice(random_scenes(0), count))
    found = torch.stack([_statistics(render_in(style, scenes)).double() for style in STYLES])
    means = found.mean(1)
    within = torch.cov((found - means[:, None]).flatten(0, 1).T)
    return means, torch.linalg.cholesky(torch.linalg.inv(within))


def style_of(pictures: Float[Tensor, "batch 3 height width"]) -> list[str]:
    """The style of each picture, by linear discriminant analysis of statistics of colours and edges."""
    means, whitening = _classes()
    found = _statistics(pictures.cpu().float()).double()
    nearest = torch.cdist(found @ whitening, means @ whitening).argmin(1).tolist()
    return [list(STYLES)[i] for i in nearest]
