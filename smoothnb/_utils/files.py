"""Files written whole or not at all, texts and weights read with care, and the folder of shipped data."""

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torch import Tensor

IMAGE_SUFFIXES = {
    ".apng", ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tga", ".tif",
    ".tiff", ".webp",
}  # fmt: skip
"""How files end that are read as pictures."""
SIGNS = ("I/O error", "IoError", "os error", "file write failed", "unexpected pos", "No space left")
"""Messages of safetensors and torch about a full disk or a read-only folder; they raise no OSError."""


def expanded(value: str | os.PathLike) -> Path:
    """A path of the reader's, with ~ as the home folder.

    Raises:
        FileNotFoundError: If it begins with the name of a user who does not exist.
    """
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(f"expected a path that exists, got {value}: {error}") from None


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path next to a file, and replaces the file when the block succeeds.

    A file is therefore written whole or not at all, even if the process is killed.

    Args:
        path: The file. Missing folders are created.

    Raises:
        OSError: If the file cannot be written. An existing file is left as it was, and no partial file remains.
    """
    path = expanded(path)
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
        # This fails again in a read-only folder.
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if not (isinstance(error, OSError) or any(sign in str(error) for sign in SIGNS)):
            raise
        raise OSError(
            f"cannot write {path}: {error}. Free disk space or choose a writable path; an existing file is unchanged"
        ) from error


def visible_files(folder: Path) -> list[Path]:
    """All files below a folder but hidden ones and copies, such as .ipynb_checkpoints, ._a.png and __MACOSX; sorted."""
    found = ((path, path.relative_to(folder).parts) for path in folder.rglob("*"))
    hidden = ("__", ".")
    return sorted(
        path
        for path, parts in found
        if not parts[-1].startswith(".") and not any(part.startswith(hidden) for part in parts[:-1]) and path.is_file()
    )


def read_text(path: Path) -> str:
    """Reads a text file in UTF-8, or in UTF-16 with its byte order mark; the mark is left out.

    Raises:
        ValueError: If the file is in another encoding; the first line that shows it is named.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} of {path} is not in UTF-8: save the file as UTF-8 ({error})") from None


def write_text(path: Path, text: str) -> None:
    """Writes a text file, see `atomic_write`."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def open_weights(path: Path) -> Iterator:
    """Opens a safetensors file with `safetensors.safe_open`, after checking that it is one.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it is a pickle, truncated or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} (looked from {Path.cwd()})")
    try:
        with path.open("rb") as file:
            begin = file.read(2)
    except OSError as error:
        raise OSError(f"cannot read {path}: {error}") from error
    if begin in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise ValueError(
            f"{path} is a pickle, which can run any code when it is opened: expected safetensors. Convert it where "
            "you trust it, with safetensors.torch.save_file"
        )
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path} is cut off or damaged, or no safetensors file ({error}): download or copy it again"
        ) from None


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads all tensors of a safetensors file to the CPU, and its metadata; errors as in `open_weights`."""
    with open_weights(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def data_folder() -> Path:
    """Folder of the models and pictures that come with smoothnb."""
    package = Path(__file__).resolve().parents[1]
    # data/ is inside the package in a wheel, and next to it in a checkout.
    return package / "data" if (package / "data").is_dir() else package.parent / "data"
