"""What a postcard shows: every factor behind a picture, and how factors are drawn at random.

Kinds (land, thing) are discrete. Everything else is continuous and drawn from one hump, so that what lies between two
postcards is a postcard: a smooth map from noise to pictures exists.
"""

import dataclasses
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

LANDS = ("meadow", "desert", "snow", "sea")
THINGS = ("none", "house", "pine", "sailboat", "balloon", "lighthouse")
KINDS = {"land": LANDS, "thing": THINGS}
"""The discrete factors."""

EXTENT = 128.0
"""Side of the square world. One unit is one pixel of a picture of native size."""

SUNRISE, SUNSET = 5.6, 19.2
MOONRISE, MOONSET = 19.6, 28.2


@dataclass(frozen=True)
class Scene:
    """One postcard, whole: rendering it twice gives the same picture.

    Lengths and places are in pixels of the 128 x 128 picture, x to the right and y down.

    Attributes:
        hour: Time of day, 0 up to 24; sets the light and the place of sun and moon.
        land: One of `LANDS`; a sailboat needs the sea.
        clouds: Cloud cover, 0 to 1.
        mist: Density of the mist, 0 to 1.
        thing: One of `THINGS`, the main thing.
        hue: Hue of the thing's paint in degrees, 0 up to 360: red 0, yellow 60, green 130, blue 220, purple 285.
        lightness: From pure paint, 0, to white, 1. Hue and lightness are an angle and a distance on a disc whose
            centre is white.
        x, y: The middle of the thing.
        size: The thing's height.
        horizon: Height of the horizon.
        ridges: Height of the ridges behind the land, 0 to 1.
        snow: How far snow reaches down the ridges, 0 to 1.
        seed: Decides the shapes of ridges, hills and clouds; below 2**31.
    """

    hour: float = 12.0
    land: str = "meadow"
    clouds: float = 0.2
    mist: float = 0.0
    thing: str = "none"
    hue: float = 0.0
    lightness: float = 0.1
    x: float = 64.0
    y: float = 78.0
    size: float = 44.0
    horizon: float = 72.0
    ridges: float = 0.6
    snow: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for factor, values in KINDS.items():
            if getattr(self, factor) not in values:
                raise ValueError(f"expected {factor} to be one of {', '.join(values)}; got {getattr(self, factor)!r}")
        if self.thing == "sailboat" and self.land != "sea":
            raise ValueError(f"a sailboat needs land='sea'; got land={self.land!r}")
        for factor, end in {"hour": 24, "hue": 360}.items():
            if not 0 <= getattr(self, factor) < end:
                raise ValueError(f"expected {factor} in [0, {end}); got {getattr(self, factor)}")
        for factor in ("clouds", "mist", "lightness", "ridges", "snow"):
            if not 0 <= getattr(self, factor) <= 1:
                raise ValueError(f"expected {factor} in [0, 1]; got {getattr(self, factor)}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"expected a seed from 0 to 2**31 - 1; got {self.seed}")

    @property
    def base(self) -> float:
        """Where the thing meets the ground: its lower edge, in pixels from the top."""
        return self.y + self.size / 2


def _hump(rng: random.Random, low: float, high: float) -> float:
    """A number between bounds, most often in the middle: Beta(2, 2)."""
    return low + (high - low) * rng.betavariate(2, 2)


def random_scene(rng: random.Random, **fixed) -> Scene:
    """Draws a scene: kinds uniformly, everything continuous from a distribution with one hump.

    Hours run from 3.6 to 23.6. The gap keeps the day a line from first light to deep night: a Gaussian can be mapped
    onto a line without a jump, but not onto a circle.

    Args:
        rng: Source of randomness; the same state gives the same scene.
        **fixed: Fields of `Scene` that are given, not drawn.

    Returns:
        The scene. Where the thing is a sailboat, the land is the sea, unless `land` is fixed, in which case
        the thing is another one.
    """
    things = [t for t in THINGS if t != "sailboat" or fixed.get("land", "sea") == "sea"]
    thing = fixed.get("thing") or rng.choice(things)
    land = fixed.get("land") or ("sea" if thing == "sailboat" else rng.choice(LANDS))
    horizon = fixed.get("horizon", _hump(rng, 62, 82))
    near = rng.betavariate(2, 2)
    if thing == "balloon":
        size = _hump(rng, 42, 56)
        y = _hump(rng, size / 2 + 6, max(size / 2 + 10, horizon - size / 2 + 14))
    else:
        size = 38 + 14 * near + _hump(rng, -3, 5)
        y = horizon + 10 + near * (116 - horizon - 10) - size / 2
    x = rng.gauss(64, 11 if rng.random() < 0.8 else 20)
    snow = _hump(rng, 0.5, 1) if land == "snow" else _hump(rng, -0.4, 0.5)
    drawn = dict(
        hour=rng.uniform(3.6, 23.6), land=land, clouds=rng.betavariate(1.1, 1.4), mist=rng.betavariate(1, 2.5),
        thing=thing, hue=rng.uniform(0, 360) % 360, lightness=1 - math.sqrt(rng.random()),
        x=min(max(x, 22.0), 106.0), y=y, size=size, horizon=horizon, ridges=_hump(rng, 0.1, 1),
        snow=max(snow, 0.0) if land != "desert" else 0.0, seed=rng.randrange(2**31),
    )  # fmt: skip
    return Scene(**(drawn | fixed))


def random_scenes(seed: int, **fixed) -> Iterator[Scene]:
    """Streams scenes without end; the same seed gives the same stream."""
    rng = random.Random(seed)
    while True:
        yield random_scene(rng, **fixed)


def edit(scene: Scene, **changes) -> Scene:
    """Changes some factors of a scene: the true answer to an edit.

    Args:
        scene: The scene before.
        **changes: Fields of `Scene` and their new values.

    Returns:
        The scene after.

    Raises:
        ValueError: If the changed scene cannot be (a sailboat on a meadow).
    """
    return dataclasses.replace(scene, **changes)
