"""The ways in which outputs may be scored, and how well one of them fits the gradients of x_hat."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaeloss.audit.evidence import Evidence, Probe
from vaeloss.audit.identify import fit
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


def head(probes: Sequence[Probe], values: int) -> list[Probe]:
    """The first samples of each probe, at least two, with about so many values of x."""
    rows = max(2, values // max(1, probes[0].x[0].numel()))
    names = ("x", "x_hat", "mu", "log_var", "d_x_hat", "d_posterior")
    return [replace(p, **{name: getattr(p, name)[:rows] for name in names}) for p in probes]


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
    whole = bool(mask.all())  # by far the most frequent, and the quickest
    gradients, references = [], []
    for probe in probes:
        values = reading.values(probe)
        x, out, gradient = ((t.flatten(0, 1) if whole else t[mask])[:first] for t in values)
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


def share_reached(seen: Evidence, reading: Reading | None = None) -> float:
    """Share of the values that have a gradient in some probe; of text, of those scored."""
    reading = reading or Reading(categorical(2))
    moved = [reading.values(p)[2] != 0 for p in seen.probes]
    mask = torch.stack([m if m.ndim == 2 else m.any(-1) for m in moved]).any(0)
    return mask.double().mean().item()
