r"""What the data allow: the β above which collapse is stable, computed before training.

A collapsed decoder answers every z with the best constant output b. Perturb it by a first-order
response W to the latents and let the encoder answer optimally: the loss falls by
tr W'(J/β - H)W / 2 nats, where J is the covariance of the scores, the derivatives of the NLL at b,
and H the second derivative of the NLL averaged over the *data*. So collapse is locally stable if
β > β\*, and unstable if β < β\*, the largest eigenvalue of H⁻¹J. Where a likelihood claims a
variance V(m) for a mean m, that is the covariance of Pearson residuals, (x - m) / sqrt(V(m)); its
link makes no difference, nor do prior and posterior. The book derives it in "A collapse you can
predict". For a linear decoder of fixed variance it is the condition of Lucas et al. 2019,
arXiv:1911.02469. β multiplies a KL summed over latents, beside a negative log-likelihood summed
over the values.

Stable is not optimal: see ``vaeloss.collapse.optimum``. And all of it is about outputs that are
independent given z: a decoder that sees its own past, or an input, needs ``given``.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vaeloss.collapse import condition, curvature, eigen, onehot
from vaeloss.collapse.batches import Batches, Data, check_order
from vaeloss.collapse.interval import jackknife
from vaeloss.collapse.median import middle_and_density, signs
from vaeloss.likelihoods import Likelihood, as_likelihood

Scored = Likelihood | str | curvature.NLL  # how outputs are scored: wherever one is asked for


class Threshold(float):
    r"""β\*: a number, with what else was asked for.

    Attributes
    ----------
    additive : float or None
        With labels: the threshold of a decoder that adds its answer to what the label gives; the
        number itself is that of a decoder that is free for each label.
    interval : tuple of float, or None
        Where β\* of the population lies, with the confidence that was asked for.
    held : int
        Under absolute error: how many values equal their median in so many samples that it holds
        them there at every β.
    """

    additive: float | None = None
    interval: tuple[float, float] | None = None
    held: int = 0

    def __repr__(self) -> str:
        extra = "".join(
            f", {name}={value}"
            for name, value in [
                ("additive", self.additive and f"{self.additive:.6g}"),
                ("interval", self.interval and "({:.6g}, {:.6g})".format(*self.interval)),
                ("held", self.held),
            ]
            if value
        )
        return f"Threshold({float(self):.6g}{extra})" if extra else float.__repr__(self)


def collapse_spectrum(
    x: Data,
    likelihood: Scored = "bernoulli",
    k: int | None = None,
    *,
    out_shape: tuple[int, ...] | None = None,
    given=None,
) -> NDArray[np.float64]:
    """The eigenvalues that β is compared with, in descending order: a unit lives above β.

    Parameters
    ----------
    x : array, Tensor or memory map, shape (N, ...), or iterable of batches (B, ...)
        Of a batch that is a tuple or list, as a DataLoader gives, the first element is taken. Every
        axis but the first counts as pixels, D in all; or as positions, under "categorical", where
        x holds classes.
    likelihood : Likelihood, str or callable
        How the decoder's outputs are scored: an object of ``vaeloss.likelihoods``, what an audit
        found, or a name: "bernoulli", "gaussian", "gaussian(0.5)" with that variance,
        "gaussian-shared" and "gaussian-per-pixel" with learned ones that do not depend on z,
        "poisson", "categorical(30)" … The link makes no difference. "continuous-bernoulli" is ruled
        by pixels that are almost never on: an upper bound in practice rather than a prediction.
        Under "laplace" a pixel that sits at its median in many images, black say, cannot leave it
        at any β > 0, and contributes a zero. Or a callable ``nll(x, out)`` -> (B,) in nats, summed
        over what a sample holds, differentiable twice; x comes in its own shape.
    k : int, optional
        How many eigenvalues. Default: all of them up to 4,096 outputs, where they come from the
        covariance; else the 10 largest, from an iterative solver that passes over the data in
        mini-batches and needs memory for O(k) images.
    out_shape : tuple of int, optional
        Of a callable: the shape of the outputs for one sample.
    given : array, optional
        What the decoder sees besides z: labels, (N,), or a fitted mean of the shape of x (under
        "categorical" probabilities, (N, ..., classes); for a callable outputs). The spectrum is
        then that of a decoder that adds its answer to it.

    Returns
    -------
    array, shape (k,)
        Eigenvalues, without unit. A pixel that never varies contributes a zero.

    Raises
    ------
    ValueError
        Fewer than two samples; NaN or infinite values; values that the likelihood cannot score;
        batches of different shapes; an unknown likelihood; a one-shot iterator where several
        passes are needed; ``given`` of another length; a callable with a kink, or without a best
        constant output.

    Warns
    -----
    UnitsWarning
        x looks like bytes, and the threshold depends on the unit.

    Examples
    --------
    >>> x = np.array([[0, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1]])  # two equal pixels, one constant
    >>> collapse_spectrum(x).round(6).tolist()
    [2.0, 0.0, 0.0]

    Tokens at two positions that determine one another:

    >>> collapse_spectrum(np.array([[0, 0], [1, 1], [2, 2]]), "categorical(3)", k=3).round(6)
    array([2., 2., 0.])

    The same two pixels for a loss of one's own:

    >>> from torch.nn.functional import softplus
    >>> def nll(x, out):
    ...     return (softplus(out) - x * out).sum(1)  # cross-entropy of logits
    >>> collapse_spectrum(x[:, :2], nll, out_shape=(2,)).round(6).tolist()
    [2.0, 0.0]
    """
    given = condition.as_given(given)
    if given is not None:
        check_order(x)
    return _spectrum(x, likelihood, k, out_shape, given, None)


def collapse_threshold(
    x: Data,
    likelihood: Scored = "bernoulli",
    *,
    out_shape: tuple[int, ...] | None = None,
    given=None,
    interval: float | None = None,
) -> Threshold:
    r"""β\*, the weight of the KL above which collapse is locally stable on these data.

    Below it a decoder that is free in its first-order response to z can always gain by leaving
    collapse. Above it no small step gains; a large one may, up to the bound that
    ``optimal_collapse_threshold`` gives. Parameters and errors as in ``collapse_spectrum``;
    ``audit.likelihood`` is one. For squared error a·SSE + b·KL, use "gaussian" and compare b/(2a).

    Parameters
    ----------
    given : array, optional
        Labels, (N,): the threshold is that of a decoder that is free for each label, the largest
        of the labels' own; its ``additive`` that of one that adds its answer. A fitted mean: the
        additive one.
    interval : float, optional
        A confidence, such as 0.9: ``.interval`` holds where β\* of the population lies, by a
        delete-a-group jackknife of 20 fixed groups. It takes 20 times as long. From few samples β\*
        is biased upward; where other eigenvalues, or thresholds of other labels, come close to the
        largest, part of the bias stays, and the interval lies too high.

    Returns
    -------
    Threshold
        A float.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(5000, 1)) * [3.0, 0.0] + rng.normal(size=(5000, 2))
    >>> round(collapse_threshold(x, "gaussian"), 0)  # variance 9 + 1 along the first axis
    10.0
    >>> collapse_threshold(x[:200], "gaussian", interval=0.9)
    Threshold(8.88851, interval=(7.3231, 10.5247))
    """
    given = condition.as_given(given)
    if given is not None or interval is not None:
        check_order(x)
    threshold = Threshold(_threshold(x, likelihood, out_shape, given, None))
    if given is not None and given.ndim == 1:
        threshold.additive = float(_spectrum(x, likelihood, 1, out_shape, given, None)[0])
    if isinstance(likelihood, Likelihood | str) and as_likelihood(likelihood).median_scale:
        threshold.held = signs(_around_medians(Batches(x), given), 1.0)[0].held
    if interval is not None:
        threshold.interval = jackknife(
            lambda keep: _threshold(x, likelihood, out_shape, given, keep),
            float(threshold),
            interval,
        )
    return threshold


def predicted_live_units(
    x: Data,
    beta: float,
    latent_dim: int | None = None,
    likelihood: Scored = "bernoulli",
) -> int:
    """How many latents a linear decoder with this β uses: eigenvalues above β.

    Exact at an optimum for a linear Gaussian decoder; for others it counts the directions in
    which the collapsed solution is unstable, and is no bound: once a latent lives, the spectrum
    given that latent counts. At most ``latent_dim``, if given. Other parameters and errors as in
    ``collapse_spectrum``; ValueError too if β is not a positive number.

    Examples
    --------
    >>> predicted_live_units(np.array([[0.0, 0.0], [1.0, 1.0]]), beta=1.5)
    1
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    d = Batches(x).size if not isinstance(x, Iterator) else eigen.EXACT_LIMIT
    limit = d if latent_dim is None else min(latent_dim, d)
    return min(len(spectrum_above(x, beta, likelihood, limit)), limit)


