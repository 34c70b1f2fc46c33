"""Spectra, thresholds and budgets."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sumormean.data import load
from vaeloss.collapse import (
    UnitsWarning,
    collapse_spectrum,
    collapse_threshold,
    eigen,
    information_budget,
    predicted_live_units,
)
from vaeloss.likelihoods import gaussian

LIKELIHOODS = (
    "bernoulli",
    "gaussian",
    "gaussian-shared",
    "gaussian-per-pixel",
    "continuous-bernoulli",
    "binomial(255)",
    "poisson",
    "negative-binomial(3)",
)


@pytest.fixture(scope="module")
def digits():
    return load("digits28").x_train


def planted(eigenvalues, n=4000, seed=0):
    """Data whose covariance has exactly these eigenvalues, along random directions, off origin."""
    rng = np.random.default_rng(seed)
    d = len(eigenvalues)
    white = rng.normal(size=(n, d))
    white -= white.mean(0)
    white = np.linalg.svd(white, full_matrices=False)[0] * np.sqrt(n)
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return white * np.sqrt(eigenvalues) @ rotation + 50.0


def test_planted_gaussian_spectrum_is_found_and_divided_by_the_variance():
    eigenvalues = np.array([9.0, 4.0, 1.0, 0.25, 0.0])
    x = planted(eigenvalues)
    np.testing.assert_allclose(collapse_spectrum(x, "gaussian"), eigenvalues, atol=1e-9)
    np.testing.assert_allclose(collapse_spectrum(x, "gaussian(4)"), eigenvalues / 4, atol=1e-9)
    assert collapse_threshold(x, gaussian(0.5)) == pytest.approx(18)
    # One learned variance is the mean one at collapse.
    np.testing.assert_allclose(
        collapse_spectrum(x, "gaussian-shared"), eigenvalues * 5 / eigenvalues.sum(), atol=1e-9
    )


def test_per_pixel_variance_gives_the_correlation_matrix():
    x = planted(np.array([5.0, 2.0, 1.0, 0.1])) * [1.0, 100.0, 1e-3, 7.0]
    expected = np.linalg.eigvalsh(np.corrcoef(x.T))[::-1]
    np.testing.assert_allclose(collapse_spectrum(x, "gaussian-per-pixel"), expected, rtol=1e-9)


def test_bernoulli_spectrum_of_binary_pixels_is_that_of_their_correlations():
    x = (np.random.default_rng(0).random((500, 6)) < [0.1, 0.3, 0.5, 0.5, 0.9, 0.02]).astype(int)
    x[:, 3] = x[:, 2]  # two pixels that always agree: at least a 2
    expected = np.linalg.eigvalsh(np.corrcoef(x.T))[::-1]
    np.testing.assert_allclose(collapse_spectrum(x), expected, atol=1e-6)
    assert expected[0] > 2


@pytest.mark.parametrize("mean", [0.5, 0.5 + 1e-9, 0.4, 0.1, 1e-3, 0.999])
def test_continuous_bernoulli_variance_is_that_of_its_density(mean):
    # Independent pixels: eigenvalue = data variance / variance of the density with that mean.
    # The density is lam^x (1 - lam)^(1-x) up to a constant; find lam by its own grid integral.
    t = (np.arange(400_000) + 0.5) / 400_000
    low, high = -2e3, 2e3
    for _ in range(200):
        eta = (low + high) / 2
        w = np.exp(eta * t - max(eta, 0))
        low, high = (eta, high) if (w * t).sum() / w.sum() < mean else (low, eta)
    variance = (w * (t - mean) ** 2).sum() / w.sum()
    half = min(mean, 1 - mean) / 2
    x = np.array([[mean - half], [mean + half]])
    predicted = collapse_threshold(x, "continuous-bernoulli")
    assert predicted == pytest.approx(half**2 / variance, rel=1e-4)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_both_routes_agree(likelihood, digits, monkeypatch):
    exact = collapse_spectrum(digits, likelihood)
    assert exact.shape == (784,) and (np.diff(exact) <= 0).all()
    np.testing.assert_allclose(collapse_spectrum(digits, likelihood, k=5), exact[:5], rtol=1e-9)
    monkeypatch.setattr(eigen, "EXACT_LIMIT", 783)
    iterative = collapse_spectrum(digits, likelihood, k=5)
    np.testing.assert_allclose(iterative, exact[:5], rtol=1e-4)
    assert collapse_spectrum(digits, likelihood).shape == (10,)


def test_iterative_route_never_forms_a_square_matrix():
    # 40,000 x 40,000 doubles would be 12.8 GB.
    x = np.random.default_rng(0).random((50, 40_000), dtype=np.float32)
    centred = x - x.mean(0)
    gram = np.linalg.eigvalsh(centred @ centred.T / 50)[::-1]  # the same spectrum, but for zeros
    np.testing.assert_allclose(collapse_spectrum(x, "gaussian", k=3), gram[:3], rtol=1e-4)


def test_every_kind_of_input_gives_the_same_spectrum(digits, tmp_path, monkeypatch):
    expected = collapse_spectrum(digits, k=3)
    np.save(tmp_path / "x.npy", digits)
    tensor = torch.as_tensor(digits)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(tensor, torch.zeros(len(tensor))), batch_size=100
    )
    inputs = {
        "tensor": tensor.requires_grad_(),
        "flat": digits.reshape(-1, 784),
        "double": digits.astype(np.float64),
        "memory map": np.load(tmp_path / "x.npy", mmap_mode="r"),
        "list of batches": list(tensor.split(97)),
        "loader of (x, y)": loader,
    }
    one_shot = iter(digits[i : i + 200] for i in range(0, len(digits), 200))
    np.testing.assert_allclose(collapse_spectrum(one_shot, k=3), expected, rtol=1e-5)
    for limit in [4096, 700]:
        monkeypatch.setattr(eigen, "EXACT_LIMIT", limit)
        for name, x in inputs.items():
            np.testing.assert_allclose(
                collapse_spectrum(x, k=3), expected, rtol=1e-4, err_msg=f"{name}, {limit}"
            )
    with pytest.raises(ValueError, match="one-shot iterator"):
        collapse_spectrum(iter([digits[:100], digits[100:]]), k=3)


def test_constant_pixels_contribute_zeros_and_change_nothing(digits):
    # In float32, products of another width are rounded otherwise: by 1e-7 of the largest eigenvalue
    # of 13,000, more on some machines than on others.
    digits = digits.reshape(len(digits), -1).astype(np.float64)
    padded = np.concatenate([digits, np.full((len(digits), 3), [0.0, 0.3, 1.0])], 1)
    for likelihood in ["bernoulli", "gaussian", "gaussian-per-pixel", "continuous-bernoulli"]:
        a, b = collapse_spectrum(digits, likelihood), collapse_spectrum(padded, likelihood)
        np.testing.assert_allclose(b[:784], a, rtol=1e-6, atol=1e-6)
    # One variance shared by all pixels is smaller when more of them are constant.
    ratio = collapse_threshold(padded, "gaussian-shared") / collapse_threshold(
        digits, "gaussian-shared"
    )
    assert ratio == pytest.approx(787 / 784, rel=1e-6)
    for likelihood in LIKELIHOODS:
        assert (collapse_spectrum(np.full((10, 4), 0.1, np.float32), likelihood) == 0).all()
    assert information_budget(np.full((10, 4), 0.1)) == 0


@settings(deadline=None, max_examples=200)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 12), st.integers(1, 9)),
        elements=st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 1.0, 1e-7])),
    )
)
def test_no_data_in_the_unit_interval_survives_a_mean_over_the_pixels(x):
    """The corollary: β = D is at or above the Bernoulli threshold, β = D/2 above the Gaussian."""
    d = x.shape[1]
    assert collapse_threshold(x, "bernoulli") <= d * (1 + 1e-9)
    assert collapse_threshold(x, "gaussian") <= d / 4 * (1 + 1e-9)
    assert collapse_threshold(x, "gaussian-shared") <= d * (1 + 1e-9)
    assert collapse_threshold(x, "gaussian-per-pixel") <= d * (1 + 1e-9)
    assert information_budget(x, "gaussian") <= d / 8 * (1 + 1e-9)
    assert -1e-9 <= information_budget(x, "bernoulli") <= d * math.log(2) * (1 + 1e-9)


def test_the_bound_is_reached_by_binary_pixels_that_all_agree():
    x = np.repeat([[0.0], [1.0], [1.0]], 50, axis=1)
    assert collapse_threshold(x) == pytest.approx(50)


def test_budget_is_best_constant_minus_floor():
    x = np.random.default_rng(0).random((300, 5)) * 0.9 + 0.05
    p = x.mean(0)
    for_constant = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(1).mean()
    floor = -(x * np.log(x) + (1 - x) * np.log(1 - x)).sum(1).mean()
    assert information_budget(x) == pytest.approx(for_constant - floor)
    assert information_budget(x, "gaussian(0.1)") == pytest.approx(5 * x.var(0).mean() / 0.2)
    assert information_budget(x, "gaussian-shared") == math.inf
    finite = information_budget(x, "continuous-bernoulli")
    assert 0 < finite < math.inf
    x[0, 0] = 0.0
    assert information_budget(x, "continuous-bernoulli") == math.inf


def test_predicted_live_units_counts_caps_and_grows_its_search(monkeypatch):
    eigenvalues = np.concatenate([np.linspace(30, 11, 20), np.full(30, 0.5)])
    x = planted(eigenvalues)
    for limit in [4096, 10]:  # beyond the limit, 8 eigenvalues at first, then more
        monkeypatch.setattr(eigen, "EXACT_LIMIT", limit)
        assert predicted_live_units(x, 10.0, likelihood="gaussian") == 20
        assert predicted_live_units(x, 29.5, likelihood="gaussian") == 1
        assert predicted_live_units(x, 10.0, latent_dim=12, likelihood="gaussian") == 12
        assert predicted_live_units(x, 31.0, latent_dim=12, likelihood="gaussian") == 0
    with pytest.raises(ValueError, match="beta must be positive"):
        predicted_live_units(x, 0.0)


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous-bernoulli"])
@pytest.mark.parametrize(
    "x",
    [
        np.array([[0.5, 255], [255, 0]]),
        np.array([[0.0, -0.01], [1.0, 0.5]]),
        np.array([[0.0, 1.01], [1.0, 0.5]]),
    ],
)
def test_bernoulli_refuses_pixels_outside_the_unit_interval_and_gaussian_accepts(x, likelihood):
    with pytest.raises(ValueError, match=r"needs \[0, 1\]"):
        collapse_threshold(x, likelihood)
    with pytest.raises(ValueError, match=r"needs \[0, 1\]"):
        information_budget(x, likelihood)
    assert collapse_threshold(x, "gaussian") > 0


def test_bytes_are_warned_of_where_the_unit_counts():
    x = np.random.default_rng(0).integers(0, 256, (100, 4), np.uint8)
    for name in ["gaussian", "laplace", "gaussian(0.5)"]:
        with pytest.warns(UnitsWarning, match="whole numbers up to 255"):
            bytes_ = collapse_threshold(x, name)
        assert bytes_ > 200 * collapse_threshold(x / 255, name)
    for name in ["gaussian-shared", "gaussian-per-pixel", "poisson", "categorical(256)"]:
        collapse_threshold(x, name)  # no warning: scale-free, or meant for whole numbers


def test_tokens():
    g = np.random.default_rng(0)
    x = g.integers(0, 4, (5000, 3))
    assert collapse_threshold(x, "categorical(4)") == pytest.approx(1, abs=0.1)
    twice = np.concatenate([x[:, :1], (x[:, :1] + 1) % 4, x[:, 2:]], 1)
    assert collapse_threshold(twice, "categorical(4)") == pytest.approx(2, rel=0.01)
    # two symbols are a Bernoulli
    binary = (g.random((500, 3)) < 0.3) ^ (g.random((500, 1)) < 0.2)
    np.testing.assert_allclose(
        collapse_spectrum(binary.astype(int), "categorical(2)", k=3),
        collapse_spectrum(binary),
        rtol=1e-5,
    )


def test_bytes_of_zero_and_one_are_fine():
    x = np.array([[0, 1], [1, 0], [1, 1]], np.uint8)
    assert collapse_threshold(x) == pytest.approx(collapse_threshold(x.astype(float)))
    assert collapse_threshold(x.astype(bool)) == pytest.approx(collapse_threshold(x))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([[0.5, np.nan], [0.1, 0.2]]), "NaN or infinite"),
        (np.array([[0.5, 0.1]]), "one sample"),
        (np.empty((0, 4)), "has shape"),
        (np.zeros(7), "has shape"),
        (np.zeros((4, 0)), "no values"),
        ([], "without a batch"),
        ([np.zeros((3, 4)), np.zeros((3, 5))], "4 and 5 values"),
        (np.zeros((3, 4), complex), "dtype"),
    ],
)
def test_unusable_data_are_refused_in_words(x, message):
    for function in [collapse_threshold, information_budget]:
        with pytest.raises(ValueError, match=message):
            function(x, "bernoulli")


def test_unusable_arguments_are_refused_in_words():
    x = np.eye(3)
    with pytest.raises(ValueError, match="unknown likelihood 'huber': use one of gaussian"):
        collapse_spectrum(x, "huber")
    with pytest.raises(ValueError, match="positive variance"):
        collapse_spectrum(x, "gaussian(0)")
    with pytest.raises(ValueError, match="bernoulli has no parameter"):
        collapse_spectrum(x, "bernoulli(2)")
    with pytest.raises(ValueError, match="needs its n"):
        collapse_spectrum(x, "binomial")
    with pytest.raises(ValueError, match="needs whole numbers"):
        collapse_spectrum(x / 2, "categorical(2)")
    with pytest.raises(ValueError, match=r"run from 0 to 1, but categorical.* needs \[0, 0\]|run"):
        collapse_spectrum(3 * x, "categorical(2)")
    with pytest.raises(ValueError, match="k must be a whole number from 1 to the 3"):
        collapse_spectrum(x, k=4)
    with pytest.raises(TypeError, match="expected an array"):
        collapse_spectrum(3.0)


@pytest.mark.parametrize("n", range(2, 60))
def test_equal_eigenvalues_are_found(n):
    """One-hot vectors: p = 1/n, so that all directions but the constant one have 1 / (1 - p)."""
    assert collapse_threshold(np.eye(n)) == pytest.approx(n / (n - 1), rel=1e-12)
