"""Losses that are more than c · [NLL + β · KL]: what fits is reported, what does not is named."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import distributions

from vaeloss.audit import audit_loss

D, M, B = 12, 3, 16
SIZES = {"data_shape": (D,), "latent_dim": M, "batch_size": B}


def per_latent(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var)


def kl(mu, log_var):
    return per_latent(mu, log_var).sum(1).mean()


def sse(x, x_hat):
    return (x - x_hat).square().sum() / len(x)


def audited(rec, of_kl=kl, **sizes):
    sizes = {**SIZES, **sizes}
    return audit_loss(lambda x, p, mu, lv: rec(x, p) + of_kl(mu, lv), **sizes)


def data(audit, code):
    return next(found.data for found in audit.findings if found.code == code)


def refused(audit):
    return math.isnan(audit.beta) and audit.residual > 1e-4


# --- free nats, capacity, state ------------------------------------------------------------------


@pytest.mark.parametrize("m", [2, 32, 128, 1024])
@pytest.mark.parametrize("floor", [0.01, 1.0, 3.0])
@pytest.mark.parametrize(
    "clamp",
    [
        lambda k, f: k.sum(1).mean().clamp(min=f),
        lambda k, f: k.sum(1).clamp(min=f).mean(),
        lambda k, f: k.mean(0).clamp(min=f / k.shape[1]).sum(),
    ],
)
def test_free_nats_are_no_constant_beta(m, floor, clamp):
    audit = audited(sse, lambda mu, lv: clamp(per_latent(mu, lv), floor), latent_dim=m)
    assert refused(audit) and audit.c == pytest.approx(2), audit
    assert audit.has("kl-weight-varies") or audit.has("kl-unknown")


class Capacity:
    """|KL - C| with a C that starts at 0 and grows a little in every call."""

    def __init__(self, step):
        self.step, self.calls = step, 0

    def loss(self, x, x_hat, mu, log_var):
        self.calls += 1
        capacity = self.step * self.calls
        return sse(x, x_hat) + 100 * (kl(mu, log_var) - capacity).abs()


@pytest.mark.parametrize("step", [1e-9, 2.5e-4, 1.0])
@pytest.mark.parametrize("m", [2, 128])
def test_a_capacity_that_counts_its_calls(step, m):
    audit = audit_loss(Capacity(step).loss, data_shape=(D,), latent_dim=m)
    assert refused(audit), audit
    assert audit.has("keeps-state") or audit.has("kl-weight-varies") or audit.has("kl-unknown")


def test_random_numbers_are_no_state():
    audit = audited(lambda x, p: sse(x, p) + torch.rand(()).to(x))
    assert audit.beta == pytest.approx(0.5) and not audit.has("keeps-state")


def test_a_log_var_clamped_far_out_is_nothing_to_say():
    audit = audited(sse, lambda mu, lv: kl(mu, lv.clamp(-30, 20)))
    assert audit.beta == pytest.approx(0.5) and not audit.has("overflows")


@pytest.mark.parametrize(
    ("of_kl", "at"),
    [
        (kl, None),
        (lambda mu, lv: 0.5 * (mu**2 + (2 * lv).exp() / lv.exp() - 1 - lv).sum(1).mean(), 60),
        (lambda mu, lv: 0.5 * (mu**2 + lv.exp() - 1 - lv.exp().log()).sum(1).mean(), None),
    ],
)
def test_only_what_overflows_before_exp_is_named(of_kl, at):
    audit = audited(sse, of_kl)
    assert audit.beta == pytest.approx(0.5, rel=1e-4)
    assert audit.has("overflows") == (at is not None)
    assert at is None or data(audit, "overflows") == {"log_var": at}


# --- a sampled KL --------------------------------------------------------------------------------


def sampled(mu, log_var, noise):
    std = (log_var / 2).exp()
    z = mu + std * noise
    log_q = distributions.Normal(mu, std).log_prob(z)
    return (log_q - distributions.Normal(0.0, 1.0).log_prob(z)).sum(1).mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_draw_gives_the_weight_in_any_precision(dtype):
    def of_kl(mu, log_var):
        mu, log_var = mu.to(dtype), log_var.to(dtype)
        return 0.3 * sampled(mu, log_var, torch.randn_like(mu))

    audit = audited(sse, of_kl)
    assert audit.beta == pytest.approx(0.15, rel=1e-6 if dtype == torch.float64 else 1e-5)
    assert audit.has("kl-sampled")


def test_a_fixed_draw_is_weighed_and_said():
    def of_kl(mu, log_var):
        noise = torch.randn(mu.shape, generator=torch.Generator().manual_seed(0), dtype=mu.dtype)
        return sampled(mu, log_var, noise)

    audit = audited(sse, of_kl)
    assert audit.beta == pytest.approx(0.5, rel=1e-6) and audit.has("kl-sampled-once")


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.5])
def test_a_draw_with_other_noise_is_no_kl(scale):
    audit = audited(
        sse, lambda mu, lv: sampled(mu, lv, scale * torch.randn_like(mu)), latent_dim=20
    )
    assert refused(audit), audit


def test_the_mean_of_several_draws():
    def of_kl(mu, log_var):
        return sum(sampled(mu, log_var, torch.randn_like(mu)) for _ in range(8)) / 8

    audit = audited(sse, of_kl)
    assert audit.beta == pytest.approx(0.5, rel=1e-4) and audit.has("kl-sampled")


def test_a_sampled_kl_of_the_wrong_sign():
    audit = audited(sse, lambda mu, lv: -sampled(mu, lv, torch.randn_like(mu)))
    assert audit.beta == pytest.approx(-0.5, rel=1e-6) and audit.has("negative-beta")


# --- masks and weights ---------------------------------------------------------------------------

STEPS = 6


def padding(x):
    """(B, STEPS): what is padding, from 1 to 4 steps at the end of each sample."""
    length = STEPS - 1 - torch.arange(len(x)) % 4
    return torch.arange(STEPS)[None] >= length[:, None]


def test_a_mask_that_counts_as_zeros():
    def rec(x, p):
        return torch.where(padding(x)[..., None], 0.0, (x - p).abs()).mean()

    audit = audited(rec, lambda mu, lv: 10 * kl(mu, lv), data_shape=(STEPS, 2))
    assert str(audit.likelihood) == "laplace" and audit.c == pytest.approx(1 / 12)
    assert audit.beta == pytest.approx(120) and audit.reached == pytest.approx(1 - 2.5 / 6)
    assert data(audit, "masked")["left"] == pytest.approx(2.5 / 6)


def test_a_mean_over_what_is_left():
    def rec(x, p):
        return (x - p).square()[~padding(x)].mean()

    audit = audited(rec, data_shape=(STEPS, 2))
    assert audit.c == pytest.approx(2 / 7) and audit.beta == pytest.approx(3.5)
    assert data(audit, "reductions")["formula"] == "K/2"


def test_half_of_the_pixels():
    audit = audited(lambda x, p: F.mse_loss(p[:, ::2], x[:, ::2]))
    assert audit.c == pytest.approx(2 / 6) and audit.reached == 0.5 and audit.has("masked")


def test_a_mean_over_each_length_has_no_single_beta():
    def rec(x, p):
        kept = ~padding(x)[..., None]
        return (((x - p).abs() * kept).sum((1, 2)) / (2 * kept.sum((1, 2)))).mean()

    audit = audited(rec, data_shape=(STEPS, 2))
    assert refused(audit) and audit.kl_weight == pytest.approx(1)
    assert data(audit, "own-length")["low"] == pytest.approx(1 / 10)
    assert data(audit, "beta-range") == {"low": pytest.approx(4), "high": pytest.approx(10)}


def test_weights_of_features_are_a_range():
    weights = torch.linspace(0.5, 2, D, dtype=torch.float64)
    audit = audited(lambda x, p: (weights * (x - p).square()).sum(1).mean())
    assert refused(audit) and data(audit, "weights-differ") == {
        "likelihood": "gaussian",
        "what": "value",
        "low": pytest.approx(1),
        "high": pytest.approx(4),
    }
    assert data(audit, "beta-range") == {"low": pytest.approx(1 / 4), "high": pytest.approx(1)}


@pytest.mark.parametrize("link", ["bernoulli", "bernoulli-logits"])
def test_pos_weight_is_named(link):
    def rec(x, p):
        if link == "bernoulli":
            return -(3 * x * p.log() + (1 - x) * (1 - p).log()).sum(1).mean()
        weight = torch.tensor(3.0, dtype=x.dtype)
        return F.binary_cross_entropy_with_logits(p, x, pos_weight=weight)

    audit = audited(rec)
    assert refused(audit) and audit.kl_weight == pytest.approx(1)
    assert data(audit, "pos-weight") == {"likelihood": link, "ratio": pytest.approx(3)}


@pytest.mark.parametrize("delta", [0.2, 1.0, 5.0])
def test_huber_is_named_and_has_a_beta_only_where_it_is_squared_error(delta):
    audit = audited(lambda x, p: F.huber_loss(p, x, delta=delta))
    code = "huber" if delta >= 1 else "huber-inside"
    assert data(audit, code)["delta"] == pytest.approx(delta, rel=1e-6)
    assert refused(audit) if delta < 1 else audit.beta == pytest.approx(D)


def test_squared_error_is_not_taken_for_huber():
    assert not audited(sse).has("huber")


# --- other terms ---------------------------------------------------------------------------------


def features(x):
    filters = torch.randn(D, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.tanh(x.double() @ filters)


@pytest.mark.parametrize(
    "other",
    [
        lambda x, p: 0.05 * (features(x) - features(p)).square().sum(1).mean(),  # perceptual
        lambda x, p: -0.05 * features(p).sum(1).mean(),  # a critic
        lambda x, p: 0.05 * (x.diff(dim=1) - p.diff(dim=1)).square().sum(1).mean(),  # velocity
    ],
)
def test_another_term_leaves_the_part_that_fits(other):
    audit = audited(lambda x, p: (x - p).abs().sum(1).mean() + other(x, p))
    assert refused(audit) and audit.likelihood is None and audit.kl_weight == pytest.approx(1)
    partly = data(audit, "reconstruction-partly")
    assert partly["likelihood"] == "laplace" and partly["share"] > 0.75
    assert partly["weight"] == pytest.approx(1, rel=0.2)


# --- latents that are no Gaussian ----------------------------------------------------------------


def test_a_categorical_code_is_weighed():
    def of_kl(logits, _):
        log_q = logits.unflatten(1, (2, 4)).log_softmax(-1)
        return (log_q.exp() * (log_q + math.log(4))).sum((1, 2)).mean()

    audit = audited(lambda x, p: F.mse_loss(p, x), of_kl, latent_dim=8)
    assert audit.beta == pytest.approx(D / 2)
    assert data(audit, "kl-categorical") == {"codes": 2, "classes": 4}


def test_a_quantiser_is_sent_to_its_own_audit():
    def of_codes(z, e):
        return ((z.detach() - e).square() + 0.25 * (z - e.detach()).square()).mean()

    audit = audited(sse, of_codes)
    assert refused(audit) and audit.has("quantiser")
    assert "audit_quantiser" in str(audited(sse, lambda mu, lv: 0))


# --- weights of the user -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("w_rec", "w_kl", "m", "formula"),
    [
        (1, 0.00025, 3, "0.00025·D/2"),
        (1, 4, 3, "4·D/2"),
        (10, 1, 3, "D/20"),
        (1, 0.1, 3, "0.1·D/2"),
        (1, 1 / 3, 3, "D/(2M)"),
        (1, 0.123, 3, None),  # three digits: not named
        (3, 7, 3, None),  # two weights: not named
    ],
)
def test_one_simple_weight_of_the_user_is_named(w_rec, w_kl, m, formula):
    audit = audited(
        lambda x, p: w_rec * F.mse_loss(p, x), lambda mu, lv: w_kl * kl(mu, lv), latent_dim=m
    )
    assert audit.beta == pytest.approx(w_kl / w_rec * D / 2)
    named = [f.data["formula"] for f in audit.findings if f.code in ("weighted", "reductions")]
    assert named == ([formula] if formula else []), audit


def test_a_weight_on_the_reconstruction_and_means():
    audit = audited(lambda x, p: 10 * F.mse_loss(p, x), lambda mu, lv: per_latent(mu, lv).mean())
    assert data(audit, "weighted")["formula"] == "D/(20·M)"
    assert data(audit, "weighted")["term"] == "reconstruction"
