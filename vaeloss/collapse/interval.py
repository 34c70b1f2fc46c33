"""How sure a threshold is: a delete-a-group jackknife.

β* of a sample is a largest eigenvalue: from few samples it is biased upward, and the percentile
bootstrap covers too seldom, because it adds the bias once more. Leaving out a twentieth at a time
shows both the bias and the spread.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

GROUPS = 20  # fixed: sample i belongs to group i modulo 20


def jackknife(
    statistic: Callable[[Callable], float], value: float, confidence: float
) -> tuple[float, float]:
    """Interval for what ``statistic`` estimates.

    Parameters
    ----------
    statistic : callable
        ``statistic(keep)``: of the samples that ``keep(start, stop)``, a bool each, keeps.
    value : float
        Of all samples.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    tuple of float
        Lower and upper end, at least 0: the value less its bias, plus or minus Student's t with 19
        degrees of freedom times the standard error.

    Raises
    ------
    ValueError
        The confidence is not between 0 and 1; fewer samples than groups.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"interval={confidence}: give a confidence between 0 and 1, such as 0.9")

    samples = 0

    def without(group):
        def keep(start, stop):
            nonlocal samples
            samples = max(samples, stop)
            return np.arange(start, stop) % GROUPS != group

        return keep

    left_out = np.array([statistic(without(group)) for group in range(GROUPS)])
    if samples < GROUPS:
        raise ValueError(f"an interval needs at least {GROUPS} samples, x has {samples}")
    bias = (GROUPS - 1) * (left_out.mean() - value)
    error = np.sqrt((GROUPS - 1) * np.square(left_out - left_out.mean()).mean())
    half = stats.t.ppf((1 + confidence) / 2, GROUPS - 1) * error
    return max(value - bias - half, 0.0), max(value - bias + half, 0.0)
