"""Where the conditions of a notebook's claims come from, read from the source of its cells.

Two questions, for the tests of the chapters: does a condition depend on a record in data/runs/, and
can a run refute it, or does it compare literals with literals? Both follow assignments from the top
of a notebook to its end. They look at names, not at values: what is put into a list by a loop is
as good as computed, and what is unpacked from a record with something else counts as recorded.
"""

import ast
import sys
from collections.abc import Iterator

import site_check

sys.path.insert(0, str(site_check.ROOT / "book" / "_ext"))

from collected import claim_calls, parse  # noqa: E402

# Arithmetic: what these give for literals is known before the notebook is run.
SCALAR = {"abs", "all", "any", "bool", "float", "int", "len", "list", "max", "min", "next", "range"}
SCALAR |= {"round", "sum", "tuple", "zip"}
MODULES = {"math", "np", "torch"}
OF_MODULES = {"allclose", "array", "ceil", "exp", "floor", "isclose", "log", "log2", "pi", "sqrt"}


def names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def assigned(statement: ast.stmt) -> list[tuple[set[str], list[ast.AST]]]:
    """The names that a statement sets, and what they are made from."""
    match statement:
        case ast.Assign(targets, value):
            return [(names(target), [value]) for target in targets]
        case ast.AugAssign(target, _, value) | ast.AnnAssign(target, _, value):
            return [(names(target), [target, value])]
        case ast.For(target, iterated):
            return [(names(target), [iterated])]
        case ast.With(items):
            return [
                (names(item.optional_vars), [item.context_expr])
                for item in items
                if item.optional_vars
            ]
        case ast.FunctionDef(name, body=body):
            return [({name}, body)]
    return []


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """In order, those inside loops, branches and `with` blocks as well; functions are one."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.For | ast.With | ast.If):
            yield from statements(statement.body + getattr(statement, "orelse", []))


def simple(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, list[ast.Call]]]:
    """Each statement with the claims that stand in it, and in none of the statements in it."""
    for statement in statements(body):
        yield statement, claim_calls(statement) if isinstance(statement, ast.Expr) else []


def from_records(sources: list[str]) -> list[tuple[str, bool, bool]]:
    """For each claim of a notebook: its sentence, if it says `recorded`, and if it reads a record.

    >>> from_records(['a = load_record("b")\\nclaim("c", a > 1)\\nclaim("d", f(2))'])
    [("'c'", False, True), ("'d'", False, False)]
    """
    found, records = [], set()

    def reads(node: ast.AST) -> bool:
        literals = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
        path = any(isinstance(value, str) and value.startswith("runs/") for value in literals)
        return path or "load_record" in names(node) or bool(names(node) & records)

    for source in sources:
        for statement, claims in simple(parse(source).body):
            for targets, made_from in assigned(statement):
                if any(map(reads, made_from)):
                    records |= targets
                elif isinstance(getattr(statement, "targets", [None])[0], ast.Name | ast.Tuple):
                    records -= targets  # the name now stands for something else
                elif isinstance(statement, ast.For | ast.With | ast.FunctionDef):
                    records -= targets
            for call in claims:
                says = any(k.arg == "recorded" for k in call.keywords)
                found.append((ast.unparse(call.args[0]), says, reads(call.args[1])))
    return found


def irrefutable(source: str) -> list[str]:
    """The claims of a cell whose conditions are built from literals in this cell alone.

    >>> irrefutable('a = 3 * 4\\nclaim("c", a == 12)\\nclaim("d", a < f(a))')
    ["'c'"]
    """
    tree = parse(source)
    # A name with methods called on it, as a list that a loop fills, is computed.
    filled = {
        n.func.value.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call)
        and isinstance(n.func, ast.Attribute)
        and isinstance(n.func.value, ast.Name)
        and n.func.attr in {"append", "extend", "update"}
    }
    found, literal = [], set()

    def is_literal(node: ast.AST) -> bool:
        nodes = list(ast.walk(node))
        inner = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        inner |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        of_modules = {
            n.attr for n in nodes if isinstance(n, ast.Attribute) and names(n.value) & MODULES
        }
        known = literal | inner | SCALAR | MODULES
        return names(node) <= known and of_modules <= OF_MODULES

    for statement, claims in simple(tree.body):
        for targets, made_from in assigned(statement):
            parts = [statement] if isinstance(statement, ast.FunctionDef) else made_from
            if all(map(is_literal, parts)):
                literal |= targets - filled
            else:
                literal -= targets
        found += [ast.unparse(c.args[0]) for c in claims if is_literal(c.args[1])]
    return found
