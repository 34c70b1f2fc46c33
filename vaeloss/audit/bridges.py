"""A loss of JAX or TensorFlow as a function of torch tensors, with its gradients.

Each framework is imported when its bridge is used. Tuples and dicts come back as they are.
"""

import functools
import inspect
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def from_jax(loss_fn: Callable) -> Callable:
    """A loss written in JAX, for ``audit_loss``.

    Parameters
    ----------
    loss_fn : callable
        Takes JAX arrays in any order and under any names, and may be compiled by ``jax.jit``.
        Random numbers come from a key, which you fix: ``functools.partial(loss_fn, rng=key)``.

    Returns
    -------
    callable
        The same of torch tensors; it computes in float64 where the loss allows it.

    Raises
    ------
    ModuleNotFoundError
        JAX is not installed.

    Examples
    --------
    ``audit_loss(from_jax(loss_fn), data_shape=(784,), latent_dim=20)``
    """
    import jax

    def pull(arrays, is_float):
        def of_floats(*floats):
            left = iter(floats)
            given = [next(left) if f else a for a, f in zip(arrays, is_float, strict=True)]
            return call(*given)

        with _x64(jax):
            floats = [jax.numpy.asarray(a) for a, f in zip(arrays, is_float, strict=True) if f]
            value, vjp = jax.vjp(of_floats, *floats)
        leaves, tree = jax.tree_util.tree_flatten(value)

        def back(cotangents):
            with _x64(jax):
                given = [
                    jax.numpy.asarray(c, leaf.dtype)
                    if jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact)
                    else np.zeros(leaf.shape, jax.dtypes.float0)
                    for c, leaf in zip(cotangents, leaves, strict=True)
                ]
                return [np.asarray(g) for g in vjp(jax.tree_util.tree_unflatten(tree, given))]

        leaves = [jax.numpy.asarray(leaf) for leaf in leaves]
        return leaves, back, functools.partial(jax.tree_util.tree_unflatten, tree)

    call, bridge = _bridge(loss_fn, pull)
    return bridge


def _x64(jax):
    """The context in which JAX computes in float64; its name has moved."""
    new = getattr(jax, "enable_x64", None)
    if new is not None:
        return new(True)
    from jax.experimental import enable_x64

    return enable_x64()


def from_tensorflow(loss_fn: Callable) -> Callable:
    """A loss written in TensorFlow, for ``audit_loss``.

    Parameters
    ----------
    loss_fn : callable
        Takes tensors of TensorFlow in any order and under any names, and may be a ``tf.function``.

    Returns
    -------
    callable
        The same of torch tensors.

    Raises
    ------
    ModuleNotFoundError
        TensorFlow is not installed.

    Examples
    --------
    ``audit_loss(from_tensorflow(loss_fn), data_shape=(28, 28, 1), latent_dim=2)``
    """
    import tensorflow as tf

    def pull(arrays, is_float):
        given = [tf.convert_to_tensor(a) for a in arrays]
        floats = [a for a, f in zip(given, is_float, strict=True) if f]
        with tf.GradientTape(persistent=True) as tape:
            for each in floats:
                tape.watch(each)
            value = call(*given)
            leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(value)]

        def back(cotangents):
            pairs = [
                (leaf, tf.constant(c, leaf.dtype))
                for leaf, c in zip(leaves, cotangents, strict=True)
                if leaf.dtype.is_floating
            ]
            targets, seeds = zip(*pairs, strict=True)
            found = tape.gradient(
                list(targets), floats, output_gradients=list(seeds), unconnected_gradients="zero"
            )
            return [tf.convert_to_tensor(g).numpy() for g in found]

        structure = functools.partial(tf.nest.pack_sequence_as, value)
        return leaves, back, structure

    call, bridge = _bridge(loss_fn, pull)
    return bridge


def _bridge(loss_fn: Callable, pull: Callable) -> tuple[Callable, Callable]:
    """The loss of positional arrays, and the loss of torch tensors.

    ``pull(arrays, is_float)`` gives the leaves of what the loss returns, their pull-back to the
    arrays of floats, and how to put leaves together again.
    """
    names: list[str] = []

    def call(*arrays):
        first = len(arrays) - len(names)
        return loss_fn(*arrays[:first], **dict(zip(names, arrays[first:], strict=True)))

    class Bridge(torch.autograd.Function):
        @staticmethod
        def forward(ctx, structure, *tensors: Tensor):
            ctx.is_float = [t.is_floating_point() for t in tensors]
            arrays = [t.detach().cpu().numpy() for t in tensors]
            leaves, ctx.back, structure[0] = pull(arrays, ctx.is_float)
            ctx.dtypes = [t.dtype for t in tensors]
            found = tuple(torch.tensor(np.asarray(leaf)) for leaf in leaves)
            ctx.mark_non_differentiable(*(t for t in found if not t.is_floating_point()))
            return found

        @staticmethod
        @once_differentiable
        def backward(ctx, *cotangents: Tensor):
            gradients = iter(ctx.back([c.detach().cpu().numpy() for c in cotangents]))
            return None, *(
                torch.tensor(next(gradients)).to(dtype) if f else None
                for f, dtype in zip(ctx.is_float, ctx.dtypes, strict=True)
            )

    def bridge(*args: Tensor, **kwargs: Tensor):
        names[:] = list(kwargs)
        structure = [None]
        leaves = Bridge.apply(structure, *args, *kwargs.values())
        return structure[0](list(leaves))

    try:
        bridge.__signature__ = inspect.signature(loss_fn)
    except (TypeError, ValueError):
        pass
    return call, bridge
