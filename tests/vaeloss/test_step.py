"""Training steps whose c and β are known by algebra, audited before their backward.

`c` and `beta` of every step are written down by hand from its formula, never measured.
"""

import json
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import distributions, nn

from vaeloss.audit import AuditError, StepAudit, audit_step

B, D, M = 16, 12, 3
Normal = distributions.Normal


class Net(nn.Module):
    """A small VAE whose every tensor can be had."""

    def __init__(self, d=D, m=M, out=None, noise=1.0):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(d, 20), nn.Tanh(), nn.Linear(20, 2 * m))
        self.decoder = nn.Sequential(nn.Linear(m, 20), nn.Tanh(), nn.Linear(20, out or d))
        self.noise = noise

    def forward(self, x):
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        std = (log_var / 2).exp()
        z = mu + self.noise * std * torch.randn_like(std)
        return self.decoder(z), mu, log_var, z


def step(seed=0, **options):
    """x, x_hat, mu, log_var, z of one step."""
    torch.manual_seed(seed)
    model = Net(**options)
    x = torch.rand(B, options.get("d", D))
    return (x, *model(x))


def kl(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var)


def rate(mu, log_var):
    return kl(mu, log_var).sum(1).mean()


def close(audit, c, beta, rel=1e-4):
    assert isinstance(audit, StepAudit)
    assert math.isclose(audit.c, c, rel_tol=rel), (audit.c, c, str(audit))
    assert math.isclose(audit.beta, beta, rel_tol=rel), (audit.beta, beta, str(audit))
    assert math.isclose(audit.kl_weight, c * beta, rel_tol=rel)
    assert audit.residual <= audit.tolerance


def codes(audit):
    return {found.code for found in audit.findings} - {"multiply-kl", "learning-rate"}


# --- reductions and likelihoods -----------------------------------------------------------------

# name: (loss(x, out, mu, log_var), likelihood, c, beta)
STEPS = {
    "half the squared error, sums": (
        lambda x, y, m, v: 0.5 * F.mse_loss(y, x, reduction="sum") / B + rate(m, v),
        "gaussian", 1, 1,
    ),
    "mse_loss + sum": (lambda x, y, m, v: F.mse_loss(y, x) + rate(m, v), "gaussian", 2 / D, D / 2),
    "mse_loss + mean": (
        lambda x, y, m, v: F.mse_loss(y, x) + kl(m, v).mean(), "gaussian", 2 / D, D / (2 * M),
    ),
    "a weight of 1e-6": (
        lambda x, y, m, v: (y - x).abs().sum() / B + 1e-6 * rate(m, v), "laplace", 1, 1e-6,
    ),
    "one value per sample": (
        lambda x, y, m, v: (y - x).square().sum(1) + kl(m, v).sum(1), "gaussian", 2, 0.5,
    ),
    "summed over the batch": (
        lambda x, y, m, v: F.binary_cross_entropy_with_logits(y, x, reduction="sum")
        + kl(m, v).sum(),
        "bernoulli-logits", B, 1,
    ),
    "cross-entropy, mean": (
        lambda x, y, m, v: F.binary_cross_entropy_with_logits(y, x) + rate(m, v),
        "bernoulli-logits", 1 / D, D,
    ),
    "a density of variance 0.01": (
        lambda x, y, m, v: -Normal(y, 0.1).log_prob(x).sum(1).mean() + rate(m, v),
        "gaussian", 100, 0.01,
    ),
    "a Laplace density of scale 0.1": (
        lambda x, y, m, v: -distributions.Laplace(y, 0.1).log_prob(x).sum(1).mean() + rate(m, v),
        "laplace", 10, 0.1,
    ),
    "a sigmoid inside": (
        lambda x, y, m, v: F.mse_loss(y.sigmoid(), x) + rate(m, v),
        "gaussian-logits", 2 / D, D / 2,
    ),
    "counts": (
        lambda x, y, m, v: F.poisson_nll_loss(y, (9 * x).round()) + 0.1 * rate(m, v),
        "poisson-log", 1 / D, 0.1 * D,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_reductions_and_likelihoods(name):
    loss, likelihood, c, beta = STEPS[name]
    x, out, mu, log_var, _ = step()
    audit = audit_step(
        loss(x, out, mu, log_var),
        x=(9 * x).round() if name == "counts" else x, x_hat=out, mu=mu, log_var=log_var,
    )  # fmt: skip
    close(audit, c, beta)
    assert str(audit.likelihood) == likelihood
    assert (audit.sigma2 == audit.beta) == likelihood.startswith("gaussian")
    assert audit.reached == 1
    assert not audit.has("step-value"), audit  # the value is that of the two terms
    assert audit.batch_size == B


@pytest.mark.parametrize("link", ["mean", "probability"])
def test_probabilities(link):
    x, out, mu, log_var, _ = step()
    p = out.sigmoid()
    asked = None
    if link == "mean":
        loss = F.binary_cross_entropy(p, x) + rate(mu, log_var)
    else:
        from vaeloss import as_likelihood

        asked = as_likelihood("continuous-bernoulli")
        loss = asked.nll(x, p).mean() / D + rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=p, mu=mu, log_var=log_var, likelihood=asked)
    close(audit, 1 / D, D)


def test_the_reading_names_the_reductions():
    x, out, mu, log_var, _ = step()
    loss = F.mse_loss(out, x) + rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    assert audit.findings[0].data["formula"] == "D/2"
    assert "at this step" in str(audit) and "fits        yes" in str(audit)
    loss = 0.5 * (out - x).square().sum() / B + rate(mu, log_var)
    assert codes(audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)) == {"elbo"}


