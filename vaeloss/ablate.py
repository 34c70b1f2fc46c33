"""The book's larger sweeps: `python -m vaeloss ablate NAME`.

Each is a function of settings and a seed, run over a grid by `vaeloss.sweep`. The table ends as
one JSON record in data/runs/, which the chapters read; started again after an interruption, the
command goes on where it stopped. All losses are Bernoulli unless a setting says otherwise.
"""

import argparse
import functools
import json
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeloss.bracket import bracket_threshold
from vaeloss.calibrated import METHODS, calibrated
from vaeloss.collapse import collapse_spectrum, collapse_threshold
from vaeloss.data import DataError, load
from vaeloss.likelihoods import bernoulli_nll, gaussian_nll, kl_standard_normal
from vaeloss.metrics import live_units, output_spread, posterior, rate_distortion, reconstructions
from vaeloss.models import conv_vae, mlp_vae
from vaeloss.rebalancing import METHODS as REBALANCING
from vaeloss.rebalancing import rebalancing
from vaeloss.reproduce import machine
from vaeloss.sweep import grid, sweep
from vaeloss.training import fit

data_set = functools.cache(load)  # once per process, not once per run


@functools.cache
def spectrum(data: str) -> np.ndarray:
    """Bernoulli spectrum of the training images, (784,)."""
    return collapse_spectrum(data_set(data).x_train)


ARCHITECTURES = {
    # Odd activations, as bracket_threshold needs them. The linear decoder is the slow one.
    "linear": (lambda seed: mlp_vae(hidden=(), seed=seed), 1200),
    "mlp": (lambda seed: mlp_vae(hidden=(128,), activation=nn.Tanh, seed=seed), 400),
    "conv": (lambda seed: conv_vae(channels=4, activation=nn.Tanh, seed=seed), 300),
}
LOSSES = ("sum/sum", "mean/sum", "mean/mean", "mean/0.1 mean")
SIDES = (7, 14, 28, 56)
LATENT_DIMS = (1, 2, 8, 16, 24, 32, 64)


def threshold(data: str, likelihood: str, architecture: str, seed: int) -> dict:
    """The threshold predicted from the data, and bracketed by training."""
    x = torch.as_tensor(data_set(data).x_train)
    start = time.process_time()
    predicted = collapse_threshold(x, likelihood)
    to_predict = time.process_time() - start
    constant = x.mean(0)
    if likelihood == "bernoulli":
        constant = torch.logit(constant.clamp(1e-4, 1 - 1e-4))
    nll = bernoulli_nll if likelihood == "bernoulli" else gaussian_nll
    make, steps = ARCHITECTURES[architecture]
    found = bracket_threshold(make(seed), x, nll, constant, predicted, steps=steps, seed=seed)
    return {
        "predicted": predicted,
        "low": found.low,
        "high": found.high,
        "tests": found.tests,
        "cpu_seconds_to_predict": round(to_predict, 2),
        "cpu_seconds": round(time.process_time() - start, 2),
    }


