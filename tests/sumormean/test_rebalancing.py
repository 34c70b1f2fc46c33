"""The methods of chapter "Rebalancing": what each minimises, moves, and leaves alone."""

import numpy as np
import pytest
import torch

from sumormean.experiments import rebalancing
from sumormean.models import mlp_vae
from sumormean.training import fit
from vaeloss.audit import audit_loss
from vaeloss.likelihoods import bernoulli_nll, kl_standard_normal


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(32, 28, 28, generator=g)
    logits, mu = torch.randn(32, 28, 28, generator=g), torch.randn(32, 4, generator=g)
    return x, logits, mu, torch.randn(32, 4, generator=g)


def parts(batch):
    x, logits, mu, log_var = batch
    return bernoulli_nll(x, logits).mean(), kl_standard_normal(mu, log_var).mean()


@pytest.mark.parametrize("schedule", ["warm-up", "cyclical"])
def test_a_schedule_starts_at_zero_and_ends_at_beta(batch, schedule):
    loss = rebalancing.ScheduledLoss(schedule, beta=3.0, steps=8)
    values = torch.stack([loss(*batch).mean() for _ in range(8)])
    nll, kl = parts(batch)
    assert torch.isclose(values[0], nll)
    assert torch.isclose(values[-1], nll + 3 * kl)
    assert bool((values <= nll + 3 * kl + 1e-3).all())


def test_cycles_return_four_times():
    weights = [rebalancing.weight("cyclical", t) for t in np.arange(400) / 400]
    assert sum(w == 0 for w in weights) == 4
    assert sum(w == 1 for w in weights) == 200


def test_free_bits_charge_nothing_below_the_hinge_and_all_above(batch):
    x, logits, mu, log_var = batch
    loss = rebalancing.ScheduledLoss("free bits", beta=2.0, steps=1)
    nll, kl = parts(batch)
    # Far above the hinge in every latent: the plain loss.
    assert torch.isclose(
        loss(x, logits, mu + 3, log_var), nll + 2 * parts((x, logits, mu + 3, log_var))[1]
    )
    small, flat = (0.1 * mu).requires_grad_(), torch.zeros_like(mu)
    value = loss(x, logits, small, flat)
    assert torch.isclose(value, nll + 2 * 4 * rebalancing.FREE_NATS)
    assert not torch.autograd.grad(value, small)[0].any()


def test_the_encoder_leads_for_half_of_the_steps():
    model = mlp_vae(latent_dim=2, hidden=(8,))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    rebalancing.let_the_encoder_lead(optimizer, model, steps=20)
    moved = []

    def weights(part):
        return torch.cat([p.detach().flatten().clone() for p in part.parameters()])

    before = [weights(model.encoder), weights(model.decoder)]

    def evaluate(m):
        after = [weights(m.encoder), weights(m.decoder)]
        moved.append([not torch.equal(a, b) for a, b in zip(after, before, strict=True)])
        before[:] = after
        return {}

    x = np.random.default_rng(0).random((64, 28, 28))
    loss = rebalancing.ScheduledLoss("none", 1.0, 20)
    fit(model, x, loss, steps=20, optimizer=optimizer, evaluate=evaluate, every=1)
    assert all(encoder for encoder, _ in moved)
    assert [i + 1 for i, (_, decoder) in enumerate(moved) if decoder] == [5, 10, *range(11, 21)]


def test_the_running_minimum_follows_the_error_down_and_never_up(batch):
    x, _, mu, log_var = batch
    loss = rebalancing.RunningMinimum()
    path = []
    for scale in [1.0] * 600 + [0.0] * 600:  # first the exact image, then a grey one
        loss(x, scale * torch.logit(x.clamp(1e-6, 1 - 1e-6)), mu, log_var)
        path.append(loss.gamma2)
    assert np.all(np.diff(path) <= 0)
    assert path[99] == pytest.approx(0.99**100)
    assert path[-1] == path[599] == pytest.approx(0.99**600)


@pytest.mark.parametrize("k", [1.0, rebalancing.UNDOCUMENTED])
def test_at_a_given_variance_k_is_a_weight_of_the_kl(k):
    def loss_fn(x, x_hat, mu, log_var):
        return rebalancing.RunningMinimum(k)(x, torch.logit(x_hat), mu, log_var)

    found = audit_loss(loss_fn, data_shape=(28, 28), latent_dim=16)
    assert str(found.likelihood) == "gaussian"
    assert found.beta == pytest.approx(k, rel=1e-3)  # gamma2 is 1 at the first step


def test_a_second_stage_samples_codes_like_those_it_saw():
    """Codes in two clusters: the prior puts most samples between them, the second stage few."""
    centre = torch.tensor([2.0, 0.0])

    class Encoder(torch.nn.Module):
        def forward(self, x):
            mu = torch.where(x.mean((1, 2))[:, None] > 0.5, centre, -centre)
            return torch.cat([mu, torch.full_like(mu, np.log(0.01))], 1)

    model = mlp_vae(latent_dim=2, hidden=(4,))
    model.encoder = Encoder()
    x = torch.rand(2000, 1, 1, generator=torch.Generator().manual_seed(1)).expand(-1, 28, 28)
    second = rebalancing.SecondStage(model, x, steps=600, seed=0)
    z = second.sample(2000, torch.Generator().manual_seed(2))
    assert z.shape == (2000, 2)
    assert (z[:, 0].abs() < 1).float().mean() < 0.2  # of the prior 68 %
    assert z[:, 1].std() < 0.3  # of the prior 1
