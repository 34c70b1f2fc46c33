"""Two pages collected from files: what the book claims, and what its notebooks cost to run.

The claims are read from the notebooks' committed outputs when the site is built, so the page cannot
fall behind them, and `make test` re-executes every one of them. How often a sentence held with
other seeds and data, and by what margin, is in data/claims.json, which `make claims` writes. The
run times are those of a test run (conftest.py measures it, `make times` takes it over) and of
`make bench`. Chapters stand in the order of the table of contents.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

CLAIMS = "data/claims.json"
RUN_TIMES = "data/run-times.json"
BENCH = "data/bench.json"


# Notebooks


def pages(site_map, page: str) -> Iterator[str]:
    """This page and all below it, in the order of the table of contents."""
    yield page
    for tree in site_map[page].subtrees:
        for below in tree.files():
            yield from pages(site_map, below)


def notebooks(app) -> dict[str, Path]:
    """Page -> file of every notebook, in the order of the table of contents."""
    site_map = app.env.external_site_map
    files = {page: Path(app.env.doc2path(page)) for page in pages(site_map, site_map.root.docname)}
    return {page: path for page, path in files.items() if path.suffix == ".ipynb"}


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def claims(notebook: Path) -> list[str]:
    """The sentences that claims printed in a notebook, in order."""
    outputs = [output for cell in read(notebook)["cells"] for output in cell.get("outputs", [])]
    lines = "".join("".join(output.get("text", "")) for output in outputs).splitlines()
    return [line.removeprefix("✓ ") for line in lines if line.startswith("✓ ")]


def title(notebook: Path) -> str:
    """The first heading of a notebook."""
    return "".join(read(notebook)["cells"][0]["source"]).splitlines()[0].removeprefix("# ")


def plain(sentence: str) -> str:
    """A sentence as Markdown that says the same: no character has a meaning."""
    return re.sub(r"([\\`*_{}\[\]<>$#|~^])", r"\\\1", sentence)


# The page of claims


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


def claims_page(root: Path, notebooks: dict[str, Path]) -> str:
    """A section for each notebook that claims something; behind a sentence, how it fared."""
    measured = read(root / CLAIMS)["notebooks"]
    text = ""
    for page, path in notebooks.items():
        rows = {row["claim"]: row for row in measured.get(f"{page}.ipynb", [])}
        if sentences := claims(path):
            text += f"\n\n## {plain(title(path))}\n\nIn {{doc}}`/{page}`:\n\n"
            text += "\n".join(f"- {plain(s)}{verdict(rows.get(s))}" for s in sentences)
    return text


# The page of run times


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; numbers, in all columns but the first, stand to the right.

    >>> print(table(["what", "s"], [["a", "1"]]))
    | what | s |
    |---|---:|
    | a | 1 |
    """
    lines = [head, *rows]
    rule = "|---|" + "---:|" * (len(head) - 1)
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0], rule, *text[1:]])


def conditions(measured: dict) -> str:
    """Where a measurement was made, as one line of Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    date = f" on {measured['date']}" if "date" in measured else ""
    return f"Measured{date} on {plain(measured['machine'])}, with {plain(versions)}."


def notebook_table(measured: dict, notebooks: dict[str, Path]) -> str:
    """A row for each notebook (page -> file), in this order; a dash where nothing was measured."""
    rows, seconds, known = [], 0.0, 0
    for page, path in notebooks.items():
        cost = measured["notebooks"].get(f"{page}.ipynb")
        megabytes = cost and cost["megabytes"]
        rows.append(
            [
                f"{{doc}}`{title(path)} </{page}>`",
                f"{cost['seconds']:.0f}" if cost else "–",
                f"{megabytes / 1000:.1f} GB" if megabytes else "–",
            ]
        )
        seconds, known = seconds + (cost["seconds"] if cost else 0), known + bool(cost)
    rows.append([f"{known} of {len(rows)} notebooks measured, in all", f"{seconds:.0f}", ""])
    return table(["notebook", "seconds", "peak memory"], rows)


def bench_table(bench: dict) -> str:
    """What `make bench` measured; the last column says what was wanted, and if it was missed.

    `what` is Markdown: commands stand in backticks.
    """
    rows = []
    for row in bench["rows"]:
        target = row.get("target", "") + (", missed" if row.get("missed") else "")
        rows.append([row["what"], plain(f"{row['value']} {row['unit']}"), plain(target)])
    return table(["what", "measured", "target"], rows)


def run_times_page(root: Path, notebooks: dict[str, Path]) -> str:
    """The table of the notebooks, and what `make bench` measured, if it has been run."""
    measured = read(root / RUN_TIMES)
    text = f"\n\n{notebook_table(measured, notebooks)}\n\n{conditions(measured)}"
    if measured["processes"] != 1:
        text += f" {measured['processes']} notebooks ran at a time."
    if (root / BENCH).exists():
        bench = read(root / BENCH)
        text += f"\n\n## How fast it is\n\n`{bench['command']}` measures:\n\n"
        text += f"{bench_table(bench)}\n\n{conditions(bench)}\n"
    return text


PAGES = {  # page: what is added to its text, and from which files
    "book/reference/claims": (claims_page, [CLAIMS]),
    "book/reference/run-times": (run_times_page, [RUN_TIMES, BENCH]),
}


def add_collected(app, docname: str, source: list[str]) -> None:
    if docname in PAGES:
        collect, files = PAGES[docname]
        found, root = notebooks(app), Path(app.srcdir)
        source[0] += collect(root, found)
        for path in (*found.values(), *(root / name for name in files)):
            app.env.note_dependency(str(path))


def setup(app) -> dict:
    app.connect("source-read", add_collected)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
