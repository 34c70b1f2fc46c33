"""Better priors: each samples the codes it was fitted to, and costs what it says."""

import math

import pytest
import torch
from torch.distributions import Normal

from sumormean.experiments import calibration, second_stage
from sumormean.experiments.balances import FIRST_STAGES, METHODS, constrained_loss
from sumormean.experiments.common import random_batch
from sumormean.experiments.priors import PRIORS, SecondVAE, Vamp
from sumormean.models import mlp_vae
from sumormean.training import fit


@pytest.fixture
def codes():
    """Two clusters, at 2 and -2 of the first axis, narrow in both."""
    generator = torch.Generator().manual_seed(0)
    side = torch.randint(2, (3000,), generator=generator) * 4.0 - 2
    return torch.stack([side, 0 * side], 1) + 0.2 * torch.randn(3000, 2, generator=generator)


@pytest.fixture
def quick(monkeypatch):
    init = SecondVAE.__init__
    monkeypatch.setattr(SecondVAE, "__init__", lambda s, z, seed: init(s, z, seed, steps=2500))


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_has_the_moments_it_was_fitted_to(name, codes, quick):
    prior = PRIORS[name](codes, 0)
    z = prior.sample(4000, torch.Generator().manual_seed(1))
    assert z.shape == (4000, 2)
    between = (z[:, 0].abs() < 1).float().mean()
    if name == "prior":
        assert between == pytest.approx(0.68, abs=0.03)
        assert z.std(0).tolist() == pytest.approx([1, 1], abs=0.05)
    else:
        assert z[:, 0].std().item() == pytest.approx(codes[:, 0].std().item(), abs=0.15)
        assert z[:, 1].std() < 0.35
        assert (between < 0.15) == (name != "full Gaussian")


@pytest.mark.parametrize("name", [n for n in PRIORS if n != "second VAE"])
def test_a_density_adds_up_to_one(name, codes):
    prior = PRIORS[name](codes, 0)
    line = torch.linspace(-12, 12, 481)
    z = torch.cartesian_prod(line, line)
    total = torch.exp(-prior.nll(z).double()).sum() * (line[1] - line[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-3)


def test_the_better_the_prior_the_less_a_code_costs(codes, quick):
    cost = {name: make(codes, 0).nll(codes).mean().item() for name, make in PRIORS.items()}
    assert cost["mixture"] < cost["full Gaussian"] < cost["prior"]
    assert cost["second VAE"] > cost["mixture"] - 0.05  # a bound, of what the mixture has exactly


@pytest.fixture
def vamp():
    x = torch.rand(200, 28, 28, generator=torch.Generator().manual_seed(0))
    model = mlp_vae(latent_dim=2, hidden=(8,))
    return model, Vamp(model, METHODS["bernoulli"](x, 8, 0.02), x, seed=0), x


def test_a_vamp_prior_is_the_mean_of_its_posteriors(vamp):
    model, prior, _ = vamp
    z = torch.randn(7, 2)
    mu, log_var = model.encode((prior.tenfold / 10).clamp(0, 1))
    each = Normal(mu, torch.exp(log_var / 2)).log_prob(z[:, None]).sum(2).exp()
    assert torch.allclose(prior.nll_of_codes(z), -each.mean(1).log(), atol=1e-4)
    samples = prior.sample(5000, torch.Generator().manual_seed(0))
    assert torch.allclose(samples.mean(0), mu.mean(0), atol=0.1)


def test_its_loss_has_its_rate_in_place_of_the_kl(vamp):
    model, prior, x = vamp
    out, mu, log_var = model(x, torch.Generator().manual_seed(0))
    losses = torch.stack([prior.loss(x, out, mu, log_var) for _ in range(300)])
    draws = Normal(mu, torch.exp(log_var / 2)).sample((300,))
    rate = prior.nll_of_codes(draws.reshape(-1, 2)).view(300, -1) + Normal(
        mu, torch.exp(log_var / 2)
    ).log_prob(draws).sum(2)
    want = prior.nll(x, out).mean() + rate.mean()
    assert losses.mean().item() == pytest.approx(want.item(), abs=0.1)


def test_the_pseudo_inputs_are_trained(vamp):
    model, prior, x = vamp
    before = prior.tenfold.clone()
    optimizer = torch.optim.Adam([*model.parameters(), *prior.parameters()], lr=1e-2)
    fit(model, x, prior.loss, steps=3, optimizer=optimizer)
    assert not torch.equal(prior.tenfold, before)


def test_geco_is_a_gaussian_with_the_variance_that_its_multiplier_says():
    x, out, mu, log_var = random_batch(torch.Generator().manual_seed(0))
    out.requires_grad_()
    found, want = (
        torch.autograd.grad(loss, out)[0]
        for loss in (
            constrained_loss(x, out, mu, log_var, target=0.03, multiplier=25.0),
            METHODS["fixed × 1"](x, 8, 0.02).loss(x, out, mu, log_var),
        )
    )
    assert torch.allclose(found, want)


def test_geco_ends_at_its_target():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(500, 4, generator=generator) @ torch.rand(4, 16, generator=generator) / 4
    x = x.view(500, 4, 4)
    geco = FIRST_STAGES["geco × 2"](x, 3000, 0.05 * x.var(0).mean().item())
    model = mlp_vae((4, 4), latent_dim=4, hidden=(32,))
    calibration.train(model, model, geco, x, x, 3000, seed=0)
    with torch.no_grad():
        out = model(x, generator)[0]
    mse = (x - torch.sigmoid(out)).square().mean().item()
    assert mse == pytest.approx(geco.target, rel=0.1)
    assert geco.sigma2() > 1.5 * mse  # a target above the calibrated one asks for more than itself


def test_a_run_scores_every_prior(monkeypatch):
    init = SecondVAE.__init__
    monkeypatch.setattr(SecondVAE, "__init__", lambda s, z, seed: init(s, z, seed, steps=50))
    monkeypatch.setitem(calibration.SIZES, "digits28", (400, 3, 64))
    monkeypatch.setitem(calibration.OPTIMUM, ("mlp", "digits28"), 0.03)
    row = second_stage.run("digits28", "learned", seed=0)
    assert row["scores"].keys() == {*PRIORS, "VampPrior", "codes"}
    assert row["rates"].keys() == {*PRIORS, "VampPrior"}
    for scores in [*row["scores"].values(), row["real"]]:
        assert scores.keys() == row["real"].keys()
        assert all(math.isfinite(v) for v in scores.values())
    assert row["rates"]["mixture"] < row["rates"]["prior"]


def test_the_grid():
    assert len(second_stage.settings()) == 2 * len(FIRST_STAGES) and len(second_stage.SEEDS) >= 3
