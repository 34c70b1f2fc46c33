"""The catalogue's losses, one function per entry of ``data/implementations.toml``.

Each is written from the description of what an implementation adds up, not from its source. A
function bears its entry's id, with _ for -. All take ``(x, x_hat, mu, log_var)``, or
``(x, x_hat, z, e)`` if they quantise: z (B, M) is what the encoder said, e (B, M) the code vectors
that replace it. x_hat holds probabilities or means, and logits where the original wants them.
What else an original adds (a GAN, a perceptual loss) is named in its entry and left out here.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeloss.likelihoods import bernoulli_nll, continuous_bernoulli_nll, gaussian_nll

# --- what they are made of: nothing here is reduced ----------------------------------------------


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


# --- Benchmark_VAE (pythae) ----------------------------------------------------------------------


def pythae_vae_mse_2021_10(x, x_hat, mu, log_var):
    return squared(x, x_hat).sum() + kl(mu, log_var).sum()


def pythae_vae_mse_7992fbd(x, x_hat, mu, log_var):
    # the KL is summed over the batch, and then a scalar is added to every image
    return (squared(x, x_hat).sum(1) + kl(mu, log_var).sum()).mean()


def pythae_vae_mse_old(x, x_hat, mu, log_var):
    return (squared(x, x_hat).sum(1) + kl(mu, log_var).sum(1)).mean()


def pythae_vae_mse_now(x, x_hat, mu, log_var):
    return (0.5 * squared(x, x_hat).sum(1) + kl(mu, log_var).sum(1)).mean()


def pythae_vae_bce(x, x_hat, mu, log_var):
    return (bce(x, x_hat).sum(1) + kl(mu, log_var).sum(1)).mean()


def pythae_betavae_mse_old(x, x_hat, mu, log_var):
    return (squared(x, x_hat).sum(1) + 2 * kl(mu, log_var).sum(1)).mean()


def pythae_betavae_mse_now(x, x_hat, mu, log_var):
    return (0.5 * squared(x, x_hat).sum(1) + 2 * kl(mu, log_var).sum(1)).mean()


def pythae_betavae_bce(x, x_hat, mu, log_var):
    return (bce(x, x_hat).sum(1) + 2 * kl(mu, log_var).sum(1)).mean()


def pythae_vqvae_old(x, x_hat, z, e):
    quantiser = 0.25 * commitment(z, e).mean() + codebook(z, e).mean()
    return (squared(x, x_hat).sum(1) + quantiser).mean()


def pythae_vqvae_now(x, x_hat, z, e):
    quantiser = 0.25 * commitment(z, e).sum() + codebook(z, e).sum()  # over the batch as well
    return (squared(x, x_hat).sum(1) + quantiser).mean()


# --- Keras ---------------------------------------------------------------------------------------


def keras_blog_2016_05(x, x_hat, mu, log_var):
    return (keras_bce(x, x_hat) + kl(mu, log_var).mean(1)).mean()


def keras_2016_07_24(x, x_hat, mu, log_var):
    return (784 * keras_bce(x, x_hat) + kl(mu, log_var).sum(1)).mean()


def keras_2016_07_25(x, x_hat, mu, log_var):
    return (keras_bce(x, x_hat) + kl(mu, log_var).sum(1)).mean()


def keras_2016_09(x, x_hat, mu, log_var):
    return (784 * keras_bce(x, x_hat) + kl(mu, log_var).sum(1)).mean()


def keras_2018_bce(x, x_hat, mu, log_var):
    return (784 * keras_bce(x, x_hat) + kl(mu, log_var).sum(1)).mean()


def keras_2018_mse(x, x_hat, mu, log_var):
    return (784 * (x - x_hat).square().mean(-1) + kl(mu, log_var).sum(1)).mean()


def keras_deconv_2016_07(x, x_hat, mu, log_var):
    return keras_bce(x.flatten(), x_hat.flatten()) + kl(mu, log_var).mean(1).mean()


def keras_deconv_2016_09(x, x_hat, mu, log_var):
    return 784 * keras_bce(x.flatten(), x_hat.flatten()) + kl(mu, log_var).mean(1).mean()


def keras_io_2020_07(x, x_hat, mu, log_var):
    return 28 * 28 * keras_bce(x, x_hat).mean() + kl(mu, log_var).mean()


def keras_io_now(x, x_hat, mu, log_var):
    return keras_bce(x, x_hat).sum((1, 2)).mean() + kl(mu, log_var).sum(1).mean()


def keras_io_now_rgb(x, x_hat, mu, log_var):
    return keras_io_now(x, x_hat, mu, log_var)  # the same lines, three channels


def keras_io_vqvae(x, x_hat, z, e, variance=0.0949):
    reconstruction = squared(x, x_hat).mean() / variance
    return reconstruction + codebook(z, e).mean() + 0.25 * commitment(z, e).mean()


def chollet_1e(x, x_hat, mu, log_var):
    reconstruction = keras_bce(x.flatten(1), x_hat.flatten(1))
    kl_term = -5e-4 * (1 + log_var - mu.square() - log_var.exp()).mean(1)
    return (reconstruction + kl_term).mean()


def chollet_2e_3e(x, x_hat, mu, log_var):
    return keras_bce(x, x_hat).sum((1, 2)).mean() + kl(mu, log_var).mean()


# --- Chainer -------------------------------------------------------------------------------------


def chainer_vae_v1_5(x, logits, mu, log_var):
    b = len(x)  # Chainer's bernoulli_nll and gaussian_kl_divergence sum over everything
    return bernoulli_nll(x, logits).sum() / b + 1.0 * kl(mu, log_var).sum() / b


def chainer_vae_v6_7(x, logits, mu, log_var):
    return -(-bernoulli_nll(x, logits) - 1.0 * kl(mu, log_var).sum(1)).mean()


def chainer_mse_swap(x, logits, mu, log_var):
    return F.mse_loss(logits.sigmoid(), x) + kl(mu, log_var).sum() / len(x)


def chainer_mse_swap_divided(x, logits, mu, log_var):
    return F.mse_loss(logits.sigmoid(), x) / len(x) + kl(mu, log_var).sum() / len(x)


# --- PyTorch's examples --------------------------------------------------------------------------


def pytorch_2017_01(x, x_hat, mu, log_var):
    return bce(x, x_hat).sum() + kl(mu, log_var).sum()


def pytorch_2017_10(x, x_hat, mu, log_var):
    return bce(x, x_hat).mean() + kl(mu, log_var).sum() / (128 * 784)


def pytorch_now(x, x_hat, mu, log_var):
    return bce(x, x_hat).sum() + kl(mu, log_var).sum()


# --- PyTorch-VAE ---------------------------------------------------------------------------------


def antixk_vanilla_train(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + 0.00025 * kl(mu, log_var).sum(1).mean()


def antixk_vanilla_val(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + 1.0 * kl(mu, log_var).sum(1).mean()


def antixk_vanilla_old(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + len(x) / 162770 * kl(mu, log_var).sum(1).mean()


def antixk_vanilla_old_val(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + len(x) / 19867 * kl(mu, log_var).sum(1).mean()


def antixk_beta(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + 10 * 0.00025 * kl(mu, log_var).sum(1).mean()


def antixk_beta_capacity(x, x_hat, mu, log_var, capacity=10.0):
    distance = (kl(mu, log_var).sum(1).mean() - capacity).abs()
    return squared(x, x_hat).mean() + 10 * 0.00025 * distance


def antixk_dip(x, x_hat, mu, log_var):
    return squared(x, x_hat).sum() + 1.0 * kl(mu, log_var).sum()


def antixk_betatc(x, x_hat, mu, log_var):
    # with all weights at one, its three parts of the KL add up to the KL
    return squared(x, x_hat).sum() / len(x) + kl(mu, log_var).sum(1).mean()


def antixk_iwae(x, x_hat, mu, log_var):
    loss = squared(x, x_hat).mean(1) + 0.00025 * kl(mu, log_var).sum(1)
    loss = loss[:, None]  # (B, S); S = 1 sample here
    return (loss.softmax(1) * loss).sum(1).mean()


def antixk_vqvae(x, x_hat, z, e):
    return squared(x, x_hat).mean() + 0.25 * commitment(z, e).mean() + codebook(z, e).mean()


# --- Quantisers elsewhere ------------------------------------------------------------------------


def sonnet_vqvae(x, x_hat, z, e, variance=0.06337):
    reconstruction = squared(x, x_hat).mean() / variance
    return reconstruction + codebook(z, e).mean() + 0.25 * commitment(z, e).mean()


def rosinality_vqvae2_top(x, x_hat, z, e):
    return squared(x, x_hat).mean() + 0.25 * commitment(z, e).mean()


def rosinality_vqvae2_bottom(x, x_hat, z, e):
    return squared(x, x_hat).mean() + 0.25 * commitment(z, e).mean()


def lucidrains_vq(x, x_hat, z, e):
    return absolute(x, x_hat).mean() + 10 * commitment(z, e).mean()


# --- Variances that are learned or computed ------------------------------------------------------


def sigma_gaussian(x, x_hat, mu, log_var):
    return gaussian_nll(x, x_hat, 1.0).sum() + kl(mu, log_var).sum()


def sigma_learned(x, x_hat, mu, log_var, log_sigma=0.0):
    log_sigma = -6 + math.log1p(math.exp(log_sigma + 6))  # a soft floor at -6
    return gaussian_nll(x, x_hat, math.exp(2 * log_sigma)).sum() + kl(mu, log_var).sum()


def sigma_optimal(x, x_hat, mu, log_var):
    return gaussian_nll(x, x_hat, squared(x, x_hat).mean()).sum() + kl(mu, log_var).sum()


def sigma_mse_strawman(x, x_hat, mu, log_var):
    return F.mse_loss(x_hat, x) + kl(mu, log_var).sum()


def two_stage_vae(x, x_hat, mu, log_var, gamma=1.0):
    return (gaussian_nll(x, x_hat, gamma**2).sum() + kl(mu, log_var).sum()) / len(x)


def balancing_vae_cifar(x, x_hat, mu, log_var, gamma=1.0):
    k = (2 * 32 / 128) ** 2
    return (squared(x, x_hat).sum() / (2 * gamma**2) + k * kl(mu, log_var).sum()) / len(x)


def balancing_vae_celeba(x, x_hat, mu, log_var, gamma=1.0):
    k = (2 * 64 / 64) ** 2
    return (squared(x, x_hat).sum() / (2 * gamma**2) + k * kl(mu, log_var).sum()) / len(x)


def falcon_vae(x, x_hat, mu, log_var, log_scale=0.0):
    nll = gaussian_nll(x, x_hat, math.exp(2 * log_scale))
    return (nll + sampled_kl(mu, log_var).sum(1)).mean()


# --- Others --------------------------------------------------------------------------------------


def continuous_bernoulli(x, x_hat, mu, log_var):
    return (continuous_bernoulli_nll(x, x_hat.logit()) + 1.0 * kl(mu, log_var).sum(1)).mean()


def tf_cvae_tutorial(x, logits, mu, log_var):
    return -(-bernoulli_nll(x, logits) - sampled_kl(mu, log_var).sum(1)).mean()


def flax_vae(x, logits, mu, log_var):
    return bernoulli_nll(x, logits).mean() + kl(mu, log_var).sum(1).mean()


def haiku_vae(x, logits, mu, log_var):
    return -(-bernoulli_nll(x, logits) - kl(mu, log_var).sum(1)).mean()


def pyro_vae(x, x_hat, mu, log_var):
    return bce(x, x_hat).sum() + sampled_kl(mu, log_var).sum()


def bolts_old(x, x_hat, mu, log_var):
    return (squared(x, x_hat).sum(1) + sampled_kl(mu, log_var).sum(1)).mean()


def bolts_vae_cifar(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + 0.1 * sampled_kl(mu, log_var).mean()


def bolts_vae_stl(x, x_hat, mu, log_var):
    return bolts_vae_cifar(x, x_hat, mu, log_var)  # the same 0.1


def bolts_vae_imagenet(x, x_hat, mu, log_var):
    return bolts_vae_cifar(x, x_hat, mu, log_var)


def pyprobml_celeba(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + 0.1 * sampled_kl(mu, log_var).mean()


def pyprobml_celeba_cli(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + 5 * sampled_kl(mu, log_var).mean()


def beta_1konny_dsprites(x, logits, mu, log_var):
    return bernoulli_nll(x, logits).sum() / len(x) + 4 * kl(mu, log_var).sum(1).mean()


def beta_1konny_3dchairs(x, x_hat, mu, log_var):
    return squared(x, x_hat).sum() / len(x) + 4 * kl(mu, log_var).sum(1).mean()


def beta_1konny_celeba(x, x_hat, mu, log_var):
    return squared(x, x_hat).sum() / len(x) + 10 * kl(mu, log_var).sum(1).mean()


def disentanglement_lib_bernoulli(x, logits, mu, log_var):
    return (bernoulli_nll(x, logits) + 4 * kl(mu, log_var).sum(1)).mean()


def disentanglement_lib_l2(x, x_hat, mu, log_var):
    return (squared(x, x_hat).sum(1) + 4 * kl(mu, log_var).sum(1)).mean()


def uvadlc_t9(x, x_hat, mu, log_var):
    return squared(x, x_hat).sum(1).mean()


def stable_diffusion_kl(x, x_hat, mu, log_var, log_scale=0.0):
    nll = absolute(x, x_hat) / math.exp(log_scale) + log_scale
    return nll.sum() / len(x) + 1e-6 * kl(mu, log_var).sum() / len(x)


def sgm_kl(x, x_hat, mu, log_var):
    return absolute(x, x_hat).sum() / len(x) + 1e-6 * kl(mu, log_var).sum() / len(x)


def diffusers_kl_l2(x, x_hat, mu, log_var):
    return squared(x, x_hat).sum() / len(x) + 1e-6 * kl(mu, log_var).sum() / len(x)


def diffusers_kl_l1(x, x_hat, mu, log_var):
    return absolute(x, x_hat).sum() / len(x) + 1e-6 * kl(mu, log_var).sum() / len(x)


def wiseodd_vae(x, x_hat, mu, log_var):
    return bce(x, x_hat).sum() / len(x) + kl(mu, log_var).sum(1).mean()


def bojone_vae(x, x_hat, mu, log_var):
    return (bce(x, x_hat).sum(1) + kl(mu, log_var).sum(1)).mean()


def bojone_vae_celeba(x, x_hat, mu, log_var):
    return (gaussian_nll(x, x_hat) + sampled_kl(mu, log_var).sum(1)).mean()


def bojone_vae_cluster(x, x_hat, mu, log_var):
    # of one class with its mean at 0; a class's mean shifts mu
    return (2.5 * 0.5 * squared(x, x_hat).sum(1) + sampled_kl(mu, log_var).sum(1)).mean()


def jackson_kang(x, x_hat, mu, log_var):
    return bce(x, x_hat).sum() + kl(mu, log_var).sum()
