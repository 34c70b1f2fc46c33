r"""Thresholds and budgets of the data sets, for the calculator: book/_static/calculator-data.js.

`python tools/calculator_data.py`, which is `make calculator`. Every likelihood of the library is
there that needs no parameter and can score pixels in [0, 1]; a new one appears by itself.
"""

import inspect
import json
import math
from pathlib import Path

import site_check

from sumormean.data import load
from vaeloss.collapse import collapse_threshold, information_budget
from vaeloss.likelihoods import FAMILIES

PATH = site_check.ROOT / "book" / "_static" / "calculator-data.js"
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "digits28": "digits28"}
HEAD = """\
// Made by tools/calculator_data.py: β* and the information budget in nats (null: no bound) of the
// training images, pixels in [0, 1].
const DATA = """


def likelihoods() -> list[str]:
    """Names of the likelihoods that need no parameter."""
    first = {
        name: next(iter(inspect.signature(f).parameters.values())) for name, f in FAMILIES.items()
    }
    return [name for name, parameter in first.items() if parameter.default is not parameter.empty]


def row(name: str) -> dict:
    """Threshold and budget of one data set under each of `likelihoods()`."""
    x = load(name).x_train
    found = {}
    for likelihood in likelihoods():
        budget = information_budget(x, likelihood)
        found[likelihood] = [
            collapse_threshold(x, likelihood),
            budget if math.isfinite(budget) else None,
        ]
    return found


def read(path: Path = PATH) -> dict:
    """What the page's script holds."""
    return json.loads(path.read_text(encoding="utf-8").partition("const DATA = ")[2].rstrip(";\n"))


def main() -> None:
    """Compute all of it anew, in a minute."""
    data = {name: {"title": title, **row(name)} for name, title in TITLES.items()}
    rows = ",\n".join(
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in found.items())
        + "\n  }"
        for name, found in data.items()
    )
    PATH.write_text(f"{HEAD}{{\n{rows}\n}};\n", encoding="utf-8")
    print(f"{PATH.name}: {len(data)} data sets, {len(likelihoods())} likelihoods")


if __name__ == "__main__":
    main()
