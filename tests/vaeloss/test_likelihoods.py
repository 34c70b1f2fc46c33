"""Likelihoods and KL against torch.distributions and scipy, at ordinary and extreme inputs."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import distributions

from vaeloss.likelihoods import (
    bernoulli_nll,
    continuous_bernoulli_nll,
    gaussian_nll,
    kl_standard_normal,
)

dtypes = st.sampled_from([torch.float32, torch.float64])
shapes = st.tuples(st.integers(1, 4)).flatmap(
    lambda b: st.lists(st.integers(1, 5), min_size=1, max_size=3).map(lambda s: (*b, *s))
)
seeds = st.integers(0, 2**31)


def rtol(dtype):
    return 2e-5 if dtype == torch.float32 else 1e-10


def uniform(shape, low, high, seed, dtype):
    """Uniform numbers that include both ends: extremes are where losses break."""
    g = torch.Generator().manual_seed(seed)
    t = torch.rand(shape, generator=g, dtype=dtype) * (high - low) + low
    end = torch.rand(shape, generator=g)
    t[end < 0.15] = low
    t[end > 0.85] = high
    return t


def finite_with_gradients(fn, *inputs):
    inputs = [t.clone().requires_grad_() for t in inputs]
    value = fn(*inputs)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert all(torch.isfinite(t.grad).all() for t in inputs)
    return value.detach()


@settings(deadline=None)
@given(shapes, seeds, dtypes, st.floats(1e-4, 1e4))
def test_gaussian_is_the_density_of_torch_and_scipy(shape, seed, dtype, sigma2):
    x, mean = uniform(shape, 0, 1, seed, dtype), uniform(shape, -2, 2, seed + 1, dtype)
    nll = finite_with_gradients(lambda x, m: gaussian_nll(x, m, sigma2), x, mean)
    assert nll.shape == shape[:1] and nll.dtype == dtype
    normal = distributions.Normal(mean.double(), math.sqrt(sigma2))
    expected = -normal.log_prob(x.double()).flatten(1).sum(1)
    # the constant and the squared error may cancel: the error is relative to what is summed
    size = x[0].numel() * (1 + abs(math.log(sigma2)) + 9 / sigma2)
    torch.testing.assert_close(nll.double(), expected, rtol=rtol(dtype), atol=rtol(dtype) * size)
    scipy = -stats.norm(mean.numpy(), math.sqrt(sigma2)).logpdf(x.numpy())
    np.testing.assert_allclose(
        nll, scipy.reshape(len(x), -1).sum(1), rtol=rtol(dtype), atol=rtol(dtype) * size
    )


@settings(deadline=None)
@given(shapes, seeds, dtypes)
def test_gaussian_takes_a_variance_per_pixel(shape, seed, dtype):
    x = uniform(shape, 0, 1, seed, dtype)
    sigma2 = uniform(shape[1:], 0.1, 10, seed, dtype)
    expected = -distributions.Normal(0.5, sigma2.sqrt()).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(
        gaussian_nll(x, torch.full_like(x, 0.5), sigma2), expected, rtol=1e-4, atol=1e-4
    )


@settings(deadline=None)
@given(shapes, seeds, dtypes)
def test_bernoulli_is_the_cross_entropy_at_logits_up_to_100(shape, seed, dtype):
    x, logits = uniform(shape, 0, 1, seed, dtype), uniform(shape, -100, 100, seed + 1, dtype)
    nll = finite_with_gradients(lambda logits: bernoulli_nll(x, logits), logits)
    assert nll.shape == shape[:1] and nll.dtype == dtype
    # log sigmoid in extended precision, without torch
    exact = logits.numpy().astype(np.longdouble)
    target = x.numpy().astype(np.longdouble)
    terms = target * np.log1p(np.exp(-exact)) + (1 - target) * np.log1p(np.exp(exact))
    expected = terms.reshape(len(x), -1).sum(1).astype(float)
    np.testing.assert_allclose(nll, expected, rtol=rtol(dtype), atol=rtol(dtype))


@settings(deadline=None)
@given(shapes, seeds, dtypes)
def test_bernoulli_on_binary_pixels_is_the_mass_of_torch_and_scipy(shape, seed, dtype):
    x = uniform(shape, 0, 1, seed, dtype).round()
    logits = uniform(shape, -10, 10, seed + 1, dtype)
    nll = bernoulli_nll(x, logits).double()
    bernoulli = distributions.Bernoulli(logits=logits.double())
    expected = -bernoulli.log_prob(x.double()).flatten(1).sum(1)
    torch.testing.assert_close(nll, expected, rtol=rtol(dtype), atol=1e-6)
    scipy = -stats.bernoulli(torch.sigmoid(logits.double()).numpy()).logpmf(x.numpy())
    np.testing.assert_allclose(nll, scipy.reshape(len(x), -1).sum(1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [-100.0, 0.0, 100.0])
@pytest.mark.parametrize("pixel", [0.0, 1.0])
def test_bernoulli_gradient_is_sigmoid_minus_pixel(pixel, logit, dtype):
    logits = torch.full((2, 3), logit, dtype=dtype, requires_grad=True)
    bernoulli_nll(torch.full((2, 3), pixel, dtype=dtype), logits).sum().backward()
    torch.testing.assert_close(logits.grad, torch.sigmoid(logits.detach()) - pixel)


LOGITS = [0.0, 1e-30, 1e-8, 1e-4, 0.01, 0.3, 0.3999, 0.4, 0.4001, 1.0, 10.0, 100.0, 1e4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [*LOGITS, *(-logit for logit in LOGITS)])
def test_continuous_bernoulli_and_its_gradient_in_100_digits(logit, dtype):
    x = torch.tensor([[0.0], [0.3], [1.0]], dtype=dtype)
    logits = torch.full((3, 1), logit, dtype=dtype, requires_grad=True)
    nll = continuous_bernoulli_nll(x, logits)
    assert nll.shape == (3,) and nll.dtype == dtype
    (gradient,) = torch.autograd.grad(nll.sum(), logits)
    with mpmath.workdps(100):
        exact = mpmath.mpf(logits[0].item())
        # log of the integral of exp(x logit) over [0, 1], and the mean of that density
        log_normaliser = mpmath.log(mpmath.expm1(exact) / exact) if exact else mpmath.mpf(0)
        mean = 1 / (1 - mpmath.exp(-exact)) - 1 / exact if exact else mpmath.mpf(0.5)
        expected = [float(log_normaliser - pixel * exact) for pixel in x[:, 0].double().tolist()]
        slope = [float(mean - pixel) for pixel in x[:, 0].double().tolist()]
    np.testing.assert_allclose(nll.detach(), expected, rtol=rtol(dtype), atol=1e-38)
    # mean - pixel, and the mean is (1 + coth h - 1/h) / 2, whose parts reach 5 at h = 0.2: exact to
    # the rounding of those
    np.testing.assert_allclose(gradient[:, 0], slope, rtol=0, atol=10 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("logit", [-5.0, -0.2, 0.0, 0.3, 8.0])
def test_continuous_bernoulli_is_a_density(logit):
    x = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None]
    density = torch.exp(-continuous_bernoulli_nll(x, torch.full_like(x, logit)))
    assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1, abs=1e-7)


@settings(deadline=None)
@given(shapes, seeds, dtypes)
def test_continuous_bernoulli_is_that_of_torch(shape, seed, dtype):
    x, logits = uniform(shape, 0, 1, seed, dtype), uniform(shape, -9, 9, seed + 1, dtype)
    nll = finite_with_gradients(lambda logits: continuous_bernoulli_nll(x, logits), logits)
    # 1e-4, because the series of torch is short
    theirs = distributions.ContinuousBernoulli(logits=logits.double())
    expected = -theirs.log_prob(x.double()).flatten(1).sum(1)
    torch.testing.assert_close(nll.double(), expected, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(seeds, dtypes, st.integers(1, 4), st.integers(1, 6))
def test_kl_is_that_of_torch_at_log_variances_up_to_30(seed, dtype, b, m):
    mu, log_var = uniform((b, m), -5, 5, seed, dtype), uniform((b, m), -30, 30, seed + 1, dtype)
    kl = finite_with_gradients(kl_standard_normal, mu, log_var)
    assert kl.shape == (b,) and kl.dtype == dtype and (kl >= 0).all()
    q = distributions.Normal(mu.double(), torch.exp(log_var.double() / 2))
    expected = distributions.kl_divergence(q, distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl.double(), expected, rtol=rtol(dtype), atol=1e-5)


def test_kl_is_exact_near_zero_in_float32():
    log_var = torch.full((1, 1), 1e-3)
    exact = 0.5 * (math.expm1(1e-3) - 1e-3)  # 2.5e-7, all cancelled in exp(l) - 1 - l
    assert abs(kl_standard_normal(torch.zeros(1, 1), log_var).item() / exact - 1) < 1e-3


@pytest.mark.parametrize(
    "fn", [gaussian_nll, bernoulli_nll, continuous_bernoulli_nll, kl_standard_normal]
)
def test_shapes_that_would_broadcast_are_refused(fn):
    with pytest.raises(ValueError, match=r"shape \(4, 1, 9\), expected \(4, 9\)"):
        fn(torch.zeros(4, 9), torch.zeros(4, 1, 9))


@pytest.mark.parametrize("sigma2", [0.0, -1.0, torch.tensor([1.0, 0.0, 1.0])])
def test_a_variance_must_be_positive(sigma2):
    with pytest.raises(ValueError, match="sigma2 must be positive"):
        gaussian_nll(torch.zeros(2, 3), torch.zeros(2, 3), sigma2)
