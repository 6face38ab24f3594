"""Sky, sun, moon, clouds, ridges, land, water and mist: everything behind the main thing."""

import torch
from torch import Tensor

from recipes.postcards.world import palette
from recipes.postcards.world.scene import LANDS, MOONRISE, MOONSET, SUNRISE, SUNSET
from recipes.postcards.world.shapes import circle, cover, hashed, triangle_wave

SEA, DESERT = LANDS.index("sea"), LANDS.index("desert")

STARS = hashed(torch.tensor([7]), 3 * 26)[0].view(26, 3)
"""Across, down and brightness: the same stars on every postcard."""


def over(canvas: Tensor, colour: Tensor, alpha: Tensor) -> Tensor:
    """Paints a colour over the canvas, in place."""
    return canvas.lerp_(colour.expand_as(canvas), alpha.expand_as(canvas))


def rise(x: Tensor, start: float, end: float) -> Tensor:
    """From 0 at `start` to 1 at `end`, without a kink."""
    s = ((x - start) / (end - start)).clamp(0, 1)
    return s * s * (3 - 2 * s)


class Landscape:
    """The backdrop of a batch of scenes, painted from back to front.

    Args:
        factors: The scenes' factors as tensors: [batch] for kinds and seeds, [batch, 1, 1] for numbers.
        x, y: Pixel centres, [1, 1, width] and [1, height, 1].
        pixel: Side of one pixel in world units, the width of an antialiased edge.
    """

    def __init__(self, factors: dict[str, Tensor], x: Tensor, y: Tensor, pixel: float):
        self.f, self.x, self.y, self.pixel = factors, x, y, pixel
        # Mean of two uniform numbers: shapes vary about their usual place, and none jumps to another one.
        self.noise = hashed(factors["seed"], 96).unflatten(1, (2, 48)).mean(1)[:, :, None, None]
        hour, self.clouds, self.mist = factors["hour"], factors["clouds"], factors["mist"]
        for role, colour in palette.light(hour.flatten()).items():
            setattr(self, {"horizon": "horizon_light"}.get(role, role), colour)
        self.dark = rise(hour, 19.2, 20.9) + 1 - rise(hour, 3.9, 5.3)
        self._place_lights(hour)
        # Clouds and mist swallow colour and sharpness of the sky.
        grey = (0.18 * self.clouds + 0.4 * self.mist).unsqueeze(1)
        mean = (self.zenith + 2 * self.middle + self.horizon_light) / 4
        self.zenith, self.middle = self.zenith.lerp(mean, grey), self.middle.lerp(mean, grey)
        self.haze = self.horizon_light.lerp(self.glow, 0.25)

    def _place_lights(self, hour: Tensor) -> None:
        """The sun and the moon travel from left to right on arcs, and are below the horizon between them."""
        horizon = self.f["horizon"]
        day = (hour - SUNRISE) / (SUNSET - SUNRISE)
        self.sun_x, self.sun_y = (
            14 + 100 * day.clamp(-0.1, 1.1),
            horizon + 2 - (horizon - 16) * torch.sin(3.14159 * day),
        )
        self.sun_y = torch.where((day < -0.1) | (day > 1.1), horizon + 40, self.sun_y)
        night = ((hour - MOONRISE) % 24) / (MOONSET - MOONRISE)
        up = night <= 1
        self.moon_x = 12 + 104 * night.clamp(0, 1)
        self.moon_y = torch.where(
            up, horizon + 6 - (horizon - 12) * torch.sin(3.14159 * night.clamp(0, 1)), horizon + 40
        )
        # What lights the land: the sun by day, the moon by night, and nothing in particular between them.
        by_day = rise(day, -0.10, 0.04) * (1 - rise(day, 0.96, 1.10))
        self.light_x = 64 + (self.sun_x - 64) * by_day + (self.moon_x - 64) * up * self.dark * rise(night, 0.0, 0.1)
        self.day = by_day

    def sky_gradient(self, height: Tensor) -> Tensor:
        """The sky's colour at a height from 0 (top) to 1 (horizon): a quadratic Bezier curve of three colours."""
        s = height.clamp(0, 1).unsqueeze(1)
        return self.zenith * (1 - s) ** 2 + self.middle * (2 * s * (1 - s)) + self.horizon_light * s * s

    def paint_sky(self) -> Tensor:
        f, b, (h, w) = self.f, len(self.f["land"]), (self.y.shape[1], self.x.shape[2])
        canvas = self.sky_gradient(self.y / f["horizon"]).expand(b, 3, h, w).clone()
        self._stars(canvas)
        veil = 1 - 0.25 * self.clouds - 0.55 * self.mist
        sun, moon = (
            circle(self.x - self.sun_x, self.y - self.sun_y, 0.0),
            circle(self.x - self.moon_x, self.y - self.moon_y, 0.0),
        )
        wide = 28 * (1 + 0.5 * self.mist)
        low = 1 + 0.5 * rise(self.sun_y, 34.0, 74.0)
        bloom = 0.62 * self.day * torch.exp(-sun / (wide * low)) + 0.5 * self.dark * torch.exp(-moon / (0.62 * wide))
        self.bloom = (bloom * (1.1 - 0.25 * veil)).unsqueeze(1)
        over(canvas, self.glow, self.bloom)
        over(canvas, self.sun, (cover(sun - 9, self.pixel) * veil).unsqueeze(1))
        bite = cover(circle(self.x - self.moon_x - 4.2, self.y - self.moon_y + 2.0, 7.4), self.pixel)
        crescent = cover(moon - 8.6, self.pixel) * (1 - bite) * (0.25 + 0.75 * self.dark)
        over(canvas, self.sun, (crescent * veil).unsqueeze(1))
        self._clouds(canvas)
        return canvas

    def _stars(self, canvas: Tensor) -> None:
        rows = (self.dark.flatten() > 0).nonzero().flatten()
        if not len(rows):
            return
        across, down, bright = STARS.to(canvas.device)[:, :, None, None].unbind(1)
        # A star is separable: a Gaussian across times a Gaussian down.
        gx = torch.exp(-(((self.x - 128 * across) / 1.15) ** 2)) * (0.3 + 0.7 * bright**2)
        gy = torch.exp(-(((self.y - 66 * down) / 1.15) ** 2)) * (1 - 0.6 * down)
        light = torch.einsum("kow,kho->hw", gx, gy)
        dim = 0.95 * self.dark[rows] ** 2 * (1 - 0.6 * self.clouds[rows]) * (1 - self.mist[rows])
        canvas[rows] += (light * dim).unsqueeze(1) * (1 - canvas[rows])

    def _clouds(self, canvas: Tensor) -> None:
        """Three large soft clouds, each at its usual place; with more cover they grow and thicken."""
        n, cover_ = self.noise, self.clouds
        white = torch.ones_like(self.glow)
        lit = self.horizon_light.lerp(white, 0.5) * (1 - 0.45 * self.dark.unsqueeze(1)) + 0.06 * self.dark.unsqueeze(1)
        for k, (cx, cy, usual) in enumerate(((24, 0.30, 19), (72, 0.16, 17), (108, 0.42, 21))):
            across, down, width, lump = (n[:, 20 + 4 * k + i] for i in range(4))
            half = usual * (0.75 + 0.5 * width) * (0.72 + 0.5 * cover_)
            u = self.x - cx - 30 * (across - 0.5)
            v = self.y - self.f["horizon"] * (cy + 0.22 * (down - 0.5))
            puffs = circle(u + 0.2 * half * (lump - 0.5), v + 1, 0.45 * half)
            for offset, radius in ((-0.5, 0.30 + 0.1 * lump), (0.52, 0.40 - 0.1 * lump)):
                puffs = torch.minimum(puffs, circle(u - offset * half, v, radius * half))
            bar = torch.hypot((u.abs() - 0.8 * half).clamp(min=0), v - 0.1 * half) - 0.2 * half
            cloud = torch.minimum(torch.maximum(puffs, v - 0.2 * half), bar)
            under = ((v + 0.3 * half) / (0.6 * half)).clamp(0, 1).unsqueeze(1)
            colour = lit.lerp(self.middle.lerp(self.glow, 0.35), 0.7 * under)
            thick = 0.92 * rise(cover_, 0.04 + 0.12 * k, 0.5 + 0.15 * k)
            over(canvas, colour, (thick * cover(cloud, 3.2)).unsqueeze(1))

    def ridge_tops(self) -> list[tuple[Tensor, tuple]]:
        """Upper edge [batch, 1, width] and wave of each ridge, far to near."""
        n, land = self.noise, self.f["land"][:, None, None]
        tops = []
        for k in range(3):
            a, b, c = ((0.31 * k + 0.2 * i + 0.55 * (n[:, 6 * k + i] - 0.5)) for i in range(3))
            length = 52 + 12 * n[:, 6 * k + 3] + 8 * k
            peaks = (
                0.66 * triangle_wave(self.x / length + a)
                + 0.26 * triangle_wave(self.x / (0.43 * length) + b)
                + 0.08 * triangle_wave(self.x / (0.21 * length) + c)
            )
            waves = 0.5 + 0.3 * torch.sin(self.x * (9 / length) + 6.28 * a) + 0.2 * torch.sin(
                self.x * (15 / length) + 6.28 * b
            )  # fmt: skip
            # Mountains are sharp, dunes and islands round; what is nearer is rounder and lower.
            sharp = torch.where(land == SEA, 0.15, torch.where(land == DESERT, 0.3, 0.9)) - 0.3 * k
            shape = waves.lerp(peaks, sharp.clamp(0, 1))
            height = (44 - 12 * k) * self.f["ridges"] * (0.8 + 0.4 * n[:, 6 * k + 4])
            height = torch.where(land == SEA, 0.7 * height, height)
            shape = torch.where(land == SEA, (shape - 0.4) * 1.5, shape)
            tops.append((self.f["horizon"] - height * shape + 2, (length, a, b)))
        return tops

    def paint_ridges(self, canvas: Tensor) -> None:
        """Aerial perspective: the farther a ridge, the more it takes the colour of the haze."""
        rows = self.y.flatten() < self.f["horizon"].max() + 4  # below, the land hides them
        y, canvas = self.y[:, rows], canvas[:, :, : int(rows.sum())]
        rock = palette.ridge(self.f["land"]) * self.tint
        rock = rock.lerp(self.shade, 0.25)
        for k, (top, (length, a, b)) in enumerate(self.ridge_tops()):
            depth = y - top
            far = (0.66, 0.44, 0.22)[k] + 0.25 * self.mist
            fade = (depth / (self.f["horizon"] - top + 8).clamp(min=8)).clamp(0, 1)
            colour = rock.lerp(self.haze, (far + (0.95 - far) * 0.8 * fade**1.5).unsqueeze(1))
            # Flanks lean outwards as they come down; those that face the light are lit.
            side = torch.tanh((self.light_x - self.x) / 24)
            lean = self.x + 0.22 * depth
            flank = -torch.cos(6.28 * (lean / length + a)) + 0.6 * torch.sin(6.28 * (lean / (0.43 * length) + b))
            lit = 0.08 * side * flank * (1 - depth / 34).clamp(0, 1)
            line = 20 * self.f["snow"] - 2 + 4 * triangle_wave(self.x / 9 + k * 0.3)
            cap = cover(depth - line, 2.0) * rise(self.f["snow"], 0.0, 0.25) * (0.8, 0.62, 0.42)[k]
            colour = colour.lerp(self.tint.clamp(max=1).lerp(self.haze, 0.35 * far.unsqueeze(1)), cap.unsqueeze(1))
            colour = colour * (1 + lit.unsqueeze(1))
            over(canvas, colour, cover(-depth, self.pixel).unsqueeze(1))

    def paint_land(self, canvas: Tensor) -> None:
        """Rolling bands, each lit along its crest; a pale one behind, a deep one in front."""
        f, n = self.f, self.noise
        far, near = palette.ground(f["land"], False), palette.ground(f["land"], True)
        dune = (f["land"] == DESERT)[:, None, None]
        for k in range(4):
            a, b, c = (n[:, 34 + 3 * k + i] for i in range(3))
            level = f["horizon"] + (132 - f["horizon"]) * (0.0, 0.16, 0.42, 0.74)[k]
            phase = self.x * (0.030 + 0.022 * a - 0.004 * k) + 3.5 * b + 2.1 * k
            swing = torch.sin(phase) + torch.where(
                dune, 0.35 * torch.sin(2 * phase + 0.9), 0.25 * torch.sin(2.3 * phase + 3 * c)
            )
            top = level + (1.6, 3.0, 4.6, 6.0)[k] * swing
            depth = (self.y - top) / 30
            paint = far.lerp(near, (0.08, 0.34, 0.64, 0.92)[k]) * self.tint
            paint = paint.lerp(self.haze, (0.44, 0.22, 0.08, 0.0)[k])
            # The side that falls away from the light lies in shadow, most of all on dunes.
            lee = torch.tanh((self.x - self.light_x) / 24) * torch.cos(phase)
            shadow = (0.30 * depth + torch.where(dune, 0.16, 0.08) * lee * (1 - depth)).clamp(-0.1, 0.7)
            colour = paint.lerp(paint * 0.55 + 0.35 * self.shade, shadow.unsqueeze(1))
            crest = 0.34 * torch.exp(-((depth * 7.5).clamp(min=0) ** 2))
            colour = colour.lerp(paint.lerp(self.glow, 0.5), crest.unsqueeze(1))
            over(canvas, colour, cover(-(self.y - top), self.pixel).unsqueeze(1))

    def paint_sea(self, canvas: Tensor) -> None:
        """The sky, mirrored and darkened, under swell; below sun and moon a road of light."""
        f = self.f
        below = (self.y - f["horizon"]).clamp(min=0)
        far, near = palette.ground(f["land"], False), palette.ground(f["land"], True)
        mirrored = self.sky_gradient(1 - 1.25 * below / f["horizon"])
        near_weight = (below / 62).clamp(0, 1).unsqueeze(1)
        water = far.lerp(near, near_weight) * self.tint
        colour = mirrored.lerp(water, 0.30 + 0.42 * near_weight)
        # Swell: crests crowd towards the horizon, where they are too fine to draw and fade instead.
        row = torch.log1p(below / 7)
        sway = 0.5 * torch.sin(self.x * 0.06 + 3 * self.noise[:, 32] + 3 * row)
        swell = torch.sin(10 * row + 2.2 * sway) * (below / 14).clamp(0, 1)
        colour = colour * (1 + 0.05 * swell.unsqueeze(1))
        width = 6.0 + 0.2 * below
        for x, strength in ((self.sun_x, self.day), (self.moon_x, 0.8 * self.dark)):
            road = torch.exp(-(((self.x - x) / width) ** 2)) * (0.65 + 0.35 * swell)
            strength = strength * (0.9 - 0.3 * self.clouds - 0.45 * self.mist) * torch.exp(-below / 48)
            colour = colour.lerp(self.sun.lerp(self.glow, 0.45), (road * strength).unsqueeze(1))
        for k, (top, _) in enumerate(self.ridge_tops()):
            depth = 2 * f["horizon"] - self.y - 0.8 * (top - 2) - 0.2 * f["horizon"] + 0.6 * swell
            shadow = cover(-depth, 3.0) * (0.10, 0.14, 0.20)[k] * torch.exp(-below / 16)
            colour = colour.lerp(self.shade, shadow.unsqueeze(1))
        over(canvas, colour, cover(-(self.y - f["horizon"]), self.pixel).unsqueeze(1))

    def paint_mist(self, canvas: Tensor, amount: float) -> None:
        """Banks of mist about the horizon; `amount` is how thick, 0 to 1."""
        n, f = self.noise, self.f["horizon"]
        colour = self.horizon_light.lerp(self.middle, 0.25)
        drift = 3.5 * torch.sin(self.x * 0.05 + 3 * n[:, 46]) + 2 * torch.sin(self.x * 0.11 + 3 * n[:, 47])
        bank = sum(
            share * torch.exp(-(((self.y - f - offset - drift) / depth) ** 2))
            for offset, depth, share in ((-14, 12, 0.55), (2, 14, 0.85), (24, 13, 0.4))
        )
        over(canvas, colour, (amount * self.mist * bank.clamp(max=1)).unsqueeze(1))

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
        self.paint_mist(canvas, 0.9)
        return canvas

    def only(self, rows: Tensor) -> "Landscape":
        """The same backdrop for some of the scenes."""
        return Landscape({k: v[rows] for k, v in self.f.items()}, self.x, self.y, self.pixel)
