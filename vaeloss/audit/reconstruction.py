"""The gradients of x_hat → the likelihood and its weight, or what is there instead."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaeloss.audit.evidence import Evidence, Probe
from vaeloss.audit.findings import Finding, finding
from vaeloss.audit.identify import TOLERANCE, Term, fit
from vaeloss.likelihoods import Likelihood, categorical, recognisable

FIRST = 4096  # values on which a likelihood is recognised; it is then fitted on all


@dataclass(frozen=True)
class Reading:
    """A likelihood, and which value of x each output is scored against.

    Attributes
    ----------
    link : str
        Of tokens, what the outputs are: "logits", "log-probabilities" or "probabilities".
    shift : int
        1: each output is scored against the next token, as in a decoder of text.
    """

    likelihood: Likelihood
    link: str = ""
    shift: int = 0

    def values(self, probe: Probe) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, n), x_hat and its gradient (B, n) or (B, n, outputs)."""
        end = probe.x.ndim
        x, out, gradient = (t.flatten(1, end - 1) for t in (probe.x, probe.x_hat, probe.d_x_hat))
        if self.shift:  # text has one axis
            x, out, gradient = x[:, 1:], out[:, :-1], gradient[:, :-1]
        return x, out, gradient

    def possible(self, probes: Sequence[Probe]) -> bool:
        """A last output that is scored has no next token."""
        return not self.shift or not any(p.d_x_hat[:, -1].any() for p in probes)


def token_readings(categories: int, shape: tuple[int, ...]) -> list[Reading]:
    """Every way to score tokens: three kinds of outputs, this token or the next one."""
    plain = categorical(categories)

    def chosen(x, out):
        return -out.gather(-1, x.long()[..., None])[..., 0]

    forms = {
        "logits": plain.forms["logits"],
        "log-probabilities": chosen,
        "probabilities": lambda x, p: chosen(x, p.log()),
    }
    shifts = (0, 1) if len(shape) == 1 and shape[0] > 1 else (0,)
    return [
        Reading(replace(plain, forms={"logits": form}), link, shift)
        for shift in shifts
        for link, form in forms.items()
    ]


def reached(reading: Reading, probes: Sequence[Probe]) -> Tensor:
    """Which values (B, n) have a gradient in some probe; all, if a whole sample has none."""
    moved = [reading.values(p)[2] != 0 for p in probes]
    mask = torch.stack([m if m.ndim == 2 else m.any(-1) for m in moved]).any(0)
    return mask if mask.any(1).all() else torch.ones_like(mask)


def kept(reading: Reading, probes: Sequence[Probe]) -> float:
    """How many values of a sample have a gradient, on average."""
    return reached(reading, probes).sum(1).double().mean().item()


def fit_reconstruction(reading: Reading, probes: Sequence[Probe], first: int | None = None):
    """Weight and relative residual of a likelihood in the gradients of x_hat.

    ``first`` uses only this many values of the batch. Values without a gradient are left out.
    """
    if not reading.possible(probes):
        return 0.0, 1.0
    mask = reached(reading, probes)
    gradients, references = [], []
    for probe in probes:
        x, out, gradient = (t[mask][:first] for t in reading.values(probe))
        gradients.append(gradient)
        references.append(reading.likelihood.score(x.double(), out.double()))
    return fit(gradients, references)


def readings(seen: Evidence, asked: Likelihood | None, categories: int | None) -> list[Reading]:
    """What the reconstruction may be."""
    if categories:
        return token_readings(categories, seen.shape)
    most = seen.probes[0].x.max()  # counts are no probabilities
    known = [Reading(each) for each in recognisable() if most <= each.support[1]]
    if asked is not None and not any(asked.name == each.likelihood.name for each in known):
        known += [Reading(asked.with_link(link)) for link in asked.forms]
        if asked.name.startswith("negative-binomial"):  # of torch and scvi: log(mean / r)
            r = 1 / (asked.variance(1.0, None) - 1)

            def of_logits(x, out, form=asked.forms["log"]):
                return form(x, out + math.log(r))

            logits = replace(asked, link="mean", forms={"mean": of_logits})
            known.append(Reading(logits, "logits, log(mean / r)"))
    return known


