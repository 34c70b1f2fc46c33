"""The guide's own loss and likelihood, added to a copy of the checkout by one file each."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", GUIDE, flags=re.DOTALL | re.MULTILINE)
[LIKELIHOOD] = [block for block in BLOCKS if block.startswith("def exponential")]
[LOSS] = [block for block in BLOCKS if block.startswith("@entry")]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the code and of the catalogue's tests, to write into."""
    for package in ("sumormean", "vaeloss"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
    shutil.copy(ROOT / "tests" / "sumormean" / "test_catalogue.py", tmp_path)
    return tmp_path


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Python in the copy, which sees the packages of the copy alone."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, encoding="utf-8"
    )


def add(path: Path, text: str, before: str | None = None) -> None:
    """Put text into a file, at its end or before some words that are there once."""
    old = path.read_text(encoding="utf-8")
    if before is not None:
        assert old.count(before) == 1
        text = old.replace(before, text + before)
    path.write_text(text if before is not None else old + text, encoding="utf-8")


def test_a_toy_loss_can_be_added(checkout):
    family = checkout / "sumormean" / "catalogue" / "losses" / "tutorials.py"
    add(family, f"\n\n{LOSS}")
    wrong = LOSS.replace("0.001*D/2", "0.001*D").replace("my_loss", "my_loss_with_a_wrong_beta")
    add(family, f"\n\n{wrong}")
    tests = ["-m", "pytest", "-q", "-rA", "test_catalogue.py", "-k", "my-loss or has_a_block"]
    done = run(checkout, *tests, "-p", "no:cacheprovider")
    said = done.stdout + done.stderr
    test = "test_catalogue.py::test_the_auditor_finds_what_the_block_says"
    assert f"PASSED {test}[my-loss]\n" in said, said
    assert f"FAILED {test}[my-loss-with-a-wrong-beta]" in said, said
    assert "1 failed, 2 passed" in said, said  # the last one: all functions are entries


ASKED_ABOUT_IT = """
import numpy as np
import torch

import vaeloss
from vaeloss import audit_loss, collapse_threshold, information_budget
from vaeloss.cli import main
from vaeloss.likelihoods import as_likelihood
from vaeloss.metrics import constant_image_nll, rate_distortion


def loss_of_means(x, x_hat, mu, log_var):
    kl = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(1)
    return ((torch.log(x_hat) + x / x_hat).sum(1) + 3 * kl).mean()


def loss_of_logs(x, out, mu, log_var):
    return loss_of_means(x, out.exp(), mu, log_var)


if __name__ == "__main__":
    print(vaeloss.__file__)
    x = np.random.default_rng(0).exponential([1.0, 5.0, 0.2], size=(40_000, 3))
    for loss, name in [(loss_of_means, "exponential"), (loss_of_logs, "exponential-log")]:
        audit = audit_loss(loss, data_shape=(3,), latent_dim=2)
        assert str(audit.likelihood) == name, audit
        assert abs(audit.beta - 3) < 1e-3, audit
        # the scores of data from the likelihood itself have covariance one
        assert abs(collapse_threshold(x, audit.likelihood) - 1) < 0.05
    expected = (1 + np.log(x.mean(0))).sum()
    assert abs(constant_image_nll(x, "exponential") - expected) < 1e-6
    assert information_budget(x, "exponential") > 0
    try:
        collapse_threshold(-x, "exponential")
    except ValueError as error:
        assert "exponential needs 0 or more" in str(error)
    np.save("x.npy", x)
    assert main(["threshold", "x.npy", "--likelihood", "exponential"]) == 0
    audited = ["audit", "toy:loss_of_logs", "--data-shape", "3", "--latent", "2"]
    assert main(audited) == main([*audited, "--likelihood", "exponential-log"]) == 0
"""


def test_a_toy_likelihood_can_be_added(checkout):
    path = checkout / "vaeloss" / "likelihoods" / "likelihood.py"
    add(path, f"{LIKELIHOOD}\n\n", before="FAMILIES: dict")
    add(path, '    "exponential": exponential,\n', before='    "poisson": poisson,\n')
    (checkout / "toy.py").write_text(ASKED_ABOUT_IT, encoding="utf-8")
    done = run(checkout, "toy.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(checkout) in done.stdout and "exponential decoder on 40,000" in done.stdout
    assert done.stdout.count("likelihood  exponential-log") == 2
