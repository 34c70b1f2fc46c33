"""The ends of the number line: extreme inputs, degenerate shapes, half precision, large β.

Finite means values and gradients. Where a number cannot be finite, because its format has none as
large, or because the quantity does not exist, the test says what happens instead.
"""

import contextlib
import math

import numpy as np
import pytest
import torch
from torch import nn

from sumormean.experiments.calibrated import METHODS as VARIANCES
from sumormean.experiments.calibrated import continuous_bernoulli_mean, negative_elbo
from sumormean.experiments.rebalancing import METHODS as REBALANCING
from sumormean.features import FeatureClassifier
from sumormean.models import VAE, mlp_vae, reparameterise
from sumormean.originals.chainer import chainer_terms
from sumormean.quality import frechet_distance
from sumormean.training import TrainingError, fit
from sumormean.vq import VQVAE, Quantiser
from vaeloss import metrics
from vaeloss.likelihoods import (
    at_least_float32,
    bernoulli_nll,
    continuous_bernoulli_nll,
    gaussian_nll,
    kl_standard_normal,
)
from vaeloss.metrics import perplexity

HALF = (torch.float16, torch.bfloat16)
DTYPES = (torch.float64, torch.float32, *HALF)
PRECISIONS = (torch.float32, *HALF)  # no autocast, or autocast to one of two formats
IMAGES = {"zeros": 0.0, "ones": 1.0, "grey": 0.5}


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
        ),
    ]
)
def device(request) -> torch.device:
    return torch.device(request.param)


def autocast(device, dtype):
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def value_and_gradients(fn, *inputs):
    inputs = [t.clone().requires_grad_() for t in inputs]
    value = fn(*inputs)
    value.sum().backward()
    return value.detach(), [t.grad for t in inputs]


def finite(*tensors) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in tensors)


# Likelihoods


def bernoulli_at(x, logit):
    return max(logit, 0) - x * logit


def continuous_bernoulli_at(x, logit):  # log((exp(l) - 1) / l) - x l, where exp(-|l|) is 0
    return max(logit, 0) - math.log(abs(logit)) - x * logit


def gaussian_at(x, mean):
    return 0.5 * ((x - mean) ** 2 + math.log(2 * math.pi))


