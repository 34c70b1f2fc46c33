"""Losses of JAX and TensorFlow, where one of them is installed."""

import functools

import pytest
import torch

from vaeloss.audit import AuditError, audit_loss, from_jax, from_tensorflow

D, M, B = 12, 3, 16
SIZES = {"data_shape": (D,), "latent_dim": M, "batch_size": B}


@pytest.fixture
def jax():
    return pytest.importorskip("jax", reason="JAX is not installed")


@pytest.fixture
def tf():
    return pytest.importorskip("tensorflow", reason="TensorFlow is not installed")


def check(audit, likelihood, c, beta):
    assert str(audit.likelihood) == likelihood, audit
    assert audit.c == pytest.approx(c, rel=1e-4), audit
    assert audit.beta == pytest.approx(beta, rel=1e-4), audit


def of_jax(jax):
    jnp = jax.numpy

    def loss_fn(logits, x, mean, logvar):
        rec = jnp.sum(jnp.logaddexp(0, logits) - x * logits, 1)
        kl = -0.5 * jnp.sum(1 + logvar - mean**2 - jnp.exp(logvar), 1)
        return jnp.mean(rec + 2 * kl)

    return loss_fn


@pytest.mark.parametrize("compiled", [False, True])
def test_jax(jax, compiled):
    loss_fn = jax.jit(of_jax(jax)) if compiled else of_jax(jax)
    audit = audit_loss(from_jax(loss_fn), **SIZES)
    check(audit, "bernoulli-logits", 1, 2)
    assert audit.has("arguments")


def test_jax_in_a_dict_with_keywords_and_a_key(jax):
    def loss_fn(x, *, recon, mean, logvar, rng):
        z = mean + jax.numpy.exp(logvar / 2) * jax.random.normal(rng, mean.shape)
        kl = jax.numpy.sum((z**2 - logvar - (z - mean) ** 2 / jax.numpy.exp(logvar)) / 2, 1)
        rec = jax.numpy.sum((x - recon) ** 2, 1).mean()
        return {"loss": rec + kl.mean(), "rec": rec, "steps": 3}

    fixed = functools.partial(loss_fn, rng=jax.random.key(0))
    audit = audit_loss(from_jax(fixed), **SIZES)
    check(audit, "gaussian", 2, 1 / 2)
    assert audit.has("total") and audit.has("kl-sampled-once")


def test_jax_without_the_bridge_is_told_of_it(jax):
    with pytest.raises(AuditError, match="loss of JAX.*from_jax") as raised:
        audit_loss(of_jax(jax), **SIZES)
    assert len(str(raised.value)) <= 400


def of_tensorflow(tf):
    def loss_fn(x, x_hat, mean, logvar):
        rec = tf.reduce_mean(tf.square(x - x_hat))
        kl = -0.5 * tf.reduce_sum(1 + logvar - tf.square(mean) - tf.exp(logvar), 1)
        return rec + tf.reduce_mean(kl)

    return loss_fn


@pytest.mark.parametrize("compiled", [False, True])
def test_tensorflow(tf, compiled):
    loss_fn = tf.function(of_tensorflow(tf)) if compiled else of_tensorflow(tf)
    check(audit_loss(from_tensorflow(loss_fn), **SIZES), "gaussian", 2 / D, D / 2)


def test_tensorflow_samples_in_float32(tf):
    def loss_fn(x, logits, mean, logvar):
        x, logits, mean, logvar = (tf.cast(t, tf.float32) for t in (x, logits, mean, logvar))
        z = mean + tf.exp(logvar / 2) * tf.random.normal(tf.shape(mean))
        log_q = -0.5 * ((z - mean) ** 2 * tf.exp(-logvar) + logvar)
        kl = tf.reduce_sum(log_q + 0.5 * z**2, 1)
        rec = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits)
        return tf.reduce_mean(tf.reduce_sum(rec, 1) + kl)

    audit = audit_loss(from_tensorflow(loss_fn), **SIZES)
    check(audit, "bernoulli-logits", 1, 1)
    assert audit.has("kl-sampled")


def test_tensorflow_without_the_bridge_is_told_of_it(tf):
    with pytest.raises(AuditError, match="loss of TensorFlow.*from_tensorflow"):
        audit_loss(of_tensorflow(tf), **SIZES)


@pytest.mark.parametrize("name", ["jax", "tensorflow"])
def test_a_result_of_another_framework_is_named_without_it(name):
    """What a loss returns tells where it is from, even if it took torch tensors."""
    foreign = type("Array", (), {"__module__": f"{name}.numpy"})
    with pytest.raises(AuditError, match=f"from_{name}"):
        audit_loss(lambda x, x_hat, mu, log_var: foreign(), **SIZES)


def test_tokens_pass_through_a_bridge(jax):
    def loss_fn(x, logits, mu, log_var):
        chosen = jax.numpy.take_along_axis(jax.nn.log_softmax(logits), x[..., None], -1)
        kl = 0.5 * (mu**2 + jax.numpy.exp(log_var) - 1 - log_var)
        return -chosen.mean() + kl.sum(1).mean()

    audit = audit_loss(from_jax(loss_fn), categories=5, **SIZES)
    check(audit, "categorical(5)", 1 / D, D)
    assert torch.is_grad_enabled()
