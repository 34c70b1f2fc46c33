"""Losses of the examples of TensorFlow, Flax, Haiku, Pyro, Lightning Bolts and pyprobml."""

from sumormean.catalogue.entries import entry
from sumormean.catalogue.parts import bce, kl, sampled_kl, squared
from vaeloss.likelihoods import bernoulli_nll


@entry(
    title="TensorFlow tutorial",
    repository="tensorflow/docs",
    path="site/en/tutorials/generative/cvae.ipynb",
    commit="0d13617",
    terms="mean_B( sum_D BCE + sampled KL )",
    likelihood="bernoulli-logits",
    data="MNIST, binarised",
    threshold="mnist-binarised",
    shape=(28, 28, 1),
    latent_dim=2,
    batch_size=32,
    c="1",
    beta="1",
    surprise="The ELBO on pixels that are 0 or 1, with a sampled KL.",
)
def tf_cvae_tutorial(x, logits, mu, log_var):
    return -(-bernoulli_nll(x, logits) - sampled_kl(mu, log_var).sum(1)).mean()


@entry(
    title="Flax example",
    repository="google/flax",
    path="examples/vae/train.py",
    commit="88d7497",
    terms="mean_B sum_D BCE + mean_B sum_M KL",
    likelihood="bernoulli-logits",
    data="MNIST, binarised",
    threshold="mnist-binarised",
    shape=(784,),
    latent_dim=20,
    batch_size=128,
    c="1",
    beta="1",
    surprise="The ELBO.",
)
def flax_vae(x, logits, mu, log_var):
    return bernoulli_nll(x, logits).mean() + kl(mu, log_var).sum(1).mean()


@entry(
    title="Haiku example",
    repository="google-deepmind/dm-haiku",
    path="examples/vae.py",
    commit="01d83e4",
    terms="-mean_B( sum_D log p - sum_M KL )",
    likelihood="bernoulli-logits",
    data="MNIST, binarised",
    threshold="mnist-binarised",
    shape=(28, 28, 1),
    latent_dim=10,
    batch_size=128,
    c="1",
    beta="1",
    surprise="The ELBO.",
)
def haiku_vae(x, logits, mu, log_var):
    return -(-bernoulli_nll(x, logits) - kl(mu, log_var).sum(1)).mean()


@entry(
    title="Pyro example",
    repository="pyro-ppl/pyro",
    path="examples/vae/vae.py",
    commit="07ad8d8",
    terms="sum_BD BCE + sum_BM sampled KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=50,
    batch_size=256,
    c="B",
    beta="1",
    surprise="The ELBO, times the batch size.",
)
def pyro_vae(x, x_hat, mu, log_var):
    return bce(x, x_hat).sum() + sampled_kl(mu, log_var).sum()


@entry(
    title="Lightning Bolts, first VAE",
    repository="Lightning-Universe/lightning-bolts",
    path="pl_bolts/models/autoencoders/",
    commit="0066e32",
    terms="mean_B( sum_D SE + sum_M sampled KL )",
    likelihood="gaussian",
    data="MNIST, standardised",
    threshold="mnist",
    pixels=(-0.42, 2.82),
    shape=(1, 28, 28),
    latent_dim=32,
    batch_size=64,
    c="2",
    beta="1/2",
    sigma2="1/2",
    chosen=("latent_dim", "batch_size"),
    surprise="Inputs are standardised, outputs pass a tanh: the decoder cannot reach them.",
)
def bolts_old(x, x_hat, mu, log_var):
    return (squared(x, x_hat).sum(1) + sampled_kl(mu, log_var).sum(1)).mean()


@entry(
    title="Lightning Bolts, VAE, CIFAR-10",
    repository="Lightning-Universe/lightning-bolts",
    path="pl_bolts/models/autoencoders/basic_vae/basic_vae_module.py",
    commit="273e5a6",
    terms="mean_BD SE + 0.1 mean_BM sampled KL",
    likelihood="gaussian",
    data="CIFAR-10, standardised",
    pixels=(-2, 2),
    shape=(3, 32, 32),
    latent_dim=256,
    batch_size=256,
    c="2/D",
    beta="0.1*D/(2*M)",
    sigma2="0.1*D/(2*M)",
    surprise="One knob of 0.1, three different models on three data sets: β = 0.6, 5.4, 29.4.",
)
def bolts_vae_cifar(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + 0.1 * sampled_kl(mu, log_var).mean()


@entry(
    title="Lightning Bolts, VAE, STL-10",
    repository="Lightning-Universe/lightning-bolts",
    path="pl_bolts/models/autoencoders/basic_vae/basic_vae_module.py",
    commit="273e5a6",
    terms="mean_BD SE + 0.1 mean_BM sampled KL",
    likelihood="gaussian",
    data="STL-10, standardised",
    pixels=(-2, 2),
    shape=(3, 96, 96),
    latent_dim=256,
    batch_size=256,
    c="2/D",
    beta="0.1*D/(2*M)",
    sigma2="0.1*D/(2*M)",
    surprise="One knob of 0.1, three different models on three data sets: β = 0.6, 5.4, 29.4.",
)
def bolts_vae_stl(x, x_hat, mu, log_var):
    return bolts_vae_cifar(x, x_hat, mu, log_var)  # the same 0.1


@entry(
    title="Lightning Bolts, VAE, ImageNet",
    repository="Lightning-Universe/lightning-bolts",
    path="pl_bolts/models/autoencoders/basic_vae/basic_vae_module.py",
    commit="273e5a6",
    terms="mean_BD SE + 0.1 mean_BM sampled KL",
    likelihood="gaussian",
    data="ImageNet, standardised",
    pixels=(-2, 2),
    shape=(3, 224, 224),
    latent_dim=256,
    batch_size=256,
    c="2/D",
    beta="0.1*D/(2*M)",
    sigma2="0.1*D/(2*M)",
    surprise="One knob of 0.1, three different models on three data sets: β = 0.6, 5.4, 29.4.",
)
def bolts_vae_imagenet(x, x_hat, mu, log_var):
    return bolts_vae_cifar(x, x_hat, mu, log_var)


@entry(
    title="pyprobml, CelebA, default of the class",
    repository="probml/pyprobml",
    path="scripts/vae_celeba_lightning.py",
    commit="b3b20bd",
    terms="mean_BD SE + 0.1 mean_BM sampled KL",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    shape=(3, 64, 64),
    latent_dim=256,
    batch_size=500,
    c="2/D",
    beta="0.1*D/(2*M)",
    sigma2="0.1*D/(2*M)",
    surprise="Of two defaults, 50 times apart, the one of the class.",
)
def pyprobml_celeba(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + 0.1 * sampled_kl(mu, log_var).mean()


@entry(
    title="pyprobml, CelebA, command line",
    repository="probml/pyprobml",
    path="scripts/vae_celeba_lightning.py",
    commit="b3b20bd",
    terms="mean_BD SE + 5 mean_BM sampled KL",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    shape=(3, 64, 64),
    latent_dim=256,
    batch_size=500,
    c="2/D",
    beta="5*D/(2*M)",
    sigma2="5*D/(2*M)",
    surprise=(
        "Of two defaults, 50 times apart, the one of the command line, which takes whole numbers "
        "only."
    ),
)
def pyprobml_celeba_cli(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + 5 * sampled_kl(mu, log_var).mean()