@pytest.mark.parametrize(
    "nll, exact",
    [
        (bernoulli_nll, bernoulli_at),
        (continuous_bernoulli_nll, continuous_bernoulli_at),
        (gaussian_nll, gaussian_at),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logit", [-1e4, 1e4])
@pytest.mark.parametrize("image", IMAGES)
def test_a_decoder_that_is_certain(device, nll, exact, dtype, logit, image):
    for shape in [(1, 1), (3, 1), (1, 784), (2, 28, 28)]:
        x = torch.full(shape, IMAGES[image], dtype=dtype, device=device)
        out = torch.full(shape, logit, dtype=dtype, device=device)
        value, (gradient,) = value_and_gradients(lambda out, x=x: nll(x, out), out)
        assert finite(value, gradient)
        assert value.dtype == (torch.float32 if dtype in HALF else dtype)
        assert gradient.dtype == dtype
        expected = math.prod(shape[1:]) * exact(IMAGES[image], out.flatten()[0].item())
        # atol: 1e4 - log 1e4 - 1e4 is rounded like 1e4
        tolerance = 1e-9 if dtype == torch.float64 else 1e-3 * math.prod(shape[1:])
        assert value.tolist() == pytest.approx([expected] * shape[0], rel=1e-5, abs=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mu", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("log_var", [-50.0, 50.0])
def test_kl_of_extreme_posteriors(device, dtype, mu, log_var):
    for shape in [(1, 1), (1, 16), (3, 1)]:
        inputs = [torch.full(shape, v, dtype=dtype, device=device) for v in (mu, log_var)]
        kl, (by_mu, by_log_var) = value_and_gradients(kl_standard_normal, *inputs)
        m, v = (t.flatten()[0].item() for t in inputs)  # 1e4 rounded to the format
        expected = 0.5 * shape[1] * (m**2 + math.expm1(v) - v)
        assert kl.tolist() == pytest.approx([expected] * shape[0], rel=1e-5)
        assert by_mu.flatten().tolist() == pytest.approx([m] * by_mu.numel())
        slope = 0.5 * math.expm1(v)  # up to 2.6e21
        if slope > torch.finfo(dtype).max:
            assert dtype == torch.float16 and by_log_var.isinf().all()
        else:
            assert by_log_var.flatten().tolist() == pytest.approx(
                [slope] * by_mu.numel(), rel=torch.finfo(dtype).eps
            )


@pytest.mark.parametrize(
    "dtype, log_sigma2, representable",
    [
        (torch.float64, -50.0, True),
        (torch.float64, 50.0, True),
        (torch.float32, -40.0, True),
        (torch.float32, 50.0, True),
        # d NLL / d σ² = -(x - mean)² / (2 σ⁴) = -2.7e43 / 2: float32 ends at 3.4e38
        (torch.float32, -50.0, False),
    ],
)
def test_a_decoder_with_an_extreme_variance_of_its_own(device, dtype, log_sigma2, representable):
    x = torch.zeros(2, 784, dtype=dtype, device=device)
    log_sigma2 = torch.full((784,), log_sigma2, dtype=dtype, device=device)
    value, gradients = value_and_gradients(
        lambda mean, log_sigma2: gaussian_nll(x, mean, log_sigma2.exp()), x + 1, log_sigma2
    )
    expected = 784 * 0.5 * (math.exp(-log_sigma2[0]) + math.log(2 * math.pi) + log_sigma2[0].item())
    assert value.tolist() == pytest.approx([expected] * 2, rel=1e-4)
    assert finite(gradients[0]) and finite(gradients[1]) == representable


def test_only_half_precision_is_widened():
    for dtype in (torch.float64, torch.float32, torch.uint8):
        t = torch.zeros(3, dtype=dtype)
        assert at_least_float32(t)[0] is t
    assert [t.dtype for t in at_least_float32(*(torch.zeros(1, dtype=d) for d in HALF))] == [
        torch.float32
    ] * 2


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_costs_only_the_rounding_of_the_inputs(device, dtype):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(4, 784, generator=g).to(device, dtype)
    out = (3 * torch.randn(4, 784, generator=g)).to(device, dtype)
    for fn in (bernoulli_nll, continuous_bernoulli_nll, gaussian_nll, kl_standard_normal):
        assert torch.equal(fn(x, out), fn(x.float(), out.float()))


@pytest.mark.parametrize("log_var", [-50.0, 50.0])
def test_samples_of_extreme_posteriors(device, log_var):
    for shape in [(1, 1), (3, 16)]:
        mu, log_var_ = torch.zeros(shape, device=device), torch.full(shape, log_var, device=device)
        z, gradients = value_and_gradients(reparameterise, mu, log_var_)
        assert finite(z, *gradients) and z.abs().max() < 10 * math.exp(log_var / 2)


# The losses of three chapters, Chainer, calibrated decoders, rebalancing: out (B, 28, 28) -> nats


def batch(device, image: str, precision, sign: float, b: int = 1, m: int = 1, shape=(28, 28)):
    """x, out, mu, log_var as autocast would hand them to a loss, at the extremes."""
    x = torch.full((b, *shape), IMAGES[image], device=device)
    # float16 has no gradient for log_var = 50, see above; k exp(8) / 2 with k = 12.25 it has
    log_var = sign * (8.0 if precision == torch.float16 else 50.0)
    outputs = [
        torch.full(s, v, dtype=precision, device=device, requires_grad=True)
        for s, v in [((b, *shape), sign * 1e4), ((b, m), 300.0), ((b, m), log_var)]
    ]
    return x, outputs


def training_images() -> torch.Tensor:
    return torch.rand(20, 28, 28, generator=torch.Generator().manual_seed(0))


def calibrated_loss(method):
    noise = VARIANCES[method].noise(training_images())

    def loss(x, out, mu, log_var):
        noise.to(x.device)
        return negative_elbo(noise)(x, out, mu, log_var)

    return loss


def rebalancing_loss(method):
    objective = REBALANCING[method].objective(mlp_vae(hidden=(4,)), training_images(), steps=10)

    def loss(x, out, mu, log_var):
        if objective.noise is not None:
            objective.noise.to(x.device)
        return objective.loss_fn(x, out, mu, log_var)

    return loss


def chainer_loss(name):
    def loss(x, out, mu, log_var):
        return sum(chainer_terms(name)(x.flatten(1), out.flatten(1), mu, log_var))

    return loss


LOSSES = {
    **{m: lambda m=m: calibrated_loss(m) for m in VARIANCES},
    # "mean: free bits" is "free bits" but for β: its 784 times mu = 300 has no place in float16
    **{m: lambda m=m: rebalancing_loss(m) for m in REBALANCING if m != "mean: free bits"},
    **{
        n: lambda n=n: chainer_loss(n)
        for n in ("bernoulli_nll", "mean_squared_error", "summed_squared_error")
    },
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_loss_is_finite_at_the_extremes(device, name, precision):
    for image in IMAGES:
        for sign in (-1.0, 1.0):
            for b, m in [(1, 1), (3, 16)]:
                x, outputs = batch(device, image, precision, sign, b, m)
                with autocast(device, precision):
                    loss = LOSSES[name]()(x, *outputs).mean()
                loss.backward()
                assert finite(loss), (image, sign)
                assert finite(*(t.grad for t in outputs)), (image, sign)


@pytest.mark.parametrize("method", ["per batch", "per sample"])
def test_a_perfect_reconstruction_has_a_closed_form_too(method):
    """σ² -> 0 makes the likelihood infinite; pixels have rounding, and there it ends."""
    x = torch.ones(2, 28, 28)
    out = torch.full_like(x, 1e4)
    nll = VARIANCES[method].noise(x).nll
    value, (gradient,) = value_and_gradients(lambda out: nll(x, out), out)
    rounding = torch.finfo(torch.float32).eps ** 2
    expected = 392 * (math.log(2 * math.pi * rounding) + 1)
    assert value.flatten().tolist() == pytest.approx([expected] * value.numel(), rel=1e-5)
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("method", ["learned", "per pixel", "per pixel + floor"])
@pytest.mark.parametrize("images", [torch.zeros(5, 28, 28), training_images()[:1]])
def test_images_that_are_all_the_same_have_no_variance(method, images):
    with pytest.raises(ValueError, match="no variance to start .*images are the same"):
        VARIANCES[method].noise(images)


def test_the_variance_of_constant_pixels_is_no_variance():
    x = torch.zeros(5, 28, 28)
    with pytest.raises(ValueError, match="sigma2 must be positive"):
        VARIANCES["Var"].noise(x).nll(x, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logit", [-1e4, -100.0, -81.0, -79.0, -60.0, 60.0, 100.0, 1e4])
def test_the_mean_of_a_continuous_bernoulli_and_its_slope(device, dtype, logit):
    logits = torch.full((2, 1), logit, dtype=dtype, device=device)
    mean, (slope,) = value_and_gradients(continuous_bernoulli_mean, logits)
    at = logits[0].item()
    assert mean[0].item() == pytest.approx((at > 0) - 1 / at, rel=1e-6)
    assert slope[0].item() == pytest.approx(
        1 / at**2, rel=max(1e-6, torch.finfo(dtype).eps), abs=1e-7
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bound_in_the_mean_of_a_continuous_bernoulli_changes_no_bit(dtype):
    logits = torch.linspace(0.1, 700, 20_011, dtype=dtype)
    logits = torch.cat([-logits, logits])
    plain = -1 / torch.expm1(-logits) - 1 / logits
    assert torch.equal(continuous_bernoulli_mean(logits), plain)


# Metrics


def constant_vae(d: int, m: int, out: float, mu: float, log_var: float) -> VAE:
    """A VAE that says the same of every image."""
    encoder, decoder = nn.Linear(d, 2 * m), nn.Linear(m, d)
    with torch.no_grad():
        for layer in (encoder, decoder):
            layer.weight.zero_()
        encoder.bias.copy_(torch.tensor([mu] * m + [log_var] * m))
        decoder.bias.fill_(out)
    return VAE(encoder, decoder)


@pytest.mark.parametrize("log_var", [-50.0, 50.0])
@pytest.mark.parametrize("out", [-1e4, 1e4])
@pytest.mark.parametrize("image", IMAGES)
def test_metrics_of_an_extreme_model(device, log_var, out, image):
    for n, m, d in [(1, 1, 1), (1, 16, 784), (3, 1, 784)]:
        model = constant_vae(d, m, out, 0.0, log_var).to(device)
        x = torch.full((n, d), IMAGES[image])
        rate, distortion = metrics.rate_distortion(model, x, bernoulli_nll)
        assert rate == pytest.approx(0.5 * m * (math.expm1(log_var) - log_var), rel=1e-5)
        assert distortion == pytest.approx(d * bernoulli_at(IMAGES[image], out), rel=1e-5)
        iw = metrics.importance_weighted_nll(model, x, bernoulli_nll, samples=3)
        assert iw.shape == (n,) and finite(iw)
        mu, _ = metrics.posterior(model, x)
        assert metrics.live_units(mu) == 0
        assert finite(metrics.reconstructions(model, x))


@pytest.mark.parametrize("precision", HALF)
def test_metrics_under_autocast(device, precision):
    model = mlp_vae(latent_dim=1, hidden=(8,)).to(device)
    x = torch.ones(1, 28, 28)
    exact = metrics.rate_distortion(model, x, bernoulli_nll)
    with autocast(device, precision):
        pair = metrics.rate_distortion(model, x, bernoulli_nll)
        iw = metrics.importance_weighted_nll(model, x, bernoulli_nll, samples=3)
    assert pair == pytest.approx(exact, rel=0.05, abs=0.01)
    assert finite(iw)


@pytest.mark.parametrize("x", [torch.zeros(4, 9), torch.ones(4, 9), torch.rand(1, 9)])
def test_spread_relative_to_data_that_do_not_differ_is_an_error(x):
    with pytest.raises(ValueError, match="the data do not differ"):
        metrics.output_spread(torch.rand(len(x), 9), x)
    assert metrics.output_spread(x, torch.eye(9)[: len(x)] if len(x) > 1 else torch.eye(9)) == 0


@pytest.mark.parametrize("likelihood, worst", [("bernoulli", -math.log(1e-7)), ("gaussian", 0.5)])
def test_the_level_of_collapse_on_constant_images(likelihood, worst):
    for shape in [(1, 1), (3, 28, 28)]:
        zeros, ones = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        for x, other in [(zeros, ones), (ones, zeros)]:
            assert metrics.constant_image_nll(x, likelihood) == 0
            assert metrics.constant_image_nll(x, likelihood, x_train=other) == pytest.approx(
                worst * math.prod(shape[1:])
            )


def test_distance_of_features_that_do_not_differ():
    for f in (1, 5):
        zeros, ones = np.zeros((2, f)), np.ones((3, f))
        assert frechet_distance(zeros, zeros) == 0
        assert frechet_distance(zeros, ones) == pytest.approx(f)
        assert frechet_distance(1e4 * zeros, 1e4 * ones) == pytest.approx(1e8 * f)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_features_of_constant_images(precision):
    net = FeatureClassifier()
    with autocast(torch.device("cpu"), precision):
        zeros, ones = (net.features(torch.full((2, 28, 28), v)) for v in (0.0, 1.0))
        assert 0 < frechet_distance(zeros, ones) < math.inf
        assert frechet_distance(ones, ones) == pytest.approx(0, abs=1e-6)


# Quantisers


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("decay", [None, 0.9])
@pytest.mark.parametrize("image", IMAGES)
def test_a_quantiser_of_constant_images(device, precision, decay, image):
    model = VQVAE(decay=decay).to(device)
    x = torch.full((1, 28, 28), IMAGES[image], device=device)
    with autocast(device, precision):
        x_hat, z, e = model(x)
        loss = gaussian_nll(x, x_hat).mean() + (z - e.detach()).square().sum(1).mean()
        loss = loss + (z.detach() - e).square().sum(1).mean()
    loss.backward()
    assert finite(loss, *(p.grad for p in model.parameters()), model.quantiser.vectors)
    used = perplexity(model.codes(x), 64)
    assert 1 <= used <= 49


@pytest.mark.parametrize("precision", PRECISIONS)
def test_moving_averages_of_codes_nobody_uses(device, precision):
    """Their counts go to 0, and so do the sums they divide."""
    quantiser = Quantiser(codes=8, dim=1, decay=0.5).to(device)
    z = torch.tensor([-1e4, 1e4], device=device).view(1, 1, 1, 2)
    with autocast(device, precision):
        for _ in range(200):
            e, chosen = quantiser(z)
    assert finite(e, quantiser.vectors) and quantiser.counts.min() < 1e-30
    assert torch.equal(e, z) or torch.allclose(e, z, rtol=1e-5)
    assert perplexity(chosen, 8) == pytest.approx(2)
    assert perplexity(chosen[..., :1], 8) == 1


# Training


def beta_loss(beta, nll=bernoulli_nll):
    return lambda x, out, mu, log_var: nll(x, out) + beta * kl_standard_normal(mu, log_var)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("beta", [0.0, 1.0, 1e3, 1e6])
def test_training_under_any_beta_ends_finite_or_says_where(device, beta, precision):
    g = torch.Generator().manual_seed(0)
    binary = (torch.rand(40, 6, 6, generator=g) < 0.5).float()
    for x, m in [(binary, 2), (torch.zeros(3, 6, 6), 1), (torch.ones(1, 1, 1), 1)]:
        model, calls = mlp_vae(x.shape[1:], m, (8,)), []

        def loss_fn(*args, calls=calls):
            calls.append(1)
            return beta_loss(beta)(*args)

        try:
            with autocast(device, precision):
                history = fit(model, x, loss_fn, steps=25, batch_size=8, lr=1e-2, device=device)
        except TrainingError as error:
            # float16 ends where β times the KL does; the other formats go on
            assert precision == torch.float16
            per_epoch = -(-len(x) // 8)
            step = int(str(error).split("step ")[1].split(":")[0].split(",")[0])
            assert len(calls) <= (step // per_epoch + 1) * per_epoch
        else:
            assert len(calls) == 25 and np.isfinite(history.loss).all()
            assert finite(*model.parameters())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_posterior_too_wide_for_float16_stops_the_training(device, precision):
    """exp(30) has no place in float16, neither as a gradient nor in the decoder."""
    model = constant_vae(4, 1, 0.0, 0.0, 30.0)
    sgd = torch.optim.SGD(model.parameters(), lr=1e-30)

    def run():
        with autocast(device, precision):
            fit(model, torch.ones(3, 4), beta_loss(1.0), steps=5, optimizer=sgd, device=device)

    if precision == torch.float16:
        with pytest.raises(TrainingError, match="at step 0:|by step 0,"):
            run()
    else:
        run()


class Root(torch.autograd.Function):
    """Its value is finite where its gradient is not, as that of sqrt at 0."""

    @staticmethod
    def forward(ctx, t):
        return t.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


@pytest.mark.parametrize("last", [0, 3, 4, 9])
def test_a_gradient_that_is_not_finite_in_the_last_step_is_not_missed(last):
    calls = []

    def loss_fn(x, out, mu, log_var):
        calls.append(1)
        value = beta_loss(1.0)(x, out, mu, log_var)
        return Root.apply(value) if len(calls) == last + 1 else value

    with pytest.raises(TrainingError, match=f"weights became NaN or infinite by step {last},"):
        fit(mlp_vae((2,), 1, (4,)), torch.rand(20, 2), loss_fn, steps=last + 1, batch_size=4)


def test_a_learned_variance_outside_of_the_model_is_watched_too():
    log_sigma2 = nn.Parameter(torch.zeros(()))
    model = mlp_vae((2,), 1, (4,))
    optimizer = torch.optim.SGD([*model.parameters(), log_sigma2], lr=1e-3)

    def loss_fn(x, out, mu, log_var):
        return gaussian_nll(x, out) + 0 * Root.apply(log_sigma2)  # 0 times inf

    with pytest.raises(TrainingError, match="by step 0,"):
        fit(model, torch.rand(3, 2), loss_fn, steps=1, optimizer=optimizer)


@pytest.mark.parametrize("every", [None, 1, 3])
def test_no_evaluation_sees_a_model_that_is_not_finite(every):
    calls, seen = [], []

    def loss_fn(*args):
        calls.append(1)
        return beta_loss(1.0)(*args) * (math.nan if len(calls) == 8 else 1.0)

    def evaluate(model):
        seen.append(finite(*model.parameters()))
        return {}

    with pytest.raises(TrainingError, match="nan at step 7:"):
        fit(
            mlp_vae((2,), 1, (4,)),
            torch.rand(20, 2),
            loss_fn,
            epochs=3,
            batch_size=4,
            evaluate=evaluate,
            every=every,
        )
    assert seen and all(seen)
    assert len(calls) <= 10, "the epoch in which it happened is the last"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_data_that_are_not_finite_are_named(device, bad):
    x = np.ones((50, 3, 3), np.float32)
    x[17, 2, 1] = x[17, 0, 0] = x[40, 1, 1] = bad
    with pytest.raises(ValueError, match=r"2 of 50 images .* NaN or infinite.* x\[17\]"):
        fit(mlp_vae((3, 3), 1, (4,)), x, beta_loss(1.0), steps=1, device=device)


def test_finite_data_whose_sum_overflows_are_data():
    x = torch.full((4, 2), 2e38)

    def nothing(x, out, mu, log_var):
        return kl_standard_normal(0 * mu, 0 * log_var)

    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x, generator):
            z = self.w.expand(len(x), 1)
            return z, z, z

    assert fit(Blind(), x, nothing, steps=1, device="cpu").loss.tolist() == [0]
