"""Sky, sun, clouds, ridges, land, water and mist: everything behind the main thing."""

import torch
from torch import Tensor

from smoothnb.postcards import palette
from smoothnb.postcards.scene import LANDS, TIMES, WEATHERS
from smoothnb.postcards.shapes import circle, cover, hashed, triangle_wave

NIGHT, SEA, SNOW = TIMES.index("night"), LANDS.index("sea"), LANDS.index("snow")
CLOUDY, MISTY = WEATHERS.index("cloudy"), WEATHERS.index("misty")


def over(canvas: Tensor, colour: Tensor, alpha: Tensor) -> Tensor:
    """Paints a colour over the canvas, in place."""
    return canvas.lerp_(colour.expand_as(canvas), alpha.expand_as(canvas))


class Landscape:
    """The backdrop of a batch of scenes, painted from back to front.

    Args:
        factors: The scenes' factors as tensors: [batch] for the discrete ones, [batch, 1, 1] for places.
        x, y: Pixel centres, [1, 1, width] and [1, height, 1].
        pixel: Side of one pixel in world units, the width of an antialiased edge.
    """

    def __init__(self, factors: dict[str, Tensor], x: Tensor, y: Tensor, pixel: float):
        self.f, self.x, self.y, self.pixel = factors, x, y, pixel
        self.noise = hashed(factors["seed"], 96)[:, :, None, None]
        time = factors["time"]
        self.zenith, self.middle, self.horizon_light, self.sun, self.glow, self.tint, self.shade = (
            palette.light(time, role) for role in ("zenith", "middle", "horizon", "sun", "glow", "tint", "shade")
        )
        self.cloudy, self.misty = factors["weather"] == CLOUDY, factors["weather"] == MISTY
        # Clouds and mist swallow colour and sharpness of the sky.
        grey = (0.22 * self.cloudy + 0.35 * self.misty)[:, None, None, None]
        mean = (self.zenith + 2 * self.middle + self.horizon_light) / 4
        self.zenith, self.middle = self.zenith.lerp(mean, grey), self.middle.lerp(mean, grey)
        self.haze = self.horizon_light.lerp(self.glow, 0.25)

    def sky_gradient(self, height: Tensor) -> Tensor:
        """The sky's colour at a height from 0 (top) to 1 (horizon): a quadratic Bezier curve of three colours."""
        s = height.clamp(0, 1).unsqueeze(1)
        return self.zenith * (1 - s) ** 2 + self.middle * (2 * s * (1 - s)) + self.horizon_light * s * s

    def paint_sky(self) -> Tensor:
        f, b, (h, w) = self.f, len(self.f["time"]), (self.y.shape[1], self.x.shape[2])
        canvas = self.sky_gradient(self.y / f["horizon"]).expand(b, 3, h, w).clone()
        night = f["time"] == NIGHT
        self._stars(canvas, night & (f["weather"] != MISTY))
        distance = circle(self.x - f["sun_x"], self.y - f["sun_y"], 0.0)
        veil = (1 - 0.35 * self.cloudy - 0.6 * self.misty)[:, None, None]
        wide = torch.where(night, 15.0, 26.0)[:, None, None] * (1 + 0.5 * self.misty)[:, None, None]
        self.bloom = (0.62 * torch.exp(-distance / wide) * (1.1 - 0.25 * veil)).unsqueeze(1)
        over(canvas, self.glow, self.bloom)
        disc = cover(distance - 7.5, self.pixel)
        bite = cover(circle(self.x - f["sun_x"] - 3.4, self.y - f["sun_y"] + 1.6, 6.6), self.pixel)
        disc = torch.where(night[:, None, None], disc * (1 - bite), disc)
        over(canvas, self.sun, (disc * veil).unsqueeze(1))
        if self.cloudy.any():
            self._clouds(canvas, self.cloudy.nonzero().flatten())
        return canvas

    def _stars(self, canvas: Tensor, where: Tensor) -> None:
        rows = where.nonzero().flatten()
        if not len(rows):
            return
        n = self.noise[rows]
        light = torch.zeros(len(rows), self.y.shape[1], self.x.shape[2], device=canvas.device)
        for k in range(12):
            across, down, bright = (n[:, 60 + 3 * k + i] for i in range(3))
            # A star is separable: a Gaussian across times a Gaussian down.
            gx = torch.exp(-(((self.x - 128 * across) / 1.1) ** 2))
            gy = torch.exp(-(((self.y - 62 * down) / 1.1) ** 2))
            light += gx * gy * (0.35 + 0.65 * bright)
        dim = torch.where(self.cloudy[rows], 0.3, 0.9)[:, None, None]
        canvas[rows] += (light * dim).unsqueeze(1) * (1 - canvas[rows])

    def _clouds(self, canvas: Tensor, rows: Tensor) -> None:
        n, patch = self.noise[rows], canvas[rows]
        horizon, middle, glow = self.f["horizon"][rows], self.middle[rows], self.glow[rows]
        lit = self.horizon_light[rows].lerp(torch.ones_like(glow), 0.45)
        lit = lit * torch.where(self.f["time"][rows] == NIGHT, 0.62, 1.0)[:, None, None, None]
        for k in range(4):
            across, down, width, lump = (n[:, 30 + 4 * k + i] for i in range(4))
            half = 13 + 9 * width
            cx, cy = 40 * k - 6 + 22 * across, horizon * (0.16 + 0.44 * down)
            u, v = self.x - cx, self.y - cy
            puffs = circle(u + 0.15 * half * (lump - 0.5), v + 1, 0.46 * half)
            for offset, radius in ((-0.5, 0.28 + 0.1 * lump), (0.52, 0.38 - 0.1 * lump)):
                puffs = torch.minimum(puffs, circle(u - offset * half, v, radius * half))
            bar = torch.hypot((u.abs() - 0.8 * half).clamp(min=0), v - 0.1 * half) - 0.2 * half
            cloud = torch.minimum(torch.maximum(puffs, v - 0.2 * half), bar)
            under = ((v + 0.3 * half) / (0.6 * half)).clamp(0, 1).unsqueeze(1)
            colour = lit.lerp(middle.lerp(glow, 0.3), 0.75 * under)
            over(patch, colour, 0.9 * cover(cloud, 1.6 * self.pixel).unsqueeze(1))
        canvas[rows] = patch

    def ridge_tops(self) -> list[tuple[Tensor, Tensor, tuple]]:
        """Of each ridge, far to near: its upper edge [batch, 1, width], whether the scene has it, its wave."""
        n, land = self.noise, self.f["land"][:, None, None]
        tops = []
        for k in range(3):
            a, b, c, stretch = (n[:, 6 * k + i] for i in range(4))
            length = 46 + 26 * stretch + 8 * k
            peaks = (
                0.62 * triangle_wave(self.x / length + a)
                + 0.28 * triangle_wave(self.x / (0.43 * length) + b)
                + 0.10 * triangle_wave(self.x / (0.19 * length) + c)
            )
            waves = 0.5 + 0.3 * torch.sin(self.x * (9 / length) + 6.28 * a) + 0.2 * torch.sin(
                self.x * (15 / length) + 6.28 * b
            )  # fmt: skip
            # Mountains are sharp, dunes and islands round; what is nearer is rounder and lower.
            sharp = torch.where(land == SEA, 0.15, torch.where(land == 1, 0.25, 0.9)) - 0.3 * k
            shape = waves.lerp(peaks, sharp.clamp(0, 1))
            height = (36 - 10 * k) * (0.75 + 0.5 * n[:, 6 * k + 4])
            height = torch.where(land == SEA, 0.75 * height, height)
            shape = torch.where(land == SEA, (shape - 0.45) * 1.6, shape)
            there = (self.f["ridges"] > 2 - k)[:, None, None]
            tops.append((self.f["horizon"] - height * shape + 2, there, (length, a, b)))
        return tops

    def paint_ridges(self, canvas: Tensor) -> None:
        """Aerial perspective: the farther a ridge, the more it takes the colour of the haze."""
        rows = self.y.flatten() < self.f["horizon"].max() + 4  # below, the land hides them
        y, canvas = self.y[:, rows], canvas[:, :, : int(rows.sum())]
        rock = palette.ridge(self.f["land"]) * self.tint
        rock = rock.lerp(self.shade, 0.25)
        snowy = (self.f["land"] == SNOW)[:, None, None]
        for k, (top, there, (length, a, b)) in enumerate(self.ridge_tops()):
            depth = y - top
            far = (0.68, 0.46, 0.24)[k]
            fade = (depth / (self.f["horizon"] - top + 8).clamp(min=8)).clamp(0, 1)
            colour = rock.lerp(self.haze, (far + (0.9 - far) * 0.8 * fade**1.5).unsqueeze(1))
            # Flanks lean outwards as they come down; those that face the sun are lit.
            side = torch.tanh((self.f["sun_x"] - self.x) / 24)
            lean = self.x + 0.22 * depth
            flank = -torch.cos(6.28 * (lean / length + a)) + 0.6 * torch.sin(6.28 * (lean / (0.43 * length) + b))
            lit = 0.07 * side * flank * (1 - depth / 34).clamp(0, 1)
            cap = cover(depth - 6 - 5 * triangle_wave(self.x / 9 + k * 0.3), 1.5) * snowy * (0.75, 0.6, 0.4)[k]
            colour = colour.lerp(self.tint.clamp(max=1).lerp(self.haze, 0.35 * far).expand_as(colour), cap.unsqueeze(1))
            colour = colour * (1 + lit.unsqueeze(1))
            alpha = cover(-depth, self.pixel) * there
            over(canvas, colour, alpha.unsqueeze(1))

    def paint_land(self, canvas: Tensor) -> None:
        """Rolling bands, each lit along its crest; a pale one behind, a deep one in front."""
        f, n = self.f, self.noise
        far, near = palette.ground(f["land"], False), palette.ground(f["land"], True)
        dune = (f["land"] == LANDS.index("desert"))[:, None, None]
        for k in range(4):
            a, b, c = (n[:, 18 + 3 * k + i] for i in range(3))
            level = f["horizon"] + (132 - f["horizon"]) * (0.0, 0.16, 0.42, 0.74)[k]
            phase = self.x * (0.030 + 0.022 * a - 0.004 * k) + 6.28 * b
            swing = torch.sin(phase) + torch.where(
                dune, 0.35 * torch.sin(2 * phase + 0.9), 0.25 * torch.sin(2.3 * phase + 6 * c)
            )
            top = level + (1.6, 3.0, 4.6, 6.0)[k] * swing
            depth = (self.y - top) / 30
            paint = far.lerp(near, (0.08, 0.34, 0.64, 0.92)[k]) * self.tint
            paint = paint.lerp(self.haze, (0.42, 0.20, 0.07, 0.0)[k])
            # The side that falls away from the sun lies in shadow, most of all on dunes.
            lee = torch.tanh((self.x - f["sun_x"]) / 24) * torch.cos(phase)
            shadow = (0.30 * depth + torch.where(dune, 0.16, 0.08) * lee * (1 - depth)).clamp(-0.1, 0.7)
            colour = paint.lerp(paint * 0.55 + 0.35 * self.shade, shadow.unsqueeze(1))
            crest = 0.34 * torch.exp(-((depth * 7.5).clamp(min=0) ** 2))
            colour = colour.lerp(paint.lerp(self.glow, 0.5), crest.unsqueeze(1))
            over(canvas, colour, cover(-(self.y - top), self.pixel).unsqueeze(1))

    def paint_sea(self, canvas: Tensor) -> None:
        """The sky, mirrored and darkened, under swell; below the sun a road of light."""
        f = self.f
        below = (self.y - f["horizon"]).clamp(min=0)
        far, near = palette.ground(f["land"], False), palette.ground(f["land"], True)
        mirrored = self.sky_gradient(1 - 1.25 * below / f["horizon"])
        near_weight = (below / 62).clamp(0, 1).unsqueeze(1)
        water = far.lerp(near, near_weight) * self.tint
        colour = mirrored.lerp(water, 0.30 + 0.42 * near_weight)
        # Swell: crests crowd towards the horizon, where they are too fine to draw and fade instead.
        row = torch.log1p(below / 7)
        sway = 0.5 * torch.sin(self.x * 0.06 + 6.28 * self.noise[:, 50] + 3 * row)
        swell = torch.sin(13 * row + 2.2 * sway) * (below / 14).clamp(0, 1)
        colour = colour * (1 + 0.055 * swell.unsqueeze(1))
        width = 4.5 + 0.16 * below
        road = torch.exp(-(((self.x - f["sun_x"]) / width) ** 2)) * (0.6 + 0.4 * swell)
        strength = (0.95 - 0.35 * self.cloudy - 0.5 * self.misty)[:, None, None] * torch.exp(-below / 48)
        colour = colour.lerp(self.sun.lerp(self.glow, 0.45), (road * strength).unsqueeze(1))
        for k, (top, there, _) in enumerate(self.ridge_tops()):
            depth = 2 * f["horizon"] - self.y - 0.8 * (top - 2) - 0.2 * f["horizon"] + 0.6 * swell
            shadow = cover(-depth, 3.0) * there * (0.10, 0.14, 0.20)[k] * torch.exp(-below / 16)
            colour = colour.lerp(self.shade, shadow.unsqueeze(1))
        over(canvas, colour, cover(-(self.y - f["horizon"]), self.pixel).unsqueeze(1))

    def paint_mist(self, canvas: Tensor, amount: float) -> None:
        """Banks of mist about the horizon; `amount` is how thick, 0 to 1."""
        rows = self.misty.nonzero().flatten()
        if not len(rows):
            return
        n, f, patch = self.noise[rows], self.f["horizon"][rows], canvas[rows]
        colour = self.horizon_light[rows].lerp(self.middle[rows], 0.25)
        drift = 3.5 * torch.sin(self.x * 0.05 + 6.28 * n[:, 55]) + 2 * torch.sin(self.x * 0.11 + 6.28 * n[:, 56])
        for offset, depth, share in ((-12, 9, 0.55), (2, 12, 0.9), (22, 10, 0.35)):
            bank = torch.exp(-(((self.y - f - offset - drift) / depth) ** 2))
            over(patch, colour, (amount * share * bank).unsqueeze(1))
        canvas[rows] = patch

    def paint(self) -> Tensor:
        """The whole backdrop: [batch, 3, height, width]."""
        canvas = self.paint_sky()
        self.paint_ridges(canvas)
        # Light spills over what stands before the sun.
        over(canvas, self.glow, 0.35 * self.bloom)
        for is_sea, painter in ((True, Landscape.paint_sea), (False, Landscape.paint_land)):
            rows = ((self.f["land"] == SEA) == is_sea).nonzero().flatten()
            if len(rows):
                part = canvas[rows]
                painter(self.only(rows), part)
                canvas[rows] = part
        self.paint_mist(canvas, 0.8)
        return canvas

    def only(self, rows: Tensor) -> "Landscape":
        """The same backdrop for some of the scenes."""
        return Landscape({k: v[rows] for k, v in self.f.items()}, self.x, self.y, self.pixel)
