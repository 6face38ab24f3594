"""Prompts for evaluation: captions of postcards or MS-COCO, or the lines of a text file."""

import hashlib
import io
import json
import os
import random
import urllib.request
import zipfile
from pathlib import Path

from smoothnb._utils.checks import at_least
from smoothnb._utils.console import progress_bar
from smoothnb._utils.files import atomic_write, expanded, read_text
from smoothnb.postcards.stream import held_out_prompts

COCO = "http://images.cocodataset.org/annotations/annotations_trainval2017.zip"
COCO_MD5 = "f4bbac642086de4f52a3fdda2de5fa2c"
COCO_CAPTIONS = "annotations/captions_val2017.json"
USUAL = 500
"""Number of prompts in the paper."""


def read_prompts(source: str | Path = "postcard", count: int | None = None, seed: int = 0) -> list[str]:
    """Reads prompts; the same source, count and seed always give the same prompts.

    Args:
        source: "postcard" for captions of held-out scenes; "coco" for captions of MS-COCO's validation pictures of
            2017, downloaded once (253 MB, of which 4 MB are kept); a file of captions in COCO's format (.json); or any
            other text file, with one prompt per line, in UTF-8 or in UTF-16 with a byte order mark.
        count: Number of prompts; by default 500, as in the paper, or all lines of a text file. If the file has more, a
            random subset is taken in the order of the file. COCO has one caption per picture.
        seed: Seed of the subset.

    Returns:
        The prompts.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file holds no prompts, or fewer than `count`.
        OSError: If the download fails or its checksum differs.
    """
    at_least(1, count=count)
    if source == "postcard":
        return held_out_prompts(count or USUAL)
    path = coco_captions() if source == "coco" else expanded(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path} (looked from {Path.cwd()}): give a text file of prompts, captions of COCO, "
            '"coco" or "postcard"'
        )
    if path.suffix in (".csv", ".jsonl", ".parquet", ".tsv"):
        raise ValueError(f"expected a text file with one prompt a line, or COCO's .json, got a table, {path}")
    if path.suffix == ".json":
        found, count = _captions(path), count or USUAL
    else:
        # Not splitlines: U+2028 and its like are part of a prompt.
        found = [line.strip() for line in io.StringIO(read_text(path), newline=None) if line.strip()]
    if not found:
        raise ValueError(f"{path} holds no prompts: expected one per line")
    if count is None or count == len(found):
        return found
    if count > len(found):
        raise ValueError(f"{path} holds {len(found)} prompts, fewer than the requested {count}")
    return [found[i] for i in sorted(random.Random(seed).sample(range(len(found)), count))]


def _captions(path: Path) -> list[str]:
    """The first caption of each picture, sorted by picture."""
    try:
        annotations = json.loads(read_text(path))["annotations"]
        annotations = sorted(annotations, key=lambda a: (a["image_id"], a["id"]), reverse=True)
        first = {a["image_id"]: " ".join(a["caption"].split()) for a in annotations if a["caption"].strip()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path} holds no captions as COCO writes them: expected {{"annotations": [{{"image_id": …, "id": …, '
            f'"caption": …}}, …]}} ({type(error).__name__}: {error})'
        ) from error
    return [first[image] for image in sorted(first)]


def coco_captions(url: str = COCO, md5: str = COCO_MD5, cache: Path | None = None) -> Path:
    """Path of the captions of MS-COCO's validation pictures of 2017, downloaded if they are not in the cache.

    Args:
        url: URL of the official archive of annotations.
        md5: Checksum of the archive.
        cache: Folder of the cache; by default smoothnb in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        OSError: If the download fails or its checksum differs.
    """
    cache = expanded(cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "smoothnb")
    kept = cache / Path(COCO_CAPTIONS).name
    if kept.is_file():
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    archive = cache / "annotations.zip.partial"
    try:
        _download(url, archive, md5)
        with zipfile.ZipFile(archive) as opened, atomic_write(kept) as partial:
            partial.write_bytes(opened.read(COCO_CAPTIONS))
    finally:
        archive.unlink(missing_ok=True)
    return kept


def _download(url: str, path: Path, md5: str) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with urllib.request.urlopen(url, timeout=60) as response, path.open("wb") as file:
            size = int(response.headers.get("Content-Length") or 0)
            with progress_bar(size // 1_000_000 or None, "MB of captions") as bar:
                while part := response.read(1_000_000):
                    file.write(part)
                    digest.update(part)
                    bar.update()
    except OSError as error:
        raise OSError(
            f"cannot download {url}: {error}. Download it yourself, and pass its {COCO_CAPTIONS} as the file of prompts"
        ) from error
    if digest.hexdigest() != md5:
        raise OSError(f"the download from {url} has the MD5 {digest.hexdigest()}, expected {md5}")
