"""What each term of a probed loss is: its likelihood, its weight, or why it has none."""

import math
from dataclasses import dataclass, field

import torch

from vaeloss.audit.probe import (
    RECONSTRUCTIONS,
    VANISHING,
    Probe,
    Prober,
    fit,
    kl_gradient,
    reconstruction_gradient,
)

TOLERANCE = 1e-4  # largest residual of a term that counts as known; it bounds its weight's error


@dataclass
class Term:
    """One term of the loss, its weight on the sum over one sample, and how well that fits."""

    name: str
    weight: float
    residual: float
    notes: list[str] = field(default_factory=list)

    @property
    def known(self) -> bool:
        """Whether the term fits: its relative residual is at most TOLERANCE."""
        return self.residual <= TOLERANCE


def fit_reconstruction(name: str, probes: list[Probe], first: int | None = None):
    """Weight and relative residual of the reconstruction ``name`` in the gradients of x_hat.

    Parameters
    ----------
    first : int, optional
        Use only this many pixels of the batch.
    """
    gradients = [p.d_x_hat.flatten()[:first] for p in probes]
    return fit(gradients, [reconstruction_gradient(name, p, first) for p in probes])


def fit_kl(probes: list[Probe]):
    """Weight and relative residual of KL(q(z|x) || N(0, I)) in the gradients of mu, log_var."""
    return fit([p.d_posterior for p in probes], [kl_gradient(p) for p in probes])


def reconstruction_term(loss: Prober, probes: list[Probe], likelihood: str | None) -> Term:
    """The reconstruction term: recognised, or the given ``likelihood``; notes say what is wrong."""
    b = len(probes[0].x)
    if not any(p.d_x_hat.any() for p in probes):
        note = "no reconstruction term: the loss ignores x_hat"
        if loss.value_changes_with(b, "x_hat"):
            note = "the value depends on x_hat, the gradient does not: look for .detach()"
        return Term("none", 0.0, 1.0, [note])

    # recognised on some of the pixels, then fitted on all
    residuals = {name: fit_reconstruction(name, probes, 4096)[1] for name in RECONSTRUCTIONS}
    best = min(residuals, key=residuals.get)
    term = Term(likelihood or best, *fit_reconstruction(likelihood or best, probes))
    if term.known:
        return term
    if not loss.value_changes_with(b, "x"):
        term.notes.append("the loss ignores x: is x_hat compared with itself?")
    elif loss.is_random(probes[0], "d_x_hat"):
        term.notes.append("the reconstruction term is random: switch off dropout and noise")
    elif likelihood is not None and residuals[best] <= TOLERANCE:
        term.notes.append(f"the reconstruction is not {likelihood!r} but {best!r}")
    elif varying := _fits_each(probes):
        term.notes.append(
            f"{varying}, but its weight changes with the size of the error (a logarithm, a root, "
            "a fitted variance?): no constant c and β"
        )
    else:
        term.notes.append(
            f"the reconstruction is none of {', '.join(RECONSTRUCTIONS)} with one weight for all "
            f"pixels and samples (nearest: {best}, off by {residuals[best]:.1g}); audit its parts "
            "one at a time"
        )
    return term


def _fits_each(probes: list[Probe]) -> str | None:
    """The reconstruction that fits every probe, though with a weight of its own."""
    for name in RECONSTRUCTIONS:
        if all(fit_reconstruction(name, [p], 4096)[1] <= TOLERANCE for p in probes):
            return name
    return None


