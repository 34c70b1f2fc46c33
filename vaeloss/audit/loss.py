"""What a loss weighs: the audit of a function, and how it is told.

A loss is written c · [NLL + β · KL]: NLL summed over the pixels, KL over the latents, both averaged
over the batch; c is a gradient scale, β the weight that changes the model. The auditor needs no
source code. It gathers what the loss returns (``vaeloss.audit.probe``), then reads that
(``vaeloss.audit.identify``), then says so (``vaeloss.audit.findings``): once each, in this order.
"""

import html
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from vaeloss.audit.evidence import Evidence
from vaeloss.audit.findings import CHANGES, Finding, finding
from vaeloss.audit.identify import (
    TOLERANCE,
    batch_powers,
    clipping,
    kl_term,
    reading,
    reconstruction_term,
)
from vaeloss.audit.probe import probe
from vaeloss.likelihoods import Likelihood, as_likelihood

WIDTH = 76  # of a printed audit, in characters


@dataclass(frozen=True)
class Audit:
    """What an audit found. Print it, or let a notebook show it.

    Parameters
    ----------
    likelihood : Likelihood or None
        Of the reconstruction, with its link: ``collapse_threshold`` takes it as it is. None if the
        reconstruction is unknown.
    c : float
        The factor in front of all, at ``batch_size``; NaN if unknown.
    beta : float
        β, against the NLL of sigma2 = 1 (half the squared error); NaN if unknown.
    sigma2 : float or None
        For squared error the decoder variance with which β is one, the same number as β, in squared
        units of the pixels that the loss is given; None for other likelihoods.
    kl_weight : float
        What the KL, summed over the latents and averaged over the batch, is multiplied by: c·β,
        known even where the reconstruction is not; NaN if unknown.
    reached : float
        The share of the outputs that have a gradient: 1, or less where some are masked out.
    residual : float
        Relative distance between the loss's gradients and those of c · [NLL + β · KL], the worst of
        all probes. Above TOLERANCE there is no β, only findings.
    findings : tuple of Finding
        What else was found; the last ones say what to change.
    batch_size : int
        At which c (and β, should it depend on the batch) holds.
    """

    likelihood: Likelihood | None
    c: float
    beta: float
    sigma2: float | None
    kl_weight: float
    reached: float
    residual: float
    findings: tuple[Finding, ...]
    batch_size: int

    def has(self, code: str) -> bool:
        """Whether there is a finding with this code."""
        return any(found.code == code for found in self.findings)

    def _rows(self) -> list[tuple[str, str]]:
        fits = f"no: off by {self.residual:.1g}" if self.residual > TOLERANCE else "yes"
        rows = [("likelihood", str(self.likelihood or "?")), ("c", _number(self.c))]
        rows += [("β", _number(self.beta))]
        if math.isnan(self.beta) and math.isfinite(self.kl_weight) and self.kl_weight:
            rows += [("c·β", _number(self.kl_weight))]
        if self.sigma2 is not None:
            rows += [("σ²", f"{_number(self.sigma2)} with β = 1")]
        names = ["change" if found.code in CHANGES else "note" for found in self.findings]
        notes = [(n, found.sentence) for n, found in zip(names, self.findings, strict=True)]
        return [*rows, ("fits", fits), *notes]

    def _head(self) -> str:
        return f"loss = c · [NLL + β · KL] at batch size {self.batch_size}"

    def __str__(self) -> str:
        return "\n".join([self._head(), *(_wrapped(name, text) for name, text in self._rows())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left">{name}</th>'
            f'<td style="text-align:left">{html.escape(text)}</td></tr>'
            for name, text in self._rows()
        )
        return f"<table><caption>{self._head()}</caption><tbody>{rows}</tbody></table>"


def audit_loss(
    loss_fn: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    *,
    data_shape: Sequence[int],
    latent_dim: int,
    batch_size: int = 64,
    likelihood: Likelihood | str | None = None,
) -> Audit:
    """Find c and β such that the loss is c · [NLL + β · KL], or say that it is not.

    Parameters
    ----------
    loss_fn : callable
        ``loss_fn(x, x_hat, mu, log_var)`` -> a scalar, or one value per sample, (B,), whose batch
        mean is meant. x, x_hat are ``(B, *data_shape)`` in (0, 1); mu, log_var (B, latent_dim).
        PyTorch, or Keras on its torch backend; differentiable. It may take logits for x_hat.
    data_shape, latent_dim : tuple of int, int
        As the loss expects them: (28, 28), (784,), (3, 64, 64) ...
    batch_size : int
        At which c (and β, should it depend on the batch) is wanted.
    likelihood : Likelihood or str, optional
        One of ``vaeloss.likelihoods``, or its name, to insist on; default: recognise it.

    Returns
    -------
    Audit
        Where it answers, c and β are right to 1e-4 relative. For a loss of another form beta (and
        c, if the reconstruction is unknown) is NaN, and the findings say why. What differs only
        for pixels outside (0, 1) is not seen: there a Huber loss is half the squared error.

    Raises
    ------
    AuditError
        The loss raises, or returns NaN, a wrong shape, or something without a gradient.
    ValueError
        An argument makes no sense.

    Examples
    --------
    >>> def loss_fn(x, x_hat, mu, log_var):
    ...     kl = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1)
    ...     return (x - x_hat).square().flatten(1).mean(1) + kl
    >>> print(audit_loss(loss_fn, data_shape=(28, 28), latent_dim=2))
    loss = c · [NLL + β · KL] at batch size 64
      likelihood  gaussian
      c           0.00255102
      β           392
      σ²          392 with β = 1
      fits        yes
      note        β = D/2: squared error without ½, mean over pixels; KL, sum
                  over latents
      change      for β = 1 multiply the KL by 0.00255102
      change      without c: SGD's learning rate × 0.00255102, Adam's as it is
    """
    asked = None if likelihood is None else as_likelihood(likelihood)
    shape = checked(data_shape, latent_dim, batch_size)
    return identify(probe(loss_fn, shape, latent_dim, batch_size), asked)


def identify(seen: Evidence, asked: Likelihood | None = None) -> Audit:
    """Read the evidence.

    Parameters
    ----------
    asked : Likelihood, optional
        To insist on; default: recognise it.
    """
    rec, kl = reconstruction_term(seen, asked), kl_term(seen)
    powers, on_batch = batch_powers(seen, rec, kl)
    c, weight, size = rec.weight, kl.weight, seen.batch_size
    if size != seen.asked and None not in powers:
        grow = seen.asked / size
        c, weight, size = c * grow ** powers[0], weight * grow ** powers[1], seen.asked
    beta = weight / c if rec.known and kl.known else math.nan
    found = [*rec.findings, *kl.findings]
    if beta > 0 and None not in powers:
        found += reading(c, beta, rec, seen, size, powers)
    found += on_batch
    if rec.known and rec.likelihood.name == "bernoulli" and rec.likelihood.link == "mean":
        found += clipping(seen, rec.weight)
    if size != seen.asked:
        found.append(finding("smaller-batches", asked=seen.asked, size=size))
    if beta < 0:
        found.append(finding("negative-beta"))
    if rec.known and c < 0:
        found.append(finding("negative-c"))
    if beta > 0 and not math.isclose(beta, 1, rel_tol=TOLERANCE):
        found.append(finding("multiply-kl", factor=1 / beta))
    if beta > 0 and c > 0 and not math.isclose(c, 1, rel_tol=TOLERANCE):
        found.append(finding("learning-rate", factor=c))
    named = rec.likelihood if rec.known else None
    gaussian = named is not None and named.name == "gaussian" and math.isfinite(beta)
    return Audit(
        likelihood=named,
        c=c if rec.known else math.nan,
        beta=beta,
        sigma2=beta if gaussian else None,
        kl_weight=weight if kl.known else math.nan,
        reached=_reached(seen),
        residual=max(rec.residual, kl.residual),
        findings=tuple(found),
        batch_size=size,
    )


def _reached(seen: Evidence) -> float:
    """Share of the elements of x_hat that have a gradient in some probe."""
    gradients = [p.d_x_hat != 0 for p in seen.probes]
    return (gradients[0] | gradients[1] | gradients[2]).double().mean().item()


def checked(data_shape: Sequence[int], latent_dim: int, batch_size: int) -> tuple[int, ...]:
    """The shape as whole numbers.

    Raises
    ------
    ValueError
        It is none, or the other two are no positive whole numbers.
    """
    try:
        given = tuple(data_shape)
        shape = tuple(map(int, given))
    except (TypeError, ValueError, OverflowError):
        given = shape = ()
    if not shape or min(shape) < 1 or shape != given:  # 28.7 pixels are none
        raise ValueError(
            f"data_shape={data_shape!r}: give the shape of one image, e.g. (28, 28) or (784,)"
        )
    for name, value in [("latent_dim", latent_dim), ("batch_size", batch_size)]:
        if int(value) != value or value < 1:
            raise ValueError(f"{name}={value!r}: give a whole number, at least 1")
    return shape


def _wrapped(name: str, text: str) -> str:
    """A row of the printed audit, in lines that fit a page of the book."""
    return textwrap.fill(text, WIDTH, initial_indent=f"  {name:12}", subsequent_indent=" " * 14)


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.6g}"
