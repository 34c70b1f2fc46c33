"""Our ports against numbers recorded from the original libraries (tools/oracles, data/oracles)."""

import hashlib
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from sumormean.data import bundled
from sumormean.originals.chainer import ChainerVAE, chainer_terms
from sumormean.originals.keras import keras_terms

SCRIPTS = Path(__file__).parents[2] / "tools" / "oracles"
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
LAYERS = ("le1", "le2", "le3_mu", "le3_ln_var", "ld1", "ld2", "ld3")
CHAINER_LOSSES = ("bernoulli_nll", "mean_squared_error", "summed_squared_error")


@pytest.mark.parametrize(
    "name, library, wanted", [("chainer", "chainer", "5.0.0"), ("tensorflow", "tensorflow", "2.")]
)
def test_recorded_by_the_script_that_is_there(name, library, wanted):
    stamp = json.loads(str(np.load(bundled(f"oracles/{name}.npz"))["stamp"]))
    script = (SCRIPTS / f"record_{name}.py").read_bytes().replace(b"\r\n", b"\n")
    assert hashlib.sha256(script).hexdigest() == stamp["script"], f"run record_{name}.py again"
    assert stamp["versions"][library].startswith(wanted)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("loss, k, C", list(product(CHAINER_LOSSES, (1, 2), (1.0, 0.5))))
def test_chainer_port(loss, k, C, dtype):
    golden = np.load(bundled("oracles/chainer.npz"))
    x, eps = (torch.as_tensor(golden[f"input:{n}"].astype(dtype)) for n in ("x", "eps"))
    net = _port(golden).to(x.dtype)
    mu, log_var = net.encode(x)
    samples = [net.decode(mu + e * torch.exp(log_var / 2), sigmoid=False) for e in eps[:k]]
    terms = chainer_terms(loss, C)
    reconstruction = sum(terms(x, logits, mu, log_var)[0] for logits in samples) / k
    kl = terms(x, samples[0], mu, log_var)[1]
    total = reconstruction + kl
    total.backward()
    gradients = [p.grad for layer in LAYERS for p in getattr(net, layer).parameters()]
    ours = torch.cat([t.detach().flatten() for t in (reconstruction, kl, total, *gradients)])
    theirs = golden[f"{dtype}:{loss}:{k}:{C}"]
    assert ours.numpy().dtype == theirs.dtype == dtype
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE[dtype] * abs(theirs).max())


def test_chainer_initialisation():
    golden = np.load(bundled("oracles/chainer.npz"))
    layer = ChainerVAE(784, 20, 500).le1
    assert layer.weight.std().item() * 784**0.5 == pytest.approx(
        float(golden["init:std * sqrt(n_in)"]), rel=0.01
    )
    assert layer.bias.abs().max().item() == float(golden["init:largest bias"]) == 0


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "ours, theirs, flat",
    [
        ("keras-2018-bce", "2018", True),
        ("keras-2018-mse", "2018 --mse", True),
        ("keras-2020", "July 2020", False),
        ("keras-now", "now", False),
    ],
)
def test_keras_losses_are_those_of_tensorflow(ours, theirs, flat, dtype):
    golden = np.load(bundled("oracles/tensorflow.npz"))
    tensors = {
        name: torch.as_tensor(golden[f"input:1:{name}"].astype(dtype)).requires_grad_()
        for name in ("x", "x_hat", "mu", "log_var")
    }
    arguments = dict(tensors)
    if flat:
        arguments |= {name: tensors[name].flatten(1) for name in ("x", "x_hat")}
    value = sum(keras_terms(ours)(**arguments))
    value.backward()
    # Keras' ops.mean works in float32 whatever it is given, so even float64 is float32 here
    assert value.item() == pytest.approx(float(golden[f"{dtype}:1:{theirs}:loss"]), rel=1e-5)
    for name in ("x_hat", "mu", "log_var"):
        expected = golden[f"{dtype}:1:{theirs}:{name}"]
        np.testing.assert_allclose(
            tensors[name].grad, expected, rtol=1e-5, atol=1e-5 * abs(expected).max()
        )


def _port(golden) -> ChainerVAE:
    n_h, n_in = golden["input:le1/W"].shape
    net = ChainerVAE(n_in, len(golden["input:le3_mu/b"]), n_h).double()
    for layer in LAYERS:
        getattr(net, layer).load_state_dict(
            {
                "weight": torch.as_tensor(golden[f"input:{layer}/W"]),
                "bias": torch.as_tensor(golden[f"input:{layer}/b"]),
            }
        )
    return net