def reconstruction_term(
    seen: Evidence, asked: Likelihood | None = None, categories: int | None = None
) -> tuple[Term, Reading]:
    """The reconstruction, recognised or the one that is ``asked`` for; or what is wrong with it."""
    probes, known = seen.probes, readings(seen, asked, categories)
    if not any(p.d_x_hat.any() for p in probes):
        if seen.moves["x_hat"]:
            code = "x-hat-detached"
        elif seen.moves["x"] or seen.random_posterior:
            code = "decodes-inside"
        else:
            code = "no-reconstruction"
        return Term(0.0, 1.0, findings=[finding(code)]), known[0]
    residuals = [fit_reconstruction(each, probes, FIRST)[1] for each in known]
    least = min(residuals)
    best = known[residuals.index(least)]
    # of a likelihood that no gradient tells from others the link is found, not asked for
    parametric = asked is not None and known[-1].likelihood.name == asked.name != "poisson"
    if categories or asked is None or (parametric and best.likelihood.name == asked.name):
        reading = best
    else:
        reading = Reading(asked)
    term = Term(*fit_reconstruction(reading, probes), reading.likelihood)
    if term.known:
        term.findings += _about(reading, seen)
        return term, reading
    if seen.moves["x"] is False:
        term.findings.append(finding("x-ignored"))
    elif seen.random_reconstruction:
        term.findings.append(finding("reconstruction-random"))
    elif asked is not None and not categories and least <= TOLERANCE:
        data = {"asked": str(asked), "found": str(best.likelihood)}
        term.findings.append(finding("other-likelihood", **data))
    else:
        term.findings += _diagnosis(seen, known, best) or _unknown(known, best, least, probes)
    return term, reading


def _about(reading: Reading, seen: Evidence) -> list[Finding]:
    """What is worth knowing of a reconstruction that fits."""
    found = []
    share = share_reached(seen, reading)
    if reading.link not in ("", "logits"):
        found.append(finding("tokens-as", outputs=reading.link))
    if reading.shift:
        found.append(finding("next-token"))
    if share < 1:
        found.append(finding("masked", left=1 - share))
    if reading.likelihood.name == "gaussian" and reading.likelihood.link == "mean":
        found += _huber([seen.far] if seen.far else [], reading, seen.probes, "huber")
    return found


def _unknown(known, best: Reading, off: float, probes) -> list[Finding]:
    """Nothing fits: what is nearest, and how much of it there is."""
    names = ", ".join(dict.fromkeys(str(each.likelihood) for each in known))
    nearest = str(best.likelihood)
    found = [finding("reconstruction-unknown", known=names, nearest=nearest, off=off)]
    if off < 0.5:
        data = {"likelihood": nearest, "weight": fit_reconstruction(best, probes)[0]}
        found.append(finding("reconstruction-partly", share=1 - off**2, **data))
    return found


def share_reached(seen: Evidence, reading: Reading | None = None) -> float:
    """Share of the values that have a gradient in some probe; of text, of those scored."""
    reading = reading or Reading(categorical(2))
    moved = [reading.values(p)[2] != 0 for p in seen.probes]
    mask = torch.stack([m if m.ndim == 2 else m.any(-1) for m in moved]).any(0)
    return mask.double().mean().item()


# --- what a reconstruction without one weight may be ---------------------------------------------


def _diagnosis(seen: Evidence, known: list[Reading], best: Reading) -> list[Finding]:
    """The first of several other forms that fits; empty if none does."""
    probes = seen.probes
    for each in known:
        if all(fit_reconstruction(each, [p], FIRST)[1] <= TOLERANCE for p in probes):
            return [finding("reconstruction-weight-varies", likelihood=str(each.likelihood))]
    for each in known:
        if (found := _weights_differ(each, probes)) is not None:
            return [found]
    for each in known:
        if each.likelihood.name == "bernoulli" and (ratio := _pos_weight(each, probes)):
            return [finding("pos-weight", likelihood=str(each.likelihood), ratio=ratio)]
    squared = next((e for e in known if str(e.likelihood) == "gaussian"), None)
    return _huber(probes, squared, probes[2:], "huber-inside") if squared else []


