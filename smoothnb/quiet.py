"""Quiets libraries whose warnings and bars are not for readers."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


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
