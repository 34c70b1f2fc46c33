"""The auditor against losses whose c and β are known by algebra.

`c` and `beta` of every loss below are written down by hand from its formula, never measured.
"""

import json
import math
import os

import pytest
import torch
import torch.nn.functional as F
from torch import distributions

from vaeloss.audit import Audit, Finding, audit_loss
from vaeloss.audit.findings import SENTENCES
from vaeloss.collapse import collapse_threshold
from vaeloss.likelihoods import (
    bernoulli_nll,
    continuous_bernoulli_nll,
    gaussian_nll,
    kl_standard_normal,
)

os.environ.setdefault("KERAS_BACKEND", "torch")
D, M, B = 12, 3, 16
SHAPE = (2, 3, 2)


def kl(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var)


def sse(x, x_hat):
    return (x - x_hat).square().flatten(1).sum(1)


def bce(x, p):
    return -(x * p.log() + (1 - x) * (1 - p).log()).flatten(1)


def keras_bce_last_axis(x, p, mu, log_var):
    import keras

    rec = keras.ops.sum(keras.losses.binary_crossentropy(x, p), axis=(1, 2))
    k = -0.5 * (1 + log_var - keras.ops.square(mu) - keras.ops.exp(log_var))
    return keras.ops.mean(rec + keras.ops.sum(k, axis=1))


def keras_mse_class(x, p, mu, log_var):
    import keras

    k = -0.5 * keras.ops.sum(1 + log_var - mu**2 - keras.ops.exp(log_var), axis=-1)
    return keras.losses.MeanSquaredError()(x, p) + keras.ops.mean(k)


def keras_mean_kl(x, p, mu, log_var):
    import keras

    x, p = keras.ops.reshape(x, (-1, D)), keras.ops.reshape(p, (-1, D))
    rec = keras.ops.mean(keras.losses.binary_crossentropy(x, p)) * D
    return rec - 0.5 * keras.ops.mean(1 + log_var - keras.ops.square(mu) - keras.ops.exp(log_var))


def torch_distributions_loss(x, p, mu, log_var):
    q = distributions.Normal(mu, (log_var / 2).exp())
    log_p = distributions.Independent(distributions.Normal(p, 0.1), 3).log_prob(x)
    return -log_p + distributions.kl_divergence(q, distributions.Normal(0.0, 1.0)).sum(1)


def bernoulli_validated(x, p, mu, log_var):
    log_p = distributions.Bernoulli(p, validate_args=True).log_prob(x).flatten(1).sum(1)
    return -log_p + kl(mu, log_var).sum(1)


def in_place(x, p, mu, log_var):
    rec = p.sub_(x).square_().flatten(1).sum(1)
    return (rec + kl(mu, log_var).sum(1)).mean()


def clipped(x, p, mu, log_var):
    return bce(x, p.clamp(1e-7, 1 - 1e-7)).sum(1) + kl(mu, log_var).sum(1)


def float32_inside(x, p, mu, log_var):
    weight = torch.ones(D, 1)  # float32: a product with float64 raises
    return ((x - p).square().flatten(1) @ weight).sum(1) + kl(mu, log_var).sum(1)


def nominal_batch(x, p, mu, log_var):
    return F.binary_cross_entropy(p, x) + kl(mu, log_var).sum() / (128 * D)


def wants_a_flat_view(x, p, mu, log_var):
    return F.mse_loss(p.view(-1, D), x.view(-1, D), reduction="sum") + kl(mu, log_var).sum()


