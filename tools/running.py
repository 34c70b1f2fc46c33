"""Notebooks executed in a plain process, one after another, with another seed or other data.

For `make claims` and `make repeat`. A kernel of its own for each, as `make test` starts, would hide
what one notebook leaves behind for the next.
"""

import ast
import io
import math
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np

from sumormean import claims

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "book").glob("*/*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)
SETS = ("mnist", "fashion_mnist", "digits28")
# What `load` returns in place of what a notebook asks for, so that its first set becomes this one.
INSTEAD = {
    "mnist": {},
    "fashion_mnist": {"mnist": "fashion_mnist", "fashion_mnist": "mnist"},
    "digits28": {"mnist": "digits28", "fashion_mnist": "digits28"},
}


@dataclass
class Cell:
    """What a cell wrote: its id in the notebook, its text, and the error that ended it, if any."""

    id: str
    text: str
    error: str | None


def run_notebook(path: str, names: dict, change: Callable[[ast.Module], ast.Module]) -> list[Cell]:
    """Execute a notebook's code cells in this process; stops after the cell that fails.

    names : into the notebook's namespace before its first cell.
    change : the syntax tree of a cell -> the tree that is executed.
    """
    from IPython.core.displayhook import CapturingDisplayHook
    from IPython.core.interactiveshell import InteractiveShell
    from matplotlib import pyplot as plt
    from traitlets.config import Config

    plt.switch_backend("agg")
    # A namespace of its own name: a worker of a pool looks for its function in `__main__`.
    quiet = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell.instance(config=quiet, user_module=ModuleType("notebook"))
    shell.reset(new_session=False)
    shell.push(names)
    shell.ast_transformers = [Transformer(change)]
    cells = []
    here, out, err = os.getcwd(), sys.stdout, sys.stderr
    os.chdir((ROOT / path).parent)  # where Jupyter starts a kernel
    try:
        for cell in nbformat.read(ROOT / path, as_version=4).cells:
            if cell.cell_type != "code":
                continue
            shown: list = []
            shell.display_trap.hook = CapturingDisplayHook(shell, shown)
            sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
            with warnings.catch_warnings():
                # "FigureCanvasAgg is non-interactive": figures are drawn and not looked at.
                warnings.filterwarnings("ignore", "FigureCanvasAgg")
                done = shell.run_cell(cell.source)
            text = sys.stdout.getvalue() + "".join(str(o["data"]) for o in shown)
            sys.stdout, sys.stderr = out, err
            plt.close("all")
            fault = done.error_before_exec or done.error_in_exec
            error = f"{type(fault).__name__}: {fault}" if fault else None
            cells.append(Cell(cell.id, text, error))
            if fault:
                break
    finally:
        os.chdir(here)
        sys.stdout, sys.stderr = out, err
        shell.reset(new_session=False)
    return cells


class Transformer(ast.NodeTransformer):
    def __init__(self, change: Callable[[ast.Module], ast.Module]):
        self.change = change

    def visit(self, tree):
        return ast.fix_missing_locations(self.change(tree))


# --- claims, and how far they are from failing ---------------------------------------------------


class Margins:
    """Records every claim of a notebook: whether it holds, and its margin.

    The margin of `a < b` is 1 - a/b: the share of the larger side by which the two may approach
    before the claim fails; of an `isclose`, the unused share of its tolerance. Of several parts
    that must all hold it is the smallest. Where a claim counts (`==` of whole numbers, `or`,
    `not`), or was decided in an earlier line, there is none.
    """

    def __init__(self):
        self.found: list[dict] = []
        self._parts: list[float] | None = None

    def claim(
        self,
        sentence: str,
        condition: Callable[[], bool],
        *,
        id: str | None = None,
        value: dict[str, float] | None = None,
        given: bool = True,
        recorded: bool = False,
    ) -> None:
        self._parts = []
        try:
            holds = bool(condition()) if given else None
        finally:
            parts, self._parts = self._parts, None
        margin = min(parts) if parts and given else None
        self.found.append({"claim": sentence, "holds": holds, "margin": margin})
        # Prints as any other, and asks as much of id and value; whether it holds was decided above.
        claims.claim(sentence, True, id=id, value=value, given=given, recorded=recorded)

    def compare(self, left, op: str, right):
        """`left op right`, one of < <= > >=, and its margin."""
        a, b = (left, right) if op[0] == "<" else (right, left)
        if self._parts is not None:
            self._parts.append(margin_of(a, b, strict=op in "<>"))
        return {"<": lambda: a < b, "<=": lambda: a <= b}[op.replace(">", "<")]()

    def unrecorded(self, condition: Callable):
        """`condition()`; what it compares on the way has no margin."""
        parts, self._parts = self._parts, None
        try:
            return condition()
        finally:
            self._parts = parts

    def close(self, function: Callable, *args, **kwargs):
        """`isclose` or `allclose` of NumPy, PyTorch or math, and its margin."""
        holds = function(*args, **kwargs)
        if self._parts is not None:
            a, b = (plain(x).astype(float) for x in args[:2])
            module = function.__module__ or ""
            if module.startswith("math"):
                rtol, atol = kwargs.get("rel_tol", 1e-9), kwargs.get("abs_tol", 0.0)
                allowed = np.maximum(rtol * np.maximum(np.abs(a), np.abs(b)), atol)
            else:
                rtol, atol = kwargs.get("rtol", 1e-5), kwargs.get("atol", 1e-8)
                allowed = atol + rtol * np.abs(b)
            error = np.abs(a - b)
            with np.errstate(divide="ignore", invalid="ignore"):
                unused = np.where(error == 0, 1.0, 1 - error / allowed)
            self._parts.append(float(np.min(unused)))
        return holds


def plain(x) -> np.ndarray:
    """A number, an array or a tensor, also one with a gradient, as an array."""
    return np.asarray(x.detach() if hasattr(x, "detach") else x)


def margin_of(a, b, strict: bool) -> float:
    """1 - a/b for 0 <= a < b, and its like for other signs; negative where a < b is false.

    >>> margin_of(3.0, 4.0, True), margin_of(-4.0, -3.0, True), margin_of(5.0, 4.0, True)
    (0.25, 0.25, -0.2)
    >>> margin_of(1, 1, False)  # whole numbers: a <= b is a < b + 1
    0.5
    """
    a, b = plain(a), plain(b)
    if not strict and a.dtype.kind in "iu" and b.dtype.kind in "iu":
        b = b + 1
    a, b = a.astype(float), b.astype(float)
    largest = np.maximum(np.abs(a), np.abs(b))
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = np.where(np.isinf(b) & np.isfinite(a), 1.0, (b - a) / largest)
    return float(np.min(np.where(largest == 0, 0.0, margin)))


def record_margins(tree: ast.Module) -> ast.Module:
    """Claims as calls of `_margins.claim`, with the comparisons that must hold recorded."""
    return RecordClaims().visit(tree)


class RecordClaims(ast.NodeTransformer):
    def visit_FunctionDef(self, node):
        # A small function such as `about(a, b)`, should a claim call it.
        self.generic_visit(node)
        last = node.body[-1]
        if isinstance(last, ast.Return) and isinstance(last.value, ast.Compare | ast.BoolOp):
            last.value = must_hold(last.value)
        return node

    def visit_Call(self, node):
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "claim":
            node.func = attribute("claim")
            nothing = ast.arguments([], [], None, [], [], None, [])
            node.args[1] = ast.Lambda(nothing, must_hold(node.args[1]))
        return node


def attribute(name: str) -> ast.expr:
    return ast.Attribute(ast.Name("_margins", ast.Load()), name, ast.Load())


ORDER = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}


