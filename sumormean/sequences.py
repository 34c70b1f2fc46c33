"""A VAE of strings: an encoder and a decoder of gated recurrent units, after Bowman et al. 2016.

The decoder sees z and the symbols before, so it can explain a string without a code. Symbol 0 pads
and, the first time it comes, ends a string: a string of 40 has no end, a shorter one has.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from sumormean.models import reparameterise, seeded


class StringVAE(nn.Module):
    """Strings (B, T) of numbers below ``symbols`` -> logits (B, T, symbols), mu, log_var (B, M).

    Parameters
    ----------
    latent_dim, hidden : int
        M, and the units of both recurrent layers.

    Examples
    --------
    >>> logits, mu, log_var = StringVAE(30)(torch.zeros(2, 40))
    >>> logits.shape, mu.shape
    (torch.Size([2, 40, 30]), torch.Size([2, 32]))
    """

    def __init__(self, symbols: int, latent_dim: int = 32, hidden: int = 128, seed: int = 0):
        super().__init__()
        self.symbols, self.latent_dim = symbols, latent_dim
        with seeded(seed):
            self.embedding = nn.Embedding(symbols + 1, 32)  # the last one starts a string
            self.reader = nn.GRU(32, hidden, batch_first=True)
            self.posterior = nn.Linear(hidden, 2 * latent_dim)
            self.start = nn.Linear(latent_dim, hidden)
            self.writer = nn.GRU(32 + latent_dim, hidden, batch_first=True)
            self.logits = nn.Linear(hidden, symbols)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) -> mu, log_var, each (B, M)."""
        _, state = self.reader(self.embedding(x.long()))
        mu, log_var = self.posterior(state[0]).chunk(2, dim=1)
        return mu, log_var

    def decode(self, z: Tensor, x: Tensor) -> Tensor:
        """Logits (B, T, symbols) of each symbol, given z (B, M) and those before it in x (B, T)."""
        first = torch.full_like(x[:, :1], self.symbols)
        before = self.embedding(torch.cat([first, x[:, :-1]], 1).long())
        beside = z[:, None].expand(-1, x.shape[1], -1)
        state, _ = self.writer(torch.cat([before, beside], 2), torch.tanh(self.start(z))[None])
        return self.logits(state)

    def forward(self, x: Tensor, generator: Generator | None = None):
        """One sample of z per string."""
        mu, log_var = self.encode(x)
        return self.decode(reparameterise(mu, log_var, generator), x), mu, log_var

    @torch.no_grad()
    def write(self, z: Tensor, length: int) -> Tensor:
        """The likeliest symbol at each place, each after those already written: (B, length)."""
        x = torch.zeros(len(z), length)
        for t in range(length):
            x[:, t] = self.decode(z, x[:, : t + 1])[:, t].argmax(1)
        return x


def symbols_nll(x: Tensor, logits: Tensor) -> Tensor:
    """-log p of the symbols of each string, and of its end: (B,) nats. What pads costs nothing.

    Examples
    --------
    >>> x = torch.tensor([[3, 0, 0, 0]])  # one symbol and the end, of four that are equally likely
    >>> round(symbols_nll(x, torch.zeros(1, 4, 4)).item() / 1.3862944, 6)
    2.0
    """
    terms = F.cross_entropy(logits.movedim(2, 1), x.long(), reduction="none")
    return (terms * counted(x)).sum(1)


def counted(x: Tensor) -> Tensor:
    """Which places are symbols, or the end: (B, T) of 0 and 1.

    Examples
    --------
    >>> counted(torch.tensor([[3, 1, 0, 0], [2, 2, 2, 2]])).tolist()
    [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]
    """
    padding = (x == 0).cumsum(1)
    return (padding <= 1).float()
