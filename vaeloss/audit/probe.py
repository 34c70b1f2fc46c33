"""A loss that is a function → evidence: inputs to feed it, and the values and gradients it returns.

With respect to x_hat only the reconstruction has a gradient, with respect to mu and log_var only
the KL. So neither term can hide the other, and a weight of 1e-8 is found as exactly as one of 1e8.
Nothing is concluded here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vaeloss.audit.evidence import NEAR, SIZES, VANISHING, AuditError, Evidence, Inputs, Probe
from vaeloss.audit.inputs import PIXELS, Kind, random_inputs
from vaeloss.audit.returned import Total, bridge_of, find_total, framework, needs_bridge, short

MAX_ELEMENTS = 2**20  # pixels in one probe: large images are probed in smaller batches
DRAWS = 100  # of a random loss that cannot be weighed otherwise
LARGE = (20.0, 40.0, 60.0, 80.0)  # log_var; exp overflows at 88.7 in float32, in any closed form


class LossRaised(AuditError):
    """The loss itself raised; what a user sees is a plain AuditError."""


def probe(
    loss_fn: Callable,
    shape: tuple[int, ...],
    latent_dim: int,
    batch_size: int = 64,
    kinds: Sequence[Kind] = PIXELS,
) -> Evidence:
    """Call the loss at every input that an audit needs, and keep what it returns.

    Parameters
    ----------
    loss_fn : callable
        ``loss_fn(x, x_hat, mu, log_var)``, in this order.
    shape : tuple of int
        Of one sample.
    batch_size : int
        The one that is asked for; large images are probed in smaller batches.
    kinds : sequence of Kind
        What x and x_hat may hold; the first kind that the loss accepts is taken.

    Raises
    ------
    AuditError
        The loss raises, or returns NaN, a wrong shape, or something without a gradient.
    """
    values = math.prod(shape) * (kinds[0].categories or 1)
    size = min(batch_size, max(2, MAX_ELEMENTS // max(values, latent_dim)))
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a loss that draws random numbers is audited reproducibly
        loss = _accepted(loss_fn, shape, latent_dim, size, kinds)
        near = loss.inputs(size, *NEAR)
        before = loss.seeded_value(near)
        probes = loss.probes(size)
        seen = Evidence(
            shape=shape,
            latent_dim=latent_dim,
            batch_size=size,
            asked=batch_size,
            probes=probes,
            again=loss.probe(probes[0]),
            near=loss.probe(near),
            moves=loss.moves(size),
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
        except AuditError as error:  # a loss with a batch size written into it
            seen = replace(seen, other_error=short(error.__cause__ or error))
        return replace(
            seen,
            certain=loss.at_certainty(size),
            far=loss.far(size),
            total=str(loss.total),
            overflows_at=loss.overflow(),
            keeps_state=not _alike(before, loss.seeded_value(near), loss.dtype),
        )


def _alike(first: float, second: float, dtype: torch.dtype) -> bool:
    return math.isclose(first, second, rel_tol=64 * torch.finfo(dtype).eps)


@dataclass(frozen=True)
class _Loss:
    """A loss and the kind of input it accepts."""

    loss_fn: Callable
    shape: tuple[int, ...]
    latent_dim: int
    dtype: torch.dtype
    kind: Kind
    total: Total = field(default_factory=Total)

    def inputs(self, b: int, distance: float = 1.0, spread: float = 1.0) -> Inputs:
        """Random inputs, the same at every call."""
        return random_inputs(
            self.kind, self.shape, self.latent_dim, self.dtype, b, distance, spread
        )

    def probes(self, b: int, log_var: float | None = None) -> tuple[Probe, ...]:
        """One probe of each size; with all log_var alike if given."""
        inputs = [self.inputs(b, *sizes) for sizes in SIZES]
        if log_var is not None:
            inputs = [replace(i, log_var=torch.full_like(i.log_var, log_var)) for i in inputs]
        return tuple(self.probe(i) for i in inputs)

    def returned(self, i: Inputs):
        """Leaves x_hat, mu and log_var, and what the loss returns for them."""
        leaves = [t.clone().requires_grad_() for t in (i.x_hat, i.mu, i.log_var)]
        try:
            # clones: a loss may work in place on what it is given, as it may in training
            return leaves, self.loss_fn(i.x.clone(), *(t.clone() for t in leaves))
        except AuditError:
            raise
        except Exception as error:  # whatever a loss may raise
            if (bridge := bridge_of(error)) is not None:
                raise needs_bridge(bridge) from error
            b, m = i.mu.shape
            raise LossRaised(
                f"the loss raised {type(error).__name__}: {short(error, 90)}. It was called with x "
                f"and x_hat of shape {tuple(i.x_hat.shape)}, mu and log_var of shape {(b, m)}: if "
                "it expects others, change data_shape or latent_dim, give categories= for tokens, "
                "or wrap it (latent maps: mu.unflatten(1, (4, 8, 8)))"
            ) from error

    def value(self, i: Inputs) -> tuple[list[Tensor], Tensor]:
        """Leaves, and the loss as one number: of values per sample, the batch mean."""
        leaves, returned = self.returned(i)
        try:
            value = self.total.of(returned)
        except (KeyError, IndexError, TypeError):
            value = None
        if not isinstance(value, Tensor):
            if (bridge := framework(value)) is not None:
                raise needs_bridge(bridge)
            raise AuditError(
                f"the loss returned a {type(returned).__name__}, not a tensor: return the tensor "
                "itself, without .item() or numpy"
            )
        if value.shape not in [(), (1,), (len(i.x),)]:
            raise AuditError(
                f"the loss returned shape {tuple(value.shape)}: reduce it to one number, or to one "
                f"per sample, ({len(i.x)},)"
            )
        return leaves, value.mean()

    def probe(self, i: Inputs) -> Probe:
        """Value and gradients at these inputs."""
        leaves, loss = self.value(i)
        if not loss.requires_grad:
            raise AuditError(
                "the loss has no gradient: look for .detach(), .item(), numpy or torch.no_grad() "
                "on the way to its value"
            )
        try:
            grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        except Exception as error:
            raise LossRaised(
                f"differentiating the loss raised {type(error).__name__}: {short(error)}. Does it "
                "call .backward() itself? Return the value before that"
            ) from error
        grads = [
            torch.zeros_like(t) if g is None else g for t, g in zip(leaves, grads, strict=True)
        ]
        if not all(torch.isfinite(t).all() for t in (loss, *grads)):
            raise AuditError(
                f"the loss is {loss.item():.4g}, or its gradient is not finite, at ordinary inputs "
                f"({self.kind.words}, |log_var| at most 4): look for a log or a root of something "
                "negative"
            )
        d_x_hat, d_mu, d_log_var = (len(i.x) * g.double() for g in grads)
        d_posterior = torch.cat([d_mu, d_log_var], dim=1)
        return Probe(i.x, i.x_hat, i.mu, i.log_var, loss.item(), d_x_hat, d_posterior)

    def seeded_value(self, i: Inputs) -> float:
        """The value at these inputs with the same random numbers at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return self.value(i)[1].item()

    def moves(self, b: int) -> dict[str, bool | None]:
        """Does the loss's value change when an argument does, whatever its gradient says?

        A loss that raises there has looked at the argument: it does. None: it changes anyhow.
        """
        inputs, least = self.inputs(b), self.kind.least
        # far from where it was, so that the change survives low precision
        elsewhere = {
            "x": torch.full_like(inputs.x, least),
            "x_hat": torch.full_like(inputs.x_hat, 0.02),
            "mu": torch.full_like(inputs.mu, 2.0),
            "log_var": torch.full_like(inputs.log_var, 2.0),
        }
        if self.kind.categories:  # outputs that are all alike would be the uniform
            elsewhere["x_hat"] = inputs.x_hat.roll(1, -1)
        first = self.seeded_value(inputs)
        if self.seeded_value(inputs) != first:
            return dict.fromkeys(elsewhere)

        def moves(argument: str) -> bool:
            try:
                moved = replace(inputs, **{argument: elsewhere[argument]})
                return self.seeded_value(moved) != first
            except AuditError:
                return True

        return {argument: moves(argument) for argument in elsewhere}

    def at_certainty(self, b: int) -> tuple[Probe, Probe] | None:
        """Where every pixel is 1 and its probability is 1e-30, and where that is ½."""
        if self.kind.categories:
            return None
        i = self.inputs(b)
        x, prior = torch.ones_like(i.x), torch.zeros_like(i.mu)
        try:
            low, half = (
                self.probe(Inputs(x, torch.full_like(x, p), prior, prior)) for p in (1e-30, 0.5)
            )
        except AuditError:  # log(0), or a loss that checks its inputs: nothing is clipped
            return None
        return low, half

    def far(self, b: int) -> Probe | None:
        """Where x and x_hat are far apart: there a Huber loss is no squared error."""
        if self.kind.categories:
            return None
        i = self.inputs(b)
        try:
            return self.probe(replace(i, x=40 * (i.x - 0.5), x_hat=-40 * (i.x_hat - 0.5)))
        except AuditError:  # probabilities, say
            return None

    def overflow(self) -> float | None:
        """The least of LARGE at which the loss is not finite in float32."""
        loss = replace(self, dtype=torch.float32)
        i = loss.inputs(2)
        try:
            loss.probe(i)
        except AuditError:  # not a loss of two samples, or of float32
            return None
        for log_var in LARGE:
            large = i.log_var.clone()
            large[:, 0] = log_var  # one latent: a sum of many would overflow earlier
            try:
                loss.probe(replace(i, log_var=large))
            except AuditError:
                return log_var
        return None


def _accepted(
    loss_fn: Callable, shape: tuple[int, ...], latent_dim: int, b: int, kinds: Sequence[Kind]
) -> _Loss:
    """The loss with the most exact kind of input that it accepts.

    Raises AuditError with the loss's own complaint if it accepts none.
    """
    errors = []
    for kind in kinds:
        for dtype in (torch.float64, torch.float32):  # float32: for losses with weights inside
            candidate = _Loss(loss_fn, shape, latent_dim, dtype, kind)
            try:
                (x_hat, *posterior), returned = candidate.returned(candidate.inputs(b))
                candidate = replace(candidate, total=find_total(returned, x_hat, posterior))
                candidate.probe(candidate.inputs(b))
                return candidate
            except AuditError as error:
                errors.append(error)
    # the plainest kind is float32; not finite, or no tensor, says more than a later complaint
    plain = errors[:2]
    error = next((e for e in plain if not isinstance(e, LossRaised)), plain[-1])
    raise AuditError(str(error)) from error.__cause__
