"""Write the address of this checkout's origin into the notebooks, for Colab, and the package.

`python tools/stamp.py`, which is `make stamp`. Colab opens a notebook alone; its first cell
installs the library from this address. book/_ext/launch_buttons.py reads it. In pyproject.toml it
becomes the address that a package index shows.
"""

import re
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


def set_urls(text: str, url: str | None) -> str:
    """The text of pyproject.toml with the repository's address, or with none."""
    text = re.sub(r"\[project\.urls\]\n(?:\w+ = .*\n)+\n", "", text)
    if url is None:
        return text
    before, scripts, after = text.partition("[project.scripts]\n")
    return f'{before}[project.urls]\nRepository = "{url}"\n\n{scripts}{after}'


def main(folder: Path = site_check.ROOT) -> None:
    """Stamp every notebook with the origin of the checkout in `folder`, or with nothing."""
    url = github_url(git(folder, "remote", "get-url", "origin"))
    project = folder / "pyproject.toml"
    project.write_text(set_urls(project.read_text(encoding="utf-8"), url), encoding="utf-8")
    address = git_address(url)
    notebooks = sorted((folder / "book").glob("*/*.ipynb"))
    for path in notebooks:
        set_stamp(path, address)
    what = address or "nothing: this checkout's origin is not a repository on GitHub"
    print(f"{len(notebooks)} notebooks stamped with {what}")


if __name__ == "__main__":
    main()
