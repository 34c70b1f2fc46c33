"""A loss that is a function → evidence: inputs to feed it, and the values and gradients it returns.

With respect to x_hat only the reconstruction has a gradient, with respect to mu and log_var only
the KL. So neither term can hide the other, and a weight of 1e-8 is found as exactly as one of 1e8.
Nothing is concluded here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from vaeloss.audit.evidence import SIZES, VANISHING, AuditError, Evidence, Inputs, Probe

MAX_ELEMENTS = 2**20  # pixels in one probe: large images are probed in smaller batches
DRAWS = 100  # of a random loss


def probe(
    loss_fn: Callable, shape: tuple[int, ...], latent_dim: int, batch_size: int = 64
) -> Evidence:
    """Call the loss at every input that an audit needs, and keep what it returns.

    Parameters
    ----------
    loss_fn : callable
        ``loss_fn(x, x_hat, mu, log_var)``, as in ``vaeloss.audit.audit_loss``.
    shape : tuple of int
        Of one sample.
    batch_size : int
        The one that is asked for; large images are probed in smaller batches.

    Raises
    ------
    AuditError
        The loss raises, or returns NaN, a wrong shape, or something without a gradient.
    """
    size = min(batch_size, max(2, MAX_ELEMENTS // max(math.prod(shape), latent_dim)))
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a loss that draws random numbers is audited reproducibly
        loss = _accepted(loss_fn, shape, latent_dim, size)
        probes = loss.probes(size)
        seen = Evidence(
            shape=shape,
            latent_dim=latent_dim,
            batch_size=size,
            asked=batch_size,
            probes=probes,
            again=loss.probe(probes[0]),
            moves={name: loss.moves_with(size, name) for name in ("x", "x_hat", "mu", "log_var")},
        )
        if seen.random_posterior:
            # Drawn in a smaller batch if the batch is large, where the weight may be another one.
            small = min(size, max(2, 2048 // latent_dim))
            inputs = loss.inputs(small)
            seen = replace(
                seen,
                narrow=loss.probes(size, log_var=VANISHING),
                narrow_small=loss.probes(small, log_var=VANISHING),
                drawn_at=inputs,
                draws=tuple(loss.probe(inputs).d_posterior for _ in range(DRAWS)),
            )
        try:
            seen = replace(seen, other=loss.probes(seen.other_size))
            if seen.random_posterior:
                narrow = loss.probes(seen.other_size, log_var=VANISHING)
                seen = replace(seen, narrow_other=narrow)
        except Exception as error:  # a loss with a batch size written into it may raise anything
            seen = replace(seen, other_error=str(error))
        return replace(seen, certain=loss.at_certainty(size))


@dataclass(frozen=True)
class _Loss:
    """A loss and the kind of input it accepts."""

    loss_fn: Callable
    shape: tuple[int, ...]
    latent_dim: int
    dtype: torch.dtype
    binary: bool  # x is 0 or 1, for losses that refuse grey pixels

    def inputs(self, b: int, distance: float = 1.0, spread: float = 1.0) -> Inputs:
        """Random pixels in (0.02, 0.98) and posteriors, the same at every call."""
        g = torch.Generator().manual_seed(b)
        uniform = partial(torch.rand, generator=g, dtype=self.dtype)
        x, other = 0.02 + 0.96 * uniform(b, *self.shape), 0.02 + 0.96 * uniform(b, *self.shape)
        x_hat = x + distance * (other - x)
        mu = spread * torch.randn(b, self.latent_dim, generator=g, dtype=self.dtype)
        log_var = spread * (4 * uniform(b, self.latent_dim) - 2)
        return Inputs(x.round() if self.binary else x, x_hat, mu, log_var)

    def probes(self, b: int, log_var: float | None = None) -> tuple[Probe, ...]:
        """One probe of each size; with all log_var alike if given."""
        inputs = [self.inputs(b, *sizes) for sizes in SIZES]
        if log_var is not None:
            inputs = [replace(i, log_var=torch.full_like(i.log_var, log_var)) for i in inputs]
        return tuple(self.probe(i) for i in inputs)

    def value(self, i: Inputs) -> Tensor:
        """The loss as one number: of values per sample, the batch mean."""
        # clones: a loss may work in place on what it is given, as it may in training
        value = self.loss_fn(i.x.clone(), i.x_hat.clone(), i.mu.clone(), i.log_var.clone())
        if not isinstance(value, Tensor):
            hint = {
                tuple: "return the total only, e.g. lambda *args: loss_fn(*args)[0]",
                dict: "return the total only, e.g. lambda *args: loss_fn(*args)['loss']",
            }.get(type(value), "return the tensor itself, without .item() or numpy")
            raise AuditError(f"the loss returned a {type(value).__name__}, not a tensor: {hint}")
        if value.shape not in [(), (1,), (len(i.x),)]:
            raise AuditError(
                f"the loss returned shape {tuple(value.shape)}: reduce it to one number, or to one "
                f"per sample, ({len(i.x)},)"
            )
        return value.mean()

    def probe(self, i: Inputs) -> Probe:
        """Value and gradients at these inputs."""
        leaves = [t.clone().requires_grad_() for t in (i.x_hat, i.mu, i.log_var)]
        loss = self.value(Inputs(i.x, *leaves))
        if not loss.requires_grad:
            raise AuditError(
                "the loss has no gradient: look for .detach(), .item(), numpy or torch.no_grad() "
                "on the way to its value"
            )
        grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        grads = [
            torch.zeros_like(t) if g is None else g for t, g in zip(leaves, grads, strict=True)
        ]
        if not all(torch.isfinite(t).all() for t in (loss, *grads)):
            raise AuditError(
                f"the loss is {loss.item():.4g}, or its gradient is not finite, at ordinary inputs "
                "(pixels and x_hat between 0.02 and 0.98, |log_var| at most 4): look for a log or "
                "a root of something negative. If the loss takes a variance or a standard "
                "deviation where the auditor passes log_var, wrap it"
            )
        d_x_hat, d_mu, d_log_var = (len(i.x) * g.double() for g in grads)
        d_posterior = torch.cat([d_mu, d_log_var], dim=1)
        return Probe(i.x, i.x_hat, i.mu, i.log_var, loss.item(), d_x_hat, d_posterior)

    def moves_with(self, b: int, argument: str) -> bool:
        """Does the loss's value change when this argument does, whatever its gradient says?

        A loss that raises there has looked at the argument: it does.
        """
        inputs = self.inputs(b)
        # far from where it was, so that the change survives low precision
        constant = {"x": 0.0 if self.binary else 0.02, "x_hat": 0.02}.get(argument, 2.0)
        moved = torch.full_like(getattr(inputs, argument), constant)
        try:
            values = [self.value(i).item() for i in (inputs, replace(inputs, **{argument: moved}))]
        except Exception:  # one that differentiates inside, say, and is given no gradients here
            return True
        return values[0] != values[1]

    def at_certainty(self, b: int) -> tuple[Probe, Probe] | None:
        """Where every pixel is 1 and its probability is 1e-30, and where that is ½."""
        i = self.inputs(b)
        x, prior = torch.ones_like(i.x), torch.zeros_like(i.mu)
        try:
            low, half = (
                self.probe(Inputs(x, torch.full_like(x, p), prior, prior)) for p in (1e-30, 0.5)
            )
        except Exception:  # log(0), or a loss that checks its inputs: nothing is clipped
            return None
        return low, half


def _accepted(loss_fn: Callable, shape: tuple[int, ...], latent_dim: int, b: int) -> _Loss:
    """The loss with the most exact kind of input that it accepts.

    Raises AuditError with the loss's own complaint if it accepts none.
    """
    errors = []
    for binary in (False, True):
        for dtype in (torch.float64, torch.float32):  # float32: for losses with weights inside
            candidate = _Loss(loss_fn, shape, latent_dim, dtype, binary)
            try:
                candidate.probe(candidate.inputs(b))
                return candidate
            except AuditError:
                raise
            except Exception as error:  # whatever a loss may raise
                errors.append(error)
    error = errors[1]  # of the plainest kind: float32, grey
    raise AuditError(
        f"the loss raised {type(error).__name__}: {error}. It was called with x and x_hat of shape "
        f"{(b, *shape)}, mu and log_var of shape {(b, latent_dim)}: if it expects others, change "
        "data_shape or latent_dim, or wrap it"
    ) from error
