"""Losses of PyTorch's own example and of PyTorch-VAE."""

from sumormean.catalogue.entries import entry
from sumormean.catalogue.parts import bce, codebook, commitment, kl, squared


@entry(
    title="PyTorch example, January 2017",
    repository="pytorch/examples",
    path="vae/main.py",
    commit="1d84800",
    when="2017-01",
    terms="sum_BD BCE + sum_BM KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(1, 28, 28),
    latent_dim=20,
    batch_size=128,
    c="B",
    beta="1",
    surprise="The ELBO, times the batch size.",
)
def pytorch_2017_01(x, x_hat, mu, log_var):
    return bce(x, x_hat).sum() + kl(mu, log_var).sum()


@entry(
    title="PyTorch example, October 2017",
    repository="pytorch/examples",
    path="vae/main.py",
    commit="ab7cb38",
    when="2017-10-01 to 2018-02-02",
    terms="mean_BD BCE + sum_BM KL / (128·784)",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(1, 28, 28),
    latent_dim=20,
    batch_size=128,
    c="1/D",
    beta="B/128",
    surprise=(
        "Both terms averaged, which is right, but by the nominal batch size: in the last batch, "
        "of 96, β = ¾."
    ),
)
def pytorch_2017_10(x, x_hat, mu, log_var):
    return bce(x, x_hat).mean() + kl(mu, log_var).sum() / (128 * 784)


@entry(
    title="PyTorch example, now",
    repository="pytorch/examples",
    path="vae/main.py",
    commit="963f7d1",
    when="since 2018-02-02",
    terms="sum_BD BCE + sum_BM KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(1, 28, 28),
    latent_dim=20,
    batch_size=128,
    c="B",
    beta="1",
    surprise="The ELBO, times the batch size. On grey pixels its floor is 45 nats, not 0.",
)
def pytorch_now(x, x_hat, mu, log_var):
    return bce(x, x_hat).sum() + kl(mu, log_var).sum()


