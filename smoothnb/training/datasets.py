"""Pictures with captions to train on: a folder, a data set of the hub, or the stream of postcards."""

import io
import logging
import os
import random
from collections.abc import Sequence
from mimetypes import guess_type
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from smoothnb._utils.files import IMAGE_SUFFIXES, expanded, read_text, visible_files
from smoothnb.images import ImageLike, to_pixels
from smoothnb.postcards.captions import caption
from smoothnb.postcards.scene import random_scene
from smoothnb.postcards.styles import STYLES, render_in
from smoothnb.training.metadata import METADATA, caption_of, columns_of, read_metadata

TRAIN = ("train", "training", "data/train")

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
        images: Paths or pictures, or {"path", "bytes"} as `datasets` holds pictures that are not decoded.
        captions: One for each.
        height, width: To crop and resize to, in pixels.
        seed: Of the order.

    Raises:
        ValueError: If there is no picture.
    """

    def __init__(
        self, images: Sequence[ImageLike | dict], captions: Sequence[str], height: int, width: int, seed: int = 0
    ):
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
                image = self.images[i]
                if isinstance(image, dict):
                    image = image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"])
                return to_pixels(image, *self.size), self.captions[i]
            except (OSError, ValueError) as error:
                self.unreadable.add(i)
                log.warning("Skipped, %d so far: %s", len(self.unreadable), error)
        raise ValueError(f"none of the {len(self.images)} pictures can be read; the last error stands above")


def image_folder(folder: Path, height: int, width: int, seed: int = 0) -> Shuffled:
    """A folder of pictures with captions, in the layouts of Hugging Face `datasets`' imagefolder or of kohya's scripts.

    A `metadata.jsonl`, `metadata.csv` or `metadata.parquet` names pictures in its own folder or below, and gives each a
    caption: {"file_name": "a.jpg", "text": "a red house"}. Without one, all pictures are taken, each with the caption
    that stands in a text file of its name, `a.txt` for `a.jpg`, or with an empty one. If there is a folder `train`,
    only what is in it is taken. Hidden files are not, nor what is in folders that are hidden or begin with "__".

    What is left out is logged, once for each reason: pictures that no metadata name, rows whose pictures are missing,
    rows that are there twice.

    Args:
        folder: The folder.
        height, width: To crop and resize to, in pixels.
        seed: Of the order.

    Returns:
        The pictures with their captions.

    Raises:
        ValueError: If there is no picture, or a row of metadata has no file name or no text; the line is named.
    """
    folder = Path(os.path.abspath(folder))
    files = visible_files(folder)
    train = next((folder / name for name in TRAIN if (folder / name).is_dir()), folder)
    images = [path for path in files if (guess_type(path.name, strict=False)[0] or "").startswith("image/")]
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    _left_out("pictures of a kind that is not read", sorted(set(images) - set(pictures)))
    hidden = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    _left_out("hidden pictures", sorted(set(hidden) - set(pictures)))
    _left_out(f"pictures outside of {train}", [path for path in pictures if train not in path.parents])
    pictures = [path for path in pictures if train in path.parents]
    metadata = [path for path in files if path.name in METADATA]
    metadata = [path for path in metadata if train in path.parents] or metadata
    if not metadata:
        if not pictures:
            raise ValueError(f"no picture in {train}: expected {', '.join(sorted(IMAGE_SUFFIXES))}")
        captions = [_caption_beside(path) for path in pictures]
        if without := captions.count(""):
            log.warning(
                "%s has no metadata.jsonl, and %d of its %d pictures have no .txt file of their name: they are trained "
                "on with empty captions", train, without, len(captions),
            )  # fmt: skip
        return Shuffled(pictures, captions, height, width, seed)
    rows, outside, again, known = [], [], [], set()
    for row in (row for path in metadata for row in read_metadata(path)):
        inside = train in row.picture.parents
        (outside if not inside else again if row[1:] in known else rows).append(row)
        known.add(row[1:])
    missing = {number for number, row in enumerate(rows) if not row.picture.is_file()}
    if len(missing) == len(rows):
        raise ValueError(f"no picture in {train} has a row in {', '.join(map(str, metadata))}")
    _left_out(f"rows of pictures outside of {train}", [row.where for row in outside])
    _left_out("rows that are there twice", [row.where for row in again])
    _left_out("rows whose pictures are missing", [f"{rows[i].picture} ({rows[i].where})" for i in sorted(missing)])
    _left_out("pictures that no row names", sorted(set(pictures) - {row.picture for row in rows}))
    data = Shuffled([row.picture for row in rows], [row.caption for row in rows], height, width, seed)
    data.unreadable |= missing
    return data


def _left_out(what: str, which: Sequence[object]) -> None:
    if which:
        more = ", …" if len(which) > 3 else ""
        log.warning("Left out, %d %s: %s%s", len(which), what, ", ".join(map(str, which[:3])), more)


def _caption_beside(picture: Path) -> str:
    beside = (picture.with_suffix(suffix) for suffix in (".txt", ".caption"))
    return next((" ".join(read_text(path).split()) for path in beside if path.is_file()), "")


def hub_dataset(name: str, height: int, width: int, seed: int = 0) -> Shuffled:
    """A data set of the Hugging Face hub with a column of pictures and one of captions.

    Raises:
        ValueError: If one of the two columns is missing, or a caption is no text.
    """
    import datasets

    rows = datasets.load_dataset(name, split="train")
    picture, columns = columns_of(rows.features)
    captions = [caption_of(row, columns) for row in rows.select_columns(columns)]
    if wrong := [number for number, text in enumerate(captions) if not isinstance(text, str)]:
        raise ValueError(f'row {wrong[0]} of "{name}" has no text as its caption, but {captions[wrong[0]]!r}')
    return Shuffled(rows.cast_column(picture, datasets.Image(decode=False))[picture], captions, height, width, seed)


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
