"""The global threshold: the theorem under attack, its bounds, and the four verdicts."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vaeloss.collapse import (
    CollapseBounds,
    Threshold,
    collapse_threshold,
    collapse_verdict,
    optimal_collapse_threshold,
)
from vaeloss.collapse.ascent import price
from vaeloss.collapse.optimum import proved_bound
from vaeloss.likelihoods import as_likelihood

# --- the theorem, attacked: data sets and outputs by gradient ascent -----------------------------


def attack(kind, n, d, seed, steps=150, levels=3):
    """The largest log E ρ^(1/β) that ascent over the data *and* the output finds at β = c·d.

    β is that of a mean over the d values: d, and d/2 for squared error without ½.
    """
    g = torch.Generator().manual_seed(seed)
    shape = (n, d, levels) if kind == "tokens" else (n, d)
    raw = (3 * torch.randn(*shape, generator=g, dtype=torch.double)).requires_grad_()
    out = torch.randn(shape[1:], generator=g, dtype=torch.double).requires_grad_()
    optimiser = torch.optim.Adam([raw, out], lr=0.1)
    best = -math.inf
    for _ in range(steps):
        if kind == "tokens":  # whole distributions in place of symbols: more than data can be
            x = raw.softmax(-1)
            p, q = x.mean(0), out.softmax(-1)
            log_ratio = torch.log((x * (q / p)).sum(-1)).sum(-1) / d
        elif kind == "bernoulli":
            x = raw.sigmoid()
            p, q = x.mean(0), out.sigmoid()
            log_ratio = (x * torch.log(q / p) + (1 - x) * torch.log((1 - q) / (1 - p))).sum(1) / d
        else:
            low, high = {"gaussian": (0.0, 1.0), "symmetric": (-1.0, 1.0)}[kind]
            x = low + (high - low) * raw.sigmoid()
            p, q = x.mean(0), x.mean(0) + out
            log_ratio = ((x - p).square() - (x - q).square()).sum(1) / 2 / (d / 2)
        value = torch.logsumexp(log_ratio, 0) - math.log(n)
        best = max(best, value.item())
        optimiser.zero_grad()
        (-value).backward()
        optimiser.step()
    return best


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "tokens"])
@pytest.mark.parametrize("seed", range(6))
def test_no_data_and_no_output_beat_collapse_at_a_mean(kind, seed):
    n, d = [(2, 1), (2, 2), (3, 5), (8, 3), (20, 10), (5, 40)][seed]
    assert attack(kind, n, d, seed) < 1e-12


def test_the_attack_finds_what_escapes():
    """Squared error on [-1, 1]: two opposite images are worth a code at β = D/2."""
    assert max(attack("symmetric", 2, 4, seed) for seed in range(3)) > 0.05


def test_a_mean_absolute_error_escapes():
    """60 % black, 40 % white images: E ρ^(1/D) = 0.6/e + 0.4·e, whatever D."""
    x = np.repeat([[0.0], [1.0]], [60, 40], axis=0) * np.ones(30)
    log_ratio = (np.abs(x) - np.abs(x - 1)).sum(1)
    assert np.exp(log_ratio / 30).mean() == pytest.approx(0.6 / math.e + 0.4 * math.e)
    assert np.exp(log_ratio / 30).mean() == pytest.approx(1.308, abs=5e-4)
    assert price(log_ratio[:, None])[0] == pytest.approx(30 / math.log(0.6 / 0.4))
    bounds = optimal_collapse_threshold(x, "laplace")
    assert bounds.threshold == 0 and bounds.proved == math.inf
    assert 30 < bounds.searched <= 30 / math.log(0.6 / 0.4) * (1 + 1e-6)


# --- the bounds ----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 6))
def test_the_bounds_are_in_order(seed, n, d):
    g = np.random.default_rng(seed)
    x = g.random((n, d)) ** g.integers(1, 6)
    for name in ["bernoulli", "gaussian", "binomial(3)", "gaussian(0.2)"]:
        bounds = optimal_collapse_threshold(x, name)
        assert 0 < bounds.threshold <= bounds.searched <= bounds.proved * (1 + 1e-9)
    tokens = g.integers(0, 3, (n, d))
    if (tokens != tokens[0]).any():
        bounds = optimal_collapse_threshold(tokens, "categorical(3)")
        assert bounds.threshold <= bounds.searched <= bounds.proved * (1 + 1e-9)
        assert bounds.proved <= d * (1 + 1e-9)


@pytest.mark.parametrize(
    ("x", "name", "bound"),
    [
        (np.array([[0.0, 0.5], [1.0, 0.5]]), "bernoulli", 1),  # one value varies
        (np.array([[0.0, 0.2], [1.0, 0.5]]), "bernoulli", 2),
        (np.array([[0.0, 0.2], [1.0, 0.5]]), "binomial(255)", 510),
        (np.array([[0, 1, 2], [1, 1, 0]]), "categorical(3)", 2),
        (np.array([[0.0, 0.0], [1.0, 1.0]]), "gaussian", 0.5),
        (np.array([[-1.0], [1.0]]), "gaussian(0.5)", 2),
        (np.array([[0.0, 1.0], [1.0, 0.0]]), "laplace", math.inf),
        (np.array([[0.0, 1.0], [1.0, 0.0]]), "gaussian-shared", math.inf),
        (np.array([[0.0, 1.0], [1.0, 0.0]]), "continuous-bernoulli", math.inf),
        (np.array([[0.0, 1.0], [1.0, 0.0]]), "poisson", math.inf),
    ],
)
def test_proved_bounds(x, name, bound):
    assert proved_bound(x, name)[0] == pytest.approx(bound)


def test_the_distance_bounds_what_lies_on_a_ball():
    x = np.random.default_rng(0).normal(size=(500, 200))
    x *= 2 / np.linalg.norm(x, axis=1, keepdims=True)
    bound, reason = proved_bound(x, "gaussian")
    assert reason == "distance" and bound == pytest.approx(4, rel=0.1)
    assert proved_bound(x, lambda x, out: None, (200,)) == (math.inf, "none")


def gaussian_price_of(t, p):
    """2 log E exp(t·(x - mean)) / t² for x = 1 with probability p, else 0."""
    return 2 * np.log(p * np.exp(t * (1 - p)) + (1 - p) * np.exp(-t * p)) / t**2


def test_the_search_finds_the_variance_proxy_of_a_coin():
    """One binary value: sup_t has a closed form, (1 - 2p) / (2 log((1 - p) / p))."""
    p = 0.05
    x = (np.arange(1000) < 1000 * p).astype(float)[:, None]
    truth = (1 - 2 * p) / (2 * math.log((1 - p) / p))  # Kearns and Saul 1998
    assert gaussian_price_of(np.linspace(0.1, 20, 10_000), p).max() == pytest.approx(
        truth, rel=1e-6
    )
    bounds = optimal_collapse_threshold(x, "gaussian")
    assert bounds.searched == pytest.approx(truth, rel=1e-4)
    assert bounds.threshold == pytest.approx(p * (1 - p))
    assert bounds.proved == pytest.approx(0.25)


SKEWED = {
    "gaussian": lambda g: g.exponential(1, (1500, 1)) * np.ones(4) + g.normal(size=(1500, 4)),
    "bernoulli": lambda g: (g.random((1500, 1)) < 0.05) * 0.6 + 0.3 * g.random((1500, 4)),
    "poisson": lambda g: g.poisson(np.exp(g.normal(size=(1500, 1))) * np.ones(4)),
    "negative-binomial(4)": lambda g: g.poisson(np.exp(g.normal(size=(1500, 1))) * np.ones(4)),
    "continuous-bernoulli": lambda g: np.clip(g.exponential(0.1, (1500, 1)) * np.ones(4), 0, 1),
    "categorical(3)": lambda g: np.where(
        g.random((1500, 1)) < 0.05, 2, g.integers(0, 3, (1500, 4))
    ),
}
MEAN_LINK = {"continuous-bernoulli": None, "categorical(3)": "log"}


@pytest.mark.parametrize("name", SKEWED)
def test_the_output_that_is_found_is_worth_its_price(name):
    """Its price again, from the likelihood itself."""
    x = SKEWED[name](np.random.default_rng(0))
    bounds = optimal_collapse_threshold(x, name)
    assert bounds.searched > 1.05 * bounds.threshold and bounds.output is not None
    likelihood, t = as_likelihood(name), torch.as_tensor(x)
    if name == "categorical(3)":
        best = torch.as_tensor(np.stack([(x == v).mean(0) for v in range(3)], -1)).log()
        outs = best, torch.as_tensor(bounds.output.reshape(4, 3)).clamp_min(1e-300).log()
    elif name == "continuous-bernoulli":
        from scipy.optimize import brentq

        def parameter(mean):  # of the density with that mean
            with np.errstate(over="ignore"):
                slope = [
                    brentq(lambda a, m=m: m - (1 / -np.expm1(-a) - 1 / a), -1e5, 1e5) for m in mean
                ]
            return torch.as_tensor(slope)

        likelihood = likelihood.with_link("logits")
        outs = parameter(x.mean(0)), parameter(bounds.output)
    else:
        outs = torch.as_tensor(x.mean(0)), torch.as_tensor(bounds.output)
    nll = [likelihood.nll(t, out.expand(len(t), *out.shape)).numpy() for out in outs]
    assert price((nll[0] - nll[1])[:, None])[0] == pytest.approx(bounds.searched, rel=1e-4)


def test_a_callable_is_searched_by_gradient():
    x = SKEWED["gaussian"](np.random.default_rng(0))
    closed = optimal_collapse_threshold(x, "gaussian")
    found = optimal_collapse_threshold(
        x, lambda x, out: 0.5 * (x - out).square().sum(1), out_shape=(4,)
    )
    assert found.proved == math.inf and found.threshold == pytest.approx(closed.threshold)
    assert closed.threshold * 1.3 < found.searched <= closed.searched * (1 + 1e-6)


def gain_of_best_prior(log_ratio, beta, steps=20_000):
    """Nats that the best prior over these outputs gains over collapse: Blahut and Arimoto.

    log_ratio (N, Y) of a grid of outputs; the gain is max over priors of β E log Σ π ρ^(1/β).
    """
    ratio = np.exp(log_ratio / beta)
    prior = np.full(ratio.shape[1], 1 / ratio.shape[1])
    for _ in range(steps):
        mixed = ratio @ prior
        step = (ratio / mixed[:, None]).mean(0)
        prior = prior * step
        if step.max() < 1 + 1e-9:
            break
    return beta * np.log(ratio @ prior).mean()


def test_no_prior_gains_above_the_global_threshold_and_some_prior_gains_below():
    """A rare cluster: between β* and the global threshold a code pays, by a first-order jump."""
    x = np.r_[np.zeros(93), np.full(7, 6.0)] + 0.3 * np.random.default_rng(0).normal(size=100)
    bounds = optimal_collapse_threshold(x[:, None], "gaussian")
    assert bounds.searched > 1.3 * bounds.threshold
    grid = np.linspace(-3, 10, 400)
    centred = x[:, None] - x.mean()
    log_ratio = centred * (grid - x.mean()) - (grid - x.mean()) ** 2 / 2
    for factor, pays in [(1.02, False), (0.95, True)]:
        gain = gain_of_best_prior(log_ratio, factor * bounds.searched)
        assert (gain > 1e-4) == pays, (factor, gain)
    between = 0.5 * (bounds.threshold + bounds.searched)
    assert bounds.threshold < between and gain_of_best_prior(log_ratio, between) > 1e-3


# --- the verdict ---------------------------------------------------------------------------------


def test_the_four_verdicts():
    bounds = CollapseBounds(Threshold(2.0), 3.0, 10.0, "values")
    codes = [bounds.verdict(beta).code for beta in (1.0, 2.5, 5.0, 10.0)]
    assert codes == ["unstable", "a-code-pays", "none-found", "optimal"]
    assert bounds.verdict(5.0).margin == 2.5
    assert str(bounds.verdict(1.0)) == "Collapse is not stable: β = 1 is 0.5 times β* = 2."
    unproved = CollapseBounds(Threshold(2.0), 3.0, math.inf, "none")
    assert unproved.verdict(1e9).code == "none-found"
    assert "That it is optimal is not known" in unproved.verdict(1e9).sentence
    held = CollapseBounds(Threshold(0.0), 0.0, math.inf, "none").verdict(1e-3)
    assert held.code == "none-found" and "stable at every β" in held.sentence
    with pytest.raises(ValueError, match="beta must be positive"):
        bounds.verdict(0.0)


def test_two_complementary_images_are_a_tie():
    """β* = D = 2: the theorem's equality."""
    x = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert collapse_threshold(x) == pytest.approx(2)
    assert proved_bound(x) == (2.0, "values")
    codes = np.array([[0, 0], [1, 1], [2, 2]])  # aa, bb, cc
    assert collapse_threshold(codes, "categorical(3)") == pytest.approx(2)
    assert proved_bound(codes, "categorical(3)")[0] == 2


