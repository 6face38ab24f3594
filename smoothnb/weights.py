"""Files of weights, opened without ever unpickling anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor


@contextmanager
def open_weights(path: Path) -> Iterator:
    """A safetensors file, as `safetensors.safe_open` gives it.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it may not be read.
        ValueError: If it is a pickle, cut off or damaged.
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
    """All tensors of a safetensors file, on the CPU, and its header's notes; errors as in `open_weights`."""
    with open_weights(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
