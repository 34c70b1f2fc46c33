"""What the continuous Bernoulli makes of a mean: its variance and its cost, by root finding."""

import numpy as np
from scipy.optimize import elementwise


def cost(mean: np.ndarray) -> np.ndarray:
    """NLL in nats of a pixel of this mean under the best continuous Bernoulli; -inf at 0 and 1."""
    # Grey levels are few, root finding is slow.
    levels, where = np.unique(mean, return_inverse=True)
    return _cost_of_levels(levels)[where].reshape(mean.shape)


def _cost_of_levels(mean: np.ndarray) -> np.ndarray:
    a = _rate(mean)
    small = np.minimum(mean, 1 - mean)
    b = np.where((a > 0) & np.isfinite(a), a, 1.0)
    cost = np.where(a > 0, np.log(-np.expm1(-b) / b) + b * small, 0.0)
    return np.where(np.isinf(a), -np.inf, cost)


def variance(mean: np.ndarray) -> np.ndarray:
    """Variance of a pixel of this mean under a continuous Bernoulli."""
    a = _rate(mean)
    small = a < 1e-2
    b = np.where(small, 1.0, a)
    return np.where(small, 1 / 12 - a**2 / 240, 1 / b**2 - np.exp(-b) / np.expm1(-b) ** 2)


def _rate(mean: np.ndarray) -> np.ndarray:
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
