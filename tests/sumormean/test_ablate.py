"""The recorded sweeps: their grids, their losses, and how a record is written."""

import inspect
import json

import numpy as np
import pytest
import torch

from sumormean.__main__ import main
from sumormean.experiments import ablate, beta, scale
from sumormean.records import load_record, whole_file
from vaeloss.audit import audit_loss


@pytest.mark.parametrize("loss", scale.LOSSES)
@pytest.mark.parametrize(("side", "latent_dim"), [(7, 1), (14, 8)])
def test_the_losses_weigh_what_the_chapter_says(loss, side, latent_dim):
    def of_probabilities(x, x_hat, mu, log_var):
        return scale.reduced_loss(loss)(x, torch.logit(x_hat), mu, log_var)

    found = audit_loss(of_probabilities, data_shape=(side, side), latent_dim=latent_dim)
    assert str(found.likelihood) == "bernoulli"
    assert found.beta == pytest.approx(scale.loss_beta(loss, side**2, latent_dim), rel=1e-3)


@pytest.mark.parametrize("weight", [0.0, 5.28, 784.0])
def test_beta_is_the_weight_of_the_kl(weight):
    def of_probabilities(x, x_hat, mu, log_var):
        return beta.beta_loss(weight)(x, torch.logit(x_hat), mu, log_var)

    found = audit_loss(of_probabilities, data_shape=(14, 14), latent_dim=2)
    assert found.beta == pytest.approx(weight, rel=1e-3)


def test_resampling_keeps_the_mean_and_the_range():
    x = np.random.default_rng(0).random((5, 28, 28), dtype=np.float32)
    for side in scale.SIDES:
        y = scale.resample(x, side)
        assert y.shape == (5, side, side) and y.min() >= 0 and y.max() <= 1
        assert y.mean().item() == pytest.approx(x.mean(), abs=0.01)
    assert torch.equal(scale.resample(x, 28), torch.as_tensor(x))


@pytest.fixture
def tiny(monkeypatch):
    """A sweep of three runs in place of `scale`; the second fails while `broken` is set."""
    state = {"broken": True, "calls": 0}

    def run(side, seed):
        state["calls"] += 1
        if side == 2 and state["broken"]:
            raise ValueError("no room")
        return {"live": side, "picture": np.full((2, 2), side)}

    monkeypatch.setattr(scale, "run", run)
    monkeypatch.setattr(scale, "ARRAYS", {"picture": np.uint8})
    monkeypatch.setattr(scale, "SEEDS", (0,))
    monkeypatch.setattr(scale, "settings", lambda: [{"side": s} for s in (1, 2, 3)])
    return state


def test_a_record_resumes_after_a_failure(tiny, tmp_path, capsys):
    command = ["ablate", "scale", "--jobs", "1", "--out", str(tmp_path)]
    assert main(command) == 1
    assert "1 of 3 runs failed, the first with ValueError: no room" in capsys.readouterr().err
    assert not (tmp_path / "scale.json").exists()
    tiny["broken"] = False
    assert main(command) == 0
    assert tiny["calls"] == 4
    record = json.loads((tmp_path / "scale.json").read_text("utf-8"))
    assert [(row["side"], row["live"]) for row in record["rows"]] == [(1, 1), (2, 2), (3, 3)]
    assert record["command"] == "python -m sumormean ablate scale" and "torch" in record["versions"]
    with np.load(tmp_path / "scale.npz", allow_pickle=False) as arrays:
        assert arrays["picture"].dtype == np.uint8 and arrays["picture"][2, 0, 0] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scale.json", "scale.npz"]


def test_a_file_is_whole_or_the_one_before(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"aft")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    with whole_file(path) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("name", ablate.EXPERIMENTS)
def test_settings_keep_clear_of_what_a_row_says_itself(name, monkeypatch):
    experiment = ablate.EXPERIMENTS[name]
    # the one grid that depends on the data, which need not be here
    monkeypatch.setattr(beta, "spectrum", lambda data: np.linspace(40.0, 0.1, 784))
    wanted = set(inspect.signature(experiment.run).parameters)
    for setting in experiment.settings():
        assert set(setting) <= wanted and not {"error", "seconds", "seed"} & set(setting)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("threshold", 18),
        ("beta", 63),
        ("scale", 140),
        ("calibrated", 72),
        ("rebalancing", 48),
        ("vq", 36),
    ],
)
def test_the_records_hold_the_whole_grid_without_a_failure(name, count):
    record = load_record(name)
    rows, arrays = record["rows"], record.get("arrays", {})
    assert len(rows) == count
    assert arrays.keys() == ablate.EXPERIMENTS[name].ARRAYS.keys()
    assert all(len(array) == count for array in arrays.values())
    assert all(row["error"] is None for row in rows)
    keys = [
        "architecture",
        "data",
        "likelihood",
        "latent_dim",
        "beta",
        "side",
        "loss",
        "method",
        "network",
        "reconstruction",
        "weight",
        "steps",
        "epochs",
        "seed",
    ]
    assert len({tuple(row.get(key) for key in keys) for row in rows}) == count
