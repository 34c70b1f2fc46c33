"""Better priors for codes: every way to a first stage with every prior, and two kinds of features.

The first stages are trained as in ``sumormean.experiments.calibration``.
"""

import functools
import time

import numpy as np
import torch

from sumormean.experiments.balances import FIRST_STAGES
from sumormean.experiments.calibration import OPTIMUM, SIZES, images, new_network, train
from sumormean.experiments.common import data_set
from sumormean.experiments.priors import PRIORS, Vamp
from sumormean.models import reparameterise
from sumormean.quality import SampleScores
from sumormean.sweep import grid
from vaeloss.likelihoods import gaussian_nll
from vaeloss.metrics import live_units, posterior

SEEDS = tuple(range(4))
ARRAYS = {}


@functools.cache
def sample_scores(data: str) -> SampleScores:
    """The two networks of a data set and their targets, once per process."""
    return SampleScores(data_set(data))


def settings() -> list[dict]:
    """Every first stage on two data sets."""
    return grid(data=["mnist", "fashion_mnist"], method=FIRST_STAGES)


def run(data: str, method: str, seed: int) -> dict:
    """One first stage, and the samples of its decoder under every prior.

    ``scores`` has those of each prior, and under "codes" those of decoded codes of training images:
    what the decoder could show if the prior were right. ``rates`` are nats per test image: what a
    code costs under each prior, log q(z|x) - log p(z); under "prior" that is the KL. ``nelbo_test``
    has N(0, I) for a prior, ``nelbo_vamp`` the VampPrior, with which the first stage is trained
    once more.
    """
    start = time.process_time()
    scores = sample_scores(data)
    x, x_test = images(data)
    steps = SIZES[data][1] * -(-len(x) // 128)

    def new():
        balance = FIRST_STAGES[method](x, steps, OPTIMUM["mlp", data])
        return balance, new_network("mlp", x.shape[1:], balance.outputs, seed)

    def decoded(model, z):
        with torch.no_grad():
            return model.pixel_mean(model.decoder(z))

    balance, model = new()
    row = train(model, model, balance, x, x_test, steps, seed)
    sigma2 = balance.sigma2()
    row |= {
        "sigma2": None if sigma2 is None else torch.as_tensor(sigma2).item(),
        "live": live_units(posterior(model, x_test)[0]),
    }

    generator = torch.Generator().manual_seed(seed)
    codes = reparameterise(*posterior(model, x), generator)
    mu, log_var = posterior(model, x_test)
    z_test = reparameterise(mu, log_var, generator)
    entropy = gaussian_nll(z_test, mu, log_var.exp())
    some = np.random.default_rng(seed).permutation(len(codes))[: scores.size]
    found, rates, seconds = {"codes": scores(decoded(model, codes[some]))}, {}, {}
    for name, make in PRIORS.items():
        begun = time.process_time()
        prior = make(codes, seed)
        seconds[name] = round(time.process_time() - begun, 2)
        found[name] = scores(decoded(model, prior.sample(scores.size, generator)))
        rates[name] = (prior.nll(z_test) - entropy).mean().item()

    balance, model = new()
    vamp = Vamp(model, balance, x, seed)
    train(model, model, vamp, x, x_test, steps, seed)
    with torch.no_grad():
        out, mu, log_var = model(x_test, generator)
        row["nelbo_vamp"] = (vamp.loss(x_test, out, mu, log_var)).item()
        z_test = reparameterise(mu, log_var, generator)
        cost = vamp.nll_of_codes(z_test) - gaussian_nll(z_test, mu, log_var.exp())
    rates["VampPrior"] = cost.mean().item()
    found["VampPrior"] = scores(decoded(model, vamp.sample(scores.size, generator)))
    return {
        **row,
        "scores": found,
        "real": scores.real,
        "rates": rates,
        "prior_seconds": seconds,
        "cpu_seconds": round(time.process_time() - start, 2),
    }