def spectrum_above(x: Data, beta: float, likelihood: Scored, limit: int) -> NDArray[np.float64]:
    """The eigenvalues above β, ``limit`` of them or a few more at most."""
    d = Batches(x).size if not isinstance(x, Iterator) else eigen.EXACT_LIMIT
    k = None if d <= eigen.EXACT_LIMIT else min(8, limit)
    while True:
        spectrum = collapse_spectrum(x, likelihood, k)
        above = spectrum[spectrum > beta]
        if k is None or len(above) < k or k >= limit:
            return above
        k = min(2 * k, limit)


# --- from data to eigenvalues --------------------------------------------------------------------


def as_scored(likelihood: Scored, out_shape: tuple[int, ...] | None) -> Likelihood | curvature.NLL:
    """The likelihood, or the callable itself.

    Raises
    ------
    ValueError
        A callable without ``out_shape``, or a name with it.
    """
    if isinstance(likelihood, Likelihood | str):
        if out_shape is not None:
            raise ValueError(f"out_shape is for a callable; {likelihood} knows its own")
        return as_likelihood(likelihood)
    if not callable(likelihood):
        raise ValueError(f"likelihood is a {type(likelihood).__name__}: give a name or a callable")
    if not isinstance(out_shape, tuple | list) or not out_shape or not _sizes(out_shape):
        raise ValueError(
            f"out_shape={out_shape}: a callable nll(x, out) needs the shape of one sample's "
            "output, such as (784,)"
        )
    return likelihood


