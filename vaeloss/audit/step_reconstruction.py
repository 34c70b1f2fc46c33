"""The gradient at x_hat in one training step → the likelihood and its weight.

Elements whose gradient is zero are left out (padding, a mask), and their share is said.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from vaeloss.audit.findings import Finding, finding
from vaeloss.audit.identify import TOLERANCE
from vaeloss.audit.step_outputs import Reading, readings
from vaeloss.audit.step_terms import StepTerm
from vaeloss.likelihoods import Likelihood, recognisable


def reconstruction_term(
    x: Tensor,
    outs: list[Tensor],
    grads: list[Tensor],
    asked: Likelihood | Callable | None,
    size: int,
    tolerance: float,
) -> StepTerm:
    """The reconstruction, recognised or the one that is asked for; or what is wrong with it."""
    every = readings(x, outs, grads, asked)
    if not any(grad.any() for grad in grads):
        return StepTerm(0.0, 1.0, tolerance, 0.0, findings=[finding("step-no-reconstruction")])
    found = [_weighed(reading, grads, size, tolerance) for reading in every]
    least = min(term.residual for term in found)
    fitting = [t for t in found if t.known and t.residual <= max(3 * least, TOLERANCE / 10)]
    fitting.sort(key=lambda term: term.residual)
    if fitting:
        best = replace(fitting[0], others=_different(fitting))
    else:
        best = next(term for term in found if term.residual == least)
        best.findings.append(_not_fitting(x, outs, grads, asked, best, every, size, tolerance))
    if best.known and best.reached < 0.999:
        best.findings.append(finding("step-reached", share=best.reached))
    if best.known and every[0].draws == 1:
        best.findings += _rows(x, outs[0], size)
    return best


def _rows(x: Tensor, out: Tensor, size: int) -> list[Finding]:
    """What is to be said of x_hat if it has other rows than mu, or if x repeats itself."""
    rows = len(out) if out.dim() else 1
    if rows != size and rows % size:
        return [finding("step-batch", rows=rows, size=size)]
    times = rows // size
    if times == 1 and x.dim() >= 3 and x.shape == out.shape and bool((x == x[:, :1]).all()):
        times = x.shape[1]
    return [finding("step-repeats", times=times)] if times > 1 else []


def _different(fitting: list[StepTerm]) -> list[StepTerm]:
    first = fitting[0].weight
    return [t for t in fitting[1:] if not math.isclose(t.weight, first, rel_tol=1e-2)]


def _weighed(reading: Reading, grads, size: int, tolerance: float) -> StepTerm:
    weight, residual, reached, nats = reading.fit()
    outs = reading.outs
    term = StepTerm(
        weight * size * reading.draws,
        residual,
        tolerance,
        reached,
        nats / reading.draws,
        reading.likelihood,
        values=max(1, round(reading.x.numel() / size / reading.draws)),
        last=grads[0].shape[-1] if grads[0].dim() and outs else 1,
    )
    if reading.draws > 1:
        term.findings.append(finding("step-draws", draws=reading.draws))
    if reading.note:
        term.findings.append(finding(reading.note))
    return term


def _not_fitting(x, outs, grads, asked, best, every, size, tolerance) -> Finding:
    if isinstance(asked, Likelihood):
        others = [_weighed(r, grads, size, tolerance) for r in readings(x, outs, grads, None)]
        fits = [t.likelihood for t in others if t.known]
        if fits:
            return finding("other-likelihood", asked=str(asked), found=str(fits[0]))
    for reading in every:
        for axis, what in ((0, "sample"), (1, "feature")):
            weights = reading.fit_each(axis, size * reading.draws, tolerance)
            if weights is not None:
                low, high = (w * size * reading.draws for w in weights)
                data = {"likelihood": str(reading.likelihood or asked), "what": what}
                return finding("step-weights-differ", **data, low=low, high=high)
    most = [reading.fit_most(10 * tolerance) for reading in every]
    weight, share = max(most, key=lambda each: each[1])
    if share > 0.5:
        reading = every[most.index((weight, share))]
        data = {"likelihood": str(reading.likelihood), "c": weight * size * reading.draws}
        return finding("step-partly", **data, share=share)
    if asked is not None:
        name = getattr(asked, "__name__", str(asked))
        return finding("step-not-asked", asked=name, off=best.residual)
    names = ", ".join(map(str, recognisable()))
    nearest = str(best.likelihood)
    return finding("step-unknown", known=names, nearest=nearest, off=best.residual)
