"""The measuring behind `make claims` and `make repeat`: it must be able to find a fault."""

import ast

import claims
import numpy as np
import pytest
import repeat
import running
import torch


def claimed(source: str, **names) -> list[dict]:
    """The claims of a cell as `make claims` records them."""
    margins = running.Margins()
    tree = ast.fix_missing_locations(running.record_margins(ast.parse(source)))
    exec(compile(tree, "cell", "exec"), {"_margins": margins, "np": np, "torch": torch, **names})
    return margins.found


@pytest.mark.parametrize(
    ("condition", "holds", "margin"),
    [
        ("3 < 4", True, 0.25),
        ("4 > 3", True, 0.25),
        ("1 < 2 < 2.5", True, 0.2),
        ("8 < 4", False, -0.5),
        ("abs(9 / 10 - 1) < 0.2", True, 0.5),
        ("-4 < -1", True, 0.75),
        ("10 >= 10", True, 1 / 11),  # of whole numbers: 10 < 11
        ("10.0 >= 10.0", True, 0.0),
        ("all(x < 10 for x in [1, 9, 5])", True, 0.1),
        ("all([x < 10 for x in [1, 12]])", False, -1 / 6),
        ("(np.array([1, 9, 5]) < 10).all()", True, 0.1),
        ("np.all(np.array([1, 9, 5]) < 10)", True, 0.1),
        ("3 < 4 and 1 < 10", True, 0.25),
        ("((a > 0) & (a < 4)).all()", True, 0.25),
        ("np.isclose(1.0, 1.05, rtol=0, atol=0.1)", True, 0.5),
        ("np.allclose([1.0, 2.0], [1.0, 2.2], rtol=0.2, atol=0)", True, 1 - 1 / 2.2),
        ("torch.isclose(torch.tensor(1.0), torch.tensor(1.0))", True, 1.0),
        ("torch.tensor(3.0, requires_grad=True) < 4", True, 0.25),
        ("math.isclose(9, 10, rel_tol=0.2)", True, 0.5),
        ("close(9, 10)", True, 0.5),
        ("2 == 2", True, None),
        ("not 2 > 3", True, None),
        ("not close(9, 20)", True, None),
        ("close(9, 10) == True", True, None),
        ("1 > 2 or 2 > 1", True, None),
    ],
)
def test_the_margin_of_a_claim(condition, holds, margin):
    source = "import math\ndef close(a, b):\n    return abs(a / b - 1) < 0.2\n"
    [found] = claimed(source + f"claim('c', {condition})", a=np.array([1, 3]))
    assert found["holds"] is holds
    assert found["margin"] == (None if margin is None else pytest.approx(margin))


def test_filters_and_counts_inside_a_claim_are_no_parts_of_it():
    [found] = claimed("claim('c', all(x > 1 for x in [0, 0.5, 4] if x > 1))")
    assert found["margin"] == pytest.approx(0.75)
    [found] = claimed("claim('c', sum(x > 1 for x in [0, 4, 4]) > 1)")
    assert found["margin"] == pytest.approx(0.5)


def test_a_claim_about_another_data_set_does_not_count(capsys):
    [found] = claimed("claim('c', 1 > 2, given=False)")
    assert found["holds"] is None and found["margin"] is None
    assert capsys.readouterr().out == "✓ c\n"


def test_id_value_and_record_pass_through(capsys):
    [found] = claimed("claim('c is 3', 3 < 4, id='c', value={'three': 3}, recorded=True)")
    assert found == {"claim": "c is 3", "holds": True, "margin": 0.25}
    assert capsys.readouterr().out == "✓ c is 3 (recorded)\n"
    with pytest.raises(ValueError, match="does not stand in"):
        claimed("claim('c is 3', 3 < 4, id='c', value={'four': 4})")


@pytest.mark.parametrize(("options", "runs"), [([], 15), (["--seeds", "1"], 3)])
def test_claims_runs_so_many_seeds_on_each_set(notebook, monkeypatch, tmp_path, options, runs):
    made, written = [], []
    path = notebook(FIRST)
    monkeypatch.setattr(running, "NOTEBOOKS", [path])
    monkeypatch.setattr(claims, "one_run", lambda *run: made.append(run) or (run[0], []))
    monkeypatch.setattr(claims, "write", lambda name, rows: written.append(name))
    monkeypatch.setattr(claims, "WORKERS", 1)
    assert claims.main([*options, str(tmp_path / path)]) == 0
    assert len(set(made)) == len(made) == runs and written == [path]
    with pytest.raises(SystemExit):
        claims.main(["--seeds", "0"])


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A function that writes a notebook of some cells and returns its path below the root."""
    nbformat = pytest.importorskip("nbformat")

    def write(*sources: str) -> str:
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "some.ipynb")
        return "some.ipynb"

    monkeypatch.setattr(running, "ROOT", tmp_path)
    return write


FIRST = "from sumormean.claims import claim\nfrom sumormean.data import load\nSEED = 0"


def test_a_run_has_its_seed_and_its_data_and_finds_what_fails(notebook):
    path = notebook(
        FIRST,
        "data = load('digits28')\nclaim('digits', len(data.x_test) > 9)",
        "claim('small seed', SEED < 3)",
        "claim('named', False, given=data.name == 'mnist')",
    )
    runs = [claims.one_run(path, "digits28", seed)[1] for seed in [2, 4]]
    rows = {row["claim"]: row for row in claims.summary(runs[0] + runs[1])}
    assert rows["small seed"]["held"] == 1 and rows["small seed"]["runs"] == 2
    assert rows["small seed"]["failed"] == ["digits28, seed 4"]
    assert rows["small seed"]["margin"] == -0.25 and rows["small seed"]["seed"] == 4
    assert rows["digits"]["held"] == 2
    assert rows["named"]["runs"] == 0


def test_another_error_is_a_claim_that_fails(notebook):
    path = notebook(FIRST, "claim('fine', True)", "1 / 0", "claim('never', True)")
    _, found = claims.one_run(path, "digits28", 0)
    assert [c["holds"] for c in found] == [True, False]
    assert "ZeroDivisionError" in found[1]["claim"]


def test_what_changes_from_run_to_run_is_found_times_aside(notebook):
    path = notebook(
        "import torch, time\nprint(torch.rand(1).item())",
        "print('3 of 4 in 0.5 s') if torch.rand(1) < 2 else None\nprint(f'{time.time()} s')",
        "globals().get('left')",
        "left = 1",
    )
    first, same, other = (repeat.one_run(path, seed) for seed in [1, 1, 2])
    assert repeat.differences(first, same) == []  # and no name stays for the next notebook
    [found] = repeat.differences(first, other)
    assert found.startswith(f"cell {first[0].id}")


def test_what_a_notebook_shows_is_text_too(notebook):
    [cell] = running.run_notebook(notebook("print(1)\n'shown'"), {}, lambda tree: tree)
    assert cell.text.startswith("1\n") and "'shown'" in cell.text and cell.error is None
