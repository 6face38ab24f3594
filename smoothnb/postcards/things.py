"""The main things: house, pine, sailboat, balloon, lighthouse, each built from a dozen simple shapes.

A thing is drawn about the origin at unit height, from `v = -0.5` (top) to `v = 0.5` (base), on a `Sprite`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from smoothnb.postcards.shapes import box, circle, cover, trapezoid, triangle_wave


class Sprite:
    """A picture with transparency on which shapes are laid, each over the ones before.

    Its colours are premultiplied by `alpha`, so that edges blend without a dark fringe.

    Args:
        u, v: Coordinates in units of the thing's height, [batch, height, width].
        scale: The thing's height in pixels, [batch, 1, 1]: turns distances in `u`, `v` into pixels.
        paint: The thing's own colour, [batch, 3, 1, 1].
        tint, shade: Colour of the light and of shadows, [batch, 3, 1, 1].
        toward: -1 where the light comes from the left, 1 from the right, [batch, 1, 1].
        lamp: How brightly lamps and windows shine, 0 by day to 1 at night, [batch, 1, 1].
    """

    def __init__(self, u, v, scale, paint, tint, shade, toward, lamp):
        self.u, self.v, self.scale = u, v, scale
        self.paint, self.tint, self.shade, self.toward, self.lamp = paint, tint, shade, toward, lamp
        self.rgb = torch.zeros(len(u), 3, *u.shape[1:], device=u.device)
        self.alpha = torch.zeros(len(u), 1, *u.shape[1:], device=u.device)

    def lay(self, distance: Tensor, colour, glow: float = 0.0, relief: float = 0.22) -> None:
        """Lays a shape on top.

        Args:
            distance: Signed distance in units of the thing's height.
            colour: An RGB triple, or a tensor that broadcasts to the picture.
            glow: How much of the lamps' light comes out of the shape, which night then does not darken.
            relief: How much darker the half is that faces away from the light.
        """
        if isinstance(colour, tuple):
            colour = torch.tensor(colour, device=self.u.device)[None, :, None, None]
        away = (0.5 - 7 * self.u * self.toward).clamp(0, 1).unsqueeze(1)
        lit = colour * self.tint
        lit = lit.lerp(lit * 0.5 + self.shade * 0.3, relief * 2 * away)
        lamp = (glow * self.lamp).unsqueeze(1)
        lit = lit * (1 - lamp) + colour * lamp
        cover_ = cover(distance * self.scale).unsqueeze(1)
        self.rgb.lerp_(lit.expand_as(self.rgb), cover_.expand_as(self.rgb))
        self.alpha += cover_ * (1 - self.alpha)


WOOD, STONE, DARK, CREAM, WINDOW = (
    (0.36, 0.22, 0.15),
    (0.78, 0.75, 0.70),
    (0.20, 0.20, 0.26),
    (0.96, 0.91, 0.80),
    (1.0, 0.84, 0.42),
)


def house(s: Sprite) -> None:
    u, v = s.u, s.v
    s.lay(box(u - 0.26, v + 0.30, 0.055, 0.17), (0.52, 0.32, 0.28))
    s.lay(box(u, v - 0.21, 0.43, 0.29), s.paint)
    s.lay(trapezoid(u, v, -0.46, -0.04, 0.24, 0.56), (0.26, 0.22, 0.28), relief=0.12)
    s.lay(box(u, v - 0.32, 0.085, 0.18), WOOD)
    for side in (-0.26, 0.26):
        s.lay(box(u - side, v - 0.19, 0.098, 0.108), CREAM, relief=0.0)
        pane = torch.where(s.lamp > 0.5, 1.0, 0.0).unsqueeze(1)
        glass = torch.tensor((0.34, 0.46, 0.58), device=u.device)[None, :, None, None]
        lamp = torch.tensor(WINDOW, device=u.device)[None, :, None, None]
        s.lay(box(u - side, v - 0.19, 0.068, 0.078), glass.lerp(lamp, pane), glow=1.0, relief=0.0)


def pine(s: Sprite) -> None:
    u, v = s.u, s.v
    s.lay(box(u, v - 0.40, 0.055, 0.10), WOOD)
    for top, bottom, half, deep in ((-0.02, 0.36, 0.36, 0.80), (-0.27, 0.13, 0.29, 0.90), (-0.50, -0.10, 0.21, 1.0)):
        fringe = 0.035 * triangle_wave(u * 9 + top)
        s.lay(trapezoid(u, v + fringe, top, bottom, 0.0, half), s.paint * deep, relief=0.34)


def sailboat(s: Sprite) -> None:
    u, v = s.u, s.v
    s.lay(box(u + 0.02, v + 0.06, 0.016, 0.44), WOOD, relief=0.0)
    # Each sail is a right triangle: the mast, the boom, and the leech between them.
    main = torch.maximum(torch.maximum(0.02 - u, v - 0.24), (u - 0.02 - 0.44 * (v + 0.48) / 0.72) * 0.85)
    s.lay(main, s.paint, relief=0.0)
    jib = torch.maximum(torch.maximum(u + 0.06, v - 0.24), (-0.06 - u - 0.32 * (v + 0.36) / 0.60) * 0.88)
    s.lay(jib, s.paint * 0.80, relief=0.0)
    s.lay(trapezoid(u, v, 0.29, 0.46, 0.46, 0.28), (0.42, 0.24, 0.16), relief=0.12)
    s.lay(box(u, v - 0.305, 0.445, 0.022), CREAM, relief=0.0)


def balloon(s: Sprite) -> None:
    u, v = s.u, s.v
    for side in (-1, 1):
        rope = (u - side * (0.055 + 0.28 * (0.32 - v))).abs() - 0.008
        s.lay(torch.maximum(rope, torch.maximum(0.1 - v, v - 0.36)), DARK, relief=0.0)
    s.lay(box(u, v - 0.43, 0.075, 0.07), WOOD)
    envelope = torch.minimum(circle(u, v + 0.14, 0.36), trapezoid(u, v, 0.04, 0.30, 0.31, 0.09))
    s.lay(envelope, s.paint, glow=0.45, relief=0.30)
    # Gores: meridians of a globe, seen from the side.
    across = u / (0.36**2 - (v + 0.14).clamp(-0.30, 0.16) ** 2).clamp(min=0.015).sqrt()
    gore = (across.abs() - 0.50).abs() - 0.15
    light = s.paint.lerp(torch.ones_like(s.paint), 0.42)
    s.lay(torch.maximum(envelope, gore * 0.3), light, glow=0.45, relief=0.30)


def lighthouse(s: Sprite) -> None:
    u, v = s.u, s.v
    tower = trapezoid(u, v, -0.24, 0.5, 0.105, 0.19)
    s.lay(tower, CREAM, relief=0.26)
    for middle in (-0.13, 0.14, 0.41):
        s.lay(torch.maximum(tower, (v - middle).abs() - 0.075), s.paint, relief=0.26)
    s.lay(box(u, v + 0.25, 0.165, 0.024), DARK)
    s.lay(box(u, v + 0.335, 0.085, 0.07), (1.0, 0.90, 0.55), glow=1.0, relief=0.1)
    s.lay(trapezoid(u, v, -0.5, -0.395, 0.0, 0.145), s.paint, relief=0.26)
    s.lay(box(u, v - 0.43, 0.045, 0.07), WOOD)


DRAW: dict[str, Callable[[Sprite], None]] = {
    "house": house,
    "pine": pine,
    "sailboat": sailboat,
    "balloon": balloon,
    "lighthouse": lighthouse,
}
