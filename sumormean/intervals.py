"""Intervals for what a few seeds say."""

import numpy as np
from scipy import stats


def t_interval(values, confidence: float = 0.95) -> tuple[float, float]:
    """Mean of runs that differ by their seed, and half the width of its t interval.

    Of two methods with the same seeds, images and initial weights give it the *differences*, seed
    by seed: the interval is then that of the difference, and narrower than the two make it look.

    Parameters
    ----------
    values : array, shape (n,)
        One number per seed, n > 1.

    Raises
    ------
    ValueError
        Fewer than two values, or one is not finite.

    Examples
    --------
    >>> t_interval([1.0, 2.0, 3.0])  # 4.30 standard errors: with three seeds not 2
    (2.0, 2.484...)
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs two or more finite numbers, got {values.shape}")
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(half)
