"""What a code pays for, in nats: at most, and in a linear decoder."""

import math

import numpy as np

from vaeloss.collapse.batches import Batches, Data
from vaeloss.collapse.eigen import check_moments, moments
from vaeloss.collapse.local import spectrum_above
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
    if likelihood.learned:  # nothing bounds the density
        return math.inf
    if likelihood.cost is None:
        _, mean, spread = moments(batches, batches.size, full=False)
        return float((spread / (2 * likelihood.variance(mean, spread))).sum())
    # Both NLLs are one concave function of the pixel, at the mean pixel and on average.
    cost = likelihood.cost
    n, total, floor, first, varies = 0, 0.0, 0.0, None, False
    for batch in batches:
        batch = batch.astype(np.float64)
        first = batch[0] if first is None else first
        varies = varies | (batch != first).any(0)
        n, total = n + len(batch), total + batch.sum(0)
        check_moments(n + 1, total)  # before the cost is asked of what is no number
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


def predicted_rate(
    x: Data,
    beta: float,
    likelihood: Likelihood | str = "gaussian",
    latent_dim: int | None = None,
) -> float:
    """KL of the best linear decoder at this β, in nats: reverse water-filling.

    Each eigenvalue above β, of ``collapse_spectrum``, holds a latent of ½·log(eigenvalue / β) nats.
    Exact for squared error with a fixed variance and a linear decoder (Lucas et al. 2019,
    arXiv:1911.02469; Berger 1971); a deeper one may spend more or less.

    Parameters
    ----------
    beta : float
        Weight of the summed KL; against half the squared error, for "gaussian".
    likelihood : Likelihood or str
        "gaussian" or "gaussian(sigma2)".
    latent_dim : int, optional
        The number of latents; default: as many as are needed.

    Raises
    ------
    ValueError
        As ``collapse_spectrum``; another likelihood; β is not a positive number.

    Examples
    --------
    >>> x = np.array([[2.0, 0.0], [-2.0, 0.0]])  # variance 4
    >>> round(predicted_rate(x, 1.0), 4)  # log 2
    0.6931
    """
    likelihood = as_likelihood(likelihood)
    if likelihood.variance is None or likelihood.cost is not None or likelihood.learned:
        raise ValueError(f"{likelihood}: the rate is known for squared error of a fixed variance")
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    limit = Batches(x).size if latent_dim is None else min(latent_dim, Batches(x).size)
    above = spectrum_above(x, beta, likelihood, limit)[:limit]
    return float(0.5 * np.log(above / beta).sum())
