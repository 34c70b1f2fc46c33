"""Molecules as strings of characters: data for a decoder that knows what it has already written."""

import gzip
from dataclasses import dataclass

import numpy as np

from sumormean.data.files import bundled

LENGTH = 40  # of the longest string


@dataclass(frozen=True, eq=False)
class Molecules:
    """SMILES strings as numbers; N = 19,381.

    Attributes
    ----------
    tokens : array, shape (N, 40), int64
        0 is padding, k the k-th character of the alphabet, counted from 1.
    alphabet : str
        The 29 characters in order; with the padding there are 30 symbols.
    strings : tuple of str
        The N strings, 5 to 40 characters each, sorted, no two alike.
    lengths : array, shape (N,), int64
        How many tokens of a row are characters.
    """

    tokens: np.ndarray
    alphabet: str
    strings: tuple[str, ...]
    lengths: np.ndarray


def load_molecules() -> Molecules:
    """Load the bundled set of molecules, written in SMILES.

    They are sorted: shuffle before you split them. A character is not an atom: ``Cl`` has two.

    Raises
    ------
    DataError
        The bundled file is missing.

    Notes
    -----
    From the AIDS Antiviral Screen of the Developmental Therapeutics Program, US National Cancer
    Institute, in the public domain; as distributed in MoleculeNet's HIV set (arXiv:1703.00564).
    ``data/README.md`` says how it is made.

    Examples
    --------
    >>> molecules = load_molecules()
    >>> molecules.tokens.shape, len(molecules.alphabet), molecules.strings[0]
    ((19381, 40), 29, 'BrC(Br)=C1C(=C(Br)Br)C(Br)C1Br')
    >>> row = molecules.tokens[0, : molecules.lengths[0]]
    >>> "".join(molecules.alphabet[k - 1] for k in row) == molecules.strings[0]
    True
    """
    text = gzip.decompress(bundled("molecules.txt.gz").read_bytes())
    strings = tuple(text.decode("ascii").splitlines())
    alphabet = "".join(sorted(set("".join(strings))))
    rows = "".join(s.ljust(LENGTH, "\0") for s in strings).encode("ascii")
    codes = np.frombuffer(rows, np.uint8).reshape(-1, LENGTH)
    symbols = [0, *alphabet.encode("ascii")]  # in the order of ASCII, as the codes are
    tokens = np.searchsorted(symbols, codes).astype(np.int64)
    lengths = np.array([len(s) for s in strings], dtype=np.int64)
    return Molecules(tokens, alphabet, strings, lengths)
