"""The largest eigenvalues of a covariance, of data that may not fit into memory."""

import math
import warnings
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse import linalg as iterative

EXACT_LIMIT = 4096  # size up to which a square matrix is formed, of values or of samples
HELD = 2**28  # values that may be held at a time: 1 GB in float32


def moments(rows: Iterable, size: int, full: bool) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of rows, mean (D,), and covariance (D, D) or only its diagonal (D,).

    ``rows`` are batches (B, D), dense or, where only the diagonal is wanted, sparse.
    """
    n, total, shifted = 0, np.zeros(size), np.zeros(size)
    second = np.zeros((size, size) if full else size)
    origin = None
    for batch in rows:
        n += batch.shape[0]
        if sparse.issparse(batch):
            total += np.asarray(batch.sum(0)).ravel()
            second += np.asarray(batch.multiply(batch).sum(0)).ravel()
            shifted = total
            continue
        # Relative to the first sample, a constant pixel is exactly zero and large offsets cancel.
        origin = batch[0].copy() if origin is None else origin
        y = batch - origin
        sums = y.sum(0, dtype=np.float64)
        shifted += sums
        total += sums + len(y) * origin.astype(np.float64)
        second += y.T @ y if full else np.square(y, out=y).sum(0, dtype=np.float64)
    check_moments(n, total)
    shifted = shifted / n
    return n, total / n, second / n - (np.outer(shifted, shifted) if full else shifted**2)


def check_moments(n: int, total: np.ndarray) -> None:
    """ValueError if these samples have no covariance; ``total`` is their sum."""
    if n < 2:
        raise ValueError("x has one sample: a covariance needs at least two")
    if not np.isfinite(total).all():
        raise ValueError("x contains NaN or infinite values: remove those samples first")


def spectrum(
    rows: Iterable,
    size: int,
    information: Callable[[np.ndarray, np.ndarray], np.ndarray] | None,
    k: int | None,
) -> NDArray[np.float64]:
    """Eigenvalues of the covariance of rows, in units of what ``information`` claims.

    Parameters
    ----------
    rows : iterable of (B, D)
        Gone through several times.
    size : int
        D.
    information : callable or None
        ``information(mean, variance)``, each (D,): the variance that is claimed for each column;
        None: one.
    k : int, optional
        How many; default: all D, or 10 if no square matrix can be formed.

    Returns
    -------
    array, (k,)
        In descending order. A column that never varies contributes a zero.
    """
    full = size <= EXACT_LIMIT
    n, mean, spread = moments(rows, size, full)
    variance = np.diag(spread) if full else spread
    varies = variance > 0
    scale = np.zeros(size)
    claimed = np.ones(size) if information is None else information(mean, variance)
    np.divide(1.0, np.sqrt(claimed), out=scale, where=varies)
    if full:
        values = _of_matrix(spread * scale * scale[:, None], k or size)
    elif n <= EXACT_LIMIT and n * size <= HELD:
        # Few samples: the inner products of samples have the same eigenvalues, but for zeros.
        held = np.concatenate([_dense(batch) for batch in rows])
        held = (held - mean.astype(held.dtype)) * scale.astype(held.dtype)
        values = _of_matrix((held @ held.T / n).astype(np.float64), min(k or n, n))
        values = np.concatenate([values, np.zeros(max(0, (k or size) - len(values)))])
    else:
        values = _of_products(rows, size, n, mean, scale, min(k or 10, size - 1))
    return np.maximum(np.sort(values)[::-1], 0.0)


def _dense(batch) -> np.ndarray:
    return batch.toarray() if sparse.issparse(batch) else batch


def _of_matrix(matrix: np.ndarray, k: int) -> np.ndarray:
    size = len(matrix)
    if 20 * k < size and matrix.any():
        start = np.random.default_rng(0).standard_normal(size)
        try:
            return iterative.eigsh(matrix, k, which="LA", v0=start, return_eigenvectors=False)
        except iterative.ArpackError:  # many equal eigenvalues, as one-hot vectors have
            pass
    # All of them: LAPACK's search for the largest few can fail where eigenvalues coincide.
    return linalg.eigvalsh(matrix)[size - k :]


def _of_products(rows, size, n, mean, scale, k) -> np.ndarray:
    """The largest k by passing over the data; memory for a few vectors."""

    def product(v):
        v = scale[:, None] * v.reshape(size, -1)
        out, offset = np.zeros(v.shape), mean @ v
        for batch in rows:
            w = batch @ v.astype(batch.dtype) - offset.astype(batch.dtype)
            out += batch.T @ w - np.outer(mean, w.sum(0, dtype=np.float64))
        return scale[:, None] * out / n

    # Some more vectors than are wanted share each pass, and save passes: 6 to 8 for images.
    start = product(np.random.default_rng(0).standard_normal((size, k + 4)))
    operator = iterative.LinearOperator(
        (size, size), matvec=product, matmat=product, dtype=np.float64
    )
    largest = math.sqrt(np.square(product(start)).sum() / np.square(start).sum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eigenvectors behind the k-th need not converge
        # An eigenvalue's error is of second order in the vector's, so this tolerance is ample.
        values, _ = iterative.lobpcg(operator, start, tol=1e-3 * largest, maxiter=200)
    return np.sort(values)[::-1][:k]
