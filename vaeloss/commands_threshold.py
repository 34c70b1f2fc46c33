"""``vaeloss threshold``: will a VAE with this loss collapse on the samples in this file?"""

import argparse
import json
import math
import sys
import textwrap
import warnings

import numpy as np

UNITS = {
    "unit": "in [0, 1], bytes / 255",
    "symmetric": "in [-1, 1], bytes / 127.5 - 1",
    "raw": "as they are in the file",
}
SCOPE = (
    "Scope: outputs that are independent given z. A decoder that also sees a label or an input "
    "(conditional) has another threshold, see --given; so has one that sees what it has already "
    "written (autoregressive, teacher forcing)."
)
SURE = 2**26  # values up to which an interval is worked out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``vaeloss threshold``."""
    from vaeloss.samples import KINDS

    parser.add_argument("data", help=f"samples (N, ...): {KINDS}; of an archive x.npz:key")
    parser.add_argument(
        "--likelihood",
        default="bernoulli",
        help="bernoulli (default), gaussian, gaussian(0.5) with that variance, gaussian-shared, "
        "laplace, poisson, negative-binomial(10), binomial(255), categorical(30) …",
    )
    parser.add_argument(
        "--loss-beta",
        type=float,
        metavar="BETA",
        help="the loss's weight of the summed KL against the summed negative log-likelihood, as "
        "`vaeloss audit` finds it",
    )
    parser.add_argument(
        "--given", metavar="FILE", help="labels, one a sample, that the decoder sees too"
    )
    parser.add_argument(
        "--units",
        choices=UNITS,
        help="for whole numbers: what the loss is given. "
        + "; ".join(f"{name}: {what}" for name, what in UNITS.items()),
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Print β*, and what the loss's β does.

    Returns
    -------
    int
        0 if that is answered, 2 if the arguments or the data cannot be used.
    """
    try:
        told = answer(args)
    except (ValueError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(told, ensure_ascii=False, indent=2, allow_nan=False))
    else:
        for sentence in told["sentences"]:
            print(textwrap.fill(sentence, 90))
    return 0


def answer(args: argparse.Namespace) -> dict:
    """All that is known, and the sentences that say it.

    Raises
    ------
    ValueError
        With one clear line.
    """
    from vaeloss.collapse import UnitsWarning, collapse_threshold, collapse_verdict
    from vaeloss.likelihoods import as_likelihood
    from vaeloss.samples import read_samples

    likelihood = as_likelihood(args.likelihood)
    if args.loss_beta is not None and not 0 < args.loss_beta < math.inf:
        raise ValueError(f"--loss-beta {args.loss_beta:g}: a weight of the KL is positive")
    x = read_samples(args.data)
    if x.ndim < 2:
        raise ValueError(f"{args.data}: has shape {x.shape}, expected (samples, values...)")
    x = in_units(x, likelihood, args.units, args.data)
    given = None
    if args.given is not None:
        given = read_samples(args.given)
        given = given[:, 0] if given.ndim == 2 and given.shape[1] == 1 else given
    confidence = 0.9 if x.size * likelihood.outputs <= SURE and len(x) >= 40 else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnitsWarning)  # said by --units
        threshold = _interval_if_possible(collapse_threshold, x, likelihood, given, confidence)
        verdict = None
        if args.loss_beta is not None:
            verdict = _conditional(args.loss_beta, threshold) if given is not None else None
            verdict = verdict or collapse_verdict(x, args.loss_beta, likelihood)
    told = {
        "threshold": float(threshold),
        "interval": threshold.interval,
        "additive": threshold.additive,
        "held": threshold.held,
        "likelihood": str(likelihood),
        "samples": len(x),
        "values": math.prod(x.shape[1:]),
        "loss_beta": args.loss_beta,
        "verdict": verdict and verdict.code,
        "margin": verdict and _finite(verdict.margin),
    }
    return told | {"sentences": [*_sentences(told, verdict), SCOPE]}


def _interval_if_possible(function, x, likelihood, given, confidence):
    """The threshold, with an interval if no group of samples is needed to have one."""
    threshold = function(x, likelihood, given=given)
    if confidence is None:
        return threshold
    try:
        return function(x, likelihood, given=given, interval=confidence)
    except ValueError:  # a label of few samples, say
        return threshold


def _conditional(beta: float, threshold):
    """What β does where the decoder sees labels: no bound is known there, stable is all."""
    from vaeloss.collapse.optimum import verdict_of

    return verdict_of(beta, threshold, math.inf, lambda: float(threshold))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sentences(told: dict, verdict) -> list[str]:
    where = f"{told['samples']:,} samples of {told['values']:,} values"
    star = f"β* = {told['threshold']:.4g}"
    if told["interval"]:
        low, high = told["interval"]
        star += f" (90 % interval {low:.4g} to {high:.4g})"
    sentences = [] if verdict is None else [verdict.sentence]
    sentences.append(f"{star} for a {told['likelihood']} decoder on {where}.")
    if told["additive"] is not None:
        sentences[-1] = (
            f"{star} for a {told['likelihood']} decoder that is free for each label, "
            f"{told['additive']:.4g} for one that adds its answer to the label's, on {where}."
        )
    if told["held"]:
        sentences.append(
            f"{told['held']:,} of the values equal their median in most samples: an absolute error "
            "holds them there, at every β."
        )
    return sentences


def in_units(x: np.ndarray, likelihood, units: str | None, name: str) -> np.ndarray:
    """The samples as the loss is given them.

    Raises
    ------
    ValueError
        They look like bytes, the threshold depends on the unit, and none is said; or they are no
        bytes, and one is.
    """
    depends = likelihood.scaled or likelihood.support == (0.0, 1.0)
    if units is None:
        if depends and _bytes(x):
            choices = "; ".join(f"--units {key} ({what})" for key, what in UNITS.items())
            raise ValueError(
                f"{name}: holds whole numbers up to {int(x.max())}, and β* depends on the unit. "
                f"Say what the loss is given: {choices}"
            )
        return x
    if units == "raw":
        return x
    if not _bytes(x):
        raise ValueError(f"{name}: --units {units} is for whole numbers from 0 to 255")
    scale, shift = (255, 0) if units == "unit" else (127.5, -1)
    return x.astype(np.float32) / np.float32(scale) + np.float32(shift)


def _bytes(x: np.ndarray) -> bool:
    from vaeloss.collapse.batches import looks_like_bytes

    if x.dtype.kind == "b" or len(x) == 0 or x.size == 0:
        return False
    rows = max(1, 2**22 // math.prod(x.shape[1:]))
    parts = [x[i : i + rows] for i in range(0, len(x), rows)]
    return all(part.min() >= 0 and part.max() <= 255 for part in parts) and (
        looks_like_bytes(max(parts, key=lambda part: part.max()))
    )
