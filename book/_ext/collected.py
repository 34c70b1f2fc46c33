"""Two pages collected from files: what the book claims, and what its notebooks cost to run.

The claims are read from the notebooks' committed outputs when the site is built, so the page cannot
fall behind them, and `make test` re-executes every one of them. The number that a claim prints is
read from its call in the source, by id and name, so no page parses a sentence. How often a sentence
held with other seeds and data, and by what margin, is in data/claims.json, which `make claims`
writes, under the sentence as it stands in the source. The run times are those of a test run
(conftest.py measures it, `make times` takes it over) and of `make bench`. Chapters stand in the
order of the table of contents.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

CLAIMS = "data/claims.json"
RECORDED = " (recorded)"  # what `claim` prints behind a sentence about data/runs/
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


def printed(cells: list[dict]) -> list[tuple[str, bool]]:
    """The sentences that claims printed in these cells, in order, and whether each is recorded.

    >>> printed([{"outputs": [{"text": ["✓ Two is even.\\n", "✓ It ran. (recorded)\\n"]}]}])
    [('Two is even.', False), ('It ran.', True)]
    """
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    lines = "".join("".join(output.get("text", "")) for output in outputs).splitlines()
    sentences = [line.removeprefix("✓ ") for line in lines if line.startswith("✓ ")]
    return [(s.removesuffix(RECORDED), s.endswith(RECORDED)) for s in sentences]


def claims(notebook: Path) -> list[str]:
    """The sentences that claims printed in a notebook, in order."""
    return [sentence for sentence, _ in printed(read(notebook)["cells"])]


def claims_by_id(notebook: Path) -> dict[str, dict]:
    """Id -> sentence and values of each claim of a notebook that has an id.

    Raises
    ------
    ValueError
        An id stands twice, id, sentence or values are not literals, or the cell's committed output
        does not have the sentence.
    """
    found: dict[str, dict] = {}
    for cell in read(notebook)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or "id=" not in source:
            continue
        sentences = [sentence for sentence, _ in printed([cell])]
        for call in claim_calls(parse(source)):
            keywords = {k.arg: k.value for k in call.keywords}
            if "id" not in keywords:
                continue
            parts = [call.args[0], keywords["id"], keywords.get("value", ast.Dict([], []))]
            try:
                sentence, name, values = map(ast.literal_eval, parts)
            except ValueError as problem:
                where = f"{notebook}: claim({ast.unparse(call.args[0])}, …)"
                raise ValueError(f"{where}: id, sentence and value are literals") from problem
            if name in found:
                raise ValueError(f"{notebook}: two claims have the id {name!r}")
            if sentence not in sentences:
                raise ValueError(f"{notebook}: the claim {name!r} is not in its cell's output")
            found[name] = {"sentence": sentence, "values": values}
    return found


def parse(source: str) -> ast.Module:
    """The syntax tree of a cell; lines that speak to IPython do nothing."""
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))


def claim_calls(tree: ast.AST) -> list[ast.Call]:
    """The calls of `claim` in a cell, or in a part of one."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "claim"]


def title(notebook: Path) -> str:
    """The first heading of a notebook."""
    return "".join(read(notebook)["cells"][0]["source"]).splitlines()[0].removeprefix("# ")


def plain(sentence: str) -> str:
    """A sentence as Markdown that says the same: no character has a meaning."""
    return re.sub(r"([\\`*_{}\[\]<>$#|~^])", r"\\\1", sentence)


# The page of claims


def verdict(row: dict | None, recorded: bool = False) -> str:
    """How a claim fared, in a few words; reading a record again is no other run.

    >>> verdict({"runs": 15, "held": 15, "margin": 0.047})
    ' (15 of 15, 4.7 %)'
    >>> verdict({"runs": 5, "held": 5})  # a claim that counts has no margin
    ' (5 of 5)'
    >>> verdict({"runs": 7, "held": 7, "margin": 1.0}), verdict({"runs": 7, "held": 7, "margin": 0})
    (' (7 of 7, 100 %)', ' (7 of 7, under 0.01 %)')
    >>> verdict({"runs": 15, "held": 15, "margin": 0.047}, recorded=True)
    ' (recorded, 4.7 %)'
    """
    if row is None:
        return " (recorded)" if recorded else ""
    held = "recorded" if recorded else f"{row['held']} of {row['runs']}"
    if "margin" not in row:
        return f" ({held})"
    percent = float(f"{100 * row['margin']:.2g}")
    return f" ({held}, {percent:g} %)" if percent >= 0.01 else f" ({held}, under 0.01 %)"


def claims_page(root: Path, notebooks: dict[str, Path]) -> str:
    """Both counts, then a section for each notebook that claims something.

    Behind a sentence stands how it fared.
    """
    measured = read(root / CLAIMS)["notebooks"]
    text, counts = "", {False: 0, True: 0}
    for page, path in notebooks.items():
        rows = {row["claim"]: row for row in measured.get(f"{page}.ipynb", [])}
        if found := printed(read(path)["cells"]):
            text += f"\n\n## {plain(title(path))}\n\nIn {{doc}}`/{page}`:\n\n"
            text += "\n".join(f"- {plain(s)}{verdict(rows.get(s), r)}" for s, r in found)
        for _, recorded in found:
            counts[recorded] += 1
    return (
        f"\n\n**{counts[False]} sentences are computed anew in every test run, "
        f"{counts[True]} are read from records of longer runs.**{text}"
    )


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
