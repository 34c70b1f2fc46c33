"""One row of the table: what is true by algebra, what the auditor said, and the verdict."""

import math
from dataclasses import dataclass, field

NEAR = 2e-3  # relative: published code is float32, one batch, sometimes one draw


@dataclass
class Row:
    """A loss, its c and β by algebra, and what was found.

    Parameters
    ----------
    what, derivation : str
        Which loss with which settings, and where c and β come from, in a line.
    c, beta : float or None
        None: there is none, the loss is not of the form c · [NLL + β · KL].
    say : tuple of str
        Codes of which one must be among the findings: where a number holds at this step only.
    """

    what: str
    derivation: str
    c: float | None
    beta: float | None
    say: tuple[str, ...] = ()
    package: str = ""
    version: str = ""
    found: dict = field(default_factory=dict)
    verdict: str = ""

    def judge(self, c: float, beta: float, kl_weight: float, findings: list[str]) -> "Row":
        """Right; refused, where there is an answer; or misleading.

        To say that there is no β is right where there is none.
        """
        numbers = {"c": c, "beta": beta, "kl_weight": kl_weight}
        self.found = {name: _plain(value) for name, value in numbers.items()}
        self.found["findings"] = findings
        said = not self.say or bool(set(self.say) & set(findings))
        right = _same(beta, self.beta) and (_same(c, self.c) or self.beta is None) and said
        false = any(
            math.isfinite(found) and not _same(found, true)
            for found, true in ((c, self.c), (beta, self.beta))
        )
        self.verdict = "misleading" if false or not said else "right" if right else "refused"
        return self

    def data(self) -> dict:
        """As it stands in the JSON file."""
        return {
            "package": self.package,
            "version": self.version,
            "what": self.what,
            "derivation": self.derivation,
            "truth": {"c": self.c, "beta": self.beta, "say": list(self.say)},
            "found": self.found,
            "verdict": self.verdict,
        }


def unfinished(package: str, verdict: str, why: str) -> dict:
    """The row of a package that is absent here, or of a case that is broken."""
    return {
        "package": package,
        "version": "",
        "what": "the rest",
        "found": {"why": why},
        "verdict": verdict,
    }


def _same(found: float, true: float | None) -> bool:
    if true is None or not math.isfinite(found):
        return true is None and not math.isfinite(found)
    return math.isclose(found, true, rel_tol=NEAR, abs_tol=1e-12)


def _plain(value: float) -> float | None:
    return float(f"{value:.8g}") if math.isfinite(value) else None
