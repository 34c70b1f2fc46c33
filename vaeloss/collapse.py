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

import argparse
import math
import sys
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg, sparse, special
from scipy.optimize import elementwise
from torch import Tensor

LIKELIHOODS = (
    "bernoulli",
    "gaussian",
    "gaussian-shared",
    "gaussian-per-pixel",
    "continuous-bernoulli",
)
EXACT_LIMIT = 4096  # values per sample up to which the D x D covariance is formed
Data = np.ndarray | Tensor | Iterable


def collapse_spectrum(
    x: Data, likelihood: str = "bernoulli", sigma2: float = 1.0, k: int | None = None
) -> NDArray[np.float64]:
    """The eigenvalues that β is compared with, in descending order: a unit lives above β.

    Parameters
    ----------
    x : (N, ...) array, tensor or memory map, or an iterable of batches (B, ...); of a batch that
        is a tuple or list, as a DataLoader gives, the first element is taken. Every axis but the
        first counts as pixels, D in all.
    likelihood : how the decoder's outputs are scored:
        "bernoulli", cross-entropy, pixels in [0, 1];
        "gaussian", fixed variance `sigma2`;
        "gaussian-shared", one learned variance, which is tr C / D at collapse;
        "gaussian-per-pixel", a learned variance for each pixel;
        "continuous-bernoulli", pixels in [0, 1]. Its spectrum is ruled by pixels that are almost
        never on: an upper bound in practice rather than a prediction.
    sigma2 : variance of the "gaussian" decoder, in squared pixel units.
    k : how many eigenvalues. Default: all D of them if D <= 4096, where they come from the
        covariance, else the 10 largest, from an iterative solver that passes over the data in
        mini-batches and needs memory for O(k) images.

    Returns
    -------
    (k,) eigenvalues, without unit. A pixel that never varies contributes a zero.

    Raises
    ------
    ValueError: fewer than two samples; NaN or infinite values; pixels outside [0, 1] where the
        likelihood needs them inside; batches of different shapes; an unknown likelihood; a
        one-shot iterator where several passes are needed.

    >>> x = np.array([[0, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1]])  # two equal pixels, one constant
    >>> collapse_spectrum(x).round(6).tolist()
    [2.0, 0.0, 0.0]
    """
    _check_arguments(likelihood, sigma2)
    batches = _Batches(x, unit_interval=likelihood.endswith("bernoulli"))
    d = batches.size
    if k is not None and not 1 <= k <= d:
        raise ValueError(f"k must lie between 1 and the {d} values of a sample, got {k}")
    exact = d <= EXACT_LIMIT
    n, mean, spread = _moments(batches, full=exact)
    variance = np.diag(spread) if exact else spread
    scale = _inverse_sqrt_information(likelihood, sigma2, mean, variance)
    if exact:
        matrix = spread * scale * scale[:, None]
        # All of them, at the same cost: LAPACK's search for the largest few can fail where
        # eigenvalues coincide, as those of one-hot vectors do.
        values = linalg.eigvalsh(matrix, overwrite_a=True)[d - (k or d) :]
    else:
        values = _largest_eigenvalues(batches, n, mean, scale, min(k or 10, d - 1))
    return np.maximum(np.sort(values)[::-1], 0.0)


def collapse_threshold(x: Data, likelihood: str = "bernoulli", sigma2: float = 1.0) -> float:
    """β*, the largest weight of the KL at which this data set keeps a latent alive.

    Above it the collapsed solution is locally stable for every decoder and encoder; below it a
    decoder that is free in its first-order response to z can always gain by leaving it.
    Parameters and errors as in `collapse_spectrum`. For squared error a·SSE + b·KL, use
    "gaussian" and compare b/(2a).

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(5000, 1)) * [3.0, 0.0] + rng.normal(size=(5000, 2))
    >>> round(collapse_threshold(x, "gaussian"), 0)  # variance 9 + 1 along the first axis
    10.0
    """
    return float(collapse_spectrum(x, likelihood, sigma2, k=1)[0])