# name: (loss, likelihood, c, beta)
LOSSES = {
    "half SSE + KL": (
        lambda x, p, mu, lv: 0.5 * sse(x, p) + kl(mu, lv).sum(1),
        "gaussian", 1, 1,
    ),
    "SSE + KL, batch mean": (
        lambda x, p, mu, lv: (sse(x, p) + kl(mu, lv).sum(1)).mean(),
        "gaussian", 2, 1 / 2,
    ),
    "SSE + KL, batch sum": (
        lambda x, p, mu, lv: (sse(x, p) + kl(mu, lv).sum(1)).sum(),
        "gaussian", 2 * B, 1 / 2,
    ),
    "mean MSE + KL": (
        lambda x, p, mu, lv: F.mse_loss(p, x) + kl(mu, lv).sum(1).mean(),
        "gaussian", 2 / D, D / 2,
    ),
    "mean MSE + mean KL": (
        lambda x, p, mu, lv: F.mse_loss(p, x) + kl(mu, lv).mean(),
        "gaussian", 2 / D, D / (2 * M),
    ),
    "D mean MSE + KL": (
        lambda x, p, mu, lv: D * F.mse_loss(p, x) + kl(mu, lv).sum(1).mean(),
        "gaussian", 2, 1 / 2,
    ),
    "mean MSE, KL summed over the batch": (
        lambda x, p, mu, lv: F.mse_loss(p, x) + kl(mu, lv).sum(),
        "gaussian", 2 / D, B * D / 2,
    ),
    "mean MSE + 0.00025 KL": (
        lambda x, p, mu, lv: F.mse_loss(p, x) + 0.00025 * kl(mu, lv).sum(1).mean(),
        "gaussian", 2 / D, 0.00025 * D / 2,
    ),
    "MSE over a variance": (
        lambda x, p, mu, lv: F.mse_loss(p, x) / 0.06 + kl(mu, lv).mean(),
        "gaussian", 2 / (0.06 * D), 0.06 * D / (2 * M),
    ),
    "Gaussian NLL with constant": (
        lambda x, p, mu, lv: gaussian_nll(x, p, 0.3) + kl_standard_normal(mu, lv),
        "gaussian", 1 / 0.3, 0.3,
    ),
    "torch.distributions, std 0.1": (torch_distributions_loss, "gaussian", 100, 0.01),
    "torch GaussianNLLLoss": (
        lambda x, p, mu, lv: F.gaussian_nll_loss(p, x, torch.full_like(x, 4.0), full=True)
        + kl(mu, lv).sum(1).mean(),
        "gaussian", 1 / (4 * D), 4 * D,
    ),
    "in place": (in_place, "gaussian", 2, 1 / 2),
    "float32 weights inside": (float32_inside, "gaussian", 2, 1 / 2),
    "views, summed over the batch": (wants_a_flat_view, "gaussian", 2 * B, 1 / 2),
    "KL summed, squared error per sample": (
        lambda x, p, mu, lv: sse(x, p) + kl(mu, lv).sum(), "gaussian", 2, B / 2,
    ),
    "KL batch sum, error batch mean": (
        lambda x, p, mu, lv: sse(x, p).mean() + kl(mu, lv).sum(), "gaussian", 2, B / 2,
    ),
    "both divided by B twice": (
        lambda x, p, mu, lv: (sse(x, p) + kl(mu, lv).sum(1)).mean() / len(x),
        "gaussian", 2 / B, 1 / 2,
    ),
    "squared error of a sigmoid": (
        lambda x, p, mu, lv: sse(x, p.sigmoid()) + 3 * kl(mu, lv).sum(1),
        "gaussian-logits", 2, 3 / 2,
    ),
    "BCE + KL": (
        lambda x, p, mu, lv: bce(x, p).sum(1) + kl(mu, lv).sum(1), "bernoulli", 1, 1,
    ),
    "BCE of torch, sums": (
        lambda x, p, mu, lv: F.binary_cross_entropy(p, x, reduction="sum") + kl(mu, lv).sum(),
        "bernoulli", B, 1,
    ),
    "mean BCE + KL": (
        lambda x, p, mu, lv: F.binary_cross_entropy(p, x) + kl(mu, lv).sum(1).mean(),
        "bernoulli", 1 / D, D,
    ),
    "mean BCE + mean KL": (
        lambda x, p, mu, lv: F.binary_cross_entropy(p, x) + kl(mu, lv).mean(),
        "bernoulli", 1 / D, D / M,
    ),
    "both divided by D": (
        lambda x, p, mu, lv: F.binary_cross_entropy(p, x) + kl(mu, lv).sum(1).mean() / D,
        "bernoulli", 1 / D, 1,
    ),
    "BCE + mean KL": (
        lambda x, p, mu, lv: bce(x, p).sum(1).mean() + kl(mu, lv).mean(), "bernoulli", 1, 1 / M,
    ),
    "clipped BCE": (clipped, "bernoulli", 1, 1),
    "a nominal batch size": (nominal_batch, "bernoulli", 1 / D, B / 128),
    "binary pixels only": (bernoulli_validated, "bernoulli", 1, 1),
    "BCE of logits": (
        lambda x, p, mu, lv: bernoulli_nll(x, p) + 4 * kl(mu, lv).sum(1),
        "bernoulli-logits", 1, 4,
    ),
    "mean BCE of logits": (
        lambda x, p, mu, lv: F.binary_cross_entropy_with_logits(p, x) + 0.1 * kl(mu, lv).mean(),
        "bernoulli-logits", 1 / D, 0.1 * D / M,
    ),
    "continuous Bernoulli, logits": (
        lambda x, p, mu, lv: continuous_bernoulli_nll(x, p) + kl(mu, lv).sum(1),
        "continuous-bernoulli-logits", 1, 1,
    ),
    "continuous Bernoulli of torch": (
        lambda x, p, mu, lv: 2 * kl(mu, lv).sum(1)
        - distributions.ContinuousBernoulli(p, lims=(0.4999, 0.5001)).log_prob(x).sum((1, 2, 3)),
        "continuous-bernoulli", 1, 2,
    ),
    "absolute error": (
        lambda x, p, mu, lv: (x - p).abs().sum((1, 2, 3)).mean() + 1e-6 * kl(mu, lv).sum(1).mean(),
        "laplace", 1, 1e-6,
    ),
    "mean absolute error": (
        lambda x, p, mu, lv: F.l1_loss(p, x) + kl(mu, lv).sum(1).mean(), "laplace", 1 / D, D,
    ),
    "no KL": (lambda x, p, mu, lv: F.mse_loss(p, x), "gaussian", 2 / D, 0),
    "KL with the wrong sign": (
        lambda x, p, mu, lv: 0.5 * sse(x, p) - kl(mu, lv).sum(1), "gaussian", 1, -1,
    ),
    "Keras BCE, last axis": (keras_bce_last_axis, "bernoulli", 1 / 2, 2),
    "Keras MSE class": (keras_mse_class, "gaussian", 2 / D, D / 2),
    "Keras BCE x D, mean KL": (keras_mean_kl, "bernoulli", 1, 1 / M),
}  # fmt: skip


