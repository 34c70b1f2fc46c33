"""Thresholds of a callable: best constant, scores and curvature by automatic differentiation."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vaeloss.collapse import collapse_spectrum, collapse_threshold, curvature, eigen
from vaeloss.collapse.batches import Batches
from vaeloss.likelihoods import as_likelihood

DATA = {
    "gaussian": lambda g: g.normal(size=(400, 5)) @ g.normal(size=(5, 5)),
    "gaussian(0.5)": lambda g: g.normal(size=(400, 5)) @ g.normal(size=(5, 5)),
    "bernoulli": lambda g: g.random((400, 5)) ** 2,
    "bernoulli-logits": lambda g: g.random((400, 5)) ** 2,
    "gaussian-logits": lambda g: 0.1 + 0.8 * g.random((400, 5)),
    "binomial(20)-logits": lambda g: g.binomial(20, g.random((400, 1)), (400, 5)) / 20,
    "continuous-bernoulli-logits": lambda g: g.random((400, 5)),
    "poisson-log": lambda g: g.poisson(np.exp(g.normal(size=(400, 1))) * np.ones(5)),
    "negative-binomial(3)-log": lambda g: g.poisson(np.exp(g.normal(size=(400, 1))) * np.ones(5)),
    "categorical(4)": lambda g: (g.integers(0, 4, (400, 1)) + (g.random((400, 5)) < 0.3)) % 4,
}


@pytest.mark.parametrize("name", DATA)
def test_a_callable_gives_what_the_closed_form_gives(name):
    likelihood, x = as_likelihood(name), DATA[name](np.random.default_rng(0))
    closed = collapse_spectrum(x, likelihood)
    found = collapse_spectrum(x, likelihood.nll, out_shape=likelihood.out_shape((5,)))
    np.testing.assert_allclose(found, closed, rtol=1e-6, atol=1e-6 * closed[0])


def test_images_keep_their_shape_and_dead_pixels_do_no_harm():
    x = np.zeros((300, 4, 4))
    x[:, 1:3, 1:3] = np.random.default_rng(0).random((300, 2, 2))
    x[0, 0, 0] = 1.0  # one pixel that is on once, one that is never

    def nll(x, out):
        assert x.shape[1:] == out.shape[1:] == (4, 4)
        return F.binary_cross_entropy_with_logits(out, x, reduction="none").sum((1, 2))

    assert collapse_threshold(x, nll, out_shape=(4, 4)) == pytest.approx(
        collapse_threshold(x), rel=1e-6
    )


def student(nu):
    return lambda x, out: ((nu + 1) / 2 * torch.log1p((x - out).square() / nu)).sum(1)


def test_student_t_counts_the_information_of_the_data_not_fishers():
    x = np.random.default_rng(0).exponential(1, (20_000, 1))
    m = 0.0
    for _ in range(200):  # the best constant: weights of iterated least squares
        w = 4 / (3 + (x - m) ** 2)
        m = (w * x).sum() / w.sum()
    r = x - m
    score = 4 * r / (3 + r**2)
    observed = (4 * (3 - r**2) / (3 + r**2) ** 2).mean()
    fisher = 4 / (3 + 3)  # (ν + 1) / (ν + 3)
    found = collapse_threshold(x, student(3.0), out_shape=(1,))
    assert found == pytest.approx((score**2).mean() / observed, rel=1e-6)
    assert abs(found / ((score**2).mean() / fisher) - 1) > 0.1


def test_a_decoder_that_also_answers_with_its_variance_feels_the_kurtosis():
    """Scores of log σ²: ½(1 - r²/σ²), information ½. Laplace data have kurtosis 6: (6 - 1) / 2."""
    g = np.random.default_rng(0)
    half = np.abs(g.laplace(size=(50_000, 2)))
    x = np.concatenate([half, -half]) * [1.0, 30.0]  # symmetric: no skewness to couple the two

    def nll(x, out):
        mean, log_var = out.unbind(-1)
        return 0.5 * ((x - mean).square() * torch.exp(-log_var) + log_var).sum(1)

    r = x / x.std(0)
    kurtosis = (r**4).mean(0).max()
    found = collapse_threshold(x, nll, out_shape=(2, 2))
    assert found == pytest.approx((kurtosis - 1) / 2, rel=0.02) and found > 2.3


@pytest.mark.parametrize("size", [12, 300])
def test_coupled_outputs(size):
    """A fixed mixing of the outputs changes no threshold."""
    g = np.random.default_rng(0)
    x = g.normal(size=(400, size)) * np.linspace(0.1, 3, size)
    mix = torch.as_tensor(np.eye(size) + 0.3 * g.normal(size=(size, size)) / math.sqrt(size))

    def nll(x, out):
        return 0.5 * (x - out @ mix).square().sum(1)

    found = collapse_spectrum(x, nll, k=2, out_shape=(size,))
    np.testing.assert_allclose(found, collapse_spectrum(x, "gaussian", k=2), rtol=1e-6)


def test_the_iterative_route_of_a_callable(monkeypatch):
    likelihood = as_likelihood("categorical(4)")
    x = DATA["categorical(4)"](np.random.default_rng(0))
    exact = collapse_spectrum(x, likelihood, k=3)
    monkeypatch.setattr(eigen, "EXACT_LIMIT", 10)
    for scored, options in [(likelihood, {}), (likelihood.nll, {"out_shape": (5, 4)})]:
        np.testing.assert_allclose(collapse_spectrum(x, scored, k=3, **options), exact, rtol=1e-4)


REFUSED = {
    "kink": (lambda x, out: (x - out).abs().sum(1), "as absolute error has.*'laplace'"),
    "one kink among curves": (
        lambda x, out: (
            (x[:, :1] - out[:, :1]).abs().sum(1) + 0.5 * (x[:, 1:] - out[:, 1:]).square().sum(1)
        ),
        "'laplace'",
    ),
    "no gradient": (lambda x, out: (x - out.detach()).square().sum(1), "has no gradient"),
    "a mean over all": (lambda x, out: (x - out).square().mean(), r"returned \(\).*\(B,\)"),
    "numpy": (lambda x, out: np.zeros(len(x)), "returned ndarray"),
    "raises": (lambda x, out: out.view(-1, 7).sum(1), r"failed with x \(\d+, 3\)"),
    "falls for ever": (
        lambda x, out: (torch.sqrt(1 + out**2) - 2 * out).sum(1) + 0 * x.sum(1),
        "fall for ever",
    ),
    "not finite": (lambda x, out: torch.log(out - 9).sum(1) + x.sum(1), "not finite at outputs"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_have_a_threshold_is_refused_by_name(what):
    nll, message = REFUSED[what]
    x = np.round(np.random.default_rng(0).normal(size=(200, 3)), 1)
    with pytest.raises(ValueError, match=message) as error:
        collapse_threshold(x, nll, out_shape=(3,))
    assert len(str(error.value)) < 400


def test_out_shape_belongs_to_callables():
    x = np.eye(3)
    with pytest.raises(ValueError, match="out_shape is for a callable"):
        collapse_threshold(x, "gaussian", out_shape=(3,))
    with pytest.raises(ValueError, match="needs the shape of one sample"):
        collapse_threshold(x, student(3.0))
    with pytest.raises(ValueError, match="likelihood is a int"):
        collapse_threshold(x, 3)


def test_a_maximum_is_not_taken_for_a_minimum():
    x = np.random.default_rng(0).normal(size=(100, 2))
    curve = curvature.Curvature(
        Batches(x), lambda x, out: torch.cos(out).sum(1) + 0 * x.sum(1), (2,)
    )
    with pytest.raises(ValueError, match="no minimum"):
        curvature.Whitened(curve, np.zeros(2), 1)