def kl_term(loss: Prober, probes: list[Probe]) -> Term:
    """The KL term, closed form or sampled; notes say what is there instead, if it is neither."""
    b, m = len(probes[0].x), loss.latent_dim
    if not any(p.d_posterior.any() for p in probes):
        note = "no KL: an autoencoder's loss"
        if loss.value_changes_with(b, "mu") or loss.value_changes_with(b, "log_var"):
            note = "the value depends on mu or log_var, the gradient does not: look for .detach()"
        return Term("none", 0.0, 0.0, [note])
    if loss.is_random(probes[0], "d_posterior"):
        return _monte_carlo_kl(loss, b)

    term = Term("kl", *fit_kl(probes))
    if term.known:
        return term
    gradients = [p.d_posterior for p in probes]
    # the gradient of the KL of a posterior with log sigma = log_var
    log_sigma = [torch.cat([p.mu, torch.expm1(2 * p.log_var)], dim=1).double() for p in probes]
    if not any(g[:, :m].any() for g in gradients):
        term.notes.append("not a KL: the loss ignores mu")
    elif not any(g[:, m:].any() for g in gradients):
        term.notes.append("not a KL: the loss ignores log_var")
    elif fit(gradients, log_sigma)[1] <= TOLERANCE:
        term.notes.append(
            "the KL is written for log σ but is given log σ²: pass it log_var / 2, or write "
            "exp(log_var) for σ²"
        )
    elif all(fit_kl([p])[1] <= TOLERANCE for p in probes):
        term.notes.append(
            "the weight of the KL changes with its size (free bits, |KL - C|, KL², a learned "
            "weight?): no constant β"
        )
    else:
        term.notes.append(
            "the gradients with respect to mu and log_var are not those of a KL to N(0, I) with "
            "one weight for all latents and samples (free bits, clipping, another prior, "
            "importance weights, one fixed draw of noise?): no β"
        )
    return term


def _monte_carlo_kl(loss: Prober, b: int) -> Term:
    # Where the posterior has no width its samples have no noise, and the weight shows exactly.
    term = Term("sampled kl", *fit_kl(loss.probes(b, log_var=VANISHING)))
    # At ordinary log_var the average over many draws must be the KL as well. Drawn in a smaller
    # batch if the batch is large, where the weight may be another one.
    small = min(b, max(2, 2048 // loss.latent_dim))
    weight = fit_kl(loss.probes(small, log_var=VANISHING))[0]
    inputs = loss.inputs(small)
    draws = torch.tensor([fit_kl([loss.probe(inputs)])[0] for _ in range(100)])
    standard_error = draws.std().item() / 10
    off = abs(draws.mean().item() - weight)
    if term.known and off <= 5 * standard_error + 1e-3 * abs(weight):
        term.notes.append(
            "a Monte Carlo KL: right on average, random from call to call (β was found where the "
            "posterior is narrow and the noise vanishes); the closed form costs less"
        )
        return term
    note = (
        "the gradients with respect to mu and log_var change from call to call (noise, an annealed "
        "weight?), and are not those of a sampled KL; if it is one, computed in "
        "float32, audit the loss with the closed form in its place"
    )
    return Term("random", math.nan, max(term.residual, 1.0), [note])


def batch_powers(loss: Prober, size: int, rec: Term, kl: Term):
    """The power of B in each weight (None: unknown, or not a power), and notes on them."""
    if not rec.known or not kl.known:
        return (None, None), []
    other = size // 2 if size > 1 else 2
    try:
        probes = loss.probes(other)
        quiet = loss.probes(other, log_var=VANISHING) if kl.name == "sampled kl" else probes
    except Exception as error:  # a loss with a batch size written into it may raise anything
        note = f"works at batch size {size} only; whether its weights depend on it is unknown"
        return (None, None), [f"{note} (at {other}: {error})"]

    def power(term: Term, weight: float, residual: float) -> int | None:
        if residual > TOLERANCE or not term.weight / weight > 0:
            return None
        k = math.log(term.weight / weight) / math.log(size / other)
        return round(k) if abs(k - round(k)) < 1e-3 else None

    powers = [power(rec, *fit_reconstruction(rec.name, probes))]
    powers.append(power(kl, *fit_kl(quiet)) if kl.weight else powers[0])
    if None in powers:
        note = f"the weights change with the batch size: c and β hold at {size} only"
        return (None, None), [note]
    names = {0: "averaged over the batch", 1: "summed over the batch", -1: "divided by B² in all"}
    rec_is, kl_is = (names.get(k, f"scaled as B^{k} times a mean") for k in powers)
    if powers[0] != powers[1]:
        note = f"β depends on the batch size: the reconstruction is {rec_is}, the KL {kl_is}"
        return powers, [f"{note} (or divided by a number that is not the batch's size)"]
    if powers[0] != 0:
        return powers, [f"{rec_is}: c depends on the batch size, β does not"]
    return powers, []
