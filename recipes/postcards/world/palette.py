"""The light of every hour and the paint of each land and thing, as RGB in [0, 1]."""

import functools

import torch
from torch import Tensor

from recipes.postcards.world.scene import LANDS

ROLES = ("zenith", "middle", "horizon", "sun", "glow", "tint", "shade")
"""What an hour decides: the sky from top to horizon, sun or moon, their glow, and the tint of lit and shaded things."""

KEYFRAMES = {
    0.0: ((0.025, 0.045, 0.150), (0.050, 0.110, 0.280), (0.150, 0.250, 0.440), (0.98, 0.96, 0.88),
          (0.40, 0.52, 0.80), (0.46, 0.52, 0.78), (0.03, 0.06, 0.17)),
    3.4: ((0.035, 0.055, 0.170), (0.070, 0.130, 0.310), (0.190, 0.280, 0.470), (0.98, 0.96, 0.88),
          (0.42, 0.52, 0.80), (0.47, 0.53, 0.78), (0.04, 0.07, 0.18)),
    4.6: ((0.100, 0.150, 0.370), (0.260, 0.330, 0.600), (0.640, 0.570, 0.720), (1.00, 0.90, 0.82),
          (0.78, 0.66, 0.80), (0.62, 0.64, 0.84), (0.14, 0.16, 0.34)),
    5.7: ((0.260, 0.350, 0.640), (0.680, 0.580, 0.760), (1.000, 0.760, 0.650), (1.00, 0.94, 0.82),
          (1.00, 0.72, 0.62), (0.94, 0.84, 0.88), (0.34, 0.34, 0.56)),
    7.2: ((0.340, 0.530, 0.820), (0.740, 0.790, 0.900), (1.000, 0.890, 0.770), (1.00, 0.97, 0.86),
          (1.00, 0.88, 0.74), (1.00, 0.96, 0.93), (0.42, 0.48, 0.66)),
    9.4: ((0.220, 0.500, 0.840), (0.510, 0.760, 0.940), (0.880, 0.940, 0.940), (1.00, 0.99, 0.90),
          (1.00, 0.97, 0.84), (1.03, 1.01, 0.98), (0.38, 0.50, 0.66)),
    12.5: ((0.120, 0.440, 0.820), (0.370, 0.710, 0.950), (0.840, 0.950, 0.970), (1.00, 1.00, 0.92),
           (1.00, 0.99, 0.88), (1.04, 1.03, 1.00), (0.36, 0.50, 0.66)),
    15.4: ((0.180, 0.450, 0.790), (0.490, 0.720, 0.900), (0.930, 0.930, 0.880), (1.00, 0.98, 0.86),
           (1.00, 0.94, 0.76), (1.04, 1.01, 0.95), (0.36, 0.46, 0.62)),
    17.3: ((0.280, 0.400, 0.690), (0.720, 0.650, 0.690), (1.000, 0.820, 0.540), (1.00, 0.95, 0.72),
           (1.00, 0.80, 0.46), (1.06, 0.93, 0.78), (0.34, 0.32, 0.48)),
    18.6: ((0.220, 0.170, 0.450), (0.780, 0.290, 0.420), (1.000, 0.620, 0.270), (1.00, 0.88, 0.56),
           (1.00, 0.54, 0.24), (1.00, 0.77, 0.66), (0.30, 0.15, 0.34)),
    19.5: ((0.130, 0.110, 0.350), (0.460, 0.220, 0.460), (0.930, 0.480, 0.380), (1.00, 0.80, 0.56),
           (0.92, 0.46, 0.40), (0.76, 0.62, 0.72), (0.19, 0.11, 0.30)),
    20.4: ((0.060, 0.080, 0.250), (0.180, 0.180, 0.440), (0.450, 0.340, 0.560), (0.98, 0.92, 0.82),
           (0.50, 0.46, 0.72), (0.56, 0.56, 0.78), (0.08, 0.08, 0.24)),
    21.4: ((0.030, 0.050, 0.165), (0.065, 0.125, 0.310), (0.190, 0.270, 0.470), (0.98, 0.96, 0.88),
           (0.42, 0.52, 0.80), (0.48, 0.53, 0.78), (0.03, 0.06, 0.17)),
}  # fmt: skip
"""Painted skies by hour, one triple for each of `ROLES`; between them the light is interpolated."""

