"""Thresholds of decoders that see a label, or an input; and how sure a threshold is."""

import numpy as np
import pytest

from vaeloss.collapse import Threshold, collapse_spectrum, collapse_threshold
from vaeloss.likelihoods import as_likelihood


def two_classes(n=3000):
    """Means far apart; within the classes variance 9 along one axis, 4 along another."""
    g = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], n)
    x = g.normal(size=(2 * n, 3)) * np.where(labels == "a", 3.0, 1.0)[:, None] ** [1, 0, 0]
    x *= np.where(labels == "b", 2.0, 1.0)[:, None] ** [0, 1, 0]
    x[labels == "b"] += 50
    shuffled = g.permutation(2 * n)
    return x[shuffled], labels[shuffled]


def test_labels_give_a_free_and_an_additive_threshold():
    x, labels = two_classes()
    threshold = collapse_threshold(x, "gaussian", given=labels)
    assert threshold == pytest.approx(9, rel=0.05)  # the largest of any label
    assert threshold.additive == pytest.approx((9 + 1) / 2, rel=0.05)  # one response for all
    assert collapse_threshold(x, "gaussian") > 1000  # without labels: between them
    within = np.mean([np.cov(x[labels == c].T, bias=True) for c in "ab"], axis=0)
    np.testing.assert_allclose(
        collapse_spectrum(x, "gaussian", given=labels), np.linalg.eigvalsh(within)[::-1], rtol=1e-9
    )


def test_a_fitted_mean_gives_the_additive_threshold():
    x, labels = two_classes()
    fitted = np.where(labels[:, None] == "a", x[labels == "a"].mean(0), x[labels == "b"].mean(0))
    threshold = collapse_threshold(x, "gaussian", given=fitted)
    expected = collapse_threshold(x, "gaussian", given=labels).additive
    assert threshold == pytest.approx(expected, rel=1e-9) and threshold.additive is None


def test_a_learned_variance_is_no_labels_own():
    x, labels = two_classes()
    pooled = np.mean([x[labels == c].var(0) for c in "ab"])
    threshold = collapse_threshold(x, "gaussian-shared", given=labels)
    assert threshold == pytest.approx(x[labels == "a"].var(0).max() / pooled, rel=0.02)


@pytest.mark.parametrize("name", ["bernoulli", "poisson", "categorical(3)"])
def test_a_label_that_explains_all_leaves_nothing_above_one(name):
    """White's equality: within a label the likelihood is right."""
    g = np.random.default_rng(0)
    labels = g.integers(0, 2, 20_000)
    x = {
        "bernoulli": lambda: g.random((20_000, 4)) < np.where(labels, 0.2, 0.7)[:, None],
        "poisson": lambda: g.poisson(np.where(labels, 1.0, 5.0)[:, None] * np.ones(4)),
        "categorical(3)": lambda: (
            (g.random((20_000, 4)) < np.where(labels, 0.3, 0.7)[:, None])
            * g.integers(1, 3, (20_000, 4))
        ),
    }[name]()
    alone, known = collapse_threshold(x, name), collapse_threshold(x, name, given=labels)
    assert alone > 1.4
    assert known == pytest.approx(1, abs=0.05) and known.additive == pytest.approx(1, abs=0.05)


def test_additive_logits_agree_with_automatic_differentiation():
    g = np.random.default_rng(1)
    labels = g.integers(0, 3, 900)
    x = g.random((900, 4)) ** (1 + labels[:, None])
    tokens = (labels[:, None] + (g.random((900, 4)) < 0.4) * g.integers(1, 3, (900, 1))) % 3
    for name, data in [("bernoulli-logits", x), ("categorical(3)", tokens)]:
        likelihood = as_likelihood(name)
        closed = collapse_threshold(data, likelihood, given=labels)
        found = collapse_threshold(
            data, likelihood.nll, out_shape=likelihood.out_shape((4,)), given=labels
        )
        assert found == pytest.approx(closed, rel=1e-6)
        assert found.additive == pytest.approx(closed.additive, rel=1e-6)


def test_absolute_error_given_labels_is_taken_around_their_medians():
    g = np.random.default_rng(0)
    labels = g.integers(0, 2, 40_000)
    x = g.normal(size=(40_000, 2)) + 9 * labels[:, None]
    threshold = collapse_threshold(x, "laplace", given=labels)
    assert threshold == pytest.approx(np.sqrt(np.pi / 2), rel=0.04)
    assert threshold.additive == pytest.approx(np.sqrt(np.pi / 2), rel=0.04)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.arange(10), "label 0 has one sample"),
        (np.zeros(9, int), "given has 9 samples, x has more"),
        (np.zeros(11, int), "given has 11 samples, x has 10"),
        (np.zeros((10, 1)), r"write given\[:, 0\]"),
        (np.zeros((10, 3)), "a fitted mean has 2 values a sample"),
        (np.zeros((10, 2))[:4], "given has 4 samples, x has more"),
        (np.zeros(()), "has no samples"),
    ],
)
def test_what_is_given_must_fit(given, message):
    with pytest.raises(ValueError, match=message):
        collapse_spectrum(np.random.default_rng(0).random((10, 2)), given=given)


# --- intervals -----------------------------------------------------------------------------------


def test_the_interval_covers_a_planted_threshold():
    """90 % intervals from 200 samples of 10 values."""
    sizes = np.sqrt(np.r_[4.0, np.ones(9)])
    found = [
        collapse_threshold(
            np.random.default_rng(seed).normal(size=(200, 10)) * sizes, "gaussian", interval=0.9
        )
        for seed in range(200)
    ]
    covered = np.mean([low <= 4 <= high for low, high in (f.interval for f in found)])
    assert 0.88 <= covered <= 0.95
    assert np.mean(found) > 4.02  # biased upward


def test_an_interval_of_every_kind_of_threshold():
    g = np.random.default_rng(0)
    x, labels = g.random((400, 4)), np.repeat([0, 1], 200)
    likelihood = as_likelihood("bernoulli-logits")
    plain = collapse_threshold(x, interval=0.9)
    low, high = plain.interval
    assert low < high and high - low < plain
    autodiff = collapse_threshold(x, likelihood.nll, out_shape=(4,), interval=0.9)
    assert autodiff.interval == pytest.approx(plain.interval, rel=1e-5)
    free = collapse_threshold(x, given=labels, interval=0.9)
    assert free.interval[0] < free.interval[1] and free.additive < free
    assert collapse_threshold(x, interval=0.5).interval[0] > low
    with pytest.raises(ValueError, match="interval=90: give a confidence between 0 and 1"):
        collapse_threshold(x, interval=90)


def test_a_threshold_is_a_number():
    import pickle

    threshold = Threshold(2.0)
    assert repr(threshold) == "2.0" and f"{threshold:.3f}" == "2.000" and threshold / 2 == 1
    threshold.additive, threshold.interval = 1.5, (1.0, 3.0)
    assert repr(threshold) == "Threshold(2, additive=1.5, interval=(1, 3))"
    again = pickle.loads(pickle.dumps(threshold))
    assert again == 2 and again.interval == (1.0, 3.0)
