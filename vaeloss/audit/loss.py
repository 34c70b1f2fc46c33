"""What a loss weighs: the audit of a function.

The auditor needs no source code. It finds out how the loss wants to be called
(``vaeloss.audit.signature``), gathers what it returns (``vaeloss.audit.probe``), reads that
(``vaeloss.audit.reconstruction``, ``vaeloss.audit.kl``), and says so (``vaeloss.audit.result``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F

from vaeloss.audit.evidence import AuditError, Evidence
from vaeloss.audit.findings import Finding, finding
from vaeloss.audit.inputs import COUNTS, PIXELS, tokens
from vaeloss.audit.probe import probe
from vaeloss.audit.result import Audit, identify
from vaeloss.audit.signature import ROLES, SYMBOL, Order, calls, exchanged, other_takes
from vaeloss.likelihoods import Likelihood, as_likelihood


def audit_loss(
    loss_fn: Callable,
    *,
    data_shape: Sequence[int],
    latent_dim: int,
    batch_size: int = 64,
    likelihood: Likelihood | str | None = None,
    categories: int | None = None,
) -> Audit:
    """Find c and β such that the loss is c · [NLL + β · KL], or say that it is not.

    Parameters
    ----------
    loss_fn : callable
        ``loss_fn(x, x_hat, mu, log_var)`` -> a scalar, or one value per sample, (B,), whose batch
        mean is meant; or a tuple or dict with that total among its parts. x, x_hat are ``(B,
        *data_shape)`` in (0, 1); mu, log_var (B, latent_dim). PyTorch, or Keras on its torch
        backend; ``from_jax`` and ``from_tensorflow`` bring others; differentiable. It may take
        logits for x_hat. Its arguments are told apart by their names, ``(recon_x, x, mu, logvar)``
        say, and where those say nothing, by what makes sense; ``sigma``, ``log_sigma`` and ``var``
        are given σ, log σ and σ². The findings say so.
    data_shape, latent_dim : tuple of int, int
        As the loss expects them: (28, 28), (784,), (3, 64, 64) ...
    batch_size : int
        At which c (and β, should it depend on the batch) is wanted.
    likelihood : Likelihood or str, optional
        One of ``vaeloss.likelihoods``, or its name, to insist on; default: recognise it. With
        poisson and negative-binomial x holds counts.
    categories : int, optional
        Number of symbols of tokens. Then x holds whole numbers, or one-hot rows, and x_hat logits,
        log-probabilities or probabilities, with the symbols on the last axis or the second.

    Returns
    -------
    Audit
        Where it answers, c and β are right to 1e-4 relative. For a loss of another form beta (and
        c, if the reconstruction is unknown) is NaN, and the findings say why. What a loss does not
        contain is not seen: a sampler with its noise times 0.01, or a decoder that also sees the
        tokens before. Every KL overflows at log_var = 88.7 in float32; a finding names a loss that
        does so earlier.

    Raises
    ------
    AuditError
        The loss raises, or returns NaN, a wrong shape, or something without a gradient; or it does
        not take these four arguments.
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
    if categories is not None and (int(categories) != categories or categories < 2):
        raise ValueError(f"categories={categories!r}: give the number of symbols, at least 2")
    return search(calls(loss_fn), shape, latent_dim, batch_size, asked, categories)


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


@dataclass(frozen=True)
class _Tried:
    """One way to call the loss, and what came of it."""

    call: Order
    seen: Evidence | None
    audit: Audit | None
    error: AuditError | None = None

    @property
    def score(self) -> int:
        """How many terms are known."""
        if self.audit is None:
            return -1
        return (self.audit.likelihood is not None) + (self.audit.kl_weight == self.audit.kl_weight)

    @property
    def symmetric(self) -> bool:
        """Whether the reconstruction is known and does not tell x from x_hat."""
        return self.audit is not None and str(self.audit.likelihood) in ("gaussian", "laplace")

    def open(self, *codes: str) -> bool:
        """Whether another call may do better: it failed, or one of these was found."""
        return self.audit is None or any(self.audit.has(code) for code in codes)


