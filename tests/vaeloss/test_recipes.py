"""The steps of other frameworks on the page "Check your own loss": the code that stands there."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "book" / "use" / "check-your-own-loss.ipynb"
TEXT = "\n".join(c.source for c in nbformat.read(PAGE, 4).cells if c.cell_type == "markdown")
TENSORFLOW, JAX, READ = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)

g = np.random.default_rng(0)
X, A, B, C = (g.normal(size=s).astype("float32") for s in [(8, 6), (6, 2), (2, 6), (6, 2)])
EPS = g.normal(size=(8, 2)).astype("float32")


def read(code, names, numpy):
    """c and β by the page's code; the truth is 2/D and 3·D/2 for a mean and a KL of weight 3."""
    exec(code + READ, names)
    d_x_hat, d_mu, x_hat, mu = names["gradients"](*names["parts"], X)
    return names["weights"](*map(numpy, (d_x_hat, d_mu, X, x_hat, mu)))


def test_tensorflow():
    tf = pytest.importorskip("tensorflow")

    def loss_fn(x, x_hat, mu, log_var):
        kl = 0.5 * tf.reduce_sum(mu**2 + tf.exp(log_var) - 1 - log_var, 1)
        return tf.reduce_mean((x - x_hat) ** 2) + 3 * tf.reduce_mean(kl)

    parts = (
        loss_fn,
        lambda x: (x @ tf.constant(A), x @ tf.constant(C)),
        lambda z: tf.tanh(z @ tf.constant(B)),
        lambda mu, log_var: mu + tf.exp(log_var / 2) * EPS,
    )
    names = {"tf": tf, "parts": parts}
    assert read(TENSORFLOW, names, np.asarray) == pytest.approx((2 / 6, 9), rel=1e-5)


def test_jax():
    jax = pytest.importorskip("jax")
    jnp = jax.numpy

    def loss_fn(x, x_hat, mu, log_var):
        kl = 0.5 * (mu**2 + jnp.exp(log_var) - 1 - log_var).sum(1)
        return ((x - x_hat) ** 2).mean() + 3 * kl.mean()

    parts = (
        loss_fn,
        lambda x: (x @ A, x @ C),
        lambda z: jnp.tanh(z @ B),
        lambda mu, log_var: mu + jnp.exp(log_var / 2) * EPS,
    )
    names = {"jax": jax, "jnp": jnp, "parts": parts}
    assert read(JAX, names, np.asarray) == pytest.approx((2 / 6, 9), rel=1e-5)
