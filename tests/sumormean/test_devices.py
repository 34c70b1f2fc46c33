"""Training and measuring on a machine with a GPU: nothing moves unasked, nothing is mixed."""

import numpy as np
import pytest
import torch
from fake_gpu import DEVICE, fake_gpu

from sumormean.bracket import bracket_threshold
from sumormean.data import load
from sumormean.models import mlp_vae
from sumormean.training import fit
from sumormean.vq import VQVAE
from vaeloss import metrics
from vaeloss.likelihoods import bernoulli_nll, gaussian_nll, kl_standard_normal

X = load("digits28").x_train[:256]


def elbo(x, logits, mu, log_var):
    return bernoulli_nll(x, logits) + kl_standard_normal(mu, log_var)


def quantised(x, x_hat, z, e):
    squared = (x - x_hat).square().flatten(1).sum(1)
    return squared + (z.detach() - e).square().sum(1) + 0.25 * (z - e.detach()).square().sum(1)


@pytest.fixture
def gpu(monkeypatch):
    """The fake one; and whoever asks for CUDA is told that it is there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with fake_gpu() as device:
        yield device


def test_the_fake_gpu_refuses_what_a_gpu_refuses(gpu):
    model = mlp_vae().to(gpu)
    with pytest.raises(RuntimeError, match="same device"):
        model(torch.zeros(3, 28, 28))
    with pytest.raises(RuntimeError, match="numpy"):
        model.encode(torch.zeros(3, 28, 28, device=gpu))[0].detach().numpy()


def test_a_model_trains_where_it_is_and_stays_there(gpu):
    """A CPU build raises as soon as anything asks for CUDA."""
    model = mlp_vae()
    fit(model, X, elbo, steps=2)
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    model.decoder(torch.zeros(1, 2)), model.encode(torch.as_tensor(X[:2]))  # as chapters do


@pytest.mark.parametrize("moved_by", ["hand", "fit"])
def test_on_the_gpu_the_numbers_are_those_of_the_cpu(gpu, moved_by):
    def measures(model):
        return [
            *metrics.rate_distortion(model, X, bernoulli_nll),
            metrics.importance_weighted_nll(model, X, bernoulli_nll, samples=3).mean().item(),
            metrics.output_spread(metrics.reconstructions(model, X), X),
            metrics.live_units(metrics.posterior(model, X)[0]),
        ]

    def evaluate(model):
        return {"kl": metrics.rate_distortion(model, X[:64], bernoulli_nll)[0]}

    here, there = mlp_vae(seed=1), mlp_vae(seed=1)
    if moved_by == "hand":
        there.to(gpu)
    device = gpu if moved_by == "fit" else None
    settings = {"steps": 6, "lr": 1e-2, "evaluate": evaluate, "every": 3}
    expected = fit(here, X, elbo, **settings)
    found = fit(there, X, elbo, device=device, **settings)
    assert {p.device for p in there.parameters()} == {DEVICE}
    assert isinstance(found.loss, np.ndarray) and np.array_equal(found.loss, expected.loss)
    assert found.evals == expected.evals
    assert measures(there) == measures(here)


def test_a_quantiser_on_the_gpu(gpu):
    here, there = VQVAE(), VQVAE().to(gpu)
    losses = [fit(model, X, quantised, steps=3).loss for model in (here, there)]
    assert np.array_equal(*losses)
    assert torch.equal(*(metrics.reconstructions(model, X[:32]) for model in (here, there)))


def test_the_threshold_is_bracketed_on_the_gpu(gpu):
    x = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
    x[:, 0] *= 3
    settings = {"guess": x[:, 0].var().item(), "steps": 60, "lr": 1e-2}
    found = [
        bracket_threshold(
            mlp_vae((6,), 1, hidden=(), pixel_mean=torch.nn.Identity()).to(device),
            x,
            gaussian_nll,
            x.mean(0),
            **settings,
        )
        for device in ("cpu", gpu)
    ]
    assert found[0] == found[1]
