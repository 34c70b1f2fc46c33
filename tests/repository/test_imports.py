"""Imports run one way, and nothing is imported that is not declared."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest
import site_check
from packaging.requirements import Requirement

ROOT = site_check.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# A module may import those of its own row and of rows above. The longest prefix of a name counts.
ROWS = (
    ("vaeloss.likelihoods",),
    ("vaeloss.audit", "vaeloss.collapse", "vaeloss.metrics"),
    ("vaeloss.cli", "vaeloss.__main__", "vaeloss"),
    ("sumormean",),
    ("sumormean.experiments", "sumormean.originals", "sumormean.catalogue"),
    ("sumormean.__main__",),
)
ROW = {name: number for number, row in enumerate(ROWS) for name in row}
FILES = [p for package in ("vaeloss", "sumormean") for p in sorted((ROOT / package).rglob("*.py"))]
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())


def row(name: str) -> int:
    """The row of a module, by the longest prefix that has one."""
    while name not in ROW:
        name = name.rpartition(".")[0]
    return ROW[name]


def imports(path: Path) -> list[tuple[str, bool]]:
    """Absolute name of each module that a file imports, and whether it does so when imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_once = {id(node) for node in walk_outside_functions(tree)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in at_once) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the whole name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(name, id(node) in at_once) for name in names]
    return found


def walk_outside_functions(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.Lambda):
            yield child
            yield from walk_outside_functions(child)


def module(path: Path) -> str:
    name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    return name.removesuffix(".__init__")


@each_file
def test_imports_run_one_way(path):
    for name, _ in imports(path):
        if name.partition(".")[0] in ("vaeloss", "sumormean"):
            assert row(name) <= row(module(path)), f"{module(path)} imports {name}"


def test_the_test_sees_an_arrow_that_points_back(tmp_path):
    assert row("sumormean.plots") > row("vaeloss.metrics.posterior")
    assert row("sumormean.experiments.scale.run") > row("sumormean.training.fit")
    assert row("vaeloss.audit.audit_loss") > row("vaeloss.likelihoods.bernoulli_nll")


def names(lines: list[str]) -> set[str]:
    """Top-level modules that requirements bring: here they are named alike but for two."""
    found = {name for line in lines for r in [Requirement(line)] for name in (r.name, *r.extras)}
    modules = {"pillow": "PIL", "scikit-learn": "sklearn"}
    return found | {module for name, module in modules.items() if name in found}


@each_file
def test_what_is_imported_is_declared(path):
    """At once only by those who cannot do without; an extra of the library's inside functions."""
    extras = {extra: names(lines) for extra, lines in PROJECT["optional-dependencies"].items()}
    always = names(PROJECT["dependencies"]) | sys.stdlib_module_names
    if path.is_relative_to(ROOT / "sumormean"):
        always |= extras["book"] | extras["keras"] | {"sumormean"}
    later = always.union(*extras.values())
    for name, at_once in imports(path):
        top = name.partition(".")[0]
        assert top in (always if at_once else later) | {"vaeloss"}, f"{module(path)}: {name}"
