"""Our versions of Benchmark_VAE's losses against numbers recorded from its releases."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sumormean.catalogue.losses import benchmark_vae
from sumormean.data import bundled
from sumormean.vq import Quantiser
from vaeloss.likelihoods import gaussian_nll

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
RELEASES = ("0.1.1", "0.1.2")
OLD_OR_NOW = {"0.1.1": "old", "0.1.2": "now"}


def load(release):
    return np.load(bundled(f"oracles/pythae-{release}.npz"))


def loss_of(release, loss, beta):
    model = "betavae" if beta else "vae"
    version = f"_{OLD_OR_NOW[release]}" if loss == "mse" else ""
    return getattr(benchmark_vae, f"pythae_{model}_{loss}{version}")


def close(ours, theirs, dtype):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE[dtype] * abs(theirs).max())


@pytest.mark.parametrize("release", RELEASES)
def test_recorded_by_the_script_that_is_there(release):
    stamp = json.loads(str(load(release)["stamp"]))
    script = Path(__file__).parents[2] / "tools" / "oracles" / "record_pythae.py"
    text = script.read_bytes().replace(b"\r\n", b"\n")
    assert hashlib.sha256(text).hexdigest() == stamp["script"], "run record_pythae.py again"
    assert stamp["versions"]["pythae"] == release


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("beta", [None, 2.0])
@pytest.mark.parametrize("loss", ["mse", "bce"])
@pytest.mark.parametrize("release", RELEASES)
def test_losses_and_gradients(release, loss, beta, dtype):
    golden = load(release)
    x, *leaves = (
        torch.tensor(golden[f"input:{name}"].astype(dtype), requires_grad=name != "x")
        for name in ("x", "x_hat", "mu", "log_var")
    )
    value = loss_of(release, loss, beta)(x, *leaves)
    gradients = torch.autograd.grad(value, leaves)
    theirs = golden[f"{dtype}:{loss}:{beta}"]
    close(value.item(), theirs[:1], dtype)
    close(torch.cat([g.flatten() for g in gradients]), theirs[3:], dtype)  # after the two terms


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_only_squared_error_changed(loss):
    old, now = (load(release)[f"float64:{loss}:None"] for release in RELEASES)
    assert (old == now).all() == (loss == "bce")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("loss", ["mse", "bce"])
@pytest.mark.parametrize("release", RELEASES)
def test_training(release, loss, dtype):
    golden = load(release)
    layers = _layers(golden, dtype)
    optimizer = torch.optim.Adam(layers.parameters(), lr=1e-2)
    x = torch.tensor(golden["input:x"].astype(dtype))
    losses = []
    for eps in torch.tensor(golden["input:eps"].astype(dtype)):
        mu, log_var = _encode(layers, x)
        x_hat = _decode(layers, mu + eps * torch.exp(log_var / 2)).view_as(x)
        value = loss_of(release, loss, None)(x, x_hat, mu, log_var)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    # Adam divides by gradients, some of them tiny: rounding grows over the steps
    theirs = golden[f"{dtype}:{loss}:training"]
    np.testing.assert_allclose(losses, theirs, rtol={"float64": 1e-9, "float32": 1e-4}[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("release", RELEASES)
def test_likelihood_is_evaluated_with_variance_one_in_both_releases(release, dtype):
    golden = load(release)
    layers = _layers(golden, dtype)
    eps = torch.tensor(golden["input:eps_nll"].astype(dtype))
    log_p = []
    for x in torch.tensor(golden["input:x"].astype(dtype)):
        x = x[None].expand(len(eps), *x.shape)
        mu, log_var = _encode(layers, x)
        z = mu + eps * torch.exp(log_var / 2)
        log_x = -gaussian_nll(x, _decode(layers, z).view_as(x), 1.0)
        log_weight = log_x - 0.5 * (z.square() - log_var - eps.square()).sum(1)
        log_p.append(torch.logsumexp(log_weight, 0).item() - np.log(len(eps)))
    close(np.mean(log_p), golden[f"{dtype}:mse:get_nll"], dtype)


@pytest.mark.parametrize("batch", [5, 10])
@pytest.mark.parametrize("release", RELEASES)
def test_quantiser(release, batch):
    golden = load(release)
    quantiser = Quantiser(*golden["input:codes"].shape)
    quantiser.vectors.data = torch.tensor(golden["input:codes"].astype("float32"))
    z = torch.tensor(golden["input:z"][:batch].astype("float32"), requires_grad=True)
    e, chosen = quantiser(z.movedim(-1, 1))
    assert (chosen.numpy() == golden[f"float32:chosen:{batch}"].reshape(chosen.shape)).all()
    images = [
        torch.tensor(np.concatenate([golden[f"input:{name}"]] * 2)[:batch].astype("float32"))
        for name in ("x", "x_hat")
    ]
    code = (z.movedim(-1, 1).flatten(1), e.flatten(1))
    # both releases average the quantiser; the sum over the batch came after them
    value = benchmark_vae.pythae_vqvae_old(*images, *code)
    gradients = torch.autograd.grad(value, [z, quantiser.vectors])
    theirs = golden[f"float32:quantiser:{batch}"]
    close(torch.cat([g.flatten() for g in gradients]), theirs[1:], "float32")
    close(value.item(), golden[f"float32:vqvae:{batch}"][:1], "float32")


def _layers(golden, dtype):
    layers = nn.ModuleDict()
    for name in ("hidden", "mu", "log_var", "back", "out"):
        weight, bias = (golden[f"input:{name}/{part}"].astype(dtype) for part in ("weight", "bias"))
        layers[name] = nn.Linear(*weight.shape[::-1])
        layers[name].weight.data, layers[name].bias.data = map(torch.tensor, (weight, bias))
    return layers


def _encode(layers, x):
    h = torch.tanh(layers["hidden"](x.flatten(1)))
    return layers["mu"](h), layers["log_var"](h)


def _decode(layers, z):
    return torch.sigmoid(layers["out"](torch.tanh(layers["back"](z))))