def _sizes(shape) -> bool:
    return all(isinstance(n, int | np.integer) and n > 0 for n in shape)


def _threshold(x, likelihood, out_shape, given, keep) -> float:
    if given is None or given.ndim > 1:
        return float(_spectrum(x, likelihood, 1, out_shape, given, keep)[0])
    pooled = None
    if isinstance(likelihood, Likelihood | str) and as_likelihood(likelihood).learned:
        # A learned variance that does not depend on z is no label's own.
        rows = condition.Residuals(Batches(x, as_likelihood(likelihood), keep), given)
        pooled = eigen.moments(rows, rows.size, full=False)[2]
    return max(
        float(
            _spectrum(
                x, likelihood, 1, out_shape, None, condition.labelled(given, c, keep), pooled
            )[0]
        )
        for c in range(given.max() + 1)
    )


def _spectrum(x, likelihood, k, out_shape, given, keep, pooled=None) -> NDArray[np.float64]:
    """``collapse_spectrum`` of the samples that ``keep`` keeps, with variances ``pooled``."""
    scored = as_scored(likelihood, out_shape)
    if not isinstance(scored, Likelihood):
        return _of_callable(Batches(x, None, keep), scored, tuple(out_shape), k, given)
    batches = Batches(x, scored, keep)
    if given is not None and given.ndim > 1:
        condition.check_mean(given, scored)
    if scored.variance is not None:
        rows = batches

        def information(mean, variance):
            _check_reached(scored, mean)
            return scored.variance(mean, variance if pooled is None else pooled)

        if given is not None:
            rows = condition.Residuals(batches, given)
            information = rows.averaged(scored.variance)
    elif scored.median_scale is not None:
        rows, information = signs(_around_medians(batches, given), scored.median_scale)
        if given is None:
            _check_reached(scored, rows.middle)
    else:
        rows, information = onehot.OneHot(batches, scored.outputs), onehot.information
        if given is not None:
            rows = onehot.Whitened(condition.Residuals(rows, given), scored.outputs)
            information = None
    _check_k(k, rows.size)
    return eigen.spectrum(rows, rows.size, information, k)


def _check_reached(likelihood: Likelihood, best: np.ndarray) -> None:
    if likelihood.scaled and likelihood.link == "logits" and (best.min() < 0 or best.max() > 1):
        raise ValueError(
            f"the best constant values run from {best.min():.3g} to {best.max():.3g}, and the "
            f"sigmoid of {likelihood} stays in [0, 1]: rescale x, or decode to means"
        )


def _around_medians(batches: Batches, given):
    """What signs are taken of: x, or its distance from the median given the label or input."""
    if given is None:
        return batches
    if given.ndim > 1:
        return condition.Residuals(batches, given)
    kept = [batches.only(condition.labelled(given, c)) for c in range(given.max() + 1)]
    return condition.Residuals(batches, given, np.stack([middle_and_density(b)[0] for b in kept]))


def _of_callable(batches: Batches, nll, out_shape, k, given) -> NDArray[np.float64]:
    offset = None
    if given is not None and given.ndim > 1:
        offset = given.reshape(len(given), -1)
    elif given is not None:
        kept = [batches.only(condition.labelled(given, c)) for c in range(given.max() + 1)]
        curves = [curvature.Curvature(b, nll, out_shape) for b in kept]
        offset = np.stack([curvature.best_constant(curve)[0] for curve in curves])[given]
    curve = curvature.Curvature(batches, nll, out_shape, offset)
    _check_k(k, curve.size)
    b, coupled = curvature.best_constant(curve)
    if coupled is None:
        return curvature.coupled_spectrum(curve, b, k or 10)
    return eigen.spectrum(curvature.Whitened(curve, b, coupled), curve.size, None, k)


def _check_k(k: int | None, size: int) -> None:
    if k is not None and not (isinstance(k, int | np.integer) and 1 <= k <= size):
        raise ValueError(
            f"k must be a whole number from 1 to the {size} values of a sample, got {k}"
        )
