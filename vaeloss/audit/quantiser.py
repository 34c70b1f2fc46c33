"""What the terms of a quantiser's loss weigh.

A quantiser replaces what the encoder said, z (B, M), by code vectors e (B, M). Its loss is
c · [NLL + α · Σ (sg z - e)² + β · Σ (z - sg e)²] with all sums over one image, NLL against
sigma2 = 1 for squared error, and sg the stop-gradient; α and β are 1 and 0.25 in van den Oord et
al. 2017, arXiv:1711.00937.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from vaeloss.audit.batch import batch_powers, batch_words
from vaeloss.audit.findings import Finding, finding
from vaeloss.audit.kl import kl_term
from vaeloss.audit.loss import checked
from vaeloss.audit.probe import probe
from vaeloss.audit.reconstruction import reconstruction_term
from vaeloss.audit.result import Audit, identify
from vaeloss.likelihoods import Likelihood, gaussian


@dataclass(frozen=True)
class QuantiserAudit:
    """What ``audit_quantiser`` found; NaN where a term is not a squared distance.

    Attributes
    ----------
    likelihood, c : Likelihood or None, float
        Of the reconstruction, as in ``vaeloss.audit.Audit``.
    codebook, commitment : float
        α and β above, at ``batch_size``.
    findings : tuple of Finding
        What else was found.
    """

    likelihood: Likelihood | None
    c: float
    codebook: float
    commitment: float
    findings: tuple[Finding, ...]
    batch_size: int

    def __str__(self) -> str:
        rows = [
            ("likelihood", str(self.likelihood or "?")),
            *((n, f"{getattr(self, n):.6g}") for n in ("c", "codebook", "commitment")),
            *(("note", found.sentence) for found in self.findings),
        ]
        head = "loss = c · [NLL + codebook · Σ(sg z - e)² + commitment · Σ(z - sg e)²]"
        head += f" at batch size {self.batch_size}"
        return "\n".join([head, *(f"  {name:12}{text}" for name, text in rows)])


def audit_quantiser(
    loss_fn: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    *,
    data_shape: Sequence[int],
    latent_dim: int,
    batch_size: int = 64,
) -> QuantiserAudit:
    """Find the weights of the terms of a quantiser's loss by probing it.

    Parameters
    ----------
    loss_fn : callable
        ``loss_fn(x, x_hat, z, e)`` -> a scalar or one value per sample; x, x_hat ``(B,
        *data_shape)``, z and e (B, latent_dim): the encoder's output and the code vectors chosen
        for it, flattened. It must detach as in training, and must not quantise itself.
    data_shape, latent_dim, batch_size : sequence of int, int, int
        As in ``vaeloss.audit.audit_loss``.

    Returns
    -------
    QuantiserAudit

    Raises
    ------
    AuditError, ValueError
        As in ``audit_loss``.

    Examples
    --------
    >>> def loss_fn(x, x_hat, z, e):
    ...     codebook, commitment = (z.detach() - e).square(), (z - e.detach()).square()
    ...     return (x - x_hat).square().mean() + codebook.mean() + 0.25 * commitment.mean()
    >>> print(audit_quantiser(loss_fn, data_shape=(784,), latent_dim=196))
    loss = c · [NLL + codebook · Σ(sg z - e)² + commitment · Σ(z - sg e)²] at batch size 64
      likelihood  gaussian
      c           0.00255102
      codebook    2
      commitment  0.5
    """
    shape = checked(data_shape, latent_dim, batch_size)

    # Each audit looks at one term and keeps the inputs of the others still. A term's squared
    # distance looks to the auditor like a squared error, of which z or e is the output.
    def reconstruction(x, x_hat, *_):
        z = x.new_zeros(len(x), latent_dim)
        return loss_fn(x, x_hat, z, z)

    def codebook(z, e, *_):
        image = z.new_full((len(z), *shape), 0.5)
        return loss_fn(image, image, z, e) + 0 * e.sum()  # a gradient even if there is no term

    def commitment(e, z, *_):
        image = z.new_full((len(z), *shape), 0.5)
        return loss_fn(image, image, z, e) + 0 * z.sum()

    rec, rec_power = _audited(reconstruction, shape, batch_size)
    weights, findings = [], []
    for name, fn in [("codebook", codebook), ("commitment", commitment)]:
        term, power = _audited(fn, (latent_dim,), batch_size)
        if term.has("no-reconstruction") or term.has("x-hat-detached"):
            weights.append(0.0)
            findings.append(finding("no-term", term=name))
            continue
        # the auditor's unit is half of the squared distance, here it is the whole
        squared = term.likelihood == gaussian()
        weights.append(term.c / 2 / rec.c if squared else math.nan)
        findings += [] if squared else [finding("not-squared", term=name)]
        if power != rec_power:
            words = {"reconstruction": _words(rec_power), "found": _words(power)}
            findings.append(finding("term-depends-on-batch", term=name, **words))
    return QuantiserAudit(rec.likelihood, rec.c, *weights, tuple(findings), rec.batch_size)


def _audited(fn: Callable, shape: tuple[int, ...], batch_size: int) -> tuple[Audit, int | None]:
    """The audit of one term, and the power of B in its weight."""
    seen = probe(fn, shape, 1, batch_size)
    powers, _ = batch_powers(seen, *reconstruction_term(seen), *kl_term(seen))
    return identify(seen), powers[0]


def _words(power: int | None) -> str:
    return "of a weight that changes with it" if power is None else batch_words(power)
