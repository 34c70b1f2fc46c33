"""Losses of the Keras examples, of keras.io and of *Deep Learning with Python*."""

from sumormean.catalogue.entries import entry
from sumormean.catalogue.parts import codebook, commitment, keras_bce, kl, squared


@entry(
    title="Keras example and blog, May 2016",
    repository="keras-team/keras",
    path="examples/variational_autoencoder.py",
    commit="d7ff7cde",
    when="2016-05-14",
    terms="mean_D BCE + mean_M KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=2,
    batch_size=16,
    c="1/D",
    beta="D/M",
    surprise=(
        "β = 392 on paper. The KL is written for log σ² but given log σ, and the noise has a std "
        "of 0.01: three errors that hide each other."
    ),
)
def keras_blog_2016_05(x, x_hat, mu, log_var):
    return (keras_bce(x, x_hat) + kl(mu, log_var).mean(1)).mean()


@entry(
    title="Keras example, for one day",
    repository="keras-team/keras",
    path="examples/variational_autoencoder.py",
    commit="59bd2476",
    when="2016-07-24",
    terms="784 mean_D BCE + sum_M KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=2,
    batch_size=100,
    c="1",
    beta="1",
    surprise="The first correct version lived for one day.",
)
def keras_2016_07_24(x, x_hat, mu, log_var):
    return (784 * keras_bce(x, x_hat) + kl(mu, log_var).sum(1)).mean()


@entry(
    title="Keras example, after a clean-up",
    repository="keras-team/keras",
    path="examples/variational_autoencoder.py",
    commit="f6bcaffe",
    when="2016-07-25 to 2016-08-03",
    terms="mean_D BCE + sum_M KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=2,
    batch_size=100,
    c="1/D",
    beta="D",
    surprise=(
        "A change called a fix of style removed the factor 784: posterior collapse for nine days "
        "(issue 3373, pull request 3383)."
    ),
)
def keras_2016_07_25(x, x_hat, mu, log_var):
    return (keras_bce(x, x_hat) + kl(mu, log_var).sum(1)).mean()


@entry(
    title="Keras example, autumn 2016",
    repository="keras-team/keras",
    path="examples/variational_autoencoder.py",
    commit="51c85dd8",
    when="2016-09-28 to 2016-11-02",
    terms="784 mean_D BCE + sum_M KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=2,
    batch_size=100,
    c="1",
    beta="1",
    surprise=(
        "The loss is right, the sampler is not: its noise is 100 times smaller than the KL says "
        "(pull request 4211)."
    ),
)
def keras_2016_09(x, x_hat, mu, log_var):
    return (784 * keras_bce(x, x_hat) + kl(mu, log_var).sum(1)).mean()


@entry(
    title="Keras example, 2018",
    repository="keras-team/keras",
    path="examples/variational_autoencoder.py",
    commit="0ba6d95e",
    when="since 2018-05-11",
    terms="mean_B( 784 mean_D BCE + sum_M KL )",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=2,
    batch_size=128,
    c="1",
    beta="1",
    surprise="The ELBO: times 784 undoes the mean.",
)
def keras_2018_bce(x, x_hat, mu, log_var):
    return (784 * keras_bce(x, x_hat) + kl(mu, log_var).sum(1)).mean()


@entry(
    title="Keras example, 2018, --mse",
    repository="keras-team/keras",
    path="examples/variational_autoencoder.py",
    commit="0ba6d95e",
    when="since 2018-05-11",
    terms="mean_B( 784 mean_D SE + sum_M KL )",
    likelihood="gaussian",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=2,
    batch_size=128,
    c="2",
    beta="1/2",
    sigma2="1/2",
    surprise="The option changes the likelihood and, by the missing ½, the noise: σ² = ½.",
)
def keras_2018_mse(x, x_hat, mu, log_var):
    return (784 * (x - x_hat).square().mean(-1) + kl(mu, log_var).sum(1)).mean()


@entry(
    title="Keras convolutional example, 2016",
    repository="keras-team/keras",
    path="examples/variational_autoencoder_deconv.py",
    commit="c689b52d",
    when="2016-07-25",
    terms="mean_BD BCE + mean_BM KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(28, 28, 1),
    latent_dim=2,
    batch_size=16,
    c="1/D",
    beta="D/M",
    surprise="The blog's three errors, copied.",
)
def keras_deconv_2016_07(x, x_hat, mu, log_var):
    return keras_bce(x.flatten(), x_hat.flatten()) + kl(mu, log_var).mean(1).mean()


