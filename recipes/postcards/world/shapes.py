"""Signed distances and noise: the vocabulary in which postcards are drawn.

Distances are in pixels, negative inside; coordinates are tensors that broadcast to [batch, height, width].
"""

import torch
from torch import Tensor


def cover(distance: Tensor, soft: float = 1.0) -> Tensor:
    """How much of each pixel a shape covers: a ramp `soft` pixels wide, which is what antialiasing is."""
    return (0.5 - distance / soft).clamp_(0, 1)


def circle(x: Tensor, y: Tensor, radius) -> Tensor:
    return torch.hypot(x, y) - radius


def box(x: Tensor, y: Tensor, half_width, half_height) -> Tensor:
    """An upright box about the origin; exact inside and along the edges, which is where pixels look."""
    return torch.maximum(x.abs() - half_width, y.abs() - half_height)


def trapezoid(x: Tensor, y: Tensor, top: float, bottom: float, half_top: float, half_bottom: float) -> Tensor:
    """An upright trapezoid from `y = top` down to `y = bottom`; a triangle where `half_top` is 0."""
    slope = (half_bottom - half_top) / (bottom - top)
    side = (x.abs() - half_top - (y - top) * slope) / (1 + slope * slope) ** 0.5
    return torch.maximum(side, torch.maximum(top - y, y - bottom))


def triangle_wave(phase: Tensor) -> Tensor:
    """A wave of period 1 between 0 and 1, with sharp peaks."""
    return 1 - (2 * (phase - phase.floor()) - 1).abs()


def hashed(seed: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1) that depend on the seed alone, the same on every device.

    Args:
        seed: Integers, [batch].
        count: How many numbers for each seed.

    Returns:
        [batch, count]. Integer arithmetic only (a multiply-and-xorshift hash), so no device rounds it differently.
    """
    mask = 0xFFFFFFFF
    h = (seed.long()[:, None] * 0x9E3779B1 + torch.arange(1, count + 1, device=seed.device) * 0x85EBCA6B) & mask
    for shift, factor in ((16, 0x7FEB352D), (15, 0x46A7CA6B)):
        h = ((h ^ (h >> shift)) * factor) & mask
    h = h ^ (h >> 16)
    return (h >> 8).float() / 2**24
