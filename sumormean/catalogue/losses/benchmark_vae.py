"""Losses of Benchmark_VAE (pythae), before and after its release 0.1.2."""

from sumormean.catalogue.entries import entry
from sumormean.catalogue.parts import bce, codebook, commitment, kl, squared


@entry(
    title="Benchmark_VAE, VAE, mse, first version",
    repository="clementchadebec/benchmark_VAE",
    path="src/pythae/models/vae/vae_model.py",
    commit="6c27965",
    when="2021-10-03",
    terms="sum_BD SE + sum_BM KL",
    likelihood="gaussian",
    data="MNIST, grey",
    threshold="mnist",
    shape=(1, 28, 28),
    latent_dim=16,
    batch_size=100,
    c="2*B",
    beta="1/2",
    sigma2="1/2",
    surprise="No ½, so σ² = ½; loss and gradient grow with the batch.",
)
def pythae_vae_mse_2021_10(x, x_hat, mu, log_var):
    return squared(x, x_hat).sum() + kl(mu, log_var).sum()


@entry(
    title="Benchmark_VAE, VAE, mse, for some hours",
    repository="clementchadebec/benchmark_VAE",
    path="src/pythae/models/vae/vae_model.py",
    commit="7992fbd",
    when="2021-10-24",
    terms="mean_B( sum_D SE + sum_BM KL )",
    likelihood="gaussian",
    data="MNIST, grey",
    threshold="mnist",
    shape=(1, 28, 28),
    latent_dim=16,
    batch_size=100,
    c="2",
    beta="B/2",
    sigma2="B/2",
    surprise=(
        "A change that harmonised the losses summed the KL over the batch as well: 100 times too "
        "strong. Repaired within a day."
    ),
)
def pythae_vae_mse_7992fbd(x, x_hat, mu, log_var):
    # the KL is summed over the batch, and then a scalar is added to every image
    return (squared(x, x_hat).sum(1) + kl(mu, log_var).sum()).mean()


@entry(
    title="Benchmark_VAE, VAE, mse, before 0.1.2",
    repository="clementchadebec/benchmark_VAE",
    path="src/pythae/models/vae/vae_model.py",
    commit="9c23674",
    when="2021-10-24 to 2023-09-06",
    terms="mean_B( sum_D SE + sum_M KL )",
    likelihood="gaussian",
    data="MNIST, grey",
    threshold="mnist",
    shape=(1, 28, 28),
    latent_dim=16,
    batch_size=100,
    c="2",
    beta="1/2",
    sigma2="1/2",
    surprise=(
        "Trained with σ² = ½, while its likelihood evaluation (from 2022-03) scored with σ² = 1: "
        "two different models."
    ),
)
def pythae_vae_mse_old(x, x_hat, mu, log_var):
    return (squared(x, x_hat).sum(1) + kl(mu, log_var).sum(1)).mean()


@entry(
    title="Benchmark_VAE, VAE, mse, since 0.1.2",
    repository="clementchadebec/benchmark_VAE",
    path="src/pythae/models/vae/vae_model.py",
    commit="337c2e1",
    when="since 2023-09-06",
    terms="mean_B( ½ sum_D SE + sum_M KL )",
    likelihood="gaussian",
    data="MNIST, grey",
    threshold="mnist",
    shape=(1, 28, 28),
    latent_dim=16,
    batch_size=100,
    c="1",
    beta="1",
    sigma2="1",
    surprise="The ELBO. The same configuration means another model than before 0.1.2.",
)
def pythae_vae_mse_now(x, x_hat, mu, log_var):
    return (0.5 * squared(x, x_hat).sum(1) + kl(mu, log_var).sum(1)).mean()


@entry(
    title="Benchmark_VAE, VAE, bce",
    repository="clementchadebec/benchmark_VAE",
    path="src/pythae/models/vae/vae_model.py",
    commit="6419e21",
    when="since 2021-10-24",
    terms="mean_B( sum_D BCE + sum_M KL )",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(1, 28, 28),
    latent_dim=16,
    batch_size=100,
    c="1",
    beta="1",
    surprise="The ELBO, but the default is mse: bce must be asked for.",
)
def pythae_vae_bce(x, x_hat, mu, log_var):
    return (bce(x, x_hat).sum(1) + kl(mu, log_var).sum(1)).mean()


