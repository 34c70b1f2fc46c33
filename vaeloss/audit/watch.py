"""Audit the steps of training code that nobody wants to edit: it runs as it is and is watched.

While a ``watch_step`` lasts, the forward of a model is remembered and every backward is audited
first. Functions are wrapped, not hooked, for some libraries call ``forward`` themselves.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from vaeloss.audit.evidence import AuditError
from vaeloss.audit.findings import Finding, finding
from vaeloss.audit.step import StepAudit, audit_step

SAME = 1e-3  # relative change of a weight from step to step that is rounding


@dataclass(frozen=True)
class Call:
    """One call of a model: what it was given and what it returned."""

    args: tuple
    kwargs: dict
    output: object


class Watch:
    """What ``watch_step`` saw.

    Attributes
    ----------
    audits : list of StepAudit
        One for every backward of a loss that was computed from the model's last forward.
    errors : list of AuditError
        Why the other backward passes were not audited: a critic's, for instance.
    """

    def __init__(self, pick: Callable):
        self.pick = pick
        self.audits: list[StepAudit] = []
        self.errors: list[AuditError] = []
        self.calls: list[Call | None] = []

    @property
    def beta(self) -> tuple[float, float]:
        """Least and largest β; NaN where no step has one."""
        return self._range("beta")

    @property
    def c(self) -> tuple[float, float]:
        """Least and largest c."""
        return self._range("c")

    @property
    def kl_weight(self) -> tuple[float, float]:
        """Least and largest c·β."""
        return self._range("kl_weight")

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What varies from step to step, then what was found in any of them, each code once."""
        found = [self._varies(name) for name in ("c", "beta") if len(self.audits) > 1]
        if len({str(a.likelihood) for a in self.audits if a.likelihood}) > 1:
            found.append(finding("steps-likelihoods"))
        seen = {each.code: each for audit in self.audits[::-1] for each in audit.findings}
        return (*(each for each in found if each), *seen.values())

    def has(self, code: str) -> bool:
        """Whether there is a finding with this code."""
        return any(found.code == code for found in self.findings)

    def __str__(self) -> str:
        if not self.audits:
            return "no step was audited"
        head = f"{len(self.audits)} steps: β {_span(self.beta)}, c {_span(self.c)}. The last one:"
        varying = [f"  note        {each.sentence}" for each in self.findings if _of_many(each)]
        return "\n".join([head, str(self.audits[-1]), *varying])

    def _range(self, name: str) -> tuple[float, float]:
        values = [getattr(audit, name) for audit in self.audits]
        values = [value for value in values if value == value] or [float("nan")]
        return min(values), max(values)

    def _varies(self, name: str) -> Finding | None:
        low, high = self._range(name)
        spread = max([SAME, *(audit.tolerance for audit in self.audits)])
        if not high - low > spread * max(abs(low), abs(high)):
            return None
        return finding(f"steps-{name}-varies", low=low, high=high, steps=len(self.audits))

    # called while the training code runs

    def saw(self, index: int, call: Call) -> None:
        """Remember a call of a model, if its output has a graph."""
        if torch.is_grad_enabled():
            self.calls[index] = call

    def backward(self, loss: torch.Tensor) -> None:
        """Audit a loss just before its backward."""
        if None in self.calls:
            self.errors.append(AuditError("backward was called before the model's forward"))
            return
        if len(self.calls) == 1:
            [call] = self.calls
            given = self.pick(call.output, *call.args, **call.kwargs)
        else:
            given = self.pick(*self.calls)
        if not isinstance(given, dict):
            raise AuditError(
                f"pick returned a {type(given).__name__}: return a dict of audit_step's arguments, "
                "{'x': ..., 'x_hat': ..., 'mu': ..., 'log_var': ...}"
            )
        try:
            self.audits.append(audit_step(loss, **given))
        except AuditError as error:  # a critic's loss, say: it does not come from mu
            self.errors.append(error)


