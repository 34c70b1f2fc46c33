"""Decoders that see something besides the code: a label, or an input that fits a mean.

A *free* decoder may answer each label in another way: each label has a threshold of its own, and a
code pays as soon as it pays for one. A decoder that *adds* its answer to what the label gives has
one response for all: what counts is the covariance within the labels, averaged over them. It adds
to the natural parameter: to means under squared error, logits under cross-entropy, logarithms of
rates under Poisson, log(m / (m + r)) under a negative binomial.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy import sparse
from torch import Tensor

from vaeloss.likelihoods import Likelihood


def as_given(given) -> np.ndarray | None:
    """Labels (N,) of any kind as numbers from 0, or a fitted mean (N, ...) as it is.

    Raises
    ------
    ValueError
        It is neither.
    """
    if given is None:
        return None
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        small = given.is_floating_point() and given.dtype.itemsize < 4
        given = (given.float() if small else given).numpy()
    else:
        try:
            given = np.asarray(given)
        except ValueError as error:  # rows of different lengths
            raise ValueError("given is no array: one label a sample, (N,), or a mean") from error
    if given.dtype.kind == "O":
        given = given.astype(str)
    if given.ndim == 0 or len(given) == 0:
        raise ValueError("given has no samples: give one label a sample, (N,), or a fitted mean")
    if given.dtype.kind == "f" and not np.isfinite(given).all():
        raise ValueError("given contains NaN or infinite values: remove those samples first")
    if given.ndim == 2 and given.shape[1] == 1:
        raise ValueError(f"given has shape {given.shape}: labels are (N,), write given[:, 0]")
    if given.ndim == 1:
        values, numbers, counts = np.unique(given, return_inverse=True, return_counts=True)
        if counts.min() < 2:
            lonely = values[counts.argmin()]
            raise ValueError(
                f"label {lonely} has one sample, and a covariance needs two: are these labels? "
                "Merge rare ones, or give a fitted mean of the shape of x"
            )
        return numbers
    return given


def check_mean(given: np.ndarray, likelihood: Likelihood) -> None:
    """ValueError if this cannot be a fitted mean: outside of the support, or no probabilities."""
    low, high = likelihood.support
    tokens = likelihood.outputs > 1 and not likelihood.learned
    if tokens:
        low, high = 0.0, 1.0
    if given.min() < low or given.max() > high:
        raise ValueError(
            f"given runs from {given.min():g} to {given.max():g}: means of {likelihood.name} lie "
            f"in [{low:g}, {high:g}]; give means, not logits"
        )
    if tokens and given.shape[-1] == likelihood.outputs and np.abs(given.sum(-1) - 1).max() > 1e-3:
        raise ValueError("given holds no probabilities: those of the symbols do not add up to 1")


def labelled(given: np.ndarray, label: int, keep: Callable | None = None) -> Callable:
    """A ``keep`` for Batches: the samples with this label, of those that are kept anyway."""

    def chosen(start, stop):
        if stop > len(given):
            raise ValueError(f"given has {len(given)} samples, x has more")
        here = given[start:stop] == label
        return here if keep is None else here & keep(start, stop)

    return chosen


class Residuals:
    """Batches of x minus its mean given the label, or minus the fitted mean.

    Parameters
    ----------
    batches
        ``Batches``, or one-hot vectors.
    given : array
        Of ``as_given``.
    centre : array (L, D), optional
        What to subtract for each label instead of the mean: the median.
    """

    def __init__(self, batches, given: np.ndarray, centre: np.ndarray | None = None):
        self.batches, self.given, self.size = batches, given, batches.size
        self.fitted = given.ndim > 1
        if self.fitted:
            if math.prod(given.shape[1:]) != batches.size:
                raise ValueError(
                    f"given has shape {given.shape}: a fitted mean has {batches.size} values a "
                    "sample, as x; labels are (N,)"
                )
            self.given = given.reshape(len(given), -1)
            return
        sums, counts = 0.0, 0.0
        for numbers, batch in self._matched():
            labels = given[numbers]
            shape = (given.max() + 1, len(labels))
            of_label = sparse.csr_matrix(
                (np.ones(len(labels)), (labels, np.arange(len(labels)))), shape
            )
            sums = sums + of_label @ batch.astype(np.float64)
            counts = counts + np.bincount(labels, minlength=shape[0])
        self.means = sums / np.maximum(counts, 1)[:, None] if centre is None else centre

    def _matched(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        stop = 0
        for numbers, batch in self.batches.numbered():
            stop = numbers[-1] + 1
            if stop > len(self.given):
                raise ValueError(f"given has {len(self.given)} samples, x has more")
            yield numbers, batch
        if self.batches.keep is None and stop < len(self.given):
            raise ValueError(f"given has {len(self.given)} samples, x has {stop}")

    def _mean_of(self, numbers: np.ndarray) -> np.ndarray:
        return self.given[numbers] if self.fitted else self.means[self.given[numbers]]

    def __iter__(self) -> Iterator[np.ndarray]:
        for numbers, batch in self._matched():
            yield batch.astype(np.float64) - self._mean_of(numbers)

    def given_means(self) -> Iterator[np.ndarray]:
        """Batches (B, D) of what is subtracted."""
        for numbers, _ in self._matched():
            yield self._mean_of(numbers)

    def averaged(self, variance: Callable) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """The variance that a likelihood claims, averaged over the samples.

        ``variance(mean, spread)`` is that of a ``Likelihood``, and so is what is returned; spread
        is the variance of the residuals.
        """

        def average(_, spread):
            total, square, n = 0.0, 0.0, 0
            for means in self.given_means():
                total = total + variance(means, np.broadcast_to(spread, means.shape)).sum(0)
                square, n = np.maximum(square, np.square(means).max(0)), n + len(means)
            # Residuals that are round-off do not vary.
            varies = spread > 1e-26 * square
            if (varies & (total <= 0)).any():
                where = int(np.argmax(varies & (total <= 0)))
                raise ValueError(
                    f"given says that value {where} never varies, and it does: keep fitted means "
                    "off the edge, where the likelihood claims no variance"
                )
            return np.where(varies, total / n, np.inf)

        return average
