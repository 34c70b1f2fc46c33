"""Likelihoods as objects: each agrees with torch.distributions, and with who asks it."""

import math
import pickle

import numpy as np
import pytest
import torch
from torch import distributions as td

from vaeloss import audit_loss, collapse_spectrum, collapse_threshold, information_budget
from vaeloss.likelihoods import FAMILIES, Likelihood, as_likelihood, gaussian, recognisable
from vaeloss.likelihoods import kl_standard_normal as kl
from vaeloss.metrics import constant_image_nll

# name: (the distribution with this output of link "mean", or the first link; values it may score)
KNOWN = {
    "gaussian": (lambda m: td.Normal(m, 1.0), [-1.0, 0.3, 2.0]),
    "gaussian(0.25)": (lambda m: td.Normal(m, 0.5), [-1.0, 0.3, 2.0]),
    "bernoulli": (lambda m: td.Bernoulli(m), [0.0, 1.0, 1.0]),
    "binomial(4)": (lambda m: td.Binomial(4, m), [0.0, 0.25, 1.0]),
    "continuous-bernoulli": (lambda m: td.ContinuousBernoulli(m), [0.0, 0.3, 1.0]),
    "laplace": (lambda m: td.Laplace(m, 1.0), [-1.0, 0.3, 2.0]),
    "laplace(0.5)": (lambda m: td.Laplace(m, 0.5), [-1.0, 0.3, 2.0]),
    "poisson": (lambda m: td.Poisson(m), [0.0, 1.0, 7.0]),
    "negative-binomial(3)": (
        lambda m: td.NegativeBinomial(3.0, probs=m / (m + 3)), [0.0, 1.0, 7.0],
    ),
}  # fmt: skip
OUTPUT = torch.tensor([0.2, 0.6, 0.9], dtype=torch.float64)
INVERSE = {"logits": torch.logit, "log": torch.log}
each = pytest.mark.parametrize("name", KNOWN)


def test_every_family_is_known_here():
    named = {name.partition("(")[0] for name in KNOWN}
    assert set(FAMILIES) == named | {"gaussian-shared", "gaussian-per-pixel", "categorical"}


@each
def test_the_nll_is_that_of_the_distribution_whatever_the_link(name):
    distribution, values = KNOWN[name]
    x = torch.tensor(values, dtype=torch.float64)
    counted = 4 * x if name.startswith("binomial") else x
    expected = -distribution(OUTPUT).log_prob(counted)
    likelihood = as_likelihood(name)
    for link in likelihood.forms:
        out = INVERSE[link](OUTPUT) if link in INVERSE else OUTPUT
        found = likelihood.with_link(link)
        torch.testing.assert_close(found.per_value(x, out), expected, rtol=1e-6, atol=1e-6)
        assert found.nll(x[None], out[None]).item() == pytest.approx(
            expected.sum().item(), rel=1e-6
        )


@each
def test_the_variance_is_that_of_the_distribution(name):
    likelihood, (distribution, _) = as_likelihood(name), KNOWN[name]
    if likelihood.median_scale is not None:
        assert likelihood.variance is None
        return
    made = distribution(OUTPUT)
    scale = 4 if name.startswith("binomial") else 1
    mean, variance = made.mean.numpy() / scale, made.variance.numpy() / scale**2
    np.testing.assert_allclose(likelihood.variance(mean, None), variance, rtol=1e-4)


@each
def test_score_and_information_are_derivatives(name):
    likelihood, values = as_likelihood(name), KNOWN[name][1]
    x, step = torch.tensor(values, dtype=torch.float64), 1e-4
    low, middle, high = (likelihood.per_value(x, OUTPUT + d) for d in (-step, 0.0, step))
    score = (high - low) / (2 * step)
    torch.testing.assert_close(likelihood.score(x, OUTPUT), score, rtol=1e-5, atol=1e-6)
    if likelihood.median_scale is None:
        curvature = (high - 2 * middle + low) / step**2
        # of one sample, (1, 3), so that the average is over nothing
        found = likelihood.information(x[None], OUTPUT[None])
        torch.testing.assert_close(found, curvature, rtol=1e-3, atol=1e-3)
    else:
        assert (likelihood.information(x[None], OUTPUT[None]) == 0).all()


