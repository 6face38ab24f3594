"""A small network that reads the factors and the place of the main thing back out of any picture.

It stands in for CLIP score (does the picture say what the prompt says), gives the features for FID, and measures
edits and drags.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from smoothnb._utils.files import atomic_write, data_folder, read_weights
from smoothnb.postcards.fit import fit
from smoothnb.postcards.muon import optimizers
from smoothnb.postcards.scene import EXTENT, FACTORS, Scene, random_scenes
from smoothnb.postcards.stream import held_out_scenes
from smoothnb.postcards.styles import render_in


@dataclass(frozen=True)
class Reading:
    """What the Reader sees in one picture.

    Attributes:
        factors: The value of each discrete factor of `Scene`; the colour is a guess where there is no thing.
        x, y: The middle of the main thing, in pixels of a 128-pixel picture.
    """

    factors: dict[str, str]
    x: float
    y: float

    def agrees(self, stated: dict[str, str]) -> dict[str, bool]:
        """Of each factor that a prompt states (see `captions.stated`): whether the picture shows it."""
        return {factor: self.factors[factor] == value for factor, value in stated.items()}


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
        self.features = nn.Linear(96 + 32, self.num_features)
        self.heads = nn.ModuleDict({name: nn.Linear(self.num_features, len(v)) for name, v in FACTORS.items()})

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
        return self.features(torch.cat([deep.mean((-2, -1)), thing], 1)), place

    def forward(self, pictures: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 128"]:
        return self._look(pictures)[0]

    def logits(self, pictures: Float[Tensor, "batch 3 height width"]) -> tuple[dict[str, Tensor], Tensor]:
        """Logits of each factor, and the place of the main thing, [batch, 2] as (x, y) in pixels of 128."""
        features, place = self._look(pictures)
        return {name: head(F.silu(features)) for name, head in self.heads.items()}, place

    @torch.no_grad()
    def read(self, pictures: Float[Tensor, "batch 3 height width"]) -> list[Reading]:
        """Reads pictures.

        Args:
            pictures: RGB in [0, 1], of any size.

        Returns:
            One reading for each.
        """
        device = next(self.parameters()).device
        logits, place = self.logits(pictures.to(device).float())
        best = {name: scores.argmax(-1).tolist() for name, scores in logits.items()}
        return [
            Reading({name: FACTORS[name][best[name][i]] for name in best}, *place[i].tolist())
            for i in range(len(pictures))
        ]


def load_reader(path: Path | None = None, device: torch.device | str = "cpu", style: str = "plain") -> Reader:
    """The trained Reader that comes with the package for a style, or one from a file of the same shape."""
    reader = Reader()
    folder = data_folder() if style == "plain" else data_folder() / f"postcard-{style}"
    path = path or folder / "reader.safetensors"
    weights = {name: value.float() for name, value in read_weights(path)[0].items()}
    if {name: value.shape for name, value in weights.items()} != {n: v.shape for n, v in reader.state_dict().items()}:
        raise ValueError(f"{path} holds no Reader: expected one that `smoothnb train-postcard reader` wrote")
    reader.load_state_dict(weights)
    return reader.to(device).eval().requires_grad_(False)


@dataclass(frozen=True)
class ReaderConfig:
    """Settings of the Reader's training. The defaults are those of the shipped one.

    Attributes:
        output: Folder for the Reader and its checkpoint.
        style: Of the pictures, one of `STYLES`.
        start: File of a Reader to fine-tune.
        pool: Renders that are drawn from, each time otherwise worn.
        steps: Optimizer steps.
        batch_size: Pictures a step.
        learning_rate: Of AdamW, at its height.
        muon_learning_rate: Of Muon, at its height.
        seed: Of weights and data.
        device: cpu, cuda or mps.
    """

    output: Path = Path("runs/reader")
    style: str = "plain"
    start: Path | None = None
    pool: int = 8_000
    steps: int = 700
    batch_size: int = 48
    learning_rate: float = 2e-3
    muon_learning_rate: float = 0.02
    seed: int = 0
    device: str = "cpu"


def worn(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures blurred, tinted and grained at random: the Reader must not mind what a decoder does to them."""
    b = len(pictures)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(pictures.device)

    scale = 0.4 + 0.6 * rand(1).item()
    small = F.interpolate(pictures, scale_factor=scale, mode="bilinear", antialias=True)
    soft = F.interpolate(small, pictures.shape[-2:], mode="bilinear")
    pictures = pictures.lerp(soft, (rand(b, 1, 1, 1) < 0.6).float())
    pictures = pictures * (0.93 + 0.14 * rand(b, 3, 1, 1)) + 0.04 * (rand(b, 1, 1, 1) - 0.5)
    grain = torch.randn(pictures.shape, generator=generator).to(pictures.device)
    return pictures + 0.04 * rand(b, 1, 1, 1) * grain


