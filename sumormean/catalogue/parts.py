"""What the losses of the catalogue are made of: nothing here is reduced, but for Keras's mean."""

import torch
import torch.nn.functional as F
from torch import Tensor


def squared(x: Tensor, x_hat: Tensor) -> Tensor:
    """(B, ...) -> (B, D), without a half."""
    return (x - x_hat).square().flatten(1)


def absolute(x: Tensor, x_hat: Tensor) -> Tensor:
    """(B, ...) -> (B, D)."""
    return (x - x_hat).abs().flatten(1)


def bce(x: Tensor, x_hat: Tensor) -> Tensor:
    """(B, ...) -> (B, D) from probabilities."""
    return F.binary_cross_entropy(x_hat, x, reduction="none").flatten(1)


def keras_bce(x: Tensor, x_hat: Tensor) -> Tensor:
    """As Keras has it: the mean over the last axis, (B, H, W, C) -> (B, H, W)."""
    return F.binary_cross_entropy(x_hat, x, reduction="none").mean(-1)


def kl(mu: Tensor, log_var: Tensor) -> Tensor:
    """(B, M)."""
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var)


def sampled_kl(mu: Tensor, log_var: Tensor) -> Tensor:
    """log q(z) - log p(z) at one sample z, (B, M): the KL on average."""
    eps = torch.randn_like(mu)
    z = mu + torch.exp(0.5 * log_var) * eps
    return 0.5 * (z.square() - log_var - eps.square())


def codebook(z: Tensor, e: Tensor) -> Tensor:
    """(B, M); moves the code vectors only."""
    return (z.detach() - e).square()


def commitment(z: Tensor, e: Tensor) -> Tensor:
    """(B, M); moves the encoder only."""
    return (z - e.detach()).square()
