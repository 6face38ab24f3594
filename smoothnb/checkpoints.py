"""Checkpoints that a kill cannot spoil: written beside their place and moved there whole."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

SIGNS = ("I/O error", "IoError", "os error", "file write failed", "unexpected pos", "No space left")
"""How safetensors and torch say that a disk is full or a folder read-only: by errors of their own, no OSError."""
NAME = re.compile(r"checkpoint-(\d+)\.pt")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside a file's own, to write to; moved there when all is written, so that a kill never leaves half.

    Args:
        path: The file. Folders that are missing are made.

    Raises:
        OSError: If it cannot be written: the disk is full, the folder is read-only, the path is a folder. What was
            there before is there still, and nothing half-written beside it.
    """
    partial = path.parent / f"{path.name}.partial"
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder, not a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        # An unwritable folder fails here once more.
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if not (isinstance(error, OSError) or any(sign in str(error) for sign in SIGNS)):
            raise
        raise OSError(
            f"cannot write {path}: {error}. Make room on the disk, or give a place that may be written to; what was "
            "there before is untouched"
        ) from error


def save_atomically(state: dict, path: Path) -> None:
    """Writes tensors, numbers and strings, in dicts and lists; see `replacing`."""
    with replacing(path) as partial:
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
            warnings.warn(f"{error}. Training goes on from an older one", stacklevel=2)
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
