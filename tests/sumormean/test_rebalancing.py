"""The methods of chapter "Rebalancing": what each minimises, moves, and leaves alone."""

import numpy as np
import pytest
import torch

from sumormean.experiments import rebalancing
from sumormean.models import mlp_vae
from sumormean.records import load_record
from sumormean.training import fit
from vaeloss.audit import audit_loss
from vaeloss.likelihoods import bernoulli_nll, gaussian_nll, kl_standard_normal


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(32, 28, 28, generator=g)
    logits, mu = torch.randn(32, 28, 28, generator=g), torch.randn(32, 4, generator=g)
    return x, logits, mu, torch.randn(32, 4, generator=g)


def parts(batch):
    x, logits, mu, log_var = batch
    return bernoulli_nll(x, logits).mean(), kl_standard_normal(mu, log_var).mean()


@pytest.mark.parametrize("schedule", [rebalancing.warm_up, rebalancing.cyclical])
def test_a_schedule_starts_at_zero_and_ends_at_beta(batch, schedule):
    loss = rebalancing.ScheduledLoss(schedule, beta=3.0, steps=8)
    values = []
    for step in range(8):
        values.append(loss(*batch).mean())
        loss(*batch)  # calls do not count, steps do
        loss.on_step(step)
    values = torch.stack(values)
    nll, kl = parts(batch)
    assert torch.isclose(values[0], nll)
    assert torch.isclose(values[-1], nll + 3 * kl)
    assert bool((values <= nll + 3 * kl + 1e-3).all())


def test_cycles_return_four_times():
    weights = [rebalancing.cyclical(t) for t in np.arange(400) / 400]
    assert sum(w == 0 for w in weights) == 4
    assert sum(w == 1 for w in weights) == 200


def test_free_bits_charge_nothing_below_the_hinge_and_all_above(batch):
    x, logits, mu, log_var = batch
    loss = rebalancing.free_bits_loss(beta=2.0)
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
    leading = rebalancing.METHODS["lagging encoder"].objective(model, x, steps=20)
    fit(
        model,
        x,
        leading.loss_fn,
        steps=20,
        optimizer=optimizer,
        on_step=leading.on_step,
        evaluate=evaluate,
        every=1,
    )
    assert all(encoder for encoder, _ in moved)
    assert [i + 1 for i, (_, decoder) in enumerate(moved) if decoder] == [5, 10, *range(11, 21)]


def test_the_running_minimum_follows_the_error_down_and_never_up(batch):
    x, _, mu, log_var = batch
    loss = rebalancing.RunningMinimumLoss()
    path = []
    for scale in [1.0] * 600 + [0.0] * 600:  # first the exact image, then a grey one
        loss(x, scale * torch.logit(x.clamp(1e-6, 1 - 1e-6)), mu, log_var)
        loss.on_step(len(path))
        path.append(loss.gamma2)
    assert np.all(np.diff(path) <= 0)
    assert path[99] == pytest.approx(0.99**100)
    assert path[-1] == path[599] == pytest.approx(0.99**600)


@pytest.mark.parametrize("k", [1.0, rebalancing.UNDOCUMENTED])
def test_at_a_given_variance_k_is_a_weight_of_the_kl(k):
    def loss_fn(x, x_hat, mu, log_var):
        return rebalancing.RunningMinimumLoss(k)(x, torch.logit(x_hat), mu, log_var)

    found = audit_loss(loss_fn, data_shape=(28, 28), latent_dim=16)
    assert str(found.likelihood) == "gaussian"
    assert found.beta == pytest.approx(k, rel=1e-3)  # gamma2 is 1 at the first step


@pytest.mark.parametrize("method", rebalancing.METHODS)
def test_what_a_method_starts_from(method, batch):
    """The loss of the first step, and the variance: of warm-up and cycles without the KL."""
    x, logits, mu, log_var = batch
    model = mlp_vae(latent_dim=4, hidden=(4,))
    start = rebalancing.METHODS[method].objective(model, x, steps=8)
    nll, kl = parts(batch)
    variance = x.var(0).mean()
    mean = torch.sigmoid(logits)
    free = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).mean(0)
    free = free.clamp(min=0.5).sum()
    loss, sigma2 = {
        "warm-up": (nll, None),
        "cyclical": (nll, None),
        "free bits": (nll + free, None),
        "lagging encoder": (nll + kl, None),
        "mean: free bits": (nll + 784 * free, None),
        "running minimum": (gaussian_nll(x, mean, 1.0).mean() + kl, 1.0),
        "running minimum · k": (gaussian_nll(x, mean, 1.0).mean() + 12.25 * kl, 1.0),
        "two-stage": (gaussian_nll(x, mean, variance).mean() + kl, pytest.approx(variance.item())),
    }[method]
    assert torch.allclose(start.loss_fn(*batch).mean(), loss)
    assert start.sigma2() == sigma2


@pytest.mark.parametrize(("method", "weight"), [("warm-up", 1 / 2), ("cyclical", 1)])
def test_a_scheduled_method_has_its_schedule(method, weight, batch):
    start = rebalancing.METHODS[method].objective(mlp_vae(), batch[0], steps=8)
    for step in range(3):
        start.on_step(step)
    nll, kl = parts(batch)
    assert torch.isclose(start.loss_fn(*batch).mean(), nll + weight * kl)


def test_the_names_of_the_record_are_those_of_the_methods():
    assert all(name == method.name for name, method in rebalancing.METHODS.items())
    rows = load_record("rebalancing")["rows"]
    assert list(dict.fromkeys(row["method"] for row in rows)) == list(rebalancing.METHODS)


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
