"""Data that are far from zero, of extreme scale, of low rank, shuffled or misread."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from vaeloss.cli import main
from vaeloss.collapse import (
    collapse_spectrum,
    collapse_threshold,
    eigen,
    optimal_collapse_threshold,
)
from vaeloss.samples import read_samples


def skewed(seed=7):
    return np.random.default_rng(seed).exponential(size=(300, 3)) * [2, 1, 0.5]


# --- units and offsets ---------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "offset"), [(1, 1e5), (1, 1e7), (1e-6, 0), (1e9, 0), (1e30, 0)])
def test_the_searched_bound_moves_with_the_unit_and_not_with_the_origin(unit, offset):
    """It was 15 % too high at an offset of 1e5, and with it "a code pays" was false."""
    expected = optimal_collapse_threshold(skewed(), "gaussian")
    found = optimal_collapse_threshold(skewed() * unit + offset, "gaussian")
    assert found.searched / unit**2 == pytest.approx(expected.searched, rel=1e-6)
    assert expected.searched > 2 * expected.threshold
    np.testing.assert_allclose(
        (found.output - offset) / unit, expected.output, rtol=1e-2, atol=1e-3
    )


def test_the_searched_bound_of_almost_black_images_is_as_small_as_they_are():
    """It was five times too high: 1 - 1e-10 left few digits of the cost."""
    bounds = optimal_collapse_threshold(1e-10 * np.random.default_rng(0).random((30, 4)))
    assert bounds.threshold <= bounds.searched < 2 * bounds.threshold


def test_a_search_among_counts_far_above_r_stays_above_zero():
    x = 1e10 * np.random.default_rng(0).random((30, 4))
    bounds = optimal_collapse_threshold(x, "negative-binomial(3)")
    assert bounds.searched > 2 * bounds.threshold  # none was found


def test_a_search_stays_off_the_edge_of_the_unit_interval():
    """Weights that float32 rounds to more than one led past it, where there is no cost."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for seed in range(12):
            g = np.random.default_rng(seed)
            bounds = optimal_collapse_threshold(g.random((60, 3)) < 0.9, "continuous-bernoulli")
            assert bounds.threshold < bounds.searched < np.inf


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_correlations_of_float32_of_any_scale(scale):
    x = np.random.default_rng(0).normal(size=(50, 4))
    expected = collapse_spectrum(x, "gaussian-per-pixel")
    found = collapse_spectrum((scale * x).astype(np.float32), "gaussian-per-pixel")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_values_too_large_to_be_squared_are_said():
    with pytest.raises(ValueError, match="too large to be squared"):
        collapse_threshold(1e200 * np.eye(3), "gaussian")


# --- the routes to an eigenvalue -----------------------------------------------------------------


def by_products(x, k, monkeypatch):
    with monkeypatch.context() as limited:
        limited.setattr(eigen, "EXACT_LIMIT", 2)
        return collapse_spectrum(x, "gaussian", k)


def test_products_find_eigenvalues_of_a_thousandth(monkeypatch):
    """The second was 27 % off: the tolerance was above it."""
    x = np.r_[np.zeros((1, 200)), 100 + np.random.default_rng(0).normal(size=(499, 200))]
    expected = collapse_spectrum(x, "gaussian", 3)
    assert expected[1] < 1e-3 * expected[0]
    np.testing.assert_allclose(by_products(x, 3, monkeypatch), expected, rtol=5e-3)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_products_of_data_of_low_rank(rank, monkeypatch):
    """It raised "Linearly dependent initial approximations"."""
    g = np.random.default_rng(0)
    x = g.normal(size=(50, rank)) @ g.normal(size=(rank, 200)) if rank else np.ones((50, 200))
    expected = collapse_spectrum(x, "gaussian", 3)
    np.testing.assert_allclose(by_products(x, 3, monkeypatch), expected, rtol=1e-6, atol=1e-9)


def test_products_of_values_far_from_zero(monkeypatch):
    x = (1e5 + np.random.default_rng(0).normal(size=(500, 200))).astype(np.float32)
    expected = collapse_spectrum(x, "gaussian", 2)
    np.testing.assert_allclose(by_products(x, 2, monkeypatch), expected, rtol=1e-4)


def test_a_first_sample_far_from_the_others_costs_no_digits():
    x = np.r_[np.zeros((1, 20)), 100 + np.random.default_rng(0).normal(size=(2999, 20))]
    exact = np.linalg.eigvalsh(np.cov(x.astype(np.float32).astype(float).T, bias=True))[::-1]
    np.testing.assert_allclose(collapse_spectrum(x.astype(np.float32), "gaussian"), exact, 1e-5)


# --- what would have been a wrong number ---------------------------------------------------------


