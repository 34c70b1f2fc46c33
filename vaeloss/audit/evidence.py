"""What is seen of a loss before anything is concluded from it."""

from dataclasses import dataclass

import torch
from torch import Tensor

# How far x_hat is from x, and the posterior from the prior, in each probe. Different sizes,
# because c·NLL + b·KL must hold with the same c and b at all of them: log(MSE), a root, free bits
# or |KL - C| have the right gradients up to a factor that changes with the size.
SIZES = ((1.0, 1.0), (0.3, 0.1), (0.03, 2.0))

NEAR = (1e-3, 1e-3)  # here a target or free nats show that no other probe is small enough for

VANISHING = -24.0  # log_var at which the noise in a posterior sample, of std 6e-6, is negligible


class AuditError(ValueError):
    """The loss cannot be probed; the message says why and what to do."""


@dataclass(frozen=True)
class Inputs:
    """What a loss is called with: x, x_hat ``(B, *data_shape)``; mu, log_var (B, M).

    Of tokens x_hat has one more axis, the last one, for the symbols.
    """

    x: Tensor
    x_hat: Tensor
    mu: Tensor
    log_var: Tensor


@dataclass(frozen=True)
class Probe(Inputs):
    """Inputs, and what came back. Gradients are multiplied by B: those of one sample's loss."""

    value: float
    d_x_hat: Tensor  # (B, *data_shape)
    d_posterior: Tensor  # (B, 2M): with respect to mu, then to log_var


def _same(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-6, atol=0)


@dataclass(frozen=True)
class Evidence:
    """Everything that an audit of a function sees of it; ``vaeloss.audit.probe`` gathers it.

    Parameters
    ----------
    shape, latent_dim, batch_size, asked
        Shape of one sample, M, the batch size that was probed, and the one that was asked for.
    probes : tuple of Probe
        One for each of SIZES.
    again : Probe
        The first of them, at the same inputs, in a second call.
    near : Probe
        Where the posterior is almost the prior, and x_hat almost x.
    moves : dict of str to (bool or None)
        Whether the *value* of the loss changes with each argument, whatever its gradient says; None
        if that cannot be told, because the value changes by itself.
    keeps_state : bool
        Whether two calls with the same inputs and the same random numbers have different values.
    other, narrow_other : tuple of Probe
        The same at another batch size; the latter where the posterior has no width. Empty if the
        loss works at no other size: ``other_error`` says why.
    narrow, narrow_small : tuple of Probe
        Only of a loss whose gradient of the posterior changes from call to call: where the
        posterior has no width, and the same in a small batch.
    draws : tuple of Tensor
        Of such a loss the gradient ``d_posterior`` in a hundred calls, all at the inputs
        ``drawn_at``, in a small batch.
    certain : tuple of Probe or None
        Where every pixel is 1 and x_hat is 1e-30, and where it is ½; None if that cannot be had.
    far : Probe or None
        Where x and x_hat are far apart and outside (0, 1); None if the loss refuses that.
    total : str
        Where the total stands in what the loss returns, "['loss']"; "" if it returns nothing else.
    overflows_at : float or None
        The least log_var, of a few up to 80, at which the loss is not finite in float32.
    """

    shape: tuple[int, ...]
    latent_dim: int
    batch_size: int
    asked: int
    probes: tuple[Probe, ...]
    again: Probe
    near: Probe
    moves: dict[str, bool | None]
    keeps_state: bool = False
    other: tuple[Probe, ...] = ()
    other_error: str = ""
    narrow: tuple[Probe, ...] = ()
    narrow_other: tuple[Probe, ...] = ()
    narrow_small: tuple[Probe, ...] = ()
    drawn_at: Inputs | None = None
    draws: tuple[Tensor, ...] = ()
    certain: tuple[Probe, Probe] | None = None
    far: Probe | None = None
    total: str = ""
    overflows_at: float | None = None

    @property
    def other_size(self) -> int:
        """The other batch size."""
        return self.batch_size // 2 if self.batch_size > 1 else 2

    @property
    def random_reconstruction(self) -> bool:
        """Whether the gradient of x_hat changes from call to call."""
        return not _same(self.again.d_x_hat, self.probes[0].d_x_hat)

    @property
    def random_posterior(self) -> bool:
        """Whether the gradients of mu and log_var change from call to call."""
        return not _same(self.again.d_posterior, self.probes[0].d_posterior)
