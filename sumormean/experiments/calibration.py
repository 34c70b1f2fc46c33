"""The ways to set the noise of a decoder, trained until they are flat and compared on one scale.

What a method believes of the noise acts twice: on where training ends, and on the way there. So
the record has a grid of fixed variances around the best one, each also reached by annealing, beside
the methods that find a variance by themselves. All end in one comparison: the decoder is frozen,
its pixel means get Gaussian noise of one variance, and an encoder is trained for exactly that.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from sumormean.experiments.balances import METHODS, Balance, Learned
from sumormean.experiments.common import data_set
from sumormean.models import VAE, deep_conv_vae, mlp_vae
from sumormean.sweep import grid
from sumormean.training import fit
from vaeloss.metrics import importance_weighted_nll, live_units, posterior, rate_distortion

SEEDS = tuple(range(10))
ARRAYS = {}

# Images to train on, how often each is seen, images to test with. Enough steps to be flat: the last
# quarter of the training gains little ("left_train", "left_test"); in colour all there are.
SIZES = {
    "mnist": (10_000, 80, 2000),
    "fashion_mnist": (10_000, 80, 2000),
    "emoji32": (1525, 100, 381),
}

# Where the variance of "learned" ended in runs of the seeds from 100 on, which no row is of.
OPTIMUM = {
    ("mlp", "mnist"): 0.0110,
    ("mlp", "fashion_mnist"): 0.0116,
    ("mlp", "emoji32"): 0.0228,
    ("deep", "emoji32"): 0.0186,
}


def settings() -> list[dict]:
    """Every method on three data sets; and three of them for three times as long on MNIST."""
    rows = [
        {"network": "mlp", **each, "epochs": SIZES[each["data"]][1]}
        for each in grid(data=SIZES, method=METHODS)
    ]
    longer = grid(
        network=["mlp"],
        data=["mnist"],
        method=["fixed × 1", "annealed × 1", "learned"],
        epochs=[3 * SIZES["mnist"][1]],
    )
    return rows + longer


def images(data: str) -> tuple[Tensor, Tensor]:
    """The training and test images of a data set that SIZES asks for, the same for all runs."""
    sets, (train, _, test) = data_set(data), SIZES[data]
    rng = np.random.default_rng(0)
    pick = [rng.permutation(len(x))[:n] for x, n in ((sets.x_train, train), (sets.x_test, test))]
    return torch.as_tensor(sets.x_train[pick[0]]), torch.as_tensor(sets.x_test[pick[1]])


def new_network(network: str, data_shape: tuple[int, ...], outputs: int, seed: int) -> VAE:
    """The two networks: D-128-16-128-D, and ten layers of convolutions with 32 latents."""

    def pixel_mean(out):
        return torch.sigmoid(out if outputs == 1 else out[:, 0])

    made = {"outputs": outputs, "pixel_mean": pixel_mean, "seed": seed}
    if network == "mlp":
        return mlp_vae(data_shape, latent_dim=16, hidden=(128,), **made)
    return deep_conv_vae(data_shape, latent_dim=32, channels=8, **made)


def slowing_down(optimizer: torch.optim.Optimizer, steps: int) -> Callable[[int], None]:
    """The ``on_step`` that takes all rates down to 0 in a straight line, in the second half."""
    rates = [group["lr"] for group in optimizer.param_groups]

    def on_step(step: int) -> None:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, 2 * (1 - step / steps))

    return on_step


def train(
    model: VAE,
    moving: nn.Module,
    balance: Balance,
    x: Tensor,
    x_test: Tensor,
    steps: int,
    seed: int,
) -> dict:
    """Train ``moving``, the model or a part of it, and the variance, if there is one to train.

    What comes back are negative ELBOs at the end, and what the last quarter gained.
    """
    groups = [{"params": list(moving.parameters()), "lr": 2e-3}]
    if own := list(balance.parameters()):  # log σ² has a way of several units to go
        groups.append({"params": own, "lr": 2e-2})
    optimizer = torch.optim.Adam(groups, fused=True)
    slow = slowing_down(optimizer, steps)

    def on_step(step):
        slow(step)
        balance.on_step(step)

    def evaluate(model):
        return {
            "train": sum(rate_distortion(model, x[:2000], balance.nll)),
            "test": sum(rate_distortion(model, x_test, balance.nll)),
        }

    every = -(-3 * steps // 4)
    history = fit(
        model,
        x,
        balance.loss,
        steps=steps,
        optimizer=optimizer,
        seed=seed,
        on_step=on_step,
        evaluate=evaluate,
        every=every,
    )
    before, after = history.evals
    return {
        "nelbo_train": after["train"],
        "nelbo_test": after["test"],
        "left_train": before["train"] - after["train"],
        "left_test": before["test"] - after["test"],
    }


class MeansOnly(nn.Module):
    """The pixel means' logits of a decoder, whatever else it says."""

    def __init__(self, decoder: nn.Module, outputs: int):
        super().__init__()
        self.decoder, self.outputs = decoder, outputs

    def forward(self, z: Tensor) -> Tensor:
        out = self.decoder(z)
        return out if self.outputs == 1 else out[:, 0]


