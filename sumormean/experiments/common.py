"""What the recorded experiments share: data loaded once per process, and what is measured."""

import functools
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from sumormean.data import load
from sumormean.models import VAE
from sumormean.quality import SampleScore
from vaeloss.likelihoods import gaussian_nll
from vaeloss.metrics import (
    importance_weighted_nll,
    live_units,
    output_spread,
    posterior,
    rate_distortion,
    reconstructions,
)

D, M = 784, 16  # pixels and latents of the networks that are compared

data_set = functools.cache(load)  # once per process, not once per run


@functools.cache
def sample_score(data: str) -> SampleScore:
    """The classifier of a data set and its target, once per process."""
    return SampleScore(data_set(data))


def train_and_test(data: str) -> tuple[Tensor, Tensor, np.ndarray]:
    """All training images, 500 test images, drawn once for all runs, and the labels of these."""
    sets = data_set(data)
    pick = np.random.default_rng(0).permutation(len(sets.x_test))[:500]
    return torch.as_tensor(sets.x_train), torch.as_tensor(sets.x_test[pick]), sets.y_test[pick]


def adam(model: VAE, others: Iterable[nn.Parameter] = ()) -> torch.optim.Adam:
    """The optimiser of the networks that are compared, and of a variance beside them.

    log σ² has a way of several units to go, a weight has not: its rate is ten times theirs.
    """
    groups = [{"params": model.parameters()}]
    if others := list(others):
        groups.append({"params": others, "lr": 2e-2})
    return torch.optim.Adam(groups, lr=2e-3)


def common_measures(model: VAE, x_train: Tensor, x_test: Tensor) -> dict:
    """What compares any two models: one density for all, live units and the spread of outputs.

    x_train, x_test are ``(N, *data_shape)``, in [0, 1]. The density is Gaussian noise around the
    pixel means. Its variance ``sigma2_fit`` is the mean squared error on the first 5,000 training
    images; ``nll_fit`` and the importance-weighted ``iw_nll_fit`` are in nats per test image.

    Examples
    --------
    >>> from sumormean.models import mlp_vae
    >>> x = torch.rand(50, 28, 28, generator=torch.Generator().manual_seed(0))
    >>> row = common_measures(mlp_vae(), x, x[:10])
    >>> round(row["sigma2_fit"], 2)  # uniform noise, outputs near 1/2: a twelfth and a bit
    0.09
    """
    sigma2 = rate_distortion(model, x_train[:5000], squared_error(model))[1]

    def fitted(x, out):
        return gaussian_nll(x, model.pixel_mean(out), sigma2)

    return {
        "sigma2_fit": sigma2,
        "nll_fit": rate_distortion(model, x_test, fitted)[1],
        "iw_nll_fit": importance_weighted_nll(model, x_test, fitted).mean().item(),
        "live": live_units(posterior(model, x_test)[0]),
        "spread": output_spread(reconstructions(model, x_test), x_test),
    }


def squared_error(model: VAE) -> Callable[[Tensor, Tensor], Tensor]:
    """``mse(x, out)`` -> (B,): the error of a model's pixel means, a mean over the pixels.

    Examples
    --------
    >>> from sumormean.models import mlp_vae
    >>> squared_error(mlp_vae())(torch.ones(2, 28, 28), torch.zeros(2, 28, 28))
    tensor([0.2500, 0.2500])
    """

    def mse(x, out):
        return (x - model.pixel_mean(out)).square().flatten(1).mean(1)

    return mse


def random_batch(
    generator: torch.Generator, data_shape: tuple[int, ...] = (28, 28), latent_dim: int = M
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, out, mu, log_var of eight images, float64, to see whether two losses are the same.

    Examples
    --------
    >>> [tuple(t.shape) for t in random_batch(torch.Generator().manual_seed(0), (49,), 2)]
    [(8, 49), (8, 49), (8, 2), (8, 2)]
    """
    draw = {"generator": generator, "dtype": torch.float64}
    x, out = torch.rand(8, *data_shape, **draw), torch.randn(8, *data_shape, **draw)
    return x, out, torch.randn(8, latent_dim, **draw), torch.randn(8, latent_dim, **draw)


def to_bytes(images: Tensor) -> np.ndarray:
    """Pixels in [0, 1] to bytes, for the record."""
    return (images * 255).round().to(torch.uint8).numpy()
