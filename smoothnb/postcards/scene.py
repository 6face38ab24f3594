"""What a postcard shows: every factor behind a picture, and how factors are drawn at random."""

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass

TIMES = ("dawn", "noon", "sunset", "night")
LANDS = ("meadow", "desert", "snow", "sea")
WEATHERS = ("clear", "cloudy", "misty")
THINGS = ("none", "house", "pine", "sailboat", "balloon", "lighthouse")
COLOURS = ("red", "yellow", "green", "blue", "purple", "white")

FACTORS = {"time": TIMES, "land": LANDS, "weather": WEATHERS, "thing": THINGS, "colour": COLOURS}
"""The discrete factors that captions name and the Reader reads."""

EXTENT = 128.0
"""Side of the square world. One unit is one pixel of a picture of native size."""


@dataclass(frozen=True)
class Scene:
    """One postcard, whole: rendering it twice gives the same picture.

    Lengths and places are in pixels of the 128 x 128 picture, x to the right and y down.

    Attributes:
        time: One of `TIMES`; sets the light.
        land: One of `LANDS`; a sailboat needs the sea.
        weather: One of `WEATHERS`.
        thing: One of `THINGS`, the main thing.
        colour: One of `COLOURS`, the thing's; it means nothing when there is no thing.
        x, y: The middle of the thing.
        size: The thing's height.
        sun_x, sun_y: The middle of the sun, or of the moon at night.
        horizon: Height of the horizon.
        ridges: How many ridges stand behind the land, 0 to 3.
        seed: Decides the shapes of ridges, hills, clouds and stars; below 2**31.
    """

    time: str = "noon"
    land: str = "meadow"
    weather: str = "clear"
    thing: str = "none"
    colour: str = "red"
    x: float = 64.0
    y: float = 72.0
    size: float = 40.0
    sun_x: float = 88.0
    sun_y: float = 30.0
    horizon: float = 72.0
    ridges: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for factor, values in FACTORS.items():
            if getattr(self, factor) not in values:
                raise ValueError(f"expected {factor} to be one of {', '.join(values)}; got {getattr(self, factor)!r}")
        if self.thing == "sailboat" and self.land != "sea":
            raise ValueError(f"a sailboat needs land='sea'; got land={self.land!r}")
        if not 0 <= self.ridges <= 3:
            raise ValueError(f"expected 0 to 3 ridges; got {self.ridges}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"expected a seed from 0 to 2**31 - 1; got {self.seed}")

    @property
    def base(self) -> float:
        """Where the thing meets the ground: its lower edge, in pixels from the top."""
        return self.y + self.size / 2


SUN_HEIGHT = {"dawn": (0.62, 0.92), "noon": (0.18, 0.38), "sunset": (0.66, 0.96), "night": (0.20, 0.50)}
"""Height of the sun or moon as a fraction of the way down from the top edge to the horizon."""


def random_scene(rng: random.Random, **fixed) -> Scene:
    """Draws a scene: discrete factors uniformly, places where a painter would put them.

    Args:
        rng: Source of randomness; the same state gives the same scene.
        **fixed: Fields of `Scene` that are given, not drawn.

    Returns:
        The scene. Where the thing is a sailboat, the land is the sea, unless `land` is fixed, in which case
        the thing is another one.
    """
    time, weather, colour = (fixed.get(k) or rng.choice(FACTORS[k]) for k in ("time", "weather", "colour"))
    things = [t for t in THINGS if t != "sailboat" or fixed.get("land", "sea") == "sea"]
    thing = fixed.get("thing") or rng.choice(things)
    land = fixed.get("land") or ("sea" if thing == "sailboat" else rng.choice(LANDS))
    horizon = fixed.get("horizon", rng.uniform(62, 82))
    if thing == "balloon":
        size = rng.uniform(36, 50)
        y = rng.uniform(size / 2 + 5, horizon - size / 2 + 8)
    else:
        near = rng.random()
        size = 32 + 14 * near + rng.uniform(0, 6)
        y = horizon + 10 + near * (114 - horizon - 10) - size / 2
    x = rng.uniform(26, 102)
    # The sun keeps away from the thing, so that both can be seen.
    sun_x = (x + rng.choice((-1, 1)) * rng.uniform(26, 60)) % 128
    low, high = SUN_HEIGHT[time]
    drawn = dict(
        time=time, land=land, weather=weather, thing=thing, colour=colour, x=x, y=y, size=size, horizon=horizon,
        sun_x=min(max(sun_x, 12.0), 116.0), sun_y=horizon * rng.uniform(low, high),
        ridges=rng.choice((0, 1, 2, 2, 3, 3)), seed=rng.randrange(2**31),
    )  # fmt: skip
    return Scene(**(drawn | fixed))


def random_scenes(seed: int, **fixed) -> Iterator[Scene]:
    """Streams scenes without end; the same seed gives the same stream."""
    rng = random.Random(seed)
    while True:
        yield random_scene(rng, **fixed)


def edit(scene: Scene, **changes) -> Scene:
    """The same scene with some factors changed: the true answer to an edit.

    Args:
        scene: The scene before.
        **changes: Fields of `Scene` and their new values.

    Returns:
        The scene after. When the time changes and the sun's place is not given, the sun moves to a height that
        fits the new time.

    Raises:
        ValueError: If the changed scene cannot be (a sailboat on a meadow).
    """
    if "time" in changes and "sun_y" not in changes:
        low, high = SUN_HEIGHT[changes["time"]]
        changes["sun_y"] = scene.horizon * (low + high) / 2
    return dataclasses.replace(scene, **changes)
