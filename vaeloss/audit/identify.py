"""Evidence → what each term is: its likelihood, its weight, or why it has none. Calls no loss."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vaeloss.audit.evidence import Evidence, Inputs, Probe
from vaeloss.audit.findings import Finding, finding
from vaeloss.likelihoods import Likelihood, recognisable

TOLERANCE = 1e-4  # largest residual of a term that counts as known; it bounds its weight's error
FIRST = 4096  # values on which a likelihood is recognised; it is then fitted on all


@dataclass
class Term:
    """One term of the loss, its weight on the sum over one sample, and how well that fits."""

    weight: float
    residual: float
    likelihood: Likelihood | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def known(self) -> bool:
        """Whether the term fits: its relative residual is at most TOLERANCE."""
        return self.residual <= TOLERANCE


def fit(gradients: list[Tensor], references: list[Tensor]) -> tuple[float, float]:
    """Least-squares weight common to all probes, and the worst relative residual of any.

    Each probe counts alike, whatever the size of its gradient. A residual of r bounds the relative
    error of the weight by about r.

    Examples
    --------
    >>> fit([torch.tensor([2.0, 4.0])], [torch.tensor([1.0, 2.0])])
    (2.0, 0.0)
    """
    pairs = list(zip(gradients, references, strict=True))
    weights = [((g * r).sum() / r.square().sum()).item() for g, r in pairs]
    weight = sum(weights) / len(weights)
    distances = [
        (
            (g - weight * r).norm() / max(g.norm().item(), abs(weight) * r.norm().item(), 1e-300)
        ).item()
        for g, r in pairs
    ]
    return weight, max(distances)


def fit_reconstruction(likelihood: Likelihood, probes, first: int | None = None):
    """Weight and relative residual of a likelihood in the gradients of x_hat.

    ``first`` uses only this many pixels of the batch.
    """

    def reference(probe: Probe) -> Tensor:
        x, x_hat = (t.flatten()[:first].double() for t in (probe.x, probe.x_hat))
        return likelihood.score(x, x_hat)

    return fit([p.d_x_hat.flatten()[:first] for p in probes], [reference(p) for p in probes])


def kl_gradient(inputs: Inputs) -> Tensor:
    """Gradient of the KL with weight one, (B, 2M): mu, then (exp(log_var) - 1) / 2."""
    return torch.cat([inputs.mu, torch.expm1(inputs.log_var) / 2], dim=1).double()


def fit_kl(probes):
    """Weight and relative residual of KL(q(z|x) || N(0, I)) in the gradients of mu, log_var."""
    return fit([p.d_posterior for p in probes], [kl_gradient(p) for p in probes])


def reconstruction_term(seen: Evidence, asked: Likelihood | None = None) -> Term:
    """The reconstruction, recognised or the one that is ``asked`` for; or what is wrong with it."""
    probes, known = seen.probes, recognisable()
    if not any(p.d_x_hat.any() for p in probes):
        code = "x-hat-detached" if seen.moves["x_hat"] else "no-reconstruction"
        return Term(0.0, 1.0, findings=[finding(code)])
    residuals = [fit_reconstruction(each, probes, FIRST)[1] for each in known]
    least = min(residuals)
    best = known[residuals.index(least)]
    term = Term(*fit_reconstruction(asked or best, probes), asked or best)
    if term.known:
        return term
    varying = [
        each
        for each in known
        if all(fit_reconstruction(each, [p], FIRST)[1] <= TOLERANCE for p in probes)
    ]
    if not seen.moves["x"]:
        found = finding("x-ignored")
    elif seen.random_reconstruction:
        found = finding("reconstruction-random")
    elif asked is not None and least <= TOLERANCE:
        found = finding("other-likelihood", asked=str(asked), found=str(best))
    elif varying:
        found = finding("reconstruction-weight-varies", likelihood=str(varying[0]))
    else:
        names = ", ".join(map(str, known))
        found = finding("reconstruction-unknown", known=names, nearest=str(best), off=least)
    term.findings.append(found)
    return term


def kl_term(seen: Evidence) -> Term:
    """The KL, closed form or sampled; or what is there instead, if it is neither."""
    probes, m = seen.probes, seen.latent_dim
    if not any(p.d_posterior.any() for p in probes):
        moves = seen.moves["mu"] or seen.moves["log_var"]
        return Term(0.0, 0.0, findings=[finding("posterior-detached" if moves else "no-kl")])
    if seen.random_posterior:
        return _sampled_kl(seen)
    term = Term(*fit_kl(probes))
    if term.known:
        return term
    gradients = [p.d_posterior for p in probes]
    # the gradient of the KL of a posterior with log sigma = log_var
    log_sigma = [torch.cat([p.mu, torch.expm1(2 * p.log_var)], dim=1).double() for p in probes]
    if not any(g[:, :m].any() for g in gradients):
        code = "kl-ignores-mu"
    elif not any(g[:, m:].any() for g in gradients):
        code = "kl-ignores-log-var"
    elif fit(gradients, log_sigma)[1] <= TOLERANCE:
        code = "kl-of-log-sigma"
    elif all(fit_kl([p])[1] <= TOLERANCE for p in probes):
        code = "kl-weight-varies"
    else:
        code = "kl-unknown"
    term.findings.append(finding(code))
    return term


def _sampled_kl(seen: Evidence) -> Term:
    # Where the posterior has no width its samples have no noise, and the weight shows exactly.
    term = Term(*fit_kl(seen.narrow))
    # At ordinary log_var the average over many draws must be the KL as well.
    weight = fit_kl(seen.narrow_small)[0]
    reference = kl_gradient(seen.drawn_at)
    draws = torch.tensor([fit([gradient], [reference])[0] for gradient in seen.draws])
    standard_error = draws.std().item() / math.sqrt(len(draws))
    off = abs(draws.mean().item() - weight)
    if term.known and off <= 5 * standard_error + 1e-3 * abs(weight):
        term.findings.append(finding("kl-sampled"))
        return term
    return Term(math.nan, max(term.residual, 1.0), findings=[finding("kl-random")])


BATCH = {0: "averaged over the batch", 1: "summed over the batch", -1: "divided by B² in all"}


def batch_words(power: int) -> str:
    """How a term treats the batch if its weight goes as this power of B."""
    return BATCH.get(power, f"scaled as B^{power} times a mean")


def batch_powers(seen: Evidence, rec: Term, kl: Term) -> tuple[tuple, list[Finding]]:
    """The power of B in each weight (None: unknown, or not a power), and findings on them."""
    if not rec.known or not kl.known:
        return (None, None), []
    size = seen.batch_size
    if not seen.other or (seen.narrow and not seen.narrow_other):
        data = {"size": size, "other": seen.other_size, "error": seen.other_error}
        return (None, None), [finding("one-batch-size", **data)]

    def power(term: Term, weight: float, residual: float) -> int | None:
        if residual > TOLERANCE or not term.weight / weight > 0:
            return None
        k = math.log(term.weight / weight) / math.log(size / seen.other_size)
        return round(k) if abs(k - round(k)) < 1e-3 else None

    powers = [power(rec, *fit_reconstruction(rec.likelihood, seen.other))]
    powers.append(power(kl, *fit_kl(seen.narrow_other or seen.other)) if kl.weight else powers[0])
    if None in powers:
        return (None, None), [finding("weights-change-with-batch", size=size)]
    words = [batch_words(k) for k in powers]
    if powers[0] != powers[1]:
        data = {"reconstruction": words[0], "kl": words[1]}
        return tuple(powers), [finding("beta-depends-on-batch", **data)]
    if powers[0] != 0:
        return tuple(powers), [finding("c-depends-on-batch", both=words[0])]
    return tuple(powers), []


def clipping(seen: Evidence, c: float) -> list[Finding]:
    """What the loss does where a probability is 0: at 1e-30 a pixel should cost 69 nats."""
    if seen.certain is None:
        return []
    low, half = seen.certain
    cost = (low.value - half.value) / (c * low.x[0].numel()) + math.log(2)
    if cost > 60:
        return []
    gradient = "with a bounded gradient" if low.d_x_hat.any() else "and has no gradient"
    return [finding("clipped", probability=math.exp(-cost), nats=cost, gradient=gradient)]


def reading(c: float, beta: float, rec: Term, seen: Evidence, size: int, powers) -> list[Finding]:
    """β in terms of D, M and B, if it is that of the usual reductions."""
    d, last, m = math.prod(seen.shape), seen.shape[-1], seen.latent_dim
    pixels = [("1", 1, "sum over pixels")]
    pixels += [("D", d, "mean over pixels")] if d > 1 else []
    pixels += [(str(last), last, "mean over the last axis only")] if 1 < last < d else []
    latents = [("", 1, "sum over latents")] + ([("M", m, "mean over latents")] if m > 1 else [])
    halves = [("", 1, "reconstruction")]
    if rec.likelihood.name == "gaussian":
        halves = [("", 1, "half the squared error"), ("2", 2, "squared error without ½")]
    power = powers[1] - powers[0]
    batch = {0: "", 1: "B·"}.get(power, f"B^{power}·")

    found = []
    for over_m, divisor, kl in latents:
        for over_2, half, error in halves:
            for above, factor, reduced in pixels:
                if math.isclose(beta, size**power * factor / divisor / half, rel_tol=TOLERANCE):
                    below = f"({over_2}{over_m})" if over_2 and over_m else over_2 + over_m
                    formula = f"{batch}{above}/{below}" if below else batch + above
                    data = {"formula": formula, "error": error, "pixels": reduced, "latents": kl}
                    each = finding("elbo") if formula == "1" else finding("reductions", **data)
                    like_c = math.isclose(c, size ** powers[0] * half / factor, rel_tol=TOLERANCE)
                    found.append((not like_c, len(found), each))
    # several may share a β (M = 2): prefer the one that has this c as well, then the simplest
    return [min(found, key=lambda each: each[:2])[2]] if found else []
