"""Judges of pictures: the Reader for postcards, networks trained on photographs for everything else."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from smoothnb._utils.checks import at_least
from smoothnb._utils.files import IMAGE_SUFFIXES, expanded, visible_files
from smoothnb.evaluation._reconstruction import lpips_distances
from smoothnb.images import to_pixels
from smoothnb.postcards.captions import stated
from smoothnb.postcards.reader import Reader, load_reader
from smoothnb.postcards.scene import random_scenes
from smoothnb.postcards.styles import STYLES, render_in, style_of

BATCH = 32
HELD_OUT_REAL = (1 << 40) + 1
"""Seed of the real pictures of FID; no training and no other evaluation uses it."""

Pictures = Float[Tensor, "picture 3 height width"] | Sequence[Image.Image]
"""RGB in [0, 1], or PIL images of one size."""


def _pixels(pictures: Pictures) -> Float[Tensor, "picture 3 height width"]:
    if isinstance(pictures, Tensor):
        return pictures.float().cpu()
    return to_pixels(pictures, pictures[0].height, pictures[0].width)


class Judge(ABC):
    """Measures the quality of pictures and their adherence to prompts."""

    features: nn.Module | int
    """Features of FID: a network, or a number of Inception features, as in torchmetrics."""

    @abstractmethod
    def real(self) -> Iterator[Tensor]:
        """Batches of the real pictures of FID."""

    @abstractmethod
    def distances(self, ours: Pictures, theirs: Pictures) -> Float[Tensor, " picture"]:
        """Squared perceptual distance of each pair of pictures, as `path_lengths` needs it."""

    @abstractmethod
    def adherence(self, pictures: Pictures, prompts: Sequence[str]) -> dict[str, float]:
        """How well pictures match their prompts: "all", and by part if the judge can tell."""

    @cached_property
    def _metric(self):
        from torchmetrics.image.fid import FrechetInceptionDistance

        metric = FrechetInceptionDistance(feature=self.features, normalize=True, reset_real_features=False)
        for batch in self.real():
            metric.update(batch, real=True)
        return metric

    def fid(self, pictures: Pictures) -> float:
        """Fréchet Inception distance to the real pictures (Heusel et al. 2017; torchmetrics)."""
        self._metric.reset()
        for batch in _pixels(pictures).split(BATCH):
            self._metric.update(batch, real=False)
        return self._metric.compute().item()


class ReaderJudge(Judge):
    """Judges postcards by the Reader: its features, and what it reads from a picture.

    Args:
        real_count: Number of renders that are the real pictures of FID.
        reader: The Reader; by default the packaged one for the style.
        style: Style of the renders, one of `STYLES`; for others than "plain", adherence includes the style.
    """

    def __init__(self, real_count: int = 2048, reader: Reader | None = None, style: str = "plain"):
        at_least(2, real_count=real_count)
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
        """Fraction of the stated topics that the Reader finds in the pictures: "all", and by topic."""
        found = defaultdict(list)
        readings = [reading for batch in _pixels(pictures).split(BATCH) for reading in self.features.read(batch)]
        for reading, prompt in zip(readings, prompts, strict=True):
            for topic, right in reading.agrees(stated(prompt)).items():
                found[topic].append(right)
        every = [right for values in found.values() for right in values]
        if not every:
            raise ValueError("no prompt states anything that the Reader knows: use another judge, or other prompts")
        shares = {"all": sum(every) / len(every)} | {topic: sum(v) / len(v) for topic, v in found.items()}
        if self.style != "plain":
            shares["style"] = style_of(_pixels(pictures)).count(self.style) / len(pictures)
        return shares


class PhotoJudge(Judge):
    """Judges photographs as in the paper: FID on Inception features, LPIPS, CLIP score.

    Weights are downloaded at first use, and the packages are not installed with smoothnb:
    `pip install torch-fidelity torchvision`.

    Args:
        folder: Folder with the real photographs of FID, such as MS-COCO's val2017.
        size: Size that they are cropped and resized to, in pixels.
        clip: Model of the CLIP score: an id on the hub, or a folder.
    """

    features = 2048

    def __init__(self, folder: str | Path, size: int = 512, clip: str = "openai/clip-vit-large-patch14"):
        at_least(1, size=size)
        self.folder, self.size, self.clip = expanded(folder), size, str(expanded(clip))
        self._files = [path for path in visible_files(self.folder) if path.suffix.lower() in IMAGE_SUFFIXES]
        if not self._files:
            raise ValueError(f"expected a folder of pictures such as .jpg or .png, found none in {self.folder}")

    def real(self) -> Iterator[Tensor]:
        for first in range(0, len(self._files), BATCH):
            yield to_pixels(self._files[first : first + BATCH], self.size, self.size)

    def distances(self, ours: Pictures, theirs: Pictures) -> Float[Tensor, " picture"]:
        return lpips_distances(_pixels(ours), _pixels(theirs))

    def adherence(self, pictures: Pictures, prompts: Sequence[str]) -> dict[str, float]:
        """CLIP score (Hessel et al. 2021; torchmetrics): 100 times the mean cosine similarity of picture and prompt."""
        from torchmetrics.multimodal import CLIPScore

        score = CLIPScore(self.clip)
        for first in range(0, len(pictures), BATCH):
            own = slice(first, first + BATCH)
            score.update((_pixels(pictures[own]) * 255).round().byte(), list(prompts[own]))
        return {"all": score.compute().item()}
