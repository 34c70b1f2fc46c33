"""Data as batches: whatever holds images, passed over as often as a computation needs.

An array, a tensor, a memory map, a list of batches or a DataLoader all look the same from here.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from vaeloss.likelihoods import Likelihood

Data = np.ndarray | Tensor | Iterable


class Batches:
    """Float batches (B, D) from whatever x is, as often as asked.

    ``likelihood`` says which values it can score; others are refused.
    """

    def __init__(self, x: Data, likelihood: Likelihood | None = None):
        if isinstance(x, Tensor):
            x = x.detach().cpu()
            x = (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).numpy()
        self.one_shot = isinstance(x, Iterator)
        self.likelihood = likelihood
        self.first = None
        if isinstance(x, np.ndarray):
            if x.ndim < 2 or len(x) == 0:
                raise ValueError(f"x has shape {x.shape}, expected (samples, pixels...)")
            self.size = math.prod(x.shape[1:])
            # Around 32 MB of floats at a time: large enough for fast products.
            rows = max(1, 2**23 // max(1, self.size))
            self.source = [x[i : i + rows] for i in range(0, len(x), rows)]
        elif isinstance(x, Iterable):
            self.source = x
            iterator = iter(x)
            self.first = next(iterator, None)
            if self.first is None:
                raise ValueError("x is an iterable without a batch")
            self.size = math.prod(_as_array(self.first).shape[1:])
            if self.one_shot:
                self.rest = iterator
        else:
            raise TypeError(f"x is a {type(x).__name__}, expected an array, tensor or batches")
        if self.size == 0:
            raise ValueError("the samples of x have no values")

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.one_shot and self.first is None:
            raise ValueError(
                f"x is a one-shot iterator, and {self.size} values per sample need several passes: "
                "give a list of batches, a DataLoader, an array or a memory map"
            )
        if self.one_shot:
            yield self._clean(self.first)
            self.first = None
            yield from map(self._clean, self.rest)
        else:
            yield from map(self._clean, self.source)

    def _clean(self, batch) -> np.ndarray:
        batch = _as_array(batch)
        if batch.dtype.kind not in "fiub":
            raise ValueError(f"x has dtype {batch.dtype}, expected real numbers")
        batch = batch.reshape(len(batch), -1)
        if batch.shape[1] != self.size:
            raise ValueError(f"batches have {self.size} and {batch.shape[1]} values per sample")
        wide = batch.dtype.kind != "b" and batch.dtype.itemsize >= 4 and batch.dtype != np.float32
        batch = batch.astype(np.float64 if wide else np.float32, copy=False)
        low, high = self.likelihood.support if self.likelihood else (-np.inf, np.inf)
        if batch.min() < low or batch.max() > high:
            needs = f"[{low:g}, {high:g}]" if high < np.inf else f"{low:g} or more"
            mend = "rescale them (bytes: divide by 255), or use" if high == 1 else "use"
            raise ValueError(
                f"values run from {batch.min():g} to {batch.max():g}, but {self.likelihood.name} "
                f"needs {needs}: {mend} another likelihood, such as gaussian"
            )
        return batch


def _as_array(batch) -> np.ndarray:
    batch = batch[0] if isinstance(batch, tuple | list) else batch
    batch = batch.detach().cpu().numpy() if isinstance(batch, Tensor) else np.asarray(batch)
    if batch.ndim < 2 or len(batch) == 0:
        raise ValueError(f"a batch of x has shape {batch.shape}, expected (samples, pixels...)")
    return batch


def moments(batches: Batches, full: bool) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of samples, mean (D,), and covariance (D, D) or only its diagonal (D,)."""
    d = batches.size
    n, total, shifted, second = 0, np.zeros(d), np.zeros(d), np.zeros((d, d) if full else d)
    origin = None
    for batch in batches:
        # Relative to the first sample, a constant pixel is exactly zero and large offsets cancel.
        origin = batch[0].copy() if origin is None else origin
        y = batch - origin
        n += len(y)
        total += batch.sum(0, dtype=np.float64)
        shifted += y.sum(0, dtype=np.float64)
        second += y.T @ y if full else np.square(y, out=y).sum(0, dtype=np.float64)
    check_moments(n, total)
    shifted /= n
    return n, total / n, second / n - (np.outer(shifted, shifted) if full else shifted**2)


def check_moments(n: int, total: np.ndarray) -> None:
    """ValueError if these samples have no covariance; ``total`` is their sum."""
    if n < 2:
        raise ValueError("x has one sample: a covariance needs at least two")
    if not np.isfinite(total).all():
        raise ValueError("x contains NaN or infinite values: remove those samples first")
