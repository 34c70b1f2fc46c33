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

from vaeloss.audit.loss import Audit, audit_loss


@dataclass(frozen=True)
class QuantiserAudit:
    """What ``audit_quantiser`` found; NaN where a term is not a squared distance.

    Attributes
    ----------
    likelihood, scale : str or None, float
        Of the reconstruction, as in ``vaeloss.audit.Audit``.
    codebook, commitment : float
        α and β above, at ``batch_size``.
    notes : tuple of str
        Findings, in sentences.
    """

    likelihood: str | None
    scale: float
    codebook: float
    commitment: float
    notes: tuple[str, ...]
    batch_size: int

    def __str__(self) -> str:
        rows = [
            ("likelihood", self.likelihood or "?"),
            *((n, f"{getattr(self, n):.6g}") for n in ("scale", "codebook", "commitment")),
            *(("note", note) for note in self.notes),
        ]
        head = "loss = scale · [NLL + codebook · Σ(sg z - e)² + commitment · Σ(z - sg e)²]"
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
    loss = scale · [NLL + codebook · Σ(sg z - e)² + commitment · Σ(z - sg e)²] at batch size 64
      likelihood  gaussian
      scale       0.00255102
      codebook    2
      commitment  0.5
    """
    sizes = {"latent_dim": 1, "batch_size": batch_size}

    # Each audit looks at one term and keeps the inputs of the others still. A term's squared
    # distance looks to the auditor like a squared error, of which z or e is the output.
    def reconstruction(x, x_hat, *_):
        z = x.new_zeros(len(x), latent_dim)
        return loss_fn(x, x_hat, z, z)

    def codebook(z, e, *_):
        image = z.new_full((len(z), *data_shape), 0.5)
        return loss_fn(image, image, z, e) + 0 * e.sum()  # a gradient even if there is no term

    def commitment(e, z, *_):
        image = z.new_full((len(z), *data_shape), 0.5)
        return loss_fn(image, image, z, e) + 0 * z.sum()

    rec = audit_loss(reconstruction, data_shape=data_shape, **sizes)
    weights, notes = [], []
    for name, fn in [("codebook", codebook), ("commitment", commitment)]:
        term = audit_loss(fn, data_shape=(latent_dim,), **sizes)
        if any("ignores x_hat" in n or "gradient does not" in n for n in term.notes):
            weights.append(0.0)
            notes.append(f"no {name} term")
            continue
        # the auditor's unit is half of the squared distance, here it is the whole
        squared = term.likelihood == "gaussian"
        weights.append(term.scale / 2 / rec.scale if squared else math.nan)
        notes += [] if squared else [f"the {name} term is not a squared distance"]
        if _batch(term) != _batch(rec):
            notes.append(
                f"the weight of the {name} term depends on the batch size: the reconstruction is "
                f"{_batch(rec)}, the {name} {_batch(term)}"
            )
    return QuantiserAudit(rec.likelihood, rec.scale, *weights, tuple(notes), rec.batch_size)


def _batch(audit: Audit) -> str:
    found = [note for note in audit.notes if "the batch" in note or "batch size" in note]
    return found[0].split(":")[0] if found else "averaged over the batch"
