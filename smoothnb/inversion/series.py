"""A null-text series in the making, kept in a file from step to step: a kill loses no step that is done."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from smoothnb._utils.console import warn
from smoothnb._utils.files import read_weights, replacing
from smoothnb.inversion.soap import Soap

PAUSE = 5.0
"""Least time between two writings, in seconds: a file of some megabytes is not worth less work."""


@dataclass(frozen=True, eq=False)
class Making:
    """The steps that are done, and all that the next one starts from, so that a series ends as if never stopped.

    It is replaced as a whole after each step, so that an interrupt never finds half of one.

    Attributes:
        x: Latents that the next step starts from.
        null: Embeddings that its search starts from.
        series: Those found, one for each step that is done.
        memory: Of `Soap`, which descends.
    """

    x: Tensor
    null: Tensor
    series: tuple[Tensor, ...] = ()
    memory: Mapping[str, Tensor] = field(default_factory=lambda: Soap().state_dict())


class MakingFile:
    """Where a series in the making is kept; it knows no picture and no settings: its name stands for them.

    Args:
        file: Of the whole inversion, in a cache; None for no keeping.
    """

    def __init__(self, file: Path | None):
        self.path = file and file.with_name(f"{file.stem}.making.safetensors")
        self._written = time.monotonic()

    def restored(self, making: Making, most: int) -> Making:
        """What the file holds, if there is one. A damaged one is named, and passed over.

        Args:
            making: A beginning, to compare with and to fall back on.
            most: Steps of the series.
        """
        if self.path is None or not self.path.is_file():
            return making
        try:
            found = {name: value.to(making.x.device) for name, value in read_weights(self.path)[0].items()}
            series, x, null = found.pop("series"), found.pop("x"), found.pop("null")
            if (x.shape, null.shape, series.shape[1:]) != (making.x.shape, making.null.shape, making.null.shape):
                raise ValueError("it is of other pictures")
            if not 0 < len(series) <= most or not all(part.isfinite().all() for part in (x, null, series)):
                raise ValueError("its numbers are none that were written")
            Soap().load_state_dict(found)
        except (OSError, ValueError, KeyError) as error:
            warn(f"{self.path} is passed over, and the series sought anew: {error}")
            return making
        return Making(x, null, tuple(series), found)

    def keep(self, making: Making, now: bool = False) -> None:
        """Writes what is done, unless that has just been done; a disk that is full is warned of, and work goes on.

        Args:
            making: The series.
            now: Whether to write at once.
        """
        if self.path is None or not making.series or not (now or time.monotonic() - self._written >= PAUSE):
            return
        from safetensors.torch import save_file

        tensors = {"x": making.x, "null": making.null, "series": torch.stack(making.series), **making.memory}
        try:
            with replacing(self.path) as partial:
                save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial)
        except OSError as error:
            warn(f"steps that are done are not kept: {error}")
        self._written = time.monotonic()

    def remove(self) -> None:
        """Once the whole inversion is kept."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
