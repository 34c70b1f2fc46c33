"""The threshold predicted from the data, held against the one that training finds."""

import time

import torch
from torch import nn

from sumormean.bracket import bracket_threshold
from sumormean.experiments.common import data_set
from sumormean.models import conv_vae, mlp_vae
from sumormean.sweep import grid
from vaeloss.collapse import collapse_threshold
from vaeloss.likelihoods import bernoulli, gaussian

SEEDS = (0, 1, 2)
ARRAYS = {}
ARCHITECTURES = {
    # Odd activations, as bracket_threshold needs them. The linear decoder is the slow one.
    "linear": (lambda shape, seed: mlp_vae(shape, hidden=(), seed=seed), 1200),
    "mlp": (
        lambda shape, seed: mlp_vae(shape, hidden=(128,), activation=nn.Tanh, seed=seed),
        400,
    ),
    "conv": (lambda shape, seed: conv_vae(channels=4, activation=nn.Tanh, seed=seed), 300),
}
# A step of Adam moves a code by its rate times the sum over the inputs: four times as many of them,
# most of them lit, and at 1e-3 the code of a linear encoder trembles more than it has shrunk to.
COLOUR_RATE, COLOUR_LONGER = 3e-4, 2
LIKELIHOODS = {"bernoulli": bernoulli("logits"), "gaussian": gaussian()}


def settings() -> list[dict]:
    """Three architectures, three data sets, two likelihoods; and two of them in colour."""
    grey = grid(
        architecture=ARCHITECTURES,
        data=["mnist", "fashion_mnist", "digits28"],
        likelihood=LIKELIHOODS,
    )
    return grey + grid(architecture=["linear", "mlp"], data=["emoji32"], likelihood=LIKELIHOODS)


def run(data: str, likelihood: str, architecture: str, seed: int) -> dict:
    """The threshold predicted from the data, and bracketed by training."""
    x = torch.as_tensor(data_set(data).x_train)
    start = time.process_time()
    scored = LIKELIHOODS[likelihood]
    predicted = collapse_threshold(x, scored)
    to_predict = time.process_time() - start
    constant = x.mean(0)
    if scored.link == "logits":
        constant = torch.logit(constant.clamp(1e-4, 1 - 1e-4))
    make, steps = ARCHITECTURES[architecture]
    in_colour = x.ndim == 4
    found = bracket_threshold(
        make(tuple(x.shape[1:]), seed),
        x,
        scored.nll,
        constant,
        predicted,
        steps=steps * (COLOUR_LONGER if in_colour else 1),
        lr=COLOUR_RATE if in_colour else 1e-3,
        seed=seed,
    )
    return {
        "predicted": predicted,
        "low": found.low,
        "high": found.high,
        "tests": found.tests,
        "cpu_seconds_to_predict": round(to_predict, 2),
        "cpu_seconds": round(time.process_time() - start, 2),
    }
