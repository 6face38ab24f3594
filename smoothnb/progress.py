"""Progress bars that can be turned off."""

import os

from tqdm.auto import tqdm


def progress_bar(total: int | None, description: str, shown: bool = True) -> tqdm:
    """A bar that goes away when it is done.

    Args:
        total: How many steps it counts; None where nobody knows.
        description: What is being done.
        shown: Whether to show it. The environment variable TQDM_DISABLE=1 hides every bar, in notebooks too, where
            tqdm itself does not heed it.
    """
    hidden = not shown or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return tqdm(total=total, desc=description, leave=False, disable=hidden)
