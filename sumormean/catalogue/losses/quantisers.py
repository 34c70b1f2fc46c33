"""Losses of quantisers: Sonnet, VQ-VAE-2 and vector-quantize-pytorch."""

from sumormean.catalogue.entries import entry
from sumormean.catalogue.parts import absolute, codebook, commitment, squared


@entry(
    title="Sonnet VQ-VAE",
    repository="google-deepmind/sonnet",
    path="examples/vqvae_example.ipynb",
    commit="5c5ef16",
    terms="mean_BD SE / variance + mean_BM codebook + 0.25 mean_BM commitment",
    likelihood="gaussian",
    data="CIFAR-10",
    pixels=(-0.5, 0.5),
    shape=(32, 32, 3),
    latent_dim=4096,
    batch_size=32,
    c="2/(D*0.06337)",
    codebook="0.06337*D/(2*M)",
    commitment="0.25*0.06337*D/(2*M)",
    surprise=(
        "Dividing by the variance of the data is a choice of σ²; its docstring says that the "
        "commitment cost must follow the reconstruction."
    ),
)
def sonnet_vqvae(x, x_hat, z, e, variance=0.06337):
    reconstruction = squared(x, x_hat).mean() / variance
    return reconstruction + codebook(z, e).mean() + 0.25 * commitment(z, e).mean()


@entry(
    title="VQ-VAE-2, top level",
    repository="rosinality/vq-vae-2-pytorch",
    path="train_vqvae.py",
    commit="ef5f67c",
    terms="mean_BD SE + 0.25 mean_BM commitment",
    likelihood="gaussian",
    data="any 256 x 256 in colour",
    pixels=(-1, 1),
    shape=(3, 256, 256),
    latent_dim=65536,
    batch_size=128,
    c="2/D",
    codebook="0",
    commitment="0.25*D/(2*M)",
    besides="moving averages for the code vectors",
    surprise=(
        "The two levels share a 0.25 but differ in M, so this one is held four times as tightly."
    ),
)
def rosinality_vqvae2_top(x, x_hat, z, e):
    return squared(x, x_hat).mean() + 0.25 * commitment(z, e).mean()


@entry(
    title="VQ-VAE-2, bottom level",
    repository="rosinality/vq-vae-2-pytorch",
    path="train_vqvae.py",
    commit="ef5f67c",
    terms="mean_BD SE + 0.25 mean_BM commitment",
    likelihood="gaussian",
    data="any 256 x 256 in colour",
    pixels=(-1, 1),
    shape=(3, 256, 256),
    latent_dim=262144,
    batch_size=128,
    c="2/D",
    codebook="0",
    commitment="0.25*D/(2*M)",
    besides="moving averages for the code vectors",
    surprise=(
        "The same 0.25 as on the top level holds four times less tightly, because M is four times "
        "larger."
    ),
)
def rosinality_vqvae2_bottom(x, x_hat, z, e):
    return squared(x, x_hat).mean() + 0.25 * commitment(z, e).mean()


@entry(
    title="vector-quantize-pytorch, example",
    repository="lucidrains/vector-quantize-pytorch",
    path="examples/autoencoder.py",
    commit="12c78d1",
    terms="mean_BD AE + 10 mean_BM commitment",
    likelihood="laplace",
    data="Fashion-MNIST",
    shape=(1, 28, 28),
    latent_dim=1568,
    batch_size=256,
    c="1/D",
    codebook="0",
    commitment="10*D/M",
    besides="moving averages for the code vectors",
    chosen=("batch_size",),
    surprise="A 10 set by hand on two means; the error is absolute, so the decoder is a Laplacian.",
)
def lucidrains_vq(x, x_hat, z, e):
    return absolute(x, x_hat).mean() + 10 * commitment(z, e).mean()