def test_a_verdict_searches_only_where_it_must(monkeypatch):
    from vaeloss.collapse import optimum

    x = np.random.default_rng(0).random((200, 5))
    searched = []
    monkeypatch.setattr(optimum, "_search", lambda *a: (searched.append(1) or 0.3, None))
    threshold = collapse_threshold(x)
    codes = [collapse_verdict(x, beta).code for beta in (threshold / 2, 5.0)]
    assert codes == ["unstable", "optimal"] and not searched
    assert collapse_verdict(x, 2.0).code == "none-found" and searched


def test_a_trained_network_obeys_the_verdict():
    """A rare cluster, between β* and the search's bound: a network that starts there stays."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 8, generator=g, dtype=torch.double) * 0.5
    x[:80] += 2.5
    bounds = optimal_collapse_threshold(x, "gaussian")
    beta = (bounds.threshold + bounds.searched) / 2
    assert bounds.verdict(beta).code == "a-code-pays"
    # A two-point code: y0 for most images, y1 for the cluster, prior mass q, by alternation.
    q, y1, y0 = 0.08, x[:80].mean(0), x[80:].mean(0)
    for _ in range(200):
        logits = torch.stack(
            [
                math.log(1 - q) - (x - y0).square().sum(1) / 2 / beta,
                math.log(q) - (x - y1).square().sum(1) / 2 / beta,
            ]
        )
        r = logits.softmax(0)[1]
        y1, y0, q = (r @ x) / r.sum(), ((1 - r) @ x) / (1 - r).sum(), r.mean().item()
    loss = -beta * logits.logsumexp(0).mean()
    collapsed = F.mse_loss(x.mean(0).expand_as(x), x, reduction="sum") / 2 / len(x)
    assert loss < collapsed - 0.01
