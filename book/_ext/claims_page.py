"""The page "What this book claims": every sentence that a claim() printed, chapter by chapter.

It is collected from the notebooks' committed outputs when the site is built, so it cannot fall
behind them, and `make test` re-executes every one of them. How often a sentence held with other
seeds and data, and by what margin, is in data/claims.json, which `make claims` writes.
"""

import json
import re
from pathlib import Path

PAGE = "book/reference/claims"


def claims(notebook: Path) -> list[str]:
    """The sentences that claims printed in a notebook, in order."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    lines = "".join("".join(output.get("text", "")) for output in outputs).splitlines()
    return [line.removeprefix("✓ ") for line in lines if line.startswith("✓ ")]


def title(notebook: Path) -> str:
    """The first heading of a notebook."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "".join(cells[0]["source"]).splitlines()[0].removeprefix("# ")


def plain(sentence: str) -> str:
    """A sentence as Markdown that says the same: no character has a meaning."""
    return re.sub(r"([\\`*_{}\[\]<>$#|~^])", r"\\\1", sentence)


def measured(root: Path) -> dict[tuple[str, str], dict]:
    """What `make claims` found for each notebook and sentence."""
    table = json.loads((root / "data" / "claims.json").read_text(encoding="utf-8"))
    return {(n, row["claim"]): row for n, rows in table["notebooks"].items() for row in rows}


def verdict(row: dict | None) -> str:
    """How a claim fared, in a few words.

    >>> verdict({"runs": 15, "held": 15, "margin": 0.047})
    ' (15 of 15, 4.7 %)'
    >>> verdict({"runs": 5, "held": 5})  # a claim that counts has no margin
    ' (5 of 5)'
    >>> verdict({"runs": 7, "held": 7, "margin": 1.0}), verdict({"runs": 7, "held": 7, "margin": 0})
    (' (7 of 7, 100 %)', ' (7 of 7, under 0.01 %)')
    """
    if row is None:
        return ""
    held = f"{row['held']} of {row['runs']}"
    if "margin" not in row:
        return f" ({held})"
    percent = float(f"{100 * row['margin']:.2g}")
    return f" ({held}, {percent:g} %)" if percent >= 0.01 else f" ({held}, under 0.01 %)"


def add_claims(app, docname: str, source: list[str]) -> None:
    if docname != PAGE:
        return
    found = {page: Path(app.env.doc2path(page)) for page in app.env.found_docs}
    notebooks = {page: path for page, path in found.items() if path.suffix == ".ipynb"}
    root = Path(app.srcdir)
    rows = measured(root)
    app.env.note_dependency(str(root / "data" / "claims.json"))
    for page, path in sorted(notebooks.items(), key=lambda item: item[1].name):
        app.env.note_dependency(str(path))
        sentences = claims(path)
        if sentences:
            source[0] += f"\n\n## {plain(title(path))}\n\nIn {{doc}}`/{page}`:\n\n"
            source[0] += "\n".join(
                f"- {plain(sentence)}{verdict(rows.get((f'{page}.ipynb', sentence)))}"
                for sentence in sentences
            )


def setup(app) -> dict:
    app.connect("source-read", add_claims)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
