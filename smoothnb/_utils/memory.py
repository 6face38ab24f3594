"""Memory that runs out: what was being done, and which setting to lower."""

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

EVERYWHERE = "smaller pictures (height, width) and half precision (load_pipeline(…, dtype=torch.float16)) always help"
SIGNS = ("out of memory", "can't allocate memory", "not enough memory")
"""How other devices than CUDA say it, in a RuntimeError."""


@contextmanager
def spared(doing: str, lower: str) -> Iterator[None]:
    """Meanwhile an error for want of memory says what was being done and what to lower; also a function's decorator.

    What was held for the work that failed is let go of, so that the pipeline can be used again at once.

    Args:
        doing: Such as "drawing pictures".
        lower: Which settings of the function that was called to change, such as "give a smaller batch_size". Where one
            such function calls another, the outer one's are named.

    Raises:
        torch.OutOfMemoryError: In the place of torch's own, or of a RuntimeError that says so.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in SIGNS)):
            raise
        said = getattr(error, "said", str(error))
        # The frames of the error hold every tensor of the work that failed.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        told = torch.OutOfMemoryError(
            f"out of memory while {doing}: {lower}; {EVERYWHERE}. The pipeline is as it was. torch says: {said}"
        )
        told.said = said
        raise told from None
