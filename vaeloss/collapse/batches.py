"""Data as batches: whatever holds images, passed over as often as a computation needs.

An array, a tensor, a memory map, a list of batches or a DataLoader all look the same from here.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from vaeloss.likelihoods import Likelihood

Data = np.ndarray | Tensor | Iterable


class Batches:
    """Float batches (B, D) from whatever x is, as often as asked.

    ``likelihood`` says which values it can score; others are refused. ``keep(start, stop)`` gives a
    bool for each of these samples, counted from 0: the others are passed over.
    """

    def __init__(
        self,
        x: Data,
        likelihood: Likelihood | None = None,
        keep: Callable[[int, int], np.ndarray] | None = None,
    ):
        if isinstance(x, Tensor):
            x = _as_numpy(x)
        self.one_shot = isinstance(x, Iterator)
        self.likelihood, self.keep = likelihood, keep
        self.checked = 0  # samples whose values have been looked at: later passes are spared it
        self.first = None
        if isinstance(x, np.ndarray):
            if x.ndim < 2 or len(x) == 0:
                raise ValueError(f"x has shape {x.shape}, expected (samples, pixels...)")
            self.shape = x.shape[1:]
            # Around 32 MB of floats at a time: large enough for fast products.
            rows = max(1, 2**23 // max(1, math.prod(self.shape)))
            self.source = [x[i : i + rows] for i in range(0, len(x), rows)]
        elif isinstance(x, Iterable):
            self.source = x
            iterator = iter(x)
            self.first = next(iterator, None)
            if self.first is None:
                again = ", or its only pass is over: give an array, or a list of batches"
                raise ValueError(f"x is an iterable without a batch{again * self.one_shot}")
            self.shape = _as_array(self.first).shape[1:]
            if self.one_shot:
                self.rest = iterator
        else:
            raise TypeError(f"x is a {type(x).__name__}, expected an array, tensor or batches")
        example = x if isinstance(x, np.ndarray) else _as_array(self.first)
        self.whole = example.dtype.kind in "iu"
        self.size = math.prod(self.shape)
        if self.size == 0:
            raise ValueError("the samples of x have no values")

    def only(self, keep: Callable[[int, int], np.ndarray]) -> "Batches":
        """The same data, of which ``keep`` keeps some."""
        other, before = copy.copy(self), self.keep
        other.keep = keep if before is None else lambda *i: before(*i) & keep(*i)
        return other

    def __iter__(self) -> Iterator[np.ndarray]:
        for _, batch in self.numbered():
            yield batch

    def numbered(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches with the numbers of their samples."""
        stop = 0
        for batch in self._raw():
            batch = self._clean(batch, stop)
            start, stop = stop, stop + len(batch)
            numbers = np.arange(start, stop)
            if self.keep is not None:
                kept = self.keep(start, stop)
                numbers, batch = numbers[kept], batch[kept]
            if len(batch):
                yield numbers, batch

    def _raw(self) -> Iterator:
        if not self.one_shot:
            yield from self.source
            return
        if self.first is None:
            raise ValueError(
                f"x is a one-shot iterator, and {self.size} values per sample need several passes: "
                "give a list of batches, a DataLoader, an array or a memory map"
            )
        yield self.first
        self.first = None
        yield from self.rest

    def _clean(self, batch, start: int) -> np.ndarray:
        batch = _as_array(batch)
        if batch.dtype.kind not in "fiub":
            raise ValueError(f"x has dtype {batch.dtype}, expected real numbers")
        batch = batch.reshape(len(batch), -1)
        if batch.shape[1] != self.size:
            raise ValueError(f"batches have {self.size} and {batch.shape[1]} values per sample")
        wide = batch.dtype.kind != "b" and batch.dtype.itemsize >= 4 and batch.dtype != np.float32
        batch = batch.astype(np.float64 if wide else np.float32, copy=False)
        if self.likelihood is not None and start >= self.checked:
            self._check(batch, first=start == 0)
            self.checked = start + len(batch)
        return batch

    def _check(self, batch: np.ndarray, first: bool) -> None:
        low, high = self.likelihood.support
        if (low > -np.inf or high < np.inf) and (batch.min() < low or batch.max() > high):
            needs = f"[{low:g}, {high:g}]" if high < np.inf else f"{low:g} or more"
            mend = "rescale them (bytes: divide by 255), or use" if high == 1 else "use"
            raise ValueError(
                f"values run from {batch.min():g} to {batch.max():g}, but {self.likelihood.name} "
                f"needs {needs}: {mend} another likelihood, such as gaussian"
            )
        if self.likelihood.outputs > 1 and low == 0 and (batch != np.rint(batch)).any():
            raise ValueError(f"{self.likelihood.name} needs whole numbers: the classes of x")
        if first and self.likelihood.scaled and looks_like_bytes(batch):
            warnings.warn(
                "x holds whole numbers up to 255, bytes? β* of squared error grows with the square "
                "of the unit (255² = 65025), that of absolute error with the unit: give x as the "
                "loss sees it, e.g. x / 255",
                UnitsWarning,
                stacklevel=2,
            )


class UnitsWarning(UserWarning):
    """The data look like bytes, and the threshold depends on their unit."""


def looks_like_bytes(batch: np.ndarray) -> bool:
    """Whether these are whole numbers from 0 to 255, and not only 0 and 1."""
    return bool(batch.min() >= 0 and 1 < batch.max() <= 255 and (batch == np.rint(batch)).all())


def check_order(x: Data) -> None:
    """ValueError if two passes over x begin with other samples, as a shuffled loader's do."""
    if isinstance(x, np.ndarray | Tensor | Iterator) or not isinstance(x, Iterable):
        return
    first, again = (_as_array(next(iter(x), None)) for _ in range(2))
    if first.shape != again.shape or not (first == again).all():
        raise ValueError(
            "x gives other samples at a second pass, and labels, a fitted mean or an interval need "
            "them in one order: load with shuffle=False, and without random changes"
        )


def _as_numpy(x: Tensor) -> np.ndarray:
    if x.layout != torch.strided:
        raise ValueError(f"x is a tensor of layout {x.layout}: give x.to_dense()")
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() and x.dtype.itemsize < 4 else x).numpy()


def _as_array(batch) -> np.ndarray:
    batch = batch[0] if isinstance(batch, tuple | list) else batch
    batch = _as_numpy(batch) if isinstance(batch, Tensor) else np.asarray(batch)
    if batch.ndim < 2 or len(batch) == 0:
        raise ValueError(f"a batch of x has shape {batch.shape}, expected (samples, pixels...)")
    return batch
