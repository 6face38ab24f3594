"""Scenes to pictures: signed distance fields in torch, batched, on any device."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from smoothnb.postcards import palette
from smoothnb.postcards.landscape import NIGHT, SEA, Landscape, over
from smoothnb.postcards.scene import EXTENT, FACTORS, THINGS, TIMES, Scene
from smoothnb.postcards.shapes import cover
from smoothnb.postcards.things import DRAW, Sprite

AFLOAT = {"sailboat"}
AIRBORNE = {"balloon"}
LAMPS = torch.tensor([{"night": 1.0, "sunset": 0.6, "dawn": 0.3}.get(t, 0.0) for t in TIMES])


def _factors(scenes: Sequence[Scene], device) -> dict[str, Tensor]:
    factors = {
        name: torch.tensor([values.index(getattr(s, name)) for s in scenes], device=device)
        for name, values in FACTORS.items()
    }
    for name in ("seed", "ridges"):
        factors[name] = torch.tensor([getattr(s, name) for s in scenes], device=device)
    for name in ("x", "y", "size", "sun_x", "sun_y", "horizon"):
        factors[name] = torch.tensor([float(getattr(s, name)) for s in scenes], device=device)[:, None, None]
    return factors


class _Stage:
    """The things of one kind in a batch, and the light they stand in."""

    def __init__(self, backdrop: Landscape, kind: str):
        self.kind, self.backdrop, f = kind, backdrop, backdrop.f
        self.x, self.y, self.size = f["x"], f["y"], f["size"]
        self.base = self.y + self.size / 2
        self.toward = torch.where(f["sun_x"] > f["x"], 1.0, -1.0)
        self.paint = palette.paint(f["colour"])
        self.lamp = LAMPS.to(f["x"].device)[f["time"]][:, None, None]

    def sprite(self, x: Tensor, y: Tensor) -> Sprite:
        """The thing by itself, at coordinates [batch, 1, width] and [batch, height, 1]."""
        b = self.backdrop
        u, v = torch.broadcast_tensors((x - self.x) / self.size, (y - self.y) / self.size)
        # Things keep more of their own colour at night than the land does: the picture must stay readable.
        tint = b.tint.lerp(torch.ones_like(b.tint), 0.45)
        s = Sprite(u, v, self.size / b.pixel, self.paint, tint, b.shade, self.toward, self.lamp)
        DRAW[self.kind](s)
        return s

    def stamp(self, canvas: Tensor, waterline: Tensor | None = None) -> None:
        """Puts the thing, or its reflection in a waterline, on the window of pixels around it."""
        b = self.backdrop
        middle = self.y if waterline is None else 2 * waterline - self.y
        count = int(1.3 * self.size.max() / b.pixel) + 2
        steps = torch.arange(count, device=canvas.device) - count // 2
        # Clamped indices repeat border pixels, which then are written twice with the same value.
        column, row = (
            ((at.flatten()[:, None] / b.pixel).long() + steps).clamp(0, canvas.shape[-1] - 1) for at in (self.x, middle)
        )
        at = (
            torch.arange(len(canvas), device=canvas.device)[:, None, None],
            slice(None),
            row[:, :, None],
            column[:, None],
        )
        x, y = (column[:, None] + 0.5) * b.pixel, (row[:, :, None] + 0.5) * b.pixel
        s = self.sprite(x, y if waterline is None else 2 * waterline - y)
        if waterline is not None:
            fade = 0.42 * torch.exp(-(y - waterline).clamp(min=0) / (0.75 * self.size)) * cover(waterline - y, b.pixel)
            s.rgb, s.alpha = s.rgb * fade.unsqueeze(1), s.alpha * fade.unsqueeze(1)
        rgb, alpha = s.rgb.permute(0, 2, 3, 1), s.alpha.permute(0, 2, 3, 1)
        canvas[at] = canvas[at] * (1 - alpha) + rgb

    def set_down(self, canvas: Tensor) -> None:
        """What ties a thing to its ground: a shadow on land, an islet or a reflection at sea."""
        b = self.backdrop
        at_sea = (b.f["land"] == SEA)[:, None, None]
        if self.kind in AIRBORNE:
            return
        sea_rows = at_sea.flatten().nonzero().flatten()
        if len(sea_rows):
            mirror, part = _Stage(b.only(sea_rows), self.kind), canvas[sea_rows]
            mirror.stamp(part, mirror.base + (0.0 if self.kind in AFLOAT else 2.5))
            canvas[sea_rows] = part
        if self.kind not in AFLOAT:
            # An islet: the upper half of a flat ellipse, sand above and rock along the water.
            half = 0.66 * self.size + 4
            islet = ((b.x - self.x) / half) ** 2 + ((b.y - self.base - 2.5) / (0.16 * self.size)) ** 2
            inside = cover((islet.clamp(min=1e-6).sqrt() - 1) * 0.16 * self.size, b.pixel)
            inside = inside * cover(b.y - self.base - 2.5, b.pixel)
            grass = torch.tensor((0.46, 0.58, 0.34), device=canvas.device)[None, :, None, None] * b.tint
            over(canvas, grass.lerp(b.shade, 0.15), (inside * at_sea).unsqueeze(1))
        length = torch.where(at_sea, 0.30, 0.55) * self.size
        middle = self.x - self.toward * 0.42 * length
        flat = ((b.x - middle) / length) ** 2 + ((b.y - self.base) / (0.075 * self.size)) ** 2
        strength = torch.where(at_sea & (self.kind in AFLOAT), 0.12, 0.42)
        over(canvas, b.shade, (strength * torch.exp(-1.3 * flat)).unsqueeze(1))

    def shine(self, canvas: Tensor) -> None:
        """Light that things give off after dark: a lighthouse's beam, the halo of lit windows."""
        b = self.backdrop
        if self.kind == "lighthouse":
            u, v = (b.x - self.x) * -self.toward, b.y - (self.y - 0.335 * self.size)
            reach = u.clamp(min=0)
            spread = torch.exp(-(((v + 0.10 * u) / (1.6 + 0.16 * reach)) ** 2)) * cover(-u, 6 * b.pixel)
            beam = 0.75 * spread * torch.exp(-reach / 46)
            beam = beam + 0.5 * torch.exp(-torch.hypot(u, v) / 5)
        elif self.kind == "house":
            beam = 0.35 * torch.exp(-torch.hypot(b.x - self.x, b.y - self.y - 0.19 * self.size) / (0.35 * self.size))
        else:
            return
        dark = (b.f["time"] == NIGHT)[:, None, None]
        warm = torch.tensor((1.0, 0.88, 0.56), device=canvas.device)[None, :, None, None]
        over(canvas, warm, (0.8 * beam * dark).unsqueeze(1))