# --- posteriors and priors ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["log_var", "log_std", "std", "posterior", "independent"])
@pytest.mark.parametrize("learned", [False, True])
def test_posteriors_in_every_form(kind, learned):
    torch.manual_seed(1)
    x, encoder, decoder = torch.rand(B, D), nn.Linear(D, 2 * M), nn.Linear(M, D)
    mu, raw = encoder(x).chunk(2, dim=1)
    std = {"log_var": (raw / 2).exp(), "log_std": raw.exp()}.get(kind, F.softplus(raw) + 0.1)
    q = Normal(mu, std)
    condition = nn.Linear(D, M)(x) if learned else torch.zeros(B, M)
    p = Normal(condition, 0.7 if learned else 1.0)
    out = decoder(q.rsample())
    loss = F.mse_loss(out, x) + 0.3 * distributions.kl_divergence(q, p).sum(1).mean()
    given = {
        "log_var": {"mu": mu, "log_var": raw},
        "log_std": {"mu": mu, "log_std": raw},
        "std": {"mu": mu, "std": std},
        "posterior": {"posterior": q},
        "independent": {"posterior": distributions.Independent(q, 1)},
    }[kind]
    audit = audit_step(loss, x=x, x_hat=out, prior=p if learned else None, **given)
    close(audit, 2 / D, 0.3 * D / 2)
    loss.backward()  # the graph is whole, that of the prior too


def test_spatial_latents():
    torch.manual_seed(0)
    x, encoder, decoder = torch.rand(4, 3, 8, 8), nn.Conv2d(3, 8, 3, 2, 1), nn.Sequential(
        nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 3, padding=1)
    )  # fmt: skip
    mu, log_var = encoder(x).chunk(2, dim=1)
    out = decoder(mu + (log_var / 2).exp() * torch.randn_like(mu))
    loss = (out - x).abs().sum() / 4 + 1e-6 * kl(mu, log_var).sum() / 4
    close(audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var), 1, 1e-6)


def test_one_width_for_all():
    torch.manual_seed(0)
    x, encoder, decoder = torch.rand(B, D), nn.Linear(D, M), nn.Linear(M, D)
    mu, log_var = encoder(x), nn.Parameter(torch.full((M,), -1.0))
    out = decoder(mu + (log_var / 2).exp() * torch.randn_like(mu))
    loss = F.mse_loss(out, x) + rate(mu, log_var.expand_as(mu))
    close(audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var), 2 / D, D / 2)


@pytest.mark.parametrize("prior", [None, Normal(torch.tensor(0.5), torch.tensor(2.0))])
@pytest.mark.parametrize("with_z", [True, False])
@pytest.mark.parametrize("kind", ["log_var", "std"])
def test_a_sampled_kl_has_an_exact_weight(prior, with_z, kind):
    x, _, mu, log_var, _ = step()
    std = (log_var / 2).exp()
    q = Normal(mu, std)
    z = q.rsample()
    out = nn.Linear(M, D)(z)
    log_p = (prior or Normal(0.0, 1.0)).log_prob(z)
    loss = 0.5 * (out - x).square().sum() / B + 0.25 * (q.log_prob(z) - log_p).sum() / B
    spread = {"log_var": log_var} if kind == "log_var" else {"std": std}
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, **spread, prior=prior, z=z if with_z else None)
    close(audit, 1, 0.25)
    assert audit.has("step-kl-sampled") and not audit.has("step-noise")
    assert not audit.has("step-value")


def test_a_prior_that_is_a_mixture_needs_z():
    x, out, mu, log_var, z = step()
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(torch.ones(2)),
        distributions.Independent(Normal(torch.randn(2, M), torch.ones(2, M)), 1),
    )
    log_q = Normal(mu, (log_var / 2).exp()).log_prob(z).sum(1)
    loss = F.mse_loss(out, x) + (log_q - mixture.log_prob(z)).mean()
    given = {"x": x, "x_hat": out, "mu": mu, "log_var": log_var, "prior": mixture}
    close(audit_step(loss, z=z, **given), 2 / D, D / 2)
    with pytest.raises(AuditError, match="hand in z"):
        audit_step(loss, **given)


def test_a_sampler_that_disagrees_with_the_kl_is_named():
    x, out, mu, log_var, z = step(noise=0.01)
    loss = F.mse_loss(out, x) + rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var, z=z)
    close(audit, 2 / D, D / 2)
    [found] = [f for f in audit.findings if f.code == "step-noise"]
    assert found.data["std"] == pytest.approx(0.01, rel=0.3)


def test_halves_of_a_kl_with_weights_of_their_own():
    x, out, mu, log_var, _ = step()
    kl = 0.5 * (mu**2).sum() + 0.5 * (log_var.exp() - 1 - log_var).sum(1).mean()
    audit = audit_step(F.mse_loss(out, x) + kl, x=x, x_hat=out, mu=mu, log_var=log_var)
    assert math.isnan(audit.beta) and math.isnan(audit.kl_weight)
    [found] = [f for f in audit.findings if f.code == "step-kl-halves"]
    assert [found.data["first"], found.data["second"]] == pytest.approx([B, 1], rel=1e-4)


@pytest.mark.parametrize("handed, other", [("log_std", "log_var"), ("log_var", "log_std")])
def test_log_sigma_for_log_sigma_squared(handed, other):
    x, out, mu, raw, _ = step()
    loss = F.mse_loss(out, x) + rate(mu, raw if other == "log_var" else 2 * raw)
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, **{handed: raw})
    assert math.isnan(audit.beta)
    [found] = [f for f in audit.findings if f.code == "step-spread"]
    assert found.data["other"] == other
    close(audit_step(loss, x=x, x_hat=out, mu=mu, **{other: raw}), 2 / D, D / 2)


# --- tokens, masks, sequences -------------------------------------------------------------------


