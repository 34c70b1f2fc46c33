"""Full-length runs: the records, the runner, and the Keras models they use."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sumormean import records
from sumormean.__main__ import main
from sumormean.data import bundled, load
from sumormean.originals import keras as keras_models
from sumormean.originals import runs
from sumormean.originals.chainer import ChainerRun, chainer_terms
from sumormean.originals.configs import CONFIGS
from sumormean.originals.keras import KerasRun, keras_terms
from sumormean.records import load_record, published_logs
from vaeloss.audit import audit_loss

BETA = {
    "bernoulli_nll": 1,
    "mean_squared_error": 392,
    "summed_squared_error": 0.5,
    "keras-2018-bce": 1,
    "keras-2018-mse": 0.5,
    "keras-2020": 0.5,
    "keras-now": 1,
}
DIGITS = load("digits28")
IMAGES = DIGITS.x_train[:256], DIGITS.x_test[:64]


def miniature(name, **changes):
    return replace(CONFIGS[name], **{"epochs": 3, "data": "digits28", **changes})


def losses(path):
    done = json.loads(path.read_text())["runs"]
    return {loss: run["history"]["loss"] for loss, run in done.items()}


# The records


@pytest.mark.parametrize("name", CONFIGS)
def test_record_is_what_the_code_would_run(name):
    record = load_record(name)
    config = CONFIGS[name]
    # a run may be shorter than the original (--epochs), and then the record says how long it was
    epochs = record["config"]["epochs"]
    assert 1 <= epochs <= config.epochs
    now = json.loads(json.dumps(asdict(replace(config, epochs=epochs))))
    assert record["config"] == now, f"run it again: python -m sumormean reproduce {name}"
    train = 70_000 if config.train_on == "train+test" else 60_000
    assert record["images"] == {"train": train, "test": 10_000}
    for loss in config.losses:
        run = record["runs"][loss]
        assert run["history"]["epoch"] == list(range(1, epochs + 1))
        assert all(np.isfinite(values).all() for values in run["history"].values())
        # network, initial weights and loss of today give the losses the run began with
        fingerprint = runs.new_run(config, loss).test(runs.RAMP)
        assert fingerprint == pytest.approx(run["fingerprint"], rel=1e-4)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_loss_weighs_what_its_name_promises(config):
    shape = (28, 28, 1) if config.network == "keras-conv" else (784,)
    terms = chainer_terms if config.library == "torch" else keras_terms
    for loss in config.losses:
        found = audit_loss(
            lambda *args, loss=loss: sum(terms(loss)(*args)),
            data_shape=shape,
            latent_dim=config.latent_dim,
        )
        assert found.beta == pytest.approx(BETA[loss], rel=1e-4), str(found)


SEEDED = sorted(
    path.stem for path in bundled("runs/keras-now.json").parent.glob("keras-*-seed*.json")
)


@pytest.mark.parametrize("stem", SEEDED)
def test_record_of_another_seed_is_what_the_code_would_run(stem):
    record = load_record(stem)
    config = replace(
        CONFIGS[stem.rpartition("-seed")[0]],
        seed=int(stem.rpartition("-seed")[2]),
        epochs=record["config"]["epochs"],
    )
    assert config.seed > 0 and runs.record_name(config.name, config.seed) == stem
    assert record["config"] == json.loads(json.dumps(asdict(config)))
    assert record["command"] == runs.command(config)
    for loss in config.losses:
        fingerprint = runs.new_run(config, loss).test(runs.RAMP)
        assert fingerprint == pytest.approx(record["runs"][loss]["fingerprint"], rel=1e-4)


RECORDS = sorted(p.stem for p in bundled("runs/keras-now.json").parent.glob("*.json"))


@pytest.mark.parametrize("name", RECORDS)
def test_the_readme_says_how_a_record_is_made_and_what_it_costs(name):
    record = load_record(name)
    made = record.get("command") or runs.command(replace(CONFIGS[name], **record["config"]))
    line = f"| `{name}` | `{made}` | {records.cost(record)} |"
    assert line in (Path(runs.__file__).parents[2] / "data/runs/README.md").read_text("utf-8")


# The published logs


@pytest.mark.parametrize("log", published_logs().values(), ids=published_logs())
def test_a_published_log_means_what_it_says(log):
    """Means over an epoch add up; a mean of running means beside them does not."""
    assert log["loss"] in CONFIGS
    rows = {row["epoch"]: row for row in log["rows"]}
    assert len(rows) == len(log["rows"]) and list(rows) == sorted(rows) and 1 <= min(rows)
    assert set(log["mean_over_epoch"]) | set(log["mean_of_running_means"]) | {"epoch"} == set(
        rows[1]
    )

    def excess(row, total):
        return row[total] - row["reconstruction_loss"] - row["kl_loss"]

    alike = {"loss", "reconstruction_loss", "kl_loss"}
    alike_once = alike <= set(log["mean_over_epoch"])
    if alike_once or alike <= set(log["mean_of_running_means"]):
        largest = max(abs(excess(row, "loss")) for row in rows.values())
        assert largest < (3e-4 if alike_once else 0.1)  # the first is rounding
    else:
        assert excess(rows[1], "loss") > 40
    if "total_loss" in rows[1]:
        assert excess(rows[1], "total_loss") < -40  # the same, seen from the other side


# The runner


@pytest.mark.parametrize("name, run", [("chainer-mnist", ChainerRun), ("keras-now", KerasRun)])
def test_an_interrupted_run_ends_with_the_same_numbers(name, run, tmp_path, monkeypatch):
    config = miniature(name)
    whole = losses(runs.reproduce(config, tmp_path / "whole", *IMAGES))

    calls, train = [], run.epoch

    def interrupted(self, *args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(self, *args)

    monkeypatch.setattr(run, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runs.reproduce(config, tmp_path / "parts", *IMAGES)
    path = runs.reproduce(config, tmp_path / "parts", *IMAGES)
    assert len(calls) == 1 + len(config.losses) * config.epochs  # nothing was done twice
    assert losses(path) == whole
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # the checkpoint is gone


def test_a_checkpoint_of_another_config_is_refused(tmp_path, monkeypatch):
    def interrupted(self, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ChainerRun, "test", lambda self, x: {})
        patch.setattr(runs, "live_units", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runs.reproduce(miniature("chainer-mnist"), tmp_path, *IMAGES)
    with pytest.raises(ValueError, match="another config: delete it"):
        runs.reproduce(miniature("chainer-mnist", learning_rate=0.1), tmp_path, *IMAGES)


def test_another_seed_has_a_record_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setitem(CONFIGS, "chainer-mnist", miniature("chainer-mnist", epochs=1))
    for seed in ("0", "3"):
        assert main(["reproduce", "chainer-mnist", "--seed", seed, "--out", str(tmp_path)]) == 0
    whole, other = tmp_path / "chainer-mnist.json", tmp_path / "chainer-mnist-seed3.json"
    assert losses(whole).keys() == losses(other).keys()
    assert losses(whole) != losses(other)
    record = json.loads(other.read_text())
    assert record["config"]["seed"] == 3
    assert record["command"] == "python -m sumormean reproduce chainer-mnist --seed 3"


def test_trains_on_test_images_only_where_the_config_says_so(tmp_path, monkeypatch):
    seen = []

    def epoch(self, epoch, x):
        seen.append(len(x))
        return {"loss": 1.0}

    monkeypatch.setattr(KerasRun, "epoch", epoch)
    for name in ("keras-mlp", "keras-now"):
        runs.reproduce(miniature(name, epochs=1), tmp_path, *IMAGES)
    assert seen == [256, 256, 256 + 64]


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(CONFIGS, "keras-mlp", miniature("keras-mlp", epochs=1))
    assert main(["reproduce", "keras-mlp", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "keras-mlp.json").read_text())
    assert record["versions"].keys() == {"torch", "keras", "numpy"}
    assert "CPU" in record["machine"] or torch.cuda.is_available()
    assert str(tmp_path / "keras-mlp.json") in capsys.readouterr().out
    assert main(["reproduce", "keras-mlp", "--epochs", "2"]) == 2
    assert "between 1 and 1" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit:
        main(["reproduce", "keras-tomorrow"])
    assert exit.value.code == 2 and "keras-now" in capsys.readouterr().err


@pytest.fixture
def no_keras(monkeypatch):
    """As where Keras was never installed."""
    monkeypatch.delitem(sys.modules, "sumormean.originals.keras")
    monkeypatch.setitem(sys.modules, "keras", None)  # importing it raises
    find, known = runs.find_spec, records.version
    monkeypatch.setattr(runs, "find_spec", lambda name: None if name == "keras" else find(name))

    def version(name):
        if name == "keras":
            raise records.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(records, "version", version)


def test_a_pytorch_setting_is_recorded_without_keras(no_keras, tmp_path, monkeypatch):
    monkeypatch.setitem(CONFIGS, "chainer-mnist", miniature("chainer-mnist", epochs=1))
    assert main(["reproduce", "chainer-mnist", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "chainer-mnist.json").read_text())
    assert record["versions"].keys() == {"torch", "numpy"}


def test_a_keras_setting_without_keras_says_what_is_missing(no_keras, tmp_path, capsys):
    assert main(["reproduce", "keras-now", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "reproduce: keras-now needs Keras: pip install keras\n"
    assert not list(tmp_path.iterdir())


# The Keras models


def test_train_step_steps_along_the_gradient_of_this_batch():
    """Three steps of `fit` are those of a plain PyTorch loop: no gradient is left over."""
    ours, plain = (_small_model() for _ in range(2))
    x = torch.rand(32, 12, generator=torch.Generator().manual_seed(0))
    ours.fit(x, batch_size=32, epochs=3, shuffle=False, verbose=0)
    optimizer = torch.optim.SGD([w.value for w in plain.trainable_weights], 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        sum(plain.forward_terms(x, training=True)).backward()
        optimizer.step()
    for w, v in zip(ours.trainable_weights, plain.trainable_weights, strict=True):
        np.testing.assert_allclose(w.numpy(), v.numpy(), rtol=1e-4, atol=1e-5)


def test_bar_loss_is_the_mean_of_running_means():
    model, per_step = _small_model(), []
    x = torch.rand(96, 12, generator=torch.Generator().manual_seed(0))

    def terms(*args):
        pair = keras_terms("keras-2018-bce")(*args)
        per_step.append(sum(pair).item())
        return pair

    model.terms = terms
    history = model.fit(x, batch_size=32, verbose=0).history
    running = np.cumsum(per_step) / [1, 2, 3]
    assert history["loss"] == pytest.approx([np.mean(per_step)], rel=1e-5)
    assert history["bar_loss"] == pytest.approx([running.mean()], rel=1e-5)


def test_initial_weights_depend_on_the_seed_only():
    a, b, c = (keras_models.conv_networks(seed=seed)[0].get_weights() for seed in (0, 0, 1))
    assert all((v == w).all() for v, w in zip(a, b, strict=True))
    assert all(abs(v - w).max() > 0.01 for v, w in zip(a[::2], c[::2], strict=True))
    assert abs(a[0]).max() <= (6 / (9 * 1 + 9 * 32)) ** 0.5  # Glorot's bound


def _small_model():
    networks = keras_models.mlp_networks(12, 7, 2)
    model = keras_models.KerasVAE(*networks, keras_terms("keras-2018-bce"))
    model.compile(keras_models.keras.optimizers.SGD(1e-2))
    return model
