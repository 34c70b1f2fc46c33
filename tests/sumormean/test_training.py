"""The training loop, the models, the metrics and claims."""

import numpy as np
import pytest
import torch

from sumormean.claims import ClaimError, claim
from sumormean.data import load
from sumormean.models import mlp_vae, reparameterise, seeded
from sumormean.training import TrainingError, fit
from vaeloss import metrics
from vaeloss.likelihoods import bernoulli_nll, gaussian_nll, kl_standard_normal


def negative_elbo(x, logits, mu, log_var):
    return bernoulli_nll(x, logits) + kl_standard_normal(mu, log_var)


@pytest.fixture(scope="module")
def digits():
    return load("digits28")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_training_lowers_the_loss_and_leaves_global_seeds_alone(digits):
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    history = fit(mlp_vae(hidden=(64,)), digits.x_train, negative_elbo, steps=200)
    assert history.loss.shape == (200,)
    assert history.loss[-20:].mean() < 0.8 * history.loss[:5].mean()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_same_seed_same_weights_other_seed_others(digits):
    runs = []
    for seed in [1, 1, 2]:
        model = mlp_vae(hidden=(16,), seed=0)
        fit(model, digits.x_train, negative_elbo, steps=20, seed=seed)
        runs.append(weights(model))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert not torch.equal(weights(mlp_vae(seed=0)), weights(mlp_vae(seed=1)))


def test_an_epoch_sees_every_image_once():
    x = np.arange(10, dtype=np.float32).reshape(10, 1, 1) / 10
    seen = []

    def spy(x, out, mu, log_var):
        seen.append(x.flatten().clone())
        return negative_elbo(x, out, mu, log_var)

    fit(mlp_vae((1, 1), 1, (4,)), x, spy, epochs=2, batch_size=4)
    assert [len(batch) for batch in seen] == [4, 4, 2, 4, 4, 2]
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert torch.equal(first.sort().values, torch.from_numpy(x.flatten()))
    assert not torch.equal(first, second)


def test_evaluations_come_every_so_many_steps_and_at_the_end(digits):
    model = mlp_vae(hidden=(8,))
    modes = []

    def evaluate(m):
        modes.append(m.training)
        return {"n": len(modes)}

    history = fit(model, digits.x_train, negative_elbo, steps=7, evaluate=evaluate, every=3)
    assert history.evals == [{"step": 3, "n": 1}, {"step": 6, "n": 2}, {"step": 7, "n": 3}]
    assert modes == [False] * 3 and not model.training


def test_on_step_comes_between_the_gradients_and_the_step(digits):
    """It sees each step once, with gradients of this batch and the weights that made them."""
    model = mlp_vae(hidden=(8,))
    weight, events = 1.0, []

    def loss_fn(*args):
        events.append(("loss", weight, weights(model)))
        return weight * negative_elbo(*args)

    def on_step(step):
        nonlocal weight
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        events.append((step, gradient, weights(model)))
        weight = 0.0  # from the next step on

    sgd = torch.optim.SGD(model.parameters(), lr=1e-4)
    fit(model, digits.x_train, loss_fn, steps=3, optimizer=sgd, on_step=on_step)
    losses, steps = events[::2], events[1::2]
    assert [value for _, value, _ in losses] == [1.0, 0.0, 0.0]
    assert [step for step, _, _ in steps] == [0, 1, 2]
    assert all(torch.equal(a, b) for (_, _, a), (_, _, b) in zip(losses, steps, strict=True))
    assert steps[0][1].any() and not steps[1][1].any()
    torch.testing.assert_close(losses[1][2], losses[0][2] - 1e-4 * steps[0][1])
    assert torch.equal(weights(model), losses[1][2])


def test_a_gradient_that_on_step_drops_moves_nothing(digits):
    model = mlp_vae(hidden=(8,))
    before = [weights(model.encoder), weights(model.decoder)]

    def on_step(step):
        for parameter in model.decoder.parameters():
            parameter.grad = None

    fit(model, digits.x_train, negative_elbo, steps=3, on_step=on_step)
    assert not torch.equal(weights(model.encoder), before[0])
    assert torch.equal(weights(model.decoder), before[1])


def test_a_summed_batch_loss_and_a_per_sample_loss_train_alike_under_sgd(digits):
    ends = []
    for loss_fn, lr in [(negative_elbo, 1e-3), (lambda *a: 2 * negative_elbo(*a).mean(), 5e-4)]:
        model = mlp_vae(hidden=(16,))
        sgd = torch.optim.SGD(model.parameters(), lr=lr)
        fit(model, digits.x_train, loss_fn, steps=10, optimizer=sgd)
        ends.append(weights(model))
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bad_step", [0, 3, 12, 19])
def test_a_nan_stops_the_run_and_names_the_step(digits, bad_step):
    calls = []

    def breaks(*args):
        calls.append(1)
        return negative_elbo(*args) * (float("nan") if len(calls) == bad_step + 1 else 1.0)

    with pytest.raises(TrainingError, match=rf"nan at step {bad_step}:"):
        fit(mlp_vae(hidden=(8,)), digits.x_train[:80], breaks, steps=20, batch_size=8)


