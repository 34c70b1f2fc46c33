"""The library's README, which a package index would show: its code runs, its links lead out."""

import contextlib
import io
import re
import shlex

import numpy as np
import pytest
import site_check
import torch

from sumormean.data import DataError, load
from vaeloss.cli import main
from vaeloss.collapse import collapse_threshold

TEXT = (site_check.ROOT / "vaeloss" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_the_audit_prints_what_it_shows():
    (kind, code), (_, expected) = BLOCKS[:2]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})  # our own page
    assert kind == "python" and printed.getvalue() == expected


def test_the_threshold_is_that_of_mnist():
    """Where MNIST can be had; on the bundled digits the code runs all the same."""
    _, code = BLOCKS[2]
    try:
        x = load("mnist").x_train
    except DataError:
        x = load("digits28").x_train
        exec(code, {"x": x})
        pytest.skip("MNIST is not here")
    names = {"x": x}
    exec(code, names)
    squared, bernoulli = re.search(r"On MNIST it is ([\d.]+) .* and ([\d.]+) for", TEXT).groups()
    assert f"{names['beta_star']:.3g}" == squared
    assert f"{collapse_threshold(x):.3g}" == bernoulli


def test_the_verdict_on_a_mean_is_collapse():
    names = {"x": load("digits28").x_train}
    exec(BLOCKS[3][1], names)
    assert names["verdict"].code == "optimal"


def test_the_commands_are_commands(tmp_path, monkeypatch, capsys):
    _, commands = BLOCKS[4]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_module.py").write_text(BLOCKS[0][1].partition("print(")[0])
    np.save("images.npy", load("digits28").x_test)
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "vaeloss" and main(arguments) == 0
    assert "Collapse is optimal" in capsys.readouterr().out


def test_a_step_is_audited_and_watched(capsys):
    blocks = [code for kind, code in BLOCKS if "_step" in code]
    encoder, decoder = torch.nn.Linear(784, 4), torch.nn.Linear(2, 784)

    class Model(torch.nn.Module):
        def forward(self, x):
            mu, log_var = encoder(x).chunk(2, dim=1)
            return decoder(mu + (log_var / 2).exp() * torch.randn_like(mu)), mu, log_var

    def loss_of(x, x_hat, mu, log_var):
        kl = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1).mean()
        return (x - x_hat).square().mean() + kl

    model, x = Model(), torch.rand(8, 784)
    names = dict(zip(("x_hat", "mu", "log_var"), model(x), strict=True))
    exec(blocks[0], {"x": x, "loss": loss_of(x, **names), **names})
    assert "β           392" in capsys.readouterr().out
    names = {"model": model, "train_one_epoch": lambda: loss_of(x, *model(x)).backward()}
    exec(blocks[1], names)
    assert names["seen"].beta == pytest.approx((392, 392), rel=1e-4)


def test_no_link_is_relative():
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert target.startswith("https://"), f"{target} leads nowhere from another page"
