"""Tokens: a categorical likelihood has one-hot vectors for scores, and couples its outputs.

The information of one position is diag(p) - pp', which is singular: adding a constant to all logits
changes nothing. On scores, which add up to zero, 1/p is a generalised inverse of it. So the Pearson
residuals of symbol v at a position are (1[x = v] - p_v) / sqrt(p_v), and their covariance has the
spectrum that β is compared with.
"""

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from vaeloss.collapse.batches import Batches
from vaeloss.collapse.condition import Residuals
from vaeloss.collapse.eigen import EXACT_LIMIT

BLOCK = 2**23  # values of one-hot vectors held at a time


class OneHot:
    """Batches of tokens (B, T) as one-hot vectors (B, T · classes): sparse if they are long."""

    def __init__(self, batches: Batches, classes: int):
        self.batches, self.classes, self.keep = batches, classes, batches.keep
        self.size = batches.size * classes

    def __iter__(self) -> Iterator:
        for _, ones in self.numbered():
            yield ones

    def numbered(self) -> Iterator[tuple[np.ndarray, np.ndarray | sparse.csr_matrix]]:
        """Batches with the numbers of their samples."""
        offsets = np.arange(self.batches.size) * self.classes
        dense = self.size <= EXACT_LIMIT
        rows = max(1, (BLOCK // self.size) if dense else BLOCK // self.batches.size)
        for numbers, batch in self.batches.numbered():
            if not np.isfinite(batch).all():
                raise ValueError("x contains NaN or infinite values: remove those samples first")
            for i in range(0, len(batch), rows):
                columns = batch[i : i + rows].astype(np.int64) + offsets
                if dense:
                    ones = np.zeros((len(columns), self.size), np.float32)
                    ones[np.arange(len(columns))[:, None], columns] = 1
                else:
                    starts = np.arange(len(columns) + 1) * self.batches.size
                    ones = np.ones(columns.size, np.float32)
                    shape = (len(columns), self.size)
                    ones = sparse.csr_matrix((ones, columns.ravel(), starts), shape)
                yield numbers[i : i + rows], ones


def information(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """The share of each symbol, (T · classes,): what the covariance is divided by."""
    return np.where(mean > 0, mean, 1.0)


class Whitened:
    """Residuals of one-hot vectors, in units in which the averaged information is the identity.

    ``residuals`` are those of ``vaeloss.collapse.condition``: of decoders that add logits to what
    is given, the blocks diag(p) - pp' of all samples count.
    """

    def __init__(self, residuals: Residuals, classes: int):
        self.residuals, self.size = residuals, residuals.size
        t = residuals.size // classes
        diagonal, products, n = np.zeros((t, classes)), np.zeros((t, classes, classes)), 0
        for p in residuals.given_means():
            p = p.reshape(len(p), t, classes)
            diagonal, n = diagonal + p.sum(0), n + len(p)
            products += np.einsum("btk,btl->tkl", p, p)
        blocks = (np.eye(classes) * diagonal[:, None] - products) / n
        curves, axes = np.linalg.eigh(blocks)
        flat = curves <= 1e-9
        self.axes = axes * np.where(flat, 0, 1 / np.sqrt(np.where(flat, 1, curves)))[:, None]

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self.residuals:
            scores = batch.reshape(len(batch), len(self.axes), -1)
            yield np.einsum("btk,tkl->btl", scores, self.axes).reshape(len(batch), -1)
