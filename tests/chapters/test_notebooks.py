"""The rules for a chapter (CONTRIBUTING.md), for every notebook of the book."""

import base64
import json
import re
import struct
from pathlib import Path

import collected
import nbformat
import provenance
import pytest
import site_check

BOOK = site_check.ROOT / "book"

NOTEBOOKS = sorted(p for p in BOOK.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
CHAPTERS = [site_check.ROOT / f"{page}.ipynb" for page in site_check.chapters()]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)


def read(path: Path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


def text(notebook) -> str:
    return "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def images(cell):
    """The bytes of each PNG that the cell shows."""
    for output in cell.outputs:
        if "image/png" in output.get("data", {}):
            yield base64.b64decode(output["data"]["image/png"])


def png_size_and_dpi(png: bytes) -> tuple[int, int, float | None]:
    width, height = struct.unpack(">II", png[16:24])
    at = png.find(b"pHYs")
    dpi = struct.unpack(">I", png[at + 4 : at + 8])[0] * 0.0254 if at > 0 else None
    return width, height, dpi


def test_there_are_chapters():
    assert CHAPTERS


@each_notebook
def test_is_valid_small_and_portable(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_000_000
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata


@each_notebook
def test_was_executed_once_from_top_to_bottom(path):
    cells = code_cells(read(path))
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert any(c.outputs for c in cells)
    assert not any("execution" in c.metadata for c in cells), "outputs carry times"


@each_notebook
def test_has_no_error_and_no_stray_output(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", cell.source
            data = output.get("data", {})
            # nbval compares SVG and HTML byte for byte; a reader without HTML needs the text.
            assert "image/svg+xml" not in data
            assert "text/html" not in data or "text/plain" in data
            assert not any(kind.startswith("application/") for kind in data), list(data)


@each_notebook
def test_no_cell_ends_in_a_semicolon(path):
    for cell in code_cells(read(path)):
        assert not cell.source.rstrip().endswith(";"), "nbval sees the repr: end with plt.show()"


@each_notebook
def test_every_figure_has_caption_name_and_alternative_text(path):
    names = []
    for cell in code_cells(read(path)):
        pictures = list(images(cell))
        assert len(pictures) <= 1, "one figure per cell"
        if not pictures:
            continue
        shown = cell.metadata.get("mystnb", {})
        alt = shown.get("image", {}).get("alt", "")
        caption = shown.get("figure", {}).get("caption", "")
        assert len(alt) > 20 and len(caption) > 20, cell.source
        assert alt != caption
        names.append(shown["figure"]["name"])
        width, height, dpi = png_size_and_dpi(pictures[0])
        assert width <= 1000 and height <= 1200, (names[-1], width, height)
        assert dpi is None or dpi < 101, (names[-1], dpi)
    assert all(name.startswith("fig-") for name in names)
    assert len(names) == len(set(names))


def test_figure_names_are_unique_in_the_book():
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in NOTEBOOKS
        for cell in code_cells(read(path))
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert len(names) == len(set(names))


def test_every_notebook_is_a_page_of_the_book():
    assert sorted(CHAPTERS) == NOTEBOOKS


@each_chapter
def test_name_and_skeleton(path):
    assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", path.stem), "no number: _toc.yml has the order"
    notebook = read(path)
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert "**The finding.**" in first.source
    before, _, _ = text(notebook).partition("\n## ")
    positions = [before.find(s) for s in ("**You will learn**", "**You need**", "**It costs**")]
    assert -1 not in positions and positions == sorted(positions)
    cost = before[positions[-1] :]
    assert re.search(r"\d+ seconds", cost) and re.search(r"[\d.]+ [MG]B", cost), "time and memory"
    headings = re.findall(r"^## (.+)$", text(notebook), flags=re.MULTILINE)
    assert headings[-3:] == ["Exercises", "Summary", "References"]
    assert len(re.findall(r"^# ", text(notebook), flags=re.MULTILINE)) == 1


@each_chapter
def test_references_cite(path):
    references = text(read(path)).split("\n## References")[1]
    assert "{cite" in references


@each_chapter
def test_solutions_are_hidden_and_run(path):
    notebook = read(path)
    start = next(i for i, c in enumerate(notebook.cells) if "## Exercises" in c.source)
    end = next(i for i, c in enumerate(notebook.cells) if "## Summary" in c.source)
    solutions = code_cells(nbformat.from_dict({"cells": notebook.cells[start:end]}))
    assert solutions, "exercises have solutions"
    for cell in solutions:
        assert "hide-cell" in tags(cell), cell.source
    questions = re.findall(r"^\*\*\d+\. ", text(notebook), flags=re.MULTILINE)
    assert len(questions) >= 1


@each_chapter
def test_what_is_not_compared_is_claimed(path):
    """A cell that nbval does not compare is followed by one whose claims it does."""
    cells = code_cells(read(path))
    claims = [
        i
        for i, c in enumerate(cells)
        if re.search(r"\bclaim\(", c.source) and "nbval-ignore-output" not in tags(c)
    ]
    assert claims
    for i, cell in enumerate(cells):
        if "nbval-ignore-output" in tags(cell):
            assert any(j > i for j in claims), cell.source
        assert not {"nbval-skip", "raises-exception"} & set(tags(cell)), "every cell is run"


@each_chapter
def test_claims_were_printed(path):
    """A claim whose cell has no printed sentence would be compared with nothing."""
    for cell in code_cells(read(path)):
        if re.search(r"^claim\(", cell.source, flags=re.MULTILINE):
            assert any("✓" in o.get("text", "") for o in cell.outputs), cell.source


@each_chapter
def test_no_claim_is_luck(path):
    """`make claims` has run every sentence with other data, and it held each time."""
    name = path.relative_to(site_check.ROOT).as_posix()
    table = json.loads((site_check.ROOT / "data" / "claims.json").read_text(encoding="utf-8"))
    rows = {row["claim"]: row for row in table["notebooks"].get(name, [])}
    for sentence in collected.claims(path):
        assert sentence in rows, f"not run with other seeds: make claims NB={name}"
        assert rows[sentence]["held"] == rows[sentence]["runs"] > 0, rows[sentence]
    # One seed on each set is enough while a chapter is being written; the full product, five seeds
    # on each set, is made before a release. Some sentences are claimed of one set only, or after a
    # condition; no chapter consists of them.
    assert max(r["runs"] for r in rows.values()) >= len(table["sets"]) == 3


@each_chapter
def test_a_claim_that_reads_a_record_says_so(path):
    """`recorded=True` where a condition comes from data/runs/, and nowhere else."""
    found = provenance.from_records([c.source for c in code_cells(read(path))])
    assert found
    wrong = [(sentence, says) for sentence, says, reads in found if says != reads]
    assert not wrong, "sentence, and whether it says recorded=True"


@each_chapter
def test_a_run_can_refute_every_claim(path):
    """No condition is built from literals in its cell alone."""
    for cell in code_cells(read(path)):
        assert not provenance.irrefutable(cell.source), cell.source


@pytest.mark.parametrize(
    ("source", "fixed"),
    [
        ("claim('c', (2 * 28 / 56) ** 2 == 1)", True),
        ("mine = 1 / (2 * 100 / 784)\ntrue = 3.92\nclaim('c', np.isclose(mine, true))", True),
        ("def f(d):\n    return d * np.log(2)\nclaim('c', all(f(d) > 1 for d in [2, 3]))", True),
        ("for b in [1, 2]:\n    claim('c', 0 < b < 3)", True),
        ("mine = 3.92\nclaim('c', mine < beta_star)", False),
        ("mine = beta_of('mean', 784, 2)\nclaim('c', mine == 392)", False),
        ("claim('c', np.float32(1 - 1e-8) == 1)", False),  # the machine's arithmetic
        ("path = []\nfor _ in range(3):\n    path.append(f(1))\nclaim('c', path[-1] > 1)", False),
    ],
)
def test_a_claim_that_no_run_can_refute_is_found(source, fixed):
    assert bool(provenance.irrefutable(source)) == fixed


@pytest.mark.parametrize(
    ("cells", "reads"),
    [
        (["r = read(bundled('runs/a.json'))", "last = r['x']\nclaim('c', last > 1)"], True),
        (["r = bundled(f'runs/{n}.json')", "def f():\n    return r\nclaim('c', f() > 1)"], True),
        (["r = bundled('runs/a.json')", "for row in r:\n    claim('c', row > live)"], True),
        (["r = bundled('oracles/a.npz')", "claim('c', r['x'] > 1)"], False),
        (["r = bundled('runs/a.json')", "r = fit()", "claim('c', r > 1)"], False),
    ],
)
def test_a_claim_that_reads_a_record_is_found(cells, reads):
    [(_, says, found)] = provenance.from_records(cells)
    assert not says and found == reads


QUOTED = re.compile(r"\[[^\]]*\]\((?P<page>[^)\s]+?)\.ipynb[^)\s]*\)|\"(?P<quote>[^\"]+)\"")


def quotations(text: str) -> list[tuple[str, str]]:
    """(chapter, quotation) of a page: what stands in quotes behind a link after *Proved in*."""
    found = []
    for proof in re.findall(r"^.*\*Proved in\*.*$", text, flags=re.MULTILINE):
        chapter = None
        for match in QUOTED.finditer(proof.split("Proved in", 1)[1]):
            chapter = match["page"] or chapter
            if match["quote"]:
                found.append((chapter, match["quote"]))
    return found


def test_every_quotation_of_a_claim_is_one():
    """A reworded claim is found where it is quoted; a quotation may be a part of a sentence."""
    page = BOOK / "use" / "answers-checked.md"
    quoted = quotations(page.read_text(encoding="utf-8"))
    assert len(quoted) > 20
    for chapter, quotation in quoted:
        sentences = collected.claims((page.parent / f"{chapter}.ipynb").resolve())
        assert any(quotation in s for s in sentences), f"{chapter} does not claim {quotation!r}"


def test_quotations_are_found_where_they_are():
    text = '**Proved in** [a "b"](../x/y.ipynb#z): "One.", and, trained, in [c](d.ipynb): "Two".'
    text += '\n"No."'
    assert quotations(text) == [("../x/y", "One."), ("d", "Two")]


def test_the_landing_picture_is_the_first_figure_of_the_first_chapter():
    chapter = read(BOOK / "derive" / "the-symptom.ipynb")
    first = next(png for cell in code_cells(chapter) for png in images(cell))
    assert (BOOK / "_static" / "sum-or-mean.png").read_bytes() == first