GROUND = {
    "meadow": ((0.70, 0.80, 0.38), (0.15, 0.44, 0.24)),
    "desert": ((0.97, 0.81, 0.56), (0.80, 0.47, 0.26)),
    "snow": ((0.97, 0.98, 1.00), (0.66, 0.77, 0.92)),
    "sea": ((0.40, 0.70, 0.78), (0.04, 0.27, 0.42)),
}
"""By land: its paint far away, and near."""

RIDGE = {
    "meadow": (0.28, 0.44, 0.49),
    "desert": (0.68, 0.38, 0.31),
    "snow": (0.50, 0.61, 0.80),
    "sea": (0.25, 0.42, 0.51),
}

PAINT = {
    0: (0.87, 0.13, 0.13),
    30: (0.95, 0.47, 0.10),
    60: (0.98, 0.80, 0.12),
    130: (0.12, 0.61, 0.28),
    180: (0.08, 0.60, 0.65),
    220: (0.10, 0.34, 0.86),
    285: (0.55, 0.20, 0.76),
    330: (0.86, 0.20, 0.48),
}
"""Pure paints by hue in degrees; hues between them are interpolated."""

WHITE = (0.97, 0.96, 0.93)


@functools.cache
def _curve(name: str, steps: int) -> Tensor:
    """A closed curve through keyframes, sampled evenly: [steps, channels].

    Cubic Hermite with tangents of the neighbours' slope (Catmull and Rom), wherever the keyframes lie.
    """
    table, period = {"light": (KEYFRAMES, 24.0), "paint": (PAINT, 360.0)}[name]
    at = torch.tensor(list(table), dtype=torch.float64)
    value = torch.tensor(list(table.values()), dtype=torch.float64).flatten(1)
    n = len(at)
    order = torch.arange(-2, n + 2)
    at, value = at[order % n] + period * torch.div(order, n, rounding_mode="floor"), value[order % n]
    slope = torch.zeros_like(value)
    slope[1:-1] = (value[2:] - value[:-2]) / (at[2:] - at[:-2])[:, None]
    where = torch.arange(steps, dtype=torch.float64) * period / steps
    k = torch.searchsorted(at, where, right=True) - 1
    width = (at[k + 1] - at[k])[:, None]
    s = (where - at[k])[:, None] / width
    curve = (
        (1 + 2 * s) * (1 - s) ** 2 * value[k] + s * (1 - s) ** 2 * width * slope[k]
        + s * s * (3 - 2 * s) * value[k + 1] + s * s * (s - 1) * width * slope[k + 1]
    )  # fmt: skip
    return curve.clamp(0, 1.08).float()


def _on_curve(name: str, share: Tensor, steps: int = 720) -> Tensor:
    """Values of a closed curve at shares of its period, [batch] to [batch, channels]."""
    curve = _curve(name, steps).to(share.device)
    at = share * steps
    low = at.floor()
    return curve[low.long() % steps].lerp(curve[(low.long() + 1) % steps], (at - low)[:, None])


def light(hour: Tensor) -> dict[str, Tensor]:
    """The light of each hour, [batch, 3, 1, 1] for each of `ROLES`."""
    colours = _on_curve("light", hour / 24).unflatten(1, (len(ROLES), 3))
    return {role: colours[:, i, :, None, None] for i, role in enumerate(ROLES)}


def paint(hue: Tensor, lightness: Tensor) -> Tensor:
    """Paint of a hue in degrees and a lightness from 0 (pure) to 1 (white): [batch, 3, 1, 1]."""
    pure = _on_curve("paint", hue / 360)
    return pure.lerp(pure.new_tensor(WHITE), lightness[:, None])[:, :, None, None]


def table(colours: list[tuple], index: Tensor) -> Tensor:
    """Looks colours up for a batch: [batch, 3, 1, 1]."""
    return torch.tensor(colours, device=index.device)[index][:, :, None, None]


def ground(land: Tensor, near: bool) -> Tensor:
    return table([GROUND[name][near] for name in LANDS], land)


def ridge(land: Tensor) -> Tensor:
    return table([RIDGE[name] for name in LANDS], land)
