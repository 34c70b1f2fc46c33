"""What a code can pay for at most, in nats."""

import math

import numpy as np

from vaeloss.collapse.batches import Batches, Data, check_moments, moments
from vaeloss.collapse.constant import binary_entropy, check_arguments, continuous_bernoulli_cost


def information_budget(x: Data, likelihood: str = "bernoulli", sigma2: float = 1.0) -> float:
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
    check_arguments(likelihood, sigma2)
    if likelihood in ("gaussian-shared", "gaussian-per-pixel"):
        return math.inf
    batches = Batches(x, unit_interval=likelihood.endswith("bernoulli"))
    if likelihood == "gaussian":
        return float(moments(batches, full=False)[2].sum() / (2 * sigma2))
    # Both NLLs are one concave function of the pixel, at the mean pixel and on average.
    cost = binary_entropy if likelihood == "bernoulli" else continuous_bernoulli_cost
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
