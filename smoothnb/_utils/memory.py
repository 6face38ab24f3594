"""Hints in out-of-memory errors."""

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

GENERAL_HINT = "smaller pictures (height, width) and half precision (load_pipeline(…, dtype=torch.float16)) always help"
SIGNS = ("out of memory", "can't allocate memory", "not enough memory")
"""Messages of the RuntimeErrors that devices other than CUDA raise."""


@contextmanager
def oom_hint(activity: str, hint: str) -> Iterator[None]:
    """Re-raises out-of-memory errors with a hint on what to reduce; a context manager or a decorator.

    The tensors of the failed work are released, so that the pipeline can be used again at once.

    Args:
        activity: What failed, such as "drawing pictures".
        hint: Which settings to change, such as "use a smaller batch_size". In nested calls the outermost hint is given.

    Raises:
        torch.OutOfMemoryError: Instead of torch's own, or of a RuntimeError with such a message.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in SIGNS)):
            raise
        original = getattr(error, "original", str(error))
        # The error's frames hold the tensors of the failed work.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        hinted = torch.OutOfMemoryError(
            f"out of memory while {activity}: {hint}; {GENERAL_HINT}. The pipeline is as it was. torch says: {original}"
        )
        hinted.original = original
        raise hinted from None
