"""Checks of arguments that would give a wrong result, or an obscure error deep inside. Types are left to signatures."""

import math
import operator
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

PointList = Sequence[Sequence[float]] | np.ndarray | Tensor
"""Points (x, y), in pixels of a picture."""
SEEDS = (-(2**63), 2**64 - 1)
"""Range of the seeds of torch's generators."""


def shown(value: object) -> str:
    """A value, abbreviated for a message."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} of shape {tuple(value.shape)} and {value.dtype}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def within(least: float, most: float, /, **values: float | None) -> None:
    """Raises ValueError unless all numbers are finite and in [least, most]; None stands for a default and passes."""
    for name, value in values.items():
        if value is not None and not (least <= value <= most and value != math.inf):
            bounds = f"of at least {least}" if most == math.inf else f"in [{least}, {most}]"
            raise ValueError(f"expected {name} {bounds}, got {value}")


def at_least(least: float, /, **values: float | None) -> None:
    """Raises ValueError unless all numbers are finite and not below `least`. None passes."""
    within(least, math.inf, **values)


def check_seeds(seeds: Iterable[object]) -> list[int]:
    """Seeds as integers of Python.

    Raises:
        ValueError: If there are none, or one is out of the range of torch's generators.
    """
    found = [operator.index(seed) for seed in seeds]
    if not found:
        raise ValueError("expected at least one seed, got none")
    for seed in found:
        if not SEEDS[0] <= seed <= SEEDS[1]:
            raise ValueError(f"expected seeds from -2^63 to 2^64 - 1, got {seed}")
    return found


def check_floating(**tensors: Tensor) -> None:
    """Raises ValueError unless all tensors are in floating point, and not on the meta device."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.is_meta:
            raise ValueError(f"expected {name} in floating point, got {tensor.dtype} on {tensor.device}")


def check_finite(**tensors: Tensor) -> None:
    """Raises ValueError unless all tensors hold finite numbers in floating point."""
    check_floating(**tensors)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"expected finite {name}, got NaN or infinity among the numbers")


def check_points(
    name: str, points: Iterable[Iterable[float]], size: tuple[int, int] | None = None
) -> list[tuple[float, float]]:
    """Points as pairs of numbers.

    Args:
        name: What each of them is, for the error.
        points: (x, y) of each, in pixels.
        size: Width and height of the picture that they must lie in, if any.

    Raises:
        ValueError: If one is no pair of finite numbers, or lies outside the picture.
    """
    found = []
    for point in points:
        pair = tuple(map(float, point)) if np.ndim(point) == 1 else ()
        if len(pair) != 2 or not all(map(math.isfinite, pair)):
            raise ValueError(f"expected every {name} as (x, y) in pixels, got {shown(point)}")
        if size and not all(0 <= value <= side for value, side in zip(pair, size, strict=True)):
            x, y = pair
            raise ValueError(
                f"the {name} ({x:g}, {y:g}) lies outside the picture: expected x from 0 to {size[0]}, y from 0 to "
                f"{size[1]}"
            )
        found.append(pair)
    return found
