"""What the data allow: the β above which a VAE collapses, computed before training.

A collapsed decoder answers every z with the best constant image. Perturb it by a first-order
response W to the latents and let the encoder answer optimally: the loss falls by
tr W'(C/β - S)W / 2 nats, where C is the covariance of the pixels and S the diagonal matrix of the
likelihood's Fisher information at the mean image. So collapse is stable if, and only if, β exceeds
the largest eigenvalue β* of S^(-1/2) C S^(-1/2); the book derives it in "A collapse you can
predict". For a linear decoder of fixed variance it is the condition of Lucas et al. 2019,
arXiv:1911.02469. β multiplies a KL summed over latents, beside a negative log-likelihood summed
over pixels.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from vaeloss.collapse.batches import Batches, Data, moments
from vaeloss.collapse.median import signs
from vaeloss.likelihoods import Likelihood, as_likelihood

EXACT_LIMIT = 4096  # values per sample up to which the D x D covariance is formed


def collapse_spectrum(
    x: Data, likelihood: Likelihood | str = "bernoulli", k: int | None = None
) -> NDArray[np.float64]:
    """The eigenvalues that β is compared with, in descending order: a unit lives above β.

    Parameters
    ----------
    x : array, Tensor or memory map, shape (N, ...), or iterable of batches (B, ...)
        Of a batch that is a tuple or list, as a DataLoader gives, the first element is taken. Every
        axis but the first counts as pixels, D in all.
    likelihood : Likelihood or str
        How the decoder's outputs are scored: an object of ``vaeloss.likelihoods``, what an audit
        found, or a name: "bernoulli", "gaussian", "gaussian(0.5)" with that variance,
        "gaussian-shared" and "gaussian-per-pixel" with learned ones, "poisson" … The link makes no
        difference. "continuous-bernoulli" is ruled by pixels that are almost never on: an upper
        bound in practice rather than a prediction. Under "laplace" a pixel that sits at its median
        in many images, black say, cannot leave it at any β > 0, and contributes a zero.
    k : int, optional
        How many eigenvalues. Default: all D of them if D <= 4096, where they come from the
        covariance, else the 10 largest, from an iterative solver that passes over the data in
        mini-batches and needs memory for O(k) images.

    Returns
    -------
    array, shape (k,)
        Eigenvalues, without unit. A pixel that never varies contributes a zero.

    Raises
    ------
    ValueError
        Fewer than two samples; NaN or infinite values; values that the likelihood cannot score;
        batches of different shapes; an unknown likelihood; a one-shot iterator where several
        passes are needed.

    Examples
    --------
    >>> x = np.array([[0, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1]])  # two equal pixels, one constant
    >>> collapse_spectrum(x).round(6).tolist()
    [2.0, 0.0, 0.0]
    """
    likelihood = as_likelihood(likelihood)
    batches = Batches(x, likelihood)
    d = batches.size
    if k is not None and not 1 <= k <= d:
        raise ValueError(f"k must lie between 1 and the {d} values of a sample, got {k}")
    if likelihood.variance is not None:
        claimed = likelihood.variance
    elif likelihood.median_scale is not None:
        batches, claimed = signs(batches, likelihood)
    else:
        raise ValueError(f"{likelihood} couples its outputs: its threshold is not known here")
    exact = d <= EXACT_LIMIT
    n, mean, spread = moments(batches, full=exact)
    variance = np.diag(spread) if exact else spread
    # Pearson residuals: the covariance in units of the variance that the likelihood claims.
    scale = np.zeros(d)
    varies = variance > 0
    np.divide(1.0, np.sqrt(claimed(mean, variance)), out=scale, where=varies)
    if exact:
        matrix = spread * scale * scale[:, None]
        # All of them, at the same cost: LAPACK's search for the largest few can fail where
        # eigenvalues coincide, as those of one-hot vectors do.
        values = linalg.eigvalsh(matrix, overwrite_a=True)[d - (k or d) :]
    else:
        values = _largest_eigenvalues(batches, n, mean, scale, min(k or 10, d - 1))
    return np.maximum(np.sort(values)[::-1], 0.0)


def collapse_threshold(x: Data, likelihood: Likelihood | str = "bernoulli") -> float:
    """β*, the largest weight of the KL at which this data set keeps a latent alive.

    Above it the collapsed solution is locally stable for every decoder and encoder; below it a
    decoder that is free in its first-order response to z can always gain by leaving it.
    Parameters and errors as in ``collapse_spectrum``; ``audit.likelihood`` is one. For squared
    error a·SSE + b·KL, use "gaussian" and compare b/(2a).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(5000, 1)) * [3.0, 0.0] + rng.normal(size=(5000, 2))
    >>> round(collapse_threshold(x, "gaussian"), 0)  # variance 9 + 1 along the first axis
    10.0
    """
    return float(collapse_spectrum(x, likelihood, k=1)[0])


def predicted_live_units(
    x: Data,
    beta: float,
    latent_dim: int | None = None,
    likelihood: Likelihood | str = "bernoulli",
) -> int:
    """How many latents a VAE with this β is expected to use: eigenvalues above β.

    Exact at an optimum for a linear Gaussian decoder; for others it counts the directions in
    which the collapsed solution is unstable. At most ``latent_dim``, if given. Other parameters and
    errors as in ``collapse_spectrum``; ValueError too if β is not a positive number.

    Examples
    --------
    >>> predicted_live_units(np.array([[0.0, 0.0], [1.0, 1.0]]), beta=1.5)
    1
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    d = Batches(x).size if not isinstance(x, Iterator) else EXACT_LIMIT
    limit = d if latent_dim is None else min(latent_dim, d)
    k = None if d <= EXACT_LIMIT else min(8, limit)
    while True:
        live = int((collapse_spectrum(x, likelihood, k) > beta).sum())
        if k is None or live < k or k >= limit:
            return min(live, limit)
        k = min(2 * k, limit)


def _largest_eigenvalues(batches, n, mean, scale, k) -> np.ndarray:
    def product(v):
        v = scale * v.ravel()
        out, offset = np.zeros(batches.size), mean @ v
        for batch in batches:
            w = batch @ v.astype(batch.dtype) - batch.dtype.type(offset)
            out += batch.T @ w - mean * w.sum(dtype=np.float64)
        return scale * out / n

    operator = sparse.linalg.LinearOperator((batches.size,) * 2, product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(batches.size)
    # An eigenvalue's error is of second order in the vector's, so this tolerance is ample.
    return sparse.linalg.eigsh(
        operator, k, which="LA", tol=1e-4, v0=start, return_eigenvectors=False
    )
