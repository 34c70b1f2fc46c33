"""A function out of a module or a training script, without running the training.

Of a script imports, definitions and constants are executed, nothing else: no argument parsing, no
download, no training at the top level.
"""

import ast
import builtins
import dis
import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable


def resolve(name: str) -> Callable:
    """The function that ``path/to/script.py:function`` or ``module:Class.method`` names.

    Raises
    ------
    ValueError
        It cannot be had; the message says what is missing and how to mend it.
    """
    place, _, function = name.rpartition(":")
    if not place or not function:
        raise ValueError(
            f"{name!r}: write train.py:vae_loss, module:function or module:Class.method"
        )
    sys.path.insert(0, os.getcwd())  # where `python -m` looks, but an installed script does not
    module = _script(place) if place.endswith(".py") else _module(place)
    owner = module
    for part in function.split("."):
        if not hasattr(owner, part):
            raise ValueError(_absent(module, place, function))
        owner = getattr(owner, part)
    if isinstance(module, _Script):
        module.check(owner, place, function)
    return owner


def _module(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise ValueError(f"{name} needs {error.name!r}, which is missing") from error
        raise ValueError(f"{error}: run this in the folder of {name}.py") from error
    except (Exception, SystemExit) as error:  # a script that trains, or reads its arguments
        raise ValueError(
            f"importing {name} raised {type(error).__name__}: {str(error)[:120]}. If it is a "
            f"script, give its path, {name.rpartition('.')[2]}.py:function: it is then not run"
        ) from error


class _Script(types.ModuleType):
    """What a script defines, and what of it could not be had."""

    failed: dict[str, str]  # name -> why

    def check(self, owner, place: str, function: str) -> None:
        """Raise ValueError if the function needs what the script only makes by running."""
        missing = sorted(_needs(owner, vars(self)))
        if missing:
            why = [f"{n} ({self.failed[n]})" if n in self.failed else n for n in missing[:6]]
            raise ValueError(
                f"{place}: {function} needs {', '.join(why)}, which the script makes only when it "
                "runs: make them arguments, write them as constants, or move the loss to a module "
                "of its own"
            )


def _script(path: str) -> _Script:
    try:
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read(), path)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is no Python that this version reads: {error}") from error
    folder = os.path.dirname(os.path.abspath(path))
    sys.path.insert(0, folder)
    name = os.path.splitext(os.path.basename(path))[0]
    module = _Script(f"_script_{name}")
    module.failed = {}
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses, and methods, look their module up
    for node in tree.body:
        if not _harmless(node, set(vars(module))):
            continue
        code = compile(ast.Module([node], type_ignores=[]), path, "exec")
        try:
            exec(code, vars(module))
        except (Exception, SystemExit) as error:
            short = f"{type(error).__name__}: {str(error)[:60]}"
            module.failed.update({bound: short for bound in _bound(node)})
    return module


def _harmless(node: ast.stmt, known: set[str]) -> bool:
    """An import, a definition, or an assignment of a constant."""
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return True
        case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
            return _constant(value, known)
        case ast.Try(body=body, handlers=handlers):  # an import with a substitute
            inner = [*body, *(each for handler in handlers for each in handler.body)]
            return all(_harmless(each, known) or isinstance(each, ast.Pass) for each in inner)
    return False


def _constant(value: ast.expr, known: set[str]) -> bool:
    """Numbers, strings, tuples and arithmetic of them and of constants before."""
    allowed = (
        ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.BinOp, ast.UnaryOp, ast.operator,
        ast.unaryop, ast.expr_context,
    )  # fmt: skip
    return all(
        isinstance(node, allowed) or (isinstance(node, ast.Name) and node.id in known)
        for node in ast.walk(value)
    )


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement would have given."""
    match node:
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {each.asname or each.name.partition(".")[0] for each in names}
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _needs(owner, names: dict) -> set[str]:
    """Names that a function, or what it calls of the script, reads and that are not there."""
    missing, seen, waiting = set(), set(), [owner]
    while waiting:
        each = waiting.pop()
        each = inspect.unwrap(each) if callable(each) else each
        codes = [each.__code__] if inspect.isfunction(each) else []
        if inspect.isclass(each):
            functions = (f for f in vars(each).values() if inspect.isfunction(f))
            codes = [f.__code__ for f in functions]
        while codes:
            code = codes.pop()
            if code in seen:
                continue
            seen.add(code)
            codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
            for step in dis.get_instructions(code):
                if step.opname not in ("LOAD_GLOBAL", "LOAD_NAME"):
                    continue
                if step.argval in names:
                    found = names[step.argval]
                    if getattr(found, "__module__", None) == names["__name__"]:
                        waiting.append(found)
                elif not hasattr(builtins, step.argval):
                    missing.add(step.argval)
    return missing


def _absent(module: types.ModuleType, place: str, function: str) -> str:
    failed = getattr(module, "failed", {})
    first = function.partition(".")[0]
    if first in failed:
        return f"{place}: {first} could not be defined: {failed[first]}"
    own = [n for n, f in vars(module).items() if getattr(f, "__module__", "") == module.__name__]
    listed = ", ".join(own[:8]) or "nothing"
    return (
        f"{place} has no function {function!r} at its top level (it has {listed}): a function "
        "inside another one must be moved out"
    )
