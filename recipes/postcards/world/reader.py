"""A small network that reads the factors behind a postcard back out of any picture.

It stands in for CLIP score (does the picture say what the prompt says), gives the features for FID, measures edits and
drags, and counts things: a picture with two boats, or with half of one, is told from a picture with one.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from recipes.postcards.world.captions import agrees
from recipes.postcards.world.scene import EXTENT, LANDS, THINGS

SIZES = {"land": len(LANDS), "thing": len(THINGS), "count": 3, "hour": 2, "paint": 2, "weather": 2, "size": 1}
"""Outputs of each head: logits of the kinds and of the number of things, points on a circle or disc, and numbers."""


@dataclass(frozen=True)
class Reading:
    """What the Reader sees in one picture.

    Attributes:
        land, thing: The kinds.
        count: Number of things: 0, 1, or 2 for more than one whole thing.
        hour: Time of day, 0 up to 24.
        hue, lightness: Paint of the thing, as in `Scene`; a guess where there is no thing.
        clouds, mist: Cover and density, about 0 to 1.
        x, y, size: Middle and height of the main thing, in pixels of a 128-pixel picture.
    """

    land: str
    thing: str
    count: int
    hour: float
    hue: float
    lightness: float
    clouds: float
    mist: float
    x: float
    y: float
    size: float

    def agrees(self, stated: dict[str, str]) -> dict[str, bool]:
        """Whether the picture shows what a prompt states (see `captions.stated`), topic by topic.

        Near the border of a region the benefit of the doubt is given: the Reader's own error there is no fault of the
        picture's.
        """
        return {topic: agrees(self, topic, name) for topic, name in stated.items()}


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Reader(nn.Module):
    """About 0.45 million parameters; a picture costs it a few milliseconds.

    `forward` gives features for FID, [batch, 128], from pictures in [0, 1] of any size; `read` gives readings.
    """

    num_features = 128

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 6, stride=4, padding=1), _Residual(32))
        self.deep = nn.Sequential(
            nn.Conv2d(32, 64, 4, stride=2, padding=1), _Residual(64),
            nn.Conv2d(64, 96, 4, stride=2, padding=1), _Residual(96),
        )  # fmt: skip
        self.where = nn.Sequential(
            nn.Conv2d(32 + 96, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.SiLU(), nn.Conv2d(32, 1, 3, padding=1)
        )
        self.features = nn.Linear(96 + 96 + 32, self.num_features)
        self.heads = nn.ModuleDict({name: nn.Linear(self.num_features, size) for name, size in SIZES.items()})

    def _look(self, pictures: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, Tensor]:
        """Features [batch, 128] and the place of the main thing [batch, 2] in pixels of 128."""
        side = int(EXTENT)
        if pictures.shape[-2:] != (side, side):
            pictures = F.interpolate(pictures, (side, side), mode="bilinear", antialias=True)
        near = self.stem(pictures * 2 - 1)
        deep = self.deep(near)
        wide = torch.cat([near, F.interpolate(deep, near.shape[-2:], mode="bilinear")], 1)
        heat = self.where(wide).flatten(2).softmax(-1).unflatten(-1, near.shape[-2:])
        # The place is the mean of the heat map; what stands there is read off the same place.
        at = (torch.arange(near.shape[-1], device=heat.device) + 0.5) * EXTENT / near.shape[-1]
        place = torch.stack([(heat.sum(-2) * at).sum(-1), (heat.sum(-1) * at).sum(-1)], -1).squeeze(1)
        thing = (near * heat).sum((-2, -1))
        # Deviations beside means: two things spread what one thing concentrates.
        return self.features(torch.cat([deep.mean((-2, -1)), deep.std((-2, -1)), thing], 1)), place

    def forward(self, pictures: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 128"]:
        return self._look(pictures)[0]

    def outputs(self, pictures: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """Outputs of each head, [batch, size], and the "place" of the main thing, [batch, 2], in pixels of 128."""
        features, place = self._look(pictures)
        return {name: head(F.silu(features)) for name, head in self.heads.items()} | {"place": place}

    @torch.no_grad()
    def read(self, pictures: Float[Tensor, "batch 3 height width"]) -> list[Reading]:
        """Reads pictures with RGB in [0, 1], of any size, and returns one reading for each."""
        found = self.outputs(pictures.to(next(self.parameters()).device).float())
        land, thing, count = (found[name].argmax(-1).tolist() for name in ("land", "thing", "count"))
        rows = {name: found[name].tolist() for name in ("hour", "paint", "weather", "size", "place")}
        return [
            Reading(
                LANDS[land[i]], THINGS[thing[i]], count[i],
                _angle(rows["hour"][i]) / 15 % 24,
                _angle(rows["paint"][i]), 1 - min(1.0, math.hypot(*rows["paint"][i])),
                *rows["weather"][i], *rows["place"][i], rows["size"][i][0] * 64,
            )
            for i in range(len(pictures))
        ]  # fmt: skip


def _angle(point: list[float]) -> float:
    """Angle of (cosine, sine) in degrees, 0 up to 360."""
    return math.degrees(math.atan2(point[1], point[0])) % 360
