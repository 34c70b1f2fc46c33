"""Schedules and losses that move the balance during training, trained alike and measured alike.

The book's chapter "Rebalancing" derives them; here METHODS are what ``python -m sumormean ablate
rebalancing`` compares. Network, steps and yardstick are those of
``sumormean.experiments.calibrated``, so that both records make one table.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sumormean.experiments.calibrated import Learned, Noise
from sumormean.experiments.common import (
    D,
    M,
    adam,
    common_measures,
    sample_score,
    train_and_test,
)
from sumormean.models import VAE, mlp_vae, reparameterise
from sumormean.sweep import grid
from sumormean.training import LossFn, fit
from vaeloss.likelihoods import at_least_float32, bernoulli_nll, gaussian_nll, kl_standard_normal
from vaeloss.metrics import posterior, rate_distortion

SEEDS = (0, 1, 2)
ARRAYS = {}
FREE_NATS = 0.5  # per latent
UNDOCUMENTED = (2 * 28 / M) ** 2  # Asperti & Trentin's code: (2 · side / latents)²

# Schedules: what β is multiplied by after a fraction t of the training.


def constant(t: float) -> float:
    """No schedule."""
    return 1.0


def warm_up(t: float) -> float:
    """Linear over three quarters of the training: Bowman et al. 2016.

    Examples
    --------
    >>> [warm_up(t) for t in (0, 0.375, 0.9)]
    [0.0, 0.5, 1.0]
    """
    return min(t / 0.75, 1.0)


def cyclical(t: float) -> float:
    """Four cycles, linear over the first half of each: Fu et al. 2019.

    Examples
    --------
    >>> [cyclical(t) for t in (0.25, 0.3125, 0.45)]
    [0.0, 0.5, 1.0]
    """
    return min(2 * (4 * t % 1), 1.0)


# Losses. Where one moves, ``fit`` calls its ``on_step``.


class ScheduledLoss:
    """Cross-entropy plus β times the KL, (B,) nats, with β under a schedule."""

    def __init__(self, schedule: Callable[[float], float], beta: float, steps: int):
        self.schedule, self.beta, self.steps = schedule, beta, steps
        self.weight = schedule(0.0)

    def __call__(self, x: Tensor, logits: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        beta = self.beta * self.weight
        return bernoulli_nll(x, logits) + beta * kl_standard_normal(mu, log_var)

    def on_step(self, step: int) -> None:
        self.weight = self.schedule((step + 1) / self.steps)


def free_bits_loss(beta: float) -> LossFn:
    """Cross-entropy plus β times what the KL is above the hinge: one number for the batch.

    Kingma et al. 2016: per latent, of the batch mean, what is below the hinge is free.
    """

    def loss_fn(x, logits, mu, log_var):
        mu, log_var = at_least_float32(mu, log_var)
        kl = 0.5 * (mu.square() + torch.expm1(log_var) - log_var).mean(0)
        return bernoulli_nll(x, logits).mean() + beta * kl.clamp(min=FREE_NATS).sum()

    return loss_fn


class RunningMinimumLoss:
    """Gaussian NLL whose variance follows the smallest mean squared error, plus k times the KL.

    Asperti & Trentin 2020. gamma2 starts at 1; each batch pulls it by a hundredth towards its
    own error, but never upwards.
    """

    def __init__(self, k: float = 1.0):
        self.k, self.gamma2, self.mse = k, 1.0, None

    def __call__(self, x: Tensor, out: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        mean = torch.sigmoid(out)
        self.mse = (x - mean).square().mean().item()  # of the batch of this step
        return gaussian_nll(x, mean, self.gamma2) + self.k * kl_standard_normal(mu, log_var)

    def on_step(self, step: int) -> None:
        self.gamma2 = min(self.gamma2, 0.99 * self.gamma2 + 0.01 * self.mse)


def learned_variance_loss(noise: Noise) -> LossFn:
    """Gaussian NLL with a learned variance plus the KL, (B,) nats: the first of two stages."""

    def loss_fn(x, out, mu, log_var):
        return noise.nll(x, out) + kl_standard_normal(mu, log_var)

    return loss_fn


def second_stage_loss(log_gamma2: Tensor) -> LossFn:
    """The same for codes z (B, M) and their means: what ``SecondStage`` is trained with."""

    def loss_fn(z, mean, mu, log_var):
        return gaussian_nll(z, mean, log_gamma2.exp()) + kl_standard_normal(mu, log_var)

    return loss_fn


def let_the_encoder_lead(model: VAE, steps: int, every: int = 5) -> Callable[[int], None]:
    """The ``on_step`` that lets the decoder take part in every fifth step only, in the first half.

    After He et al. 2019, who instead train the encoder until it stops gaining, and end the phase
    when the mutual information stops growing.
    """
    decoder = list(model.decoder.parameters())

    def on_step(step: int) -> None:
        if step + 1 <= steps / 2 and (step + 1) % every:
            for parameter in decoder:
                parameter.grad = None  # Adam and SGD skip it

    return on_step


# Methods: a name, what differs, and what that makes of a run.


@dataclass(frozen=True)
class Objective:
    """What one run minimises: ``loss_fn`` and ``on_step`` for ``fit``, and what comes beside them.

    Attributes
    ----------
    noise : Noise, optional
        With a variance to train beside the model.
    sigma2 : callable
        () -> the variance at present; None without one.
    """

    loss_fn: LossFn
    on_step: Callable[[int], None] | None = None
    noise: Noise | None = None
    sigma2: Callable[[], float | None] = lambda: None


@dataclass(frozen=True)
class Scheduled:
    """Cross-entropy plus the KL, whose weight follows a schedule."""

    name: str
    schedule: Callable[[float], float]
    second_stage = False

    def objective(self, model: VAE, x: Tensor, steps: int) -> Objective:
        loss = ScheduledLoss(self.schedule, 1.0, steps)
        return Objective(loss, loss.on_step)


@dataclass(frozen=True)
class FreeBits:
    """Cross-entropy plus β times the KL above the hinge."""

    name: str
    beta: float
    second_stage = False

    def objective(self, model: VAE, x: Tensor, steps: int) -> Objective:
        return Objective(free_bits_loss(self.beta))


@dataclass(frozen=True)
class LaggingEncoder:
    """Cross-entropy plus the KL; the decoder waits."""

    name: str
    second_stage = False

    def objective(self, model: VAE, x: Tensor, steps: int) -> Objective:
        return Objective(ScheduledLoss(constant, 1.0, steps), let_the_encoder_lead(model, steps))


@dataclass(frozen=True)
class RunningMinimum:
    """The smallest error so far as the variance, and k before the KL."""

    name: str
    k: float
    second_stage = False

    def objective(self, model: VAE, x: Tensor, steps: int) -> Objective:
        loss = RunningMinimumLoss(self.k)
        return Objective(loss, loss.on_step, sigma2=lambda: loss.gamma2)


@dataclass(frozen=True)
class TwoStages:
    """A learned variance, and then a ``SecondStage`` to sample from."""

    name: str
    second_stage = True

    def objective(self, model: VAE, x: Tensor, steps: int) -> Objective:
        noise = Learned(x)
        loss_fn = learned_variance_loss(noise)
        return Objective(loss_fn, noise=noise, sigma2=lambda: noise.sigma2().item())


METHODS = {
    method.name: method
    for method in (
        Scheduled("warm-up", warm_up),
        Scheduled("cyclical", cyclical),
        FreeBits("free bits", beta=1.0),
        LaggingEncoder("lagging encoder"),
        FreeBits("mean: free bits", beta=D),
        RunningMinimum("running minimum", k=1.0),
        RunningMinimum("running minimum · k", k=UNDOCUMENTED),
        TwoStages("two-stage"),
    )
}


def settings() -> list[dict]:
    """Every method on two data sets."""
    return grid(data=["mnist", "fashion_mnist"], method=METHODS)


class SecondStage:
    """A VAE of the codes of another, to sample from instead of the prior: Dai & Wipf 2019.

    It is trained on z ~ q(z|x) of x (N, ...), with one learned variance.
    """

    def __init__(self, model: VAE, x: Tensor, steps: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        z = reparameterise(*posterior(model, x), generator)
        m = z.shape[1]
        self.vae = mlp_vae((m,), m, hidden=(256, 256), pixel_mean=nn.Identity(), seed=seed)
        self.log_gamma2 = nn.Parameter(torch.zeros(()))
        optimizer = adam(self.vae, [self.log_gamma2])
        loss_fn = second_stage_loss(self.log_gamma2)
        fit(self.vae, z, loss_fn, steps=steps, optimizer=optimizer, seed=seed)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """u ~ N(0, I), z ~ N(decoder(u), γ²): codes (n, M) for the first decoder."""
        mean = self.vae.decoder(
            torch.randn(n, self.vae.decoder[0][0].in_features, generator=generator)
        )
        return mean + torch.exp(0.5 * self.log_gamma2) * torch.randn(
            mean.shape, generator=generator
        )


def run(data: str, method: str, seed: int, steps: int = 800) -> dict:
    """One method, measured as in ``sumormean.experiments.calibrated.run``.

    For two stages ``score`` is that of samples of the second; ``score_prior`` that of the same
    first decoder under the prior.
    """
    score = sample_score(data)
    x_train, x_test, _ = train_and_test(data)
    model = mlp_vae(latent_dim=M, hidden=(128,), seed=seed)
    what = METHODS[method].objective(model, x_train, steps)
    optimizer = adam(model, what.noise.parameters() if what.noise else ())
    start = time.process_time()
    fit(
        model,
        x_train,
        what.loss_fn,
        steps=steps,
        optimizer=optimizer,
        seed=seed,
        on_step=what.on_step,
    )
    second = SecondStage(model, x_train, steps, seed) if METHODS[method].second_stage else None
    cpu_seconds = round(time.process_time() - start, 2)

    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(score.size, M, generator=generator)
    with torch.no_grad():
        samples = torch.sigmoid(model.decoder(z))
        row = {"score": score(samples)}
        some = x_train[np.random.default_rng(1).permutation(len(x_train))[: score.size]]
        row["score_codes"] = score(torch.sigmoid(model(some, generator)[0]))
        if second is not None:
            samples = torch.sigmoid(model.decoder(second.sample(score.size, generator)))
            row |= {"score": score(samples), "score_prior": row["score"]}
    kl, bce = rate_distortion(model, x_test, bernoulli_nll)
    return {
        "sigma2": what.sigma2(),
        "kl": kl,
        "bce": bce,
        **common_measures(model, x_train, x_test),
        **row,
        "score_real": score.real,
        "cpu_seconds": cpu_seconds,
    }