def beta(data: str, latent_dim: int, hidden: int, beta: float, seed: int) -> dict:
    """One β: both terms over training, live units, and what the network shows."""
    sets = data_set(data)
    x_test = sets.x_test[:2000]
    model = mlp_vae(latent_dim=latent_dim, hidden=(hidden,), seed=seed)

    def loss_fn(x, logits, mu, log_var):
        return bernoulli_nll(x, logits) + beta * kl_standard_normal(mu, log_var)

    def evaluate(model):
        kl, bce = rate_distortion(model, x_test[:1000], bernoulli_nll)
        return {"kl": kl, "bce": bce}

    history = fit(
        model, sets.x_train, loss_fn, steps=600, lr=3e-3, seed=seed, evaluate=evaluate, every=30
    )
    mu, _ = posterior(model, x_test)
    kl, bce = rate_distortion(model, x_test, bernoulli_nll)
    z = torch.randn(10, latent_dim, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        samples = model.pixel_mean(model.decoder(z))
    outputs = reconstructions(model, x_test)
    pick = [int((sets.y_test == label).nonzero()[0][0]) for label in range(10)]
    return {
        "kl": kl,
        "bce": bce,
        "live": live_units(mu),
        "predicted_live": min(latent_dim, int((spectrum(data) > beta).sum())),
        "spread": output_spread(outputs, x_test),
        "curve": history.evals,
        "inputs": _bytes(torch.as_tensor(sets.x_test[pick])),
        "reconstructions": _bytes(reconstructions(model, sets.x_test[pick])),
        "samples": _bytes(samples),
        "mu": mu[:500, :2].numpy(),
        "labels": sets.y_test[:500],
    }


def scale(data: str, side: int, latent_dim: int, loss: str, seed: int) -> dict:
    """One loss at one resolution: does it collapse?"""
    x, x_test = resampled(data, side)
    model = mlp_vae((side, side), latent_dim, hidden=(64,), seed=seed)
    fit(model, x, reduced_loss(loss), steps=1000, lr=1e-3, seed=seed)
    mu, _ = posterior(model, x_test)
    kl, bce = rate_distortion(model, x_test, bernoulli_nll)
    return {
        "kl": kl,
        "bce": bce,
        "live": live_units(mu),
        "max_variance": mu.var(0).max().item(),
        "beta": loss_beta(loss, side**2, latent_dim),
        "beta_star": resampled_threshold(data, side),
    }


def resampled(data: str, side: int) -> tuple[Tensor, Tensor]:
    """10,000 training and 1,000 test images, (N, side, side)."""
    sets = data_set(data)
    return resample(sets.x_train[:10_000], side), resample(sets.x_test[:1000], side)


@functools.cache
def resampled_threshold(data: str, side: int) -> float:
    """Bernoulli threshold of `resampled(data, side)`."""
    return collapse_threshold(resampled(data, side)[0])


def reduced_loss(name: str):
    """The four losses, written as people write them: reconstruction / KL."""

    def loss_fn(x, logits, mu, log_var):
        bce = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1)
        kl = 0.5 * (mu.square() + log_var.exp() - 1 - log_var)
        return {
            "sum/sum": lambda: bce.sum(1) + kl.sum(1),
            "mean/sum": lambda: bce.mean(1) + kl.sum(1),
            "mean/mean": lambda: bce.mean(1) + kl.mean(1),
            "mean/0.1 mean": lambda: bce.mean(1) + 0.1 * kl.mean(1),
        }[name]()

    return loss_fn


def loss_beta(loss: str, pixels: int, latent_dim: int) -> float:
    """β of `reduced_loss(loss)`: the weight of the summed KL beside the summed reconstruction.

    >>> loss_beta("mean/mean", 784, 2)
    392.0
    """
    return {
        "sum/sum": 1.0,
        "mean/sum": float(pixels),
        "mean/mean": pixels / latent_dim,
        "mean/0.1 mean": 0.1 * pixels / latent_dim,
    }[loss]


def resample(x: np.ndarray | Tensor, side: int) -> Tensor:
    """(N, 28, 28) -> (N, side, side): mean of blocks downwards, bilinear upwards.

    >>> resample(torch.eye(28)[None], 14)[0, 0, :2]
    tensor([0.5000, 0.0000])
    """
    x = torch.as_tensor(x)[:, None]
    if side <= x.shape[-1]:
        return F.interpolate(x, size=side, mode="area")[:, 0]
    return F.interpolate(x, size=side, mode="bilinear", align_corners=False)[:, 0]


def _bytes(images: Tensor) -> np.ndarray:
    return (images * 255).round().to(torch.uint8).numpy()


