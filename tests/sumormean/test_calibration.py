"""The ways to set a decoder's noise: their losses, what moves in them, and the one scale."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Binomial, Normal

from sumormean.experiments import balances, calibration, calibration_deep
from sumormean.experiments.balances import METHODS
from sumormean.experiments.common import random_batch
from sumormean.models import VAE
from sumormean.training import fit
from vaeloss.metrics import rate_distortion


@pytest.fixture
def batch():
    return random_batch(torch.Generator().manual_seed(0))


@pytest.fixture
def bytes_batch(batch):
    x, *rest = batch
    return (255 * x).round() / 255, *rest


def kl(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1).mean()


# Losses, against those of torch


def test_gaussian(batch):
    x, out, mu, log_var = batch
    nll = -Normal(torch.sigmoid(out), 0.3).log_prob(x).sum((1, 2)).mean()
    assert torch.isclose(balances.gaussian_loss(*batch, 0.09), nll + kl(mu, log_var))


def test_log_mse_is_the_least_over_all_variances(batch):
    x, out, *_ = batch
    mse = (x - torch.sigmoid(out)).square().mean()
    best = balances.log_mse_loss(*batch)
    assert torch.isclose(best, balances.gaussian_loss(*batch, mse))
    assert all(best < balances.gaussian_loss(*batch, f * mse) for f in (0.9, 1.1))


def test_predicted_variance(batch):
    x, out, mu, log_var = batch
    pair = torch.stack([out, out.flip(0)], 1)
    sd = (0.07 * pair[:, 1].exp() + balances.FLOOR).sqrt()
    nll = -Normal(torch.sigmoid(pair[:, 0]), sd).log_prob(x).sum((1, 2)).mean()
    found = balances.predicted_variance_loss(x, pair, mu, log_var, 0.07)
    assert torch.isclose(found, nll + kl(mu, log_var))


def test_bernoulli_and_binomial(bytes_batch):
    x, out, mu, log_var = bytes_batch
    cross_entropy = F.binary_cross_entropy_with_logits(out, x, reduction="sum") / len(x)
    assert torch.isclose(balances.bernoulli_loss(*bytes_batch), cross_entropy + kl(mu, log_var))
    nll = -Binomial(255, logits=out).log_prob((255 * x).round()).sum((1, 2)).mean()
    assert torch.isclose(balances.binomial_loss(*bytes_batch), nll + kl(mu, log_var))


# Methods


@pytest.mark.parametrize("name", METHODS)
def test_a_method_begins_with_the_loss_that_its_name_says(name, bytes_batch):
    x, out, mu, log_var = bytes_batch
    steps, best = 8, 0.02
    pixel, pooled = x.var(0).mean(), x.var()
    method = METHODS[name](x, steps, best)
    start = {
        "1/2": 0.5,
        "variance of the data": pooled,
        "learned": pixel,
        "running minimum": 1.0,
        **{f"fixed × {f:g}": f * best for f in balances.FACTORS},
        **{f"annealed × {f:g}": pixel for f in balances.FACTORS},
    }
    if name in start:
        want = balances.gaussian_loss(*bytes_batch, start[name])
    elif name == "log σ²(z)":
        out = torch.stack([out, torch.zeros_like(out)], 1)  # no opinion: the variance of a pixel
        want = balances.gaussian_loss(*bytes_batch, pixel + balances.FLOOR)
    else:
        want = {
            "closed form": balances.log_mse_loss,
            "bernoulli": balances.bernoulli_loss,
            "binomial": balances.binomial_loss,
        }[name](*bytes_batch)
    found = method.loss(x, out, mu, log_var)
    assert torch.isclose(found, want.to(found.dtype))
    assert out.shape[1] == (method.outputs if out.ndim == 4 else 28)


@pytest.mark.parametrize("name", [n for n in METHODS if n != "closed form"])
def test_its_likelihood_of_new_images_is_that_of_its_loss(name, bytes_batch):
    x, out, mu, log_var = bytes_batch
    method = METHODS[name](x, 8, 0.02)
    out = torch.stack([out, out.flip(0)], 1) if method.outputs == 2 else out
    loss = method.loss(x, out, mu, log_var)
    assert torch.isclose(method.nll(x, out).mean() + kl(mu, log_var), loss)


def test_annealing_goes_in_equal_ratios_and_arrives_after_a_quarter(batch):
    x = batch[0]
    method = METHODS["annealed × 0.5"](x, 40, 0.02)
    path = [method.sigma2()]
    for step in range(40):
        method.on_step(step)
        path.append(method.sigma2())
    assert path[0] == pytest.approx(x.var(0).mean().item())
    ratios = [b / a for a, b in zip(path, path[1:], strict=False)]
    assert ratios[:10] == pytest.approx(10 * [(0.01 / path[0]) ** 0.1])
    assert path[10:] == pytest.approx(31 * [0.01])


def test_the_running_minimum_never_rises_and_the_closed_form_follows(batch):
    x, _, mu, log_var = batch
    exact = torch.logit(x.clamp(1e-6, 1 - 1e-6))
    minimum, follows = (METHODS[n](x, 8, 0.02) for n in ("running minimum", "closed form"))
    for step in range(1200):
        for method in (minimum, follows):
            method.loss(x, exact if step < 600 else 0 * exact, mu, log_var)
            method.on_step(step)
        if step == 599:
            least = minimum.sigma2()
            assert least == pytest.approx(0.99**600)
    assert minimum.sigma2() == least
    assert follows.sigma2() == pytest.approx((x - 0.5).square().mean().item(), rel=0.01)


def test_a_learned_variance_stands_still_at_the_mean_squared_error(batch):
    x, out, mu, log_var = batch
    learned = METHODS["learned"](x, 8, 0.02)
    with torch.no_grad():
        learned.log_sigma2.copy_((x - torch.sigmoid(out)).square().mean().log())
    out.requires_grad_()
    gradients = [
        torch.autograd.grad(loss, wanted, retain_graph=True)
        for loss, wanted in [
            (learned.loss(x, out, mu, log_var), [learned.log_sigma2, out]),
            (METHODS["closed form"](x, 8, 0.02).loss(x, out, mu, log_var), [out]),
        ]
    ]
    assert abs(gradients[0][0].item()) < 1e-3
    assert torch.allclose(gradients[0][1], gradients[1][0], rtol=1e-4)


# Runs


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(calibration.SIZES, "digits28", (256, 4, 20))
    for network in ("mlp", "deep"):
        monkeypatch.setitem(calibration.OPTIMUM, (network, "digits28"), 0.03)


@pytest.mark.parametrize(
    ("network", "method"),
    [("mlp", "annealed × 1"), ("mlp", "log σ²(z)"), ("mlp", "closed form"), ("deep", "binomial")],
)
def test_a_run_measures_both_scales(small, network, method):
    row = calibration.run(network, "digits28", method, epochs=8, seed=0)
    assert (row["sigma2"] is None) == (method in ("log σ²(z)", "binomial"))
    numbers = [v for v in row.values() if v is not None]
    assert all(math.isfinite(v) for v in numbers)
    assert row["common_iw"] <= row["common_iw_100"] + 1 and row["common_iw"] < row["common_few"]
    if method == "annealed × 1":  # the same once more
        again = calibration.run(network, "digits28", method, epochs=8, seed=0)
        assert again | {"cpu_seconds": 0} == row | {"cpu_seconds": 0}


def test_refitting_mends_the_encoder_and_leaves_the_decoder(small):
    """An encoder for σ² = ½ hedges; for the density that is compared it need not."""
    x, x_test = calibration.images("digits28")
    model = calibration.new_network("mlp", (28, 28), 1, seed=0)
    fit(model, x, METHODS["1/2"](x, 400, 0.03).loss, steps=400, lr=2e-3)
    before = [p.clone() for p in model.decoder.parameters()]
    row = calibration.on_one_scale(model, 1, x, x_test, steps=200, seed=0)
    assert all(map(torch.equal, before, model.decoder.parameters()))
    assert row["common"] < row["common_kept"] - 5
    assert row["common_sigma2"] < row["mse"]


def test_the_one_scale_sees_the_means_alone(small):
    x, x_test = calibration.images("digits28")
    model = calibration.new_network("mlp", (28, 28), 2, seed=0)
    means = VAE(model.encoder, calibration.MeansOnly(model.decoder, 2))
    out = model.decoder(torch.ones(3, 16))
    assert out.shape == (3, 2, 28, 28) and torch.equal(means.decoder(torch.ones(3, 16)), out[:, 0])
    assert torch.equal(model.pixel_mean(out), torch.sigmoid(out[:, 0]))
    assert rate_distortion(means, x_test, METHODS["1/2"](x, 8, 1.0).nll)[1] > 0


def test_rates_fall_to_zero_in_the_second_half():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    slow, rates = calibration.slowing_down(optimizer, 10), []
    for step in range(10):
        slow(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.5] * 6 + [0.4, 0.3, 0.2, 0.1])


def test_the_grids():
    rows = calibration.settings()
    assert len(rows) == 3 * len(METHODS) + 3
    assert len(calibration.SEEDS) >= 10
    for row in rows + calibration_deep.settings():
        assert (row["network"], row["data"]) in calibration.OPTIMUM and row["method"] in METHODS