def predicted_live_units(
    x: Data,
    beta: float,
    latent_dim: int | None = None,
    likelihood: str = "bernoulli",
    sigma2: float = 1.0,
) -> int:
    """How many latents a VAE with this β is expected to use: eigenvalues above β.

    Exact at an optimum for a linear Gaussian decoder; for others it counts the directions in
    which the collapsed solution is unstable. At most `latent_dim`, if given. Other parameters and
    errors as in `collapse_spectrum`; ValueError too if β is not a positive number.

    >>> predicted_live_units(np.array([[0.0, 0.0], [1.0, 1.0]]), beta=1.5)
    1
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    d = _Batches(x).size if not isinstance(x, Iterator) else EXACT_LIMIT
    limit = d if latent_dim is None else min(latent_dim, d)
    k = None if d <= EXACT_LIMIT else min(8, limit)
    while True:
        live = int((collapse_spectrum(x, likelihood, sigma2, k) > beta).sum())
        if k is None or live < k or k >= limit:
            return min(live, limit)
        k = min(2 * k, limit)


def information_budget(x: Data, likelihood: str = "bernoulli", sigma2: float = 1.0) -> float:
    """The largest β·KL that can pay off: NLL of the best constant image minus the floor, in nats.

    At an optimum KL <= budget / β, for every network. The floor is the NLL of decoding every
    image by itself; it is minus infinity, and the budget infinite, for learned variances and for
    the continuous Bernoulli if a varying pixel is ever exactly 0 or 1.
    Parameters and errors as in `collapse_spectrum`. One pass over the data.

    >>> round(information_budget(np.array([[0.0, 0.5], [1.0, 0.5]])), 3)  # log 2
    0.693
    """
    _check_arguments(likelihood, sigma2)
    if likelihood in ("gaussian-shared", "gaussian-per-pixel"):
        return math.inf
    batches = _Batches(x, unit_interval=likelihood.endswith("bernoulli"))
    if likelihood == "gaussian":
        return float(_moments(batches, full=False)[2].sum() / (2 * sigma2))
    # Both NLLs are one concave function of the pixel, at the mean pixel and on average.
    cost = _binary_entropy if likelihood == "bernoulli" else _continuous_bernoulli_cost
    n, total, floor, first, varies = 0, 0.0, 0.0, None, False
    for batch in batches:
        batch = batch.astype(np.float64)
        first = batch[0] if first is None else first
        varies = varies | (batch != first).any(0)
        n, total = n + len(batch), total + batch.sum(0)
        floor = floor + cost(batch).sum(0)
        if np.isneginf(floor[varies]).any():
            return math.inf
    _check_moments(n, total)
    if not varies.any():
        return 0.0
    return float((cost(total[varies] / n) - floor[varies] / n).sum())


class _Batches:
    """Float batches (B, D) from whatever x is, as often as asked."""

    def __init__(self, x: Data, unit_interval: bool = False):
        if isinstance(x, Tensor):
            x = x.detach().cpu()
            x = (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).numpy()
        self.one_shot = isinstance(x, Iterator)
        self.unit_interval = unit_interval
        self.first = None
        if isinstance(x, np.ndarray):
            if x.ndim < 2 or len(x) == 0:
                raise ValueError(f"x has shape {x.shape}, expected (samples, pixels...)")
            self.size = math.prod(x.shape[1:])
            # Around 32 MB of floats at a time: large enough for fast products.
            rows = max(1, 2**23 // max(1, self.size))
            self.source = [x[i : i + rows] for i in range(0, len(x), rows)]
        elif isinstance(x, Iterable):
            self.source = x
            iterator = iter(x)
            self.first = next(iterator, None)
            if self.first is None:
                raise ValueError("x is an iterable without a batch")
            self.size = math.prod(_as_array(self.first).shape[1:])
            if self.one_shot:
                self.rest = iterator
        else:
            raise TypeError(f"x is a {type(x).__name__}, expected an array, tensor or batches")
        if self.size == 0:
            raise ValueError("the samples of x have no values")

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.one_shot and self.first is None:
            raise ValueError(
                f"x is a one-shot iterator, and {self.size} values per sample need several passes: "
                "give a list of batches, a DataLoader, an array or a memory map"
            )
        if self.one_shot:
            yield self._clean(self.first)
            self.first = None
            yield from map(self._clean, self.rest)
        else:
            yield from map(self._clean, self.source)

    def _clean(self, batch) -> np.ndarray:
        batch = _as_array(batch)
        if batch.dtype.kind not in "fiub":
            raise ValueError(f"x has dtype {batch.dtype}, expected real numbers")
        batch = batch.reshape(len(batch), -1)
        if batch.shape[1] != self.size:
            raise ValueError(f"batches have {self.size} and {batch.shape[1]} values per sample")
        wide = batch.dtype.kind != "b" and batch.dtype.itemsize >= 4 and batch.dtype != np.float32
        batch = batch.astype(np.float64 if wide else np.float32, copy=False)
        if self.unit_interval and (batch.min() < 0 or batch.max() > 1):
            raise ValueError(
                f"pixels run from {batch.min():g} to {batch.max():g}, but a Bernoulli decoder "
                "needs [0, 1]: rescale them (bytes: divide by 255), or use a Gaussian likelihood"
            )
        return batch


def _as_array(batch) -> np.ndarray:
    batch = batch[0] if isinstance(batch, tuple | list) else batch
    batch = batch.detach().cpu().numpy() if isinstance(batch, Tensor) else np.asarray(batch)
    if batch.ndim < 2 or len(batch) == 0:
        raise ValueError(f"a batch of x has shape {batch.shape}, expected (samples, pixels...)")
    return batch


def _moments(batches: _Batches, full: bool) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of samples, mean (D,), and covariance (D, D) or only its diagonal (D,)."""
    d = batches.size
    n, total, shifted, second = 0, np.zeros(d), np.zeros(d), np.zeros((d, d) if full else d)
    origin = None
    for batch in batches:
        # Relative to the first sample, a constant pixel is exactly zero and large offsets cancel.
        origin = batch[0].copy() if origin is None else origin
        y = batch - origin
        n += len(y)
        total += batch.sum(0, dtype=np.float64)
        shifted += y.sum(0, dtype=np.float64)
        second += y.T @ y if full else np.square(y, out=y).sum(0, dtype=np.float64)
    _check_moments(n, total)
    shifted /= n
    return n, total / n, second / n - (np.outer(shifted, shifted) if full else shifted**2)


