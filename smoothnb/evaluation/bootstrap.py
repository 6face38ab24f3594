"""How far a mean over prompts would move if other prompts were drawn: the bootstrap (Efron 1979)."""

from collections.abc import Callable, Sequence

import numpy as np

Interval = tuple[float, float]


def interval(
    *samples: Sequence[float] | np.ndarray,
    statistic: Callable[..., np.ndarray] = lambda mean: mean,
    level: float = 0.95,
    draws: int = 10_000,
) -> Interval:
    """The interval that a statistic of means lies in when cases are drawn anew, with replacement.

    Args:
        samples: One number for each case. Of several samples the same cases are drawn, so that what they have in
            common (a prompt that is hard for all models) cancels in a difference.
        statistic: From the mean of each sample to what the interval is for; by default the mean of the only one.
        level: Share of draws inside.
        draws: How many times; always with the same random numbers.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: If there are no cases, or samples differ in length.
    """
    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    count = len(arrays[0])
    if not count or any(len(array) != count for array in arrays):
        raise ValueError(f"expected samples of equal length, at least 1, got {[len(array) for array in arrays]}")
    rows = np.random.default_rng(0).integers(count, size=(draws, count))
    found = statistic(*(array[rows].mean(axis=1) for array in arrays))
    low, high = np.percentile(found, (50 * (1 - level), 50 * (1 + level)))
    return float(low), float(high)


def change(ours: float | np.ndarray, base: float | np.ndarray) -> float | np.ndarray:
    """Relative change, -0.5 for half of it: the statistic of paired comparisons."""
    return ours / base - 1
