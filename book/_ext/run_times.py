"""The page "Run times": what each notebook costs, and what was measured of speed.

The numbers are those of a test run (conftest.py measures it) and of `make bench`, which lie in
`data/`. `python book/_ext/run_times.py`, which is `make times`, takes over the last test run.
"""

import json
from pathlib import Path

from claims_page import plain, title

PAGE = "book/reference/run-times"
ROOT = Path(__file__).resolve().parent.parent.parent
MEASURED = "_build/run-times.json"
COMMITTED = "data/run-times.json"
BENCH = "data/bench.json"


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
                f"{{doc}}`{path.name[:2]} {title(path)} </{page}>`",
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


def add_tables(app, docname: str, source: list[str]) -> None:
    if docname != PAGE:
        return
    root = Path(app.srcdir)
    app.env.note_dependency(str(root / COMMITTED))
    app.env.note_dependency(str(root / BENCH))
    measured = json.loads((root / COMMITTED).read_text(encoding="utf-8"))
    found = {page: Path(app.env.doc2path(page)) for page in app.env.found_docs}
    notebooks = {page: path for page, path in found.items() if path.suffix == ".ipynb"}
    notebooks = dict(sorted(notebooks.items(), key=lambda item: item[1].name))
    source[0] += f"\n\n{notebook_table(measured, notebooks)}\n\n{conditions(measured)}"
    if measured["processes"] != 1:
        source[0] += f" {measured['processes']} notebooks ran at a time."
    if (root / BENCH).exists():
        bench = json.loads((root / BENCH).read_text(encoding="utf-8"))
        source[0] += f"\n\n## How fast it is\n\n`{bench['command']}` measures:\n\n"
        source[0] += f"{bench_table(bench)}\n\n{conditions(bench)}\n"


def merged(old: dict, new: dict, notebooks: set[str]) -> dict:
    """The new measurement; what it lacks is kept from the old one if that was on the same terms.

    >>> old = {"machine": "m", "notebooks": {"a": 1, "b": 2, "gone": 3}}
    >>> merged(old, {"machine": "m", "notebooks": {"a": 4}}, {"a", "b"})
    {'machine': 'm', 'notebooks': {'a': 4, 'b': 2}}
    >>> merged(old, {"machine": "another", "notebooks": {"a": 4}}, {"a", "b"})
    {'machine': 'another', 'notebooks': {'a': 4}}
    """

    def terms(measured: dict) -> dict:
        return {key: measured[key] for key in measured if key not in ("date", "notebooks")}

    kept = old["notebooks"] if old and terms(old) == terms(new) else {}
    rows = {name: row for name, row in {**kept, **new["notebooks"]}.items() if name in notebooks}
    return {**new, "notebooks": dict(sorted(rows.items()))}


def main() -> None:
    path = ROOT / COMMITTED
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    new = json.loads((ROOT / MEASURED).read_text(encoding="utf-8"))
    notebooks = {p.relative_to(ROOT).as_posix() for p in (ROOT / "book").rglob("*.ipynb")}
    measured = merged(old, new, notebooks)
    path.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    missing = sorted(notebooks - set(measured["notebooks"]))
    print(f"{COMMITTED}: {len(measured['notebooks'])} notebooks", *missing, sep="\nnot measured: ")


def setup(app) -> dict:
    app.connect("source-read", add_tables)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    main()
