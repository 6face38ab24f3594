"""Bootstrap confidence intervals (Efron 1979)."""

from collections.abc import Callable, Sequence

import numpy as np

Interval = tuple[float, float]


def interval(
    *samples: Sequence[float] | np.ndarray,
    statistic: Callable[..., np.ndarray] = lambda mean: mean,
    level: float = 0.95,
    draws: int = 10_000,
) -> Interval:
    """Confidence interval of a statistic of means, by resampling cases with replacement.

    Args:
        samples: One number for each case. Several samples are resampled together (paired bootstrap), so that what they
            have in common, such as a prompt that is hard for all models, cancels in a difference.
        statistic: Function of the samples' means; by default the mean of the only sample.
        level: Confidence level.
        draws: Number of resamples; the random numbers are always the same.

    Returns:
        Lower and upper bound.

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
    """Relative change; -0.5 means half of the base."""
    return ours / base - 1