@pytest.mark.parametrize(
    "name", [n for n in KNOWN if as_likelihood(n).cost is not None and "continuous" not in n]
)
def test_the_cost_is_that_of_the_best_constant(name):
    """Differences of it: what depends on x alone is left out."""
    likelihood = as_likelihood(name)
    low, high = (0.1, 0.9) if likelihood.support[1] == 1 else (1.0, 6.0)
    x = np.random.default_rng(0).uniform(low, high, (400, 2))
    x = x if likelihood.support[1] == 1 else x.round()
    t = torch.as_tensor(x)
    at_mean = likelihood.per_value(t, t.mean(0).expand_as(t)).mean(0)
    at_itself = likelihood.per_value(t, t).mean(0)
    gain = likelihood.cost(x.mean(0)) - likelihood.cost(x).mean(0)
    np.testing.assert_allclose(gain, (at_mean - at_itself).numpy(), rtol=1e-6)
    assert information_budget(x, name) == pytest.approx(gain.sum(), rel=1e-6)


SAMPLES = {
    "gaussian(4)": lambda g: g.normal(5, 2, (40_000, 3)),
    "bernoulli": lambda g: (g.random((40_000, 3)) < 0.3).astype(float),
    "binomial(255)": lambda g: g.binomial(255, 0.3, (40_000, 3)) / 255,
    "poisson": lambda g: g.poisson(3.0, (40_000, 3)),
    "negative-binomial(2)": lambda g: g.negative_binomial(2, 0.4, (40_000, 3)),
    "laplace": lambda g: g.laplace(0.0, 1.0, (40_000, 3)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_data_from_the_likelihood_itself_have_a_threshold_of_one(name):
    """White's equality: where the constant decoder is right, the scores' covariance is 1."""
    x = SAMPLES[name](np.random.default_rng(0))
    # The median's density is estimated, and smoothed at Laplace's cusp.
    tolerance = 0.12 if name == "laplace" else 0.03
    assert collapse_spectrum(x, name) == pytest.approx(np.ones(3), abs=tolerance)


def test_absolute_error_on_gaussian_data():
    x = np.random.default_rng(0).normal(size=(40_000, 2))
    expected = math.sqrt(math.pi / 2)  # 1 / (2 f(m)), f(m) = 1 / sqrt(2 pi)
    assert collapse_threshold(x, "laplace") == pytest.approx(expected, rel=0.03)
    assert collapse_threshold(x, "laplace(2)") == pytest.approx(expected / 2, rel=0.03)
    assert information_budget(x, "laplace") == pytest.approx(2 * np.abs(x).mean(), rel=1e-3)


def test_black_pixels_hold_an_absolute_error():
    """Where most values equal their median a collapsed decoder cannot leave it at any β."""
    x = np.random.default_rng(0).random((1000, 4))
    x[:600, :3] = 0.0
    assert (collapse_spectrum(x, "laplace")[1:] == 0).all()
    assert collapse_threshold(x[:, :3], "laplace") == 0
    levels = (255 * np.random.default_rng(0).normal(0.5, 0.1, (4000, 1))).round() / 255
    smooth = collapse_threshold(levels, "laplace")  # grey levels are not atoms
    assert smooth == pytest.approx(0.1 * math.sqrt(math.pi / 2), rel=0.1)


@pytest.mark.parametrize("likelihood", recognisable(), ids=str)
def test_every_likelihood_that_an_audit_names_has_a_threshold(likelihood):
    """Logits or means: it is that of the data under this likelihood."""

    def loss_fn(x, x_hat, mu, log_var):
        return likelihood.per_value(x, x_hat).flatten(1).sum(1) + 3 * kl(mu, log_var)

    audit = audit_loss(loss_fn, data_shape=(4,), latent_dim=2)
    assert audit.likelihood == likelihood and audit.beta == pytest.approx(3, rel=1e-4)
    x = np.random.default_rng(0).random((500, 4))
    threshold = collapse_threshold(x, audit.likelihood)
    assert threshold == collapse_threshold(x, likelihood.name) > 0
    assert information_budget(x, audit.likelihood) == information_budget(x, likelihood.name)


@pytest.mark.parametrize("name", [*KNOWN, "bernoulli-logits", "poisson-log", "gaussian-shared"])
def test_a_name_and_its_likelihood(name):
    likelihood = as_likelihood(name)
    assert (
        str(likelihood) == name == f"{likelihood}" and as_likelihood(str(likelihood)) == likelihood
    )
    assert as_likelihood(likelihood) is likelihood and hash(likelihood) == hash(as_likelihood(name))
    assert pickle.loads(pickle.dumps(likelihood)) == likelihood
    assert isinstance(likelihood, Likelihood) and f"{likelihood:>40}" == name.rjust(40)


def test_a_name_keeps_every_digit_of_its_parameter():
    close, other = gaussian(0.1234567), gaussian(0.1234568)
    assert close != other and as_likelihood(str(close)) == close
    assert as_likelihood(str(close)).variance(np.ones(1), None) == 0.1234567
    assert str(gaussian(4.0)) == "gaussian(4)" and str(gaussian(1e-7)) == "gaussian(1e-07)"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("huber", "unknown likelihood 'huber': use one of gaussian"),
        ("binomial", "needs its n: binomial"),
        ("binomial(2.5)", "at least 1"),
        ("gaussian(-1)", "positive variance"),
        ("gaussian(wide)", "could not convert"),
        ("poisson(3)", "poisson has no parameter"),
        ("poisson-logits", "has no link 'logits': use one of mean, log"),
        ("negative-binomial(0)", "positive number"),
        ("laplace(0)", "positive scale"),
        ("categorical(1)", "at least 2"),
    ],
)
def test_what_is_no_likelihood_is_named(name, message):
    with pytest.raises(ValueError, match=message):
        as_likelihood(name)