def tokens(layout="last", form="logits"):
    torch.manual_seed(0)
    T, V = 7, 5
    x = torch.randint(V, (B, T))
    encoder, decoder = nn.Linear(T, 2 * M), nn.Linear(M, T * V)
    mu, log_var = encoder(x.float()).chunk(2, dim=1)
    z = mu + (log_var / 2).exp() * torch.randn_like(mu)
    out = decoder(z).unflatten(1, (T, V) if layout == "last" else (V, T))
    axis = -1 if layout == "last" else 1
    if form == "log-probabilities":
        out = out.log_softmax(axis)
    if form == "probabilities":
        out = out.softmax(axis)
    nats = {"logits": lambda t: -t.log_softmax(1), "log-probabilities": lambda t: -t,
            "probabilities": lambda t: -t.log()}[form]  # fmt: skip
    seconds = out.movedim(axis, 1)
    nll = nats(seconds).gather(1, x[:, None])[:, 0]
    return x, out, mu, log_var, nll, T, V


@pytest.mark.parametrize("layout", ["last", "second"])
@pytest.mark.parametrize("form", ["logits", "log-probabilities", "probabilities"])
def test_tokens(layout, form):
    x, out, mu, log_var, nll, T, V = tokens(layout, form)
    loss = nll.mean() + 0.5 * rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    close(audit, 1 / T, 0.5 * T)
    assert str(audit.likelihood) == f"categorical({V})"
    assert audit.reached == 1


def test_one_hot_rows_under_a_softmax():
    x, out, mu, log_var, nll, T, V = tokens()
    loss = nll.sum(1).mean() + rate(mu, log_var)
    rows = F.one_hot(x, V).float()
    audit = audit_step(loss, x=rows, x_hat=out, mu=mu, log_var=log_var)
    close(audit, 1, 1)
    assert str(audit.likelihood) == "categorical(5)"


@pytest.mark.parametrize("pad", [0, -100])
def test_padding_is_left_out_and_its_share_is_said(pad):
    x, out, mu, log_var, _, T, V = tokens()
    x = x.clamp(1)
    lengths = 1 + torch.arange(B) % T
    x[torch.arange(T) >= lengths[:, None]] = pad
    loss = F.cross_entropy(out.flatten(0, 1), x.flatten(), ignore_index=pad) + rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    mean_length = lengths.sum().item() / B
    close(audit, 1 / mean_length, mean_length)  # averaged over the tokens that count
    assert audit.reached == pytest.approx(mean_length / T)
    assert audit.has("step-reached")


def test_a_teacher_forced_recurrent_decoder():
    torch.manual_seed(0)
    T, V, H = 6, 9, 8
    x = torch.randint(1, V, (B, T))
    embed, gru, head = nn.Embedding(V, H), nn.GRU(H, H, batch_first=True), nn.Linear(H, V)
    mu, log_var = nn.Linear(H, 2 * M)(embed(x).mean(1)).chunk(2, dim=1)
    z = mu + (log_var / 2).exp() * torch.randn_like(mu)
    start = nn.Linear(M, H)(z)[None]
    logits = head(gru(embed(F.pad(x[:, :-1], (1, 0))), start)[0])
    loss = F.cross_entropy(logits.transpose(1, 2), x) + rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=logits, mu=mu, log_var=log_var)
    close(audit, 1 / T, T)
    # only some of the logits are used, and the targets are moved by one
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()) + rate(mu, log_var)
    moved = F.pad(x[:, 1:], (0, 1))
    audit = audit_step(loss, x=moved, x_hat=logits, mu=mu, log_var=log_var)
    close(audit, 1 / (T - 1), T - 1)
    assert audit.reached == pytest.approx((T - 1) / T)
    with pytest.raises(AuditError, match="F.pad"):
        audit_step(loss, x=x[:, 1:], x_hat=logits, mu=mu, log_var=log_var)


def test_action_chunks_with_a_mask():
    torch.manual_seed(0)
    T, A = 10, 4
    x = torch.randn(B, T, A)
    mu, log_var = nn.Linear(T * A, 2 * M)(x.flatten(1)).chunk(2, dim=1)
    out = nn.Linear(M, T * A)(mu + (log_var / 2).exp() * torch.randn_like(mu)).view_as(x)
    padded = torch.arange(T) >= torch.linspace(4, T, B)[:, None]
    error = (F.l1_loss(out, x, reduction="none") * ~padded[..., None]).mean()
    audit = audit_step(error + 10 * rate(mu, log_var), x=x, x_hat=out, mu=mu, log_var=log_var)
    close(audit, 1 / (T * A), 10 * T * A)
    assert audit.reached == pytest.approx(1 - padded.float().mean().item())


def test_a_mean_over_each_string_has_no_single_weight():
    torch.manual_seed(0)
    T = 12
    x = torch.rand(B, T)
    mu, log_var = nn.Linear(T, 2 * M)(x).chunk(2, dim=1)
    out = nn.Linear(M, T)(mu + (log_var / 2).exp() * torch.randn_like(mu))
    length = torch.linspace(9, 12, B).int()
    mask = torch.arange(T) < length[:, None]
    per = (0.5 * (out - x).square() * mask).sum(1) / length
    loss = per.mean() + rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    assert math.isnan(audit.c) and math.isnan(audit.beta)
    assert math.isclose(audit.kl_weight, 1, rel_tol=1e-4)
    [found] = [f for f in audit.findings if f.code == "step-weights-differ"]
    assert found.data["what"] == "sample"
    assert [found.data["low"], found.data["high"]] == pytest.approx([1 / 12, 1 / 9], rel=1e-4)


def test_weights_of_features_are_a_range():
    x, out, mu, log_var, _ = step()
    weights = torch.linspace(1, 3, D)
    loss = (weights * (out - x).square() / 2).sum(1).mean() + rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    [found] = [f for f in audit.findings if f.code == "step-weights-differ"]
    assert found.data["what"] == "feature"
    assert [found.data["low"], found.data["high"]] == pytest.approx([1, 3], rel=1e-4)