def check(audit: Audit, likelihood, c, beta):
    assert str(audit.likelihood) == likelihood, audit
    assert audit.c == pytest.approx(c, rel=1e-4, abs=0), audit
    assert audit.beta == pytest.approx(beta, rel=1e-4, abs=0), audit
    assert audit.sigma2 == (audit.beta if likelihood.startswith("gaussian") else None)
    assert audit.kl_weight == pytest.approx(c * beta, rel=1e-4, abs=1e-300)
    assert audit.residual <= 1e-4 and audit.reached == 1


@pytest.mark.parametrize("name", LOSSES)
def test_hand_written_losses(name):
    loss_fn, likelihood, c, beta = LOSSES[name]
    check(audit_loss(loss_fn, data_shape=SHAPE, latent_dim=M, batch_size=B), likelihood, c, beta)


# --- findings ------------------------------------------------------------------------------------


def findings(loss_fn, data_shape=SHAPE, latent_dim=M, batch_size=B, **kwargs):
    audit = audit_loss(
        loss_fn, data_shape=data_shape, latent_dim=latent_dim, batch_size=batch_size, **kwargs
    )
    return {found.code: found.data for found in audit.findings}


@pytest.mark.parametrize(
    ("name", "code", "data"),
    [
        ("mean MSE + KL", "reductions", {"formula": "D/2", "pixels": "mean over pixels"}),
        ("half SSE + KL", "elbo", {}),
        ("both divided by D", "elbo", {}),
        ("both divided by D", "learning-rate", {"factor": pytest.approx(1 / D)}),
        ("mean BCE + mean KL", "reductions", {"formula": "D/M", "latents": "mean over latents"}),
        ("mean MSE + mean KL", "reductions", {"formula": "D/(2M)"}),
        ("BCE + mean KL", "reductions", {"formula": "1/M"}),
        ("BCE + mean KL", "multiply-kl", {"factor": pytest.approx(M)}),
        ("Keras BCE, last axis", "reductions", {"formula": "2"}),
        ("mean MSE, KL summed over the batch", "reductions", {"formula": "B·D/2"}),
        ("mean MSE, KL summed over the batch", "beta-depends-on-batch", {}),
        (
            "KL batch sum, error batch mean",
            "beta-depends-on-batch",
            {"kl": "summed over the batch"},
        ),
        ("a nominal batch size", "beta-depends-on-batch", {}),
        ("SSE + KL, batch sum", "c-depends-on-batch", {"both": "summed over the batch"}),
        ("both divided by B twice", "c-depends-on-batch", {}),
        ("no KL", "no-kl", {}),
        ("KL with the wrong sign", "negative-beta", {}),
        ("clipped BCE", "clipped", {"nats": pytest.approx(16.1, abs=0.1)}),
    ],
)
def test_findings(name, code, data):
    found = findings(LOSSES[name][0])
    assert code in found and {key: found[code][key] for key in data} == data


