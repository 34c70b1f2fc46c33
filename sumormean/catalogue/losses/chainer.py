"""Losses of the Chainer example, and of a user's edit of it."""

import torch.nn.functional as F

from sumormean.catalogue.entries import entry
from sumormean.catalogue.parts import kl
from vaeloss.likelihoods import bernoulli_nll


@entry(
    title="Chainer example, versions 1 to 5",
    repository="chainer/chainer",
    path="examples/vae/net.py",
    commit="e4791ea2",
    when="since 2016-02-28",
    terms="sum_BD BCE / B + C sum_BM KL / B",
    likelihood="bernoulli-logits",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=20,
    batch_size=100,
    c="1",
    beta="1",
    surprise="The ELBO. Its first version divided by the number of pixels and multiplied it back.",
)
def chainer_vae_v1_5(x, logits, mu, log_var):
    b = len(x)  # Chainer's bernoulli_nll and gaussian_kl_divergence sum over everything
    return bernoulli_nll(x, logits).sum() / b + 1.0 * kl(mu, log_var).sum() / b


@entry(
    title="Chainer example, versions 6 and 7",
    repository="chainer/chainer",
    path="examples/vae/net.py",
    commit="a8e15cbe",
    terms="-mean_B( log p(x|z) - β KL )",
    likelihood="bernoulli-logits",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=20,
    batch_size=100,
    c="1",
    beta="1",
    surprise="The ELBO, by distribution objects.",
)
def chainer_vae_v6_7(x, logits, mu, log_var):
    return -(-bernoulli_nll(x, logits) - 1.0 * kl(mu, log_var).sum(1)).mean()


@entry(
    title="Chainer example with mean_squared_error",
    repository="chainer/chainer",
    path="examples/vae/net.py",
    commit="v5",
    when="a user's edit, 2019",
    terms="mean_BD SE + sum_BM KL / B",
    likelihood="gaussian-logits",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=20,
    batch_size=100,
    c="2/D",
    beta="D/2",
    sigma2="D/2",
    surprise="bernoulli_nll sums, mean_squared_error averages: one word makes β = 392.",
    evidence="the library's documentation",
)
def chainer_mse_swap(x, logits, mu, log_var):
    return F.mse_loss(logits.sigmoid(), x) + kl(mu, log_var).sum() / len(x)


@entry(
    title="Chainer example with mean_squared_error, divided by B again",
    repository="chainer/chainer",
    path="examples/vae/net.py",
    commit="v5",
    when="a user's edit, 2019",
    terms="mean_BD SE / B + sum_BM KL / B",
    likelihood="gaussian-logits",
    data="MNIST, grey",
    threshold="mnist",
    shape=(784,),
    latent_dim=20,
    batch_size=100,
    c="2/(B*D)",
    beta="B*D/2",
    sigma2="B*D/2",
    surprise="The old divisor left in place: β = 39,200.",
    evidence="the library's documentation",
)
def chainer_mse_swap_divided(x, logits, mu, log_var):
    return F.mse_loss(logits.sigmoid(), x) / len(x) + kl(mu, log_var).sum() / len(x)
