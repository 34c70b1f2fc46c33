"""What a reconstruction may be that has no single weight: its samples, values or errors differ."""

from collections.abc import Sequence

import torch

from vaeloss.audit.evidence import Evidence, Probe
from vaeloss.audit.findings import Finding, finding
from vaeloss.audit.identify import TOLERANCE, fit
from vaeloss.audit.readings import FIRST, Reading, fit_reconstruction, head, reached


def diagnosis(seen: Evidence, known: list[Reading]) -> list[Finding]:
    """The first of several other forms that fits; empty if none does."""
    probes = seen.probes
    first = head(probes, FIRST)
    for each in known:
        if all(fit_reconstruction(each, [p], FIRST)[1] <= TOLERANCE for p in first):
            return [finding("reconstruction-weight-varies", likelihood=str(each.likelihood))]
    for each in known:
        if _weights_differ(each, first) and (found := _weights_differ(each, probes)):
            return [found]
    for each in known:
        if each.likelihood.name == "bernoulli" and (ratio := _pos_weight(each, first)):
            return [finding("pos-weight", likelihood=str(each.likelihood), ratio=ratio)]
    squared = next((e for e in known if str(e.likelihood) == "gaussian"), None)
    return huber(probes, squared, probes[2:], "huber-inside") if squared else []


def _weights_differ(reading: Reading, probes: Sequence[Probe]) -> Finding | None:
    """Whether the likelihood fits with a weight for each sample, value or symbol."""
    if not reading.possible(probes):
        return None
    products, squares, whole = [], [], []
    for probe in probes:
        x, out, gradient = reading.values(probe)
        n = x.numel()
        score = reading.likelihood.score(
            x.reshape(n).double(), out.reshape(n, *out.shape[2:]).double()
        ).reshape(gradient.shape)
        scale = score.square().sum()
        tokens = score.ndim == 3
        products.append(((gradient * score).sum(-1) if tokens else gradient * score) / scale)
        squares.append((score.square().sum(-1) if tokens else score.square()) / scale)
        whole.append((gradient, score))
    mask = reached(reading, probes)
    for what, over in [("sample", 1), ("value", 0)]:
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
            total = weights * mask.sum(1) if what == "sample" else None
            if total is not None and (total / total.mean() - 1).abs().max() <= TOLERANCE:
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


def huber(probes, reading: Reading, close: Sequence[Probe], code: str) -> list[Finding]:
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