def test_every_finding_has_a_sentence_and_can_be_stored():
    for loss_fn, *_ in LOSSES.values():
        audit = audit_loss(loss_fn, data_shape=SHAPE, latent_dim=M, batch_size=B)
        for found in audit.findings:
            assert len(found.sentence) <= 400
            assert found.sentence == SENTENCES[found.code].format(**found.data)
            assert json.loads(json.dumps(found.data)) == found.data


def test_a_plain_elbo_has_nothing_to_say_but_that():
    audit = audit_loss(LOSSES["BCE + KL"][0], data_shape=SHAPE, latent_dim=M)
    assert [found.code for found in audit.findings] == ["elbo"]


def test_what_to_change_comes_last():
    printed = str(audit_loss(LOSSES["mean MSE + KL"][0], data_shape=SHAPE, latent_dim=M))
    rows = [line for line in printed.splitlines()[1:] if not line.startswith(" " * 14)]
    names = [line.split()[0] for line in rows]
    assert max(map(len, printed.splitlines())) <= 76
    assert names[-2:] == ["change", "change"] and "change" not in names[:-2]
    assert f"multiply the KL by {2 / D:.6g}" in printed


def test_a_change_that_is_followed_gives_beta_one():
    loss_fn = LOSSES["mean MSE + mean KL"][0]
    factor = findings(loss_fn)["multiply-kl"]["factor"]

    def mended(x, x_hat, mu, log_var):
        prior = torch.zeros_like(mu)
        reconstruction = loss_fn(x, x_hat, prior, prior)
        return reconstruction + factor * (loss_fn(x, x_hat, mu, log_var) - reconstruction)

    assert audit_loss(mended, data_shape=SHAPE, latent_dim=M).beta == pytest.approx(1)


def monte_carlo(x, x_hat, mu, log_var):
    std = (log_var / 2).exp()
    z = mu + std * torch.randn_like(std)
    log_q = distributions.Normal(mu, std).log_prob(z)
    return 0.5 * sse(x, x_hat) + 0.3 * (log_q + 0.5 * z**2).sum(1)


