"""A term of one training step: what it weighs, and what is said of two of them together."""

import math
from dataclasses import dataclass, field, replace

from torch import Tensor

from vaeloss.audit.findings import Finding, finding
from vaeloss.audit.step_graph import exact
from vaeloss.likelihoods import Likelihood

EVEN = 1e-3  # how much the weights of values that are weighed alike may differ


@dataclass
class StepTerm:
    """A term of the loss: its weight with the batch mean, and how well it fits."""

    weight: float
    residual: float
    tolerance: float
    reached: float = 1.0
    nats: float = math.nan  # the term itself, summed over the batch
    likelihood: Likelihood | None = None
    values: int = 0  # of one sample
    last: int = 0  # on the last axis
    findings: list[Finding] = field(default_factory=list)
    others: list["StepTerm"] = field(default_factory=list)  # that fit as well

    @property
    def known(self) -> bool:
        """Whether the term fits."""
        return self.residual <= self.tolerance

    def has(self, code: str) -> bool:
        """Whether there is a finding with this code."""
        return any(found.code == code for found in self.findings)

    def beside(self, spread: str) -> "StepTerm":
        """This KL if another gradient reaches the encoder past mu and what tells the width."""
        if self.known and self.weight:
            found = [*self.findings, finding("step-other-term", spread=spread)]
            return replace(self, findings=found)
        if self.has("posterior-is-prior"):
            return self
        found = [finding("step-kl-elsewhere", spread=spread)]
        return replace(self, weight=math.nan, residual=1.0, findings=found)

    def decided(self, rate: "StepTerm", value: float, size: int):
        """Of the likelihoods that fit, the one with the value of the loss; and what is unclear.

        Where all outputs are ½ the gradients of squared error and cross-entropy are proportional,
        their values are not.
        """
        every = [self, *self.others]
        right = [t for t in every if explained(t, rate, value, size)]
        if not self.others or len(right) == 1:
            return (right or every)[0] if len(every) > 1 else self, []
        names = " or ".join(f"{t.likelihood} with c = {t.weight:.4g}" for t in every)
        unknown = replace(self, weight=math.nan, residual=1.0, likelihood=None)
        return unknown, [finding("step-ambiguous", names=names)]


def explained(rec: StepTerm, rate: StepTerm, value: float, size: int) -> bool:
    """Whether the value of the loss is that of its two terms, up to a likelihood's constant."""
    parts = (rec.weight * rec.nats + rate.weight * rate.nats) / size
    near = max(1e-3, rec.tolerance, rate.tolerance)
    return any(
        math.isclose(value, parts + constant, rel_tol=near) for constant in constants(rec, size)
    )


def constants(rec: StepTerm, size: int) -> list[float]:
    """What constants may add to the loss: none, or those of a density whose scale is fixed.

    A weight w on half a square is k / variance, where k, 1/B or 1 or one over all values, is what
    the NLL of one value is multiplied by.
    """
    found, weight, values = [0.0], rec.weight / size, rec.values * size
    if rec.likelihood is None or rec.likelihood.name not in ("gaussian", "laplace") or weight <= 0:
        return found
    for k in (1.0, 1 / size, 1 / values):
        scale = k / weight
        if rec.likelihood.name == "gaussian":
            nats = [math.log(2 * math.pi * scale) / 2, math.log(scale) / 2]
        else:
            nats = [math.log(2 * scale), math.log(scale)]
        found += [k * values * each for each in nats]
    return found


def term_as_given(name: str, term: Tensor, grad: Tensor, size: int, tolerance: float) -> StepTerm:
    """A term that is handed in as a tensor: its weight is its gradient."""
    on = grad != 0
    if not on.any():
        return StepTerm(
            0.0, 0.0, tolerance, 0.0, findings=[finding("step-given-unused", name=name)]
        )
    weights = exact(grad[on])
    weight = weights.mean().item()
    spread = ((weights - weight).abs().max() / abs(weight)).item()
    nats = exact(term[on]).sum().item()
    scalar = term.dim() == 0 or term.numel() == 1
    how = "the mean over the batch" if scalar else "one value for each sample or element"
    found = [finding("step-given", name=name, how=how)]
    if spread > max(EVEN, tolerance):
        low, high = (w.item() * size for w in (weights.min(), weights.max()))
        each = {"likelihood": f"{name} as given", "what": "value", "low": low, "high": high}
        found.append(finding("step-weights-differ", **each))
    reached = on.double().mean().item()
    scale = 1 if scalar else size
    residual = spread if spread > EVEN else 0.0
    return StepTerm(
        weight * scale, residual, tolerance, reached, nats * size / scale, findings=found
    )


def remarks(rec, rate, c, beta, value, size: int, latents: int) -> list[Finding]:
    """What follows from the two weights, and what to change."""
    found = []
    near = max(rec.tolerance, rate.tolerance)
    if math.isfinite(beta) and rec.likelihood is not None:
        found += _reading(rec, c, beta, size, latents, near)
    whole = min(rec.reached, rate.reached) > 0.999 and rec.likelihood is not None
    whole = whole and math.isinf(rec.likelihood.support[1]) <= math.isinf(rec.likelihood.support[0])
    checked = whole and math.isfinite(value) and rec.known and rate.known
    if checked and math.isfinite(rate.nats) and not explained(rec, rate, value, size):
        parts = (rec.weight * rec.nats + rate.weight * rate.nats) / size
        found.append(finding("step-value", parts=parts, value=value))
    power = math.log2(c) if c > 0 else 0.0
    plain = math.isclose(power, round(power), abs_tol=1e-3) and round(power) >= 8
    if plain and not any(math.isclose(c, k * size, rel_tol=1e-3) for k in (1, 2)):
        found.append(finding("step-scaled", c=c, power=round(power)))
    if beta < 0:
        found.append(finding("step-negative-beta"))
    if c < 0:
        found.append(finding("negative-c"))
    if beta > 0 and not math.isclose(beta, 1, rel_tol=near):
        found.append(finding("multiply-kl", factor=1 / beta))
    if beta > 0 and c > 0 and not math.isclose(c, 1, rel_tol=near):
        found.append(finding("learning-rate", factor=c))
    return found


def _reading(rec: StepTerm, c, beta, size, latents, near) -> list[Finding]:
    """β and c together as those of the usual reductions."""
    if math.isclose(beta, 1, rel_tol=near):
        return [finding("elbo")]
    pixels = [("1", 1, "sum over pixels"), ("D", rec.values, "mean over pixels")]
    pixels += [(str(rec.last), rec.last, "mean over the last axis only")]
    halves = [("", 1, "reconstruction")]
    if rec.likelihood.name == "gaussian":
        halves = [("", 1, "half the squared error"), ("2", 2, "squared error without ½")]
    for over_m, divisor, kl in (("", 1, "sum over latents"), ("M", latents, "mean over latents")):
        for over_2, half, error in halves:
            for above, factor, reduced in pixels:
                if not (
                    divisor and factor and math.isclose(beta, factor / divisor / half, rel_tol=near)
                ):
                    continue
                batch = c * factor / half  # 1: a mean over the batch, B: a sum
                if any(math.isclose(batch, k, rel_tol=near) for k in (1, size)):
                    below = f"({over_2}{over_m})" if over_2 and over_m else over_2 + over_m
                    formula = f"{above}/{below}" if below else above
                    data = {"formula": formula, "error": error, "pixels": reduced, "latents": kl}
                    return [finding("reductions", **data)]
    return []
