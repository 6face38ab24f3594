"""Checkpoints of a training: saved, found again, and passed over where they are damaged."""

import re
import warnings
from pathlib import Path

import torch

from smoothnb._utils.console import warn
from smoothnb._utils.files import atomic_write

NAME = re.compile(r"checkpoint-(\d+)\.pt")


def save_atomically(state: dict, path: Path) -> None:
    """Writes tensors, numbers and strings, in dicts and lists; see `atomic_write`."""
    with atomic_write(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path) -> dict:
    """What `save_atomically` wrote.

    Raises:
        ValueError: If the file is damaged, or holds anything but tensors, numbers and strings, which is not unpickled.
    """
    try:
        with warnings.catch_warnings():
            # Of other pickles than its own torch warns first, and then refuses them.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            state = torch.load(path, map_location="cpu", weights_only=True)
    # Half a zip or a pickle can end its reader in any way: RuntimeError, EOFError, IndexError, struct.error and more.
    except Exception as error:
        why = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
        raise ValueError(f"{path} is damaged or no checkpoint ({why}): remove it") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no checkpoint: expected a dictionary, got {type(state).__name__}. Remove it")
    return state


def load_latest(folder: Path) -> tuple[Path, dict] | None:
    """The newest checkpoint that can be read, and what it holds; None where there is none at all.

    Raises:
        ValueError: If there are some, and none can be read.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            return path, load_checkpoint(path)
        except ValueError as error:
            if path == found[0]:
                raise ValueError(f"{error}. No older one is left: without any, training begins anew") from None
            warn(f"{error}. Training goes on from an older one")
    return None


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
