"""Training code that is watched, not edited: loops of every shape, and what they leave behind."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vaeloss.audit import AuditError, watch_step

B, D, M = 16, 12, 3


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(D, 2 * M), nn.Linear(M, D)

    def encode(self, x):
        return self.encoder(x).chunk(2, dim=1)

    def forward(self, x, *, temperature: float = 1.0):
        mu, log_var = self.encode(x)
        z = mu + temperature * (log_var / 2).exp() * torch.randn_like(mu)
        return {"x_hat": self.decoder(z), "mu": mu, "log_var": log_var}


def pick(output, x, temperature=1.0):
    return {"x": x, **output}


def rate(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1).mean()


def total(out, x, weight=1.0):
    return F.mse_loss(out["x_hat"], x) + weight * rate(out["mu"], out["log_var"])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VAE()


@pytest.fixture
def x():
    return torch.rand(B, D)


def untouched(model):
    assert "forward" not in vars(model) and "encode" not in vars(model)
    assert torch.autograd.backward.__module__ == "torch.autograd"
    assert not hasattr(torch.autograd.backward, "__wrapped__")


@pytest.mark.parametrize("way", ["method", "function", "list"])
def test_a_plain_loop(model, x, way):
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    with watch_step(model, pick) as seen:
        for _ in range(3):
            loss = total(model(x), x)
            optimiser.zero_grad()
            if way == "method":
                loss.backward()
            else:
                torch.autograd.backward(loss if way == "function" else [loss])
            optimiser.step()
    assert len(seen.audits) == 3 and not seen.errors
    assert seen.beta == pytest.approx((D / 2, D / 2), rel=1e-4)
    assert seen.c == pytest.approx((2 / D, 2 / D), rel=1e-4)
    assert not seen.has("steps-beta-varies") and "3 steps: β 6," in str(seen)
    untouched(model)


def test_training_is_the_same_bit_for_bit(x):
    def train(watched):
        torch.manual_seed(1)
        model = VAE()
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)

        def steps():
            for _ in range(3):
                optimiser.zero_grad()
                total(model(x), x).backward()
                optimiser.step()

        if watched:
            with watch_step(model, pick):
                steps()
        else:
            steps()
        return [*model.parameters(), torch.random.get_rng_state()]

    assert all(torch.equal(a, b) for a, b in zip(train(False), train(True), strict=True))


def test_annealing_is_a_range(model, x):
    with watch_step(model, pick) as seen:
        for weight in (0.0, 0.1, 0.2):
            total(model(x), x, weight).backward()
    assert seen.beta == pytest.approx((0, 0.1 * D), rel=1e-4)
    assert seen.has("steps-beta-varies") and not seen.has("steps-c-varies")
    assert "annealed" in str(seen)


def test_capacity_is_seen_over_steps(model, x):
    with watch_step(model, pick) as seen:
        for target in (0.0, 50.0):
            out = model(x)
            kl = rate(out["mu"], out["log_var"])
            (F.mse_loss(out["x_hat"], x, reduction="sum") / B + 10 * (kl - target).abs()).backward()
    assert seen.beta == pytest.approx((-5, 5), rel=1e-4)
    assert {"steps-beta-varies", "step-negative-beta"} <= {f.code for f in seen.findings}


def test_a_trainer_that_calls_hooks(model, x):
    """The shape of Lightning: training_step returns the loss, the trainer scales and steps."""

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.vae = model

        def training_step(self, batch, batch_idx):
            return {"loss": total(self.vae(batch, temperature=1.0), batch)}

        def validation_step(self, batch):
            return total(self.vae(batch), batch)

    class Trainer:
        def fit(self, module, batches, accumulate=2):
            optimiser = torch.optim.SGD(module.parameters(), 0.1)
            for index, batch in enumerate(batches):
                with torch.no_grad():
                    module.validation_step(torch.rand(3, D))  # not what is trained on
                output = module.training_step(batch, index)
                with torch.no_grad():
                    module.validation_step(torch.rand(3, D))
                (output["loss"] / accumulate).backward()
                if index % accumulate:
                    optimiser.step()
                    optimiser.zero_grad()

    with watch_step(model, pick) as seen:
        Trainer().fit(Module(), [x] * 4)
    assert len(seen.audits) == 4 and {a.batch_size for a in seen.audits} == {B}
    assert seen.beta == pytest.approx((D / 2, D / 2), rel=1e-4)
    assert seen.c == pytest.approx((1 / D, 1 / D), rel=1e-4)


def test_a_critic_has_a_backward_of_its_own(model, x):
    critic = nn.Linear(D, 1)
    with watch_step(model, pick) as seen:
        out = model(x)
        total(out, x).backward(retain_graph=True)
        (critic(x) - critic(out["x_hat"].detach())).mean().backward()
    assert len(seen.audits) == len(seen.errors) == 1
    assert seen.beta[0] == pytest.approx(D / 2, rel=1e-4)


def test_the_last_call_counts(model, x):
    with watch_step(model, pick) as seen:
        model(torch.rand(5, D))
        total(model(x), x).backward()
    assert [a.batch_size for a in seen.audits] == [B]


def test_methods_and_several_modules(model, x):
    def train():
        mu, log_var = model.encode(x)
        out = model.decoder.forward(mu + (log_var / 2).exp() * torch.randn_like(mu))
        (F.mse_loss(out, x) + 0.5 * rate(mu, log_var)).backward()

    def both(encode, decode):
        mu, log_var = encode.output
        return {"x": encode.args[0], "x_hat": decode.output, "mu": mu, "log_var": log_var}

    with watch_step((model.encode, model.decoder), both) as seen:
        train()
    assert seen.beta[0] == pytest.approx(0.5 * D / 2, rel=1e-4)
    untouched(model)


def test_the_signature_is_kept_and_what_was_there_comes_back(model, x):
    def own(x, *, temperature=1.0):
        return VAE.forward(model, x, temperature=temperature)

    before = inspect.signature(model.forward)
    with watch_step(model, pick):
        assert inspect.signature(model.forward) == before
        total(model(x), x).backward()
    model.forward = own
    with watch_step(model, pick):
        total(model(x), x).backward()
    assert model.forward is own


def test_all_is_restored_after_an_exception(model, x):
    with pytest.raises(KeyboardInterrupt), watch_step(model, pick):
        total(model(x), x).backward()
        raise KeyboardInterrupt
    untouched(model)
    with pytest.raises(KeyError), watch_step(model, lambda out, x: out["nothing"]):
        total(model(x), x).backward()
    untouched(model)


def test_what_is_missing_is_said(model, x):
    with pytest.raises(AuditError, match="VAE.forward was not called"), watch_step(model, pick):
        pass
    with pytest.raises(AuditError, match="was not called"), watch_step(model, pick):
        with torch.no_grad():
            model(x)
    with pytest.raises(AuditError, match="backward was not called"), watch_step(model, pick):
        model(x)
    with pytest.raises(AuditError, match="pick returned a tuple"):
        with watch_step(model, lambda out, x: (x, out)):
            total(model(x), x).backward()
    with pytest.raises(AuditError, match="x_hat is detached"):
        with watch_step(model, lambda out, x: {**pick(out, x), "x_hat": out["x_hat"].detach()}):
            total(model(x), x).backward()
    with pytest.raises(AuditError, match="no forward"):
        watch_step("model", pick)
    untouched(model)


def test_a_keras_train_step():
    """keras.io's way: a train_step that sums and backpropagates by itself."""
    import keras

    class KerasVAE(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = keras.layers.Dense(2 * M), keras.layers.Dense(D)

        def call(self, x):
            return self.decoder(self.encoder(x)[:, :M])

        def train_step(self, data):
            x = data[0] if isinstance(data, tuple) else data
            self.zero_grad()
            mu, log_var = keras.ops.split(self.encoder(x), 2, axis=1)
            z = mu + keras.ops.exp(log_var / 2) * keras.random.normal(keras.ops.shape(mu))
            self.parts = {"x": x, "mu": mu, "log_var": log_var}
            out = self.decoder(z)
            error = keras.ops.mean(keras.losses.mean_squared_error(x, out))
            kl = -0.5 * (1 + log_var - keras.ops.square(mu) - keras.ops.exp(log_var))
            loss = error + 0.2 * keras.ops.mean(keras.ops.sum(kl, axis=1))
            loss.backward()
            weights = self.trainable_weights
            with torch.no_grad():
                self.optimizer.apply([w.value.grad for w in weights], weights)
            return {"loss": loss}

    keras.utils.set_random_seed(0)
    model = KerasVAE()
    model.compile("sgd")
    with watch_step(model.decoder, lambda out, z: {"x_hat": out, **model.parts}) as seen:
        model.fit(torch.rand(40, D).numpy(), batch_size=10, epochs=1, verbose=0)
    assert len(seen.audits) == 4
    assert seen.beta == pytest.approx((0.2 * D / 2, 0.2 * D / 2), rel=1e-4)
    assert math.isclose(seen.c[0], 2 / D, rel_tol=1e-4)
    assert "call" not in vars(model.decoder)
