"""Negative log-likelihoods and the KL term, in nats per sample.

Every function sums over pixels (or latents) and leaves the batch axis alone: shape (B, ...) in,
shape (B,) out. Pixels are conditionally independent given z, so their log-probabilities *add*
(Kingma & Welling 2014, arXiv:1312.6114); the mean over the batch is the caller's business.
All functions are differentiable and keep float32 and float64. float16 and bfloat16, which autocast
makes, are computed and returned in float32: float16 ends at 65,504, less than 784 pixels may cost.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_nll(x: Tensor, mean: Tensor, sigma2: float | Tensor = 1.0) -> Tensor:
    """-log N(x; mean, sigma2 I) with its 1/2, its sigma2 and its constant.

    Parameters
    ----------
    x, mean : Tensor, shape (B, ...)
        Of the same shape, in the same pixel units.
    sigma2 : float or Tensor
        Variance in squared pixel units; a number > 0, or a tensor that broadcasts against x (a
        per-pixel variance, say).

    Returns
    -------
    Tensor, shape (B,)
        In nats: sum over pixels of (x - mean)^2 / (2 sigma2) + log(2 pi sigma2) / 2.

    Raises
    ------
    ValueError
        Shapes differ, or sigma2 is not positive.

    Examples
    --------
    >>> gaussian_nll(torch.zeros(1, 784), torch.zeros(1, 784)).item()  # 392 log(2 pi)
    720.4...
    """
    _same_shape(x, mean, "mean")
    x, mean = at_least_float32(x, mean)
    sigma2 = torch.as_tensor(sigma2, dtype=x.dtype, device=x.device)
    if not bool((sigma2 > 0).all()):
        raise ValueError("sigma2 must be positive: it is a variance, in squared pixel units")
    terms = (x - mean).square() / (2 * sigma2) + 0.5 * (math.log(2 * math.pi) + sigma2.log())
    return terms.flatten(1).sum(1)


def bernoulli_nll(x: Tensor, logits: Tensor) -> Tensor:
    """-log p(x | logits) of independent Bernoulli pixels: binary cross-entropy, summed.

    Takes logits, not probabilities: softplus stays exact and keeps its gradient where
    log(clip(p)) does not.

    Parameters
    ----------
    x : Tensor, shape (B, ...)
        In [0, 1]. On grey pixels this is the cross-entropy people use, with a floor above 0; it is
        a normalised likelihood only for pixels that are 0 or 1.
    logits : Tensor, shape (B, ...)
        Same shape; the pixel mean is sigmoid(logits).

    Returns
    -------
    Tensor, shape (B,)
        In nats: sum over pixels.

    Raises
    ------
    ValueError
        Shapes differ.

    Examples
    --------
    >>> bernoulli_nll(torch.ones(1, 784), torch.zeros(1, 784)).item()  # 784 log 2
    543.4...
    """
    _same_shape(x, logits, "logits")
    x, logits = at_least_float32(x, logits)
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def continuous_bernoulli_nll(x: Tensor, logits: Tensor) -> Tensor:
    """-log p(x | logits) of the continuous Bernoulli: cross-entropy made a density on [0, 1].

    The density exp(x logits) on [0, 1] has the normaliser A(l) = log((exp(l) - 1) / l), so that
    -log p = A(l) - x l; in Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845, this reads
    BCE - log C with C = l / tanh(l / 2). It may be negative: it is a density.

    Parameters
    ----------
    x : Tensor, shape (B, ...)
        Pixels in [0, 1].
    logits : Tensor, shape (B, ...)
        Same shape. The pixel *mean* is 1 / (1 - exp(-l)) - 1 / l, not sigmoid(l).

    Returns
    -------
    Tensor, shape (B,)
        In nats: sum over pixels.

    Raises
    ------
    ValueError
        Shapes differ.

    Examples
    --------
    >>> continuous_bernoulli_nll(torch.ones(1, 784), torch.zeros(1, 784)).item()  # uniform
    0.0
    """
    _same_shape(x, logits, "logits")
    x, logits = at_least_float32(x, logits)
    # A(l) = l/2 + log(sinh(h)/h) with h = |l|/2. Near h = 0 the closed form divides 0 by 0, and its
    # gradient cancels, so a series takes over; up to 0.2 it is exact to rounding in float64.
    h = logits.abs() / 2
    small = h < 0.2
    large = torch.where(small, 1.0, h)  # a safe value: where() passes NaN gradients on
    closed = large + torch.log(-torch.expm1(-2 * large)) - torch.log(2 * large)
    s = torch.where(small, logits / 2, 0.0).square()
    series = s / 467775 - s.square() * (691 / 3831077250)
    series = s * (1 / 6 - s * (1 / 180 - s * (1 / 2835 - s * (1 / 37800 - series))))
    terms = (0.5 - x) * logits + torch.where(small, series, closed)
    return terms.flatten(1).sum(1)


def kl_standard_normal(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL( N(mu, diag exp(log_var)) || N(0, I) ), summed over latents.

    Parameters
    ----------
    mu, log_var : Tensor, shape (B, M)
        log_var is the log of the *variance*, not of the standard deviation.

    Returns
    -------
    Tensor, shape (B,)
        In nats: sum over latents of (mu^2 + exp(log_var) - 1 - log_var) / 2 (Kingma & Welling 2014,
        appendix B). expm1 keeps it exact near log_var = 0.

    Raises
    ------
    ValueError
        Shapes differ.

    Examples
    --------
    >>> kl_standard_normal(torch.ones(1, 2), torch.zeros(1, 2)).item()
    1.0
    """
    _same_shape(mu, log_var, "log_var")
    mu, log_var = at_least_float32(mu, log_var)
    return 0.5 * (mu.square() + torch.expm1(log_var) - log_var).flatten(1).sum(1)


def at_least_float32(*tensors: Tensor) -> list[Tensor]:
    """float16 and bfloat16 tensors as float32, all others as they are.

    For sums over pixels or latents. In bfloat16 such a sum has two or three digits; in float16
    even one square overflows from 256 on.

    Examples
    --------
    >>> half, double = at_least_float32(torch.zeros(1).half(), torch.zeros(1).double())
    >>> half.dtype, double.dtype
    (torch.float32, torch.float64)
    """
    return [t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors]


def _same_shape(first: Tensor, second: Tensor, name: str) -> None:
    # Broadcasting (B, 784) against (B, 1, 28, 28) would silently give (B, B, ...): refuse.
    if first.shape != second.shape:
        raise ValueError(
            f"{name} has shape {tuple(second.shape)}, expected {tuple(first.shape)}: "
            "reshape one of the two"
        )
