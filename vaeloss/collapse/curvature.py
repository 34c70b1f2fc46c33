"""Any likelihood that can be differentiated: its best constant, and the curvature there.

For a callable ``nll(x, out) -> (B,)`` nothing is known in closed form. The best constant output is
found by Newton's method; J is the covariance of the scores there, and H the second derivative of
the NLL *averaged over the data* (not the Fisher information, which is the same only for exponential
families). H is a number for each output, a block for each value (as under softmax), or couples all.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.sparse import linalg as iterative
from torch import Tensor

from vaeloss.collapse.batches import Batches

NLL = Callable[[Tensor, Tensor], Tensor]

ROWS = 2**20  # outputs differentiated at a time, in float64
FEW = 2000  # samples on which the best constant is first looked for
BLOCK = 256  # outputs up to which H is formed where all are coupled
STEPS = 200  # of Newton's method
NULL = 1e-9  # curvature below this share of the largest is none


class Curvature:
    """A constant output on the data: its mean NLL, gradient and second derivatives.

    Parameters
    ----------
    batches : Batches
        ``x`` is given to ``nll`` in its own shape: whole numbers as int64, others as float64.
    nll : callable
        ``nll(x, out)`` -> (B,), in nats, with ``out`` of shape ``(B, *out_shape)``.
    offset : array, (N, P), optional
        What the constant is added to: outputs of a decoder that knows something.
    """

    def __init__(
        self,
        batches: Batches,
        nll: NLL,
        out_shape: tuple[int, ...],
        offset: np.ndarray | None = None,
    ):
        self.batches, self.nll, self.shape, self.offset = batches, nll, tuple(out_shape), offset
        self.size = math.prod(self.shape)
        self.n = sum(len(batch) for batch in batches)
        if self.n < 2:
            raise ValueError("x has one sample: a covariance needs at least two")

    def _samples(self, few: bool) -> Iterator[tuple[Tensor, Tensor]]:
        rows, left = max(1, ROWS // self.size), FEW if few else self.n
        for numbers, batch in self.batches.numbered():
            numbers, batch = numbers[:left], batch[:left]
            left -= len(batch)
            if not np.isfinite(batch).all():
                raise ValueError("x contains NaN or infinite values: remove those samples first")
            x = torch.from_numpy(batch.astype(np.int64 if self.batches.whole else np.float64))
            x = x.view(-1, *self.batches.shape)
            for i in range(0, len(x), rows):
                part = x[i : i + rows]
                known = 0.0 if self.offset is None else self.offset[numbers[i : i + rows]]
                known = torch.as_tensor(known, dtype=torch.double).expand(len(part), self.size)
                yield part, known.view(-1, *self.shape)
            if left <= 0:
                return

    def _nll(self, x: Tensor, out: Tensor) -> Tensor:
        try:
            values = self.nll(x, out)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"[:150]
            raise ValueError(
                f"nll(x, out) failed with x {tuple(x.shape)}, {x.dtype}, and out "
                f"{tuple(out.shape)}, {out.dtype}: {text}"
            ) from error
        if not isinstance(values, Tensor) or values.shape != (len(x),):
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"nll(x, out) returned {got}: return nats for each sample, (B,)")
        if not values.requires_grad and out.requires_grad:
            raise ValueError("nll(x, out) has no gradient: write it with torch, without .detach()")
        return values

    def value(self, b: np.ndarray, few: bool = False) -> float:
        """Mean NLL of this output, infinite or NaN where it has none."""
        total, n = 0.0, 0
        with torch.no_grad():
            for x, known in self._samples(few):
                total += float(self._nll(x, known + self._reshaped(b)).sum())
                n += len(x)
        return total / n

    def _reshaped(self, b: np.ndarray) -> Tensor:
        return torch.as_tensor(b, dtype=torch.double).view(self.shape)

    def products(self, b: np.ndarray, vectors: np.ndarray, few: bool = False):
        """Gradient (P,), and H times each of ``vectors`` (V, P)."""
        gradient, out, n = np.zeros(self.size), np.zeros((len(vectors), self.size)), 0
        directions = torch.as_tensor(vectors).view(-1, *self.shape)
        for x, known in self._samples(few):
            outputs = (known + self._reshaped(b)).requires_grad_()
            [score] = torch.autograd.grad(self._nll(x, outputs).sum(), outputs, create_graph=True)
            gradient += score.detach().sum(0).reshape(-1).numpy()
            n += len(x)
            for i, v in enumerate(directions if score.requires_grad else []):
                [hv] = torch.autograd.grad(
                    (score * v).sum(), outputs, retain_graph=True, allow_unused=True
                )
                out[i] += 0.0 if hv is None else hv.sum(0).reshape(-1).numpy()
        return gradient / n, out / n

    def scores(self, b: np.ndarray) -> Iterator[np.ndarray]:
        """Batches (B, P) of the derivative of each sample's NLL."""
        for x, known in self._samples(few=False):
            outputs = (known + self._reshaped(b)).requires_grad_()
            [score] = torch.autograd.grad(self._nll(x, outputs).sum(), outputs)
            yield score.reshape(len(x), -1).numpy()

    def blocks(self, b: np.ndarray, size: int, few: bool = False):
        """Gradient (P,), and H as blocks (P / size, size, size) of neighbouring outputs."""
        combs = np.tile(np.eye(size), (1, self.size // size))  # read a column of each block at once
        gradient, columns = self.products(b, combs, few)
        blocks = columns.reshape(size, -1, size).transpose(1, 2, 0)
        return gradient, (blocks + blocks.transpose(0, 2, 1)) / 2

    def coupling(self, b: np.ndarray) -> int | None:
        """How many neighbouring outputs H couples: 1, the last axis, all; None if too many."""
        test = np.random.default_rng(0).standard_normal(self.size)
        truth = self.products(b, test[None], few=True)[1][0]
        for size in sorted({1, self.shape[-1], self.size}):
            if size > BLOCK:
                break
            blocks = self.blocks(b, size, few=True)[1]
            found = np.einsum("dij,dj->di", blocks, test.reshape(len(blocks), -1)).ravel()
            if np.allclose(found, truth, rtol=1e-6, atol=1e-8 * np.abs(truth).max()):
                return size
        return None


def best_constant(curve: Curvature) -> tuple[np.ndarray, int | None]:
    """The output with the least mean NLL, (P,), and how many neighbours H couples there.

    Raises
    ------
    ValueError
        None is found: the NLL is not finite, has a kink, or falls for ever.
    """
    starts = [np.full(curve.size, level) for level in (0.0, 0.5, 1.0)]
    if curve.offset is not None:
        starts = starts[:1]
    values = []
    for start in starts:
        try:
            values.append(curve.value(start, few=True))
        except ValueError as error:  # torch's own cross-entropy raises outside [0, 1]
            values.append(np.nan)
            failed = error
    if not np.isfinite(values).any():
        if np.isnan(values).all() and "failed" in locals():
            raise failed
        raise ValueError("nll(x, out) is not finite at outputs of 0, ½ and 1: give logits or logs")
    b = starts[int(np.nanargmin(np.where(np.isfinite(values), values, np.nan)))]
    # Off the start: zeros may hide a coupling.
    size = curve.coupling(b + 1e-3 * np.random.default_rng(1).random(curve.size))
    b = _newton(curve, b, size, few=True)
    size = curve.coupling(b)
    return _newton(curve, b, size, few=False), size


def _newton(curve: Curvature, b: np.ndarray, size: int | None, few: bool) -> np.ndarray:
    value = curve.value(b, few)
    # On few samples not to the end: logits of values that are constant there would saturate.
    enough = 1e-4 if few else 1e-16
    for i in range(STEPS):
        step, gain = _step(curve, b, size, few, first=few and i == 0)
        if gain < enough * max(1.0, abs(value)):
            return b
        length = 1.0
        while True:
            try:
                there = curve.value(b + length * step, few)
            except ValueError:  # outside of what the NLL is defined on
                there = np.inf
            if there <= value - 1e-4 * length * gain + 1e-13 * abs(value):
                break
            length /= 2
            if length < 1e-9:
                raise ValueError(
                    "no best constant output was found for this nll: its gradient does not vanish "
                    "where no step lowers it. Has it a kink, as absolute error has? Then name it: "
                    "'laplace'"
                )
        b, value = b + length * step, there
    raise ValueError(FALLS)


FALLS = (
    "no best constant output was found for this nll by Newton's method: does it fall for ever, as "
    "a log-likelihood does whose variance may go to zero?"
)


def _step(curve, b, size, few, first):
    """Newton's step, and twice what it should gain."""
    if size is None:
        gradient = curve.products(b, np.zeros((0, curve.size)), few)[0]
        operator = iterative.LinearOperator(
            (curve.size,) * 2, matvec=lambda v: curve.products(b, v.reshape(1, -1), few)[1][0]
        )
        step = iterative.cg(operator, -gradient, rtol=1e-6, maxiter=100)[0]
        return step, float(-gradient @ step)
    gradient, blocks = curve.blocks(b, size, few)
    if not blocks.any() and not first:
        raise ValueError(FALLS)
    if not blocks.any():
        raise ValueError(
            "this nll has a score but no curvature anywhere, as absolute error has: β* needs the "
            "density of the data at their median, so name it: 'laplace'"
        )
    # Where the NLL is concave or flat, downhill at the pace of the rest.
    curves, axes = np.linalg.eigh(blocks)
    curves = np.abs(curves)
    curves = np.where(curves > NULL * curves.max(), curves, curves.max())
    along = np.einsum("dij,di->dj", axes, gradient.reshape(len(blocks), -1))
    step = -np.einsum("dij,dj->di", axes, along / curves).ravel()
    return step, float(-gradient @ step)


class Whitened:
    """Scores at the best constant, in units in which H is the identity.

    Raises
    ------
    ValueError
        H is not that of a minimum, or a direction with a score has no curvature: a kink.
    """

    def __init__(self, curve: Curvature, b: np.ndarray, size: int):
        self.curve, self.b, self.size = curve, b, curve.size
        curves, axes = np.linalg.eigh(curve.blocks(b, size)[1])
        if curves.min() < -1e-6 * curves.max():
            raise ValueError(
                "the best constant output of this nll is no minimum: a second derivative is "
                "negative there"
            )
        flat = curves <= NULL * curves.max()
        squares = np.zeros(curves.shape)
        for scores in curve.scores(b):
            squares += np.square(self._along(scores, axes)).sum(0)
        squares /= curve.n
        if (flat & (squares > 1e-6 * squares.max())).any():
            where = int(np.argmax(np.where(flat, squares, 0.0)) // size)
            raise ValueError(
                f"this nll has a score but no curvature at value {where}: a kink, as absolute "
                "error has. β* needs the density of the data at their median: name it, 'laplace'"
            )
        self.axes = axes * np.where(flat, 0.0, 1 / np.sqrt(np.where(flat, 1.0, curves)))[:, None]

    @staticmethod
    def _along(scores: np.ndarray, axes: np.ndarray) -> np.ndarray:
        """(B, P) along the columns of (D, K, K): (B, D, K)."""
        return np.einsum("bdi,dij->bdj", scores.reshape(len(scores), len(axes), -1), axes)

    def __iter__(self) -> Iterator[np.ndarray]:
        for scores in self.curve.scores(self.b):
            yield self._along(scores, self.axes).reshape(len(scores), -1)


def coupled_spectrum(curve: Curvature, b: np.ndarray, k: int) -> np.ndarray:
    """The largest k eigenvalues of H⁻¹J from products alone, where H couples many outputs."""

    def j(v):
        v, out = v.reshape(curve.size, -1), 0.0
        for scores in curve.scores(b):
            out = out + scores.T @ (scores @ v)
        return out / curve.n

    def h(v):
        products = curve.products(b, np.ascontiguousarray(v.reshape(curve.size, -1).T))[1]
        # What has neither score nor curvature must not divide by zero.
        return products.T + ridge * v.reshape(curve.size, -1)

    ridge = 0.0
    start = np.random.default_rng(0).standard_normal((curve.size, k + 4))
    sizes = np.square(start).sum(0)
    ridge = NULL * float(np.abs((start * h(start)).sum(0) / sizes).max())
    shape = (curve.size,) * 2
    values, _ = iterative.lobpcg(
        iterative.LinearOperator(shape, matvec=j, matmat=j, dtype=np.float64),
        start,
        B=iterative.LinearOperator(shape, matvec=h, matmat=h, dtype=np.float64),
        tol=1e-6 * float(np.square(j(start)).sum() ** 0.5),
        maxiter=300,
    )
    return np.sort(values)[::-1][:k]


def steps_to_samples(curve: Curvature, b: np.ndarray, size: int | None) -> np.ndarray:
    """One step of Newton's method from the best constant output towards each sample, (N', P)."""
    scores = np.concatenate(list(curve.scores(b)))
    if size is None:
        return -scores
    inverse = np.linalg.pinv(curve.blocks(b, size)[1], rcond=NULL, hermitian=True)
    along = scores.reshape(len(scores), len(inverse), -1)
    return -np.einsum("dij,bdj->bdi", inverse, along).reshape(len(scores), -1)