def test_a_shuffled_loader_cannot_have_labels_or_an_interval():
    labels = np.repeat([0, 1], 50)
    x = np.random.default_rng(0).normal(size=(100, 3)) + 9 * labels[:, None]
    data = TensorDataset(torch.tensor(x))
    ordered = collapse_threshold(DataLoader(data, 20), "gaussian", given=labels)
    assert ordered == pytest.approx(collapse_threshold(x, "gaussian", given=labels))
    loader = DataLoader(data, 20, shuffle=True, generator=torch.Generator().manual_seed(0))
    for asked in [{"given": labels}, {"interval": 0.9}]:
        with pytest.raises(ValueError, match="shuffle=False"):
            collapse_threshold(loader, "gaussian", **asked)
    with pytest.raises(ValueError, match="shuffle=False"):
        collapse_spectrum(loader, "gaussian", given=labels)


@pytest.mark.parametrize("likelihood", ["gaussian-logits", "laplace-logits"])
def test_a_mean_that_no_sigmoid_reaches_is_said(likelihood):
    x = np.random.default_rng(0).random((50, 3))
    assert collapse_threshold(x, likelihood) > 0
    with pytest.raises(ValueError, match=r"sigmoid of .* stays in \[0, 1\]"):
        collapse_threshold(2 * x - 1.5, likelihood)


@pytest.mark.parametrize(
    ("likelihood", "given", "message"),
    [
        ("bernoulli", np.full((30, 4), 3.0), "means of bernoulli lie in"),
        ("poisson", np.full((30, 4), -1.0), "means of poisson lie in"),
        ("bernoulli", np.zeros((30, 4)), "says that value 0 never varies, and it does"),
        ("categorical(2)", np.ones((30, 4, 2)), "do not add up to 1"),
        ("bernoulli", [0, 1] * 10, "given has 20 samples, x has more"),
        ("bernoulli", [[0], [1, 2]] * 15, "given is no array"),
    ],
)
def test_a_fitted_mean_must_be_one(likelihood, given, message):
    x = np.random.default_rng(0).integers(0, 2, (30, 4))
    with pytest.raises(ValueError, match=message):
        collapse_threshold(x, likelihood, given=given)


def test_labels_of_mixed_kinds_are_labels():
    x = np.random.default_rng(0).random((30, 4))
    expected = collapse_threshold(x, given=[0, 1] * 15)
    assert collapse_threshold(x, given=[None, "b"] * 15) == expected


def test_an_interval_needs_a_sample_for_each_group():
    with pytest.raises(ValueError, match="at least 20 samples, x has 5"):
        collapse_threshold(np.random.default_rng(0).random((5, 4)), interval=0.9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_batches_in_half_precision(dtype):
    x = torch.rand(30, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert collapse_threshold([x[:10], x[10:]]) == pytest.approx(collapse_threshold(x))


# --- files ---------------------------------------------------------------------------------------

PAIRS = [[0.5, 1.0], [0.25, 0.0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeff0.5,1\n0.25,0\n", PAIRS),  # a byte order mark made a heading of the first sample
        ("\n\n0.5,1\n\n0.25,0\n", PAIRS),
        ('"a","b"\n"0.5","1"\n"0.25","0"\n', PAIRS),
        ("\ufeffa;b\r\n0.5;1\r\n0.25;0\r\n", PAIRS),
        ("0.5\t1\n0.25\t0\n", PAIRS),
    ],
)
def test_tables_as_people_have_them(tmp_path, text, expected):
    path = tmp_path / "x.CSV"
    path.write_bytes(text.encode())
    assert read_samples(str(path)).tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5,NA\n0.25,1\n1,1\n", "could not convert string 'NA'"),  # no heading: a sample
        ("0.5,1\n0.25\n", "columns changed from 2 to 1"),
        ("0,5;1\n0,25;0\n", "could not convert string '0,25'"),
        ("", "holds no numbers"),
        ("a,b\n", "holds no numbers"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_samples(str(path))


def test_archives_and_pictures_as_people_have_them(tmp_path):
    np.savez(tmp_path / "x.npz", **{"a:b": np.eye(2)}, c=np.ones((2, 2)))
    assert read_samples(f"{tmp_path}/x.npz:a:b").tolist() == np.eye(2).tolist()
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(ValueError, match="without arrays"):
        read_samples(f"{tmp_path}/empty.npz")
    pictures = tmp_path / "pictures"
    (pictures / "a.png").mkdir(parents=True)
    Image.new("L", (2, 2), 7).save(pictures / "b.png")
    (pictures / "._b.png").write_bytes(b"left by a Mac")
    assert read_samples(str(pictures)).tolist() == [[[7, 7], [7, 7]]]
    Image.fromarray(np.full((2, 2), 60000, np.uint16)).save(pictures / "c.png")
    with pytest.raises(ValueError, match=r"c.png has more than 8 bits"):
        read_samples(str(pictures))


def test_json_holds_no_number_that_json_has_not(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.eye(4))
    for weight in ["inf", "1e400"]:
        assert main(["threshold", f"{tmp_path}/x.npy", "--json", "--loss-beta", weight]) == 2
    assert main(["threshold", f"{tmp_path}/x.npy", "--json", "--loss-beta", "1e300"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["verdict"] == "optimal"
    assert main(["threshold", f"{tmp_path}/x.npy", "--likelihood", "binomial(inf)"]) == 2
