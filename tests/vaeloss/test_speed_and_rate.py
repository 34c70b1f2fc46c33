"""How fast a response grows, and how many nats a linear decoder spends."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vaeloss.collapse import (
    collapse_threshold,
    growth_rate,
    predicted_live_units,
    predicted_rate,
    steps_until_visible,
)
from vaeloss.likelihoods import as_likelihood


def linear_vae_loss(w, x, beta):
    """Mean of NLL + β·KL of x ≈ W z, at the best Gaussian posterior: exact, up to a constant."""
    precision = torch.eye(w.shape[1], dtype=w.dtype) + w.T @ w / beta
    covariance = torch.linalg.inv(precision)
    mu = x @ w @ covariance / beta
    error = (x - mu @ w.T).square().sum(1).mean() + torch.trace(w @ covariance @ w.T)
    kl = 0.5 * (
        torch.trace(covariance)
        + mu.square().sum(1).mean()
        - len(covariance)
        - torch.logdet(covariance)
    )
    return 0.5 * error + beta * kl, kl


def test_the_rate_is_that_of_the_best_linear_decoder():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 6, generator=g, dtype=torch.double) * torch.tensor(
        [3, 2, 1.5, 1, 0.5, 0.2]
    )
    x = x - x.mean(0)
    for beta, latents in [(0.5, 6), (1.7, 6), (0.5, 2), (10.0, 6)]:
        w = (0.1 * torch.randn(6, latents, generator=g, dtype=torch.double)).requires_grad_()
        optimiser = torch.optim.LBFGS([w], max_iter=500, line_search_fn="strong_wolfe")

        def closure(w=w, beta=beta, optimiser=optimiser):
            optimiser.zero_grad()
            loss, _ = linear_vae_loss(w, x, beta)
            loss.backward()
            return loss

        optimiser.step(closure)
        kl = linear_vae_loss(w, x, beta)[1].item()
        assert predicted_rate(x, beta, latent_dim=latents) == pytest.approx(kl, abs=2e-3)
        live = predicted_live_units(x, beta, latents, "gaussian")
        assert live == int((w.detach().norm(dim=0) > 0.05).sum()) or latents > live


def test_the_rate_of_another_variance_and_of_refused_likelihoods():
    x = np.random.default_rng(0).normal(size=(500, 3)) * [3, 2, 1]
    assert predicted_rate(x, 1.0, "gaussian(0.5)") == pytest.approx(predicted_rate(x, 0.5))
    assert predicted_rate(x, 1e6) == 0
    for name in ["bernoulli", "laplace", "gaussian-shared"]:
        with pytest.raises(ValueError, match="squared error of a fixed variance"):
            predicted_rate(np.abs(x) / 20, 1.0, name)
    with pytest.raises(ValueError, match="beta must be positive"):
        predicted_rate(x, -1.0)


def test_growth_is_that_of_gradient_descent():
    """The norm of W under plain gradient descent at the best posterior, step by step."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 4, generator=g, dtype=torch.double) * torch.tensor([2.0, 1, 1, 0.5])
    x = x - x.mean(0)
    beta, lr, c = 2.0, 0.05, 3.0
    w = 1e-10 * torch.randn(4, 1, generator=g, dtype=torch.double)
    norms = []
    for _ in range(110):
        w.requires_grad_()
        loss = c * linear_vae_loss(w, x, beta)[0]
        w = (w - lr * torch.autograd.grad(loss, w)[0]).detach()
        norms.append(w.norm().item())
    rate = growth_rate(x, beta, "gaussian")
    assert norms[60] / norms[59] == pytest.approx(1 + lr * c * rate, rel=1e-3)
    steps = steps_until_visible(rate, lr, c, growth=norms[100] / norms[50])
    assert steps == pytest.approx(50, abs=1)
    assert steps_until_visible(-0.1, lr) == math.inf


@pytest.mark.parametrize(
    "name",
    [
        "gaussian-logits",
        "bernoulli",
        "bernoulli-logits",
        "binomial(9)-logits",
        "poisson-log",
        "poisson",
        "negative-binomial(3)-log",
        "continuous-bernoulli",
        "continuous-bernoulli-logits",
    ],
)
def test_growth_in_the_outputs_of_a_link_agrees_with_automatic_differentiation(name):
    g = np.random.default_rng(0)
    likelihood = as_likelihood(name)
    x = g.random((500, 3)) * [1, 0.5, 0.2]
    if likelihood.support[1] == math.inf and likelihood.support[0] == 0:
        x = g.poisson(4 * x)
    elif "binomial" in name:
        x = np.rint(9 * x) / 9
    for beta in [0.05, 0.5]:
        expected = growth_rate(x, beta, likelihood.nll, out_shape=(3,))
        assert growth_rate(x, beta, likelihood) == pytest.approx(expected, rel=1e-5)


def test_growth_changes_its_sign_at_the_threshold_and_depends_on_the_link():
    x = np.random.default_rng(0).random((400, 6)) ** 3
    x[:, 1:] = 0.5 * x[:, :1] + 0.5 * x[:, 1:]
    for name in ["bernoulli", "bernoulli-logits", "gaussian", "categorical(3)"]:
        data = np.rint(2 * x).astype(int) if name.startswith("cat") else x
        star = collapse_threshold(data, name)
        assert growth_rate(data, 0.99 * star, name) > 1e-8
        assert growth_rate(data, 1.01 * star, name) < 1e-8
    assert growth_rate(x, 0.1, "bernoulli") > 5 * growth_rate(x, 0.1, "bernoulli-logits")
    dead = np.concatenate([x, np.zeros((400, 2))], 1)
    assert growth_rate(dead, 0.5) == pytest.approx(growth_rate(x, 0.5))
    assert growth_rate(np.ones((5, 2)), 0.5) == 0


def test_what_has_no_rate_is_refused():
    x = np.random.default_rng(0).random((50, 3))
    with pytest.raises(ValueError, match="kink"):
        growth_rate(x, 1.0, "laplace")
    with pytest.raises(ValueError, match="beta must be positive"):
        growth_rate(x, 0.0)
    with pytest.raises(ValueError, match="for up to 4096"):
        growth_rate(np.zeros((2, 5000)), 1.0)
    mixing = torch.as_tensor(np.eye(300) + 0.02 * np.random.default_rng(0).random((300, 300)))
    with pytest.raises(ValueError, match="couples more than"):
        growth_rate(
            np.random.default_rng(0).random((60, 300)),
            1.0,
            lambda x, out: F.mse_loss(out @ mixing, x, reduction="none").sum(1),
            out_shape=(300,),
        )
