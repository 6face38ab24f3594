"""Files that a kill cannot spoil: written beside their place, and moved there whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SIGNS = ("I/O error", "IoError", "os error", "file write failed", "unexpected pos", "No space left")
"""How safetensors and torch say that a disk is full or a folder read-only: by errors of their own, no OSError."""


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


def write_text(path: Path, text: str) -> None:
    """Writes a text file, see `replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
