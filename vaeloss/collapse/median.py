"""Collapse where the best constant is the median: absolute error has signs for scores.

The NLL ``abs(x - m) / b`` has no curvature but a kink. Averaged over the data it is curved all the
same, by 2 f(m) / b, where f is the density of the data at their median m. Where many values *equal*
the median, as black pixels do, the average has a kink as well: moving away costs something of first
order, what a code gains is of second order, so no β > 0 makes it pay. Such a median is an *atom*.
"""

from collections.abc import Callable, Iterator

import numpy as np

from vaeloss.collapse.batches import Batches

BLOCK = 2**24  # values held at a time: 128 MB in float64, four times in all


def signs(batches: Batches, b: float) -> tuple["Signs", Callable]:
    """The scores sign(x - m) as batches, and the curvature of the NLL in their units.

    Parameters
    ----------
    b : float
        The scale of the likelihood.

    Returns
    -------
    rows
        Batches (B, D) of signs; 0 for values whose median is an atom.
    information : callable
        ``information(mean, variance)``: b · 2 f(m) for each value, to divide the covariance by.
    """
    middle, density = middle_and_density(batches)
    moves = density > 0
    claimed = np.where(moves, 2 * b * density, 1.0)
    return Signs(batches, middle, moves), lambda mean, variance: claimed


class Signs:
    """Batches of sign(x - m), gone through as often as asked; ``held`` values are atoms."""

    def __init__(self, batches: Batches, middle: np.ndarray, moves: np.ndarray):
        self.batches, self.middle, self.moves = batches, middle, moves
        self.size = batches.size
        self.held = int((~moves).sum())

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self.batches:
            yield np.sign(batch - self.middle.astype(batch.dtype)) * self.moves


def medians(batches: Batches) -> np.ndarray:
    """The median of each value, (D,)."""
    return middle_and_density(batches)[0]


def middle_and_density(batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    """Median and density there, each (D,); a density of 0 stands for an atom, or a constant."""
    n = sum(len(batch) for batch in batches)
    if n < 2:
        raise ValueError("x has one sample: a covariance needs at least two")
    middle, density = np.zeros(batches.size), np.zeros(batches.size)
    step = max(1, BLOCK // n)
    for start in range(0, batches.size, step):
        columns = slice(start, start + step)
        values = np.concatenate([batch[:, columns] for batch in batches]).astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("x contains NaN or infinite values: remove those samples first")
        low, middle[columns], high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
        density[columns] = _density(values - middle[columns], high - low)
    return middle, density


def _density(distance: np.ndarray, quartiles: np.ndarray) -> np.ndarray:
    """Density at 0 of values (N, D), by a Gaussian kernel; 0 where an atom holds the values there.

    The width is Silverman's, 0.9 min(σ, IQR / 1.34) N^(-1/5). At a cusp, as Laplace's own density
    has, the estimate is about a tenth too low.
    """
    spread = np.minimum(distance.std(0), quartiles / 1.34)
    width = 0.9 * spread * len(distance) ** -0.2
    smooth = width > 0
    scaled = distance / np.where(smooth, width, 1.0)
    density = np.exp(-0.5 * scaled**2).mean(0) / (np.sqrt(2 * np.pi) * np.where(smooth, width, 1))
    # Of the values within one width, an atom has more than half at the very median. (Grey levels
    # are atoms of another kind: many of them lie within a width.)
    at_median = (distance == 0).sum(0)
    atom = (at_median > 1) & (at_median > 0.5 * (np.abs(scaled) < 1).sum(0))
    return np.where(smooth & ~atom, density, 0.0)
