"""What a code can pay for at most, in nats."""

import math

import numpy as np

from vaeloss.collapse.batches import Batches, Data, check_moments, moments
from vaeloss.collapse.median import medians
from vaeloss.likelihoods import Likelihood, as_likelihood


def information_budget(x: Data, likelihood: Likelihood | str = "bernoulli") -> float:
    """The largest β·KL that can pay off: NLL of the best constant image minus the floor, in nats.

    At an optimum KL <= budget / β, for every network. The floor is the NLL of decoding every
    image by itself; it is minus infinity, and the budget infinite, for learned variances and for
    the continuous Bernoulli if a varying pixel is ever exactly 0 or 1.
    Parameters and errors as in ``collapse_spectrum``. One pass over the data.

    Examples
    --------
    >>> round(information_budget(np.array([[0.0, 0.5], [1.0, 0.5]])), 3)  # log 2
    0.693
    """
    likelihood = as_likelihood(likelihood)
    batches = Batches(x, likelihood)
    if likelihood.median_scale is not None:
        return _around_the_median(batches, likelihood)
    if likelihood.variance is None:
        raise ValueError(f"{likelihood} couples its outputs: its budget is not known here")
    if likelihood.outputs == 2:  # a learned variance: nothing bounds the density
        return math.inf
    if likelihood.cost is None:
        _, mean, spread = moments(batches, full=False)
        return float((spread / (2 * likelihood.variance(mean, spread))).sum())
    # Both NLLs are one concave function of the pixel, at the mean pixel and on average.
    cost = likelihood.cost
    n, total, floor, first, varies = 0, 0.0, 0.0, None, False
    for batch in batches:
        batch = batch.astype(np.float64)
        first = batch[0] if first is None else first
        varies = varies | (batch != first).any(0)
        n, total = n + len(batch), total + batch.sum(0)
        floor = floor + cost(batch).sum(0)
        if np.isneginf(floor[varies]).any():
            return math.inf
    check_moments(n, total)
    if not varies.any():
        return 0.0
    return float((cost(total[varies] / n) - floor[varies] / n).sum())


def _around_the_median(batches: Batches, likelihood: Likelihood) -> float:
    middle, n, total = medians(batches), 0, 0.0
    for batch in batches:
        n, total = n + len(batch), total + np.abs(batch - middle).sum(0, dtype=np.float64)
    check_moments(n, total)
    return float(total.sum() / n / likelihood.median_scale)
