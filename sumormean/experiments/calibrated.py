"""Ways to set the variance of a decoder, trained alike and measured alike.

The book's chapter "Letting the data set the balance" derives the losses; here they are one function
of a name, for ``python -m sumormean ablate calibrated``. One network serves all methods: the pixel
means are sigmoid(out), of the continuous Bernoulli the mean that belongs to its logits.
"""

import time

import numpy as np
import torch
from torch import Tensor, nn

from sumormean.experiments.common import (
    D,
    M,
    common_measures,
    sample_score,
    squared_error,
    to_bytes,
    train_and_test,
)
from sumormean.models import mlp_vae
from sumormean.sweep import grid
from sumormean.training import fit
from vaeloss.likelihoods import (
    at_least_float32,
    bernoulli_nll,
    continuous_bernoulli_nll,
    gaussian_nll,
    kl_standard_normal,
)
from vaeloss.metrics import importance_weighted_nll, rate_distortion, reconstructions

SEEDS = (0, 1, 2)
ARRAYS = {"inputs": np.uint8, "reconstructions": np.uint8, "samples": np.uint8}
FLOOR = 1e-3  # of a per-pixel variance: a standard deviation of 8 grey levels
METHODS = (
    "0.01",
    "1/2",
    "1",
    "D/2",
    "Var",
    "learned",
    "per batch",
    "per sample",
    "per pixel",
    "per pixel + floor",
    "bernoulli",
    "continuous bernoulli",
)


def settings() -> list[dict]:
    """Every method on two data sets."""
    return grid(data=["mnist", "fashion_mnist"], method=METHODS)


class Variance(nn.Module):
    """What a method believes of the noise: ``nll(x, out)`` to train with, and its ``sigma2``.

    Raises ValueError if such a variance is 0, because the images are all the same.

    Parameters
    ----------
    method : str
        One of METHODS, but for the two Bernoulli ones.
    x : Tensor, shape (N, 28, 28)
        Training images, for the variances that come from the data.
    """

    def __init__(self, method: str, x: Tensor):
        super().__init__()
        self.method = method
        var = x.var().item()
        self.fixed = {
            "0.01": 0.01,
            "1/2": 0.5,
            "1": 1.0,
            "D/2": D / 2,
            "Var": var,
        }.get(method)
        if method.startswith(("learned", "per pixel")):
            # Starts where a collapsed decoder is calibrated: the mean variance of a pixel.
            start = x.var(0, correction=min(1, len(x) - 1)).mean()
            if not start > 0:
                raise ValueError(f"no variance to start {method!r} from: all images are the same")
            start = start.log().item()
            shape = () if method == "learned" else x.shape[1:]
            self.log_sigma2 = nn.Parameter(torch.full(shape, start, dtype=x.dtype))

    def sigma2(self) -> float | Tensor | None:
        """The variance, (28, 28) if per pixel; None if each batch or sample has its own."""
        if not hasattr(self, "log_sigma2"):
            return self.fixed
        return self.log_sigma2.exp() + (FLOOR if self.method.endswith("floor") else 0.0)

    def nll(self, x: Tensor, out: Tensor) -> Tensor:
        """(B, 28, 28) pixels and decoder outputs -> nats: (B,), or one number "per batch"."""
        mean = torch.sigmoid(out)
        if self.method in ("per batch", "per sample"):
            mse = (x - mean).square().flatten(1).mean(1)
            mse = mse.mean() if self.method == "per batch" else mse
            # Below the rounding of the pixels an error means nothing, and log 0 has no gradient.
            mse = mse.clamp(min=torch.finfo(mse.dtype).eps ** 2)
            return D / 2 * (torch.log(2 * torch.pi * mse) + 1)
        return gaussian_nll(x, mean, self.sigma2())


