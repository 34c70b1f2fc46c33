"""Ways to read x and x_hat of a step: elementwise, as tokens, as mean and variance, by a function.

Each way is a ``Reading``: an NLL of single values, whose gradient is compared with the loss's.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaeloss.audit.evidence import AuditError
from vaeloss.audit.identify import fit
from vaeloss.audit.step_graph import exact, first_line
from vaeloss.likelihoods import Likelihood, categorical, gaussian, recognisable

FIRST = 4096  # values on which a likelihood is recognised; it is then fitted on all


@dataclass(frozen=True)
class Reading:
    """An NLL of single values with the outputs it takes and the loss's gradients at them.

    Parameters
    ----------
    nll : callable
        ``nll(x, *outs)``: nats of each value, of the shape of x.
    draws : int
        Samples of z for every x; x is repeated.
    rows : bool
        Whether value i depends on ``outs[..][i]`` alone, so that a part can be read for the whole.
    first : Tensor or None
        Where some values with a gradient are, to look at before all of them.
    note : str
        Code of a finding that belongs to this reading.
    """

    likelihood: Likelihood | None
    nll: Callable
    x: Tensor
    outs: tuple[Tensor, ...]
    grads: tuple[Tensor, ...]
    draws: int = 1
    rows: bool = True
    first: Tensor | None = None
    note: str = ""

    def part(self, index: Tensor) -> "Reading":
        """The reading of these values alone."""
        outs, grads = (tuple(t[index] for t in ts) for ts in (self.outs, self.grads))
        return replace(self, x=self.x[index], outs=outs, grads=grads, first=None)

    def score(self, on: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """Gradients of the NLL, of the values that are ``on``, and the NLL of each value."""
        with torch.enable_grad():
            outs = [out.detach().requires_grad_() for out in self.outs]
            values = self.nll(self.x, *outs)
            if self.likelihood is not None:  # losses leave it out
                values = values - self.likelihood.constant
            total = values.sum() if on is None or on.shape != values.shape else values[on].sum()
            return list(torch.autograd.grad(total, outs)), values.detach()

    def fit(self) -> tuple[float, float, float, float]:
        """Weight on the sum over everything, residual, share reached, and the NLL in nats."""
        if self.first is not None:
            first = self.part(self.first).fit()
            if first[1] > 0.1:  # not by far; rounding differs from value to value
                return first
        touched = _touched(self.grads[0], self.x) if self.rows else None
        try:
            scores, values = self.score()
            on = None
            if touched is not None:
                on = touched | ~_touched(scores[0], self.x)
                if not on.all() and any(out.numel() != self.outs[0].numel() for out in self.outs):
                    scores, values = self.score(on)
        except (RuntimeError, ValueError, IndexError) as error:
            if self.likelihood is None:
                raise AuditError(
                    f"likelihood raised {type(error).__name__}: {first_line(error)}. It was called "
                    "with x and x_hat, in float64, and has to return the NLL of each value"
                ) from error
            return math.nan, math.inf, 0.0, math.nan  # not made for such outputs
        pairs = list(zip(self.grads, scores, strict=True))
        if not all(g.all() for g in self.grads):
            pairs = [(g[g != 0], s[g != 0]) for g, s in pairs]
        if on is not None and self.outs[0].dim() == on.dim() + 1:  # tokens: all classes of a row
            pairs = [(g[on], s[on]) for g, s in zip(self.grads, scores, strict=True)]
        g, s = (torch.cat([t.flatten() for t in ts]) for ts in zip(*pairs, strict=True))
        if not torch.isfinite(s).all() or not s.any():
            return math.nan, math.inf, 0.0, math.nan
        weight, residual = fit([g], [s])
        if on is not None:
            matters = _touched(scores[0], self.x)
            reached = touched[matters].double().mean().item()
            nats = values[on].sum().item()
        else:
            matters = scores[0] != 0
            reached = (self.grads[0][matters] != 0).double().mean().item()
            nats = values.sum().item()
        return weight, residual if math.isfinite(residual) else math.inf, reached, nats

    def fit_each(self, axis: int, size: int, tolerance: float) -> tuple[float, float] | None:
        """Least and largest weight if every sample, or every feature, has one of its own."""
        if not self.rows or self.x.dim() != 1 or len(self.x) % size or len(self.outs) != 1:
            return None
        shape = (size, -1, *self.outs[0].shape[1:])
        try:
            [score], _ = self.score()
        except (RuntimeError, ValueError, IndexError):
            return None
        g, s = (t.reshape(shape).transpose(0, axis).flatten(1) for t in (self.grads[0], score))
        if g.shape[1] < 8:  # a weight for next to nothing fits anything
            return None
        s = torch.where(g != 0, s, 0.0)
        weights = (g * s).sum(1) / s.square().sum(1)
        used = s.square().sum(1) > 0
        if not used.any() or not torch.isfinite(weights[used]).all():
            return None
        off = (g - weights[:, None] * s)[used].norm() / g.norm()
        if not off <= tolerance:
            return None
        return weights[used].min().item(), weights[used].max().item()

    def fit_most(self, tolerance: float) -> tuple[float, float]:
        """Weight in the middle of all values, and the share of the values that have it."""
        if not self.rows or len(self.outs) != 1 or self.outs[0].dim() != 1:
            return math.nan, 0.0
        try:
            [score], _ = self.score()
        except (RuntimeError, ValueError, IndexError):
            return math.nan, 0.0
        on = (self.grads[0] != 0) & (score != 0)
        if not on.any():
            return math.nan, 0.0
        ratios = self.grads[0][on] / score[on]
        weight = ratios.median().item()
        share = ((ratios - weight).abs() <= tolerance * abs(weight)).double().mean().item()
        return weight, share


def _touched(grad: Tensor, x: Tensor) -> Tensor:
    """Which values have a gradient: of tokens, in any class."""
    return (grad != 0).any(-1) if grad.dim() == x.dim() + 1 else grad != 0


def _first(grad: Tensor) -> Tensor | None:
    """Where FIRST of the values with a gradient are; None if there are no more."""
    touched = (grad != 0).any(-1) if grad.dim() > 1 else grad != 0
    if len(touched) <= FIRST:
        return None
    where = touched.nonzero()[:, 0]
    return where[:: max(1, len(where) // FIRST)][:FIRST]


def readings(x: Tensor, outs: list[Tensor], grads, asked) -> list[Reading]:
    """Every way to read these tensors, or the one way that is asked for."""
    outs = [exact(out) for out in outs]
    x = x.detach().to(outs[0].device)
    grads = [exact(grad) for grad in grads]
    if asked is not None and not isinstance(asked, Likelihood):
        x = exact(x) if x.is_floating_point() else x
        return [Reading(None, asked, x, tuple(outs), tuple(grads), rows=False)]
    if len(outs) > 1:
        return _mean_and_variance(x, outs, grads)
    [out], [grad] = outs, grads
    found = []
    if asked is None or asked.name.startswith("categorical"):
        found += _tokens(x, out, grad)
    if asked is not None and asked.outputs > 1 and not found:
        return [Reading(asked, asked.per_value, exact(x), (out,), (grad,), rows=False)]
    if asked is None or asked.outputs == 1:
        found += _elementwise(x, out, grad, recognisable() if asked is None else [asked])
    if not found:
        raise AuditError(
            f"x has shape {tuple(x.shape)} and x_hat {tuple(out.shape)}: they must have the same, "
            "or x_hat an axis of classes more, the last or the second. For the next token hand in "
            "x moved by one and padded, F.pad(x[:, 1:], (0, 1))"
        )
    return found


def _elementwise(x: Tensor, out: Tensor, grad: Tensor, known) -> list[Reading]:
    flat, grad = out.flatten(), grad.flatten()
    if not ((flat >= 0) & (flat <= 1)).all():
        # On a GPU a cross-entropy of what is no probability does not raise, it ends the process.
        able = [k for k in known if k.support != (0.0, 1.0) or k.link == "logits"]
        if not able:
            raise AuditError(
                f"{known[0]} takes probabilities, and x_hat goes beyond [0, 1]: if these are "
                f"logits, ask for {known[0].with_link('logits')}"
            )
        known = able
    first = _first(grad)
    return [
        Reading(each, each.per_value, like, (flat,), (grad,), draws, first=first)
        for like, draws in [(exact(like).flatten(), draws) for like, draws in _likes(x, out)]
        for each in known
    ]


def _likes(x: Tensor, out: Tensor) -> list[tuple[Tensor, int]]:
    """x in the shape of x_hat, and for how many draws of z it was repeated, along which axis."""
    if x.numel() == out.numel():
        return [(x.reshape(out.shape), 1)]
    found = []
    for axis in (0, 1) if out.dim() > 1 and x.dim() and len(x) else ():
        rest = (*out.shape[:axis], *out.shape[axis + 1 :])
        if rest[0] == len(x) and math.prod(rest) == x.numel():
            found.append((x.reshape(rest).unsqueeze(axis).expand(out.shape), out.shape[axis]))
        elif rest[0] == 1 == len(x) and math.prod(rest) == x.numel():
            found.append((x.reshape(rest).unsqueeze(axis).expand(out.shape), out.shape[axis]))
    return found


def _tokens(x: Tensor, out: Tensor, grad: Tensor) -> Iterator[Reading]:
    """Logits, log-probabilities or probabilities of classes, the last axis or the second."""
    found = []
    for axis in (-1, 1):
        if out.dim() < 2 or (axis == 1 and out.dim() == 2):
            continue
        classes = out.shape[axis]
        logits, g = (t.movedim(axis, -1) for t in (out, grad))
        if classes < 2:
            continue
        if x.shape == out.shape:  # one-hot rows
            rows = x.movedim(axis, -1)
            if not ((rows == 0) | (rows == 1)).all() or not (rows.sum(-1) == 1).all():
                continue
            target = rows.double().argmax(-1)
        elif x.numel() * classes == out.numel() and (
            axis == -1 or tuple(x.shape) == tuple(logits.shape[:-1])
        ):
            target = x.reshape(logits.shape[:-1])
            if target.is_floating_point() and (target != target.round()).any():
                continue
        else:
            continue
        target = target.flatten().long()
        logits, g = (t.reshape(-1, classes) for t in (logits, g))
        within = target.clamp(0, classes - 1)  # padding may be -100: it has no gradient

        first, likelihood = _first(g), categorical(classes)
        for form in _TOKEN_FORMS:
            found.append(Reading(likelihood, form, within, (logits,), (g,), first=first))
    return found


def _pick(out: Tensor, x: Tensor) -> Tensor:
    return out.gather(-1, x[:, None])[:, 0]


_TOKEN_FORMS = (
    lambda x, out: -_pick(out.log_softmax(-1), x),
    lambda x, out: -_pick(out, x),  # log-probabilities
    lambda x, out: -_pick(out, x).log(),
)


def _mean_and_variance(x: Tensor, outs, grads) -> list[Reading]:
    likes = _likes(x, outs[0])
    if len(outs) != 2 or not likes:
        raise AuditError(
            f"x_hat of {len(outs)} tensors: two are read as a mean, of x's shape, and the log of "
            "its variance; for others give likelihood=f(x, *x_hat), the NLL of each value"
        )
    mean, spread = outs
    try:
        torch.broadcast_to(spread, mean.shape)
    except RuntimeError:
        raise AuditError(
            f"x_hat: the mean has shape {tuple(mean.shape)}, its variance {tuple(spread.shape)}"
        ) from None
    likelihood = gaussian("shared" if spread.numel() == 1 else "per-pixel")
    logs = {"": lambda s: s, "step-second-log-std": lambda s: 2 * s}
    if bool((spread > 0).all()):
        logs |= {"step-second-std": lambda s: 2 * s.log(), "step-second-variance": torch.log}

    def form(log_var):
        return lambda x, mean, s: likelihood.per_value(
            x, torch.stack(torch.broadcast_tensors(mean, log_var(s)), dim=-1)
        )

    same = spread.shape == mean.shape
    if same:
        mean, spread = mean.flatten(), spread.flatten()
        grads = [grad.flatten() for grad in grads]
    return [
        Reading(likelihood, form(f), exact(like).reshape(mean.shape), (mean, spread),
                tuple(grads), draws, rows=same, note=note)
        for like, draws in likes
        for note, f in logs.items()
    ]  # fmt: skip
