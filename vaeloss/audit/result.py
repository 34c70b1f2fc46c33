"""What an audit found, and how it is told.

A loss is written c · [NLL + β · KL]: NLL summed over the pixels, KL over the latents, both averaged
over the batch; c is a gradient scale, β the weight that changes the model.
"""

import html
import math
import textwrap
from dataclasses import dataclass

from vaeloss.audit.batch import batch_powers
from vaeloss.audit.evidence import Evidence
from vaeloss.audit.findings import CHANGES, Finding, finding
from vaeloss.audit.identify import TOLERANCE
from vaeloss.audit.kl import kl_term
from vaeloss.audit.reading import clipping, reading
from vaeloss.audit.readings import kept, share_reached
from vaeloss.audit.reconstruction import reconstruction_term
from vaeloss.collapse import Threshold, Verdict, collapse_threshold, collapse_verdict
from vaeloss.collapse.batches import Data
from vaeloss.likelihoods import Likelihood

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

    def threshold(self, x: Data) -> Threshold:
        r"""β\* of these data under the loss's likelihood, to compare β with.

        Parameters
        ----------
        x : array, Tensor, memory map or batches
            As the loss is given it; ``vaeloss.collapse_threshold`` has more to ask for.

        Raises
        ------
        ValueError
            The likelihood is unknown; or what ``collapse_threshold`` raises.
        """
        return collapse_threshold(x, self._likelihood())

    def verdict(self, x: Data) -> Verdict:
        """What this loss's β does to these data: one of four answers, and by what margin.

        Parameters
        ----------
        x : array, Tensor, memory map or batches
            As the loss is given it.

        Raises
        ------
        ValueError
            There is no β, or it is not positive; the likelihood is unknown; or what
            ``vaeloss.collapse_verdict`` raises.

        Examples
        --------
        >>> import torch
        >>> from vaeloss import audit_loss, kl_standard_normal
        >>> def loss_fn(x, x_hat, mu, log_var):
        ...     return (x - x_hat).square().mean() + kl_standard_normal(mu, log_var).mean()
        >>> audit = audit_loss(loss_fn, data_shape=(9,), latent_dim=2)
        >>> audit.verdict(torch.tensor([[0.0] * 9, [1.0] * 9])).code
        'optimal'
        """
        likelihood = self._likelihood()
        if not self.beta > 0:
            raise ValueError(
                f"this loss has no positive β ({_number(self.beta)}): see its findings"
            )
        return collapse_verdict(x, self.beta, likelihood)

    def _likelihood(self) -> Likelihood:
        if self.likelihood is None:
            raise ValueError(
                "the likelihood of this loss is unknown, and so is β* of any data: name it, with "
                "likelihood= in the audit or in collapse_threshold"
            )
        return self.likelihood

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


def identify(
    seen: Evidence, asked: Likelihood | None = None, categories: int | None = None, said=()
) -> Audit:
    """Read the evidence.

    Parameters
    ----------
    asked : Likelihood, optional
        To insist on; default: recognise it.
    categories : int, optional
        Of tokens.
    said : sequence of Finding
        On how the loss was called. "arguments-exchanged" and "order-unknown" mean that there is no
        c, "takes-other" that there is no β.
    """
    (rec, read), (kl, weigh) = reconstruction_term(seen, asked, categories), kl_term(seen)
    codes = {found.code for found in said}
    if codes & {"arguments-exchanged", "order-unknown"}:
        rec.residual, rec.findings = 1.0, []
    if "takes-other" in codes:
        kl.residual = 1.0
    if any(found.code == "decodes-inside" for found in rec.findings) and not kl.known:
        kl.findings = []  # the gradient of mu is that of the decoder as well
    powers, on_batch = batch_powers(seen, rec, read, kl, weigh)
    c, weight, size = rec.weight, kl.weight, seen.batch_size
    if size != seen.asked and None not in powers:
        grow = seen.asked / size
        c, weight, size = c * grow ** powers[0], weight * grow ** powers[1], seen.asked
    beta = weight / c if rec.known and kl.known else math.nan
    found = [finding("total", path=seen.total)] if seen.total else []
    found += [*said, *rec.findings, *kl.findings]
    if kl.known and kl.weight:
        found += [
            finding("beta-range", low=weight / each.data["high"], high=weight / each.data["low"])
            for each in rec.findings
            if each.code in ("weights-differ", "own-length") and each.data["low"] > 0
        ]
    if beta > 0 and None not in powers:
        found += reading(c, beta, rec, seen, size, powers, kept(read, seen.probes))
    found += on_batch
    if rec.known and rec.likelihood.name == "bernoulli" and rec.likelihood.link == "mean":
        found += clipping(seen, rec.weight)
    if seen.overflows_at is not None and kl.known and kl.weight:
        found.append(finding("overflows", log_var=seen.overflows_at))
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
        reached=share_reached(seen, read),
        residual=max(rec.residual, kl.residual),
        findings=tuple(found),
        batch_size=size,
    )


def _wrapped(name: str, text: str) -> str:
    """A row of the printed audit, in lines that fit a page of the book."""
    return textwrap.fill(text, WIDTH, initial_indent=f"  {name:12}", subsequent_indent=" " * 14)


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.6g}"