def search(options: list[Order], shape, latent_dim, batch_size, asked, categories) -> Audit:
    """The audit of the call that makes sense: the first, unless another explains more terms.

    Raises
    ------
    AuditError
        The loss cannot be probed in any way; the message is that of the first.
    """

    def tried(call: Order) -> _Tried:
        first = None
        for layout, kinds in _layouts(asked, categories):
            try:
                seen = probe(layout(call), shape, latent_dim, batch_size, kinds)
            except AuditError as error:
                first = first or _Tried(call, None, None, error)
                continue
            result = _Tried(call, seen, identify(seen, asked, categories))
            if result.audit.likelihood is not None:
                return result
            first = result if first is None or first.audit is None else first
        return first

    best = first = tried(options[0])
    orders = options[1:]
    if not orders and best.open("reconstruction-unknown"):
        orders = [exchanged(options[0])]
    if best.open("reconstruction-unknown", "kl-unknown", "kl-ignores-mu"):
        best = max([best, *map(tried, orders)], key=lambda each: each.score)
        if best.symmetric and best.call.roles == exchanged(first.call).roles:
            best = first  # x and x_hat count alike there: the order only hid a term of one of them
    said_log_var = best.call.said == "log_var"
    if best.open("kl-unknown", *([] if said_log_var else ["kl-of-log-sigma"])):
        calls_left = [best.call] if best.audit else [options[0], *orders]
        others = [tried(other) for call in calls_left for other in other_takes(call)]
        best = max([best, *others], key=lambda each: each.score)
    if best.audit is None:
        raise best.error
    said = _said(best.call, options[0], best.audit.likelihood)
    if best.symmetric and not {"x", "x_hat"} & set(best.call.named):
        other = tried(exchanged(best.call))
        if other.audit is None or other.audit.likelihood != best.audit.likelihood:
            said.append(finding("order-unknown", likelihood=str(best.audit.likelihood)))
    return identify(best.seen, asked, categories, said) if said else best.audit


def _said(call: Order, first: Order, likelihood: Likelihood | None) -> list[Finding]:
    """What to say of the way in which the loss was called."""
    said = []
    if call.roles != first.roles and {"x", "x_hat"} <= set(call.named):
        data = {"call": str(first), "likelihood": str(likelihood)}
        said.append(finding("arguments-exchanged", **data))
    elif call.roles != first.roles:
        said.append(finding("arguments-guessed", call=str(call)))
    elif call.roles != ROLES:
        said.append(finding("arguments", call=str(call)))
    name, takes = call.names[call.roles.index("log_var")], SYMBOL[call.takes]
    if call.said is not None and call.takes != call.said:
        code = "takes-other" if call.said == "log_var" else "takes-as"
        said.append(finding(code, name=name, takes=takes))
    elif call.takes != "log_var":
        said.append(finding("takes", takes=takes))
    return said


def _layouts(asked: Likelihood | None, categories: int | None):
    """Ways to hand over x and x_hat, each with the kinds of input to try."""
    if not categories:
        counts = asked is not None and asked.name.startswith(("poisson", "negative-binomial"))
        return [(lambda call: call, (COUNTS, *PIXELS) if counts else PIXELS)]
    return [
        (_tokens_as(categories, second, one_hot), (tokens(categories, outputs),))
        for outputs in ("logits", "probabilities")
        for one_hot in (False, True)
        for second in (False, True)
    ]


def _tokens_as(categories: int, second: bool, one_hot: bool) -> Callable:
    """The symbols on the second axis or the last, the targets as rows or as numbers."""

    def layout(call: Order) -> Callable:
        def loss_fn(x, x_hat, mu, log_var):
            if one_hot:
                x = F.one_hot(x, categories).to(x_hat.dtype)
                x = x.movedim(-1, 1) if second else x
            return call(x, x_hat.movedim(-1, 1) if second else x_hat, mu, log_var)

        return loss_fn

    return layout
