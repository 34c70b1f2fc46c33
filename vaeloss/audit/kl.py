"""The gradients of mu and log_var → the KL and its weight, or what is there instead."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from vaeloss.audit.evidence import Evidence, Inputs, Probe
from vaeloss.audit.findings import finding
from vaeloss.audit.identify import TOLERANCE, Term, fit

COARSE = 1e-2  # near the prior a float32 gradient has three digits; a changed weight shows anyhow

Weigh = Callable[[Sequence[Probe]], tuple[float, float]]  # -> weight, relative residual


def kl_gradient(inputs: Inputs) -> Tensor:
    """Gradient of the KL with weight one, (B, 2M): mu, then (exp(log_var) - 1) / 2."""
    return torch.cat([inputs.mu, torch.expm1(inputs.log_var) / 2], dim=1).double()


def fit_kl(probes: Sequence[Probe]) -> tuple[float, float]:
    """Weight and relative residual of KL(q(z|x) || N(0, I)) in the gradients of mu, log_var."""
    return fit([p.d_posterior for p in probes], [kl_gradient(p) for p in probes])


def fit_sampled(probes: Sequence[Probe]) -> tuple[float, float]:
    """The same of a KL that is ``log q(z) - log p(z)`` at one draw z of each latent.

    There g_mu = w z and g_log_var = w (z (z - mu) - 1) / 2, so that each latent says w without its
    noise: w² + w (2 g_log_var + mu g_mu) - g_mu² = 0, which has one root of each sign. The noise
    that this implies must have mean 0 and variance 1.
    """
    roots = []
    for sign in (1, -1):
        of_probes, noise = [], []
        for p in probes:
            m = p.mu.shape[1]
            g_mu, g_log_var = p.d_posterior[:, :m], p.d_posterior[:, m:]
            half = (2 * g_log_var + p.mu.double() * g_mu) / 2
            of_probes.append(sign * torch.hypot(half, g_mu) - half)
        weight = torch.cat(of_probes).median().item()
        if not weight:
            continue
        for p in probes:
            z = p.d_posterior[:, : p.mu.shape[1]] / weight
            noise.append((z - p.mu.double()) * torch.exp(-p.log_var.double() / 2))
        off = max(((w - weight).square().mean().sqrt() / abs(weight)).item() for w in of_probes)
        roots.append((weight, off if _standard(torch.cat(noise)) else 1.0))
    return min(roots, key=lambda root: root[1], default=(0.0, 1.0))


def _standard(noise: Tensor) -> bool:
    """Whether mean and variance of the different values are within five standard errors of 0, 1."""
    different = torch.unique((1e3 * noise).round()) / 1e3
    n = different.numel()
    if n < 2:
        return False
    mean, variance = noise.mean().item(), noise.var().item()
    return abs(mean) <= 5 / math.sqrt(n) and abs(variance - 1) <= 5 * math.sqrt(2 / n)


def fit_categorical(classes: int, probes: Sequence[Probe]) -> tuple[float, float]:
    """Weight and residual of the KL to the uniform, if mu holds logits of codes of ``classes``."""
    references = []
    for p in probes:
        log_q = p.mu.double().unflatten(1, (-1, classes)).log_softmax(-1)
        q, excess = log_q.exp(), log_q + math.log(classes)
        score = q * (excess - (q * excess).sum(-1, keepdim=True))
        references.append(torch.cat([score.flatten(1), torch.zeros_like(p.log_var)], 1).double())
    return fit([p.d_posterior for p in probes], references)


def kl_term(seen: Evidence) -> tuple[Term, Weigh]:
    """The KL, closed form or sampled; or what is there instead, if it is neither.

    Returns
    -------
    Term, callable
        The second reads the weight off probes of the same loss.
    """
    probes = seen.probes
    if not any(p.d_posterior.any() for p in probes):
        moves = seen.moves["mu"] or seen.moves["log_var"]
        code = "posterior-detached" if moves else "no-kl"
        return Term(0.0, 0.0, findings=[finding(code)]), fit_kl
    term = Term(*fit_kl(probes))
    if term.known:
        return _near(term, seen, fit_kl), fit_kl
    sampled = Term(*fit_sampled(probes))
    if sampled.known:
        code = "kl-sampled" if seen.random_posterior else "kl-sampled-once"
        sampled.findings.append(finding(code))
        return _near(sampled, seen, fit_sampled), fit_sampled
    if seen.random_posterior:
        return _averaged_kl(seen), fit_kl
    for classes in range(2, seen.latent_dim + 1):
        # a softmax does not see a constant, so that the gradients of a code add up to nothing
        if seen.latent_dim % classes == 0 and _sums_to_nothing(probes, classes):
            weigh = partial(fit_categorical, classes)
            coded = Term(*weigh(probes))
            if coded.known:
                data = {"codes": seen.latent_dim // classes, "classes": classes}
                coded.findings.append(finding("kl-categorical", **data))
                return coded, weigh
    term.findings.append(finding(_what_instead(seen)))
    return term, fit_kl


def _near(term: Term, seen: Evidence, weigh: Weigh) -> Term:
    """The term, refused if its weight is another one near the prior, or keeps changing."""
    weight, residual = weigh([seen.near])
    # free nats leave no gradient there, and a sampled KL of free nats may have any
    if residual > COARSE or abs(weight / term.weight - 1) > COARSE:
        return term.refused("kl-weight-varies")
    if seen.keeps_state and not (seen.random_posterior or seen.random_reconstruction):
        return term.refused("keeps-state")
    return term


def _sums_to_nothing(probes: Sequence[Probe], classes: int) -> bool:
    m = probes[0].mu.shape[1]
    if any(p.d_posterior[:, m:].any() for p in probes):
        return False
    sums = [p.d_posterior[:, :m].unflatten(1, (-1, classes)).sum(-1).norm() for p in probes]
    return all(s <= TOLERANCE * p.d_posterior.norm() for s, p in zip(sums, probes, strict=True))


def _what_instead(seen: Evidence) -> str:
    """The code of what has the gradients of a posterior, but is no KL with one weight."""
    probes, m = seen.probes, seen.latent_dim
    gradients = [p.d_posterior for p in probes]
    # the gradient of the KL of a posterior with log sigma = log_var
    log_sigma = [torch.cat([p.mu, torch.expm1(2 * p.log_var)], dim=1).double() for p in probes]
    # of a quantiser's terms, in which the last two arguments are compared with each other
    apart = [(p.mu - p.log_var).double() for p in probes]
    pairs = ([g[:, :m] for g in gradients], apart), ([g[:, m:] for g in gradients], apart)
    if all(fit(*pair)[1] <= TOLERANCE or not any(g.any() for g in pair[0]) for pair in pairs):
        return "quantiser"
    if not any(g[:, :m].any() for g in gradients):
        return "kl-ignores-mu"
    if not any(g[:, m:].any() for g in gradients):
        return "kl-ignores-log-var"
    if fit(gradients, log_sigma)[1] <= TOLERANCE:
        return "kl-of-log-sigma"
    if all(fit_kl([p])[1] <= TOLERANCE for p in probes):
        return "kl-weight-varies"
    return "kl-unknown"


def _averaged_kl(seen: Evidence) -> Term:
    """A sampled KL that is the average of several draws, or random in another way."""
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
