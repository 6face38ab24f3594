"""Trains the Reader on renders that are blurred, tinted and grained, and on composites that show two things."""

import dataclasses
import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from safetensors.torch import save_file
from torch import Tensor

from recipes.postcards.fit import fit
from recipes.postcards.muon import optimizers
from recipes.postcards.world.captions import names
from recipes.postcards.world.reader import Reader
from recipes.postcards.world.render import render, thing_mask
from recipes.postcards.world.scene import LANDS, THINGS, Scene, random_scene
from recipes.postcards.world.stream import held_out_scenes, training_scenes
from recipes.postcards.world.styles import STYLES
from smoothnb._utils.files import atomic_write


@dataclass(frozen=True)
class ReaderConfig:
    """Settings of the Reader's training. The defaults are those of the shipped one.

    Attributes:
        output: Folder for the Reader and its checkpoint.
        style: Style of the pictures, one of `STYLES`.
        doubled: Share of the pictures that show two things.
        steps: Optimizer steps.
        batch_size: Pictures a step, all of them new.
        learning_rate: Peak learning rate of AdamW.
        muon_learning_rate: Peak learning rate of Muon.
        seed: Seed of weights and data.
        device: cpu, cuda or mps.
    """

    output: Path = Path("runs/reader")
    style: str = "plain"
    doubled: float = 0.15
    steps: int = 3000
    batch_size: int = 48
    learning_rate: float = 2e-3
    muon_learning_rate: float = 0.02
    seed: int = 0
    device: str = "cpu"


def doubled(scene: Scene, rng: random.Random) -> Scene | None:
    """The same landscape with a second thing at another place, or None where there is no first one or no room."""
    other = random_scene(rng, thing=scene.thing, land=scene.land) if scene.thing != "none" else None
    if other is None or abs(other.x - scene.x) < 0.6 * scene.size:
        return None
    return dataclasses.replace(scene, x=other.x, y=other.y, size=other.size, hue=other.hue, lightness=other.lightness)


def pictures_of(
    scenes: list[Scene], style: str, rng: random.Random, share: float, device: str
) -> tuple[Tensor, Tensor]:
    """Renders scenes, some with a second thing laid over: pictures [batch, 3, 128, 128], number of things [batch]."""
    pictures = render(scenes, device=device)
    count = torch.tensor([int(scene.thing != "none") for scene in scenes])
    seconds = [doubled(scene, rng) if rng.random() < share else None for scene in scenes]
    rows = [i for i, scene in enumerate(seconds) if scene is not None]
    if rows:
        others = [seconds[i] for i in rows]
        mask = thing_mask(others, device=device)
        pictures[rows] = pictures[rows] * (1 - mask) + render(others, device=device) * mask
        count[rows] = 2
    return STYLES[style](pictures), count


