"""Postcards without end: pictures, captions and scenes, drawn as they are asked for."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from recipes.postcards.world.captions import caption
from recipes.postcards.world.render import render
from recipes.postcards.world.scene import Scene, random_scene, random_scenes

HELD_OUT = 1 << 40
"""Seed of the scenes that no training draws: training seeds its scenes with 31-bit numbers."""


@dataclass(frozen=True)
class Postcard:
    """A picture with RGB in [0, 1], a caption that leaves things out, and the scene behind both."""

    picture: Float[Tensor, "3 size size"]
    caption: str
    scene: Scene


def postcards(
    seed: int, batch_size: int = 16, size: int = 128, device: torch.device | str = "cpu"
) -> Iterator[Postcard]:
    """Streams postcards; the same seed gives the same stream, whatever the batch size.

    Args:
        seed: Of scenes and captions.
        batch_size: How many are drawn at a time; 16 to 32 are fastest on a CPU.
        size: Side of the pictures in pixels.
        device: Where to draw.

    Yields:
        One postcard after the other, without end.
    """
    scenes, rng = random_scenes(seed), random.Random(seed + 1)
    while True:
        batch = list(itertools.islice(scenes, batch_size))
        for scene, picture in zip(batch, render(batch, size, device), strict=True):
            yield Postcard(picture, caption(scene, rng), scene)


def training_scenes(generator: torch.Generator, count: int) -> list[Scene]:
    """Fresh scenes for one training step."""
    rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
    return [random_scene(rng) for _ in range(count)]


def held_out_scenes(count: int) -> list[Scene]:
    """Scenes for evaluation, always the same."""
    return list(itertools.islice(random_scenes(HELD_OUT), count))


def held_out_prompts(count: int) -> list[str]:
    """Captions of the held-out scenes, always the same."""
    rng = random.Random(HELD_OUT + 1)
    return [caption(scene, rng) for scene in held_out_scenes(count)]