def train(config: ReaderConfig) -> Reader:
    """Trains the Reader and saves it in half precision.

    Args:
        config: The settings. Called again after a stop, it goes on where it was.

    Returns:
        The trained Reader.
    """
    torch.manual_seed(config.seed)
    reader = Reader() if config.start is None else load_reader(config.start).requires_grad_(True)
    reader.to(config.device)
    stream = random_scenes(config.seed)
    scenes = [next(stream) for _ in range(config.pool)]
    pool = torch.cat(
        [(render_in(config.style, scenes[i : i + 32]) * 255).round().byte() for i in range(0, len(scenes), 32)]
    )
    labels = {name: torch.tensor([v.index(getattr(s, name)) for s in scenes]) for name, v in FACTORS.items()}
    places = torch.tensor([(s.x, s.y) for s in scenes])

    def loss(generator: torch.Generator, step: int) -> Tensor:
        rows = torch.randint(len(pool), (config.batch_size,), generator=generator)
        pictures = worn(pool[rows].to(config.device).float() / 255, generator)
        logits, place = reader.logits(pictures)
        there = (labels["thing"][rows] != 0).to(config.device)
        total = 0.05 * (place - places[rows].to(config.device)).abs().sum(1)[there].mean()
        for name, scores in logits.items():
            wrong = F.cross_entropy(scores, labels[name][rows].to(config.device), reduction="none")
            total = total + (wrong[there] if name == "colour" else wrong).mean()
        return total

    def report(step: int) -> None:
        found = accuracy(reader, held_out_scenes(512), style=config.style)
        print(f"step {step}:", {k: round(v, 4) for k, v in found.items()}, flush=True)

    config.output.mkdir(parents=True, exist_ok=True)
    fit(
        reader, loss, steps=config.steps, ema_decay=0.995, seed=config.seed,
        optimizers=optimizers(reader, config.learning_rate, config.muon_learning_rate),
        checkpoint=config.output / "checkpoint.pt", on_save=report,
    )  # fmt: skip
    weights = {k: v.half().contiguous() for k, v in reader.state_dict().items()}
    with atomic_write(config.output / "reader.safetensors") as partial:
        save_file(weights, partial)
    return reader


def accuracy(reader: Reader, scenes: Sequence[Scene], batch_size: int = 32, style: str = "plain") -> dict[str, float]:
    """How well the Reader reads renders of known scenes.

    Args:
        reader: The Reader.
        scenes: The scenes to render and read.
        batch_size: Pictures at a time.
        style: To render them in.

    Returns:
        Of each factor the share read right (colour: of the scenes that have a thing), and `place`: the mean distance
        between the thing and where it is read, in pixels of 128.
    """
    batches = (scenes[i : i + batch_size] for i in range(0, len(scenes), batch_size))
    readings = [reading for batch in batches for reading in reader.read(render_in(style, batch))]
    pairs = list(zip(scenes, readings, strict=True))
    with_thing = [(s, r) for s, r in pairs if s.thing != "none"]
    result = {}
    for name in FACTORS:
        asked = with_thing if name == "colour" else pairs
        result[name] = sum(getattr(s, name) == r.factors[name] for s, r in asked) / len(asked)
    result["place"] = sum(((s.x - r.x) ** 2 + (s.y - r.y) ** 2) ** 0.5 for s, r in with_thing) / len(with_thing)
    return result
