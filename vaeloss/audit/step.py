"""What a loss weighs in the training step you have: the audit of one step, before its backward.

The decoder is cut out of a backward pass by hooks that put zeros in the place of x_hat's gradient.
What then arrives at mu and log_var is the KL's gradient alone, exactly, however small its weight;
what arrived at x_hat is the reconstruction's. Nothing is subtracted, so nothing cancels.

``step_graph`` asks the graph; ``step_reconstruction`` and ``step_kl`` read what it answers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from vaeloss.audit.evidence import AuditError
from vaeloss.audit.identify import TOLERANCE
from vaeloss.audit.loss import Audit
from vaeloss.audit.step_graph import exact, gradients, sources
from vaeloss.audit.step_kl import Posterior, base, kl_term
from vaeloss.audit.step_reconstruction import reconstruction_term
from vaeloss.audit.step_terms import StepTerm, remarks, term_as_given
from vaeloss.likelihoods import Likelihood, as_likelihood


@dataclass(frozen=True)
class StepAudit(Audit):
    """An Audit of one step.

    Parameters
    ----------
    tolerance : float
        The largest residual that counts as a fit: more where the tensors have fewer digits.
    nll, kl : float
        The two terms themselves at this step, in nats of a sample, without weights and without
        constants; NaN if unknown.
    """

    tolerance: float = TOLERANCE
    nll: float = math.nan
    kl: float = math.nan

    def _head(self) -> str:
        return f"loss = c · [NLL + β · KL] at this step, batch size {self.batch_size}"

    def _rows(self) -> list[tuple[str, str]]:
        own = {"fits": "yes"} if self.residual <= self.tolerance else {}
        if self.likelihood is None and math.isfinite(self.c):
            own["likelihood"] = "as given"
        return [(name, own.get(name, text)) for name, text in super()._rows()]


def audit_step(
    loss: Tensor,
    *,
    x: Tensor | None = None,
    x_hat: Tensor | Sequence[Tensor] | None = None,
    mu: Tensor | None = None,
    log_var: Tensor | None = None,
    log_std: Tensor | None = None,
    std: Tensor | None = None,
    posterior: Distribution | None = None,
    prior: Distribution | None = None,
    likelihood: Likelihood | str | Callable | None = None,
    nll: Tensor | None = None,
    kl: Tensor | None = None,
    z: Tensor | None = None,
    ignore: Tensor | Sequence[Tensor] = (),
) -> StepAudit:
    """Find c and β of the loss of a training step; call it just before ``loss.backward()``.

    Parameters
    ----------
    loss : Tensor
        A scalar, or one value per sample, (B,), whose batch mean is meant; with its graph.
    x : Tensor
        What x_hat is compared with. Whole numbers are tokens if x_hat has one axis more, that of
        the classes: the last or the second.
    x_hat : Tensor or sequence of Tensor
        The very tensor that the loss was computed from, means or logits; or two, a mean and the
        log of the variance that is learned with it; or as many as a callable ``likelihood`` takes.
    mu : Tensor, shape (B, ...)
        The very tensor that the loss was computed from; spatial latents too.
    log_var, log_std, std : Tensor
        One of them, again the very tensor.
    posterior : Distribution
        Instead of mu and these: the ``Normal``, or ``Independent`` of it, that the KL comes from.
    prior : Distribution, optional
        Learned or conditional, of the same kinds; together with z any distribution. Default:
        N(0, I).
    likelihood : Likelihood, str or callable, optional
        To insist on one, "poisson", "negative-binomial(2)"; or your own ``f(x, *x_hat)``, the NLL
        of each value in nats. Default: recognise it.
    nll, kl : Tensor, optional
        The loss's own NLL or KL where none is recognised, in nats: (B, ...), or a scalar, the mean
        over the batch. Its weight is measured, its contents are not looked at.
    z : Tensor, optional
        The sample of the posterior: for a KL that is sampled, and to check the sampler.
    ignore : Tensor or sequence of Tensor
        Other terms of the loss, an adversarial one, say, or what they are computed from. No
        gradient passes through them here.

    Returns
    -------
    StepAudit
        c is the factor in front of all, β the ratio of the two weights. They hold at this step:
        one step does not show what changes with time or with the size of a term.

    Raises
    ------
    AuditError
        A tensor is a copy, detached, made anew or changed after the loss was computed; backward
        was called before; shapes do not go together.

    Notes
    -----
    The graph, what lies in ``.grad`` and the random state stay as they are, bit for bit. Your own
    hooks in the graph run once more; a ``retain_grad()`` on a tensor that is not handed in here
    collects its gradient once more. The cost is one backward pass without the gradients of the
    weights.

    Examples
    --------
    >>> x, encoder, decoder = torch.rand(8, 784), torch.nn.Linear(784, 4), torch.nn.Linear(2, 784)
    >>> mu, log_var = encoder(x).chunk(2, dim=1)
    >>> x_hat = decoder(mu + (log_var / 2).exp() * torch.randn_like(mu))
    >>> kl = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1).mean()
    >>> loss = torch.nn.functional.mse_loss(x_hat, x) + kl
    >>> audit = audit_step(loss, x=x, x_hat=x_hat, mu=mu, log_var=log_var)
    >>> round(audit.beta, 2), audit.findings[0].sentence
    (392.0, 'β = D/2: squared error without ½, mean over pixels; KL, sum over latents')
    """
    outs, cut = _several(x_hat), _several(ignore)
    given = None if kl is not None else _posterior(mu, log_var, log_std, std, posterior)
    if nll is None and (not outs or x is None):
        raise AuditError("nothing to compare: give x and x_hat, or the loss's own nll=")
    if nll is loss or kl is loss:
        raise AuditError("nll= and kl= are the two terms that the loss is made of, not the loss")
    x = None if x is None else torch.as_tensor(x)
    named = {"nll": nll} if nll is not None else dict(_numbered("x_hat", outs))
    asked = {"kl": kl} if kl is not None else {"mu": given.mu, given.label: given.spread}
    size = _batch_size(given, kl, nll, outs)
    form = likelihood
    if likelihood is not None and (isinstance(likelihood, str) or not callable(likelihood)):
        form = as_likelihood(likelihood)

    leaves = sources([given.mu, given.spread]) if given else []
    leaves = [leaf for leaf in leaves if leaf is not x]
    inside = base(prior)  # a prior that is learned is no other term
    moments = [inside.loc, inside.scale] if isinstance(inside, Normal) else []
    grads, passed_by = gradients(loss, {**named, **asked}, [*cut, *moments], leaves, size)
    tolerance = max(_tolerance(t) for t in (*named.values(), *asked.values()))
    with torch.autocast(loss.device.type, enabled=False):
        if nll is not None:
            rec = term_as_given("nll", nll, grads["nll"], size, tolerance)
        else:
            rec = reconstruction_term(x, outs, [grads[n] for n in named], form, size, tolerance)
        if kl is not None:
            rate = term_as_given("kl", kl, grads["kl"], size, tolerance)
        else:
            found = [grads[n] for n in asked]
            rate = kl_term(given, found, prior, z, size, tolerance)
    if passed_by:
        rate = rate.beside(given.label)
    value = math.nan if cut else exact(loss).mean().item()
    return _told(rec, rate, value, size, given)


def _told(rec: StepTerm, rate: StepTerm, value: float, size: int, given) -> StepAudit:
    rec, unclear = rec.decided(rate, value, size)
    c = rec.weight if rec.known else math.nan
    weight = rate.weight if rate.known else math.nan
    beta = weight / c if c else math.nan
    gaussian = rec.likelihood is not None and rec.likelihood.name == "gaussian"
    latents = given.mu[0].numel() if given else 0
    notes = remarks(rec, rate, c, beta, value, size, latents)
    return StepAudit(
        likelihood=rec.likelihood if rec.known else None,
        c=c,
        beta=beta,
        sigma2=beta if gaussian and math.isfinite(beta) else None,
        kl_weight=weight,
        reached=rec.reached,
        residual=max(rec.residual, rate.residual),
        findings=(*unclear, *rec.findings, *rate.findings, *notes),
        batch_size=size,
        tolerance=max(rec.tolerance, rate.tolerance),
        nll=rec.nats / size if rec.known else math.nan,
        kl=rate.nats / size if rate.known else math.nan,
    )


# --- what is handed in ---------------------------------------------------------------------------


def _several(tensors: Tensor | Sequence[Tensor] | None) -> list[Tensor]:
    if tensors is None:
        return []
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _numbered(name: str, tensors: list[Tensor]) -> list[tuple[str, Tensor]]:
    if len(tensors) == 1:
        return [(name, tensors[0])]
    return [(f"{name}[{i}]", tensor) for i, tensor in enumerate(tensors)]


def _posterior(mu, log_var, log_std, std, posterior) -> Posterior:
    spreads = {"log_var": log_var, "log_std": log_std, "std": std}
    spreads = {name: tensor for name, tensor in spreads.items() if tensor is not None}
    if posterior is not None and (mu is not None or spreads):
        raise AuditError("give posterior=, or mu and one of log_var, log_std, std: not both")
    if posterior is not None:
        inside = base(posterior)
        if not isinstance(inside, Normal):
            raise AuditError(
                f"posterior is a {type(inside).__name__}: only Normal, or Independent of it, is "
                "read; hand in the loss's own KL instead, kl="
            )
        return Posterior(inside.loc, inside.scale, "std", "posterior.scale")
    if mu is None or len(spreads) != 1:
        raise AuditError("give mu and one of log_var, log_std, std; or posterior=, or kl=")
    [(name, spread)] = spreads.items()
    return Posterior(mu, spread, name, name)


def _batch_size(given, kl, nll, outs) -> int:
    """B: rows of mu; without mu, of whatever there is that has rows."""
    tensors = [given.mu if given else None, kl, nll, *outs]
    return next((len(t) for t in tensors if t is not None and t.dim()), 1)


def _tolerance(tensor: Tensor) -> float:
    # autocast: bfloat16 has three digits, and a gradient has no more than its tensor
    eps = torch.finfo(tensor.dtype).eps
    return max(TOLERANCE, 4 * eps)
