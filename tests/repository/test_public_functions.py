"""The table of public losses: what a verdict means, and that none of them misleads."""

import json
import math

import site_check
from audit_public.function_cases import CASES, Case
from audit_public.functions import judged

ROWS = json.loads((site_check.ROOT / "data" / "public-audit.json").read_text(encoding="utf-8"))


def verdict(c, beta, told_c, told_beta, findings=(), say=()):
    case = Case("me/mine", "a.py", "loss", "", c, beta, print, {}, say)
    told = {"c": told_c, "beta": told_beta, "kl_weight": 1.0, "findings": list(findings)}
    return judged(case, "abc", told)["verdict"]


def test_what_is_right_refused_and_misleading():
    unknown = math.nan
    assert verdict(1.0, 2.0, 1.0, 2.0) == "right"
    assert verdict(1.0, None, 1.0, unknown) == "right"
    assert verdict(None, None, unknown, unknown) == "right"
    assert verdict(1.0, 2.0, 1.0, unknown) == "refused"
    assert verdict(1.0, 2.0, 1.0, 2.0, say=("masked",)) == "refused"
    assert verdict(1.0, 2.0, 1.0, 2.0, ["masked"], ("masked",)) == "right"
    assert verdict(1.0, 2.0, 1.0, 2.1) == "misleading"
    assert verdict(1.0, None, 1.0, 100.0) == "misleading"
    assert verdict(None, None, 1.0, unknown) == "misleading"


def test_the_table_has_every_case_and_nothing_misleads():
    rows = [row for row in ROWS["rows"] if row["kind"] == "function"]
    told = {(row["package"], row["what"]): row for row in rows}
    for case in CASES:
        row = told[case.repository, f"{case.path}: {case.what}"]
        assert row["truth"] == {"c": case.c, "beta": case.beta, "say": list(case.say)}
        assert row["verdict"] in ("right", "refused")
    right = sum(row["verdict"] == "right" for row in rows)
    assert right >= 0.9 * len(rows) and len(rows) == len(CASES)