def on_one_scale(
    model: VAE, outputs: int, x: Tensor, x_test: Tensor, steps: int, seed: int, few: int = 500
) -> dict:
    """−log p of test images under the decoder's means with Gaussian noise of one variance.

    The decoder stays as it is. ``common_kept`` has the encoder that it was trained with, and the
    variance that fits the training images; ``common`` an encoder and a variance trained for this
    density; both are negative ELBOs. ``common_iw`` and ``common_iw_100`` are the importance-
    weighted bounds of the latter, from 1,000 and from 100 samples, of the first ``few`` images.
    """
    vae = VAE(model.encoder, MeansOnly(model.decoder, outputs))
    for parameter in vae.decoder.parameters():
        parameter.requires_grad_(False)

    def squared_error(a, out):
        return (a - torch.sigmoid(out)).square().flatten(1).mean(1)

    mse = rate_distortion(vae, x[:5000], squared_error)[1]
    balance = Learned(x, steps, mse)
    with torch.no_grad():
        balance.log_sigma2.fill_(math.log(mse))
    kept = sum(rate_distortion(vae, x_test, balance.nll))
    refitted = train(vae, vae.encoder, balance, x, x_test, steps, seed)
    with torch.no_grad():
        bounds = [
            importance_weighted_nll(vae, x_test[:few], balance.nll, samples=k).mean().item()
            for k in (1000, 100)
        ]
    return {
        "mse": mse,
        "common_sigma2": balance.sigma2().item(),
        "common_kept": kept,
        "common": refitted["nelbo_test"],
        "common_left": refitted["left_test"],
        "common_few": sum(rate_distortion(vae, x_test[:few], balance.nll)),
        "common_iw": bounds[0],
        "common_iw_100": bounds[1],
    }


def run(network: str, data: str, method: str, epochs: int, seed: int) -> dict:
    """One method: its own negative ELBO, and that on the one scale on which all are compared.

    ``left_train`` and ``left_test`` are what the last quarter of the training gained, in nats per
    image.
    """
    start = time.process_time()
    x, x_test = images(data)
    steps = epochs * -(-len(x) // 128)
    balance = METHODS[method](x, steps, OPTIMUM[network, data])
    model = new_network(network, x.shape[1:], balance.outputs, seed)
    row = train(model, model, balance, x, x_test, steps, seed)
    sigma2 = balance.sigma2()
    row |= {
        "sigma2": None if sigma2 is None else torch.as_tensor(sigma2).item(),
        "kl": rate_distortion(model, x_test, balance.nll)[0],
        "live": live_units(posterior(model, x_test)[0]),
    }
    few = 500 if network == "mlp" else 100
    row |= on_one_scale(model, balance.outputs, x, x_test, steps // 4, seed, few)
    return {**row, "cpu_seconds": round(time.process_time() - start, 2)}
