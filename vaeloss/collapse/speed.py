r"""How fast a model leaves collapse: a threshold says whether, not when.

Near collapse a first-order response W of the raw outputs grows, under gradient descent, by
c·lr·(J/β - H)W a step, while the encoder answers optimally. J and H are those of the outputs
themselves, and so depend on the link: the same data that take off in seconds in means may take for
ever in logits.
"""

import math

import numpy as np
import torch
from scipy import special

from vaeloss.collapse import curvature, eigen
from vaeloss.collapse.batches import Batches, Data
from vaeloss.collapse.local import Scored, as_scored
from vaeloss.likelihoods import Likelihood


def growth_rate(
    x: Data,
    beta: float,
    likelihood: Scored = "bernoulli-logits",
    *,
    out_shape: tuple[int, ...] | None = None,
) -> float:
    r"""The largest eigenvalue of J/β - H in the outputs of this link, per unit of c · lr · steps.

    Positive below β\*, negative above it. Small where growth is slow: near β\*, and where most of
    what rules β\* are values that are almost never on.

    Parameters
    ----------
    x : array, Tensor, memory map or batches
        As in ``collapse_spectrum``, of at most 4,096 outputs.
    beta : float
        Weight of the summed KL against the summed NLL.
    likelihood : Likelihood, str or callable
        With its link: "bernoulli-logits" and "bernoulli" are two. Absolute error has a kink, and is
        refused.
    out_shape : tuple of int, optional
        Of a callable.

    Returns
    -------
    float
        In nats per squared unit of the outputs. ``steps_until_visible`` makes steps of it.

    Raises
    ------
    ValueError
        As ``collapse_spectrum``; β is not a positive number.

    Examples
    --------
    >>> x = np.array([[2.0, 0.0], [-2.0, 0.0]])  # variance 4: grows by 4/β - 1
    >>> growth_rate(x, 2.0, "gaussian")
    1.0
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    scored = as_scored(likelihood, out_shape)
    if isinstance(scored, Likelihood) and scored.median_scale is not None:
        raise ValueError(f"{scored}: absolute error has a kink, and no rate of growth")
    if isinstance(scored, Likelihood) and scored.variance is not None:
        j, h = _of_means(x, scored)
    else:
        j, h = _of_outputs(x, scored, out_shape)
    matrix = j / beta - h
    if not len(matrix):
        return 0.0  # nothing varies
    if not np.isfinite(matrix).all():
        raise ValueError(f"{scored}: the best constant output is not finite: use another link")
    return float(np.linalg.eigvalsh(matrix)[-1])


def steps_until_visible(
    rate: float, learning_rate: float, c: float = 1.0, growth: float = 100.0
) -> float:
    """Steps of plain gradient descent until a response has grown by this factor.

    With Adam, whose steps do not depend on the size of the gradient, an order of magnitude only.

    Parameters
    ----------
    rate : float
        Of ``growth_rate``.
    learning_rate : float
        Of gradient descent without momentum.
    c : float
        The factor in front of the loss.
    growth : float
        From the response at the start to one that shows.

    Returns
    -------
    float
        Infinite if the response does not grow.

    Examples
    --------
    >>> round(steps_until_visible(0.01, learning_rate=0.1), 0)
    4607.0
    """
    pace = rate * learning_rate * c
    return math.log(growth) / math.log1p(pace) if pace > 0 else math.inf


def _of_means(x: Data, likelihood: Likelihood) -> tuple[np.ndarray, np.ndarray]:
    """J and H of raw outputs, (D, D): the NLL is affine in x, so the mean tells both."""
    batches = Batches(x, likelihood)
    _few(batches.size)
    _, mean, covariance = eigen.moments(batches, batches.size, full=True)
    claimed = likelihood.variance(mean, np.diag(covariance))
    moves = np.diag(covariance) > 0
    if likelihood.learned:  # the outputs that answer z are means
        slope = np.ones(len(mean))
    else:
        slope = _slope(likelihood, mean, claimed, moves)
    score = np.where(moves, slope / np.where(claimed > 0, claimed, 1.0), 0.0)
    j, h = covariance * score * score[:, None], np.diag(score * slope)
    return j[np.ix_(moves, moves)], h[np.ix_(moves, moves)]


def _slope(likelihood: Likelihood, mean, claimed, moves) -> np.ndarray:
    """d mean / d output at the best constant output, (D,)."""
    mean = np.where(moves, mean, 0.5)
    if "mean" in likelihood.forms:
        out = {"mean": lambda m: m, "logits": special.logit, "log": np.log}[likelihood.link](mean)
    else:  # the continuous Bernoulli: its logit is what the cost falls by as the mean rises
        step = 1e-5 * likelihood.variance(mean, None)
        out = (likelihood.cost(mean - step) - likelihood.cost(mean + step)) / (2 * step)
        out = special.expit(out) if likelihood.link == "probability" else out
    image, out = torch.as_tensor(mean)[None], torch.as_tensor(out)[None]
    # The curvature of the NLL at the mean is slope² / variance.
    return np.sqrt(np.maximum(likelihood.information(image, out).numpy() * claimed, 0.0))


def _of_outputs(x: Data, scored, out_shape) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(scored, Likelihood):
        batches = Batches(x, scored)
        batches.whole = True
        nll, out_shape = scored.nll, scored.out_shape(batches.shape)
    else:
        batches, nll = Batches(x), scored
    curve = curvature.Curvature(batches, nll, tuple(out_shape))
    _few(curve.size)
    b, coupled = curvature.best_constant(curve)
    if coupled is None:
        raise ValueError(f"this nll couples more than {curvature.BLOCK} outputs: no rate of growth")
    j = eigen.moments(curve.scores(b), curve.size, full=True)[2]
    blocks, h = curve.blocks(b, coupled)[1], np.zeros((curve.size,) * 2)
    for i, block in enumerate(blocks):
        here = slice(i * coupled, (i + 1) * coupled)
        h[here, here] = block
    return j, h


def _few(size: int) -> None:
    if size > eigen.EXACT_LIMIT:
        raise ValueError(f"{size} outputs: the rate of growth is for up to {eigen.EXACT_LIMIT}")
