"""What to sample codes from instead of the prior, once a VAE is trained.

Those in PRIORS are fitted to codes z ~ q(z|x) of training images and have ``sample(n, generator)``
-> (n, M) and ``nll(z)`` -> (N,) nats. None of them touches the VAE: ex-post density estimation,
Ghosh et al. 2020, arXiv:1903.12436. Its ELBO gains what the codes cost less under the new prior.
"""

import math
from collections.abc import Callable

import torch
from sklearn.mixture import GaussianMixture
from torch import Generator, Tensor, nn
from torch.distributions import MultivariateNormal

from sumormean.experiments.balances import Balance
from sumormean.models import VAE, mlp_vae
from sumormean.training import fit
from vaeloss.likelihoods import gaussian_nll, kl_standard_normal

COMPONENTS = 10  # of the mixture
PSEUDO_INPUTS = 100  # of the VampPrior


class Standard:
    """N(0, I), the prior that the VAE was trained with."""

    def __init__(self, z: Tensor, seed: int):
        self.m = z.shape[1]

    def sample(self, n: int, generator: Generator) -> Tensor:
        return torch.randn(n, self.m, generator=generator)

    def nll(self, z: Tensor) -> Tensor:
        return gaussian_nll(z, torch.zeros_like(z))


class FullGaussian:
    """One Gaussian with the mean and the covariance of the codes."""

    def __init__(self, z: Tensor, seed: int):
        self.normal = MultivariateNormal(z.mean(0), torch.cov(z.T))

    def sample(self, n: int, generator: Generator) -> Tensor:
        eps = torch.randn(n, len(self.normal.loc), generator=generator)
        return self.normal.loc + eps @ self.normal.scale_tril.T

    def nll(self, z: Tensor) -> Tensor:
        return -self.normal.log_prob(z)


class Mixture:
    """Ten Gaussians with full covariances, by expectation maximisation (scikit-learn)."""

    def __init__(self, z: Tensor, seed: int):
        self.em = GaussianMixture(COMPONENTS, random_state=seed).fit(z.double().numpy())
        self.weights, self.means = (
            torch.as_tensor(a).float() for a in (self.em.weights_, self.em.means_)
        )
        self.roots = torch.linalg.cholesky(torch.as_tensor(self.em.covariances_)).float()

    def sample(self, n: int, generator: Generator) -> Tensor:
        pick = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        eps = torch.randn(n, self.means.shape[1], 1, generator=generator)
        return self.means[pick] + (self.roots[pick] @ eps)[..., 0]

    def nll(self, z: Tensor) -> Tensor:
        return -torch.as_tensor(self.em.score_samples(z.double().numpy()))


class SecondVAE:
    """A VAE of the codes with one learned variance: Dai & Wipf 2019. Its ``nll`` is a bound."""

    def __init__(self, z: Tensor, seed: int, steps: int = 6000):
        m = z.shape[1]
        self.vae = mlp_vae((m,), m, hidden=(256, 256), pixel_mean=nn.Identity(), seed=seed)
        self.log_gamma2 = nn.Parameter(torch.zeros(()))
        groups = [
            {"params": self.vae.parameters(), "lr": 1e-3},
            {"params": [self.log_gamma2], "lr": 1e-2},
        ]
        optimizer = torch.optim.Adam(groups, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, 2 * (1 - step / steps))
        )

        def loss_fn(z, mean, mu, log_var):
            return second_stage_loss(z, mean, mu, log_var, self.log_gamma2.exp())

        fit(
            self.vae,
            z,
            loss_fn,
            steps=steps,
            optimizer=optimizer,
            seed=seed,
            on_step=lambda step: schedule.step() if step else None,
        )
        self.seed = seed

    @torch.no_grad()
    def sample(self, n: int, generator: Generator) -> Tensor:
        mean = self.vae.decoder(
            torch.randn(n, self.vae.decoder[0][0].in_features, generator=generator)
        )
        noise = torch.randn(mean.shape, generator=generator)
        return mean + torch.exp(0.5 * self.log_gamma2) * noise

    @torch.no_grad()
    def nll(self, z: Tensor) -> Tensor:
        mean, mu, log_var = self.vae(z, torch.Generator().manual_seed(self.seed))
        return second_stage_loss(z, mean, mu, log_var, self.log_gamma2.exp())


def second_stage_loss(z: Tensor, mean: Tensor, mu: Tensor, log_var: Tensor, gamma2) -> Tensor:
    """The negative ELBO of codes z (B, M) around their means, of variance ``gamma2``: (B,)."""
    return gaussian_nll(z, mean, gamma2) + kl_standard_normal(mu, log_var)


class Vamp(nn.Module):
    """The mean of the posteriors of trained pseudo-inputs: Tomczak & Welling 2018.

    It is the exception: it is trained with the VAE, whose posteriors it is made of. ``balance`` is
    the loss of that VAE, with the KL to N(0, I); here it is the KL to this prior, estimated from
    one draw.
    """

    def __init__(self, vae: VAE, balance: Balance, x: Tensor, seed: int):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        pick = torch.randperm(len(x), generator=self.generator)[:PSEUDO_INPUTS]
        self.tenfold = nn.Parameter(10 * x[pick])  # a step of Adam is a tenth of one in a pixel
        self.balance, self.encode = balance, vae.encode
        self.sigma2, self.on_step = balance.sigma2, balance.on_step

    def loss(self, x: Tensor, out: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        eps = torch.randn(mu.shape, generator=self.generator)
        z = mu + torch.exp(0.5 * log_var) * eps
        rate = self.nll_of_codes(z) - gaussian_nll(z, mu, log_var.exp())
        loss = self.balance.loss(x, out, mu, log_var)
        return loss + (rate - kl_standard_normal(mu, log_var)).mean()

    def nll(self, x: Tensor, out: Tensor) -> Tensor:
        return self.balance.nll(x, out)

    def nll_of_codes(self, z: Tensor) -> Tensor:
        mu, log_var = self.encode((self.tenfold / 10).clamp(0, 1))
        terms = (z[:, None] - mu).square() / log_var.exp() + log_var + math.log(2 * math.pi)
        return math.log(len(mu)) - torch.logsumexp(-0.5 * terms.sum(2), 1)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator) -> Tensor:
        mu, log_var = self.encode((self.tenfold / 10).clamp(0, 1))
        pick = torch.randint(len(mu), (n,), generator=generator)
        eps = torch.randn(n, mu.shape[1], generator=generator)
        return mu[pick] + torch.exp(0.5 * log_var[pick]) * eps


PRIORS: dict[str, Callable] = {
    "prior": Standard,
    "full Gaussian": FullGaussian,
    "mixture": Mixture,
    "second VAE": SecondVAE,
}
