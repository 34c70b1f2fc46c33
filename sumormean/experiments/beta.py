"""What each β does: the rate-distortion curve, the live units, and what the network shows.

The loss is Bernoulli, summed, with β on the KL.
"""

import functools
import time

import numpy as np
import torch

from sumormean.experiments.common import data_set, to_bytes
from sumormean.models import mlp_vae
from sumormean.training import LossFn, fit
from vaeloss.collapse import collapse_spectrum
from vaeloss.likelihoods import bernoulli_nll, kl_standard_normal
from vaeloss.metrics import live_units, output_spread, posterior, rate_distortion, reconstructions

SEEDS = (0, 1, 2)
ARRAYS = {
    "inputs": np.uint8,
    "reconstructions": np.uint8,
    "samples": np.uint8,
    "mu": np.float16,
    "labels": np.uint8,
}


@functools.cache
def spectrum(data: str) -> np.ndarray:
    """Bernoulli spectrum of the training images, (784,)."""
    return collapse_spectrum(data_set(data).x_train)


def settings() -> list[dict]:
    """Three networks, 21 values of β each: a geometric row, the usual ones, and β*."""
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


def beta_loss(beta: float) -> LossFn:
    """Summed cross-entropy plus β times the KL: (B,) nats."""

    def loss_fn(x, logits, mu, log_var):
        return bernoulli_nll(x, logits) + beta * kl_standard_normal(mu, log_var)

    return loss_fn


def run(data: str, latent_dim: int, hidden: int, beta: float, seed: int) -> dict:
    """One β: both terms over training, live units, and what the network shows."""
    start = time.process_time()
    sets = data_set(data)
    x_test = sets.x_test[:2000]
    model = mlp_vae(latent_dim=latent_dim, hidden=(hidden,), seed=seed)

    def evaluate(model):
        kl, bce = rate_distortion(model, x_test[:1000], bernoulli_nll)
        return {"kl": kl, "bce": bce}

    history = fit(
        model,
        sets.x_train,
        beta_loss(beta),
        steps=600,
        lr=3e-3,
        seed=seed,
        evaluate=evaluate,
        every=30,
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
        "inputs": to_bytes(torch.as_tensor(sets.x_test[pick])),
        "reconstructions": to_bytes(reconstructions(model, sets.x_test[pick])),
        "samples": to_bytes(samples),
        "mu": mu[:500, :2].numpy(),
        "labels": sets.y_test[:500],
        "cpu_seconds": round(time.process_time() - start, 2),
    }