@entry(
    title="PyTorch-VAE, vanilla, training",
    repository="AntixK/PyTorch-VAE",
    path="models/vanilla_vae.py",
    commit="a6896b9",
    when="since 2021-12-22",
    terms="mean_BD SE + 0.00025 mean_B sum_M KL",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    shape=(3, 64, 64),
    latent_dim=128,
    batch_size=64,
    c="2/D",
    beta="0.00025*D/2",
    sigma2="0.00025*D/2",
    surprise=(
        "The weight is called a correction for mini-batches. It is a β, and depends on the image "
        "size."
    ),
)
def antixk_vanilla_train(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + 0.00025 * kl(mu, log_var).sum(1).mean()


@entry(
    title="PyTorch-VAE, vanilla, validation",
    repository="AntixK/PyTorch-VAE",
    path="experiment.py",
    commit="a6896b9",
    when="since 2021-12-22",
    terms="mean_BD SE + mean_B sum_M KL",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    shape=(3, 64, 64),
    latent_dim=128,
    batch_size=64,
    c="2/D",
    beta="D/2",
    sigma2="D/2",
    surprise=(
        "Checkpoints are chosen by this loss, whose KL weighs 4,000 times more than the one "
        "trained."
    ),
)
def antixk_vanilla_val(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + 1.0 * kl(mu, log_var).sum(1).mean()


@entry(
    title="PyTorch-VAE, vanilla, 2020",
    repository="AntixK/PyTorch-VAE",
    path="experiment.py",
    commit="90172be",
    terms="mean_BD SE + B/162770 mean_B sum_M KL",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    shape=(3, 64, 64),
    latent_dim=128,
    batch_size=144,
    c="2/D",
    beta="B/162770*D/2",
    sigma2="B/162770*D/2",
    surprise="β depends on the batch size and on the number of training images.",
)
def antixk_vanilla_old(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + len(x) / 162770 * kl(mu, log_var).sum(1).mean()


@entry(
    title="PyTorch-VAE, vanilla, 2020, validation",
    repository="AntixK/PyTorch-VAE",
    path="experiment.py",
    commit="90172be",
    terms="mean_BD SE + B/19867 mean_B sum_M KL",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    shape=(3, 64, 64),
    latent_dim=128,
    batch_size=144,
    c="2/D",
    beta="B/19867*D/2",
    sigma2="B/19867*D/2",
    surprise="8.2 times the β of training, because there are fewer images.",
)
def antixk_vanilla_old_val(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + len(x) / 19867 * kl(mu, log_var).sum(1).mean()


@entry(
    title="PyTorch-VAE, β-VAE with 10",
    repository="AntixK/PyTorch-VAE",
    path="models/beta_vae.py",
    commit="a6896b9",
    when="since 2021-12-22",
    terms="mean_BD SE + 10·0.00025 mean_B sum_M KL",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    shape=(3, 64, 64),
    latent_dim=128,
    batch_size=64,
    c="2/D",
    beta="10*0.00025*D/2",
    sigma2="10*0.00025*D/2",
    surprise="A β of 10 in the configuration is a β of 15.",
)
def antixk_beta(x, x_hat, mu, log_var):
    return squared(x, x_hat).mean() + 10 * 0.00025 * kl(mu, log_var).sum(1).mean()


@entry(
    title="PyTorch-VAE, β-VAE with a capacity",
    repository="AntixK/PyTorch-VAE",
    path="models/beta_vae.py",
    commit="a6896b9",
    when="since 2021-12-22",
    terms="mean_BD SE + 10·0.00025 |mean_B sum_M KL - C|",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    shape=(3, 64, 64),
    latent_dim=128,
    batch_size=64,
    c="2/D",
    refused="kl-weight-varies",
    surprise="No constant β: the KL is pulled towards C, from both sides.",
)
def antixk_beta_capacity(x, x_hat, mu, log_var, capacity=10.0):
    distance = (kl(mu, log_var).sum(1).mean() - capacity).abs()
    return squared(x, x_hat).mean() + 10 * 0.00025 * distance


@entry(
    title="PyTorch-VAE, DIP-VAE",
    repository="AntixK/PyTorch-VAE",
    path="models/dip_vae.py",
    commit="a6896b9",
    when="since 2021-12-22",
    terms="sum_BD SE + sum_BM KL",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    shape=(3, 64, 64),
    latent_dim=128,
    batch_size=64,
    c="2*B",
    beta="1/2",
    sigma2="1/2",
    besides="the DIP penalty, which is not summed over the batch",
    surprise=(
        "Summed where its siblings average: the weight 1 here and 0.00025 there are nearly the "
        "same balance."
    ),
)
def antixk_dip(x, x_hat, mu, log_var):
    return squared(x, x_hat).sum() + 1.0 * kl(mu, log_var).sum()


@entry(
    title="PyTorch-VAE, β-TC-VAE",
    repository="AntixK/PyTorch-VAE",
    path="models/betatc_vae.py",
    commit="a6896b9",
    when="since 2021-12-22",
    terms="sum_BD SE / B + mean_B sum_M KL",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    shape=(3, 64, 64),
    latent_dim=10,
    batch_size=64,
    c="2",
    beta="1/2",
    sigma2="1/2",
    besides="the split of the KL in three parts, all weighted by one here",
    surprise="A third convention in one repository.",
)
def antixk_betatc(x, x_hat, mu, log_var):
    # with all weights at one, its three parts of the KL add up to the KL
    return squared(x, x_hat).sum() / len(x) + kl(mu, log_var).sum(1).mean()


@entry(
    title="PyTorch-VAE, IWAE",
    repository="AntixK/PyTorch-VAE",
    path="models/iwae.py",
    commit="a6896b9",
    when="since 2021-12-22",
    terms="sum_S softmax_S(l)·l with l = mean_D SE + 0.00025 sum_M KL",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    shape=(3, 64, 64),
    latent_dim=128,
    batch_size=64,
    c="2/D",
    beta="0.00025*D/2",
    sigma2="0.00025*D/2",
    surprise=(
        "With one sample, as audited, this. With more, a sign error: the softmax of a loss "
        "favours the worst samples."
    ),
)
def antixk_iwae(x, x_hat, mu, log_var):
    loss = squared(x, x_hat).mean(1) + 0.00025 * kl(mu, log_var).sum(1)
    loss = loss[:, None]  # (B, S); S = 1 sample here
    return (loss.softmax(1) * loss).sum(1).mean()


@entry(
    title="PyTorch-VAE, VQ-VAE",
    repository="AntixK/PyTorch-VAE",
    path="models/vq_vae.py",
    commit="a6896b9",
    when="since 2021-12-22",
    terms="mean_BD SE + 0.25 mean_BM commitment + mean_BM codebook",
    likelihood="gaussian",
    data="CelebA 64 x 64",
    shape=(3, 64, 64),
    latent_dim=16384,
    batch_size=64,
    c="2/D",
    codebook="D/(2*M)",
    commitment="0.25*D/(2*M)",
    surprise="Means of different things: the weights depend on D/M.",
)
def antixk_vqvae(x, x_hat, z, e):
    return squared(x, x_hat).mean() + 0.25 * commitment(z, e).mean() + codebook(z, e).mean()
