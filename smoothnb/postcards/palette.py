"""The light of each time of day and the paint of each land and thing, as RGB in [0, 1]."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smoothnb.postcards.scene import COLOURS, LANDS, TIMES


@dataclass(frozen=True)
class Light:
    """What a time of day does: the sky from top to horizon, the sun, and the tint of whatever it shines on."""

    zenith: tuple
    middle: tuple
    horizon: tuple
    sun: tuple
    glow: tuple
    tint: tuple
    shade: tuple


LIGHTS = {
    "dawn": Light(
        zenith=(0.38, 0.50, 0.74), middle=(0.78, 0.70, 0.82), horizon=(1.00, 0.84, 0.74),
        sun=(1.00, 0.97, 0.88), glow=(1.00, 0.80, 0.72), tint=(1.00, 0.93, 0.93), shade=(0.50, 0.50, 0.68),
    ),
    "noon": Light(
        zenith=(0.13, 0.45, 0.80), middle=(0.40, 0.72, 0.94), horizon=(0.86, 0.95, 0.97),
        sun=(1.00, 0.99, 0.90), glow=(1.00, 0.98, 0.86), tint=(1.04, 1.03, 1.00), shade=(0.36, 0.50, 0.66),
    ),
    "sunset": Light(
        zenith=(0.20, 0.13, 0.40), middle=(0.80, 0.24, 0.40), horizon=(1.00, 0.64, 0.26),
        sun=(1.00, 0.90, 0.58), glow=(1.00, 0.56, 0.24), tint=(1.00, 0.80, 0.68), shade=(0.34, 0.15, 0.34),
    ),
    "night": Light(
        zenith=(0.03, 0.05, 0.15), middle=(0.06, 0.12, 0.29), horizon=(0.17, 0.27, 0.46),
        sun=(0.98, 0.96, 0.86), glow=(0.42, 0.54, 0.80), tint=(0.52, 0.56, 0.78), shade=(0.03, 0.06, 0.16),
    ),
}  # fmt: skip

GROUND = {
    "meadow": ((0.70, 0.80, 0.36), (0.16, 0.44, 0.22)),
    "desert": ((0.97, 0.80, 0.54), (0.78, 0.45, 0.24)),
    "snow": ((0.97, 0.98, 1.00), (0.66, 0.77, 0.92)),
    "sea": ((0.40, 0.70, 0.78), (0.04, 0.27, 0.42)),
}
"""Of each land: its paint far away, and near."""

RIDGE = {
    "meadow": (0.30, 0.45, 0.48),
    "desert": (0.66, 0.36, 0.30),
    "snow": (0.56, 0.66, 0.82),
    "sea": (0.25, 0.42, 0.50),
}

PAINT = {
    "red": (0.86, 0.13, 0.13),
    "yellow": (0.99, 0.80, 0.10),
    "green": (0.10, 0.62, 0.27),
    "blue": (0.10, 0.34, 0.86),
    "purple": (0.56, 0.20, 0.74),
    "white": (0.97, 0.96, 0.93),
}


def table(colours: list[tuple], index: Tensor) -> Tensor:
    """Looks colours up for a batch: [batch, 3, 1, 1]."""
    return torch.tensor(colours, device=index.device)[index][:, :, None, None]


def light(index: Tensor, role: str) -> Tensor:
    return table([getattr(LIGHTS[t], role) for t in TIMES], index)


def ground(index: Tensor, near: bool) -> Tensor:
    return table([GROUND[land][near] for land in LANDS], index)


def ridge(index: Tensor) -> Tensor:
    return table([RIDGE[land] for land in LANDS], index)


def paint(index: Tensor) -> Tensor:
    return table([PAINT[c] for c in COLOURS], index)
