"""How the weights of a loss change with the batch size."""

import math
from collections.abc import Callable

from vaeloss.audit.evidence import Evidence
from vaeloss.audit.findings import Finding, finding
from vaeloss.audit.identify import TOLERANCE, Term
from vaeloss.audit.kl import Weigh, fit_kl
from vaeloss.audit.readings import Reading, fit_reconstruction, kept

BATCH = {0: "averaged over the batch", 1: "summed over the batch", -1: "divided by B² in all"}


def batch_words(power: int) -> str:
    """How a term treats the batch if its weight goes as this power of B."""
    return BATCH.get(power, f"scaled as B^{power} times a mean")


def batch_powers(
    seen: Evidence, rec: Term, reading: Reading, kl: Term, weigh: Weigh
) -> tuple[tuple, list[Finding]]:
    """The power of B in each weight (None: unknown, or not a power), and findings on them."""
    if not rec.known or not kl.known:
        return (None, None), []
    averaged = kl.known and weigh is fit_kl and seen.random_posterior  # over several draws
    size = seen.batch_size
    if not seen.other or (averaged and not seen.narrow_other):
        data = {"size": size, "other": seen.other_size, "error": seen.other_error}
        return (None, None), [finding("one-batch-size", **data)]

    def power(ratio: float) -> int | None:
        if not ratio > 0:
            return None
        k = math.log(ratio) / math.log(size / seen.other_size)
        return round(k) if abs(k - round(k)) < 1e-3 else None

    found = []
    ratio = _ratio(rec, seen.other, lambda probes: fit_reconstruction(reading, probes))
    of_rec, number = power(ratio), kept(reading, seen.probes)
    others = kept(reading, seen.other)
    if number != others and (by_number := power(ratio * number / others)) is not None:
        of_rec = by_number  # a mean over what is kept: its weight goes with their number
        found.append(finding("mean-over-kept", kept=number))
    of_kl = of_rec
    if kl.weight:
        of_kl = power(_ratio(kl, seen.narrow_other if averaged else seen.other, weigh))
    if None in (of_rec, of_kl):
        return (None, None), [finding("weights-change-with-batch", size=size)]
    words = [batch_words(k) for k in (of_rec, of_kl)]
    if of_rec != of_kl:
        data = {"reconstruction": words[0], "kl": words[1]}
        found.append(finding("beta-depends-on-batch", **data))
    elif of_rec != 0:
        found.append(finding("c-depends-on-batch", both=words[0]))
    return (of_rec, of_kl), found


def _ratio(term: Term, other, weigh: Callable) -> float:
    """Of the weight, to that at the other batch size; NaN if the term is no longer the same."""
    weight, residual = weigh(other)
    return term.weight / weight if residual <= TOLERANCE and weight else math.nan
