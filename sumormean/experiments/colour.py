"""Sums and means in colour: emoji of 32 x 32 x 3 = 3,072 values, and a network of ten layers.

The reductions are those that people write; ``keras`` averages the last axis, the colour, and sums
the places, as the Keras example does where it is given colour.
"""

import functools
import time

import numpy as np
import torch
from torch import Tensor

from sumormean.experiments.common import data_set, to_bytes
from sumormean.models import deep_conv_vae, mlp_vae
from sumormean.training import LossFn, fit
from vaeloss.collapse import collapse_threshold
from vaeloss.metrics import live_units, output_spread, posterior, rate_distortion, reconstructions

SEEDS = (0, 1, 2)
ARRAYS = {"inputs": np.uint8, "reconstructions": np.uint8}
REDUCTIONS = ("sum/sum", "keras/sum", "mean/mean", "mean/sum")
RECONSTRUCTIONS = ("bernoulli", "squared")
NETWORKS = {  # name -> latents, steps, network
    "mlp 16": (16, 1200, lambda seed: mlp_vae((32, 32, 3), 16, hidden=(128,), seed=seed)),
    "mlp 64": (64, 1200, lambda seed: mlp_vae((32, 32, 3), 64, hidden=(128,), seed=seed)),
    "deep 32": (32, 600, lambda seed: deep_conv_vae((32, 32, 3), 32, channels=8, seed=seed)),
}


def settings() -> list[dict]:
    """Every reduction of both reconstructions in three networks."""
    return [
        {"network": network, "reconstruction": reconstruction, "loss": loss}
        for network in NETWORKS
        for reconstruction in RECONSTRUCTIONS
        for loss in REDUCTIONS
    ]


def error_terms(reconstruction: str, x: Tensor, out: Tensor) -> Tensor:
    """Cross-entropy of logits, or the squared error of their means, value by value."""
    if reconstruction == "squared":
        return (x - torch.sigmoid(out)).square()
    return torch.nn.functional.binary_cross_entropy_with_logits(out, x, reduction="none")


def reduced_loss(reconstruction: str, loss: str) -> LossFn:
    """The losses, as people write them: reconstruction / KL. x and out are (B, H, W, 3)."""

    def loss_fn(x, out, mu, log_var):
        terms = error_terms(reconstruction, x, out)
        kl = 0.5 * (mu.square() + log_var.exp() - 1 - log_var)
        return {
            "sum/sum": lambda: terms.sum((1, 2, 3)) + kl.sum(1),
            "keras/sum": lambda: terms.mean(3).sum((1, 2)) + kl.sum(1),
            "mean/mean": lambda: terms.mean((1, 2, 3)) + kl.mean(1),
            "mean/sum": lambda: terms.mean((1, 2, 3)) + kl.sum(1),
        }[loss]()

    return loss_fn


def loss_beta(reconstruction: str, loss: str, values: int, latent_dim: int) -> float:
    """β of ``reduced_loss``, of colour images with so many values; a squared error has σ² = 1.

    Examples
    --------
    >>> [loss_beta("bernoulli", loss, 3072, 64) for loss in REDUCTIONS]
    [1.0, 3.0, 48.0, 3072.0]
    >>> loss_beta("squared", "mean/sum", 3072, 64)
    1536.0
    """
    beta = {
        "sum/sum": 1.0,
        "keras/sum": 3.0,
        "mean/mean": values / latent_dim,
        "mean/sum": float(values),
    }[loss]
    return beta / 2 if reconstruction == "squared" else beta


@functools.cache
def threshold(reconstruction: str) -> float:
    """β* of the training images."""
    likelihood = "gaussian" if reconstruction == "squared" else "bernoulli"
    return collapse_threshold(data_set("emoji32").x_train, likelihood)


def run(network: str, reconstruction: str, loss: str, seed: int) -> dict:
    """One loss: does the network collapse, and what does it show of six test images?"""
    start = time.process_time()
    sets = data_set("emoji32")
    x, x_test = torch.as_tensor(sets.x_train), torch.as_tensor(sets.x_test)
    latent_dim, steps, make = NETWORKS[network]
    model = make(seed)
    fit(model, x, reduced_loss(reconstruction, loss), steps=steps, lr=1e-3, seed=seed)

    def nll(x, out):
        return error_terms(reconstruction, x, out).flatten(1).sum(1)

    kl, summed = rate_distortion(model, x_test, nll)
    mu, _ = posterior(model, x_test)
    outputs = reconstructions(model, x_test)
    shown = x_test[::64][:6]
    return {
        "beta": loss_beta(reconstruction, loss, x[0].numel(), latent_dim),
        "beta_star": threshold(reconstruction),
        "kl": kl,
        "error_summed": summed,
        "live": live_units(mu),
        "max_variance": mu.var(0).max().item(),
        "spread": output_spread(outputs, x_test),
        "cpu_seconds": round(time.process_time() - start, 2),
        "inputs": to_bytes(shown),
        "reconstructions": to_bytes(outputs[::64][:6]),
    }
