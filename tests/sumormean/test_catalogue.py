"""The catalogue: every loss against the block above it, and blocks that are wrong."""

import inspect
import math
from importlib import import_module

import pytest

from sumormean.catalogue import CatalogueError, catalogue, entries, entry, evaluate
from sumormean.catalogue.losses import FAMILIES

ENTRIES = catalogue()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_the_auditor_finds_what_the_block_says(entry):
    audit = entry.audit()
    assert entry.agrees(audit), f"{entry}\n{audit}"


def test_every_loss_has_a_block_and_its_place():
    functions = [
        f
        for family in FAMILIES
        for f in vars(import_module(f"sumormean.catalogue.losses.{family}")).values()
        if inspect.isfunction(f) and f.__module__.endswith(f".losses.{family}")
    ]
    assert functions == [entry.loss for entry in ENTRIES]


def test_an_audit_of_another_loss_does_not_agree():
    by_id = {entry.id: entry for entry in ENTRIES}
    swapped, summed = by_id["keras-2016-07-25"], by_id["keras-2016-07-24"]
    assert summed.agrees(summed.audit())
    assert not swapped.agrees(summed.audit())
    assert not by_id["sigma-optimal"].agrees(by_id["sigma-gaussian"].audit())
    assert not by_id["sigma-gaussian"].agrees(by_id["sigma-optimal"].audit())
    assert not by_id["pythae-vqvae-now"].agrees(by_id["pythae-vqvae-old"].audit())


DEPENDS = {"c-depends-on-batch", "beta-depends-on-batch", "term-depends-on-batch"}


def test_weights_that_depend_on_the_batch_are_said_to():
    found = {
        entry.id: any(found.code in DEPENDS for found in entry.audit().findings)
        for entry in ENTRIES
        if entry.shape in [(784,), (1, 28, 28), (28, 28, 1)]
        and not (entry.beta == "1" and entry.c == "B")
    }
    wrong = {
        entry.id
        for entry in ENTRIES
        if any("B" in (f or "") for f in (entry.beta, entry.codebook)) and entry.id in found
    }
    assert {"pythae-vae-mse-7992fbd", "pythae-vqvae-now", "pytorch-2017-10"} <= wrong
    for name in wrong:
        assert found[name], name


@pytest.mark.parametrize(
    "formula, value",
    [
        ("1/2", 0.5),
        ("2*B/D", 2 * 100 / 784),
        ("-1e-3*D/M", -0.392),
        ("exp(2*log(3))", 9),
        ("B**2", 1e4),
    ],
)
def test_evaluate(formula, value):
    assert math.isclose(evaluate(formula, B=100, D=784, M=2), value)


@pytest.mark.parametrize(
    "formula", ["", "N", "1/", "1/0", "__import__('os')", "B.real", "[1]", "True+"]
)
def test_what_is_no_formula_is_refused(formula):
    with pytest.raises(ValueError):
        evaluate(formula, B=100)


BLOCK = {
    "title": "Mine", "repository": "me/mine", "path": "a.py", "commit": "abc",
    "terms": "sum_D SE", "likelihood": "gaussian", "data": "any", "shape": (4,), "latent_dim": 2,
    "batch_size": 8, "surprise": "", "c": "2", "beta": "1/2",
}  # fmt: skip


def mine(x, x_hat, mu, log_var):
    kl = 0.5 * (mu.square() + log_var.exp() - 1 - log_var)
    return ((x - x_hat).square().sum(1) + kl.sum(1)).mean()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"title": None}, "mine: add title"),
        ({"bta": "1"}, "mine: unknown key bta"),
        ({"shape": 4}, "mine: shape = 4 is no tuple"),
        ({"beta": None}, "mine: give beta, or codebook"),
        ({"codebook": "1"}, "mine: give beta, or codebook"),
        ({"beta": None, "refused": "kl-varies"}, "mine: refused = 'kl-varies': the auditor"),
    ],
)
def test_a_wrong_block_is_named(change, words):
    block = {k: v for k, v in {**BLOCK, **change}.items() if v is not None}
    with pytest.raises(CatalogueError, match=words):
        entry(**block)(mine)


def test_an_entry_from_elsewhere_is_not_in_the_catalogue():
    for _ in range(2):  # a cell that is run again
        assert entry(**BLOCK)(mine) is mine
    assert mine.entry.agrees(mine.entry.audit())
    assert catalogue() == ENTRIES


def test_an_id_is_used_once(monkeypatch):
    monkeypatch.setattr(entries, "ENTRIES", {})
    monkeypatch.setattr(mine, "__module__", "sumormean.catalogue.losses.toys")
    entry(**BLOCK)(mine)
    with pytest.raises(CatalogueError, match="mine: there are two entries with this id"):
        entry(**BLOCK)(mine)


def test_a_wrong_formula_is_named():
    with pytest.raises(CatalogueError, match="mine: beta = '1/K': not understood: K"):
        entry(**{**BLOCK, "beta": "1/K"})(mine).entry.expected("beta")
