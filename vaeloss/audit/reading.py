"""β in the words of the usual reductions, and what a clipped probability costs."""

import math

from vaeloss.audit.evidence import Evidence
from vaeloss.audit.findings import Finding, finding
from vaeloss.audit.identify import TOLERANCE, Term

EXACT = 1e-6  # of a user's weight: with two digits and ten reductions no coincidence


def clipping(seen: Evidence, c: float) -> list[Finding]:
    """What the loss does where a probability is 0: at 1e-30 a pixel should cost 69 nats."""
    if seen.certain is None:
        return []
    low, half = seen.certain
    cost = (low.value - half.value) / (c * low.x[0].numel()) + math.log(2)
    if cost > 60:
        return []
    gradient = "with a bounded gradient" if low.d_x_hat.any() else "and has no gradient"
    return [finding("clipped", probability=math.exp(-cost), nats=cost, gradient=gradient)]


def reading(
    c: float, beta: float, rec: Term, seen: Evidence, size: int, powers, number: float
) -> list[Finding]:
    """β in terms of D, M and B, if it is that of the usual reductions and at most one weight.

    ``number`` of the D values of a sample have a gradient.
    """
    d, last, m = math.prod(seen.shape), seen.shape[-1], seen.latent_dim
    tokens = rec.likelihood.name.startswith("categorical")
    values = "tokens" if tokens else "pixels"
    pixels = [("1", 1, f"sum over {values}")]
    pixels += [("D", d, f"mean over {values}")] if d > 1 else []
    pixels += [(str(last), last, "mean over the last axis only")] if 1 < last < d else []
    if number != d:
        kept = ("K", number, f"mean over the K = {number:.6g} {values} that are kept")
        pixels = [pixels[0], kept, ("D", d, "mean over D, with zeros where nothing is kept")]
    latents = [("", 1, "sum over latents")] + ([("M", m, "mean over latents")] if m > 1 else [])
    halves = [("", 1, "reconstruction")]
    if rec.likelihood.name == "gaussian":
        halves = [("", 1, "half the squared error"), ("2", 2, "squared error without ½")]
    power = powers[1] - powers[0]
    batch = {0: "", 1: "B·"}.get(power, f"B^{power}·")

    found, weighted = [], []
    for over_m, divisor, kl in latents:
        for over_2, half, error in halves:
            for above, factor, reduced in pixels:
                like_c = math.isclose(c, size ** powers[0] * half / factor, rel_tol=TOLERANCE)
                if math.isclose(beta, size**power * factor / divisor / half, rel_tol=TOLERANCE):
                    below = f"({over_2}{over_m})" if over_2 and over_m else over_2 + over_m
                    formula = f"{batch}{above}/{below}" if below else batch + above
                    data = {"formula": formula, "error": error, "pixels": reduced, "latents": kl}
                    each = finding("elbo") if formula == "1" else finding("reductions", **data)
                    found.append((not like_c, len(found), each))
                # the weight of one term, if the other has none
                on_rec = c * factor / half / size ** powers[0]
                on_kl = c * beta * divisor / size ** powers[1]
                for of, weight, plain in [("KL", on_kl, on_rec), ("reconstruction", on_rec, on_kl)]:
                    if math.isclose(plain, 1, rel_tol=EXACT) and (digits := simple(weight)):
                        number = half if of == "KL" else half * float(digits)
                        below = "·".join(
                            each for each in (f"{number:g}", over_m) if each not in ("", "1")
                        )
                        below = f"({below})" if "·" in below else below
                        over = batch + (f"{digits}·{above}" if of == "KL" else above)
                        over = over.removesuffix("·1") if over != "1" else over
                        data = {
                            "formula": f"{over}/{below}" if below else over,
                            "weight": float(digits),
                            "term": of,
                            "error": error,
                            "pixels": reduced,
                            "latents": kl,
                        }
                        # few digits first, then a sum over latents, then the squared error alone
                        short = f"{weight:.1e}"[2] == "0"
                        rank = (not short, bool(over_m), -half, len(weighted))
                        weighted.append((rank, finding("weighted", **data)))
    # several may share a β (M = 2): prefer the one that has this c as well, then the simplest
    if found:
        return [min(found, key=lambda each: each[:2])[2]]
    return [min(weighted, key=lambda each: each[0])[1]] if weighted else []


def simple(weight: float) -> str | None:
    """The number with at most two digits that this weight is, as people write it, or None.

    Examples
    --------
    >>> simple(0.1 + 1e-12), simple(32.000001), simple(0.00025), simple(1 / 3), simple(1.0)
    ('0.1', '32', '0.00025', None, None)
    """
    if not (math.isfinite(weight) and weight > 0) or math.isclose(weight, 1, rel_tol=EXACT):
        return None
    rounded = f"{weight:.1e}"  # two digits
    return f"{float(rounded):g}" if math.isclose(weight, float(rounded), rel_tol=EXACT) else None
