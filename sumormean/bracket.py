"""The threshold as training finds it, to hold against the one that ``vaeloss.collapse`` predicts.

A VAE is trained alive, well below the threshold. Its code is then shrunk to a whisper, β is set,
and training goes on: below the threshold the code grows back, above it the code dies. Bisection
over β brackets the threshold from both sides without waiting for a full training, which is
endlessly slow close to it.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn

from sumormean.models import VAE
from sumormean.training import fit
from vaeloss.likelihoods import kl_standard_normal

WHISPER = 0.03  # standard deviation over the data of the shrunk posterior means


@dataclass(frozen=True)
class Bracket:
    """``low``: the largest β at which the code grew back; ``high``: the smallest at which it died.

    Attributes
    ----------
    tests : list of (β, grew, variances)
        One entry for each test; variances: that of the posterior means, eight times over the run.
    """

    low: float
    high: float
    tests: list[tuple[float, bool, list[float]]]

    @property
    def middle(self) -> float:
        """Geometric middle of the bracket."""
        return math.sqrt(self.low * self.high)


def bracket_threshold(
    model: VAE,
    x: np.ndarray | Tensor,
    nll: Callable[[Tensor, Tensor], Tensor],
    constant: np.ndarray | Tensor,
    guess: float,
    *,
    steps: int = 400,
    lr: float = 1e-3,
    batch_size: int = 128,
    seed: int = 0,
) -> Bracket:
    """Bracket, to 2.4 %, the β above which the code of this model dies.

    Parameters
    ----------
    model : VAE
        Untrained, with activations that are odd functions (tanh), from ``sumormean.models``. Its
        output biases are set so that it starts at the best constant image.
    x : array or Tensor, shape ``(N, *data_shape)``
    nll : callable
        ``nll(x, out)`` -> (B,) nats, e.g. ``vaeloss.likelihoods.bernoulli_nll``.
    constant : array or Tensor, shape ``data_shape``
        The raw outputs (logits or means) of the best constant image.
    guess : float
        Where to begin: the model is trained alive at half of it, and the search widens from 0.91
        and 1.1 times of it until one end lives and the other dies.
    steps : int
        Length of each test, and of the training at guess / 2, which is repeated up to five times
        until the model is alive.

    Raises
    ------
    RuntimeError
        The model is not alive at guess / 2, or no bracket is found within a factor of four around
        the guess.
    """
    device = next(model.parameters()).device
    x = torch.as_tensor(x, dtype=torch.float32, device=device)
    constant = torch.as_tensor(constant, dtype=torch.float32, device=device)
    for module in model.decoder.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    model.decoder = nn.Sequential(model.decoder, _Offset(constant))
    alive = _Antithetic(model)
    train = {"steps": steps, "lr": lr, "batch_size": batch_size, "seed": seed}
    for _ in range(5):
        fit(alive, x, antithetic_loss(nll, guess / 2), **train)
        if _code_variance(alive, x) > 0.01:
            break
    else:
        raise RuntimeError(f"not alive after {5 * steps} steps at β = {guess / 2:g}: train longer")

    tests: list[tuple[float, bool, list[float]]] = []

    def grows(beta: float) -> bool:
        whisper = _shrunk(alive, x, constant)
        history = fit(
            whisper,
            x,
            antithetic_loss(nll, beta),
            evaluate=lambda m: {"variance": _code_variance(m, x)},
            every=-(-steps // 8),
            **train,
        )
        path = [WHISPER**2] + [row["variance"] for row in history.evals]
        # Against the start, or against its own past once the fast directions have died away.
        late, earlier = sum(path[-2:]), sum(path[3:5])
        grew = path[-1] > path[0] or (late > earlier and path[-1] > path[0] / 30)
        tests.append((beta, grew, path))
        return grew

    low, high = guess / 1.1, guess * 1.1
    while not grows(low):
        low, high = low / 1.21, low
        if low < guess / 4:
            raise RuntimeError(f"the code dies even at β = {high:g}")
    while high not in [beta for beta, _, _ in tests] and grows(high):
        low, high = high, high * 1.21
        if high > guess * 4:
            raise RuntimeError(f"the code grows back even at β = {low:g}")
    while high / low > 1.03:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if grows(middle) else (low, middle)
    return Bracket(low, high, tests)


class _Offset(nn.Module):
    """Adds a learned image, so that any decoder can answer with the best constant exactly."""

    def __init__(self, image: Tensor):
        super().__init__()
        self.image = nn.Parameter(image.clone())

    def forward(self, out: Tensor) -> Tensor:
        return out + self.image


class _Antithetic(nn.Module):
    """Decodes mu + noise and mu - noise.

    The expected loss is the same. But a decoder that is odd in z sends both halves of a pair to
    opposite sides of the constant image, and the largest part of the gradient's noise cancels:
    without that, a faint signal drowns.
    """

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor, generator: Generator):
        mu, log_var = self.vae.encode(x)
        noise = torch.randn(mu.shape, generator=generator, device=mu.device)
        noise = noise * torch.exp(0.5 * log_var)
        return self.vae.decoder(torch.cat([mu + noise, mu - noise])), mu, log_var


def antithetic_loss(nll, beta: float):
    """The loss of the search, ``nll + beta * KL``; out holds both signs of the noise, (2B, ...)."""

    def loss_fn(x, out, mu, log_var):
        return nll(torch.cat([x, x]), out).view(2, -1).mean(0) + beta * kl_standard_normal(
            mu, log_var
        )

    return loss_fn


@torch.no_grad()
def _code_variance(model: _Antithetic, x: Tensor) -> float:
    mu, _ = model.vae.encode(x[:1000])
    return mu.var(0, correction=0).max().item()


@torch.no_grad()
def _shrunk(model: _Antithetic, x: Tensor, constant: Tensor) -> _Antithetic:
    """A copy whose encoder and decoder use z in the same way, but hardly."""
    model = copy.deepcopy(model)
    vae = model.vae
    head = [m for m in vae.encoder.modules() if isinstance(m, nn.Linear)][-1]
    first = [m for m in vae.decoder.modules() if isinstance(m, nn.Linear)][0]
    scale = WHISPER / math.sqrt(_code_variance(model, x))
    head.weight *= scale
    head.bias.zero_()
    mu, _ = vae.encode(x[:1000])
    head.bias[: mu.shape[1]] = -mu.mean(0)
    first.weight *= scale
    vae.decoder[-1].image += constant - vae.decoder(torch.zeros_like(mu[:1]))[0]
    return model
