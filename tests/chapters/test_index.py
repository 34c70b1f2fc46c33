"""The functions on the first page are there to be copied, so they must be right."""

import importlib.util
import re

import numpy as np
import pytest
import site_check
import torch
from torch import distributions

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


def test_the_numbers_of_the_table():
    """Each row of the table again, from the definition: recon = c·NLL and KL term = c·β·KL."""
    pixels, latents = 784, 2
    rows = {
        "1/784, 784": (1 / pixels, 1),
        "1/784, 392": (1 / pixels, 1 / latents),
        "1, ½": (1, 1 / latents),
        "1/784, 1": (1 / pixels, 1 / pixels),
    }
    printed = re.findall(r"c = (1|1/784), \*\*β = (784|392|½|1)\*\*", PAGE)
    assert [f"{c}, {beta}" for c, beta in printed] == list(rows)
    for (recon, kl), (c, beta) in zip(rows.values(), printed, strict=True):
        number = {"1/784": 1 / 784, "½": 0.5}
        assert np.isclose(recon, number.get(c) or float(c))
        assert np.isclose(kl / recon, number.get(beta) or float(beta))
