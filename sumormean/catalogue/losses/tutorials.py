"""Losses of tutorials and of single authors."""

from sumormean.catalogue.entries import entry
from sumormean.catalogue.parts import bce, kl, sampled_kl, squared
from vaeloss.likelihoods import gaussian_nll


@entry(
    title="generative-models by wiseodd",
    repository="wiseodd/generative-models",
    path="VAE/vanilla_vae/vae_pytorch.py",
    commit="b930d5f",
    terms="sum_BD BCE / B + mean_B sum_M KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=100,
    batch_size=64,
    c="1",
    beta="1",
    surprise=(
        "The ELBO. Issue 40 advises another learning rate for the mean; with Adam that is wrong."
    ),
)
def wiseodd_vae(x, x_hat, mu, log_var):
    return bce(x, x_hat).sum() / len(x) + kl(mu, log_var).sum(1).mean()


@entry(
    title="VAE by bojone",
    repository="bojone/vae",
    path="vae_keras.py",
    commit="69931f5",
    terms="mean_B( sum_D BCE + sum_M KL )",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=2,
    batch_size=100,
    c="1",
    beta="1",
    surprise="The ELBO.",
)
def bojone_vae(x, x_hat, mu, log_var):
    return (bce(x, x_hat).sum(1) + kl(mu, log_var).sum(1)).mean()


@entry(
    title="VAE by bojone, CelebA",
    repository="bojone/vae",
    path="vae_keras_celeba.py",
    commit="69931f5",
    terms="mean_B( sum_D Gaussian NLL + sum_M sampled KL )",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    pixels=(-1, 1),
    shape=(64, 64, 3),
    latent_dim=512,
    batch_size=32,
    c="1",
    beta="1",
    sigma2="1",
    surprise="The ELBO; on pixels in [-1, 1], so σ² = ¼ for pixels in [0, 1].",
)
def bojone_vae_celeba(x, x_hat, mu, log_var):
    return (gaussian_nll(x, x_hat) + sampled_kl(mu, log_var).sum(1)).mean()


@entry(
    title="VAE by bojone, clustering",
    repository="bojone/vae",
    path="vae_keras_cluster.py",
    commit="69931f5",
    terms="mean_B( 2.5 · ½ sum_D SE + sum_M sampled KL )",
    likelihood="gaussian",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=20,
    batch_size=100,
    c="2.5",
    beta="1/2.5",
    sigma2="1/2.5",
    besides="a term for the class",
    surprise=(
        "A comment says it exactly: the reciprocal of the weight is the variance of the "
        "reconstruction."
    ),
)
def bojone_vae_cluster(x, x_hat, mu, log_var):
    # of one class with its mean at 0; a class's mean shifts mu
    return (2.5 * 0.5 * squared(x, x_hat).sum(1) + sampled_kl(mu, log_var).sum(1)).mean()


@entry(
    title="Pytorch-VAE-tutorial",
    repository="Jackson-Kang/Pytorch-VAE-tutorial",
    path="01_Variational_AutoEncoder.ipynb",
    commit="1f9e0d2",
    terms="sum_BD BCE + sum_BM KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=200,
    batch_size=100,
    c="B",
    beta="1",
    surprise="The ELBO, times the batch size.",
)
def jackson_kang(x, x_hat, mu, log_var):
    return bce(x, x_hat).sum() + kl(mu, log_var).sum()
