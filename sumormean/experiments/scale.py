"""Four reductions at four resolutions and seven numbers of latents: which of them collapse?

The loss is Bernoulli.
"""

import functools
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sumormean.experiments.common import data_set
from sumormean.models import mlp_vae
from sumormean.sweep import grid
from sumormean.training import LossFn, fit
from vaeloss.collapse import collapse_threshold
from vaeloss.likelihoods import bernoulli_nll
from vaeloss.metrics import live_units, posterior, rate_distortion

SEEDS = (0, 1, 2)
ARRAYS = {}
LOSSES = ("sum/sum", "mean/sum", "mean/mean", "mean/0.1 mean")
SIDES = (7, 14, 28, 56)
LATENT_DIMS = (1, 2, 8, 16, 24, 32, 64)


def settings() -> list[dict]:
    """Everything on MNIST, and Fashion-MNIST at its own resolution."""
    whole = grid(side=SIDES, latent_dim=LATENT_DIMS, loss=LOSSES)
    return [{"data": "mnist", **each} for each in whole] + [
        {"data": "fashion_mnist", **each} for each in whole if each["side"] == 28
    ]


def run(data: str, side: int, latent_dim: int, loss: str, seed: int) -> dict:
    """One loss at one resolution: does it collapse?"""
    start = time.process_time()
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
        "cpu_seconds": round(time.process_time() - start, 2),
    }


def resampled(data: str, side: int) -> tuple[Tensor, Tensor]:
    """10,000 training and 1,000 test images, (N, side, side)."""
    sets = data_set(data)
    return resample(sets.x_train[:10_000], side), resample(sets.x_test[:1000], side)


@functools.cache
def resampled_threshold(data: str, side: int) -> float:
    """Bernoulli threshold of ``resampled(data, side)``."""
    return collapse_threshold(resampled(data, side)[0])


def reduced_loss(name: str) -> LossFn:
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
    """β of ``reduced_loss(loss)``: the weight of the summed KL beside the summed reconstruction.

    Examples
    --------
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

    Examples
    --------
    >>> resample(torch.eye(28)[None], 14)[0, 0, :2]
    tensor([0.5000, 0.0000])
    """
    x = torch.as_tensor(x)[:, None]
    if side <= x.shape[-1]:
        return F.interpolate(x, size=side, mode="area")[:, 0]
    return F.interpolate(x, size=side, mode="bilinear", align_corners=False)[:, 0]