def _check_moments(n: int, total: np.ndarray) -> None:
    if n < 2:
        raise ValueError("x has one sample: a covariance needs at least two")
    if not np.isfinite(total).all():
        raise ValueError("x contains NaN or infinite values: remove those samples first")


def _inverse_sqrt_information(likelihood, sigma2, mean, variance) -> np.ndarray:
    information = {
        "bernoulli": lambda: mean * (1 - mean),
        "gaussian": lambda: np.full_like(mean, sigma2),
        "gaussian-shared": lambda: np.full_like(mean, variance.mean()),
        "gaussian-per-pixel": lambda: variance,
        "continuous-bernoulli": lambda: _continuous_bernoulli_variance(mean),
    }[likelihood]
    varies = variance > 0
    return np.divide(1.0, np.sqrt(information()), out=np.zeros_like(mean), where=varies)


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


def _binary_entropy(p: np.ndarray) -> np.ndarray:
    return special.entr(p) + special.entr(1 - p)


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


def _continuous_bernoulli_variance(mean: np.ndarray) -> np.ndarray:
    a = _continuous_bernoulli_rate(mean)
    small = a < 1e-2
    b = np.where(small, 1.0, a)
    return np.where(small, 1 / 12 - a**2 / 240, 1 / b**2 - np.exp(-b) / np.expm1(-b) ** 2)


def _continuous_bernoulli_cost(mean: np.ndarray) -> np.ndarray:
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


def _check_arguments(likelihood: str, sigma2: float) -> None:
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"unknown likelihood {likelihood!r}: use one of {', '.join(LIKELIHOODS)}")
    if not (np.isfinite(sigma2) and sigma2 > 0):
        raise ValueError(f"sigma2 must be a positive variance in squared pixel units, got {sigma2}")
    if sigma2 != 1.0 and likelihood != "gaussian":
        raise ValueError(f"sigma2 belongs to the 'gaussian' likelihood, not to {likelihood!r}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m vaeloss threshold`."""
    parser.add_argument("data", help=".npy file with an array (samples, pixels...)")
    parser.add_argument("--likelihood", choices=LIKELIHOODS, default="bernoulli")
    parser.add_argument("--sigma2", type=float, default=1.0, help="variance of 'gaussian'")
    parser.add_argument(
        "--loss-beta",
        type=float,
        metavar="BETA",
        help="the loss's weight of the summed KL against the summed negative log-likelihood",
    )


def run(args: argparse.Namespace) -> int:
    """Say in one sentence whether a loss collapses on the data; 2 if the data cannot be used."""
    try:
        x = np.load(args.data, mmap_mode="r", allow_pickle=False)
        if not isinstance(x, np.ndarray):
            raise ValueError("expected a .npy file with one array, got an archive")
        beta_star = collapse_threshold(x, args.likelihood, args.sigma2)
    except (OSError, ValueError) as error:
        print(f"threshold: {args.data}: {error}", file=sys.stderr)
        return 2
    known = (
        f"β* = {beta_star:.4g} for a {args.likelihood} decoder on {len(x):,} samples of "
        f"{math.prod(x.shape[1:]):,} values"
    )
    if args.loss_beta is None:
        print(f"{known}.")
    elif args.loss_beta > beta_star:
        print(f"This loss will collapse: its β = {args.loss_beta:g} is above {known}.")
    else:
        print(f"This loss need not collapse: its β = {args.loss_beta:g} is not above {known}.")
    return 0
