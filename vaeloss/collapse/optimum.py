r"""When is collapse optimal, and not only stable? Bounds of the global threshold.

For any prior and posterior, NLL + β·KL ≥ -β E log E_z p(x | y(z))^(1/β), with equality for the best
posterior (Gibbs). So a model gains at most β E log E_z ρ^(1/β) over collapse, where
ρ(x) = p(x | y) / p(x | b) compares an output y with the best constant one, b; and by Jensen's
inequality at most β log E_z E_x ρ^(1/β). If E_x ρ^(1/β) ≤ 1 for every output y, no decoder, prior,
posterior or schedule beats collapse; if some y violates it, a prior with a little mass on that y
does. The least such β is the *global threshold*. It is at least β\*, and for outputs that are
independent given z it is at most the sum of those of single values (Hölder). The book derives it in
"Why no network, prior or schedule helps".
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import special

from vaeloss.collapse import ascent, curvature, onehot
from vaeloss.collapse.batches import Batches, Data
from vaeloss.collapse.eigen import check_moments, moments
from vaeloss.collapse.local import Scored, Threshold, as_scored, collapse_threshold
from vaeloss.collapse.median import medians
from vaeloss.likelihoods import Likelihood

SEARCHED = 2**23  # values of the samples on which outputs are looked for
REFINED = 2**26  # values of those on which the best are followed up
FEW = 2**19  # values, for a likelihood that has to be differentiated
TRIED = 4  # outputs to start from, for such a likelihood

REASONS = {
    "values": "Hölder: no single value, alone and at its share of β, is worth a latent",
    "distance": "no sample is farther from the mean than the square root of it, in units of σ",
    "none": "no bound is known for this likelihood",
}


@dataclass(frozen=True)
class Verdict:
    r"""What a β does to a data set.

    Attributes
    ----------
    code : str
        "unstable": below β\*. "a-code-pays": stable, but a better output is known.
        "none-found": stable, and the search found nothing better. "optimal": proved.
    beta : float
        The weight of the KL that was asked about.
    margin : float
        β / β\*; infinite where β\* is 0.
    sentence : str
        The same for people.
    """

    code: str
    beta: float
    margin: float
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class CollapseBounds:
    r"""Where on the axis of β collapse is unstable, stable and optimal, for one data set.

    Attributes
    ----------
    threshold : Threshold
        β\*: below it collapse is unstable.
    searched : float
        Below it an output is known that pays: a lower bound of the global threshold, found by
        ascent.
    proved : float
        From here on collapse is optimal: an upper bound of it, proved; infinite if none is.
    reason : str
        Why: a key of ``REASONS``.
    output : array (D,), or None
        The output that pays; None if none was found above β\*.
    """

    threshold: Threshold
    searched: float
    proved: float
    reason: str
    output: np.ndarray | None = field(default=None, repr=False, compare=False)

    def verdict(self, beta: float) -> Verdict:
        """What this weight of the KL does to these data."""
        return verdict_of(beta, self.threshold, self.proved, lambda: self.searched)


def optimal_collapse_threshold(
    x: Data, likelihood: Scored = "bernoulli", *, out_shape: tuple[int, ...] | None = None
) -> CollapseBounds:
    """Bounds of the global threshold, above which collapse is the optimum, on these data.

    The upper bound is proved: for squared error Σ range² / 4 and max ‖x - mean‖², over the
    variance; for cross-entropy the number of values that vary, D at most; for tokens that of
    positions, if their number is fixed; for a binomial n times the number of values. It is infinite
    for absolute error, learned variances, the continuous Bernoulli, counts without a bound, and a
    callable. The lower bound is what a search from several starts found: the price of one output.

    Parameters and errors as in ``collapse_threshold``. MNIST takes some 20 seconds.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rare = (rng.random((2000, 1)) < 0.02) * np.ones(20)  # 2 % of the samples are white
    >>> bounds = optimal_collapse_threshold(rare + 0.1 * rng.normal(size=rare.shape), "gaussian")
    >>> print(bounds.verdict(1.5 * bounds.threshold))  # doctest: +NORMALIZE_WHITESPACE
    Collapse is stable, but a code pays: β = ... is 1.5 times β* = ..., and below ..., where an
    output is known that pays.
    >>> bounds.threshold < bounds.searched < bounds.proved
    True

    A mean over two pixels, in black-and-white images, under cross-entropy:

    >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> print(optimal_collapse_threshold(x).verdict(2))  # doctest: +NORMALIZE_WHITESPACE
    Collapse is optimal, for every network, prior, posterior and schedule: β = 2 is not below 2,
    where that is proved, and 1.33 times β* = 1.5.
    """
    threshold = collapse_threshold(x, likelihood, out_shape=out_shape)
    proved, reason = proved_bound(x, likelihood, out_shape)
    price, output = _search(x, likelihood, out_shape)
    found = price > threshold
    proved = max(proved, float(threshold))  # where they are equal, but for rounding
    return CollapseBounds(
        threshold,
        min(max(price, float(threshold)), proved),
        proved,
        reason,
        output if found else None,
    )


def collapse_verdict(
    x: Data, beta: float, likelihood: Scored = "bernoulli", *, out_shape=None
) -> Verdict:
    r"""What this weight of the KL does to these data; searches only between β\* and the proof.

    ValueError if β is no positive number; else as ``optimal_collapse_threshold``.

    Examples
    --------
    >>> x = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    >>> collapse_verdict(x, 1.0).code, collapse_verdict(x, 2.0).code
    ('unstable', 'optimal')
    """
    threshold = collapse_threshold(x, likelihood, out_shape=out_shape)
    proved, _ = proved_bound(x, likelihood, out_shape)
    return verdict_of(beta, threshold, proved, lambda: _search(x, likelihood, out_shape)[0])


def verdict_of(
    beta: float, threshold: float, proved: float, search: Callable[[], float]
) -> Verdict:
    """The verdict from the three bounds, the middle one looked for if it is needed."""
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    margin = beta / threshold if threshold > 0 else math.inf
    star = f"β* = {float(threshold):.4g}"
    times = f"{margin:.3g} times {star}" if threshold > 0 else f"above {star}: stable at every β"

    def verdict(code, sentence):
        return Verdict(code, beta, margin, sentence)

    if beta < threshold:
        return verdict(
            "unstable", f"Collapse is not stable: β = {beta:.4g} is {margin:.3g} times {star}."
        )
    if beta >= proved:
        return verdict(
            "optimal",
            "Collapse is optimal, for every network, prior, posterior and schedule: "
            f"β = {beta:.4g} is not below {proved:.4g}, where that is proved, and {times}.",
        )
    searched = search()
    if beta < searched:
        return verdict(
            "a-code-pays",
            f"Collapse is stable, but a code pays: β = {beta:.4g} is {times}, and below "
            f"{searched:.4g}, where an output is known that pays.",
        )
    proof = f"at {proved:.4g} and above" if proved < math.inf else "not known"
    return verdict(
        "none-found",
        f"Collapse is stable, and no better code was found: β = {beta:.4g} is {times}. That it is "
        f"optimal is {'proved ' if proved < math.inf else ''}{proof}.",
    )


# --- the proved upper bound ----------------------------------------------------------------------


def proved_bound(
    x: Data, likelihood: Scored = "bernoulli", out_shape: tuple[int, ...] | None = None
) -> tuple[float, str]:
    """A β from which on collapse is optimal on these data, and a key of ``REASONS``.

    Examples
    --------
    >>> proved_bound(np.array([[0.0, 0.5, 1.0], [0.2, 0.5, 0.0]]), "gaussian")
    (0.26, 'values')
    """
    scored = as_scored(likelihood, out_shape)
    if not isinstance(scored, Likelihood) or scored.worth is None:
        return math.inf, "none"
    batches = Batches(x, scored)
    low, high, total, n = np.inf, -np.inf, 0.0, 0
    for batch in batches:
        low, high = np.minimum(low, batch.min(0)), np.maximum(high, batch.max(0))
        total, n = total + batch.sum(0, dtype=np.float64), n + len(batch)
    check_moments(n, total)
    bound = float(scored.worth((high - low).astype(np.float64)).sum())
    if not scored.scaled:
        return bound, "values"
    mean = total / n
    squares = max(float(np.square(batch - mean).sum(1).max()) for batch in batches)
    distance = squares / float(scored.variance(mean, None)[0])
    return (bound, "values") if bound <= distance else (distance, "distance")


# --- the search ----------------------------------------------------------------------------------


def _search(x: Data, likelihood: Scored, out_shape) -> tuple[float, np.ndarray | None]:
    """The highest price that was found, and its output; 0 and None if no output pays."""
    scored = as_scored(likelihood, out_shape)
    if not isinstance(scored, Likelihood) or scored.median_scale is not None:
        return _search_by_gradient(x, scored, out_shape)
    batches = Batches(x, scored)
    rows = batches
    if scored.variance is None:
        rows = onehot.OneHot(batches, scored.outputs)
    _, mean, variance = moments(rows, rows.size, full=False)
    moves = np.flatnonzero(variance > 0)
    if not len(moves):
        return 0.0, None
    mean, variance = mean[moves], variance[moves]
    squared = scored.variance is not None and scored.cost is None
    if squared:  # has no unit of its own: values of variance 1 at most, around 0
        claimed = scored.variance(mean, variance)
        price_of_unit = float((variance / claimed).max())
        unit = np.sqrt(price_of_unit * claimed)
    else:
        price_of_unit, unit = 1.0, None
    data = _Columns(rows, moves, mean, unit)
    model = _affine(scored, np.zeros(len(moves)) if squared else mean)
    few, many = (_some(data, limit) for limit in (SEARCHED, REFINED))
    scale = np.sqrt(model.room(model.mean))
    outputs, prices = ascent.climb(model, few, ascent.starts(few, model.mean, scale))
    best = outputs[np.argsort(prices)[::-1][:: max(1, len(prices) // 8)][:4]]
    outputs, prices = ascent.climb(model, many, best)
    # The price that counts is that on all samples, in double precision.
    log_ratio = np.concatenate(
        [model.log_ratio(batch.astype(np.float64), outputs) for batch in data]
    )
    prices = ascent.price(log_ratio)
    best = outputs[prices.argmax()]
    output = np.zeros(rows.size)
    output[moves] = mean + unit * best if squared else best
    return price_of_unit * float(prices.max()), output


def _affine(likelihood: Likelihood, mean: np.ndarray) -> ascent.Affine:
    if likelihood.variance is None:  # tokens: -log of the share of the symbol
        return ascent.Affine(special.entr, lambda m: m, mean)
    if likelihood.cost is None:
        return ascent.Affine(lambda m: -np.square(m) / 2, np.ones_like, mean)
    high = likelihood.support[1]
    return ascent.Affine(likelihood.cost, lambda m: np.minimum(m, high - m), mean)


class _Columns:
    """Batches (B, D') of the values that vary, in a unit of their own if there is one."""

    def __init__(self, rows, columns: np.ndarray, mean: np.ndarray, unit: np.ndarray | None):
        self.rows, self.columns, self.mean, self.unit = rows, columns, mean, unit

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.every(1)

    def every(self, step: int) -> Iterator[np.ndarray]:
        """Of the samples every ``step``-th."""
        start = 0
        for batch in self.rows:
            some = batch[(-start) % step :: step, self.columns]
            start += batch.shape[0]
            some = some if isinstance(some, np.ndarray) else some.toarray()
            yield some if self.unit is None else (some - self.mean) / self.unit


def _some(data: _Columns, limit: int) -> np.ndarray:
    """Evenly spaced samples (N', D') of float32, so that about ``limit`` values are held."""
    n = sum(batch.shape[0] for batch in data.rows)
    step = max(1, math.ceil(n * len(data.columns) / limit))
    return np.concatenate([batch.astype(np.float32) for batch in data.every(step)])


def _search_by_gradient(x: Data, scored, out_shape) -> tuple[float, np.ndarray | None]:
    batches = Batches(x)
    held = np.concatenate([batch for batch in batches]).astype(np.float64)
    held = held[:: max(1, held.size // FEW)]
    if isinstance(scored, Likelihood):  # absolute error
        shape, nll, whole = batches.shape, scored.with_link("mean").nll, False
        b = medians(batches)
        towards = held - b
    else:
        shape, nll, whole = tuple(out_shape), scored, batches.whole
        b, coupled = curvature.best_constant(curvature.Curvature(batches, nll, shape))
        some = Batches(held.reshape(-1, *batches.shape))
        some.whole = whole
        towards = curvature.steps_to_samples(curvature.Curvature(some, nll, shape), b, coupled)

    def of_all(x, y):
        return nll(x, torch.as_tensor(y).view(1, *shape).expand(len(x), *shape))

    def as_x(values):
        values = torch.from_numpy(values.astype(np.int64 if whole else np.float64))
        return values.view(-1, *batches.shape)

    scale = np.maximum(towards.std(0), 1e-9)
    starts = ascent.starts(towards, np.zeros(len(scale)), scale, TRIED)
    tried = [ascent.climb_by_gradient(of_all, as_x(held), b, b + start) for start in starts]
    best, found = max(tried, key=lambda each: each[1])
    if found == 0:
        return 0.0, None
    with torch.no_grad():
        log_ratio = [of_all(as_x(batch), b) - of_all(as_x(batch), best) for batch in batches]
    return float(ascent.price(torch.cat(log_ratio).numpy()[:, None])[0]), best
