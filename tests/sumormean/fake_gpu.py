"""A second device made of Python: it computes on the CPU, and refuses what a GPU refuses.

Tensors on it say `device="meta"`, the one device that every build of PyTorch knows and that nothing
here uses otherwise. An operation that mixes them with tensors of the CPU raises, as on a GPU, but
for single numbers; `.numpy()` raises too. `with fake_gpu():` makes it available.
"""

import contextlib
import importlib
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

DEVICE = torch.device("meta")


class OnGpu(torch.Tensor):
    """A tensor of the fake device; `inner` holds its numbers."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), inner.stride(), dtype=inner.dtype, device=DEVICE
        )

    def __init__(self, inner: torch.Tensor):
        self.inner = inner

    def __repr__(self):
        return f"OnGpu({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def run(func, args, kwargs):
    """One operation of PyTorch, on the CPU; its result is on the device on which it would be."""
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    on_gpu = [t for t in tensors if isinstance(t, OnGpu)]
    asked = kwargs.get("device")
    copies = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    if on_gpu and not copies:
        strangers = [t for t in tensors if not isinstance(t, OnGpu) and t.dim() > 0]
        if strangers:
            raise RuntimeError(
                f"{func}: expected all tensors to be on the same device, found some on the CPU "
                f"(of shape {tuple(strangers[0].shape)}) beside those of the GPU"
            )
    if asked is not None:
        target = torch.device(asked).type == DEVICE.type
        kwargs = {**kwargs, "device": torch.device("cpu") if target else asked}
    else:
        target = bool(on_gpu)
    inner = tree_map_only(OnGpu, lambda t: t.inner, (args, kwargs))
    result = func(*inner[0], **inner[1])
    if func._schema.is_mutable and on_gpu:  # in place: the same tensor comes back
        known = {id(t.inner): t for t in on_gpu}
        return tree_map_only(torch.Tensor, lambda t: known[id(t)], result)
    return tree_map_only(torch.Tensor, OnGpu, result) if target else result


class _FromNumbers(TorchFunctionMode):
    """`torch.tensor` and `as_tensor` make what they make below the reach of the other mode."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


class _Generator(torch.Generator):
    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu" if torch.device(device) == DEVICE else device)


@contextlib.contextmanager
def fake_gpu():
    """Inside, `.to(DEVICE)` moves a tensor or a model to the fake device."""
    # Fused Adam asks PyTorch's own list; should that name go, this fails loudly.
    optimizer = importlib.import_module("torch.optim.optimizer")
    supported = [*optimizer._get_fused_kernels_supported_devices(), DEVICE.type]
    with (
        mock.patch.object(torch, "Generator", _Generator),
        mock.patch.object(optimizer, "_get_fused_kernels_supported_devices", lambda: supported),
        _Mode(),
        _FromNumbers(),
    ):
        yield DEVICE