def settings(name: str) -> list[dict]:
    """The grid of a sweep."""
    if name == "threshold":
        return grid(
            architecture=ARCHITECTURES,
            data=["mnist", "fashion_mnist", "digits28"],
            likelihood=["bernoulli", "gaussian"],
        )
    if name == "calibrated":
        return grid(data=["mnist", "fashion_mnist"], method=METHODS)
    if name == "rebalancing":
        return grid(data=["mnist", "fashion_mnist"], method=REBALANCING)
    if name == "scale":
        whole = grid(side=SIDES, latent_dim=LATENT_DIMS, loss=LOSSES)
        return [{"data": "mnist", **each} for each in whole] + [
            {"data": "fashion_mnist", **each} for each in whole if each["side"] == 28
        ]
    rows = []
    for data, latent_dim, hidden in [
        ("mnist", 2, 256),
        ("mnist", 32, 256),
        ("fashion_mnist", 32, 256),
    ]:
        star = float(f"{spectrum(data)[0]:.4g}")
        spaced = [float(f"{b:.3g}") for b in np.geomspace(0.25, 512, 16)]
        network = {"data": data, "latent_dim": latent_dim, "hidden": hidden}
        rows += [{**network, "beta": b} for b in sorted({0.0, 0.5, 1.0, star, 784.0, *spaced})]
    return rows


SWEEPS = {
    "beta": beta,
    "calibrated": calibrated,
    "rebalancing": rebalancing,
    "scale": scale,
    "threshold": threshold,
}
SEEDS = {name: range(3) for name in ("calibrated", "rebalancing")}  # one where not named
# Results too large for JSON, kept beside the record in NAME.npz, one entry per row.
ARRAYS = {
    "beta": {
        "inputs": np.uint8,
        "reconstructions": np.uint8,
        "samples": np.uint8,
        "mu": np.float16,
        "labels": np.uint8,
    },
    "calibrated": {"inputs": np.uint8, "reconstructions": np.uint8, "samples": np.uint8},
}


def record(name: str, out: Path, jobs: int = 2, cluster: str | None = None) -> Path:
    """Run a sweep, or what is left of it, and write its record; returns the record's path.

    Raises
    ------
    RuntimeError: a run failed. The others are kept, and the next call tries it again.
    """
    partial = out / f"{name}.partial"
    seeds = SEEDS.get(name, (0,))
    rows = sweep(SWEEPS[name], settings(name), seeds, store=partial, jobs=jobs, cluster=cluster)
    errors = [row["error"] for row in rows if row["error"] is not None]
    if errors:
        raise RuntimeError(f"{len(errors)} of {len(rows)} runs failed, the first with {errors[0]}")
    if arrays := ARRAYS.get(name):
        columns = {key: np.array([row.pop(key) for row in rows], arrays[key]) for key in arrays}
        np.savez_compressed(out / f"{name}.npz", **columns)
    head = {
        "command": f"python -m vaeloss ablate {name}",
        "versions": {package: version(package) for package in ("torch", "numpy")},
        "machine": machine(),
    }
    # One row per line: readable, and a changed run is a changed line.
    lines = ",\n".join(json.dumps(row) for row in rows)
    path = out / f"{name}.json"
    path.write_text(json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n{lines}\n]}}\n', "utf-8")
    shutil.rmtree(partial)
    return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m vaeloss ablate`."""
    parser.add_argument("name", choices=SWEEPS, help="which sweep")
    parser.add_argument("--jobs", type=int, default=2, help="processes on this machine (2)")
    parser.add_argument("--cluster", metavar="ADDRESS", help="address of a Dask scheduler")
    parser.add_argument("--out", type=Path, default=Path("data/runs"), help="folder of the record")


def run(args: argparse.Namespace) -> int:
    """Run a sweep and write its record; 1 if runs failed, 2 if it cannot start."""
    try:
        print(f"wrote {record(args.name, args.out, args.jobs, args.cluster)}")
    except (DataError, ImportError) as error:
        print(f"ablate: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"ablate: {error}; the same command tries these again", file=sys.stderr)
        return 1
    return 0
