"""Who looks at pictures: the Reader on postcards, networks trained on photographs everywhere else."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from smoothnb._utils import checks
from smoothnb._utils.arguments import checked
from smoothnb._utils.checks import expanded
from smoothnb._utils.files import IMAGE_SUFFIXES, visible_files
from smoothnb.evaluation._reconstruction import lpips_distances
from smoothnb.images import to_pixels
from smoothnb.postcards.captions import stated
from smoothnb.postcards.reader import Reader, load_reader
from smoothnb.postcards.scene import random_scenes
from smoothnb.postcards.styles import STYLES, render_in, style_of

BATCH = 32
HELD_OUT_REAL = (1 << 40) + 1
"""Seed of the renders that FID takes for real: no training, and no other evaluation, draws them."""

Pictures = Float[Tensor, "picture 3 height width"] | Sequence[Image.Image]
"""RGB in [0, 1], or PIL images of one size."""


def _pixels(pictures: Pictures) -> Float[Tensor, "picture 3 height width"]:
    if isinstance(pictures, Tensor):
        return pictures
    return to_pixels(pictures, pictures[0].height, pictures[0].width)


class Judge(ABC):
    """What the measures beside ISTD need of whoever looks at the pictures."""

    features: nn.Module | int
    """Of FID: a network from pictures to vectors, or as many features of Inception, as torchmetrics takes them."""

    @abstractmethod
    def real(self) -> Iterator[Tensor]:
        """Batches of the pictures that FID takes for real."""

    @abstractmethod
    def distances(self, ours: Pictures, theirs: Pictures) -> Float[Tensor, " picture"]:
        """How far pictures seem from each other, pair by pair: the squared distance of `path_lengths`."""

    @abstractmethod
    def adherence(self, pictures: Pictures, prompts: Sequence[str]) -> dict[str, float]:
        """How much of the prompts is on the pictures: in all, and by part where it can tell."""

    @cached_property
    def _metric(self):
        from torchmetrics.image.fid import FrechetInceptionDistance

        metric = FrechetInceptionDistance(feature=self.features, normalize=True, reset_real_features=False)
        for batch in self.real():
            metric.update(batch, real=True)
        return metric

    def fid(self, pictures: Pictures) -> float:
        """Frechet distance of features between pictures and real ones (Heusel et al. 2017; torchmetrics)."""
        self._metric.reset()
        for batch in _pixels(pictures).split(BATCH):
            self._metric.update(batch, real=False)
        return self._metric.compute().item()


class ReaderJudge(Judge):
    """Postcards: the Reader's features, and what it reads beside what the prompt states.

    Args:
        real_count: Renders that FID takes for real.
        reader: The Reader; by default the one that comes with the package, for the style.
        style: Of the renders, one of `STYLES`; other than plain, adherence also says how many pictures have it.
    """

    @checked(real_count=checks.whole(2), reader=checks.of(Reader, "a Reader"), style=checks.text)
    def __init__(self, real_count: int = 2048, reader: Reader | None = None, style: str = "plain"):
        if style not in STYLES:
            raise ValueError(f"expected a style of {', '.join(STYLES)}, got {style!r}")
        self.real_count, self.features, self.style = real_count, reader or load_reader(style=style), style

    def real(self) -> Iterator[Tensor]:
        stream = random_scenes(HELD_OUT_REAL)
        for first in range(0, self.real_count, BATCH):
            yield render_in(self.style, [next(stream) for _ in range(min(BATCH, self.real_count - first))])

    @torch.no_grad()
    def distances(self, ours: Pictures, theirs: Pictures) -> Float[Tensor, " picture"]:
        return (self.features(_pixels(ours)) - self.features(_pixels(theirs))).square().sum(1)

    def adherence(self, pictures: Pictures, prompts: Sequence[str]) -> dict[str, float]:
        """Of what prompts state, the share that the Reader finds in the pictures: over all, and by factor."""
        found = defaultdict(list)
        readings = [reading for batch in _pixels(pictures).split(BATCH) for reading in self.features.read(batch)]
        for reading, prompt in zip(readings, prompts, strict=True):
            for factor, right in reading.agrees(stated(prompt)).items():
                found[factor].append(right)
        every = [right for values in found.values() for right in values]
        if not every:
            raise ValueError("no prompt states anything that the Reader knows: use another judge, or other prompts")
        shares = {"all": sum(every) / len(every)} | {factor: sum(v) / len(v) for factor, v in found.items()}
        if self.style != "plain":
            shares["style"] = style_of(_pixels(pictures)).count(self.style) / len(pictures)
        return shares


class PhotoJudge(Judge):
    """Photographs, as the paper measures: FID on Inception features, LPIPS, CLIP score.

    Their weights are downloaded when they are first needed, and their packages are not installed with smoothnb:
    `pip install torch-fidelity torchvision`.

    Args:
        folder: With the photographs that FID takes for real, such as MS-COCO's val2017.
        size: That they are cropped and resized to, in pixels.
        clip: Of the CLIP score: an id on the hub, or a folder.
    """

    features = 2048

    @checked(clip=checks.text)
    def __init__(self, folder: str | Path, size: int = 512, clip: str = "openai/clip-vit-large-patch14"):
        self.folder, self.size, self.clip = expanded(folder), size, clip
        self._files = [path for path in visible_files(self.folder) if path.suffix.lower() in IMAGE_SUFFIXES]
        if not self._files:
            raise ValueError(f"expected a folder of pictures such as .jpg or .png, found none in {self.folder}")

    def real(self) -> Iterator[Tensor]:
        for first in range(0, len(self._files), BATCH):
            yield to_pixels(self._files[first : first + BATCH], self.size, self.size)

    def distances(self, ours: Pictures, theirs: Pictures) -> Float[Tensor, " picture"]:
        return lpips_distances(_pixels(ours), _pixels(theirs))

    def adherence(self, pictures: Pictures, prompts: Sequence[str]) -> dict[str, float]:
        """CLIP score (Hessel et al. 2021; torchmetrics): 100 times the cosine of picture and prompt, mean over both."""
        from torchmetrics.multimodal import CLIPScore

        score = CLIPScore(self.clip)
        for first in range(0, len(pictures), BATCH):
            own = slice(first, first + BATCH)
            score.update((_pixels(pictures[own]) * 255).round().byte(), list(prompts[own]))
        return {"all": score.compute().item()}
