"""Warnings and progress bars: other libraries' are hidden, ours name the caller's line."""

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
from tqdm.auto import tqdm

import smoothnb

BETWEEN = (
    *(f"{Path(module.__file__).parent}{os.sep}" for module in (smoothnb, diffusers, jaxtyping, torch)),
    contextlib.__file__,
    "<@beartype(",
)
"""Prefixes of files whose frames may lie between the caller's line and ours: pipelines and decorators."""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns at the caller's line outside this package, however many of its functions and decorators lie between."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(BETWEEN):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def errors_only(logging: ModuleType) -> Iterator[None]:
    """Hides the warnings of a library, given its logging module."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


@contextmanager
def no_bars(*loggings: ModuleType) -> Iterator[None]:
    """Hides the progress bars of loading, given the libraries' logging modules; those of downloads remain."""
    shown = [logging for logging in loggings if logging.is_progress_bar_enabled()]
    for logging in shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in shown:
            logging.enable_progress_bar()


@contextmanager
def progress_bar(total: int | None, description: str, shown: bool = True) -> Iterator[tqdm]:
    """A progress bar that disappears at the end, also after an error.

    Args:
        total: Number of steps; None if unknown.
        description: The label.
        shown: Whether to show it. The environment variable TQDM_DISABLE=1 hides every bar, in notebooks too, where
            tqdm itself ignores it.
    """
    hidden = not shown or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    with tqdm(total=total, desc=description, leave=False, disable=hidden) as bar:
        try:
            yield bar
        finally:
            # In a notebook, an incomplete bar would remain, in red.
            bar.total = bar.n
            if container := getattr(bar, "container", None):
                container.children[1].bar_style = ""