@pytest.mark.parametrize("first", [True, False])
def test_several_draws_of_z(first):
    x, _, mu, log_var, _ = step()
    K = 4
    where = 0 if first else 1
    m, s = mu.unsqueeze(where), (log_var / 2).exp().unsqueeze(where)
    shape = (K, B, M) if first else (B, K, M)
    out = nn.Linear(M, D)(m + s * torch.randn(shape))
    nll = 0.5 * (out - x.unsqueeze(where)).square().sum(-1)
    loss = nll.mean() + rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    close(audit, 1, 1)
    assert audit.has("step-draws")


def test_several_draws_with_a_learned_variance():
    x, _, mu, log_var, _ = step()
    z = mu + (log_var / 2).exp() * torch.randn(4, B, M)
    mean, raw = nn.Linear(M, 2 * D)(z).chunk(2, dim=-1)
    std = F.softplus(raw)
    loss = -Normal(mean, std).log_prob(x).mean(0).sum(1).mean() + rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=(mean, std), mu=mu, log_var=log_var)
    close(audit, 1, 1)
    assert {"step-draws", "step-second-std"} <= codes(audit)


def test_as_many_draws_as_samples():
    x, _, mu, log_var, _ = step()
    for axis in (0, 1):
        z = mu.unsqueeze(axis) + (log_var / 2).exp().unsqueeze(axis) * torch.randn(B, B, M)
        out = nn.Linear(M, D)(z)
        loss = 0.5 * (out - x.unsqueeze(axis)).square().sum(-1).mean() + rate(mu, log_var)
        close(audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var), 1, 1)


def test_importance_weights_are_refused():
    x, _, mu, log_var, _ = step()
    q, K = Normal(mu, (log_var / 2).exp()), 5
    z = q.rsample((K,))
    out = nn.Linear(M, D)(z)
    log_w = -5 * (out - x).square().sum(-1)
    log_w = log_w + (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(-1)
    loss = -log_w.logsumexp(0).mean()
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var, z=z)
    assert math.isnan(audit.c) and math.isnan(audit.beta)
    [found] = [f for f in audit.findings if f.code == "step-weights-differ"]
    assert 0 <= found.data["low"] < 1 < 10 < found.data["high"]  # 10 = 2 · 5, times the share K w


@pytest.mark.parametrize("flat", [True, False])
def test_outputs_that_may_be_draws_are_said(flat):
    x, _, mu, log_var, _ = step()
    std = (log_var / 2).exp()
    z = mu[:, None] + std[:, None] * torch.randn(B, 2, M)
    out, twice = nn.Linear(M, D)(z), x[:, None].expand(B, 2, D)
    if flat:
        out, twice = out.flatten(0, 1), twice.flatten(0, 1)
    loss = 0.5 * (out - twice).square().sum(-1).mean() + rate(mu, log_var)
    audit = audit_step(loss, x=twice, x_hat=out, mu=mu, log_var=log_var)
    [found] = [f for f in audit.findings if f.code == "step-repeats"]
    times = found.data["times"]
    assert [audit.c * times, audit.beta / times] == pytest.approx([1, 1], rel=1e-4)


def test_rows_that_do_not_go_together():
    """The edges of a graph: β needs no batch size, c is said to depend on one."""
    torch.manual_seed(0)
    nodes, edges = torch.rand(10, D), torch.randint(10, (2, 33))
    mu, log_var = nn.Linear(D, 2 * M)(nodes).chunk(2, dim=1)
    z = mu + (log_var / 2).exp() * torch.randn_like(mu)
    logits, there = (z[edges[0]] * z[edges[1]]).sum(1), torch.randint(2, (33,)).float()
    loss = F.binary_cross_entropy_with_logits(logits, there) + kl(mu, log_var).sum() / 100
    audit = audit_step(loss, x=there, x_hat=logits, mu=mu, log_var=log_var)
    close(audit, 10 / 33, 33 / 100)
    assert audit.has("step-batch")


def test_free_bits():
    x, out, mu, log_var, _ = step()
    per = kl(mu, log_var)
    floor = per.median().item()
    loss = F.mse_loss(out, x) + per.clamp(min=floor).sum(1).mean()
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    close(audit, 2 / D, D / 2)
    [found] = [f for f in audit.findings if f.code == "step-kl-reached"]
    assert found.data["share"] == pytest.approx(0.5, abs=0.03)
    loss = F.mse_loss(out, x) + rate(mu, log_var).clamp(min=100)
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    assert audit.beta == 0 and audit.has("step-no-kl")


# --- given terms, other outputs, other terms ----------------------------------------------------


@pytest.mark.parametrize("scalar", [True, False])
def test_terms_as_tensors(scalar):
    x, out, mu, log_var, _ = step()
    nll = (out - x).abs().pow(1.5).sum(1)
    rate_each = kl(mu, log_var).sum(1)
    if scalar:
        nll, rate_each = nll.mean(), rate_each.mean()
    loss = (3 * nll + 6 * rate_each).mean()
    close(audit_step(loss, nll=nll, mu=mu, log_var=log_var), 3, 2)
    close(audit_step(loss, nll=nll, kl=rate_each), 3, 2)
    audit = audit_step(loss, x=x, x_hat=out, kl=rate_each)
    assert math.isnan(audit.c) and math.isclose(audit.kl_weight, 6, rel_tol=1e-5)