def test_tokens():
    likelihood = as_likelihood("categorical(5)")
    x, out = torch.tensor([[0, 4, 2]]), torch.randn(1, 3, 5, generator=torch.manual_seed(0))
    expected = torch.nn.functional.cross_entropy(out[0], x[0], reduction="none")
    torch.testing.assert_close(likelihood.per_value(x, out)[0], expected)
    assert likelihood.out_shape((3,)) == (3, 5)
    p = out.softmax(-1)
    torch.testing.assert_close(likelihood.information(x, out), (p * (1 - p))[0])
    with pytest.raises(ValueError, match=r"out has shape \(1, 3\), categorical\(5\) needs"):
        likelihood.nll(x, out[..., 0])


def test_learned_variances():
    x = torch.tensor([[0.1, 0.9]], dtype=torch.float64)
    out = torch.tensor([[[0.0, 0.0], [1.0, -2.0]]], dtype=torch.float64)
    expected = -td.Normal(out[..., 0], (out[..., 1] / 2).exp()).log_prob(x).sum()
    for name in ("gaussian-shared", "gaussian-per-pixel"):
        assert as_likelihood(name).nll(x, out).item() == pytest.approx(expected.item())
        assert information_budget(np.eye(3), name) == math.inf


@pytest.mark.parametrize("name", ["gaussian", "bernoulli", "laplace", "poisson", "binomial(3)"])
def test_the_best_constant_image_costs_what_no_other_does(name):
    x = np.random.default_rng(0).binomial(3, [0.2, 0.7], (500, 2)) / 3
    x = x * 3 if name == "poisson" else x
    best, likelihood, t = constant_image_nll(x, name), as_likelihood(name), torch.as_tensor(x)
    for constant in np.linspace(0.05, 0.95, 19):
        other = likelihood.nll(t, torch.full_like(t, constant)).mean().item()
        assert best <= other - 2 * likelihood.constant + 1e-9
    for other in ("continuous-bernoulli", "gaussian-shared", "categorical(4)"):
        with pytest.raises(ValueError, match="neither a mean nor a median"):
            constant_image_nll(x, other)
