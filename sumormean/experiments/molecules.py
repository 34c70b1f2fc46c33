"""The loss of a molecular VAE, and its neighbours, on strings that a decoder can guess by itself.

Symbols and KL are summed and divided by the batch, c = 1, and β rises from 0.01 to 0.1, as in the
code of Yan et al. 2020 (arXiv:1910.00698); there over 9,000 steps, here over three quarters of the
training.
"""

import functools
import time

import numpy as np
import torch
from torch import Tensor

from sumormean.data import load_molecules
from sumormean.sequences import StringVAE, counted, symbols_nll
from sumormean.sweep import grid
from sumormean.training import fit
from vaeloss.likelihoods import kl_standard_normal
from vaeloss.metrics import live_units, posterior

SEEDS = (0, 1, 2)
ARRAYS = {}
EPOCHS, BATCH = 10, 128


class StringLoss:
    """Symbols summed plus β times the KL summed, (B,) nats; β goes from ``begin`` to ``end``."""

    def __init__(self, begin: float, end: float, steps: int):
        self.begin, self.end, self.steps = begin, end, steps
        self.beta = begin

    def __call__(self, x: Tensor, logits: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        return symbols_nll(x, logits) + self.beta * kl_standard_normal(mu, log_var)

    def on_step(self, step: int) -> None:
        part = min((step + 1) / (0.75 * self.steps), 1.0)
        self.beta = self.begin + part * (self.end - self.begin)


class SymbolMean(StringLoss):
    """The mean over all symbols of the batch plus the KL: β is the mean number of symbols."""

    def __call__(self, x, logits, mu, log_var):
        mean = symbols_nll(x, logits).sum() / counted(x).sum()
        return mean + self.beta * kl_standard_normal(mu, log_var).mean()


LOSSES = {
    "0.01 to 0.1": lambda steps: StringLoss(0.01, 0.1, steps),
    "0.1": lambda steps: StringLoss(0.1, 0.1, steps),
    "0 to 1": lambda steps: StringLoss(0.0, 1.0, steps),
    "1": lambda steps: StringLoss(1.0, 1.0, steps),
    "mean over symbols": lambda steps: SymbolMean(1.0, 1.0, steps),
}


@functools.cache
def strings() -> tuple[Tensor, Tensor, int]:
    """Training and 2,000 test strings, drawn once for all runs, and the number of symbols."""
    molecules = load_molecules()
    order = np.random.default_rng(0).permutation(len(molecules.tokens))
    tokens = torch.as_tensor(molecules.tokens[order]).float()
    return tokens[2000:], tokens[:2000], len(molecules.alphabet) + 1


def settings() -> list[dict]:
    """Five losses."""
    return grid(loss=LOSSES)


def run(loss: str, seed: int, epochs: int = EPOCHS) -> dict:
    """One loss: what test strings cost, and what their codes say.

    ``nll`` and ``kl`` are nats per string, ``nll_symbol`` per symbol; ``exact`` is the share of 500
    strings that come back whole from the mean of their posterior; ``nll_shuffled`` is ``nll`` when
    each string gets the code of another: a decoder that does not listen does not mind.
    """
    start = time.process_time()
    x, x_test, symbols = strings()
    model = StringVAE(symbols, seed=seed)
    steps = epochs * -(-len(x) // BATCH)
    loss_fn = LOSSES[loss](steps)
    fit(
        model,
        x,
        loss_fn,
        steps=steps,
        batch_size=BATCH,
        lr=2e-3,
        seed=seed,
        on_step=loss_fn.on_step,
    )
    generator = torch.Generator().manual_seed(seed)
    mu, log_var = posterior(model, x_test)
    with torch.no_grad():
        z = mu + torch.exp(0.5 * log_var) * torch.randn(mu.shape, generator=generator)
        nll = symbols_nll(x_test, model.decode(z, x_test)).mean().item()
        shuffled = symbols_nll(x_test, model.decode(z.roll(1, 0), x_test)).mean().item()
    some = x_test[:500]
    written = model.write(mu[:500], x.shape[1])
    same = ((written == some) | (counted(some) == 0)).all(1)
    return {
        "nll": nll,
        "nll_symbol": nll / counted(x_test).sum(1).mean().item(),
        "nll_shuffled": shuffled,
        "kl": kl_standard_normal(mu, log_var).mean().item(),
        "live": live_units(mu),
        "exact": same.float().mean().item(),
        "symbols": counted(x_test).sum(1).mean().item(),
        "cpu_seconds": round(time.process_time() - start, 2),
    }