def _weights_differ(reading: Reading, probes: Sequence[Probe]) -> Finding | None:
    """Whether the likelihood fits with a weight for each sample, value or symbol."""
    if not reading.possible(probes):
        return None
    products, squares, whole = [], [], []
    for probe in probes:
        x, out, gradient = reading.values(probe)
        n = x.numel()
        if n > 2**17:  # enough of a large batch
            return None
        score = reading.likelihood.score(
            x.reshape(n).double(), out.reshape(n, *out.shape[2:]).double()
        ).reshape(gradient.shape)
        scale = score.square().sum()
        tokens = score.ndim == 3
        products.append(((gradient * score).sum(-1) if tokens else gradient * score) / scale)
        squares.append((score.square().sum(-1) if tokens else score.square()) / scale)
        whole.append((gradient, score))
    mask = reached(reading, probes)
    number = mask.sum(1)
    groups = [("sample", 0), ("value", 1)]
    for what, axis in groups:
        over = 1 - axis
        above = sum((p * mask).sum(over) for p in products)
        below = sum((s * mask).sum(over) for s in squares)
        weights = torch.where(below > 0, above / below.clamp(min=1e-300), 0)
        spread = weights.unsqueeze(over) * mask
        off = max(
            ((g - (spread if g.ndim == 2 else spread[..., None]) * r).norm() / g.norm()).item()
            for g, r in whole
        )
        used = weights[below > 0]
        if off <= TOLERANCE and len(used) > 1:
            data = {"what": what, "low": used.min().item(), "high": used.max().item()}
            data["likelihood"] = str(reading.likelihood)
            total = weights * number if what == "sample" else weights
            if what == "sample" and (total / total.mean() - 1).abs().max() <= TOLERANCE:
                return finding("own-length", **data)
            return finding("weights-differ", **data)
    return _weights_of_symbols(reading, probes) if reading.link else None


def _weights_of_symbols(reading: Reading, probes: Sequence[Probe]) -> Finding | None:
    symbols = int(reading.likelihood.outputs)
    weights = []
    for symbol in range(symbols):
        gradients, references = [], []
        for probe in probes:
            x, out, gradient = reading.values(probe)
            at = x == symbol
            gradients.append(gradient[at])
            references.append(reading.likelihood.score(x[at].double(), out[at].double()))
        if not len(gradients[0]):
            continue
        weight, off = fit(gradients, references)
        if off > TOLERANCE and any(g.any() for g in gradients):
            return None
        weights.append(weight)
    data = {"low": min(weights), "high": max(weights), "likelihood": str(reading.likelihood)}
    return finding("weights-differ", what="symbol", **data)


def _pos_weight(reading: Reading, probes: Sequence[Probe]) -> float | None:
    """How much more the cross-entropy of ones weighs than that of zeros."""
    columns, gradients = [], []
    for probe in probes:
        x, out, gradient = (t.flatten()[:FIRST].double() for t in reading.values(probe))
        score = reading.likelihood.score
        ones, zeros = (
            x * score(torch.ones_like(x), out),
            (1 - x) * score(torch.zeros_like(x), out),
        )
        columns.append(torch.stack([ones, zeros], 1) / gradient.norm())
        gradients.append(gradient / gradient.norm())
    design, target = torch.cat(columns), torch.cat(gradients)
    weights = torch.linalg.lstsq(design, target[:, None]).solution[:, 0]
    off = ((design @ weights - target).norm() / target.norm()).item()
    return (weights[0] / weights[1]).item() if off <= TOLERANCE and weights.min() > 0 else None


def _huber(probes, reading: Reading, close: Sequence[Probe], code: str) -> list[Finding]:
    """Squared error in ``close``, with a bounded gradient in ``probes``: the bound."""
    if not probes or fit_reconstruction(reading, probes)[1] <= TOLERANCE:
        return []
    weight, off = fit_reconstruction(reading, close)
    if off > TOLERANCE or not weight:
        return []
    gradients = [reading.values(p)[2] for p in probes]
    delta = max(g.abs().max().item() for g in gradients) / abs(weight)
    bounded = [(p.x_hat - p.x).double().clamp(-delta, delta).flatten(1) for p in probes]
    if fit(gradients, bounded)[1] > TOLERANCE:
        return []
    return [finding(code, delta=delta, weight=weight)]
