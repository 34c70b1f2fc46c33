"""The page "API": the library's docstrings as they are, for Sphinx's autodoc.

The docstrings are written to be read in an editor: plain text, code in backticks, parameters as
`name : what it is`, sections underlined as in numpydoc. Here they become reStructuredText. All
that is not code is escaped, so that no character of theirs has a meaning: (B, *data_shape) is a
shape, not the start of something in italics.
"""

import os
import re

# vaeloss.keras_models is imported for its docstrings; Keras asks for its backend when imported.
os.environ.setdefault("KERAS_BACKEND", "torch")

FIELD = re.compile(r"(?P<names>\w+(?:, \w+)*) : (?P<text>.*)")
ERROR = re.compile(r"(?P<names>\w+): (?P<text>.*)")
CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
SPECIAL = re.compile(r"([\\*|`]|_\b)")


def plain(text: str) -> str:
    """Text as reStructuredText that says the same; code in backticks stays code.

    >>> print(plain("x is (B, *shape), see `Cell`s"))
    x is (B, \\*shape), see \\ ``Cell``\\ s
    """
    # Every other piece, from the first, is between two pieces of code.
    pieces = re.split(r"(`+.+?`+)", text, flags=re.DOTALL)
    return "".join(
        CODE.sub(r"\\ ``\2``\\ ", piece) if i % 2 else SPECIAL.sub(r"\\\1", piece)
        for i, piece in enumerate(pieces)
    )


def blocks(lines: list[str]) -> list[list[str]]:
    """Runs of lines without an empty one between them."""
    found = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [block for block in found if block]


def fields(block: list[str], pattern: re.Pattern, role: str) -> list[str]:
    """Lines `name : text`, each with the indented lines below it, as fields of this role."""
    out = []
    for line in block:
        if match := pattern.match(line):
            out.append(f":{role} {match['names']}: {plain(match['text'])}")
        else:
            out.append(f"    {plain(line.strip())}")
    return out


def to_rst(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText.

    >>> docstring = '''Add up.
    ...
    ... Parameters
    ... ----------
    ... x : (B, *shape), in
    ...     nats.
    ...
    ... Raises
    ... ------
    ... ValueError: x is empty.'''
    >>> print("\\n".join(line for line in to_rst(docstring.splitlines()) if line))
    Add up.
    :param x: (B, \\*shape), in
        nats.
    :raises ValueError: x is empty.
    """
    out, section = [], None
    for block in blocks(lines):
        if len(block) > 1 and re.fullmatch(r"-{3,}", block[1]):
            section, block = block[0], block[2:]
        elif not block[0].startswith(" "):  # an indented block goes on with the section
            section = None
        if block and block[0].startswith(">>>"):
            out += block
        elif section == "Raises":
            out += fields(block, ERROR, "raises")
        elif section == "Returns":
            out += [f":returns: {plain(block[0])}"] + [f"    {plain(x.strip())}" for x in block[1:]]
        elif section == "Parameters" or (block and FIELD.match(block[0])):
            out += fields(block, FIELD, "param")
        elif section is not None:
            out += [f":{section}: {plain(block[0])}"] + [f"    {plain(x)}" for x in block[1:]]
        else:
            out += [plain(line) for line in block]
        out.append("")
    return out


def rewrite(app, what, name, obj, options, lines: list[str]) -> None:
    lines[:] = to_rst(lines)


def skip(app, what, name, obj, skipped, options) -> bool | None:
    """Leave out constants, and members of a class that have nothing to say."""
    is_code = callable(obj) or isinstance(obj, property)
    return True if not is_code or (what == "class" and not obj.__doc__) else None


def setup(app) -> dict:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", rewrite)
    app.connect("autodoc-skip-member", skip)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
