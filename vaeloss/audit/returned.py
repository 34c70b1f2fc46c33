"""What a loss returns: the total among its parts, and what is no tensor at all."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vaeloss.audit.evidence import AuditError

TOTALS = ("loss", "total", "total_loss", "loss_total", "objective")  # of a dict, in this order
BRIDGES = {"jax": "from_jax", "jaxlib": "from_jax", "tensorflow": "from_tensorflow"}


def short(error: object, limit: int = 110) -> str:
    """The first line of an error, without the tensors that some print.

    Examples
    --------
    >>> short(TypeError("no JAX type: tensor([[0.1, 0.2"))
    'no JAX type: …'
    """
    text = next(iter(str(error).strip().splitlines()), "")
    for start in ("tensor(", "Array(", "array(", "<tf.Tensor", "[["):
        text = text[: text.index(start)] + "…" if start in text else text
    return text if len(text) <= limit else text[: limit - 1] + "…"


def framework(thing: object) -> str | None:
    """The bridge that a JAX or TensorFlow object needs, or None."""
    return BRIDGES.get(type(thing).__module__.partition(".")[0])


def bridge_of(error: BaseException) -> str | None:
    """The bridge for a loss that raised inside JAX or TensorFlow, or None."""
    trace = error.__traceback__
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if name in BRIDGES:
            return BRIDGES[name]
        trace = trace.tb_next
    return BRIDGES.get(type(error).__module__.partition(".")[0])


def needs_bridge(bridge: str) -> AuditError:
    """The error that says so."""
    name = {"from_jax": "JAX", "from_tensorflow": "TensorFlow"}[bridge]
    return AuditError(
        f"this is a loss of {name}, the auditor works with torch tensors: give it as "
        f"audit_loss(vaeloss.audit.{bridge}(loss_fn), ...)"
    )


@dataclass(frozen=True)
class Total:
    """Where the total stands in what a loss returns; () if it returns nothing else."""

    path: tuple = ()

    def of(self, value):
        """The total."""
        for key in self.path:
            value = value[key]
        return value

    def __str__(self) -> str:
        return "".join(f"[{key!r}]" for key in self.path)


def parts(value, path: tuple = ()) -> list[tuple[tuple, Tensor]]:
    """Every tensor in tuples, lists and dicts, with its path."""
    if isinstance(value, Tensor):
        return [(path, value)]
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, tuple | list):
        items = list(enumerate(value))
    else:
        return []
    return [each for key, inner in items for each in parts(inner, (*path, key))]


def find_total(value, x_hat: Tensor, posterior: list[Tensor]) -> Total:
    """The total in what a loss returned for these inputs, which require gradients.

    A tuple's total is the one number on which both x_hat and the posterior have a gradient; a
    dict's is named so. A part is never taken for the whole.

    Raises
    ------
    AuditError
        Several could be the total, or none.
    """
    if isinstance(value, Tensor):
        return Total()
    if (bridge := framework(value)) is not None:
        raise needs_bridge(bridge)
    kind = type(value).__name__
    numbers = [
        (path, t)
        for path, t in parts(value)
        if t.shape in [(), (1,), (len(x_hat),)] and t.requires_grad
    ]
    if not numbers:
        if any(framework(each) for each in value) if isinstance(value, tuple | list) else False:
            raise needs_bridge(next(filter(None, map(framework, value))))
        what = "no tensor" if not parts(value) else "no number with a gradient in it"
        raise AuditError(
            f"the loss returned a {kind}, {what}: return the total as a tensor, without .item(), "
            "numpy or .detach()"
        )
    reach = {}
    for path, t in parts(value):
        if not t.requires_grad:
            continue
        grads = torch.autograd.grad(
            t.sum(), [x_hat, *posterior], retain_graph=True, allow_unused=True
        )
        moved = [g is not None and bool(g.any()) for g in grads]
        reach[path] = (moved[0], any(moved[1:]))
    whole = [(path, t) for path, t in numbers if all(reach[path])]
    named = [path for key in TOTALS for path, _ in numbers if str(path[-1]).lower() == key]
    for path in [*named[:1], *([numbers[0][0]] if len(numbers) == 1 else [])]:
        others = {word for other in reach if other != path for word in _words(reach[other])}
        if not others - set(_words(reach[path])):  # no other depends on what this one ignores
            return Total(path)
    if len(whole) > 1 and all(torch.equal(t.mean(), whole[0][1].mean()) for _, t in whole):
        whole = whole[:1]
    if len(whole) == 1:
        return Total(whole[0][0])
    shown = "; ".join(
        f"{Total(path)} depends on {' and '.join(_words(reach[path])) or 'nothing'}"
        for path in list(reach)[:4]
    )
    if whole:
        lead = "several numbers that could be the total"
        one = f"lambda *args: loss_fn(*args){Total(whole[0][0])}"
        hint = f"the one you call .backward() on, e.g. {one}"
    else:
        lead = "parts and no total"
        hint = "their weighted sum, the number you call .backward() on; not one of the parts"
    raise AuditError(f"the loss returned a {kind}, {lead}: {shown[:180]}. Return {hint}")


def _words(reached: tuple[bool, bool]) -> list[str]:
    return [w for w, yes in zip(("x_hat", "mu, log_var"), reached, strict=True) if yes]
