"""What is said beside results: other libraries' warnings and bars are hidden, ours name the reader's own line."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import diffusers
import jaxtyping
import torch

BETWEEN = (
    *(f"{Path(file).parent}{os.sep}" for file in (__file__, diffusers.__file__, jaxtyping.__file__, torch.__file__)),
    contextlib.__file__,
    "<@beartype(",
)
"""How names of files begin whose code may stand between a reader's line and ours: pipelines, and decorators."""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns of the line that called into this package, however many of its functions and decorators lie between."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(BETWEEN):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def errors_only(logging: ModuleType) -> Iterator[None]:
    """Hides the warnings of one library, given its logging module."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


@contextmanager
def no_bars(*loggings: ModuleType) -> Iterator[None]:
    """Hides the bars that count loaded parts, given the libraries' logging modules; those of downloads stay."""
    shown = [logging for logging in loggings if logging.is_progress_bar_enabled()]
    for logging in shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in shown:
            logging.enable_progress_bar()
