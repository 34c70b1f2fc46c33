"""The VAE of the Chainer question (2019) and its three reconstructions, in PyTorch."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from sumormean.models import reparameterise, seeded
from sumormean.originals.configs import Config
from sumormean.training import default_device, fit
from vaeloss.likelihoods import bernoulli_nll, kl_standard_normal
from vaeloss.metrics import posterior, reconstructions


class ChainerVAE(nn.Module):
    """The tanh network with two hidden layers of the Chainer question (2019), names kept.

    n_in - n_h - n_h - n_latent - n_h - n_h - n_in. Chainer's initialisation: weights
    N(0, 1 / fan_in) ("LeCunNormal"), biases 0. Works on flat images, x (B, n_in).

    Examples
    --------
    >>> out, mu, log_var = ChainerVAE(784, 20, 500)(torch.zeros(3, 784))
    >>> out.shape, mu.shape
    (torch.Size([3, 784]), torch.Size([3, 20]))
    """

    def __init__(self, n_in: int, n_latent: int, n_h: int, seed: int = 0):
        super().__init__()
        with seeded(seed):
            self.le1 = _chainer_linear(n_in, n_h)
            self.le2 = _chainer_linear(n_h, n_h)
            self.le3_mu = _chainer_linear(n_h, n_latent)
            self.le3_ln_var = _chainer_linear(n_h, n_latent)
            self.ld1 = _chainer_linear(n_latent, n_h)
            self.ld2 = _chainer_linear(n_h, n_h)
            self.ld3 = _chainer_linear(n_h, n_in)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n_in) -> mu, log_var, each (B, n_latent)."""
        h = torch.tanh(self.le2(torch.tanh(self.le1(x))))
        return self.le3_mu(h), self.le3_ln_var(h)

    def decode(self, z: Tensor, sigmoid: bool = True) -> Tensor:
        """(B, n_latent) -> pixel means, or with ``sigmoid=False`` logits, (B, n_in)."""
        logits = self.ld3(torch.tanh(self.ld2(torch.tanh(self.ld1(z)))))
        return torch.sigmoid(logits) if sigmoid else logits

    def forward(self, x: Tensor, generator: Generator | None = None):
        """(B, n_in) -> logits, mu, log_var; one sample of z per image."""
        mu, log_var = self.encode(x)
        return self.decode(reparameterise(mu, log_var, generator), sigmoid=False), mu, log_var

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Pixel means (B, n_in) decoded from the posterior mean."""
        return self.decode(self.encode(x)[0])


def _chainer_linear(n_in: int, n_out: int) -> nn.Linear:
    layer = nn.Linear(n_in, n_out)
    nn.init.normal_(layer.weight, std=n_in**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


def chainer_terms(loss: str, C: float = 1.0):
    """The three reconstructions of the Chainer question, out are logits, x (B, n_in)."""

    def terms(x: Tensor, out: Tensor, mu: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
        if loss == "bernoulli_nll":
            reconstruction = bernoulli_nll(x, out).mean()
        elif loss == "mean_squared_error":  # over batch *and* pixels, no 1/2: Chainer's default
            reconstruction = F.mse_loss(out.sigmoid(), x)
        else:  # the fix: summed over the pixels, averaged over the batch, no 1/2
            reconstruction = (x - out.sigmoid()).square().sum(1).mean()
        return reconstruction, C * kl_standard_normal(mu, log_var).mean()

    return terms


class ChainerRun:
    """A PyTorch model of ``config`` and its optimiser."""

    def __init__(self, config: Config, loss: str, n_in: int = 784):
        self.config, self.terms = config, chainer_terms(loss, config.C)
        self.model = ChainerVAE(n_in, config.latent_dim, config.hidden, config.seed)
        self.model.to(default_device())
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, fused=True
        )

    def epoch(self, epoch: int, x: np.ndarray) -> dict[str, float]:
        sums = torch.zeros(2, dtype=torch.float64, device=default_device())

        def loss_fn(x: Tensor, *outputs: Tensor) -> Tensor:
            pair = torch.stack(self.terms(x, *outputs))
            sums.add_(pair.detach())
            return pair.sum()

        steps = len(
            fit(
                self.model,
                x,
                loss_fn,
                epochs=1,
                batch_size=self.config.batch_size,
                optimizer=self.optimizer,
                seed=1000 * self.config.seed + epoch,
            ).loss
        )
        return named(sums / steps)

    def test(self, x: np.ndarray) -> dict[str, float]:
        generator = torch.Generator(default_device()).manual_seed(self.config.seed)
        batches = torch.as_tensor(x, device=default_device()).split(1000)
        with torch.no_grad():
            pairs = [torch.stack(self.terms(b, *self.model(b, generator))) for b in batches]
        return named(torch.stack(pairs).double().mean(0))

    def latents(self, x: np.ndarray) -> Tensor:
        return posterior(self.model, x)[0]

    def outputs(self, x: np.ndarray) -> Tensor:
        return reconstructions(self.model, x)

    def state(self) -> dict:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def named(pair: Tensor) -> dict[str, float]:
    """A reconstruction and a KL under the names of the record, with their sum."""
    reconstruction, kl = pair.tolist()
    return {"loss": reconstruction + kl, "reconstruction_loss": reconstruction, "kl_loss": kl}
