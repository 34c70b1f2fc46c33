"""What the weight of a quantiser does, and how much of that longer training takes back."""

import time

import torch

from sumormean.experiments.common import data_set
from sumormean.sweep import grid
from sumormean.training import fit
from sumormean.vq import VQVAE, vq_loss
from vaeloss.metrics import perplexity

SEEDS = (0, 1, 2)
ARRAYS = {}
CODES, POSITIONS, NUMBERS, BATCH = 64, 7 * 7, 7 * 7 * 8, 64

# Who reduces how, as a weight beside half the summed squared error.
WEIGHTS = {
    "mean over all numbers": 1 / (2 * NUMBERS),  # beside a squared error without its half
    "mean over the positions": 1 / POSITIONS,  # van den Oord et al. 2017, section 3.2
    "sum over the image": 1.0,
    "sum over the batch": BATCH / 2,
}


def settings() -> list[dict]:
    """Four weights, three lengths of training."""
    return grid(data=["fashion_mnist"], weight=WEIGHTS, steps=[150, 600, 2400])


def run(data: str, weight: str, steps: int, seed: int) -> dict:
    """One weight: the squared error and the codes in use of a thousand test images."""
    start = time.process_time()
    sets = data_set(data)
    model = VQVAE(codes=CODES, dim=8, hidden=8, seed=seed)
    fit(
        model,
        sets.x_train[:20_000],
        vq_loss(WEIGHTS[weight]),
        steps=steps,
        batch_size=BATCH,
        lr=4e-3,
        seed=seed,
    )
    x = torch.as_tensor(sets.x_test[:1000])
    with torch.no_grad():
        x_hat, z, _ = model(x)
    chosen = model.codes(x)
    return {
        "w": WEIGHTS[weight],
        "squared_error": (x - x_hat).square().sum((1, 2)).mean().item(),
        "perplexity": perplexity(chosen, CODES),
        "dead": CODES - len(chosen.unique()),
        "scale": z.square().mean().item(),
        "cpu_seconds": round(time.process_time() - start, 2),
    }
