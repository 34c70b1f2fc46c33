"""MNIST, Fashion-MNIST and bundled sets that need no network."""

from sumormean.data.download import DataError
from sumormean.data.files import bundled
from sumormean.data.idx import read_idx
from sumormean.data.sets import Dataset, load

__all__ = ["DataError", "Dataset", "bundled", "load", "read_idx"]
