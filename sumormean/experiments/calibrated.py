"""Ways to set the variance of a decoder, trained alike and measured alike.

The book's chapter "Letting the data set the balance" derives the losses; here METHODS are what
``python -m sumormean ablate calibrated`` compares. One network serves them all: the pixel means are
sigmoid(out), of the continuous Bernoulli the mean that belongs to its logits.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from sumormean.experiments.common import (
    D,
    M,
    adam,
    common_measures,
    sample_score,
    squared_error,
    to_bytes,
    train_and_test,
)
from sumormean.models import mlp_vae
from sumormean.sweep import grid
from sumormean.training import LossFn, fit
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

NLL = Callable[[Tensor, Tensor], Tensor]


class Noise(nn.Module):
    """What a method believes of the noise: ``nll(x, out)`` to train with, and its variance.

    This is the Gaussian around sigmoid(out); the others say what they do in its place.
    """

    def sigma2(self) -> float | Tensor | None:
        """The variance, (28, 28) if per pixel; None if each batch or sample has its own."""
        return None

    def nll(self, x: Tensor, out: Tensor) -> Tensor:
        """(B, 28, 28) pixels and decoder outputs -> nats: (B,), or one number for the batch."""
        return gaussian_nll(x, torch.sigmoid(out), self.sigma2())

    def density(self, fitted: float) -> tuple[NLL, Tensor | None]:
        """How a test image is measured: ``nll(x, out)`` -> (B,), and the variance in it.

        ``fitted`` is the variance where the method has none for an image that it has not seen.
        """
        sigma2 = self.sigma2()
        sigma2 = torch.as_tensor(fitted if sigma2 is None else sigma2).detach()

        def nll(x, out):
            return gaussian_nll(x, torch.sigmoid(out), sigma2)

        return nll, sigma2


class Fixed(Noise):
    """One variance, from the first step to the last."""

    def __init__(self, sigma2: float):
        super().__init__()
        self._sigma2 = sigma2

    def sigma2(self) -> float:
        return self._sigma2


class Learned(Noise):
    """log σ² is a parameter: of ``shape`` () one for all pixels, of (28, 28) one for each.

    It starts where a collapsed decoder is calibrated, at the mean variance of a pixel of the
    training images x (N, 28, 28); ``floor`` is added to it. Raises ValueError if that variance is
    0, because the images are all the same.
    """

    def __init__(self, x: Tensor, shape: tuple[int, ...] = (), floor: float = 0.0):
        super().__init__()
        start = x.var(0, correction=min(1, len(x) - 1)).mean()
        if not start > 0:
            raise ValueError("no variance to start a learned one from: all images are the same")
        self.floor = floor
        self.log_sigma2 = nn.Parameter(torch.full(shape, start.log().item(), dtype=x.dtype))

    def sigma2(self) -> Tensor:
        return self.log_sigma2.exp() + self.floor


class ClosedForm(Noise):
    """The best variance put in, which is the mean squared error, over a batch or per sample."""

    def __init__(self, per_sample: bool):
        super().__init__()
        self.per_sample = per_sample

    def nll(self, x: Tensor, out: Tensor) -> Tensor:
        mse = (x - torch.sigmoid(out)).square().flatten(1).mean(1)
        mse = mse if self.per_sample else mse.mean()
        # Below the rounding of the pixels an error means nothing, and log 0 has no gradient.
        mse = mse.clamp(min=torch.finfo(mse.dtype).eps ** 2)
        return D / 2 * (torch.log(2 * torch.pi * mse) + 1)


class Bernoulli(Noise):
    """No Gaussian, and no variance: ``nll`` is another likelihood, of logits."""

    def __init__(self, nll: NLL):
        super().__init__()
        self.nll = nll

    def density(self, fitted: float) -> tuple[NLL, None]:
        return self.nll, None


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


@dataclass(frozen=True)
class Method:
    """A way to set the variance, under the name that it has in the record.

    Attributes
    ----------
    noise : callable
        Training images x (N, 28, 28) -> Noise, as it is before the training.
    pixel_mean : callable
        Decoder outputs -> pixel means.
    """

    name: str
    noise: Callable[[Tensor], Noise]
    pixel_mean: Callable[[Tensor], Tensor] = field(default_factory=lambda: torch.sigmoid)


METHODS = {
    method.name: method
    for method in (
        Method("0.01", lambda x: Fixed(0.01)),
        Method("1/2", lambda x: Fixed(0.5)),
        Method("1", lambda x: Fixed(1.0)),
        Method("D/2", lambda x: Fixed(D / 2)),
        Method("Var", lambda x: Fixed(x.var().item())),
        Method("learned", Learned),
        Method("per batch", lambda x: ClosedForm(per_sample=False)),
        Method("per sample", lambda x: ClosedForm(per_sample=True)),
        Method("per pixel", lambda x: Learned(x, x.shape[1:])),
        Method("per pixel + floor", lambda x: Learned(x, x.shape[1:], FLOOR)),
        Method("bernoulli", lambda x: Bernoulli(bernoulli_nll)),
        Method(
            "continuous bernoulli",
            lambda x: Bernoulli(continuous_bernoulli_nll),
            continuous_bernoulli_mean,
        ),
    )
}


def settings() -> list[dict]:
    """Every method on two data sets."""
    return grid(data=["mnist", "fashion_mnist"], method=METHODS)


def negative_elbo(noise: Noise) -> LossFn:
    """The loss of a method: its NLL plus the KL, averaged over the batch."""

    def loss_fn(x, out, mu, log_var):
        return noise.nll(x, out).mean() + kl_standard_normal(mu, log_var).mean()

    return loss_fn


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
    noise = METHODS[method].noise(x_train)
    pixel_mean = METHODS[method].pixel_mean
    model = mlp_vae(latent_dim=M, hidden=(128,), pixel_mean=pixel_mean, seed=seed)
    optimizer = adam(model, noise.parameters())
    start = time.process_time()
    fit(model, x_train, negative_elbo(noise), steps=800, optimizer=optimizer, seed=seed)
    cpu_seconds = round(time.process_time() - start, 2)

    row = common_measures(model, x_train, x_test)
    own, sigma2 = noise.density(row["sigma2_fit"])
    z = torch.randn(score.size, M, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        samples = model.pixel_mean(model.decoder(z))
        some = x_train[np.random.default_rng(1).permutation(len(x_train))[: score.size]]
        codes = torch.Generator().manual_seed(seed)
        decoded = model.pixel_mean(model(some, codes)[0])
    shown = [int((y_test == label).nonzero()[0][0]) for label in range(0, 10, 2)]
    kl, nll = rate_distortion(model, x_test, own)
    return {
        "sigma2": None if sigma2 is None else sigma2.mean().item(),
        "sigma2_least": None if sigma2 is None else sigma2.min().item(),
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
