"""Write the address of this checkout's origin into the notebooks, for Colab.

`python tools/stamp.py`, which is `make stamp`. Colab opens a notebook alone; its first cell
installs the library from this address. book/_ext/launch_buttons.py reads it.
"""

import sys
from pathlib import Path

import nbformat
import site_check

sys.path.insert(0, str(site_check.ROOT / "book" / "_ext"))

from launch_buttons import STAMP, first_code_cell, git, git_address, github_url  # noqa: E402


def set_stamp(path: Path, address: str) -> None:
    """Write the address into the first code cell of a notebook, and change nothing else."""
    notebook = nbformat.read(path, as_version=4)
    cell = first_code_cell(notebook)
    cell.source, places = STAMP.subn(f'BOOK = "{address}"', cell.source)
    if places != 1:
        raise ValueError(f'{path}: its first code cell has no line BOOK = "…" (CONTRIBUTING.md)')
    nbformat.write(notebook, path)


def main(folder: Path = site_check.ROOT) -> None:
    """Stamp every notebook with the origin of the checkout in `folder`, or with nothing."""
    address = git_address(github_url(git(folder, "remote", "get-url", "origin")))
    notebooks = sorted((folder / "book").glob("*/*.ipynb"))
    for path in notebooks:
        set_stamp(path, address)
    what = address or "nothing: this checkout's origin is not a repository on GitHub"
    print(f"{len(notebooks)} notebooks stamped with {what}")


if __name__ == "__main__":
    main()
