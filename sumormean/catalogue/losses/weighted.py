"""Losses whose KL is weighted on purpose: β-VAEs, an autoencoder, first stages of diffusion."""

import math

from sumormean.catalogue.entries import entry
from sumormean.catalogue.parts import absolute, kl, squared
from vaeloss.likelihoods import bernoulli_nll


@entry(
    title="β-VAE by 1Konny, dSprites, 4",
    repository="1Konny/Beta-VAE",
    path="solver.py",
    commit="977a1ec",
    terms="sum_BD BCE / B + 4 mean_B sum_M KL",
    likelihood="bernoulli-logits",
    data="dSprites",
    shape=(1, 64, 64),
    latent_dim=10,
    batch_size=64,
    c="1",
    beta="4",
    surprise="A β of 4 is a β of 4: cross-entropy.",
)
def beta_1konny_dsprites(x, logits, mu, log_var):
    return bernoulli_nll(x, logits).sum() / len(x) + 4 * kl(mu, log_var).sum(1).mean()


@entry(
    title="β-VAE by 1Konny, 3D chairs, 4",
    repository="1Konny/Beta-VAE",
    path="solver.py",
    commit="977a1ec",
    terms="sum_BD SE / B + 4 mean_B sum_M KL",
    likelihood="gaussian",
    data="3D chairs",
    shape=(3, 64, 64),
    latent_dim=10,
    batch_size=64,
    c="2",
    beta="4/2",
    sigma2="4/2",
    surprise="A β of 4 is a β of 2: squared error without ½ halves it.",
)
def beta_1konny_3dchairs(x, x_hat, mu, log_var):
    return squared(x, x_hat).sum() / len(x) + 4 * kl(mu, log_var).sum(1).mean()


@entry(
    title="β-VAE by 1Konny, CelebA, 10",
    repository="1Konny/Beta-VAE",
    path="solver.py",
    commit="977a1ec",
    terms="sum_BD SE / B + 10 mean_B sum_M KL",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    shape=(3, 64, 64),
    latent_dim=10,
    batch_size=64,
    c="2",
    beta="10/2",
    sigma2="10/2",
    surprise="A β of 10 is a β of 5.",
)
def beta_1konny_celeba(x, x_hat, mu, log_var):
    return squared(x, x_hat).sum() / len(x) + 10 * kl(mu, log_var).sum(1).mean()


@entry(
    title="disentanglement_lib, bernoulli, 4",
    repository="google-research/disentanglement_lib",
    path="disentanglement_lib/methods/shared/losses.py",
    commit="86a644d",
    terms="mean_B( sum_D BCE + 4 sum_M KL )",
    likelihood="bernoulli-logits",
    data="dSprites",
    shape=(64, 64, 1),
    latent_dim=10,
    batch_size=64,
    c="1",
    beta="4",
    surprise="It alone offers to subtract the floor of the cross-entropy.",
)
def disentanglement_lib_bernoulli(x, logits, mu, log_var):
    return (bernoulli_nll(x, logits) + 4 * kl(mu, log_var).sum(1)).mean()


@entry(
    title="disentanglement_lib, l2, 4",
    repository="google-research/disentanglement_lib",
    path="disentanglement_lib/methods/shared/losses.py",
    commit="86a644d",
    terms="mean_B( sum_D SE + 4 sum_M KL )",
    likelihood="gaussian",
    data="MPI3D and others",
    shape=(64, 64, 3),
    latent_dim=10,
    batch_size=64,
    c="2",
    beta="4/2",
    sigma2="4/2",
    surprise="The same β of 4, halved by the missing ½.",
)
def disentanglement_lib_l2(x, x_hat, mu, log_var):
    return (squared(x, x_hat).sum(1) + 4 * kl(mu, log_var).sum(1)).mean()


