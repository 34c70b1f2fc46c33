"""Losses whose decoder has a variance that is learned or computed, and a continuous Bernoulli."""

import math

import torch.nn.functional as F

from sumormean.catalogue.entries import entry
from sumormean.catalogue.parts import kl, sampled_kl, squared
from vaeloss.likelihoods import continuous_bernoulli_nll, gaussian_nll


@entry(
    title="σ-VAE code, σ = 1",
    repository="orybkin/sigma-vae-pytorch",
    path="model.py",
    commit="4748a3a",
    terms="sum_BD Gaussian NLL + sum_BM KL",
    likelihood="gaussian",
    data="SVHN 28 x 28",
    shape=(3, 28, 28),
    latent_dim=20,
    batch_size=128,
    c="B",
    beta="1",
    sigma2="1",
    surprise="The ELBO with all its constants.",
)
def sigma_gaussian(x, x_hat, mu, log_var):
    return gaussian_nll(x, x_hat, 1.0).sum() + kl(mu, log_var).sum()


@entry(
    title="σ-VAE code, one learned σ",
    repository="orybkin/sigma-vae-pytorch",
    path="model.py",
    commit="4748a3a",
    terms="sum_BD Gaussian NLL(σ) + sum_BM KL",
    likelihood="gaussian",
    data="SVHN 28 x 28",
    shape=(3, 28, 28),
    latent_dim=20,
    batch_size=128,
    c="B/exp(2*(log(1+exp(6))-6))",
    beta="exp(2*(log(1+exp(6))-6))",
    sigma2="exp(2*(log(1+exp(6))-6))",
    surprise=(
        "Where σ starts: at 1.002, because of a soft floor. σ² is then learned and carries β with "
        "it."
    ),
)
def sigma_learned(x, x_hat, mu, log_var, log_sigma=0.0):
    log_sigma = -6 + math.log1p(math.exp(log_sigma + 6))  # a soft floor at -6
    return gaussian_nll(x, x_hat, math.exp(2 * log_sigma)).sum() + kl(mu, log_var).sum()


@entry(
    title="σ-VAE code, optimal σ",
    repository="orybkin/sigma-vae-pytorch",
    path="model.py",
    commit="4748a3a",
    terms="sum_BD Gaussian NLL(σ² = mean_BD SE) + sum_BM KL",
    likelihood="gaussian",
    data="SVHN 28 x 28",
    shape=(3, 28, 28),
    latent_dim=20,
    batch_size=128,
    refused="reconstruction-weight-varies",
    surprise=(
        "D/2 · log MSE: the weight follows the error, so there is no constant β. That is the point."
    ),
)
def sigma_optimal(x, x_hat, mu, log_var):
    return gaussian_nll(x, x_hat, squared(x, x_hat).mean()).sum() + kl(mu, log_var).sum()


@entry(
    title="σ-VAE code, the baseline not to use",
    repository="orybkin/sigma-vae-pytorch",
    path="model.py",
    commit="4748a3a",
    terms="mean_BD SE + sum_BM KL",
    likelihood="gaussian",
    data="SVHN 28 x 28",
    shape=(3, 28, 28),
    latent_dim=20,
    batch_size=128,
    c="2/D",
    beta="B*D/2",
    sigma2="B*D/2",
    surprise=(
        "The example of a bad loss is 128 times worse than its text says: the error is averaged "
        "over the batch too, the KL is not."
    ),
)
def sigma_mse_strawman(x, x_hat, mu, log_var):
    return F.mse_loss(x_hat, x) + kl(mu, log_var).sum()


