"""Training checkpoints."""

import re
import warnings
from pathlib import Path

import torch

from smoothnb._utils.console import warn
from smoothnb._utils.files import atomic_write

NAME = re.compile(r"checkpoint-(\d+)\.pt")


def save_atomically(state: dict, path: Path) -> None:
    """Saves dicts and lists of tensors, numbers and strings atomically."""
    with atomic_write(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path) -> dict:
    """Loads a file that `save_atomically` wrote.

    Raises:
        ValueError: If the file is damaged, or holds anything but tensors, numbers and strings; nothing is unpickled.
    """
    try:
        with warnings.catch_warnings():
            # torch warns about foreign pickles before it refuses them.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            state = torch.load(path, map_location="cpu", weights_only=True)
    # A truncated zip or pickle raises anything: RuntimeError, EOFError, IndexError, struct.error and more.
    except Exception as error:
        why = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
        raise ValueError(f"{path} is damaged or not a checkpoint ({why}): remove it") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not a checkpoint: expected a dictionary, got {type(state).__name__}. Remove it")
    return state


def load_latest(folder: Path) -> tuple[Path, dict] | None:
    """Loads the newest readable checkpoint; None if there are none.

    Raises:
        ValueError: If there are checkpoints, but none is readable.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            return path, load_checkpoint(path)
        except ValueError as error:
            if path == found[0]:
                raise ValueError(
                    f"{error}. There is no older one; without checkpoints, training starts from the beginning"
                ) from None
            warn(f"{error}. Resuming from an older one")
    return None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = [(int(match[1]), path) for path in folder.glob("*.pt") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def save_checkpoint(state: dict, folder: Path, step: int, keep: int) -> Path:
    """Saves a checkpoint and removes all but the newest ones.

    Args:
        state: Dicts and lists of tensors, numbers and strings.
        folder: Folder of the checkpoints.
        step: Number of finished steps.
        keep: Number of checkpoints to keep.

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