def must_hold(node: ast.expr) -> ast.expr:
    """The same expression with those comparisons recorded that are all needed to make it true."""
    match node:
        case ast.Compare(left, ops, comparators) if all(type(op) in ORDER for op in ops):
            sides = [left, *comparators]
            parts = [
                ast.Call(attribute("compare"), [a, ast.Constant(ORDER[type(op)]), b], [])
                for a, op, b in zip(sides, ops, comparators, strict=False)
            ]
            return parts[0] if len(parts) == 1 else ast.BoolOp(ast.And(), parts)
        case ast.BoolOp(ast.And(), values):
            return ast.BoolOp(ast.And(), [must_hold(value) for value in values])
        case ast.BinOp(left, ast.BitAnd(), right):
            return ast.BinOp(must_hold(left), ast.BitAnd(), must_hold(right))
        case ast.Call(ast.Name("all" | "bool") | ast.Attribute(_, "all"), [only], _):
            return ast.Call(node.func, [must_hold(only)], node.keywords)
        case ast.Call(ast.Attribute(value, "all"), [], _):
            return ast.Call(ast.Attribute(must_hold(value), "all", ast.Load()), [], node.keywords)
        case ast.GeneratorExp(element, generators):
            return ast.GeneratorExp(must_hold(element), generators)
        case ast.ListComp(element, generators):
            return ast.ListComp(must_hold(element), generators)
        case ast.Call(ast.Attribute(_, "isclose" | "allclose"), args, keywords):
            return ast.Call(attribute("close"), [node.func, *args], keywords)
        case ast.Call():  # perhaps of a function of the chapter, whose last line is recorded
            return node
    nothing = ast.arguments([], [], None, [], [], None, [])
    return ast.Call(attribute("unrecorded"), [ast.Lambda(nothing, node)], [])


def set_seed(seed: int) -> Callable[[ast.Module], ast.Module]:
    """Replace the line `SEED = 0`, which every notebook has in its first cell."""

    def change(tree: ast.Module) -> ast.Module:
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SEED":
                node.value = ast.Constant(seed)
        return tree

    return change


def is_finite(margin: float | None) -> bool:
    return margin is not None and math.isfinite(margin)