@entry(
    title="Benchmark_VAE, β-VAE with 2, mse, before 0.1.2",
    repository="clementchadebec/benchmark_VAE",
    path="src/pythae/models/beta_vae/beta_vae_model.py",
    commit="v0.1.1",
    when="before 2023-09-06",
    terms="mean_B( sum_D SE + 2 sum_M KL )",
    likelihood="gaussian",
    data="MNIST, grey",
    threshold="mnist",
    shape=(1, 28, 28),
    latent_dim=16,
    batch_size=100,
    c="2",
    beta="2/2",
    sigma2="2/2",
    surprise="A β of 2 in the configuration was a β of 1.",
)
def pythae_betavae_mse_old(x, x_hat, mu, log_var):
    return (squared(x, x_hat).sum(1) + 2 * kl(mu, log_var).sum(1)).mean()


@entry(
    title="Benchmark_VAE, β-VAE with 2, mse, since 0.1.2",
    repository="clementchadebec/benchmark_VAE",
    path="src/pythae/models/beta_vae/beta_vae_model.py",
    commit="337c2e1",
    when="since 2023-09-06",
    terms="mean_B( ½ sum_D SE + 2 sum_M KL )",
    likelihood="gaussian",
    data="MNIST, grey",
    threshold="mnist",
    shape=(1, 28, 28),
    latent_dim=16,
    batch_size=100,
    c="1",
    beta="2",
    sigma2="2",
    surprise="The same β of 2 is now a β of 2.",
)
def pythae_betavae_mse_now(x, x_hat, mu, log_var):
    return (0.5 * squared(x, x_hat).sum(1) + 2 * kl(mu, log_var).sum(1)).mean()


@entry(
    title="Benchmark_VAE, β-VAE with 2, bce",
    repository="clementchadebec/benchmark_VAE",
    path="src/pythae/models/beta_vae/beta_vae_model.py",
    commit="6419e21",
    terms="mean_B( sum_D BCE + 2 sum_M KL )",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(1, 28, 28),
    latent_dim=16,
    batch_size=100,
    c="1",
    beta="2",
    surprise="Here the release makes no difference.",
)
def pythae_betavae_bce(x, x_hat, mu, log_var):
    return (bce(x, x_hat).sum(1) + 2 * kl(mu, log_var).sum(1)).mean()


@entry(
    title="Benchmark_VAE, VQ-VAE, up to release 0.1.2",
    repository="clementchadebec/benchmark_VAE",
    path="src/pythae/models/vq_vae/vq_vae_utils.py",
    commit="v0.1.2",
    when="before 2024-01-21",
    terms="mean_B( sum_D SE + 0.25 mean_BM commitment + mean_BM codebook )",
    likelihood="gaussian",
    data="MNIST, grey",
    threshold="mnist",
    shape=(1, 28, 28),
    latent_dim=16,
    batch_size=100,
    c="2",
    codebook="1/(2*M)",
    commitment="0.25/(2*M)",
    chosen=("latent_dim",),
    surprise=(
        "The reconstruction is summed, the quantiser averaged over everything: its weight falls "
        "with the size of the code."
    ),
)
def pythae_vqvae_old(x, x_hat, z, e):
    quantiser = 0.25 * commitment(z, e).mean() + codebook(z, e).mean()
    return (squared(x, x_hat).sum(1) + quantiser).mean()


@entry(
    title="Benchmark_VAE, VQ-VAE, after release 0.1.2",
    repository="clementchadebec/benchmark_VAE",
    path="src/pythae/models/vq_vae/vq_vae_utils.py",
    commit="b5c7462",
    when="since 2024-01-21",
    terms="mean_B( sum_D SE + 0.25 sum_BM commitment + sum_BM codebook )",
    likelihood="gaussian",
    data="MNIST, grey",
    threshold="mnist",
    shape=(1, 28, 28),
    latent_dim=16,
    batch_size=100,
    c="2",
    codebook="B/2",
    commitment="0.25*B/2",
    chosen=("latent_dim",),
    surprise=(
        "Summed, but over the batch too, and then added to every image: the quantiser's weight "
        "grows with the batch size. In no release yet."
    ),
)
def pythae_vqvae_now(x, x_hat, z, e):
    quantiser = 0.25 * commitment(z, e).sum() + codebook(z, e).sum()  # over the batch as well
    return (squared(x, x_hat).sum(1) + quantiser).mean()
