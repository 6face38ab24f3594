"""Checkpoints that a kill cannot spoil: written beside their place and moved there whole."""

import os
import re
from pathlib import Path

import torch

NAME = re.compile(r"checkpoint-(\d+)\.pt")


def save_atomically(state: dict, path: Path) -> None:
    """Writes a file beside its place and moves it there, so that a kill never leaves half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


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
