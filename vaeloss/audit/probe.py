"""How the auditor looks at a loss: inputs to feed it, gradients to take, references to fit.

With respect to x_hat only the reconstruction has a gradient, with respect to mu and log_var only
the KL. So neither term can hide the other, and a weight of 1e-8 is found as exactly as one of 1e8.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeloss.likelihoods import continuous_bernoulli_nll

# NLL of each pixel in nats, but for constants. x_hat is the pixel mean; with "-logits" the loss
# itself applies the sigmoid. (The continuous Bernoulli's x_hat is its parameter λ, not its mean.)
RECONSTRUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gaussian": lambda x, p: 0.5 * (x - p).square(),
    "bernoulli": lambda x, p: F.binary_cross_entropy(p, x, reduction="none"),
    "laplace": lambda x, p: (x - p).abs(),
    "continuous-bernoulli": lambda x, p: continuous_bernoulli_nll(x[:, None], p.logit()[:, None]),
    "gaussian-logits": lambda x, p: 0.5 * (x - p.sigmoid()).square(),
    "bernoulli-logits": lambda x, p: F.binary_cross_entropy_with_logits(p, x, reduction="none"),
    "laplace-logits": lambda x, p: (x - p.sigmoid()).abs(),
    "continuous-bernoulli-logits": lambda x, p: continuous_bernoulli_nll(x[:, None], p[:, None]),
}

# How far x_hat is from x, and the posterior from the prior, in each probe. Different sizes,
# because c·NLL + b·KL must hold with the same c and b at all of them: log(MSE), a root, free bits
# or |KL - C| have the right gradients up to a factor that changes with the size.
SIZES = ((1.0, 1.0), (0.3, 0.1), (0.03, 2.0))

VANISHING = -24.0  # log_var at which the noise in a posterior sample, of std 6e-6, is negligible


class AuditError(ValueError):
    """The loss cannot be probed; the message says why and what to do."""


@dataclass(frozen=True)
class Inputs:
    """What a loss is called with: x, x_hat ``(B, *data_shape)``; mu, log_var (B, M)."""

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


@dataclass(frozen=True)
class Prober:
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

    def probes(self, b: int, log_var: float | None = None) -> list[Probe]:
        """One probe of each size; with all log_var alike if given."""
        inputs = [self.inputs(b, *sizes) for sizes in SIZES]
        if log_var is not None:
            inputs = [replace(i, log_var=torch.full_like(i.log_var, log_var)) for i in inputs]
        return [self.probe(i) for i in inputs]

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

    def value_changes_with(self, b: int, argument: str) -> bool:
        """Does the loss's value change when this argument does, whatever its gradient says?"""
        inputs = self.inputs(b)
        # far from where it was, so that the change survives low precision
        constant = {"x": 0.0 if self.binary else 0.02, "x_hat": 0.02}.get(argument, 2.0)
        moved = torch.full_like(getattr(inputs, argument), constant)
        values = [self.value(i).item() for i in (inputs, replace(inputs, **{argument: moved}))]
        return values[0] != values[1]

    def is_random(self, probe: Probe, gradient: str) -> bool:
        """Does a gradient ("d_x_hat", "d_posterior") differ when the loss is called again?"""
        again = getattr(self.probe(probe), gradient)
        return not torch.allclose(again, getattr(probe, gradient), rtol=1e-6, atol=0)


def prober(loss_fn: Callable, shape: tuple[int, ...], latent_dim: int, b: int) -> Prober:
    """The most exact kind of probing that the loss accepts.

    Raises AuditError with the loss's own complaint if it accepts none.
    """
    errors = []
    for binary in (False, True):
        for dtype in (torch.float64, torch.float32):  # float32: for losses with weights inside
            candidate = Prober(loss_fn, shape, latent_dim, dtype, binary)
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


def fit(gradients: list[Tensor], references: list[Tensor]) -> tuple[float, float]:
    """Least-squares weight common to all probes, and the worst relative residual of any.

    Each probe counts alike, whatever the size of its gradient. A residual of r bounds the relative
    error of the weight by about r.

    Examples
    --------
    >>> fit([torch.tensor([2.0, 4.0])], [torch.tensor([1.0, 2.0])])
    (2.0, 0.0)
    """
    pairs = list(zip(gradients, references, strict=True))
    weights = [((g * r).sum() / r.square().sum()).item() for g, r in pairs]
    weight = sum(weights) / len(weights)
    distances = [
        (
            (g - weight * r).norm() / max(g.norm().item(), abs(weight) * r.norm().item(), 1e-300)
        ).item()
        for g, r in pairs
    ]
    return weight, max(distances)


def reconstruction_gradient(name: str, probe: Inputs, first: int | None = None) -> Tensor:
    """Gradient of one of RECONSTRUCTIONS with weight one, flat; of the first so many pixels."""
    x = probe.x.flatten()[:first].double()
    x_hat = probe.x_hat.flatten()[:first].double().requires_grad_()
    return torch.autograd.grad(RECONSTRUCTIONS[name](x, x_hat).sum(), x_hat)[0]


def kl_gradient(probe: Inputs) -> Tensor:
    """Gradient of the KL with weight one, (B, 2M): mu, then (exp(log_var) - 1) / 2."""
    return torch.cat([probe.mu, torch.expm1(probe.log_var) / 2], dim=1).double()
