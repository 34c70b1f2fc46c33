"""The functions on the first page are there to be copied, so they must be right."""

import importlib.util
import re

import numpy as np
import pytest
import site_check
import torch
from torch import distributions

from sumormean.catalogue import evaluate
from vaeloss.audit import audit_loss

PAGE = (site_check.ROOT / "book" / "index.md").read_text(encoding="utf-8")
TABS = dict(re.findall(r":::\{tab-item\} (\w+).*?\n```python\n(.*?)```", PAGE, flags=re.DOTALL))
LIBRARIES = {"PyTorch": "torch", "Keras": "keras", "TensorFlow": "tensorflow", "JAX": "jax"}


def convert(library: str, array: np.ndarray):
    if library == "torch":
        return torch.as_tensor(array)
    if library == "jax":
        import jax.numpy

        return jax.numpy.asarray(array)
    if library == "tensorflow":
        import tensorflow

        return tensorflow.constant(array)
    import keras

    return keras.ops.convert_to_tensor(array)


def test_all_frameworks_are_there():
    assert list(TABS) == list(LIBRARIES)
    assert len(re.findall("```python", PAGE)) == len(TABS)


@pytest.mark.parametrize("shape", [(784,), (28, 28), (3, 8, 8)])
@pytest.mark.parametrize("tab", LIBRARIES)
def test_they_are_the_negative_elbo(tab, shape):
    library = LIBRARIES[tab]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{tab} is not installed")
    generator = torch.Generator().manual_seed(0)
    x = torch.bernoulli(torch.full((5, *shape), 0.3), generator=generator)
    logits = torch.randn(5, *shape, generator=generator)
    mu, log_var = torch.randn(2, 5, 3, generator=generator)

    pixels = distributions.Bernoulli(logits=logits)
    nll = -distributions.Independent(pixels, len(shape)).log_prob(x)
    posterior = distributions.Normal(mu, torch.exp(log_var / 2))
    kl = distributions.kl_divergence(posterior, distributions.Normal(0.0, 1.0)).sum(1)
    expected = (nll + kl).mean().item()

    namespace = {}
    exec(TABS[tab], namespace)  # our own page
    arrays = [convert(library, a.numpy()) for a in (x, logits, mu, log_var)]
    assert np.isclose(float(namespace["vae_loss"](*arrays)), expected, rtol=1e-5)


# How the table's words reduce a term of one value per pixel or latent to one value per image.
REDUCTIONS = {
    "sum over pixels": lambda term: term.sum(1),
    "mean over pixels": lambda term: term.mean(1),
    "sum over latents": lambda term: term.sum(1),
    "mean over latents": lambda term: term.mean(1),
    "sum, divided by D": lambda term: term.sum(1) / 784,
}
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in re.search(r"(?:^\|.*\n)+", PAGE, flags=re.MULTILINE)[0].splitlines()[2:]
]


def test_the_table_is_there():
    assert len(ROWS) == 5 and {cell for row in ROWS for cell in row[:2]} == set(REDUCTIONS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} + {row[1]}")
def test_the_numbers_of_the_table(row):
    """The loss that a row describes, audited, has the row's c and β."""
    reconstruction, kl, c, beta, mnist = row

    def loss_fn(x, x_hat, mu, log_var):
        bce = torch.nn.functional.binary_cross_entropy(x_hat, x, reduction="none").flatten(1)
        pairs = 0.5 * (mu**2 + log_var.exp() - 1 - log_var)
        return REDUCTIONS[reconstruction](bce) + REDUCTIONS[kl](pairs)

    found = audit_loss(loss_fn, data_shape=(28, 28), latent_dim=2)
    assert np.isclose(found.c, evaluate(c, D=784, M=2), rtol=1e-4)
    assert np.isclose(found.beta, evaluate(beta, D=784, M=2), rtol=1e-4)
    printed = re.search(r"c = ([\d/]+),.*β = ([\d½]+)", mnist)
    numbers = [evaluate(text.replace("½", "1/2")) for text in printed.groups()]
    assert np.allclose([found.c, found.beta], numbers, rtol=1e-4)
