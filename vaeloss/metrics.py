"""What to measure on a trained VAE: rate, distortion, likelihood, live units, output spread."""

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor, nn

from vaeloss.likelihoods import Likelihood, as_likelihood, kl_standard_normal


class VAE(Protocol):
    """What is asked of a model here: any ``torch.nn.Module`` with these methods will do.

    x is ``(B, *data_shape)``, mu and log_var are (B, M); ``out`` ``(B, *data_shape)`` is what the
    likelihood takes, logits or means. ``decoder`` is asked for by ``importance_weighted_nll`` only,
    ``reconstruct`` by ``reconstructions`` only.
    """

    decoder: Callable[[Tensor], Tensor]  # z (B, M) -> out

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mu and log_var."""

    def __call__(self, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Out, mu and log_var, with one sample of z per image."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """Pixel means ``(B, *data_shape)`` decoded from the posterior mean."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of a Module: the data are moved where the first one is."""


@torch.no_grad()
def posterior(model: VAE, x: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
    """mu and log_var of every image, each (N, M), on the CPU."""
    mu, log_var = zip(*(model.encode(b) for b in _batches(model, x)), strict=True)
    return torch.cat(mu).cpu(), torch.cat(log_var).cpu()


@torch.no_grad()
def reconstructions(model: VAE, x: np.ndarray | Tensor) -> Tensor:
    """Pixel means decoded from the posterior mean, ``(N, *data_shape)``, on the CPU."""
    return torch.cat([model.reconstruct(b).cpu() for b in _batches(model, x)])


@torch.no_grad()
def rate_distortion(
    model: VAE,
    x: np.ndarray | Tensor,
    nll: Callable[[Tensor, Tensor], Tensor],
    seed: int = 0,
) -> tuple[float, float]:
    """Mean KL and mean NLL per image, in nats (one posterior sample per image).

    ``nll(x, out)`` -> (B,), e.g. ``vaeloss.likelihoods.bernoulli_nll``. The negative ELBO is their
    sum; the names are those of Alemi et al. 2018, arXiv:1711.00464.
    """
    rate = distortion = 0.0
    generator = None
    for batch in _batches(model, x):
        generator = generator or torch.Generator(batch.device).manual_seed(seed)
        out, mu, log_var = model(batch, generator)
        rate += kl_standard_normal(mu, log_var).sum().item()
        distortion += nll(batch, out).sum().item()
    return rate / len(x), distortion / len(x)


@torch.no_grad()
def importance_weighted_nll(
    model: VAE,
    x: np.ndarray | Tensor,
    nll: Callable[[Tensor, Tensor], Tensor],
    samples: int = 100,
    seed: int = 0,
) -> Tensor:
    """Estimate of -log p(x) of every image, (N,) nats, from K posterior samples each.

    -log of the mean over z_1..z_K ~ q(z|x) of p(x|z_k) p(z_k) / q(z_k|x); Burda et al. 2016,
    arXiv:1509.00519. Its expectation is never below -log p(x) and falls towards it as K grows;
    K = 1 gives the negative ELBO. Its mean over images says how good the *model* is, whatever
    its encoder; how far it lies below the negative ELBO says what the encoder costs.

    Parameters
    ----------
    nll : callable
        ``nll(x, out)`` -> (B,) nats, with its constant, or the result is no likelihood. It has to
        be a density of x given z: a variance computed from x itself is none.
    samples : int
        K. Time grows with K, memory does not.

    Returns
    -------
    Tensor, shape (N,)
        float64, on the CPU.

    Raises
    ------
    ValueError
        samples < 1.

    Examples
    --------
    >>> from vaeloss.likelihoods import bernoulli_nll
    >>> class Tiny(nn.Module):  # all that is needed of a model
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.encoder, self.decoder = nn.Linear(6, 2 * 2), nn.Linear(2, 6)
    ...     def encode(self, x):
    ...         return self.encoder(x).chunk(2, dim=1)
    >>> importance_weighted_nll(Tiny(), torch.zeros(3, 6), bernoulli_nll, samples=5).shape
    torch.Size([3])
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    estimates, generator = [], None
    for batch in _batches(model, x):
        generator = generator or torch.Generator(batch.device).manual_seed(seed)
        mu, log_var = model.encode(batch)
        total = torch.full((len(batch),), -math.inf, dtype=torch.float64, device=batch.device)
        for _ in range(samples):
            eps = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
            z = mu + torch.exp(0.5 * log_var) * eps
            # log p(z) - log q(z|x): the normal constants cancel.
            log_ratio = 0.5 * (eps.square() + log_var - z.square()).sum(1)
            log_weight = log_ratio.double() - nll(batch, model.decoder(z)).double()
            total = torch.logaddexp(total, log_weight)
        estimates.append(math.log(samples) - total.cpu())
    return torch.cat(estimates)


def bits_per_dim(nats: float, dims: int) -> float:
    """Nats per image to bits per pixel: nats / (dims log 2).

    Of a density on pixels in [0, 1] it may be negative, and it is 8 below that of the same
    density on pixels in 0..255, which papers on colour images report.

    Examples
    --------
    >>> bits_per_dim(784 * math.log(2), 784)
    1.0
    """
    return nats / (dims * math.log(2))


def live_units(mu: Tensor, threshold: float = 0.01) -> int:
    """How many latents the encoder uses: Var over the data of the posterior mean > threshold.

    Parameters
    ----------
    mu : Tensor, shape (N, M)
        The criterion and its 0.01 are those of Burda et al. 2016, arXiv:1509.00519.

    Raises
    ------
    ValueError
        mu has NaN, which would pass for units that are not used.

    Examples
    --------
    >>> live_units(torch.stack([torch.linspace(-1, 1, 9), torch.zeros(9)], dim=1))
    1
    """
    if mu.isnan().any():
        raise ValueError("mu has NaN: the encoder's weights or the data are not finite")
    return int((mu.var(dim=0, correction=0) > threshold).sum())


def perplexity(chosen: Tensor, codes: int) -> float:
    """exp of the entropy of code usage: as many codes as if all used ones were used alike.

    Parameters
    ----------
    chosen : Tensor
        Integers of any shape, below ``codes``.

    Examples
    --------
    >>> round(perplexity(torch.tensor([0, 0, 1, 1]), codes=8), 6)
    2.0
    """
    p = torch.bincount(chosen.flatten(), minlength=codes).double() / chosen.numel()
    return torch.exp(-torch.xlogy(p, p).sum()).item()


def output_spread(x_hat: np.ndarray | Tensor, x: np.ndarray | Tensor) -> float:
    """How much the outputs differ from image to image, relative to the data: 0 if all are alike.

    Sum over pixels of the variance over images, outputs (N, ...) divided by data (N, ...);
    a number without unit, about 1 for a perfect autoencoder.

    Raises
    ------
    ValueError
        The images x are all the same, or there is only one.

    Examples
    --------
    >>> output_spread(torch.ones(5, 4), torch.eye(5, 4))
    0.0
    """
    spread = [torch.as_tensor(a).flatten(1).var(dim=0, correction=0).sum() for a in (x_hat, x)]
    if spread[1] == 0:
        raise ValueError("the data do not differ from image to image: nothing to compare with")
    return float(spread[0] / spread[1])


def constant_image_nll(
    x: np.ndarray | Tensor, likelihood: Likelihood | str, x_train: np.ndarray | Tensor | None = None
) -> float:
    """NLL in nats per image of the best decoder that ignores z: the level of a collapsed VAE.

    Parameters
    ----------
    x : array or Tensor, shape (N, ...)
        In the range that the likelihood needs.
    likelihood : Likelihood or str
        As in ``collapse_threshold``, with a mean or a median for output. What depends on neither
        pixels nor outputs is left out, as losses do: "gaussian" gives half the summed squared
        error.
    x_train : array or Tensor, optional
        Whose mean image (median image, for "laplace") is decoded; default: that of x.

    Raises
    ------
    ValueError
        The likelihood is unknown, or its output is neither mean nor median.

    Examples
    --------
    >>> constant_image_nll(torch.tensor([[0.0], [1.0]]), "bernoulli")  # log 2
    0.693...
    """
    likelihood = as_likelihood(likelihood)
    if "mean" not in likelihood.forms or likelihood.outputs > 1:
        raise ValueError(f"the best constant under {likelihood} is neither a mean nor a median")
    x = torch.as_tensor(x).flatten(1).double()
    train = x if x_train is None else torch.as_tensor(x_train).flatten(1).double()
    constant = train.median(0).values if likelihood.median_scale else train.mean(0)
    if x_train is not None:
        # A pixel that fires in x but never in x_train would cost infinitely much, so the mean is
        # kept off the ends of the support by one part in 10^7.
        low, high = likelihood.support
        constant = constant.clamp(low + 1e-7, high - 1e-7)
    terms = likelihood.with_link("mean").per_value(x, constant.expand_as(x))
    return (terms - likelihood.constant).sum(1).mean().item()


def _batches(model: VAE, x: np.ndarray | Tensor, size: int = 1000) -> Iterator[Tensor]:
    weight = next(model.parameters())
    for batch in torch.as_tensor(x, dtype=weight.dtype).split(size):
        yield batch.to(weight.device)
