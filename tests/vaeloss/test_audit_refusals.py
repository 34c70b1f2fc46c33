"""Losses that have no β, and losses that cannot be probed: refused, with the reason."""

import math

import pytest
import torch
import torch.nn.functional as F

from vaeloss.audit import AuditError, audit_loss
from vaeloss.likelihoods import bernoulli_nll, gaussian, gaussian_nll

D, M, B = 12, 3, 16
SHAPE = (2, 3, 2)


def kl(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var)


def sse(x, x_hat):
    return (x - x_hat).square().flatten(1).sum(1)


def bce(x, p):
    return -(x * p.log() + (1 - x) * (1 - p).log()).flatten(1)


def bce_plus_kl(x, p, mu, log_var):
    return bce(x, p).sum(1) + kl(mu, log_var).sum(1)


def bce_of_logits(x, logits, mu, log_var):
    return bernoulli_nll(x, logits) + 4 * kl(mu, log_var).sum(1)


def check(audit, likelihood, c, beta):
    assert str(audit.likelihood) == likelihood, audit
    assert audit.c == pytest.approx(c, rel=1e-4) and audit.beta == pytest.approx(beta, rel=1e-4)


def findings(loss_fn, data_shape=SHAPE, **kwargs):
    sizes = {"data_shape": data_shape, "latent_dim": M, "batch_size": B}
    return {found.code: found.data for found in audit_loss(loss_fn, **sizes, **kwargs).findings}


# --- losses that have no β: refused, with the reason ---------------------------------------------

