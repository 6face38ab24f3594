"""Progress bars that can be turned off."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm


@contextmanager
def progress_bar(total: int | None, description: str, shown: bool = True) -> Iterator[tqdm]:
    """A bar that goes away when it is done, and when something stops it sooner.

    Args:
        total: How many steps it counts; None where nobody knows.
        description: What is being done.
        shown: Whether to show it. The environment variable TQDM_DISABLE=1 hides every bar, in notebooks too, where
            tqdm itself does not heed it.
    """
    hidden = not shown or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    with tqdm(total=total, desc=description, leave=False, disable=hidden) as bar:
        try:
            yield bar
        finally:
            # In a notebook a bar that is not full would stay, in red, and so would one that was red already.
            bar.total = bar.n
            if container := getattr(bar, "container", None):
                container.children[1].bar_style = ""
