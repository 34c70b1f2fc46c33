"""The gradients at mu and log_var in one training step → the KL and its weight.

Latents whose gradient is zero are left out (free bits, a clamp), and their share is said.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaeloss.audit.evidence import AuditError
from vaeloss.audit.findings import Finding, finding
from vaeloss.audit.identify import fit
from vaeloss.audit.step_graph import exact
from vaeloss.audit.step_terms import StepTerm

NEAR = 1e-6  # a posterior whose KL has a gradient below this is the prior


@dataclass
class Posterior:
    """mu and what its width is told by: "log_var", "log_std" or "std", under a label."""

    mu: Tensor
    spread: Tensor
    kind: str
    label: str


LOG_VAR = {  # log σ² of what a posterior's width is told by
    "log_var": lambda spread: spread,
    "log_std": lambda spread: 2 * spread,
    "std": lambda spread: 2 * spread.log(),
}


def kl_term(given: Posterior, grads, prior, z, size: int, tolerance: float) -> StepTerm:
    """The KL, closed form or sampled; or what is there instead."""
    grads = [exact(grad) for grad in grads]
    closed = _prior(prior) is not None
    if not closed and z is None:
        raise AuditError(f"prior is a {type(prior).__name__}: hand in z as well, or the KL, kl=")
    term, size_of_gradient = StepTerm(0.0, 1.0, tolerance), 1.0
    if closed:
        term, size_of_gradient = _fitted(given, grads, given.kind, prior, None, size, tolerance)
    if size_of_gradient < NEAR:
        return StepTerm(math.nan, 1.0, tolerance, findings=[finding("posterior-is-prior")])
    if not any(grad.any() for grad in grads):
        return StepTerm(0.0, 0.0, tolerance, findings=[finding("step-no-kl")])
    noise = []
    if z is not None:
        ratio = _noise(given, z)
        error = 5 / math.sqrt(2 * z.numel())
        noise = [finding("step-noise", std=ratio)] if abs(ratio - 1) > max(0.2, error) else []
    if not term.known and z is not None:
        sampled, _ = _fitted(given, grads, given.kind, prior, z, size, tolerance)
        if sampled.known:
            term = sampled
            term.findings.append(finding("step-kl-sampled"))
    if not term.known and closed:
        drawn = _one_draw(given, grads, prior, size, tolerance)
        term = drawn if drawn is not None and drawn.known else term
    if not term.known:
        eps = torch.finfo(given.mu.dtype).eps
        code = "posterior-is-prior" if 4 * eps / size_of_gradient > 0.03 else "step-kl-unknown"
        found = _mixed_up(given, grads, prior, size, tolerance)
        found = found or _two_weights(given, grads, prior, size, tolerance)
        found = found or finding(
            code, **({} if code == "posterior-is-prior" else {"spread": given.label})
        )
        term = replace(term, findings=[found])
    elif term.reached < 0.999:
        term.findings.append(finding("step-kl-reached", share=term.reached))
    term.findings += noise
    return term


def base(distribution: Distribution | None) -> Distribution | None:
    """What is inside ``Independent``."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def _prior(prior: Distribution | None) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation; None if it is no Normal."""
    prior = base(prior)
    if prior is None:
        return torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    if not isinstance(prior, Normal):
        return None
    return exact(prior.loc), exact(prior.scale)


def _nats(mu, log_var, prior, z) -> Tensor:
    """The KL of each latent; with z that of the draw, log q(z) - log p(z), up to a constant."""
    moments = _prior(prior)
    if z is None:
        mean, std = (t.to(mu.device) for t in moments)
        ratio = log_var - 2 * std.log()
        return 0.5 * (((mu - mean) / std).square() + ratio.expm1() - ratio)
    std = (log_var / 2).exp()
    eps = ((exact(z) - mu) / std).detach()
    draw = mu + std * eps
    if moments is not None:
        log_p = Normal(*(t.to(mu.device) for t in moments), validate_args=False).log_prob(draw)
    else:
        log_p = prior.log_prob(draw.to(z)).to(draw)
    log_q = Normal(mu, std, validate_args=False).log_prob(draw)
    return log_q - log_p if log_p.shape == log_q.shape else log_q.sum() - log_p.sum()


