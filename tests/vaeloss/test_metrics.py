"""The yardstick: importance-weighted likelihood and sample quality, where truth is known."""

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import nn

from sumormean.data import load
from sumormean.features import feature_classifier
from sumormean.models import VAE
from sumormean.quality import SampleScore, frechet_distance
from vaeloss.likelihoods import gaussian_nll
from vaeloss.metrics import importance_weighted_nll, rate_distortion

D, M, SIGMA2 = 6, 2, 0.3


def nll(x, out):
    return gaussian_nll(x, out, SIGMA2)


@pytest.fixture(scope="module")
def linear():
    """x|z = N(Wz + b, σ²I) with W'W diagonal, so that the exact posterior is diagonal."""
    rng = np.random.default_rng(0)
    columns = np.linalg.qr(rng.normal(size=(D, M)))[0] * [1.5, 0.7]
    w, b = torch.tensor(columns), torch.tensor(rng.normal(size=D))
    x = rng.normal(size=(40, M)) @ columns.T + b.numpy() + SIGMA2**0.5 * rng.normal(size=(40, D))
    exact = -stats.multivariate_normal(b, columns @ columns.T + SIGMA2 * np.eye(D)).logpdf(x)
    return w, b, torch.tensor(x), torch.tensor(exact)


def model(w, b, shift=0.0, stretch=1.0):
    """The VAE of the fixture; its posterior is off by a shift and a factor of the variance."""
    variance = 1 / (1 + (w.square().sum(0) / SIGMA2))
    decoder, encoder = nn.Linear(M, D).double(), nn.Linear(D, 2 * M).double()
    with torch.no_grad():
        decoder.weight.copy_(w)
        decoder.bias.copy_(b)
        gain = variance[:, None] * w.T / SIGMA2
        encoder.weight.copy_(torch.cat([gain, torch.zeros(M, D)]))
        encoder.bias.copy_(torch.cat([shift - gain @ b, (stretch * variance).log()]))
    return VAE(encoder, decoder, nn.Identity())


@pytest.mark.parametrize("samples", [1, 2, 50])
def test_with_the_exact_posterior_one_sample_is_enough(linear, samples):
    w, b, x, exact = linear
    found = importance_weighted_nll(model(w, b), x, nll, samples=samples, seed=samples)
    assert found.dtype == torch.float64
    assert torch.allclose(found, exact, atol=1e-9)


def test_with_a_wrong_posterior_it_falls_to_the_truth_as_samples_grow(linear):
    w, b, x, exact = linear
    off = model(w, b, shift=0.5, stretch=1.5)
    mean = [
        np.mean([(importance_weighted_nll(off, x, nll, k, seed=s) - exact).mean() for s in seeds])
        for k, seeds in [(1, range(200)), (10, range(200)), (100, range(50)), (2000, range(10))]
    ]
    assert mean[0] > mean[1] > mean[2] > mean[3] > -1e-3
    assert mean[0] > 0.5 and mean[3] < 0.01


def test_one_sample_is_the_negative_elbo_in_expectation(linear):
    w, b, x, _ = linear
    off = model(w, b, shift=0.3)
    elbo = [sum(rate_distortion(off, x, nll, seed=s)) for s in range(300)]
    single = [importance_weighted_nll(off, x, nll, 1, seed=s + 300).mean() for s in range(300)]
    error = ((np.var(elbo) + np.var(single)) / 300) ** 0.5
    assert abs(np.mean(single) - np.mean(elbo)) < 4 * error < 0.2


def test_it_is_seeded_and_refuses_no_samples(linear):
    w, b, x, _ = linear
    off = model(w, b, shift=0.5)
    first, again, other = (importance_weighted_nll(off, x, nll, 3, seed=s) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    with pytest.raises(ValueError, match="at least 1"):
        importance_weighted_nll(off, x, nll, 0)


def test_weights_too_small_for_floats_are_not_lost(linear):
    """exp(-1000) is 0 in double precision; in the log domain nothing happens."""
    w, b, x, exact = linear

    def far(x, out):
        return nll(x, out) + 1000

    found = importance_weighted_nll(model(w, b), x, far, samples=5)
    assert torch.allclose(found, exact + 1000, atol=1e-9)


# The Fréchet distance


def test_equal_sets_have_distance_zero_and_shifts_their_square():
    x = np.random.default_rng(1).normal(size=(50, 4))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(x, x[::-1].copy()) == pytest.approx(0, abs=1e-10)
    shift = np.array([1.0, -2.0, 0.5, 0.0])
    assert frechet_distance(x, x + shift) == pytest.approx(shift @ shift)


def whitened(seed, n=60, f=5):
    """Features with mean exactly 0 and covariance exactly the identity."""
    x = np.random.default_rng(seed).normal(size=(n, f))
    x -= x.mean(0)
    return x @ linalg.inv(linalg.cholesky(x.T @ x / n))


def test_one_feature_is_enough():
    x = np.random.default_rng(3).normal(size=(9, 1))
    assert frechet_distance(x, 3 * x) == pytest.approx(4 * np.square(x).mean())


def test_diagonal_covariances_have_a_closed_form():
    a, b = np.array([1.0, 2.0, 0.5, 3.0, 0.0]), np.array([1.0, 1.0, 2.0, 0.0, 0.0])
    found = frechet_distance(whitened(0) * a, whitened(1) * b)
    assert found == pytest.approx(np.square(a - b).sum())


def test_full_covariances_agree_with_the_matrix_square_root():
    rng = np.random.default_rng(2)
    a, b = (rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5) for _ in "ab")
    ca, cb = (np.cov(v.T, ddof=0) for v in (a, b))
    expected = np.square(a.mean(0) - b.mean(0)).sum()
    expected += np.trace(ca + cb - 2 * linalg.sqrtm(ca @ cb).real)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_features_must_match():
    with pytest.raises(ValueError, match=r"\(3, 2\), \(3, 4\)"):
        frechet_distance(np.zeros((3, 2)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="N > 1"):
        frechet_distance(np.zeros((1, 2)), np.zeros((3, 2)))


# The classifier


@pytest.fixture(scope="module")
def digits():
    return load("digits28")


@pytest.fixture(scope="module")
def score(digits):
    return SampleScore(digits)


def test_the_classifier_tells_digits_apart(score, digits):
    assert score.accuracy > 0.95
    assert score.net.features(digits.x_test).shape == (len(digits.x_test), 64)


def test_scores_order_the_damage(score, digits):
    train = digits.x_train[: score.size]
    noise = np.random.default_rng(0).normal(size=train.shape).astype(np.float32)
    damaged = [score(train + s * noise) for s in (0.2, 0.5)]
    assert score.real < damaged[0] < damaged[1]
    assert score(np.repeat(digits.x_train.mean(0)[None], score.size, 0)) > 3 * score.real
    assert score(digits.x_test) < 1e-6  # digits28: all test images are the target
    with pytest.raises(ValueError, match="only sets of 359"):
        score(train[:-1])


def test_the_classifier_is_seeded(digits):
    heads = [
        feature_classifier(digits.x_train, digits.y_train, seed, steps=5).head.weight
        for seed in (3, 3, 4)
    ]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