@entry(
    title="UvA Deep Learning tutorial 9",
    repository="phlippe/uvadlc_notebooks",
    path="docs/tutorial_notebooks/tutorial9/AE_CIFAR10.ipynb",
    commit="03903de",
    terms="mean_B sum_D SE",
    likelihood="gaussian",
    data="CIFAR-10",
    pixels=(-1, 1),
    shape=(3, 32, 32),
    latent_dim=128,
    batch_size=256,
    c="2",
    beta="0",
    chosen=("latent_dim",),
    surprise=(
        "An autoencoder, not a VAE: here any mean or sum does give the same result, as its text "
        "says."
    ),
)
def uvadlc_t9(x, x_hat, mu, log_var):
    return squared(x, x_hat).sum(1).mean()


@entry(
    title="Stable Diffusion, first stage",
    repository="CompVis/stable-diffusion",
    path="ldm/modules/losses/contperceptual.py",
    commit="21f890f",
    terms="[ sum_BD AE + 1e-6 sum_BM KL ] / B",
    likelihood="laplace",
    data="OpenImages 256 x 256",
    pixels=(-1, 1),
    shape=(3, 256, 256),
    latent_dim=4096,
    batch_size=12,
    c="1",
    beta="1e-6",
    besides="a perceptual term added to every pixel, and a GAN",
    surprise=(
        "Hardly a KL at all: a regularised autoencoder. A log-variance is there but given to no "
        "optimiser."
    ),
)
def stable_diffusion_kl(x, x_hat, mu, log_var, log_scale=0.0):
    nll = absolute(x, x_hat) / math.exp(log_scale) + log_scale
    return nll.sum() / len(x) + 1e-6 * kl(mu, log_var).sum() / len(x)


@entry(
    title="Stability's generative-models, first stage",
    repository="Stability-AI/generative-models",
    path="sgm/modules/autoencoding/losses/discriminator_loss.py",
    commit="07bf825",
    terms="[ sum_BD AE + 1e-6 sum_BM KL ] / B",
    likelihood="laplace",
    data="images 256 x 256",
    pixels=(-1, 1),
    shape=(3, 256, 256),
    latent_dim=4096,
    batch_size=12,
    c="1",
    beta="1e-6",
    besides="a perceptual term and a GAN",
    chosen=("shape", "latent_dim", "batch_size"),
    surprise="The log-variance may now be learned; by default it is not.",
)
def sgm_kl(x, x_hat, mu, log_var):
    return absolute(x, x_hat).sum() / len(x) + 1e-6 * kl(mu, log_var).sum() / len(x)


@entry(
    title="diffusers, AutoencoderKL, l2",
    repository="huggingface/diffusers",
    path="examples/research_projects/autoencoderkl/train_autoencoderkl.py",
    commit="2e348b8",
    terms="[ sum_BD SE + 1e-6 sum_BM KL ] / B",
    likelihood="gaussian",
    data="images 256 x 256",
    pixels=(-1, 1),
    shape=(3, 256, 256),
    latent_dim=4096,
    batch_size=4,
    c="2",
    beta="1e-6/2",
    sigma2="1e-6/2",
    besides="a perceptual term without gradient, and a GAN",
    chosen=("batch_size",),
    surprise=(
        "The perceptual term has no gradient, so its weight changes the log and nothing else. "
        "Gradient clipping makes c matter."
    ),
)
def diffusers_kl_l2(x, x_hat, mu, log_var):
    return squared(x, x_hat).sum() / len(x) + 1e-6 * kl(mu, log_var).sum() / len(x)


@entry(
    title="diffusers, AutoencoderKL, l1",
    repository="huggingface/diffusers",
    path="examples/research_projects/autoencoderkl/train_autoencoderkl.py",
    commit="2e348b8",
    terms="[ sum_BD AE + 1e-6 sum_BM KL ] / B",
    likelihood="laplace",
    data="images 256 x 256",
    pixels=(-1, 1),
    shape=(3, 256, 256),
    latent_dim=4096,
    batch_size=4,
    c="1",
    beta="1e-6",
    besides="a perceptual term without gradient, and a GAN",
    chosen=("batch_size",),
    surprise="Another likelihood, twice the β, the same option file.",
)
def diffusers_kl_l1(x, x_hat, mu, log_var):
    return absolute(x, x_hat).sum() / len(x) + 1e-6 * kl(mu, log_var).sum() / len(x)