def _references(given, kind, prior, z) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The KL of each latent, and its gradients with weight one at mu and its width."""
    with torch.enable_grad():
        mu, spread = (exact(t).requires_grad_() for t in (given.mu, given.spread))
        nats = _nats(mu, LOG_VAR[kind](spread), prior, z)
        # kept: the prior may share a graph with the loss
        references = torch.autograd.grad(nats.sum(), [mu, spread], retain_graph=True)
    return nats.detach(), references


def _fitted(given, grads, kind, prior, z, size, tolerance) -> tuple[StepTerm, float]:
    """The KL's weight, and the size of its gradient for one latent."""
    nats, references = _references(given, kind, prior, z)
    mu, spread = given.mu, given.spread
    size_of_gradient = math.sqrt(
        sum(r.square().sum().item() for r in references) / sum(r.numel() for r in references)
    )
    on = [(g != 0) | (r == 0) for g, r in zip(grads, references, strict=True)]
    if mu.shape == spread.shape:
        on = 2 * [(grads[0] != 0) | (grads[1] != 0)]
    g, r = (
        torch.cat([t[where] for t, where in zip(ts, on, strict=True)]) for ts in (grads, references)
    )
    draws = 1 if z is None else z.numel() / mu.numel()
    if not r.any():
        return StepTerm(0.0, 1.0, tolerance), size_of_gradient
    weight, residual = fit([g], [r])
    reached = torch.cat([where[r != 0] for where, r in zip(on, references, strict=True)])
    inside = nats.detach()[..., on[0]] if nats.shape[-mu.dim() :] == mu.shape else nats.detach()
    return StepTerm(
        weight * size * draws,
        residual,
        tolerance,
        reached.double().mean().item(),
        inside.sum().item() / draws,
    ), size_of_gradient


def _one_draw(given, grads, prior, size, tolerance) -> StepTerm | None:
    """A sampled KL whose draw is not known: an equation for the weight in every latent.

    With one draw z the gradients are a = w z at mu and b = w (z (z - mu) - 1) / 2 at log σ², for
    N(0, 1). Without z: w² + w (2 b + mu a) - a² = 0, whose roots have opposite signs.
    """
    mu, spread = exact(given.mu), exact(given.spread)
    if mu.shape != spread.shape or mu.numel() < 8:
        return None
    mean, std = (t.to(mu.device) for t in _prior(prior))
    a, mu = grads[0] * std, (mu - mean) / std
    b = grads[1] * {"log_var": 1.0, "log_std": 0.5, "std": spread / 2}[given.kind]
    b = 2 * b + mu * a
    root = (b.square() + 4 * a.square()).sqrt()
    best = None
    for sign in (1, -1):
        w = torch.where(sign * b > 0, 2 * a.square() / (b + sign * root), (sign * root - b) / 2)
        weight = w.median().item()
        if not weight:
            continue
        off = ((w - weight).abs().quantile(0.9) / abs(weight)).item()  # rounding grows with z²
        if best is None or off < best.residual:
            z = a / weight
            log_var = LOG_VAR[given.kind](spread) - 2 * std.log()
            noise = ((z - mu) * (-log_var / 2).exp()).std().item()
            best = StepTerm(weight * size, off, tolerance)
            best.findings.append(finding("step-kl-sampled"))
            if abs(noise - 1) > max(0.2, 5 / math.sqrt(2 * z.numel())):
                best.findings.append(finding("step-noise", std=noise))
    return best


def _noise(given: Posterior, z: Tensor) -> float:
    """Standard deviation of the noise that was drawn for z."""
    mu, spread = exact(given.mu), exact(given.spread)
    eps = (exact(z) - mu) * (-LOG_VAR[given.kind](spread) / 2).exp()
    return eps.square().mean().sqrt().item()


def _two_weights(given: Posterior, grads, prior, size, tolerance) -> Finding | None:
    """A KL whose two halves, that of mu and that of the width, have weights of their own."""
    if _prior(prior) is None:
        return None
    weights = []
    for half in (0, 1):
        alone = [grad if i == half else torch.zeros_like(grad) for i, grad in enumerate(grads)]
        references = _references(given, given.kind, prior, None)[1]
        on = alone[half] != 0
        if not on.any() or not references[half][on].any():
            return None
        weight, residual = fit([alone[half][on]], [references[half][on]])
        if not residual <= tolerance:
            return None
        weights.append(weight * size)
    return finding("step-kl-halves", spread=given.label, first=weights[0], second=weights[1])


def _mixed_up(given: Posterior, grads, prior, size, tolerance) -> Finding | None:
    if _prior(prior) is None:
        return None
    for kind in LOG_VAR:
        if kind == given.kind or (kind == "std" and bool((given.spread <= 0).any())):
            continue
        if _fitted(given, grads, kind, prior, None, size, tolerance)[0].known:
            return finding("step-spread", spread=given.label, other=kind)
    return None