def degraded(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures blurred, tinted and grained at random: the Reader must not mind what a decoder does to them."""
    b = len(pictures)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(pictures.device)

    scale = 0.4 + 0.6 * rand(1).item()
    small = F.interpolate(pictures, scale_factor=scale, mode="bilinear", antialias=True)
    soft = F.interpolate(small, pictures.shape[-2:], mode="bilinear")
    pictures = pictures.lerp(soft, (rand(b, 1, 1, 1) < 0.6).float())
    pictures = pictures * (0.95 + 0.1 * rand(b, 3, 1, 1)) + 0.03 * (rand(b, 1, 1, 1) - 0.5)
    grain = torch.randn(pictures.shape, generator=generator).to(pictures.device)
    return pictures + 0.04 * rand(b, 1, 1, 1) * grain


def targets(scenes: list[Scene], device: str) -> dict[str, Tensor]:
    """What each head should say."""

    def turn(angle: float, radius: float = 1.0) -> tuple[float, float]:
        return radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))

    return {
        "land": torch.tensor([LANDS.index(s.land) for s in scenes]),
        "thing": torch.tensor([THINGS.index(s.thing) for s in scenes]),
        "hour": torch.tensor([turn(15 * s.hour) for s in scenes]),
        "paint": torch.tensor([turn(s.hue, 1 - s.lightness) for s in scenes]),
        "weather": torch.tensor([(s.clouds, s.mist) for s in scenes]),
        "size": torch.tensor([[s.size / 64] for s in scenes]),
        "place": torch.tensor([(s.x, s.y) for s in scenes]),
    }


WEIGHTS = {
    "land": 1.0,
    "thing": 1.0,
    "count": 1.0,
    "hour": 4.0,
    "paint": 4.0,
    "weather": 4.0,
    "size": 2.0,
    "place": 0.05,
}
OF_ONE_THING = {"thing", "paint", "size", "place"}
"""What is only asked of pictures that show exactly one thing; of the kind, of those that show at most one."""


def train(config: ReaderConfig) -> Reader:
    """Trains the Reader and saves it in half precision; called again after a stop, it resumes."""
    torch.manual_seed(config.seed)
    reader = Reader().to(config.device)

    def loss(generator: torch.Generator, step: int) -> Tensor:
        scenes = training_scenes(generator, config.batch_size)
        rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
        pictures, count = pictures_of(scenes, config.style, rng, config.doubled, config.device)
        found = reader.outputs(degraded(pictures, generator))
        wanted = {name: value.to(config.device) for name, value in targets(scenes, config.device).items()}
        wanted["count"] = count = count.to(config.device)
        total = 0.0
        for name, value in wanted.items():
            asked = count < 2 if name == "thing" else count == 1 if name in OF_ONE_THING else count >= 0
            if value.ndim == 1:
                wrong = F.cross_entropy(found[name], value, reduction="none")
            elif name == "place":
                wrong = (found[name] - value).abs().sum(1)
            else:
                wrong = (found[name] - value).square().sum(1)
            total = total + WEIGHTS[name] * wrong[asked].mean()
        return total

    def report(step: int) -> None:
        found = accuracy(reader.eval(), held_out_scenes(512), config.style)
        print(f"step {step}:", {k: round(v, 4) for k, v in found.items()}, flush=True)
        reader.train()

    config.output.mkdir(parents=True, exist_ok=True)
    fit(
        reader, loss, steps=config.steps, ema_decay=0.995, seed=config.seed,
        optimizers=optimizers(reader, config.learning_rate, config.muon_learning_rate),
        checkpoint=config.output / "checkpoint.pt", on_save=report,
    )  # fmt: skip
    with atomic_write(config.output / "reader.safetensors") as partial:
        save_file({k: v.half().contiguous() for k, v in reader.state_dict().items()}, partial)
    return reader


@torch.no_grad()
def accuracy(reader: Reader, scenes: list[Scene], style: str = "plain", batch_size: int = 32) -> dict[str, float]:
    """How well the Reader reads renders of known scenes.

    Returns:
        Share of the pictures whose land, thing and number of things are read right, and of the names of light,
        weather and colour that it agrees with; median error of hours and of hues (of paints that are not pale, in
        degrees), mean error of places in pixels.
    """
    rng = random.Random(0)
    rows, named = [], []
    for i in range(0, len(scenes), batch_size):
        batch = scenes[i : i + batch_size]
        pictures, count = pictures_of(batch, style, rng, 0.3, "cpu")
        rows += zip(batch, count.tolist(), reader.read(pictures), strict=True)
    single = [(s, r) for s, n, r in rows if n == 1]
    named = [(topic, ok) for s, n, r in rows if n < 2 for topic, ok in r.agrees(names(s)).items()]

    def share(values) -> float:
        values = list(values)
        return sum(values) / len(values)

    def median(values) -> float:
        return torch.tensor(list(values)).median().item()

    result = {
        "land": share(s.land == r.land for s, _, r in rows),
        "thing": share(s.thing == r.thing for s, n, r in rows if n < 2),
        "count": share(n == r.count for _, n, r in rows),
    }
    result |= {topic: share(ok for t, ok in named if t == topic) for topic in ("time", "weather", "colour")}
    result["hour_error"] = median(abs((s.hour - r.hour + 12) % 24 - 12) for s, _, r in rows)
    result["hue_error"] = median(abs((s.hue - r.hue + 180) % 360 - 180) for s, r in single if s.lightness < 0.6)
    result["place_error"] = share(math.hypot(s.x - r.x, s.y - r.y) for s, r in single)
    return result


if __name__ == "__main__":
    train(tyro.cli(ReaderConfig))