def run(data: str, method: str, seed: int) -> dict:
    """One method: likelihoods with constants, live units, reconstructions and samples.

    ``nll`` and ``iw_nll`` are of the method's own likelihood; ``nll_fit`` and ``iw_nll_fit`` put
    Gaussian noise of one variance around its pixel means, ``sigma2_fit``, the mean squared error on
    training images: a density for every method, on the same scale. ``score`` is of decoded samples
    of the prior, ``score_codes`` of decoded codes of training images: what the decoder could show
    if the prior matched the codes.
    """
    score = sample_score(data)
    x_train, x_test, y_test = train_and_test(data)
    own = {"bernoulli": bernoulli_nll, "continuous bernoulli": continuous_bernoulli_nll}.get(method)
    variance = nn.Identity() if own else Variance(method, x_train)
    train_nll = own or variance.nll
    mean = continuous_bernoulli_mean if method == "continuous bernoulli" else torch.sigmoid
    model = mlp_vae(latent_dim=M, hidden=(128,), pixel_mean=mean, seed=seed)

    def loss_fn(x, out, mu, log_var):
        return train_nll(x, out).mean() + kl_standard_normal(mu, log_var).mean()

    # log σ² has a way of several units to go, a weight has not.
    groups = [{"params": model.parameters()}, {"params": variance.parameters(), "lr": 2e-2}]
    optimizer = torch.optim.Adam(groups if list(variance.parameters()) else groups[:1], lr=2e-3)
    start = time.process_time()
    fit(model, x_train, loss_fn, steps=800, optimizer=optimizer, seed=seed)
    cpu_seconds = round(time.process_time() - start, 2)

    row = common_measures(model, x_train, x_test)
    sigma2 = None if own else variance.sigma2()
    if sigma2 is None:
        sigma2 = row["sigma2_fit"]
    if own is None:

        def own(x, out):
            return gaussian_nll(x, torch.sigmoid(out), sigma2)

    z = torch.randn(score.size, M, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        samples = model.pixel_mean(model.decoder(z))
        sigma2 = torch.as_tensor(sigma2).detach()
        some = x_train[np.random.default_rng(1).permutation(len(x_train))[: score.size]]
        codes = torch.Generator().manual_seed(seed)
        decoded = model.pixel_mean(model(some, codes)[0])
    shown = [int((y_test == label).nonzero()[0][0]) for label in range(0, 10, 2)]
    kl, nll = rate_distortion(model, x_test, own)
    return {
        "sigma2": None if method.endswith("bernoulli") else sigma2.mean().item(),
        "sigma2_least": None if method.endswith("bernoulli") else sigma2.min().item(),
        "mse": rate_distortion(model, x_test, squared_error(model))[1],
        "kl": kl,
        "nll": nll,
        "iw_nll": importance_weighted_nll(model, x_test, own).mean().item(),
        "nll_train": rate_distortion(model, x_train[:5000], own)[1],
        **row,
        "score": score(samples),
        "score_codes": score(decoded),
        "score_real": score.real,
        "accuracy": score.accuracy,
        "cpu_seconds": cpu_seconds,
        "inputs": to_bytes(x_test[shown]),
        "reconstructions": to_bytes(reconstructions(model, x_test[shown])),
        "samples": to_bytes(samples[:5]),
    }


def continuous_bernoulli_mean(logits: Tensor) -> Tensor:
    """Mean of a continuous Bernoulli pixel, 1 / (1 - exp(-l)) - 1 / l: between 0 and 1.

    torch.distributions clips the probability near 0 and 1, which keeps its mean above 0.06.

    Examples
    --------
    >>> continuous_bernoulli_mean(torch.tensor([-1e4, 0.0, 1e4]))
    tensor([1.0000e-04, 5.0000e-01, 9.9990e-01])
    """
    (logits,) = at_least_float32(logits)
    small = logits.abs() < 0.1  # there the two terms cancel, and a series takes over
    safe = torch.where(small, 1.0, logits)
    series = 0.5 + logits / 12 - logits**3 / 720
    # expm1 of more than 80 adds nothing to 1 / l; where it overflows its gradient is 0 times inf.
    return torch.where(small, series, -1 / torch.expm1((-safe).clamp(max=80)) - 1 / safe)
