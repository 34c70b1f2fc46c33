"""Run the cases of one package, in an environment that has it; a line of JSON for each row.

``python -m audit_public.steps pythae``; ``make audit-public`` does so for all of them.
"""

import importlib.metadata
import json
import math
import sys
import traceback
from collections.abc import Callable, Iterator

from audit_public.rows import Row
from vaeloss import audit_step, watch_step
from vaeloss.audit import AuditError

PACKAGES: dict[str, tuple[str, Callable[[], Iterator[Row]]]] = {}  # name -> requirement, cases
MARK = "ROW "  # other lines are what the package prints


def package(requirement: str):
    """Register a function that yields the rows of a package, and what pip installs for it."""

    def register(cases):
        PACKAGES[cases.__name__] = requirement, cases
        return cases

    return register


def watched(row: Row, model, pick, train) -> Row:
    """The row of the last step of training code that runs as it is."""
    try:
        with watch_step(model, pick) as seen:
            train()
    except AuditError as error:
        return row.judge(math.nan, math.nan, math.nan, [f"error: {error}"])
    return _judged(row, seen.audits[-1], (*seen.audits[-1].findings, *seen.findings))


def audited(row: Row, loss, **given) -> Row:
    """The row of a loss that a function of the package returned."""
    try:
        audit = audit_step(loss, **given)
    except AuditError as error:
        return row.judge(math.nan, math.nan, math.nan, [f"error: {error}"])
    return _judged(row, audit, audit.findings)


def _judged(row: Row, audit, findings) -> Row:
    codes = sorted({found.code for found in findings} - {"multiply-kl", "learning-rate"})
    return row.judge(audit.c, audit.beta, audit.kl_weight, codes)


def main(name: str) -> int:
    """Print the rows of this package; 1 if one of its cases broke."""
    from audit_public import step_cases  # noqa: F401  registers them

    requirement, cases = PACKAGES[name]
    try:
        for row in cases():
            row.package, row.version = name, importlib.metadata.version(requirement.split("==")[0])
            print(MARK + json.dumps(row.data(), ensure_ascii=False), flush=True)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    from audit_public import steps  # one registry, not that of __main__

    sys.exit(steps.main(sys.argv[1]))
