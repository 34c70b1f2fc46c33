r"""Looking for an output that pays: a lower bound of the global threshold.

Mixing a little of an output y into a collapsed decoder pays, for some prior, if
E[ρ(x)^(1/β)] > 1, where ρ(x) = p(x | y) / p(x | b) compares it with the best constant output b. The
largest such β of one y is its *price*: 1/β is the root s of log E exp(s log ρ) = 0. What is found
here is an output of high price, which proves that collapse is not optimal below that price.
"""

from collections.abc import Callable

import numpy as np
import torch

STARTS = 16
STEPS = 150
CLUSTER = 0.05  # share of the samples in a start


def price(log_ratio: np.ndarray, s: np.ndarray | None = None) -> np.ndarray:
    """The largest β at which outputs pay, from log ρ of N samples for S outputs: (N, S) -> (S,).

    Zero for an output that explains no sample better. ``s`` may hold an upper bound of 1/β.

    Examples
    --------
    >>> price(np.log([[2.0], [0.4]])).round(2)  # (2**s + 0.4**s) / 2 = 1 at s = 0.35
    array([2.86])
    """
    log_ratio = np.asarray(log_ratio, np.float64)
    best = log_ratio.max(0)
    pays = best > 0
    n = len(log_ratio)
    with np.errstate(divide="ignore", invalid="ignore"):
        # There log E exp(s log ρ) >= 0. It is convex in s: Newton's method falls to the root.
        top = np.where(pays, np.log(n) / best, 1.0)
    s = top if s is None else np.where(pays, np.minimum(s, top), 1.0)
    for _ in range(60):
        value, slope = _log_mean(log_ratio, s)
        step = np.where(pays & (value > 0) & (slope > 0), value / np.where(slope > 0, slope, 1), 0)
        s = s - step
        if (step < 1e-9 * s).all():
            break
    return np.where(pays, 1 / s, 0.0)


def _log_mean(log_ratio: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log E exp(s log ρ) and its derivative in s, each (S,)."""
    weights, value = tilted(log_ratio, s)
    return value, (weights * log_ratio).sum(0)


def tilted(log_ratio: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the samples, proportional to ρ^s, (N, S), and log E ρ^s, (S,)."""
    scaled = log_ratio * s
    top = scaled.max(0)
    weights = np.exp(scaled - top)
    total = weights.sum(0)
    return weights / total, top + np.log(total / len(log_ratio))


class Affine:
    """Outputs that are means: log ρ is affine in x, since the NLL is.

    With ``cost(m)``, the NLL of values of mean m under the output m, an output y costs
    cost(y) + cost'(y)·(x - y).

    Parameters
    ----------
    cost : callable
        Of arrays (..., D).
    room : callable
        How far a mean is from where the cost ends; one, if it does not.
    mean : array (D,)
        The best constant output.
    """

    def __init__(self, cost: Callable, room: Callable, mean: np.ndarray):
        self.cost, self.room, self.mean = cost, room, mean
        self.slope_of_mean, self.level_of_mean = self._tangent(mean)

    def _tangent(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        step = 1e-5 * self.room(y)
        slope = (self.cost(y + step) - self.cost(y - step)) / (2 * step)
        return slope, (self.cost(y) - slope * y).sum(-1)

    def log_ratio(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """log ρ of samples (N, D) for outputs (S, D): (N, S)."""
        slope, level = self._tangent(y)
        return (x @ (self.slope_of_mean - slope).T.astype(x.dtype)).astype(np.float64) + (
            self.level_of_mean - level
        )


def climb(model: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (S, D) of higher price, and their prices (S,).

    One step makes y the mean of the samples, weighted by ρ^(1/β): the step of an EM algorithm,
    which never lowers the price.
    """
    s, prices = None, np.zeros(len(y))
    low, high = x.min(0), x.max(0)
    for _ in range(STEPS):
        log_ratio = model.log_ratio(x, y)
        before, prices = prices, price(log_ratio, s)
        if (prices <= before * (1 + 1e-5)).all():
            break
        s = 1 / np.maximum(prices, 1e-300)
        weights, _ = tilted(log_ratio, s)
        y = np.clip(weights.T.astype(x.dtype) @ x, low, high)  # float32 may round past it
        # A trace of the mean keeps outputs off the edge, where the cost has no slope.
        y = (1 - 1e-6) * y.astype(np.float64) + 1e-6 * model.mean
    return y, prices


def starts(x: np.ndarray, mean: np.ndarray, scale: np.ndarray, count: int = STARTS) -> np.ndarray:
    """Outputs to start from, (S, D): means of the neighbours of some samples.

    Half of the samples are far from the mean, in units of ``scale``, half are any; the same at
    every call.
    """
    generator = np.random.default_rng(0)
    units = (1 / scale).astype(x.dtype)
    sizes = np.square((x - mean.astype(x.dtype)) * units).sum(1)
    far = np.argsort(sizes)[::-1][: 50 * count]
    chosen = np.concatenate(
        [generator.choice(far, count // 2), generator.choice(len(x), count - count // 2)]
    )
    few = max(1, int(CLUSTER * len(x)))
    y = []
    for i in chosen:
        near = np.argpartition((((x - x[i]) * units) ** 2).sum(1), few - 1)[:few]
        y.append(x[near].mean(0, dtype=np.float64))
    return 0.99 * np.array(y) + 0.01 * mean


def climb_by_gradient(
    nll: Callable, x: torch.Tensor, b: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, float]:
    """The same for any likelihood, one output (P,) at a time.

    Parameters
    ----------
    nll : callable
        ``nll(x, out)`` -> (N,), of one output (P,) for all samples.
    b : array (P,)
        The best constant output.
    """
    at_b = nll(x, torch.as_tensor(b)).detach()
    y = torch.tensor(y, dtype=torch.double, requires_grad=True)
    size = (y.detach() - torch.as_tensor(b)).abs().mean().item() or 1.0
    optimiser = torch.optim.Adam([y], lr=0.05 * size)
    best, found, idle = y.detach().clone(), 0.0, 0
    for _ in range(STEPS):
        log_ratio = at_b - nll(x, y)
        now = float(price(log_ratio.detach().numpy()[:, None])[0])
        idle = 0 if now > found * 1.001 else idle + 1
        if now > found:
            best, found = y.detach().clone(), now
        if idle == 20:
            break
        s = 1 / now if now > 0 else 1.0
        # Uphill at a fixed β, the price rises.
        loss = -torch.logsumexp(s * log_ratio, 0)
        [y.grad] = torch.autograd.grad(loss, y)
        if not torch.isfinite(y.grad).all():
            break
        optimiser.step()
    return best.numpy(), found