@entry(
    title="Keras convolutional example, 2016 to 2018",
    repository="keras-team/keras",
    path="examples/variational_autoencoder_deconv.py",
    commit="51c85dd8",
    when="2016-09-28 to 2018-01-24",
    terms="784 mean_BD BCE + mean_BM KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(28, 28, 1),
    latent_dim=2,
    batch_size=100,
    c="1",
    beta="1/M",
    surprise="β = ½ for 16 months; a pull request that repaired it was declined (4538).",
)
def keras_deconv_2016_09(x, x_hat, mu, log_var):
    return 784 * keras_bce(x.flatten(), x_hat.flatten()) + kl(mu, log_var).mean(1).mean()


@entry(
    title="keras.io example, July 2020",
    repository="keras-team/keras-io",
    path="examples/generative/vae.py",
    commit="July 2020",
    when="2020-07",
    terms="784 mean_BD BCE + mean_BM KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(28, 28, 1),
    latent_dim=2,
    batch_size=128,
    c="1",
    beta="1/M",
    surprise="The KL is averaged over the latents: β = ½ with 2 of them, 0.05 with 20.",
    evidence="quotations and copies",
)
def keras_io_2020_07(x, x_hat, mu, log_var):
    return 28 * 28 * keras_bce(x, x_hat).mean() + kl(mu, log_var).mean()


@entry(
    title="keras.io example, now",
    repository="keras-team/keras-io",
    path="examples/generative/vae.py",
    commit="cca4efb",
    terms="mean_B sum_HW mean_C BCE + mean_B sum_M KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(28, 28, 1),
    latent_dim=2,
    batch_size=128,
    c="1",
    beta="1",
    surprise="The ELBO, for images with one channel.",
)
def keras_io_now(x, x_hat, mu, log_var):
    return keras_bce(x, x_hat).sum((1, 2)).mean() + kl(mu, log_var).sum(1).mean()


@entry(
    title="keras.io example, given colour images",
    repository="keras-team/keras-io",
    path="examples/generative/vae.py",
    commit="cca4efb",
    terms="mean_B sum_HW mean_C BCE + mean_B sum_M KL",
    likelihood="bernoulli",
    data="any 32 x 32 in colour",
    shape=(32, 32, 3),
    latent_dim=2,
    batch_size=128,
    c="1/3",
    beta="3",
    chosen=("shape",),
    surprise="The same lines on three channels: the call averages the last axis, so β = 3.",
)
def keras_io_now_rgb(x, x_hat, mu, log_var):
    return keras_io_now(x, x_hat, mu, log_var)  # the same lines, three channels


@entry(
    title="keras.io VQ-VAE example",
    repository="keras-team/keras-io",
    path="examples/generative/vq_vae.py",
    commit="018e574",
    terms="mean_BD SE / variance + mean_BM codebook + 0.25 mean_BM commitment",
    likelihood="gaussian",
    data="MNIST, grey",
    threshold="mnist",
    pixels=(-0.5, 0.5),
    shape=(28, 28, 1),
    latent_dim=784,
    batch_size=128,
    c="2/(D*0.0949)",
    codebook="0.0949*D/(2*M)",
    commitment="0.25*0.0949*D/(2*M)",
    surprise="Sonnet's recipe: dividing by the variance of the data is a choice of σ².",
)
def keras_io_vqvae(x, x_hat, z, e, variance=0.0949):
    reconstruction = squared(x, x_hat).mean() / variance
    return reconstruction + codebook(z, e).mean() + 0.25 * commitment(z, e).mean()


@entry(
    title="Deep Learning with Python, 1st edition",
    repository="fchollet/deep-learning-with-python-notebooks",
    path="first_edition/8.4-generating-images-with-vaes.ipynb",
    commit="27f60b0",
    terms="mean_BD BCE - 5e-4 mean_M( 1 + log_var - mu² - exp(log_var) )",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(28, 28, 1),
    latent_dim=2,
    batch_size=16,
    c="1/D",
    beta="1e-3*D/M",
    surprise=(
        "An unexplained 5e-4 makes β = 0.39. The sampler takes the log-variance for a log-std."
    ),
)
def chollet_1e(x, x_hat, mu, log_var):
    reconstruction = keras_bce(x.flatten(1), x_hat.flatten(1))
    kl_term = -5e-4 * (1 + log_var - mu.square() - log_var.exp()).mean(1)
    return (reconstruction + kl_term).mean()


@entry(
    title="Deep Learning with Python, 2nd and 3rd editions",
    repository="fchollet/deep-learning-with-python-notebooks",
    path="chapter12_part04_variational-autoencoders.ipynb",
    commit="1bb759b",
    terms="mean_B sum_D BCE + mean_BM KL",
    likelihood="bernoulli",
    data="MNIST, grey",
    threshold="mnist",
    shape=(28, 28, 1),
    latent_dim=2,
    batch_size=128,
    c="1",
    beta="1/M",
    surprise="The mean over the latents that keras.io has since repaired: β = ½ in print.",
)
def chollet_2e_3e(x, x_hat, mu, log_var):
    return keras_bce(x, x_hat).sum((1, 2)).mean() + kl(mu, log_var).mean()
