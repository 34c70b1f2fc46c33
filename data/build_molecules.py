"""Build molecules.txt.gz: short SMILES strings from MoleculeNet's HIV set.

Run from the repository: python data/build_molecules.py HIV.csv
HIV.csv is the file that MoleculeNet distributes: a column `smiles`, 41,127 molecules.
"""

import argparse
import csv
import gzip
from collections.abc import Iterable
from pathlib import Path

OUT = Path(__file__).with_name("molecules.txt.gz")
# The letters of the common elements (lower case in aromatic rings), charges, bonds, branches and
# up to six rings. Without the dot: a molecule is in one piece.
ALPHABET = "#()+-123456=BCFHINOPS[]clnors"
SHORTEST, LONGEST = 5, 40  # characters


def build(strings: Iterable[str]) -> list[str]:
    """Those of 5 to 40 characters that the alphabet can write, once each, sorted by code point."""
    return sorted({s for s in strings if SHORTEST <= len(s) <= LONGEST and set(s) <= set(ALPHABET)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("csv", type=Path, help="MoleculeNet's HIV.csv")
    with open(parser.parse_args().csv, encoding="utf-8", newline="") as file:
        kept = build(row["smiles"] for row in csv.DictReader(file))
    text = "".join(f"{s}\n" for s in kept)
    OUT.write_bytes(gzip.compress(text.encode("ascii"), mtime=0))
    print(f"{OUT.name}: {len(kept):,} strings")


if __name__ == "__main__":
    main()
