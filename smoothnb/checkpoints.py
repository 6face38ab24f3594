"""Checkpoints that a kill cannot spoil: written beside their place and moved there whole."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

NAME = re.compile(r"checkpoint-(\d+)\.pt")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside a file's own, to write to; moved there when all is written, so that a kill never leaves half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    yield partial
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def save_atomically(state: dict, path: Path) -> None:
    """Writes tensors, numbers and strings, in dicts and lists; see `replacing`."""
    with replacing(path) as partial:
        torch.save(state, partial)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a training, oldest first."""
    found = [(int(match[1]), path) for path in folder.glob("*.pt") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def save_checkpoint(state: dict, folder: Path, step: int, keep: int) -> Path:
    """Saves the state after a step, then removes all but the newest checkpoints.

    Args:
        state: Tensors, numbers and strings, in dicts and lists.
        folder: Where checkpoints lie.
        step: How many steps are done.
        keep: How many checkpoints to keep.

    Returns:
        The new file.
    """
    path = folder / f"checkpoint-{step:06d}.pt"
    save_atomically(state, path)
    for old in checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint, or None."""
    return next(reversed(checkpoints(folder)), None)
