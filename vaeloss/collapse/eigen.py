"""The largest eigenvalues of a covariance, of data that may not fit into memory."""

import warnings
from collections.abc import Callable, Iterable, Iterator

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
    with np.errstate(over="ignore", invalid="ignore"):  # said below, by name
        for batch in rows:
            n += batch.shape[0]
            if sparse.issparse(batch):
                total += np.asarray(batch.sum(0)).ravel()
                second += np.asarray(batch.multiply(batch).sum(0)).ravel()
                shifted = total
                continue
            origin = _origin(batch) if origin is None else origin
            y = batch - origin
            sums = y.sum(0, dtype=np.float64)
            shifted += sums
            total += sums + len(y) * origin.astype(np.float64)
            second += y.T @ y if full else np.square(y, out=y).sum(0, dtype=np.float64)
        check_moments(n, total)
        shifted = shifted / n
        second = second / n - (np.outer(shifted, shifted) if full else shifted**2)
    if not np.isfinite(second).all():
        raise ValueError("the values of x are too large to be squared: rescale them")
    diagonal = np.einsum("ii->i", second) if full else second
    np.maximum(diagonal, 0.0, out=diagonal)  # round-off
    return n, total / n, second


def _origin(batch: np.ndarray) -> np.ndarray:
    """What values are taken relative to, (D,): offsets cancel, a constant pixel is exactly zero.

    The median of a few samples, since one alone may be far from all others. In float64 where
    squares of float32 would leave their range.
    """
    few = batch[:: max(1, len(batch) // 8)][:9]
    origin = np.median(few, axis=0).astype(batch.dtype)
    reach = np.abs(few - origin).max()
    return origin if 1e-15 < reach < 1e15 else origin.astype(np.float64)


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
        # In float32 large offsets do not cancel inside a product.
        far = np.square(mean * scale).sum() > 1e4 * (variance * scale**2).sum()
        rows, mean = (_Centred(rows, mean), np.zeros(size)) if far else (rows, mean)
        values = _of_products(rows, size, n, mean, scale, min(k or 10, size - 1))
    return np.maximum(np.sort(values)[::-1], 0.0)


class _Centred:
    """Batches minus their mean."""

    def __init__(self, rows: Iterable, mean: np.ndarray):
        self.rows, self.mean = rows, mean

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self.rows:
            yield (batch - self.mean).astype(batch.dtype)


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
    if not start.any():
        return np.zeros(k)
    # Of data that few vectors span, the products alone would depend on one another.
    start = np.linalg.qr(start)[0]
    operator = iterative.LinearOperator(
        (size, size), matvec=product, matmat=product, dtype=np.float64
    )
    tolerance = 1e-3 * np.linalg.norm(product(start), axis=0).max()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eigenvectors behind the k-th need not converge
        # An eigenvalue's error is of second order in the vector's, so this tolerance is ample...
        values, vectors = iterative.lobpcg(operator, start, tol=tolerance, maxiter=200)
        values = np.sort(values)[::-1][:k]
        # ... for the largest, but not for one of a thousandth of it.
        finer = 0.01 * max(values[-1], 1e-3 * values[0])
        if tolerance > 3 * finer:
            values, _ = iterative.lobpcg(operator, vectors, tol=finer, maxiter=200)
    return np.sort(values)[::-1][:k]