class watch_step:
    """Audit the steps of somebody's training code, unedited.

    Parameters
    ----------
    model : Module, bound method, or sequence of them
        What computes x_hat, mu and the rest: its ``forward`` is watched (of a Keras model its
        ``call``), or the method that is given.
    pick : callable
        ``pick(output, *args, **kwargs)`` is called with what the model returned and was given, and
        returns a dict of arguments for ``audit_step``. With several models: ``pick(*calls)``, one
        ``Call`` each, with ``.output``, ``.args``, ``.kwargs``. The last call before a backward
        counts.

    Returns
    -------
    context manager
        Its value is a ``Watch``: ``.audits``, the ranges ``.beta`` and ``.c``, ``.findings``. All
        is as before when it ends, also by an exception.

    Raises
    ------
    AuditError
        When it ends: the model or backward was not called, or no backward could be audited.

    Examples
    --------
    >>> class VAE(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.encoder, self.decoder = torch.nn.Linear(9, 4), torch.nn.Linear(2, 9)
    ...     def forward(self, x):
    ...         mu, log_var = self.encoder(x).chunk(2, dim=1)
    ...         return self.decoder(mu + (log_var / 2).exp() * torch.randn_like(mu)), mu, log_var
    >>> def train(model, x, weight):
    ...     x_hat, mu, log_var = model(x)
    ...     kl = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1).mean()
    ...     ((x_hat - x).square().sum(1).mean() / 2 + weight * kl).backward()
    >>> def pick(output, x):
    ...     return dict(x=x, x_hat=output[0], mu=output[1], log_var=output[2])
    >>> model = VAE()
    >>> with watch_step(model, pick) as seen:
    ...     train(model, torch.rand(5, 9), weight=0.1)
    ...     train(model, torch.rand(5, 9), weight=0.2)
    >>> [round(beta, 4) for beta in seen.beta], seen.findings[0].code
    ([0.1, 0.2], 'steps-beta-varies')
    """

    def __init__(self, model, pick: Callable):
        models = list(model) if isinstance(model, list | tuple) else [model]
        self._targets = [_target(each) for each in models]
        self._watch = Watch(pick)
        self._undo: list[Callable] = []

    def __enter__(self) -> Watch:
        watch = self._watch
        watch.calls = [None] * len(self._targets)
        for index, (owner, name) in enumerate(self._targets):
            self._replace(owner, name, functools.partial(watch.saw, index))
        backward, running = torch.autograd.backward, []  # Tensor.backward calls it, too

        @functools.wraps(backward)
        def audited(tensors, *args, **kwargs):
            given = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
            if running or len(given) != 1:  # a checkpoint calls it inside another backward
                return backward(tensors, *args, **kwargs)
            watch.backward(given[0])
            running.append(True)
            try:
                return backward(tensors, *args, **kwargs)
            finally:
                running.clear()

        torch.autograd.backward = audited
        self._undo.append(lambda: setattr(torch.autograd, "backward", backward))
        return watch

    def __exit__(self, kind, error, traceback) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        watch, called = self._watch, None not in self._watch.calls
        watch.calls = []  # tensors and their graphs
        if kind is not None or watch.audits:
            return
        if not called:
            names = ", ".join(f"{type(owner).__name__}.{name}" for owner, name in self._targets)
            raise AuditError(
                f"{names} was not called with gradients: is it the very object that is trained, "
                "and is it called inside the with block?"
            )
        if not watch.errors:
            raise AuditError("backward was not called inside the with block: run a training step")
        raise watch.errors[-1]

    def _replace(self, owner, name: str, saw: Callable) -> None:
        original, own = getattr(owner, name), name in vars(owner)

        @functools.wraps(original)  # libraries look at the signature
        def watched(*args, **kwargs):
            output = original(*args, **kwargs)
            saw(Call(args, kwargs, output))
            return output

        setattr(owner, name, watched)
        self._undo.append(lambda: setattr(owner, name, original) if own else delattr(owner, name))


def _target(model) -> tuple[object, str]:
    if inspect.ismethod(model):
        return model.__self__, model.__name__
    name = "call" if hasattr(model, "call") else "forward"  # Keras layers have both
    if not hasattr(model, name):
        raise AuditError(f"a {type(model).__name__} has no forward: give a module or its method")
    return model, name


def _of_many(found: Finding) -> bool:
    return found.code.startswith("steps-")


def _span(values: Sequence[float]) -> str:
    low, high = values
    near = abs(high - low) <= SAME * max(abs(low), abs(high))
    return f"{high:.6g}" if near else f"{low:.6g} to {high:.6g}"
