"""What a loss weighs: find c and β of any VAE loss by probing it.

A loss is written c · [NLL + β · KL]: NLL summed over the pixels, KL over the latents, both averaged
over the batch; c is a gradient scale, β the weight that changes the model. The auditor needs no
source code: it feeds random inputs (``vaeloss.audit.probe``) and recognises the gradients that come
back (``vaeloss.audit.identify``).
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vaeloss.audit.identify import TOLERANCE, batch_powers, kl_term, reconstruction_term
from vaeloss.audit.probe import RECONSTRUCTIONS, AuditError, Inputs, Prober, prober

__all__ = ["Audit", "AuditError", "audit_loss"]

MAX_ELEMENTS = 2**20  # pixels in one probe: large images are probed in smaller batches


@dataclass(frozen=True)
class Audit:
    """What ``audit_loss`` found. Print it, or let a notebook show it.

    Attributes
    ----------
    likelihood : str or None
        One of ``vaeloss.audit.RECONSTRUCTIONS``, or None if the reconstruction is none.
    scale : float
        c, at ``batch_size``; NaN if unknown.
    beta : float
        β, against the NLL of sigma2 = 1 (half the squared error); NaN if unknown.
    sigma2 : float or None
        For squared error the decoder variance with which β is one, the same number as β, in squared
        units of the pixels that the loss is given; None for other likelihoods.
    residual : float
        Relative distance between the loss's gradients and those of c · [NLL + β · KL], the worst of
        all probes. Above TOLERANCE there is no β, only notes.
    notes : tuple of str
        Findings, in sentences.
    """

    likelihood: str | None
    scale: float
    beta: float
    sigma2: float | None
    residual: float
    notes: tuple[str, ...]
    batch_size: int

    def _rows(self) -> list[tuple[str, str]]:
        fits = f"no: off by {self.residual:.1g}" if self.residual > TOLERANCE else "yes"
        rows = [("likelihood", self.likelihood or "?"), ("c", _number(self.scale))]
        rows += [("β", _number(self.beta))]
        if self.sigma2 is not None:
            rows += [("σ²", f"{_number(self.sigma2)} with β = 1")]
        return [*rows, ("fits", fits), *(("note", note) for note in self.notes)]

    def _head(self) -> str:
        return f"loss = c · [NLL + β · KL] at batch size {self.batch_size}"

    def __str__(self) -> str:
        return "\n".join([self._head(), *(f"  {name:12}{text}" for name, text in self._rows())])

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
    likelihood: str | None = None,
) -> Audit:
    """Find c and β such that the loss is c · [NLL + β · KL], or say that it is not.

    Parameters
    ----------
    loss_fn : callable
        ``loss_fn(x, x_hat, mu, log_var)`` -> a scalar, or one value per sample, (B,), whose batch
        mean is meant. x, x_hat are ``(B, *data_shape)`` in (0, 1); mu, log_var (B, latent_dim).
        PyTorch, or Keras on its torch backend; differentiable. It may take logits for x_hat.
    data_shape, latent_dim : sequence of int, int
        As the loss expects them: (28, 28), (784,), (3, 64, 64) ...
    batch_size : int
        At which c (and β, should it depend on the batch) is wanted.
    likelihood : str, optional
        A key of ``vaeloss.audit.RECONSTRUCTIONS`` to insist on; None recognises it.

    Returns
    -------
    Audit
        Where it answers, c and β are right to 1e-4 relative. For a loss of another form beta (and
        scale, if the reconstruction is unknown) is NaN, and the notes say why. What differs only
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
      note        β = D/2: squared error without ½, mean over pixels; KL, sum over latents
    """
    shape = _checked(data_shape, latent_dim, batch_size, likelihood)
    size = min(batch_size, max(2, MAX_ELEMENTS // max(math.prod(shape), latent_dim)))
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a loss that draws random numbers is audited reproducibly
        loss = prober(loss_fn, shape, latent_dim, size)
        probes = loss.probes(size)
        rec = reconstruction_term(loss, probes, likelihood)
        kl = kl_term(loss, probes)
        powers, notes = batch_powers(loss, size, rec, kl)
        if rec.known and rec.name == "bernoulli":
            notes += _clipping(loss, size, rec.weight)
    c, weight = rec.weight, kl.weight
    if size != batch_size and None not in powers:
        grow = batch_size / size
        c, weight, size = c * grow ** powers[0], weight * grow ** powers[1], batch_size
    if size != batch_size:
        notes.append(f"probed in smaller batches than {batch_size}: c and β hold at {size}")
    beta = weight / c if rec.known and kl.known else math.nan
    if beta > 0 and None not in powers:
        notes = [*_reading(c, beta, rec.name, shape, latent_dim, size, powers), *notes]
    if beta < 0:
        notes.append("β is negative: the loss rewards KL; check the sign of the KL term")
    if rec.known and c < 0:
        notes.append("c is negative: something to maximise, not a loss; check the sign")
    return Audit(
        likelihood=rec.name if rec.known else None,
        scale=c if rec.known else math.nan,
        beta=beta,
        sigma2=beta if rec.name.startswith("gaussian") and math.isfinite(beta) else None,
        residual=max(rec.residual, kl.residual),
        notes=(*rec.notes, *kl.notes, *notes),
        batch_size=size,
    )


def _checked(data_shape, latent_dim, batch_size, likelihood) -> tuple[int, ...]:
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
    if likelihood is not None and likelihood not in RECONSTRUCTIONS:
        raise ValueError(
            f"unknown likelihood {likelihood!r}: use one of {', '.join(RECONSTRUCTIONS)}"
        )
    return shape


def _reading(c, beta, likelihood, shape, m, b, powers) -> list[str]:
    """β in terms of D, M and B, if it is that of the usual reductions."""
    d, last = math.prod(shape), shape[-1]
    pixels = [("1", 1, "sum over pixels")]
    pixels += [("D", d, "mean over pixels")] if d > 1 else []
    pixels += [(str(last), last, "mean over the last axis only")] if 1 < last < d else []
    latents = [("", 1, "sum over latents")] + ([("M", m, "mean over latents")] if m > 1 else [])
    halves = [("", 1, "reconstruction")]
    if likelihood.startswith("gaussian"):
        halves = [("", 1, "half the squared error"), ("2", 2, "squared error without ½")]
    power = powers[1] - powers[0]
    batch = {0: "", 1: "B·"}.get(power, f"B^{power}·")

    readings = []
    for over_m, divisor, kl in latents:
        for over_2, half, error in halves:
            for above, factor, reduced in pixels:
                if math.isclose(beta, b**power * factor / divisor / half, rel_tol=TOLERANCE):
                    below = f"({over_2}{over_m})" if over_2 and over_m else over_2 + over_m
                    formula = f"{batch}{above}/{below}" if below else batch + above
                    text = f"β = {formula}: {error}, {reduced}; KL, {kl}"
                    if formula == "1":
                        text = "β = 1: the negative ELBO, up to the factor c"
                    like_c = math.isclose(c, b ** powers[0] * half / factor, rel_tol=TOLERANCE)
                    readings.append((not like_c, len(readings), text))
    # several may share a β (M = 2): prefer the one that has this c as well, then the simplest
    return [min(readings)[2]] if readings else []


def _clipping(loss: Prober, b: int, c: float) -> list[str]:
    """What the loss does where a probability is 0: at 1e-30 a pixel should cost 69 nats."""
    i = loss.inputs(b)
    x, prior = torch.ones_like(i.x), torch.zeros_like(i.mu)
    try:
        low, half = (
            loss.probe(Inputs(x, torch.full_like(x, p), prior, prior)) for p in (1e-30, 0.5)
        )
    except Exception:  # log(0), or a loss that checks its inputs: nothing is clipped
        return []
    cost = (low.value - half.value) / (c * x[0].numel()) + math.log(2)
    if cost > 60:
        return []
    gone = "and has no gradient" if not low.d_x_hat.any() else "with a bounded gradient"
    return [
        f"probabilities are clipped at about {math.exp(-cost):.0e}: beyond that a pixel costs at "
        f"most {cost:.1f} nats {gone}; prefer logits"
    ]


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.6g}"
