"""`make licences`: the licence of every pinned dependency, as the package itself declares it.

The list goes to data/licences.md. It is read from the installed metadata, so that the environment
has to be the pinned one; tests/repository/test_repository.py compares the two.
"""

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "data" / "licences.md"

# What the metadata does not say, or says twice and differently. Read from the packages' files.
READ = {
    "axe-playwright-python": "MIT",  # its LICENSE
    "namex": "Apache-2.0",  # its LICENSE
    "sphinx-mathjax-offline": "Apache License 2.0 (licence field), MIT License (classifier)",
}
# What only other platforms install. Read from the metadata of those wheels.
ELSEWHERE = {
    "appnope": "BSD-2-Clause",
    "colorama": "BSD License",
    "pywinpty": "MIT License",
}

HEAD = """\
# Licences of the dependencies

What `requirements.txt` and `constraints.txt` pin for any platform, with the licence that each
package declares: its licence expression, else its licence field, else its classifiers.
`make licences` writes this list.

On Linux the default wheel of `torch` brings Triton and NVIDIA's CUDA libraries, which are not
pinned here and have licences of their own.

| package | version | licence |
|---|---|---|
"""


def pinned() -> dict[str, list[str]]:
    """Canonical name -> versions, of all that the two files pin on any platform."""
    found = {}
    for path in ("requirements.txt", "constraints.txt"):
        for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
            if line and not line.startswith(("-", "#")):
                requirement = Requirement(line)
                (specifier,) = requirement.specifier
                versions = found.setdefault(canonicalize_name(requirement.name), [])
                if specifier.version not in versions:
                    versions.append(specifier.version)
    return dict(sorted(found.items()))


def declared(expression: str | None, field: str | None, classifiers: list[str]) -> str | None:
    r"""The licence in a package's metadata, the most exact statement first; None if there is none.

    The licence field may hold the text of the licence. Its first line counts if it is a name.

    >>> declared("MIT", "see LICENSE", ["License :: OSI Approved :: BSD License"])
    'MIT'
    >>> declared(None, "BSD 3-Clause License\n\nCopyright (c) …", [])
    'BSD 3-Clause License'
    >>> declared(None, "Copyright (c) …", ["License :: OSI Approved :: BSD License"])
    'BSD License'
    >>> declared(None, "UNKNOWN", ["Programming Language :: Python"]) is None
    True
    """
    if expression:
        return expression
    first = (field or "").strip().partition("\n")[0].strip()
    if re.fullmatch(r"(?!Copyright|UNKNOWN)[A-Za-z].{1,44}", first):
        return first
    names = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
    return ", ".join(names) or None


def licence(name: str) -> str:
    """The licence of one package. KeyError if nothing says it."""
    try:
        found = metadata(name)
    except PackageNotFoundError:
        return ELSEWHERE[name]
    if name in READ:
        return READ[name]
    says = declared(
        found.get("License-Expression"), found.get("License"), found.get_all("Classifier", [])
    )
    return says or ELSEWHERE[name]


def page() -> str:
    """The list as Markdown."""
    rows = [
        f"| {name} | {', '.join(versions)} | {licence(name)} |"
        for name, versions in pinned().items()
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
    print(f"{PATH.relative_to(ROOT)}: {len(pinned())} packages")