@entry(
    title="Two-stage VAE",
    repository="daib13/TwoStageVAE",
    path="network/two_stage_vae_model.py",
    commit="8718623",
    terms="[ sum_BD Gaussian NLL(γ) + sum_BM KL ] / B",
    likelihood="gaussian",
    data="CelebA, CIFAR-10",
    shape=(64, 64, 3),
    latent_dim=64,
    batch_size=64,
    c="1",
    beta="1",
    sigma2="1",
    surprise=(
        "At γ = 1; γ is learned. It is a variance in the paper and a standard deviation in the "
        "code."
    ),
)
def two_stage_vae(x, x_hat, mu, log_var, gamma=1.0):
    return (gaussian_nll(x, x_hat, gamma**2).sum() + kl(mu, log_var).sum()) / len(x)


@entry(
    title="Balancing VAE, CIFAR-10",
    repository="asperti/BalancingVAE",
    path="computed_gamma.py",
    commit="d9f3997",
    terms="[ sum_BD SE / (2 γ²) + k sum_BM KL ] / B",
    likelihood="gaussian",
    data="CIFAR-10",
    shape=(32, 32, 3),
    latent_dim=128,
    batch_size=100,
    c="1",
    beta="1/4",
    sigma2="1/4",
    surprise=(
        "At γ = 1; γ² then follows the running minimum of the MSE. The KL is also multiplied by "
        "an undocumented k = (2·side/M)²."
    ),
)
def balancing_vae_cifar(x, x_hat, mu, log_var, gamma=1.0):
    k = (2 * 32 / 128) ** 2
    return (squared(x, x_hat).sum() / (2 * gamma**2) + k * kl(mu, log_var).sum()) / len(x)


@entry(
    title="Balancing VAE, CelebA",
    repository="asperti/BalancingVAE",
    path="computed_gamma.py",
    commit="d9f3997",
    terms="[ sum_BD SE / (2 γ²) + k sum_BM KL ] / B",
    likelihood="gaussian",
    data="CelebA",
    shape=(64, 64, 3),
    latent_dim=64,
    batch_size=100,
    c="1",
    beta="4",
    sigma2="4",
    surprise=(
        "At γ = 1; γ² then follows the running minimum of the MSE. The KL is also multiplied by "
        "an undocumented k = (2·side/M)²."
    ),
)
def balancing_vae_celeba(x, x_hat, mu, log_var, gamma=1.0):
    k = (2 * 64 / 64) ** 2
    return (squared(x, x_hat).sum() / (2 * gamma**2) + k * kl(mu, log_var).sum()) / len(x)


@entry(
    title="pytorch-lightning-vae",
    repository="williamFalcon/pytorch-lightning-vae",
    path="vae.py",
    commit="db7b9da",
    terms="mean_B( sum_D Gaussian NLL(σ) + sum_M sampled KL )",
    likelihood="gaussian",
    data="CIFAR-10, standardised",
    pixels=(-2, 2),
    shape=(3, 32, 32),
    latent_dim=256,
    batch_size=64,
    c="1",
    beta="1",
    sigma2="1",
    chosen=("batch_size",),
    surprise=(
        "At log σ = 0; σ is learned. A density may exceed one, so the loss may be negative: users "
        "worried (issue 3)."
    ),
)
def falcon_vae(x, x_hat, mu, log_var, log_scale=0.0):
    nll = gaussian_nll(x, x_hat, math.exp(2 * log_scale))
    return (nll + sampled_kl(mu, log_var).sum(1)).mean()


@entry(
    title="Continuous Bernoulli",
    repository="cunningham-lab/cb",
    path="cb_vae.py",
    commit="abee13f",
    terms="mean_B( -sum_D log CB(x|λ) + sum_M KL )",
    likelihood="continuous-bernoulli",
    data="MNIST, dequantised",
    shape=(784,),
    latent_dim=20,
    batch_size=50,
    c="1",
    beta="1",
    surprise="The ELBO of a density on [0, 1]. Gradients are clipped, so c matters even with Adam.",
)
def continuous_bernoulli(x, x_hat, mu, log_var):
    return (continuous_bernoulli_nll(x, x_hat.logit()) + 1.0 * kl(mu, log_var).sum(1)).mean()
