"""Losses of counts and of tokens: how they are scored, what is padding, what β a mean gives."""

import pytest
import torch
import torch.nn.functional as F
from torch import distributions

from vaeloss.audit import audit_loss

D, M, B, V = 12, 3, 16, 5
SIZES = {"data_shape": (D,), "latent_dim": M, "batch_size": B}


def kl(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1).mean()


def audited(rec, of_kl=kl, **sizes):
    sizes = {**SIZES, **sizes}
    return audit_loss(lambda x, p, mu, lv: rec(x, p) + of_kl(mu, lv), **sizes)


def data(audit, code):
    return next(found.data for found in audit.findings if found.code == code)


# --- counts and tokens ---------------------------------------------------------------------------


def test_negative_binomial_of_means_and_of_logits():
    r = torch.tensor(2.5, dtype=torch.float64)

    def of_logits(x, out):
        nb = distributions.NegativeBinomial(r, logits=out, validate_args=True)
        return -nb.log_prob(x).sum(1).mean()

    def of_mean(x, mean):
        return of_logits(x, (mean / r).log())

    for rec, said in [(of_logits, True), (of_mean, False)]:
        audit = audited(rec, likelihood="negative-binomial(2.5)")
        assert str(audit.likelihood).startswith("negative-binomial(2.5)")
        assert audit.c == pytest.approx(1) and audit.beta == pytest.approx(1)
        assert audit.has("tokens-as") == said


def test_poisson_is_asked_about_counts():
    def rec(x, rate):
        poisson = distributions.Poisson(rate, validate_args=True)
        return -poisson.log_prob(x).sum(1).mean()

    audit = audited(rec, lambda mu, lv: 0.05 * kl(mu, lv), likelihood="poisson")
    assert str(audit.likelihood) == "poisson" and audit.beta == pytest.approx(0.05)


T = 7


def own_length(y, x):
    nll, kept = F.cross_entropy(y.transpose(1, 2), x, reduction="none"), x > 0
    return ((nll * kept).sum(1) / kept.sum(1)).mean()


TOKENS = {  # name: (reconstruction of logits y and targets x, c or None, a finding or None)
    "mean, flat": (lambda y, x: F.cross_entropy(y.reshape(-1, V), x.reshape(-1)), 1 / T, None),
    "sum, symbols last": (
        lambda y, x: F.cross_entropy(y.transpose(1, 2), x, reduction="none").sum(1).mean(), 1, None,
    ),
    "sum, symbols second": (
        lambda y, x: F.cross_entropy(y, x, reduction="none").sum(1).mean(), 1, None,
    ),
    "log-probabilities": (lambda y, x: F.nll_loss(y.transpose(1, 2), x), 1 / T, "tokens-as"),
    "probabilities": (
        lambda y, x: -y.gather(-1, x[..., None]).clamp(1e-8).log().sum() / len(x), 1, "tokens-as",
    ),
    "one-hot rows": (lambda y, x: -(x * y.log_softmax(-1)).sum(-1).mean(), 1 / T, None),
    "padding left out of a sum": (
        lambda y, x: F.cross_entropy(y.flatten(0, 1), x.flatten(), ignore_index=0, reduction="sum")
        / len(x),
        1, "masked",
    ),
    "own length": (own_length, None, "own-length"),
    "weights of symbols": (
        lambda y, x: F.cross_entropy(
            y.transpose(1, 2), x, weight=torch.arange(1.0, V + 1).to(y), reduction="none"
        ).sum(1).mean(),
        None, "weights-differ",
    ),
    "label smoothing": (
        lambda y, x: F.cross_entropy(y.transpose(1, 2), x, label_smoothing=0.1),
        None, "reconstruction-unknown",
    ),
    "squared error of logits": (
        lambda y, x: (y - x).square().mean(), None, "reconstruction-unknown",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENS)
def test_tokens(name):
    rec, c, code = TOKENS[name]
    audit = audited(lambda x, y: rec(y, x), data_shape=(T,), categories=V)
    assert code is None or audit.has(code), audit
    if c is None:
        assert audit.beta != audit.beta and audit.kl_weight == pytest.approx(1)
    else:
        assert str(audit.likelihood) == f"categorical({V})" and audit.c == pytest.approx(c)
        assert audit.beta == pytest.approx(1 / c)


def test_the_next_token_without_padding():
    """A mean over the tokens that are no padding: β is the weight times their number."""

    def rec(x, y):
        return F.cross_entropy(y[:, :-1].flatten(0, 1), x[:, 1:].flatten(), ignore_index=0)

    audit = audited(rec, lambda mu, lv: 0.05 * kl(mu, lv), data_shape=(T,), categories=V)
    kept = data(audit, "mean-over-kept")["kept"]
    assert audit.beta == pytest.approx(0.05 * kept) and 3 < kept < 6
    assert data(audit, "weighted")["formula"] == "0.05·K" and audit.has("next-token")


def test_a_picture_of_tokens():
    audit = audited(
        lambda x, y: F.cross_entropy(y, x, reduction="sum") / len(x),
        data_shape=(3, 4),
        categories=V,
    )
    assert audit.c == pytest.approx(1) and audit.beta == pytest.approx(1)


@pytest.mark.parametrize("categories", [1, 2.5])
def test_categories_that_make_no_sense(categories):
    with pytest.raises(ValueError, match="categories="):
        audited(lambda x, y: F.cross_entropy(y, x), categories=categories)
