"""The best constant output under each likelihood: its variance function and what it costs.

A collapsed decoder answers with it. Its variances scale the covariance of the data in
``vaeloss.collapse.local``; its cost bounds what a code can pay for in ``vaeloss.collapse.rate``.
"""

import numpy as np
from scipy import special
from scipy.optimize import elementwise

LIKELIHOODS = (
    "bernoulli",
    "gaussian",
    "gaussian-shared",
    "gaussian-per-pixel",
    "continuous-bernoulli",
)


def check_arguments(likelihood: str, sigma2: float) -> None:
    """ValueError if the likelihood is unknown, or the variance makes no sense with it."""
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"unknown likelihood {likelihood!r}: use one of {', '.join(LIKELIHOODS)}")
    if not (np.isfinite(sigma2) and sigma2 > 0):
        raise ValueError(f"sigma2 must be a positive variance in squared pixel units, got {sigma2}")
    if sigma2 != 1.0 and likelihood != "gaussian":
        raise ValueError(f"sigma2 belongs to the 'gaussian' likelihood, not to {likelihood!r}")


def inverse_deviation(
    likelihood: str, sigma2: float, mean: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    """1 / sqrt(V) of each pixel (D,), V the variance that the likelihood claims at this mean.

    Parameters
    ----------
    mean, variance : array, shape (D,)
        Of the data; a pixel that never varies gets a zero.
    """
    claimed = {
        "bernoulli": lambda: mean * (1 - mean),
        "gaussian": lambda: np.full_like(mean, sigma2),
        "gaussian-shared": lambda: np.full_like(mean, variance.mean()),
        "gaussian-per-pixel": lambda: variance,
        "continuous-bernoulli": lambda: _continuous_bernoulli_variance(mean),
    }[likelihood]
    varies = variance > 0
    return np.divide(1.0, np.sqrt(claimed()), out=np.zeros_like(mean), where=varies)


def binary_entropy(p: np.ndarray) -> np.ndarray:
    """Entropy in nats of pixels that are on with probability p."""
    return special.entr(p) + special.entr(1 - p)


def continuous_bernoulli_cost(mean: np.ndarray) -> np.ndarray:
    """NLL in nats of a pixel of this mean under the best continuous Bernoulli; -inf at 0 and 1."""
    levels, where = np.unique(
        mean, return_inverse=True
    )  # grey levels are few, root finding is slow
    return _cost_of_levels(levels)[where].reshape(mean.shape)


def _cost_of_levels(mean: np.ndarray) -> np.ndarray:
    a = _continuous_bernoulli_rate(mean)
    small = np.minimum(mean, 1 - mean)
    b = np.where((a > 0) & np.isfinite(a), a, 1.0)
    cost = np.where(a > 0, np.log(-np.expm1(-b) / b) + b * small, 0.0)
    return np.where(np.isinf(a), -np.inf, cost)


def _continuous_bernoulli_variance(mean: np.ndarray) -> np.ndarray:
    a = _continuous_bernoulli_rate(mean)
    small = a < 1e-2
    b = np.where(small, 1.0, a)
    return np.where(small, 1 / 12 - a**2 / 240, 1 / b**2 - np.exp(-b) / np.expm1(-b) ** 2)


def _continuous_bernoulli_rate(mean: np.ndarray) -> np.ndarray:
    """a >= 0 such that the density a·exp(-a x)/(1 - exp(-a)) on [0, 1] has mean min(m, 1 - m)."""
    mean = np.minimum(mean, 1 - mean)
    with np.errstate(divide="ignore"):
        upper = 2 / mean  # the mean 1/a of an exponential is never below that of its truncation

    def excess(a, mean):
        small = a < 1e-2
        b = np.where(small, 1.0, a)
        exact = 1 / b - np.exp(-b) / -np.expm1(-b)
        return np.where(small, 0.5 - a / 12, exact) - mean

    found = elementwise.find_root(excess, (np.zeros_like(mean), upper), args=(mean,))
    return np.where(mean > 0, found.x, np.inf)
