"""The gradients of x_hat → the likelihood and its weight, or what is there instead."""

from vaeloss.audit.diagnosis import diagnosis, huber
from vaeloss.audit.evidence import Evidence
from vaeloss.audit.findings import Finding, finding
from vaeloss.audit.identify import TOLERANCE, Term
from vaeloss.audit.readings import FIRST, Reading, fit_reconstruction, head, readings, share_reached
from vaeloss.likelihoods import Likelihood, recognisable


def reconstruction_term(
    seen: Evidence, asked: Likelihood | None = None, categories: int | None = None
) -> tuple[Term, Reading]:
    """The reconstruction, recognised or the one that is ``asked`` for; or what is wrong with it."""
    probes, known = seen.probes, readings(seen, asked, categories)
    if not any(p.d_x_hat.any() for p in probes):
        if seen.moves["x_hat"]:
            code = "x-hat-detached"
        elif seen.moves["x"] or seen.random_posterior:
            code = "decodes-inside"
        else:
            code = "no-reconstruction"
        return Term(0.0, 1.0, findings=[finding(code)]), known[0]
    first = head(probes, FIRST)
    residuals = [fit_reconstruction(each, first, FIRST)[1] for each in known]
    least = min(residuals)
    best = known[residuals.index(least)]
    # of a likelihood that no gradient tells from others the link is found, not asked for
    plain = {each.name for each in recognisable()}
    parametric = asked is not None and asked.name not in plain
    if categories or asked is None or (parametric and best.likelihood.name == asked.name):
        reading = best
    else:
        reading = Reading(asked)
    term = Term(*fit_reconstruction(reading, probes), reading.likelihood)
    if term.known:
        term.findings += _about(reading, seen)
        return term, reading
    if seen.moves["x"] is False:
        term.findings.append(finding("x-ignored"))
    elif seen.random_reconstruction:
        term.findings.append(finding("reconstruction-random"))
    elif asked is not None and not categories and least <= TOLERANCE:
        data = {"asked": str(asked), "found": str(best.likelihood)}
        term.findings.append(finding("other-likelihood", **data))
    else:
        term.findings += diagnosis(seen, known) or _unknown(known, best, least, probes)
    return term, reading


def _about(reading: Reading, seen: Evidence) -> list[Finding]:
    """What is worth knowing of a reconstruction that fits."""
    found = []
    share = share_reached(seen, reading)
    if reading.link not in ("", "logits"):
        found.append(finding("tokens-as", outputs=reading.link))
    if reading.shift:
        found.append(finding("next-token"))
    if share < 1:
        found.append(finding("masked", left=1 - share))
    if reading.likelihood.name == "gaussian" and reading.likelihood.link == "mean":
        found += huber([seen.far] if seen.far else [], reading, seen.probes, "huber")
    return found


def _unknown(known, best: Reading, off: float, probes) -> list[Finding]:
    """Nothing fits: what is nearest, and how much of it there is."""
    names = ", ".join(dict.fromkeys(str(each.likelihood) for each in known))
    nearest = str(best.likelihood)
    found = [finding("reconstruction-unknown", known=names, nearest=nearest, off=off)]
    if off < 0.5:
        data = {"likelihood": nearest, "weight": fit_reconstruction(best, probes)[0]}
        found.append(finding("reconstruction-partly", share=1 - off**2, **data))
    return found
