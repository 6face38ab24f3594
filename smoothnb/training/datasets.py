"""Pictures with captions to train on: a folder, a data set of the hub, or the stream of postcards."""

import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from smoothnb._utils.files import expanded
from smoothnb.images import ImageLike, to_pixels
from smoothnb.postcards.captions import caption
from smoothnb.postcards.scene import random_scene
from smoothnb.postcards.styles import STYLES, render_in

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
CAPTION_COLUMNS = ("text", "caption", "prompt")

log = logging.getLogger(__name__)


@runtime_checkable
class Captioned(Protocol):
    """Endless pictures with captions: number n is always the same, so that a training goes on where it stopped."""

    def take(self, numbers: Sequence[int]) -> tuple[Float[Tensor, "batch 3 height width"], list[str]]:
        """The pictures of these numbers, in [0, 1], and their captions."""
        ...


class PostcardStream:
    """Postcards, each drawn when it is asked for.

    Args:
        height, width: In pixels; equal, as postcards are square.
        seed: Of scenes and captions.
        style: Of the pictures, one of `postcards.styles.STYLES`.

    Raises:
        ValueError: If height and width differ.
    """

    def __init__(self, height: int, width: int, seed: int = 0, style: str = "plain"):
        if height != width:
            raise ValueError(f"postcards are square: expected one size, got {height} × {width}")
        self.size, self.seed, self.style = height, seed, style

    def take(self, numbers: Sequence[int]) -> tuple[Tensor, list[str]]:
        sources = [random.Random(f"{self.seed} {n}") for n in numbers]
        scenes = [random_scene(rng) for rng in sources]
        captions = [caption(scene, rng) for scene, rng in zip(scenes, sources, strict=True)]
        return render_in(self.style, scenes, self.size), captions


class Shuffled:
    """A finite list of pictures, endlessly: every epoch in another order.

    A picture that cannot be read is named once, counted, and the next one of the epoch takes its place.

    Args:
        images: Paths or pictures.
        captions: One for each.
        height, width: To crop and resize to, in pixels.
        seed: Of the order.

    Raises:
        ValueError: If there is no picture.
    """

    def __init__(self, images: Sequence[ImageLike], captions: Sequence[str], height: int, width: int, seed: int = 0):
        if not len(images):
            raise ValueError("expected at least one picture to train on, got none")
        self.images, self.captions, self.size, self.seed = images, captions, (height, width), seed
        self.unreadable: set[int] = set()
        self._epoch, self._order = -1, []

    def take(self, numbers: Sequence[int]) -> tuple[Tensor, list[str]]:
        pairs = [self._read(n) for n in numbers]
        return torch.cat([pixels for pixels, _ in pairs]), [caption for _, caption in pairs]

    def _read(self, number: int) -> tuple[Tensor, str]:
        for n in range(number, number + len(self.images)):
            epoch, place = divmod(n, len(self.images))
            if epoch != self._epoch:
                order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(self.seed + epoch))
                self._epoch, self._order = epoch, order.tolist()
            i = self._order[place]
            if i in self.unreadable:
                continue
            try:
                return to_pixels(self.images[i], *self.size), self.captions[i]
            except (OSError, ValueError) as error:
                self.unreadable.add(i)
                log.warning("Skipped, %d so far: %s", len(self.unreadable), error)
        raise ValueError(f"none of the {len(self.images)} pictures can be read; the last error stands above")


def image_folder(folder: Path, height: int, width: int, seed: int = 0) -> Shuffled:
    """A folder of pictures, in the layout of Hugging Face `datasets`' imagefolder.

    `metadata.jsonl` in the folder holds a line for each picture: {"file_name": "a.jpg", "text": "a red house"}. Without
    that file all pictures below the folder are taken, with empty captions.

    Args:
        folder: The folder.
        height, width: To crop and resize to, in pixels.
        seed: Of the order.

    Returns:
        The pictures with their captions.

    Raises:
        ValueError: If there is no picture, or a line of `metadata.jsonl` is not as expected.
    """
    metadata = folder / "metadata.jsonl"
    if not metadata.is_file():
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise ValueError(f"no picture in {folder}: expected {', '.join(sorted(IMAGE_SUFFIXES))}")
        log.warning("%s has no metadata.jsonl: its %d pictures are trained on with empty captions", folder, len(paths))
        return Shuffled(paths, [""] * len(paths), height, width, seed)
    paths, captions = [], []
    for number, line in enumerate(metadata.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            paths.append(folder / row["file_name"])
            captions.append(next(row[column] for column in CAPTION_COLUMNS if column in row))
        except (ValueError, KeyError, TypeError, StopIteration):
            raise ValueError(
                f'line {number} of {metadata} is not as expected: give {{"file_name": "a.jpg", "text": "a house"}}, '
                f"got {line[:120]}"
            ) from None
    if not paths:
        raise ValueError(f"{metadata} names no picture")
    return Shuffled(paths, captions, height, width, seed)


def hub_dataset(name: str, height: int, width: int, seed: int = 0) -> Shuffled:
    """A data set of the Hugging Face hub with a column of pictures and one of captions.

    Raises:
        ImportError: If the package `datasets` is not installed.
        ValueError: If one of the two columns is missing.
    """
    try:
        import datasets
    except ImportError:
        raise ImportError(f'to train on the hub\'s "{name}", install datasets: pip install datasets') from None
    rows = datasets.load_dataset(name, split="train")
    pictures = [column for column, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    captions = [column for column in CAPTION_COLUMNS if column in rows.features]
    if not pictures or not captions:
        raise ValueError(
            f'expected "{name}" to have a column of pictures and one of captions ({", ".join(CAPTION_COLUMNS)}), got '
            f"{', '.join(rows.features)}"
        )
    return Shuffled(rows[pictures[0]], list(rows[captions[0]]), height, width, seed)


def open_data(name: str, height: int, width: int, seed: int = 0) -> Captioned:
    """Opens "postcard" ("postcard-film", "postcard-neon" in these styles), a folder, or a data set of the hub.

    Args:
        name: What to open.
        height, width: Of the pictures, in pixels.
        seed: Of the order, or of the scenes.

    Returns:
        Pictures with captions.

    Raises:
        FileNotFoundError: If it is a path that leads nowhere.
        ValueError: If there is no picture in it.
    """
    kind, _, style = name.partition("-")
    if kind == "postcard" and (style or "plain") in STYLES:
        return PostcardStream(height, width, seed, style or "plain")
    folder = expanded(name)
    if folder.is_dir():
        return image_folder(folder, height, width, seed)
    if name.count("/") == 1 and name[0] not in "./~":
        return hub_dataset(name, height, width, seed)
    raise FileNotFoundError(
        f'no data at {folder} (looked from {Path.cwd()}): give "postcard", a folder of pictures, or the id of a '
        "data set on the Hugging Face hub"
    )
