"""A training step's graph → the gradient at each tensor that comes through none of the others.

Hooks note what arrives at a tensor and pass zeros on: the decoder is cut out of a backward pass
exactly, and nothing is added to the graph.
"""

import contextlib
from collections.abc import Iterable

import torch
from torch import Tensor

from vaeloss.audit.evidence import AuditError

SMALL = 4096  # elements of a leaf that is a bias, or the like


def exact(tensor: Tensor) -> Tensor:
    """In float64, without its graph; on the CPU where a GPU has no float64."""
    tensor = tensor.detach()
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def first_line(error: Exception) -> str:
    """What an error says, without the numbers of a tensor."""
    return str(error).partition("\n")[0].partition("tensor(")[0][:240]


def _outer(loss: Tensor, size: int) -> Tensor:
    """What makes a scalar of the loss: nothing is added to its graph."""
    if loss.numel() != 1 and loss.shape not in [(size,), (size, 1)]:
        raise AuditError(
            f"the loss has shape {tuple(loss.shape)}: reduce it to one number, or to one per "
            f"sample, ({size},)"
        )
    return torch.full_like(loss, 1 / loss.numel())


def sources(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Weights that these come from: the small ones, if there are.

    Biases say as much as weights and cost less: what arrives anywhere is passed on to the first
    layer.
    """
    leaves, nodes, known = [], [tensor.grad_fn for tensor in tensors], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in known:
            continue
        known.add(node)
        nodes += [following for following, _ in node.next_functions]
        if hasattr(node, "variable"):
            leaves.append(node.variable)
    return [leaf for leaf in leaves if leaf.numel() <= SMALL] or leaves


def gradients(
    loss: Tensor,
    named: dict[str, Tensor],
    ignore: list[Tensor],
    leaves: list[Tensor],
    size: int,
) -> tuple[dict[str, Tensor], bool]:
    """The gradient at each named tensor, and whether any reaches the leaves past all of them.

    None comes through another named tensor, or through one to ignore. ``size`` is B.

    Raises
    ------
    AuditError
        The loss is no scalar or has no graph, or a tensor is not one that it was computed from.
    """
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise AuditError("the loss has no graph: hand in the tensor that backward is called on")
    for name, tensor in named.items():
        if not tensor.requires_grad:
            raise AuditError(
                f"{name} is detached: hand in the very tensor that the loss was computed from"
            )
    seen = {}
    with _cut(ignore), contextlib.ExitStack() as hooks:
        for name, tensor in named.items():
            hook = tensor.register_hook(lambda grad, n=name: _note(seen, n, grad))
            hooks.callback(hook.remove)
        tensors = [*named.values(), *leaves]
        answers = _ask(loss, tensors, _outer(loss, size), also=ignore)
    for name, answer in zip(named, answers, strict=False):
        if answer is None:
            raise AuditError(
                f"the loss was not computed from this {name}: hand in the very tensor, no copy, no "
                "second call of the encoder, nothing reshaped or activated afterwards, and nothing "
                "that was compiled into one graph with the loss"
            )
        if not torch.isfinite(seen.setdefault(name, answer)).all():
            raise AuditError(
                f"the gradient at {name} is not finite (the loss is {loss.detach().mean():.4g}): "
                "look for a log or a root of 0, or exp(log_var) of a large log_var"
            )
    beside = any(grad is not None and bool(grad.any()) for grad in answers[len(named) :])
    return seen, beside


def _note(seen: dict, name: str, grad: Tensor | None) -> Tensor | None:
    if grad is not None:
        seen[name] = grad.detach().clone()
    return _nothing(grad)


def _nothing(grad: Tensor | None) -> Tensor | None:
    # None: an output of one compiled graph that has no gradient of its own
    return None if grad is None else torch.zeros_like(grad)


@contextlib.contextmanager
def _cut(tensors: list[Tensor]):
    """While this lasts no gradient passes these tensors."""
    hooks = [t.register_hook(_nothing) for t in tensors if t.requires_grad]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _ask(loss, tensors, outer, also=()) -> tuple[Tensor | None, ...]:
    retained = [t for t in (*tensors, *also) if t.retains_grad]
    kept = [(t, None if t.grad is None else t.grad.clone()) for t in retained]
    try:
        return torch.autograd.grad(loss, tensors, outer, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        message = first_line(error)
        if "second time" in message or "freed" in message:
            raise AuditError(
                "the graph is gone: call audit_step before loss.backward(), not after"
            ) from None
        raise AuditError(f"this loss cannot be differentiated here: {message}") from error
    finally:
        for tensor, grad in kept:
            tensor.grad = grad
