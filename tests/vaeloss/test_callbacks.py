"""Callbacks for trainers: numbers that are known, from trainers that do not know of them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vaeloss import collapse_threshold
from vaeloss.callbacks import _EpochLog, keras_callback, lightning_callback

N, B, D, M = 64, 16, 12, 3


def data():
    g = torch.Generator().manual_seed(0)
    return torch.rand(N, D, generator=g)


def kl_of(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1).mean()


class Model(nn.Module):
    """One live unit: the others have a mean that is the same for every x."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(M, D)
        self.w = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        live = self.w * (x.sum(1, keepdim=True) - D / 2)
        mu = torch.cat([live, 0.5 + 0 * live, -1 + 0 * live], dim=1)
        log_var = -1 + 0 * mu
        return self.decoder(mu + (log_var / 2).exp() * torch.randn_like(mu)), mu, log_var

    def loss(self, x, weight):
        out, mu, log_var = self(x)
        self.seen = (F.mse_loss(out, x, reduction="sum") / 2 / len(x), kl_of(mu, log_var))
        return F.mse_loss(out, x) + weight * self.seen[1]


def pick(output, x):
    out, mu, log_var = output
    return {"x": x, "x_hat": out, "mu": mu, "log_var": log_var}


def test_the_numbers_of_an_epoch():
    torch.manual_seed(0)
    model, x = Model(), data()
    log, kept = _EpochLog(pick, None, x, steps=2), []
    log.begin(model)
    for index, batch in enumerate(x.split(B)):
        model.loss(batch, 0.1 * (index + 1)).backward()
        kept.append([term.item() for term in model.seen])
        log.batch_end()
    found = log.end()
    assert "forward" not in vars(model) and len(log.watch.audits) == 2
    nll, kl = np.mean(kept[:2], axis=0)  # unweighted, in nats, of the steps that were watched
    assert found["vae/nll"] == pytest.approx(nll, rel=1e-4)
    assert found["vae/kl"] == pytest.approx(kl, rel=1e-4)
    assert found["vae/live_units"] == 1
    assert found["vae/beta"] == pytest.approx(0.2 * D / 2, rel=1e-4)
    assert found["vae/c"] == pytest.approx(2 / D, rel=1e-4)
    assert found["vae/beta_star"] == pytest.approx(collapse_threshold(x, "gaussian"))


def test_what_is_unknown_is_left_out_and_said():
    model = Model()
    log = _EpochLog(pick, None, data() * 300 - 50, steps=3)
    log.begin(model)
    out, mu, log_var = model(data()[:B])
    x = data()[:B]
    F.binary_cross_entropy_with_logits(out, x).backward()  # no KL, few steps
    with pytest.warns(UserWarning, match="no vae/beta_star"):
        found = log.end()
    assert found["vae/beta"] == 0 and "vae/beta_star" not in found
    assert math.isfinite(found["vae/nll"])
    with pytest.raises(ValueError, match="steps=0"):
        _EpochLog(pick, None, None, steps=0)


def test_keras_adds_them_to_the_history():
    import keras

    class KerasVAE(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = keras.layers.Dense(2 * M), keras.layers.Dense(D)

        def call(self, x):
            mu, log_var = keras.ops.split(self.encoder(x), 2, axis=1)
            noise = keras.random.normal(keras.ops.shape(mu))
            out = self.decoder(mu + keras.ops.exp(log_var / 2) * noise)
            kl = -0.5 * (1 + log_var - keras.ops.square(mu) - keras.ops.exp(log_var))
            self.add_loss(0.5 * keras.ops.mean(keras.ops.sum(kl, axis=1)))
            self.parts = {"mu": mu, "log_var": log_var}
            return out

    def parts(output, x):
        return {"x": x, "x_hat": output, **model.parts}

    keras.utils.set_random_seed(0)
    model, x = KerasVAE(), data().numpy()
    model.compile("sgd", loss="mse")
    callback = keras_callback(parts, x=x, steps=2)
    history = model.fit(x, x, batch_size=B, epochs=2, verbose=0, callbacks=[callback]).history
    assert history["vae/beta"] == pytest.approx([0.5 * D / 2] * 2, rel=1e-4)
    assert history["vae/c"] == pytest.approx([2 / D] * 2, rel=1e-4)
    assert history["vae/beta_star"] == pytest.approx([collapse_threshold(x, "gaussian")] * 2)
    assert {"vae/nll", "vae/kl", "vae/live_units"} <= set(history)


def test_lightning_logs_them():
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = Model()

        def training_step(self, batch, batch_idx):
            return self.model.loss(batch, 0.5)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-3)

    module, x = Module(), data()
    callback = lightning_callback(pick, model=module.model, x=x, steps=2)
    trainer = lightning.Trainer(
        max_epochs=2, callbacks=[callback], accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(x, batch_size=B))
    found = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert found["vae/beta"] == pytest.approx(0.5 * D / 2, rel=1e-4)
    assert found["vae/live_units"] == 1
    assert {"vae/nll", "vae/kl", "vae/c", "vae/beta_star"} <= set(found)
    assert "forward" not in vars(module.model)


def test_lightnings_hooks_are_those_of_its_callbacks(monkeypatch):
    """Without Lightning: a stand-in with the hooks that its trainer calls, in its order."""
    import sys
    import types

    stand_in = types.ModuleType("lightning")
    stand_in.Callback = object
    monkeypatch.setitem(sys.modules, "lightning", stand_in)
    torch.manual_seed(0)
    model, logged = Model(), {}
    model.log_dict = logged.update
    callback = lightning_callback(pick, steps=1)
    callback.on_train_epoch_start(None, model)
    for index, batch in enumerate(data().split(B)):
        model.loss(batch, 1.0).backward()
        callback.on_train_batch_end(None, model, None, batch, index)
    callback.on_train_epoch_end(None, model)
    assert logged["vae/beta"] == pytest.approx(D / 2, rel=1e-4)
    assert "vae/beta_star" not in logged
    callback.on_train_epoch_start(None, model)
    callback.on_exception(None, model, KeyboardInterrupt())
    assert "forward" not in vars(model)