def _grid(size: int, device) -> tuple[Tensor, Tensor, float]:
    pixel = EXTENT / size
    at = (torch.arange(size, device=device) + 0.5) * pixel
    return at[None, None, :], at[None, :, None], pixel


@torch.no_grad()
def render(
    scenes: Sequence[Scene], size: int = 128, device: torch.device | str = "cpu"
) -> Float[Tensor, "batch 3 size size"]:
    """Draws scenes.

    Args:
        scenes: At least one.
        size: Side of the pictures in pixels. Lengths of the scenes scale with it.
        device: Where to draw.

    Returns:
        RGB in [0, 1]. The same scene gives the same picture, in any batch.

    Raises:
        ValueError: If there is no scene, or the size is below 8.
    """
    if not scenes or size < 8:
        raise ValueError(f"expected at least one scene and a size of at least 8; got {len(scenes)} and {size}")
    backdrop = Landscape(_factors(scenes, device), *_grid(size, device))
    canvas = backdrop.paint()
    for kind in DRAW:
        rows = (backdrop.f["thing"] == THINGS.index(kind)).nonzero().flatten()
        if not len(rows):
            continue
        part, stage = canvas[rows], _Stage(backdrop.only(rows), kind)
        stage.set_down(part)
        if kind == "lighthouse":
            stage.shine(part)
        stage.stamp(part)
        if kind == "house":
            stage.shine(part)
        canvas[rows] = part
    backdrop.paint_mist(canvas, 0.14)
    return canvas.clamp_(0, 1)


@torch.no_grad()
def thing_mask(
    scenes: Sequence[Scene], size: int = 128, device: torch.device | str = "cpu"
) -> Float[Tensor, "batch 1 size size"]:
    """How much of each pixel the main thing itself covers, in [0, 1]; zero where there is none."""
    backdrop = Landscape(_factors(scenes, device), *_grid(size, device))
    mask = torch.zeros(len(scenes), 1, size, size, device=device)
    for kind in DRAW:
        rows = (backdrop.f["thing"] == THINGS.index(kind)).nonzero().flatten()
        if len(rows):
            mask[rows] = _Stage(backdrop.only(rows), kind).sprite(backdrop.x, backdrop.y).alpha
    return mask
