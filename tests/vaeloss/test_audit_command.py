"""``vaeloss audit``: modules, scripts that must not run, methods, exit statuses, JSON."""

import json
import math
import os
import subprocess
import sys

import pytest

from vaeloss.cli import main

MODULE = """
def good(x, x_hat, mu, log_var):
    kl = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1)
    return (x - x_hat).square().mean() + kl.mean()

def no_beta(x, x_hat, mu, log_var):
    return (x - x_hat).square().mean().log() + (mu**2).sum()

def broken(x, x_hat, mu, log_var):
    raise KeyError("weights")

def of_keras(x, x_hat, mu, log_var):
    from keras import ops
    kl = 0.5 * ops.sum(mu**2 + ops.exp(log_var) - 1 - log_var, axis=1)
    return ops.mean(ops.square(x - x_hat)) + ops.mean(kl)

def of_tokens(x, logits, mu, log_var):
    import torch.nn.functional as F
    return F.cross_entropy(logits.transpose(1, 2), x) + good(mu, mu, mu, log_var)
"""
SCRIPT = """
import argparse
import torch.nn.functional as F

try:
    import no_such_package
except ImportError:
    no_such_package = None
from another_missing_one import weights

D = 28 * 28
WEIGHT, KINDS = 1e-1, {"sum": 1}
parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
args = parser.parse_args()
beta = args.beta
print("training")
raise SystemExit(3)

def kl(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1).mean()

def loss(recon_x, x, mu, logvar):
    return F.mse_loss(recon_x, x) + WEIGHT * kl(mu, logvar)

def weighted(x, x_hat, mu, log_var):
    return loss(x_hat, x, mu, log_var) + beta * args.scale * helper(mu, log_var)

def helper(mu, log_var):
    return weights[0] * kl(mu, log_var)

def train():
    def inner(x, x_hat, mu, log_var):
        return loss(x_hat, x, mu, log_var)

class VAE:
    def loss(self, x, x_hat, mu, log_var):
        return self.scale() * loss(x_hat, x, mu, log_var)
    def scale(self):
        return D

class Beta(VAE):
    def __init__(self, beta):
        self.beta = beta
    def loss_function(self, x, x_hat, mu, log_var):
        return self.beta * kl(mu, log_var)

if __name__ == "__main__":
    train()
"""
SHAPE = ("--data-shape", "784", "--latent", "2")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "losses_here.py").write_text(MODULE)
    (tmp_path / "incomplete.py").write_text("import no_such_package")
    (tmp_path / "runs.py").write_text("raise SystemExit('usage: runs.py --data')")
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "broken.py").write_text("def f(:")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("KERAS_BACKEND", "KERAS_TORCH_DEVICE"):
        monkeypatch.setenv(name, os.environ.get(name, "torch" if "BACKEND" in name else "cpu"))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (("losses_here:good", "--data-shape", "28,28", "--latent", "2"), 0, "392"),
        (("losses_here:of_keras", "--data-shape", "28,28", "--latent", "2"), 0, "392"),
        (("losses_here:of_tokens", *SHAPE, "--categories", "5", "--batch-size", "4"), 0, "784"),
        (("losses_here.py:good", *SHAPE), 0, "392"),
        (("./losses_here.py:good", *SHAPE), 0, "392"),
        (("train.py:loss", *SHAPE), 0, "39.2"),
        (("train.py:VAE.loss", *SHAPE), 0, "39.2"),
        (("losses_here:no_beta", *SHAPE), 1, "unknown"),
        (("losses_here:broken", *SHAPE), 2, "KeyError: 'weights'"),
        (("losses_here:absent", *SHAPE), 2, "no function 'absent' at its top level (it has good"),
        (("incomplete:f", *SHAPE), 2, "needs 'no_such_package'"),
        (("nowhere:good", *SHAPE), 2, "folder of nowhere.py"),
        (("nowhere.py:good", *SHAPE), 2, "No such file"),
        (("broken.py:f", *SHAPE), 2, "no Python that this version reads"),
        (("runs:f", *SHAPE), 2, "runs.py:function"),
        (("losses_here", *SHAPE), 2, "write train.py:vae_loss"),
        (("losses_here:good", "--data-shape", "28x28", "--latent", "2"), 2, "--data-shape 28x28"),
        (("losses_here:good", "--data-shape", "784", "--latent", "0"), 2, "latent_dim=0"),
        (("losses_here:good", *SHAPE, "--likelihood", "huber"), 2, "unknown likelihood"),
        (("train.py:weighted", *SHAPE), 2, "needs args, beta, weights (ModuleNotFoundError"),
        (("train.py:inner", *SHAPE), 2, "no function 'inner'"),
        (("train.py:Beta.loss_function", *SHAPE), 2, "Beta(...).loss_function"),
        (("train.py:VAE", *SHAPE), 2, "VAE is a class: give its method"),
    ],
)
def test_command(folder, capsys, arguments, status, expected):
    assert main(["audit", *arguments]) == status
    out, err = capsys.readouterr()
    assert expected in (out if status < 2 else err)
    assert "training" not in out and len(err) <= 420


def test_a_missing_argument_is_status_2(folder, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["audit", "losses_here:good", "--data-shape", "784"])
    assert raised.value.code == 2 and "--latent" in capsys.readouterr().err


def test_json_has_everything_and_null_for_what_is_unknown(folder, capsys):
    assert main(["audit", "losses_here:good", *SHAPE, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["likelihood"] == "gaussian" and math.isclose(told["beta"], 392)
    assert told["findings"][0]["code"] == "reductions"
    assert told["findings"][0]["data"]["formula"] == "D/2"
    assert main(["audit", "losses_here:no_beta", *SHAPE, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["beta"] is None and told["likelihood"] is None and told["reached"] == 1
    assert [each["code"] for each in told["findings"]][-1] == "kl-ignores-log-var"


def test_as_a_program(folder):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-m", "vaeloss", "audit", "train.py:loss", *SHAPE],
        cwd=folder,
        env={**environment, "PYTHONPATH": root, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0 and "39.2" in done.stdout and done.stderr == ""