def test_a_callable_and_a_name():
    x, out, mu, log_var, _ = step()
    counts, rates = (9 * x).round(), out.exp()
    nb = distributions.NegativeBinomial(2.0, logits=rates.log() - math.log(2.0))
    loss = -nb.log_prob(counts).sum(1).mean() + 0.05 * rate(mu, log_var)
    given = {"x": counts, "x_hat": rates, "mu": mu, "log_var": log_var}
    close(audit_step(loss, likelihood="negative-binomial(2)", **given), 1, 0.05)

    def own(x, rates):
        return -distributions.NegativeBinomial(2.0, logits=(rates / 2).log()).log_prob(x)

    close(audit_step(loss, likelihood=own, **given), 1, 0.05)
    audit = audit_step(loss, likelihood="poisson", **given)
    assert math.isnan(audit.beta) and audit.has("step-not-asked")
    assert math.isclose(audit.kl_weight, 0.05, rel_tol=1e-4)
    loss = F.poisson_nll_loss(rates, counts, log_input=False) + rate(mu, log_var)
    audit = audit_step(loss, likelihood="gaussian", **given)
    assert audit.has("other-likelihood")
    close(audit_step(loss, likelihood="poisson", **given), 1 / D, D)


@pytest.mark.parametrize("shape", ["same", "shared"])
@pytest.mark.parametrize("kind", ["log_var", "log_std", "std"])
def test_a_learned_variance(shape, kind):
    x, out, mu, log_var, _ = step(out=2 * D)
    mean, raw = out.chunk(2, dim=1)
    if shape == "shared":
        raw = nn.Parameter(torch.tensor(-0.3))
    second = F.softplus(raw) if kind == "std" else raw
    std = {"log_var": lambda s: (s / 2).exp(), "log_std": torch.exp, "std": lambda s: s}[kind]
    loss = -Normal(mean, std(second)).log_prob(x).sum(1).mean() + 2 * rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=(mean, second), mu=mu, log_var=log_var)
    close(audit, 1, 2)
    assert str(audit.likelihood) == f"gaussian-{'shared' if shape == 'shared' else 'per-pixel'}"
    assert audit.sigma2 is None
    if shape == "same":  # without the second output its gradient comes to mu
        audit = audit_step(loss, x=x, x_hat=mean, mu=mu, log_var=log_var)
        assert math.isnan(audit.beta) and audit.has("step-kl-unknown")


def test_other_terms_are_cut_out():
    x, out, mu, log_var, z = step()
    critic, features = nn.Linear(D, 1), nn.Linear(D, 30)
    fake = critic(out)
    adversarial = -fake.mean()
    perceptual = (features(out) - features(x)).square().mean()
    loss = (out - x).abs().sum() / B + 1e-6 * rate(mu, log_var) + 0.5 * adversarial + perceptual
    given = {"x": x, "x_hat": out, "mu": mu, "log_var": log_var}
    audit = audit_step(loss, **given)
    assert math.isnan(audit.c) and math.isclose(audit.kl_weight, 1e-6, rel_tol=1e-4)
    close(audit_step(loss, ignore=[adversarial, perceptual], **given), 1, 1e-6)
    close(audit_step(loss, ignore=(fake, perceptual), **given), 1, 1e-6)
    classifier = F.cross_entropy(nn.Linear(M, 4)(z), torch.randint(4, (B,)))
    loss = F.mse_loss(out, x) + rate(mu, log_var) + classifier
    assert math.isnan(audit_step(loss, **given).beta)
    close(audit_step(loss, ignore=classifier, **given), 2 / D, D / 2)


# --- all of it at once --------------------------------------------------------------------------