@pytest.mark.parametrize("length", [{}, {"steps": 1, "epochs": 1}])
def test_length_is_given_exactly_once(digits, length):
    with pytest.raises(ValueError, match="either epochs or steps"):
        fit(mlp_vae(), digits.x_train, negative_elbo, **length)


@pytest.mark.parametrize("shape", [(28, 28), (784,), (3, 8, 8), (1, 1)])
@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)])
def test_mlp_shapes(shape, hidden):
    model = mlp_vae(shape, 3, hidden)
    x = torch.rand(5, *shape)
    out, mu, log_var = model(x)
    assert out.shape == x.shape and mu.shape == log_var.shape == (5, 3)
    x_hat = model.reconstruct(x)
    assert x_hat.shape == x.shape and 0 <= x_hat.min() and x_hat.max() <= 1
    assert not x_hat.requires_grad


def test_seeded_restores_the_generator():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with seeded(99):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(99):
        assert torch.equal(torch.rand(3), inside)


def test_reparameterised_samples_have_the_right_moments():
    mu, log_var = torch.full((200_000, 1), 2.0), torch.full((200_000, 1), -1.0)
    z = reparameterise(mu, log_var, torch.Generator().manual_seed(0))
    assert abs(z.mean().item() - 2) < 0.01
    assert abs(z.var().item() / np.exp(-1) - 1) < 0.02


def test_rate_and_distortion_are_the_terms_of_the_loss(digits):
    model = mlp_vae(hidden=(8,))
    x = torch.as_tensor(digits.x_test)
    rate, distortion = metrics.rate_distortion(model, digits.x_test, bernoulli_nll, seed=3)
    out, mu, log_var = model(x, torch.Generator().manual_seed(3))
    assert rate == pytest.approx(kl_standard_normal(mu, log_var).mean().item(), rel=1e-5)
    assert distortion == pytest.approx(bernoulli_nll(x, out).mean().item(), rel=1e-5)
    posterior_mu, posterior_log_var = metrics.posterior(model, digits.x_test)
    torch.testing.assert_close(posterior_mu, mu.detach())
    torch.testing.assert_close(posterior_log_var, log_var.detach())


def test_constant_image_is_the_best_constant(digits):
    x = torch.as_tensor(digits.x_test)
    mean = x.mean(0).expand_as(x)
    bernoulli = metrics.constant_image_nll(digits.x_test, "bernoulli")
    logits = torch.logit(mean.double(), eps=1e-12)  # some pixels are never on
    assert bernoulli == pytest.approx(bernoulli_nll(x.double(), logits).mean().item(), rel=1e-6)
    gaussian = metrics.constant_image_nll(digits.x_test, "gaussian")
    without_constant = gaussian_nll(x, mean) - gaussian_nll(x, x)
    assert gaussian == pytest.approx(without_constant.mean().item(), rel=1e-4)
    for likelihood in ["bernoulli", "gaussian"]:
        other = metrics.constant_image_nll(digits.x_test, likelihood, x_train=digits.x_train)
        assert other > metrics.constant_image_nll(digits.x_test, likelihood)
    with pytest.raises(ValueError, match="neither a mean nor a median"):
        metrics.constant_image_nll(digits.x_test, "categorical(3)")


def test_output_spread_is_one_for_perfect_outputs_and_scales_as_a_variance(digits):
    x = digits.x_test
    assert metrics.output_spread(x, x) == pytest.approx(1)
    assert metrics.output_spread(x / 2 + 0.3, x) == pytest.approx(0.25, rel=1e-4)


def test_claim_prints_or_raises(capsys):
    claim("Two is even.", 2 % 2 == 0)
    claim("On MNIST, five.", False, given=False)
    assert capsys.readouterr().out == "✓ Two is even.\n✓ On MNIST, five.\n"
    with pytest.raises(ClaimError, match="Three is even."):
        claim("Three is even.", np.bool_(False))
    claim("Tensors will do.", torch.tensor(True))
    with pytest.raises(TypeError, match="one truth value"):
        claim("All of them.", np.array([True, False]))


def test_a_claim_with_values_prints_them(capsys):
    claim("β* is 5.12, not 32.2.", True, id="a-b", value={"b": 32.2, "a": 5.12}, recorded=True)
    assert capsys.readouterr().out == "✓ β* is 5.12, not 32.2. (recorded)\n"
    for value in (5.1, 12, 2.2, 5.13):
        with pytest.raises(ValueError, match=f"value a = {value} does not stand in"):
            claim("β* is 5.12, not 32.2.", True, id="a", value={"a": value})
    for value in ("5.12", True, None):
        with pytest.raises(TypeError, match="'a' of a claim is a number"):
            claim("β* is 5.12.", True, id="a", value={"a": value})
    with pytest.raises(ValueError, match="needs an id"):
        claim("β* is 5.12.", True, value={"a": 5.12})
    with pytest.raises(ValueError, match="slug"):
        claim("β* is 5.12.", True, id="On MNIST")


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        fit(mlp_vae(), np.zeros((0, 28, 28)), negative_elbo, steps=1)


def test_nan_does_not_pass_for_dead_units():
    mu = torch.tensor([[0.0, torch.nan], [1.0, torch.nan]])
    with pytest.raises(ValueError, match="mu has NaN"):
        metrics.live_units(mu)
