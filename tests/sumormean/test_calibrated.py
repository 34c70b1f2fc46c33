"""The ways to set a decoder's variance, and their record."""

import math

import pytest
import torch
import torch.nn.functional as F

from sumormean.experiments.calibrated import ARRAYS, FLOOR, METHODS, continuous_bernoulli_mean
from sumormean.records import load_record
from vaeloss.likelihoods import gaussian_nll


@pytest.fixture
def pixels():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, 28, 28, generator=generator, dtype=torch.float64)
    out = torch.randn(6, 28, 28, generator=generator, dtype=torch.float64)
    return x, out.requires_grad_()


@pytest.mark.parametrize(
    ("method", "loss"),
    [
        ("D/2", lambda x, mean: F.mse_loss(mean, x)),
        ("1/2", lambda x, mean: (x - mean).square().flatten(1).sum(1).mean()),
        ("Var", lambda x, mean: 392 * F.mse_loss(mean, x) / x.var()),
    ],
)
def test_a_fixed_variance_is_the_loss_people_write(pixels, method, loss):
    """Up to a constant: the gradients agree."""
    x, out = pixels
    ours = torch.autograd.grad(METHODS[method].noise(x).nll(x, out).mean(), out)[0]
    written = torch.autograd.grad(loss(x, torch.sigmoid(out)), out)[0]
    assert torch.allclose(ours, written, rtol=1e-9)


def test_the_closed_form_is_the_minimum_over_the_variance(pixels):
    x, out = pixels
    mean = torch.sigmoid(out)
    mse = (x - mean).square().mean()
    best = METHODS["per batch"].noise(x).nll(x, out)
    assert torch.isclose(best, gaussian_nll(x, mean, mse).mean())
    assert all(best < gaussian_nll(x, mean, f * mse).mean() for f in (0.9, 1.1))
    per_sample = METHODS["per sample"].noise(x).nll(x, out)
    assert per_sample.shape == (6,) and per_sample.mean() < best


def test_its_gradient_is_that_of_a_learned_variance_at_its_optimum(pixels):
    x, out = pixels
    learned = METHODS["learned"].noise(x)
    with torch.no_grad():
        learned.log_sigma2.copy_((x - torch.sigmoid(out)).square().mean().log())
    loss = learned.nll(x, out).mean()
    of_out, of_sigma = torch.autograd.grad(loss, (out, learned.log_sigma2))
    closed = torch.autograd.grad(METHODS["per batch"].noise(x).nll(x, out), out)[0]
    assert torch.allclose(of_out, closed) and abs(of_sigma) < 1e-9


def test_learned_variances_start_calibrated_to_the_mean_image_and_keep_their_floor(pixels):
    x, _ = pixels
    expected = x.var(0).mean().item()
    assert METHODS["learned"].noise(x).sigma2().item() == pytest.approx(expected)
    floored = METHODS["per pixel + floor"].noise(x)
    assert floored.sigma2().shape == (28, 28)
    with torch.no_grad():
        floored.log_sigma2.fill_(-100.0)
    assert floored.sigma2().min().item() == pytest.approx(FLOOR)


def test_the_mean_of_a_continuous_bernoulli_is_that_of_its_density():
    grid = torch.linspace(0, 1, 1_000_001, dtype=torch.float64)
    for logit in (-500.0, -30.0, -2.0, -0.11, 1e-4, 0.09, 5.0):
        weight = torch.softmax(logit * grid, 0)
        found = continuous_bernoulli_mean(torch.tensor(logit, dtype=torch.float64))
        assert found.item() == pytest.approx((grid * weight).sum().item(), abs=1e-5)


def test_the_record_is_consistent():
    record = load_record("calibrated")
    groups = {}
    for row in record["rows"]:
        groups.setdefault((row["data"], row["method"]), []).append(row)
        assert all(math.isfinite(v) for v in row.values() if isinstance(v, float))
        # In expectation the importance-weighted estimate is at most the negative ELBO.
        assert row["iw_nll_fit"] < row["nll_fit"] + row["kl"] + 1
        assert row["score"] > row["score_real"] > 0 and row["accuracy"] > 0.8
        if row["sigma2"] is None:
            continue
        constant = 392 * math.log(2 * math.pi * row["sigma2"])
        if not row["method"].startswith("per pixel"):
            # The constant and the squares are all there is.
            squares = 784 * row["mse"] / (2 * row["sigma2"])
            assert row["nll"] == pytest.approx(constant + squares, rel=1e-3, abs=2)
    assert {len(rows) for rows in groups.values()} == {3}
    assert len(groups) == 2 * len(METHODS)
    assert record["arrays"].keys() == ARRAYS.keys()
    assert all(len(array) == len(record["rows"]) for array in record["arrays"].values())


@pytest.mark.parametrize("method", METHODS)
def test_a_test_image_is_measured_with_what_the_method_has_learned(method, pixels):
    """With its own variance, else with the fitted one; a Bernoulli has none."""
    x, out = pixels
    noise = METHODS[method].noise(x)
    nll, sigma2 = noise.density(fitted=0.123)
    if "bernoulli" in method:
        assert sigma2 is None
        assert torch.equal(nll(x, out), noise.nll(x, out))
        return
    expected = {"per batch": 0.123, "per sample": 0.123}.get(method, noise.sigma2())
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert torch.allclose(sigma2.double(), expected) and not sigma2.requires_grad
    assert torch.allclose(nll(x, out), gaussian_nll(x, torch.sigmoid(out), expected))


def test_the_names_of_the_record_are_those_of_the_methods():
    assert all(name == method.name for name, method in METHODS.items())
    assert list(dict.fromkeys(row["method"] for row in load_record("calibrated")["rows"])) == list(
        METHODS
    )