KL_UNKNOWN = {  # the reconstruction is fine: c is known, β is not
    "log sigma": (
        lambda mu, s: 0.5 * (mu**2 + (2 * s).exp() - 1 - 2 * s).sum(1),
        "kl-of-log-sigma",
    ),
    "free bits": (lambda mu, lv: kl(mu, lv).clamp(min=0.5).sum(1), "kl-unknown"),
    "capacity": (lambda mu, lv: (kl(mu, lv).sum(1).mean() - 3).abs(), "kl-weight-varies"),
    "squared": (lambda mu, lv: kl(mu, lv).sum(1).mean() ** 2, "kl-weight-varies"),
    "only mu": (lambda mu, lv: 0.5 * (mu**2).sum(1), "kl-ignores-log-var"),
    "only log_var": (lambda mu, lv: 0.5 * (lv.exp() - 1 - lv).sum(1), "kl-ignores-mu"),
    "another prior": (lambda mu, lv: kl(mu - 1, lv).sum(1), "kl-unknown"),
    "weights per latent": (
        lambda mu, lv: (kl(mu, lv) * torch.arange(1.0, M + 1)).sum(1),
        "kl-unknown",
    ),
    "missing log": (lambda mu, lv: 0.5 * (mu**2 + lv.exp()).sum(1), "kl-unknown"),
    "noise on mu": (
        lambda mu, lv: kl(mu + torch.randn_like(mu), lv).sum(1),
        "kl-random",
    ),
    "noise alone": (
        lambda mu, lv: (mu * torch.randn_like(mu)).sum(1), "kl-random",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KL_UNKNOWN)
def test_an_unknown_kl_gives_c_but_no_beta(name):
    wrong_kl, code = KL_UNKNOWN[name]
    audit = audit_loss(
        lambda x, p, mu, lv: sse(x, p).mean() + wrong_kl(mu, lv).mean(),
        data_shape=SHAPE,
        latent_dim=M,
        batch_size=B,
    )
    assert audit.likelihood == gaussian() and audit.c == pytest.approx(2, rel=1e-4)
    assert math.isnan(audit.beta) and audit.sigma2 is None and audit.residual > 1e-4
    assert audit.has(code), audit


RECONSTRUCTION_UNKNOWN = {
    "log MSE": (lambda x, p: 6 * F.mse_loss(p, x).log(), "reconstruction-weight-varies"),
    "RMSE": (lambda x, p: F.mse_loss(p, x).sqrt(), "reconstruction-weight-varies"),
    "log MSE per sample": (lambda x, p: sse(x, p).log(), "reconstruction-unknown"),
    "L1 + L2": (lambda x, p: F.mse_loss(p, x) + F.l1_loss(p, x), "reconstruction-unknown"),
    "cosine": (
        lambda x, p: -F.cosine_similarity(x.flatten(1), p.flatten(1)),
        "reconstruction-unknown",
    ),
    "one sample": (lambda x, p: F.mse_loss(p[:1], x[:1]), "weights-differ"),
    "per-pixel variance": (
        lambda x, p: gaussian_nll(x, p, torch.linspace(0.1, 1, D, dtype=x.dtype).view(SHAPE)),
        "weights-differ",
    ),
    "x_hat with itself": (lambda x, p: sse(p, p.roll(1, 0)), "x-ignored"),
    "nothing": (lambda x, p: torch.zeros(len(x)), "no-reconstruction"),
    "detached": (lambda x, p: sse(x, p.detach()), "x-hat-detached"),
    "noise": (lambda x, p: sse(x, p + 0.1 * torch.randn_like(p)), "reconstruction-random"),
}


@pytest.mark.parametrize("name", RECONSTRUCTION_UNKNOWN)
def test_an_unknown_reconstruction_gives_no_number(name):
    wrong, code = RECONSTRUCTION_UNKNOWN[name]
    audit = audit_loss(
        lambda x, p, mu, lv: wrong(x, p).mean() + kl(mu, lv).sum(1).mean(),
        data_shape=SHAPE,
        latent_dim=M,
        batch_size=B,
    )
    assert audit.likelihood is None and math.isnan(audit.c) and math.isnan(audit.beta)
    assert audit.sigma2 is None and audit.residual > 1e-4
    assert audit.kl_weight == pytest.approx(1, rel=1e-4)  # known all the same
    assert audit.has(code), audit


def test_an_annealed_weight_is_not_mistaken_for_a_constant_one():
    calls = iter(range(1, 10_000))
    audit = audit_loss(
        lambda x, p, mu, lv: sse(x, p) + next(calls) / 100 * kl(mu, lv).sum(1),
        data_shape=SHAPE,
        latent_dim=M,
    )
    assert math.isnan(audit.beta) and audit.has("kl-random")


def test_low_precision_is_refused_but_not_accused_of_ignoring_x():
    found = findings(lambda x, p, mu, lv: F.mse_loss(p.bfloat16(), x.bfloat16()), (784,))
    assert "x-ignored" not in found and "reconstruction-unknown" in found


def test_a_detached_kl_is_no_kl_and_says_so():
    found = findings(lambda x, p, mu, lv: sse(x, p) + kl(mu, lv).sum(1).detach())
    assert "posterior-detached" in found


def test_insisting_on_the_wrong_likelihood_names_the_right_one():
    found = findings(bce_of_logits, likelihood="bernoulli")
    assert found["other-likelihood"] == {"asked": "bernoulli", "found": "bernoulli-logits"}


def test_insisting_on_the_right_likelihood_changes_nothing():
    audit = audit_loss(bce_of_logits, data_shape=SHAPE, latent_dim=M, likelihood="bernoulli-logits")
    check(audit, "bernoulli-logits", 1, 4)


def test_a_batch_size_written_into_the_loss():
    audit = audit_loss(
        lambda x, p, mu, lv: F.mse_loss(p.view(B, D), x.view(B, D)) + kl(mu, lv).sum(1).mean(),
        data_shape=SHAPE,
        latent_dim=M,
        batch_size=B,
    )
    check(audit, "gaussian", 2 / D, D / 2)
    assert audit.has("one-batch-size")


def test_a_loss_that_differentiates_inside_is_audited():
    def loss_fn(x, x_hat, mu, log_var):
        [slope] = torch.autograd.grad(x_hat.sum(), x_hat, create_graph=True)
        return sse(x, x_hat) + 0 * slope.sum() + kl(mu, log_var).sum(1)

    check(audit_loss(loss_fn, data_shape=SHAPE, latent_dim=M), "gaussian", 2, 0.5)


def test_a_binomial_is_audited_where_it_is_asked_for():
    """Of 8-bit pixels a summed cross-entropy is 1/255 of a likelihood."""
    audit = audit_loss(bce_plus_kl, data_shape=SHAPE, latent_dim=M, likelihood="binomial(255)")
    check(audit, "binomial(255)", 1 / 255, 255)


# --- losses that cannot be probed ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda x, p, mu, lv: bce(x, 2 * p).sum(1) + kl(mu, lv).sum(1), "the loss is nan"),
        (lambda x, p, mu, lv: (x - p).square(), r"returned shape \(16, 2, 3, 2\): reduce it"),
        (lambda x, p, mu, lv: (sse(x, p), kl(mu, lv)), r"tuple.*no total.*weighted sum"),
        (lambda x, p, mu, lv: {"loss": sse(x, p), "kl": kl(mu, lv).sum(1)}, "dict.*no total"),
        (lambda x, p, mu, lv: sse(x, p).sum().item(), "returned a float.*without .item"),
        (lambda x, p, mu, lv: None, "returned a NoneType"),
        (lambda x, p, mu, lv: sse(x, p).detach(), "has no gradient: look for .detach"),
        (lambda x, p, mu, lv: torch.tensor(1.0), "has no gradient"),
        (lambda x, p: sse(x, p), r"takes 2 arguments, \(x, p\)"),
        (lambda x, p, mu, lv: x.view(len(x), 999), r"shape \(16, 2, 3, 2\).*change data_shape"),
        (lambda x, p, mu, lv: x.numpy() - p.numpy(), "RuntimeError"),
    ],
)
def test_an_unusable_loss_is_one_clear_error(loss_fn, message):
    with pytest.raises(AuditError, match=message) as raised:
        audit_loss(loss_fn, data_shape=SHAPE, latent_dim=M, batch_size=B)
    assert len(str(raised.value)) <= 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data_shape": 784}, "data_shape=784"),
        ({"data_shape": (28.7,)}, r"data_shape=\(28.7,\)"),
        ({"data_shape": "28"}, "data_shape='28'"),
        ({"data_shape": (28, 0)}, "data_shape"),
        ({"latent_dim": 0}, "latent_dim=0"),
        ({"latent_dim": 1.5}, "latent_dim=1.5"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"likelihood": "huber"}, "unknown likelihood 'huber': use one of gaussian"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        audit_loss(bce_plus_kl, **{"data_shape": (4,), "latent_dim": 2, **arguments})
