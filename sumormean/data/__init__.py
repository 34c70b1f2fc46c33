"""MNIST, Fashion-MNIST, and digits, emoji and molecules that are bundled and need no network."""

from sumormean.data.download import DataError
from sumormean.data.files import bundled
from sumormean.data.idx import read_idx
from sumormean.data.molecules import Molecules, load_molecules
from sumormean.data.sets import Dataset, load

__all__ = ["DataError", "Dataset", "Molecules", "bundled", "load", "load_molecules", "read_idx"]
