"""One row of the table: what is true by algebra, what the auditor said, and the verdict."""

import math
from dataclasses import asdict, dataclass, field

NEAR = 2e-3  # relative: published code is often float32, one draw, one batch


@dataclass
class Row:
    """A loss of a package, its c and β by algebra, and what was found.

    ``c`` or ``beta`` None: the loss has none, it is not of the form c · [NLL + β · KL]. ``say``
    names codes of which one has to be among the findings, where a number holds at this step only.
    """

    package: str
    what: str
    derivation: str
    c: float | None
    beta: float | None
    say: tuple[str, ...] = ()
    version: str = ""
    found: dict = field(default_factory=dict)
    verdict: str = ""

    def judge(self, c: float, beta: float, kl_weight: float, codes: list[str]) -> "Row":
        """Right, refused or misleading."""
        self.found = {
            "c": _plain(c),
            "beta": _plain(beta),
            "kl_weight": _plain(kl_weight),
            "findings": codes,
        }
        said = not self.say or bool(set(self.say) & set(codes))
        if _same(beta, self.beta) and _same(c, self.c) and said:
            self.verdict = "right"
        elif not math.isfinite(beta) and (not math.isfinite(c) or _same(c, self.c)):
            self.verdict = "refused"
        else:
            self.verdict = "misleading"
        return self

    def absent(self, why: str) -> "Row":
        """The package, or the part of it, is not to be had here."""
        self.found, self.verdict = {"why": why}, "absent"
        return self

    def data(self) -> dict:
        """As it stands in the JSON file."""
        row = asdict(self)
        truth = {"c": row.pop("c"), "beta": row.pop("beta"), "say": list(row.pop("say"))}
        return {k: row[k] for k in ("package", "version", "what", "derivation")} | {
            "truth": truth,
            "found": row["found"],
            "verdict": row["verdict"],
        }


def _same(found: float, true: float | None) -> bool:
    if true is None or not math.isfinite(found):
        return False
    return math.isclose(found, true, rel_tol=NEAR, abs_tol=1e-12)


def _plain(value: float) -> float | None:
    return float(f"{value:.8g}") if math.isfinite(value) else None