ERRORS = {  # name: (error of each value, what a mean over it weighs the NLL with)
    "gaussian": (lambda y, x: (y - x).square(), 2),
    "laplace": (lambda y, x: (y - x).abs(), 1),
    "bernoulli-logits": (
        lambda y, x: F.binary_cross_entropy_with_logits(y, x, reduction="none"), 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("kind", ["log_var", "log_std", "std"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("sampled", [False, True])
def test_every_form_with_every_other(error, kind, masked, parts, low, sampled):
    torch.manual_seed(7)
    d, m, b = 60, 6, 40
    x, encoder, decoder = torch.rand(b, d), nn.Linear(d, 2 * m), nn.Linear(m, d)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
        mu, raw = encoder(x).chunk(2, dim=1)
        spread = F.softplus(raw) + 0.2 if kind == "std" else raw
        wide = spread.float()
        std = {"log_var": (wide / 2).exp(), "log_std": wide.exp(), "std": wide}[kind]
        q = Normal(mu.float(), std)
        z = q.rsample()
        out = decoder(z)
    f, half = ERRORS[error]
    each = f(out.float(), x)
    if masked:
        each = each * (torch.arange(d) < 45)
    if sampled:
        nats = (q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(1).mean()
    else:
        nats = distributions.kl_divergence(q, Normal(0.0, 1.0)).sum(1).mean()
    loss = (each.mean() + 0.05 * nats) / parts
    given = {"x": x, "x_hat": out, "mu": mu, kind: spread, "z": z if sampled else None}
    audit = audit_step(loss, **given)
    close(audit, half / d / parts, 0.05 * d / half, rel=1e-2 if low else 1e-4)
    assert str(audit.likelihood) == error
    assert audit.reached == pytest.approx(0.75 if masked else 1, abs=0.01)


# --- number formats, compilation, scaling -------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("error", ["mse", "bce"])
def test_dtypes(dtype, error):
    torch.manual_seed(0)
    model, x = Net(d=200, m=8), torch.rand(64, 200)
    if dtype == torch.float64:
        out, mu, log_var, _ = model.double()(x.double())
        x = x.double()
        rec = F.mse_loss if error == "mse" else F.binary_cross_entropy_with_logits
        loss = rec(out, x) + rate(mu, log_var)
    else:
        with torch.autocast("cpu", dtype=dtype):
            out, mu, log_var, _ = model(x)
            rec = F.mse_loss if error == "mse" else F.binary_cross_entropy_with_logits
            loss = rec(out, x) + rate(mu, log_var)
        assert out.dtype == dtype
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    half = 2 if error == "mse" else 1
    close(audit, half / 200, 200 / half, rel=1e-2 if dtype == torch.bfloat16 else 1e-9)


def test_a_compiled_model():
    torch.manual_seed(0)
    model = Net()
    compiled = torch.compile(model, backend="aot_eager")
    x = torch.rand(B, D)
    out, mu, log_var, _ = compiled(x)
    loss = F.mse_loss(out, x) + rate(mu, log_var)
    close(audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var), 2 / D, D / 2)

    @torch.compile(backend="aot_eager")
    def whole(x):
        out, mu, log_var, _ = model(x)
        return F.mse_loss(out, x) + rate(mu, log_var), out, mu, log_var

    loss, out, mu, log_var = whole(x)
    with pytest.raises(AuditError, match="compiled into one graph"):
        audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)


@pytest.mark.parametrize("factor", [1 / 8, 2.0**16])
def test_accumulation_and_scaling_change_c_alone(factor):
    x, out, mu, log_var, _ = step()
    loss = factor * ((out - x).square().sum(1) / 2 + kl(mu, log_var).sum(1)).mean()
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    close(audit, factor, 1)
    assert audit.has("step-scaled") == (factor > 1)
    if factor > 1:
        assert "2^16" in str(audit)


def test_a_sum_over_256_samples_is_no_scaler():
    torch.manual_seed(0)
    x, model = torch.rand(256, D), Net()
    out, mu, log_var, _ = model(x)
    loss = 0.5 * (out - x).square().sum() + kl(mu, log_var).sum()
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    close(audit, 256, 1)
    assert not audit.has("step-scaled")


# --- what one step cannot know ------------------------------------------------------------------


def test_capacity_below_its_target_is_a_finding():
    x, out, mu, log_var, _ = step()
    given = {"x": x, "x_hat": out, "mu": mu, "log_var": log_var}
    loss = 0.5 * (out - x).square().sum() / B + 100 * (rate(mu, log_var) - 25).abs()
    audit = audit_step(loss, **given)
    close(audit, 1, -100)
    assert {"step-negative-beta", "step-value"} <= codes(audit)


def test_a_logarithm_is_seen_in_the_value():
    x, out, mu, log_var, _ = step()
    loss = D / 2 * F.mse_loss(out, x).log() + rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    mse = F.mse_loss(out, x).item()
    close(audit, 1 / mse, mse)  # the variance that is fitted at this step
    assert audit.has("step-value") or math.isclose(audit.beta, mse, rel_tol=1e-4)


def test_a_posterior_that_is_the_prior_has_no_weight_to_show():
    torch.manual_seed(0)
    x, encoder = torch.rand(B, D), nn.Linear(D, 2 * M)
    nn.init.zeros_(encoder.weight)
    nn.init.zeros_(encoder.bias)
    mu, log_var = encoder(x).chunk(2, dim=1)
    out = nn.Linear(M, D)(mu + (log_var / 2).exp() * torch.randn_like(mu))
    loss = F.mse_loss(out, x) + rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    assert math.isnan(audit.beta) and math.isnan(audit.kl_weight)
    assert math.isclose(audit.c, 2 / D, rel_tol=1e-4)
    assert audit.has("posterior-is-prior")


def test_outputs_that_are_all_alike_are_told_apart_by_the_value():
    torch.manual_seed(0)
    x, encoder = torch.rand(B, D), nn.Linear(D, 2 * M)
    mu, log_var = encoder(x).chunk(2, dim=1)
    decoder = nn.Linear(M, D)
    nn.init.zeros_(decoder.weight)
    nn.init.zeros_(decoder.bias)
    p = decoder(mu + (log_var / 2).exp() * torch.randn_like(mu)).sigmoid()
    given = {"x": x, "x_hat": p, "mu": mu, "log_var": log_var}
    squares = F.mse_loss(p, x, reduction="sum") / B + rate(mu, log_var)
    entropy = F.binary_cross_entropy(p, x, reduction="sum") / B + rate(mu, log_var)
    audit = audit_step(squares, **given)
    close(audit, 2, 0.5)
    assert audit.likelihood.name == "gaussian"
    audit = audit_step(entropy, **given)
    close(audit, 1, 1)
    assert audit.likelihood.name == "bernoulli"
    audit = audit_step(entropy + 7, **given)  # now the value says nothing
    assert math.isnan(audit.c) and audit.has("step-ambiguous")
    close(audit_step(entropy + 7, likelihood="bernoulli", **given), 1, 1)


def test_an_autoencoder_and_a_loss_without_reconstruction():
    x, out, mu, log_var, _ = step()
    given = {"x": x, "x_hat": out, "mu": mu, "log_var": log_var}
    audit = audit_step(F.mse_loss(out, x), **given)
    assert audit.beta == 0 and audit.has("step-no-kl")
    audit = audit_step(rate(mu, log_var) + 0 * out.sum(), **given)
    assert math.isnan(audit.beta) and audit.has("step-no-reconstruction")
    assert math.isclose(audit.kl_weight, 1, rel_tol=1e-4)


def test_a_kl_of_other_tensors_is_not_taken_for_none():
    x, _, mu, log_var, _ = step()
    q = Normal(mu, (log_var / 2).exp())
    out = nn.Linear(M, D)(q.rsample())
    loss = F.mse_loss(out, x) + rate(mu, log_var)  # not from q
    audit = audit_step(loss, x=x, x_hat=out, posterior=q)
    assert math.isnan(audit.beta) and audit.has("step-kl-elsewhere")


# --- kinds of reports by people with a broken model ---------------------------------------------


def test_two_outputs_with_weights_of_their_own():
    """Two spectra under a mean absolute error each, and a KL that is summed over the batch."""
    x, _, mu, log_var, z = step()
    mel, lin, target = nn.Linear(M, D)(z), nn.Linear(M, 2 * D)(z), torch.rand(B, 2 * D)
    loss = F.l1_loss(mel, x) + 0.5 * F.l1_loss(lin, target) + 1e-5 * kl(mu, log_var).sum()
    given = {"x": x, "mu": mu, "log_var": log_var}
    audit = audit_step(loss, x_hat=mel, **given)  # the other comes to mu
    assert math.isclose(audit.c, 1 / D, rel_tol=1e-4) and math.isnan(audit.beta)
    assert audit.has("step-kl-unknown")

    def both(x, mel, lin):
        return torch.cat([(mel - x).abs().flatten(), 0.25 * (lin - target).abs().flatten()])

    close(audit_step(loss, x_hat=[mel, lin], likelihood=both, **given), 1 / D, 1e-5 * B * D)


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_a_weight_that_is_never_used(weight):
    x, out, mu, log_var, _ = step()
    loss = (x - out).square().sum(1).mean() + rate(mu, log_var)  # self.beta = weight
    assert audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var).beta == pytest.approx(0.5)


def test_a_kl_with_its_sign_turned():
    x, out, mu, log_var, _ = step()
    audit = audit_step(
        F.mse_loss(out, x) - rate(mu, log_var), x=x, x_hat=out, mu=mu, log_var=log_var
    )
    close(audit, 2 / D, -D / 2)
    assert audit.has("step-negative-beta") and not audit.has("multiply-kl")


def test_a_total_correlation_is_refused():
    x, out, mu, log_var, z = step()
    log_n = -0.5 * (log_var + (z[:, None] - mu) ** 2 / log_var.exp())
    own = torch.diagonal(log_n.sum(2)).mean()
    joint = log_n.sum(2).logsumexp(1).mean() - math.log(B * 1000)
    alone = (log_n.logsumexp(1) - math.log(B * 1000)).sum(1).mean()
    prior = (-0.5 * z**2).sum(1).mean()
    terms = own - joint, joint - alone, alone - prior
    given = {"x": x, "x_hat": out, "mu": mu, "log_var": log_var}
    nll = 0.5 * (out - x).square().sum() / B
    audit = audit_step(nll + terms[0] + 6 * terms[1] + terms[2], z=z, **given)
    assert math.isclose(audit.c, 1, rel_tol=1e-4) and math.isnan(audit.beta)
    assert math.isnan(audit.kl_weight) and audit.has("step-kl-unknown")
    close(audit_step(nll + sum(terms), z=z, **given), 1, 1)  # with weights of one it is the ELBO


def test_a_learned_noise_level_and_a_perceptual_term():
    """An image codec's loss: (absolute error + perceptual) / e^s + s, and a KL of 1e-6."""
    x, out, mu, log_var, _ = step()
    s, features = nn.Parameter(torch.tensor(0.7)), nn.Linear(D, 9)
    perceptual = (features(x) - features(out)).square().mean(1, keepdim=True)
    nll = ((x - out).abs() + perceptual) / s.exp() + s
    loss = nll.sum() / B + 1e-6 * rate(mu, log_var)
    given = {"x": x, "x_hat": out, "mu": mu, "log_var": log_var}
    c = math.exp(-0.7)
    close(audit_step(loss, ignore=perceptual, **given), c, 1e-6 / c)
    assert math.isnan(audit_step(loss, **given).c)
    assert math.isclose(audit_step(loss, **given).kl_weight, 1e-6, rel_tol=1e-4)


def test_columns_of_a_table_by_a_function_of_their_own():
    """tanh inside the loss, a standard deviation for each column, a factor of two."""
    x, out, mu, log_var, _ = step()
    sigma = nn.Parameter(torch.linspace(0.1, 1, D))
    error = 0.5 * ((x - out.tanh()) / sigma).square() + sigma.log()
    loss = 2 * error.sum() / B + rate(mu, log_var)
    given = {"x": x, "x_hat": out, "mu": mu, "log_var": log_var}
    assert math.isnan(audit_step(loss, **given).beta)

    def column(x, out):
        return 0.5 * ((x - out.tanh()) / sigma.detach()).square() + sigma.detach().log()

    audit = audit_step(loss, likelihood=column, **given)
    close(audit, 2, 0.5)
    assert audit.likelihood is None and not audit.has("step-value")


def test_x_with_a_graph_is_no_other_term():
    x, _, _, _, _ = step()
    x.requires_grad_()
    mu, log_var = nn.Linear(D, 2 * M)(x).chunk(2, dim=1)
    out = nn.Linear(M, D)(mu + (log_var / 2).exp() * torch.randn_like(mu))
    loss = F.mse_loss(out, x) + rate(mu, log_var)
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    close(audit, 2 / D, D / 2)
    assert not audit.has("step-other-term")


def test_another_term_on_the_encoder_is_said():
    torch.manual_seed(0)
    x, encoder, decoder = torch.rand(B, D), nn.Linear(D, 2 * M), nn.Linear(M, D)
    mu, log_var = encoder(x).chunk(2, dim=1)
    out = decoder(mu + (log_var / 2).exp() * torch.randn_like(mu))
    given = {"x": x, "x_hat": out, "mu": mu, "log_var": log_var}
    plain = F.mse_loss(out, x) + rate(mu, log_var)
    assert not audit_step(plain, **given).has("step-other-term")
    decayed = plain + 0.1 * sum(p.square().sum() for p in encoder.parameters())
    audit = audit_step(decayed, **given)
    close(audit, 2 / D, D / 2)
    assert audit.has("step-other-term")
    decayed = plain + 0.1 * sum(p.square().sum() for p in decoder.parameters())
    assert not audit_step(decayed, **given).has("step-other-term")


def test_a_huber_loss_is_named_for_what_most_of_it_is():
    x, out, mu, log_var, _ = step()
    loss = F.smooth_l1_loss(out, x, beta=0.8) + rate(mu, log_var)
    within = ((out - x).abs() < 0.8).double().mean().item()
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    assert math.isnan(audit.c) and math.isclose(audit.kl_weight, 1, rel_tol=1e-4)
    [found] = [f for f in audit.findings if f.code == "step-partly"]
    assert 0.5 < within < 1 and found.data["share"] == pytest.approx(within)
    assert found.data["likelihood"] == "gaussian"
    assert found.data["c"] == pytest.approx(1 / 0.8 / D, rel=1e-4)


# --- what is refused ----------------------------------------------------------------------------


def refused(loss, match, **given):
    with pytest.raises(AuditError, match=match) as caught:
        audit_step(loss, **given)
    message = str(caught.value)
    assert len(message) <= 400 and not re.search(r"tensor\(", message)


def test_copies_and_what_was_made_afterwards():
    x, out, mu, log_var, _ = step()
    loss = F.mse_loss(out, x) + rate(mu, log_var)
    rest = {"x": x, "mu": mu, "log_var": log_var}
    refused(loss, "x_hat is detached", x_hat=out.detach(), **rest)
    for changed in (out.clone(), out.sigmoid(), out.view(B, 3, 4), out[:, :6]):
        refused(loss, "not computed from this x_hat", x_hat=changed, **rest)
    given = {"x": x, "x_hat": out}
    again = [t.clone() for t in (mu, log_var)]
    refused(loss, "not computed from this mu", mu=again[0], log_var=again[1], **given)
    refused(loss, "not computed from this log_var", mu=mu, log_var=again[1], **given)
    refused(loss, "not computed from this std", mu=mu, std=(log_var / 2).exp(), **given)
    refused(loss, "mu is detached", mu=mu.detach(), log_var=log_var, **given)
    second = step(seed=5)
    refused(loss, "not computed from this mu", mu=second[2], log_var=second[3], **given)


def test_after_backward():
    x, out, mu, log_var, _ = step()
    loss = F.mse_loss(out, x) + rate(mu, log_var)
    loss.backward()
    refused(loss, "before loss.backward", x=x, x_hat=out, mu=mu, log_var=log_var)


def test_arguments_that_make_no_sense():
    x, out, mu, log_var, _ = step()
    loss = F.mse_loss(out, x) + rate(mu, log_var)
    given = {"x": x, "x_hat": out}
    refused(loss.detach(), "no graph", mu=mu, log_var=log_var, **given)
    refused(loss.item(), "no graph", mu=mu, log_var=log_var, **given)
    refused((out - x).square(), "reduce it to one number", mu=mu, log_var=log_var, **given)
    refused(loss, "one of log_var, log_std, std", mu=mu, **given)
    refused(loss, "one of log_var, log_std, std", mu=mu, log_var=log_var, std=log_var, **given)
    refused(loss, "nothing to compare", mu=mu, log_var=log_var, x_hat=out)
    refused(loss, "x has shape", x=x[:, :5], x_hat=out, mu=mu, log_var=log_var)
    refused(loss, "x_hat of 2 tensors", x=x[:, :5], x_hat=(out, mu), mu=mu, log_var=log_var)
    gamma = distributions.Gamma(torch.ones(B, M), torch.ones(B, M))
    refused(loss, "Gamma", posterior=gamma, **given)
    given |= {"mu": mu, "log_var": log_var}
    refused(loss, "not the loss", nll=loss, mu=mu, log_var=log_var)
    refused(loss, "likelihood raised", likelihood=lambda x, y: x @ y, **given)
    refused(loss, "bernoulli-logits", likelihood="bernoulli", **given)
    with pytest.raises(ValueError, match="unknown likelihood"):
        audit_step(loss, likelihood="gausian", **given)


def test_sentences_about_likelihoods_are_short():
    x, out, mu, log_var, _ = step()
    loss = (out - x).abs().pow(1.7).mean() + (mu**4).mean() + log_var.mean()
    audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var)
    assert {"step-unknown", "step-kl-unknown"} <= codes(audit)
    assert all(len(found.sentence) <= 400 for found in audit.findings)


def test_a_gradient_that_is_not_finite():
    x, out, mu, log_var, _ = step()
    loss = F.mse_loss(out, x) + rate(mu, log_var + 100)
    refused(loss, "log_var is not finite", x=x, x_hat=out, mu=mu, log_var=log_var)


# --- the step stays as it is --------------------------------------------------------------------


@pytest.mark.parametrize("kl_form", ["closed", "sampled"])
def test_the_step_is_the_same_bit_for_bit(kl_form):
    def train(audited):
        torch.manual_seed(3)
        model, x, ran = Net(), torch.rand(B, D), []
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(3):
            out, mu, log_var, z = model(x + 0.01 * torch.randn_like(x))
            for tensor in (out, mu):
                tensor.retain_grad()
            out.register_hook(lambda grad: ran.append(1) or 2 * grad)
            term = kl(mu, log_var).sum()
            if kl_form == "sampled":
                q = Normal(mu, (log_var / 2).exp())
                term = (q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum()
            loss = 0.5 * (out - x).square().sum() + term
            if audited:
                audit = audit_step(loss, x=x, x_hat=out, mu=mu, log_var=log_var, z=z)
                assert out.grad is None and mu.grad is None
                assert math.isclose(audit.beta, 0.5, rel_tol=1e-4)  # the hook doubles the error
                ran.pop()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        tensors = [p.detach() for p in model.parameters()] + [p.grad for p in model.parameters()]
        return [*tensors, out.grad, mu.grad, torch.random.get_rng_state()], len(ran)

    (plain, ran), (audited, ran_too) = train(False), train(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, audited, strict=True))
    assert ran == ran_too == 3


def test_data_of_findings_are_json():
    x, out, mu, log_var, _ = step()
    audit = audit_step(
        F.mse_loss(out, x) + rate(mu, log_var), x=x, x_hat=out, mu=mu, log_var=log_var
    )
    for found in audit.findings:
        assert json.loads(json.dumps(found.data)) == found.data
