"""What a loss is fed: pixels, bits, counts or tokens, and outputs at three distances from them."""

from dataclasses import dataclass
from functools import partial

import torch

from vaeloss.audit.evidence import Inputs


@dataclass(frozen=True)
class Kind:
    """What x and x_hat hold.

    Attributes
    ----------
    name : str
        "grey", "binary", "counts" or "tokens".
    words : str
        For error messages.
    outputs : str
        Of tokens: "logits" or "probabilities".
    categories : int or None
        How many symbols; the last axis of x_hat.
    """

    name: str
    words: str
    outputs: str = ""
    categories: int | None = None

    @property
    def least(self) -> float:
        """A value that x may have."""
        return 0.02 if self.name == "grey" else 0.0


GREY = Kind("grey", "pixels and x_hat between 0.02 and 0.98")
BINARY = Kind("binary", "pixels 0 or 1, x_hat between 0.02 and 0.98")
COUNTS = Kind("counts", "x from 0 to 9, x_hat between 0.5 and 9.5")
PIXELS = (GREY, BINARY)


def tokens(categories: int, outputs: str) -> Kind:
    """Whole numbers below ``categories``, and logits or probabilities of each."""
    return Kind("tokens", f"tokens below {categories}, random {outputs}", outputs, categories)


def random_inputs(
    kind: Kind,
    shape: tuple[int, ...],
    latent_dim: int,
    dtype: torch.dtype,
    b: int,
    distance: float,
    spread: float,
) -> Inputs:
    """Random inputs that depend on these arguments alone.

    Parameters
    ----------
    distance : float
        How far x_hat is from x: 1, somewhere; 0, there.
    spread : float
        How far the posterior is from the prior: mu is normal of this standard deviation, log_var
        uniform in ± twice this.
    """
    g = torch.Generator().manual_seed(b)
    uniform = partial(torch.rand, generator=g, dtype=dtype)
    if kind.categories:
        x = torch.randint(kind.categories, (b, *shape), generator=g)
        other = 2 * torch.randn(b, *shape, kind.categories, generator=g, dtype=dtype)
        sure = 6 * torch.nn.functional.one_hot(x, kind.categories)
        x_hat = sure + distance * (other - sure)
        if kind.outputs == "probabilities":
            x_hat = x_hat.softmax(-1)
    elif kind.name == "counts":
        x, other = (10 * uniform(b, *shape)).floor(), 0.5 + 9 * uniform(b, *shape)
        x_hat = x.clamp(min=0.5) + distance * (other - x.clamp(min=0.5))
    else:
        x, other = 0.02 + 0.96 * uniform(b, *shape), 0.02 + 0.96 * uniform(b, *shape)
        x_hat = x + distance * (other - x)
        x = x.round() if kind.name == "binary" else x
    mu = spread * torch.randn(b, latent_dim, generator=g, dtype=dtype)
    log_var = spread * (4 * uniform(b, latent_dim) - 2)
    return Inputs(x, x_hat, mu, log_var)