def test_a_monte_carlo_kl_is_recognised_and_weighed():
    audit = audit_loss(monte_carlo, data_shape=SHAPE, latent_dim=M)
    check(audit, "gaussian", 1, 0.3)
    assert audit.has("kl-sampled")


def test_a_monte_carlo_kl_summed_over_the_batch():
    audit = audit_loss(
        lambda x, p, mu, lv: sse(x, p).mean() + (monte_carlo(x, x, mu, lv)).sum(),
        data_shape=SHAPE,
        latent_dim=M,
        batch_size=B,
    )
    check(audit, "gaussian", 2, 0.3 * B / 2)
    assert audit.has("beta-depends-on-batch")


def test_a_monte_carlo_kl_summed_over_a_large_batch():
    audit = audit_loss(
        lambda x, p, mu, lv: sse(x, p).sum() + monte_carlo(x, x, mu, lv).sum(),
        data_shape=SHAPE,
        latent_dim=50,
        batch_size=256,
    )
    assert audit.beta == pytest.approx(0.15, rel=1e-4)
    assert audit.c == pytest.approx(512, rel=1e-4)


# --- sizes, side effects, faces ------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 4096])
def test_a_colour_photograph(m):
    def loss_fn(x, x_hat, mu, log_var):
        return F.l1_loss(x_hat, x, reduction="sum") + 1e-6 * kl(mu, log_var).sum()

    audit = audit_loss(loss_fn, data_shape=(3, 256, 256), latent_dim=m, batch_size=64)
    check(audit, "laplace", 64, 1e-6)  # probed in smaller batches, reported for the one asked for
    assert audit.batch_size == 64


def test_it_works_under_no_grad_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    with torch.no_grad():
        audit = audit_loss(monte_carlo, data_shape=SHAPE, latent_dim=M)
        assert not torch.is_grad_enabled()
    assert torch.equal(before, torch.random.get_rng_state())
    assert audit == audit_loss(monte_carlo, data_shape=SHAPE, latent_dim=M)


def test_both_faces_show_the_numbers_and_escape_the_notes():
    audit = audit_loss(LOSSES["mean MSE + KL"][0], data_shape=(28, 28), latent_dim=2)
    assert "392" in str(audit) and "392" in audit._repr_html_() and "gaussian" in str(audit)
    found = (Finding("no-kl", "a < b"),)
    refused = Audit(None, math.nan, math.nan, None, math.nan, 1.0, 0.5, found, 64)
    assert "unknown" in str(refused) and "a &lt; b" in refused._repr_html_()


def test_an_audit_is_compared_with_data():
    def loss_fn(x, x_hat, mu, log_var):
        return (x - x_hat).square().flatten(1).mean(1).mean() + kl(mu, log_var).sum(1).mean()

    x = torch.rand(300, 3, 3, generator=torch.Generator().manual_seed(0))
    audit = audit_loss(loss_fn, data_shape=(3, 3), latent_dim=2)
    assert audit.threshold(x) == collapse_threshold(x, "gaussian")
    assert audit.verdict(x).code == "optimal" and audit.verdict(x).beta == audit.beta
    free = audit_loss(
        lambda x, x_hat, mu, log_var: (x - x_hat).square().flatten(1).sum(1),
        data_shape=(3, 3), latent_dim=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match="no positive β"):
        free.verdict(x)
    unknown = audit_loss(
        lambda x, x_hat, mu, log_var: (
            torch.cosh(x - x_hat).sum((1, 2)) + kl(mu, log_var).sum(1)
        ).mean(),
        data_shape=(3, 3), latent_dim=2,
    )  # fmt: skip
    for method in [unknown.threshold, unknown.verdict]:
        with pytest.raises(ValueError, match="is unknown.*name it"):
            method(x)
