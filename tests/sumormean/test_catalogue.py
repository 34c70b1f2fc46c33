"""The catalogue: every loss function against its block, and blocks that are wrong."""

import inspect
import math

import pytest

from sumormean.catalogue import CatalogueError, catalogue, evaluate, parse
from sumormean.catalogue import losses as implementations

ENTRIES = catalogue()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_the_auditor_finds_what_the_block_says(entry):
    audit = entry.audit()
    assert entry.agrees(audit), f"{entry}\n{audit}"


def test_every_loss_has_a_block():
    helpers = {"squared", "absolute", "bce", "keras_bce", "kl", "sampled_kl"}
    helpers |= {"codebook", "commitment"}
    functions = {
        name
        for name, f in inspect.getmembers(implementations, inspect.isfunction)
        if f.__module__ == implementations.__name__
    }
    assert functions - helpers == {entry.id.replace("-", "_") for entry in ENTRIES}


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
    wrong = {"pythae-vae-mse-7992fbd", "pythae-vqvae-now", "pytorch-2017-10"}
    wrong |= {"chainer-mse-swap-divided"}
    beta_depends = {
        entry.id
        for entry in ENTRIES
        if any("B" in (f or "") for f in (entry.beta, entry.codebook)) and entry.id in found
    }
    assert beta_depends == wrong
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
    "id": "mine", "title": "Mine", "repository": "me/mine", "path": "a.py", "commit": "abc",
    "terms": "sum_D SE", "likelihood": "gaussian", "data": "any", "shape": [4], "latent_dim": 2,
    "batch_size": 8, "surprise": "", "c": "2", "beta": "1/2",
}  # fmt: skip


@pytest.mark.parametrize(
    "change, words",
    [
        ({"title": None}, "mine: add title"),
        ({"bta": "1"}, "mine: unknown key bta"),
        ({"beta": None}, "mine: give beta, or codebook"),
        ({"codebook": "1"}, "mine: give beta, or codebook"),
    ],
)
def test_a_wrong_block_is_named(change, words):
    block = {k: v for k, v in {**BLOCK, **change}.items() if v is not None}
    with pytest.raises(CatalogueError, match=words):
        parse([block])


def test_an_id_is_used_once():
    with pytest.raises(CatalogueError, match="mine: there are two blocks"):
        parse([BLOCK, BLOCK])


def test_a_missing_function_or_formula_is_named():
    [entry] = parse([{**BLOCK, "beta": "1/K"}])
    with pytest.raises(CatalogueError, match=r"write mine\(\) in sumormean/catalogue/losses.py"):
        entry.audit()
    with pytest.raises(CatalogueError, match="mine: beta = '1/K': not understood: K"):
        entry.expected("beta")
