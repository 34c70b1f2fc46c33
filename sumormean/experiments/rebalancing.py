"""Schedules and losses that move the balance during training, trained alike and measured alike.

The book's chapter "Rebalancing" derives them; here they are functions of a name, for
``python -m sumormean ablate rebalancing``. Network, steps and yardstick are those of
``sumormean.experiments.calibrated``, so that both records make one table.
"""

import time

import numpy as np
import torch
from torch import Tensor, nn

from sumormean.experiments.calibrated import Variance
from sumormean.experiments.common import D, M, common_measures, sample_score, train_and_test
from sumormean.models import VAE, mlp_vae, reparameterise
from sumormean.sweep import grid
from sumormean.training import fit
from vaeloss.likelihoods import at_least_float32, bernoulli_nll, gaussian_nll, kl_standard_normal
from vaeloss.metrics import posterior, rate_distortion

SEEDS = (0, 1, 2)
ARRAYS = {}
SCHEDULES = ("none", "warm-up", "cyclical", "free bits", "lagging encoder")
FREE_NATS = 0.5  # per latent
UNDOCUMENTED = (2 * 28 / M) ** 2  # Asperti & Trentin's code: (2 · side / latents)²
METHODS = (
    *SCHEDULES[1:],
    "mean: free bits",
    "running minimum",
    "running minimum · k",
    "two-stage",
)


def settings() -> list[dict]:
    """Every method on two data sets."""
    return grid(data=["mnist", "fashion_mnist"], method=METHODS)


def weight(schedule: str, t: float) -> float:
    """What β is multiplied by after a fraction t of the training.

    Warm-up (Bowman et al. 2016): linear over three quarters of it. Cyclical (Fu et al. 2019):
    four cycles, linear over the first half of each.

    Examples
    --------
    >>> [weight("warm-up", t) for t in (0, 0.375, 0.9)]
    [0.0, 0.5, 1.0]
    >>> [weight("cyclical", t) for t in (0.25, 0.3125, 0.45)]
    [0.0, 0.5, 1.0]
    """
    if schedule == "warm-up":
        return min(t / 0.75, 1.0)
    if schedule == "cyclical":
        return min(2 * (4 * t % 1), 1.0)
    return 1.0


class ScheduledLoss:
    """Cross-entropy plus β times the KL, under one of SCHEDULES; counts its own steps."""

    def __init__(self, schedule: str, beta: float, steps: int):
        self.schedule, self.beta, self.steps, self.step = schedule, beta, steps, 0

    def __call__(self, x: Tensor, logits: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        beta = self.beta * weight(self.schedule, self.step / self.steps)
        self.step += 1
        if self.schedule == "free bits":
            mu, log_var = at_least_float32(mu, log_var)
            # Kingma et al. 2016: per latent, of the batch mean, what is below the hinge is free.
            kl = 0.5 * (mu.square() + torch.expm1(log_var) - log_var).mean(0)
            return bernoulli_nll(x, logits).mean() + beta * kl.clamp(min=FREE_NATS).sum()
        return bernoulli_nll(x, logits) + beta * kl_standard_normal(mu, log_var)


def let_the_encoder_lead(optimizer, model: VAE, steps: int, every: int = 5) -> None:
    """For the first half of the steps, the decoder takes part in every fifth only.

    After He et al. 2019, who instead train the encoder until it stops gaining, and end the phase
    when the mutual information stops growing.
    """
    decoder, count = list(model.decoder.parameters()), 0

    def hook(*_):
        nonlocal count
        count += 1
        if count <= steps / 2 and count % every:
            for parameter in decoder:
                parameter.grad = None  # Adam and SGD skip it

    optimizer.register_step_pre_hook(hook)


class RunningMinimum:
    """Gaussian NLL whose variance follows the smallest mean squared error, plus k times the KL.

    Asperti & Trentin 2020. gamma2 starts at 1; each batch pulls it by a hundredth towards its
    own error, but never upwards.
    """

    def __init__(self, k: float = 1.0):
        self.k, self.gamma2 = k, 1.0

    def __call__(self, x: Tensor, out: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        mean = torch.sigmoid(out)
        loss = gaussian_nll(x, mean, self.gamma2) + self.k * kl_standard_normal(mu, log_var)
        mse = (x - mean).square().mean().item()
        self.gamma2 = min(self.gamma2, 0.99 * self.gamma2 + 0.01 * mse)
        return loss


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
        groups = [{"params": self.vae.parameters()}, {"params": [self.log_gamma2], "lr": 2e-2}]

        def loss_fn(z, mean, mu, log_var):
            nll = gaussian_nll(z, mean, self.log_gamma2.exp())
            return nll + kl_standard_normal(mu, log_var)

        optimizer = torch.optim.Adam(groups, lr=2e-3)
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
    schedule = method.removeprefix("mean: ")
    variance = None
    groups = [{"params": model.parameters()}]
    if method.startswith("running"):
        loss_fn = RunningMinimum(UNDOCUMENTED if method.endswith("k") else 1.0)
    elif method == "two-stage":
        variance = Variance("learned", x_train)
        groups.append({"params": variance.parameters(), "lr": 2e-2})

        def loss_fn(x, out, mu, log_var):
            return variance.nll(x, out) + kl_standard_normal(mu, log_var)
    else:
        loss_fn = ScheduledLoss(schedule, D if method.startswith("mean") else 1.0, steps)
    optimizer = torch.optim.Adam(groups, lr=2e-3)
    if schedule == "lagging encoder":
        let_the_encoder_lead(optimizer, model, steps)
    start = time.process_time()
    fit(model, x_train, loss_fn, steps=steps, optimizer=optimizer, seed=seed)
    second = SecondStage(model, x_train, steps, seed) if method.startswith("two") else None
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
    sigma2 = getattr(loss_fn, "gamma2", variance and variance.sigma2().item())
    return {
        "sigma2": sigma2,
        "kl": kl,
        "bce": bce,
        **common_measures(model, x_train, x_test),
        **row,
        "score_real": score.real,
        "cpu_seconds": cpu_seconds,
    }
