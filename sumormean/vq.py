"""Vector quantisation: a VQ-VAE after van den Oord et al. 2017, arXiv:1711.00937.

A quantiser replaces what the encoder said, z (B, M), by code vectors e (B, M). What the terms of
its loss weigh is told by ``vaeloss.audit.audit_quantiser``.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from sumormean.models import seeded
from sumormean.training import LossFn


def quantiser_terms(
    x: Tensor, x_hat: Tensor, z: Tensor, e: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Squared error (B, D), codebook and commitment terms, each (B, M): nothing is reduced yet."""
    error = (x - x_hat).square().flatten(1)
    return error, (z.detach() - e).square(), (z - e.detach()).square()


def vq_loss(weight: float, commitment: float = 0.25) -> LossFn:
    """Half the summed squared error plus ``weight`` times both terms of the quantiser, summed.

    1 is the sum over one image, B / 2 what a sum over a batch of B beside a squared error without
    its half comes to. The paper takes the mean over the N positions of the code: 1 / N.

    Examples
    --------
    >>> x, z = torch.zeros(2, 3), torch.ones(2, 4)
    >>> vq_loss(0.5)(x, x + 1, z, 2 * z)  # 3 / 2 + (4 + 4 / 4) / 2
    tensor([4., 4.])
    """

    def loss_fn(x, x_hat, z, e):
        error, codebook, committed = quantiser_terms(x, x_hat, z, e)
        return 0.5 * error.sum(1) + weight * (codebook + commitment * committed).sum(1)

    return loss_fn


class Quantiser(nn.Module):
    """Replaces each vector of the encoder's map by the nearest of K code vectors.

    Parameters
    ----------
    codes, dim : int
        K and the length of a code vector.
    decay : float, optional
        None, and the code vectors are parameters, moved by the codebook term of the loss; or a
        number below 1, and they follow the mean of the vectors they replace as an exponential
        moving average (van den Oord et al. 2017, appendix A.1) and the loss needs no such term.
    """

    def __init__(self, codes: int = 64, dim: int = 8, decay: float | None = None):
        super().__init__()
        self.decay = decay
        vectors = (2 * torch.rand(codes, dim) - 1) / codes  # small, as the encoder starts small
        if decay is None:
            self.vectors = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors)
            self.register_buffer("counts", torch.ones(codes))
            self.register_buffer("sums", vectors.clone())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, dim, H, W) -> e of the same shape, and the chosen codes (B, H, W)."""
        flat = z.movedim(1, -1).reshape(-1, z.shape[1])
        chosen = torch.cdist(flat.detach(), self.vectors.detach()).argmin(1)
        if self.decay is not None and self.training:
            self._follow(flat.detach(), chosen)
        shape = (len(z), *z.shape[2:])
        return self.vectors[chosen].view(*shape, -1).movedim(-1, 1), chosen.view(shape)

    @torch.no_grad()
    def _follow(self, flat: Tensor, chosen: Tensor) -> None:
        flat = flat.to(self.sums.dtype)
        hits = F.one_hot(chosen, len(self.vectors)).to(flat.dtype)
        self.counts.lerp_(hits.sum(0), 1 - self.decay)
        with torch.autocast(flat.device.type, enabled=False):  # it would make the sums float16
            self.sums.lerp_(hits.T @ flat, 1 - self.decay)
        self.vectors.copy_(self.sums / self.counts.clamp(min=1e-5)[:, None])


class VQVAE(nn.Module):
    """A small convolutional VQ-VAE for 28 x 28 images: 7 x 7 codes for each.

    ``decay`` as in ``Quantiser``. The decoder's outputs are pixel means.

    Examples
    --------
    >>> x_hat, z, e = VQVAE()(torch.zeros(3, 28, 28))
    >>> x_hat.shape, z.shape  # M = 8 * 7 * 7
    (torch.Size([3, 28, 28]), torch.Size([3, 392]))
    """

    def __init__(
        self,
        codes: int = 64,
        dim: int = 8,
        hidden: int = 16,
        decay: float | None = None,
        seed: int = 0,
    ):
        super().__init__()
        with seeded(seed):
            self.encoder = nn.Sequential(
                nn.Unflatten(1, (1, 28)),
                *(nn.Conv2d(1, hidden, 4, 2, 1), nn.ReLU()),
                *(nn.Conv2d(hidden, 2 * hidden, 4, 2, 1), nn.ReLU()),
                nn.Conv2d(2 * hidden, dim, 1),
            )
            self.quantiser = Quantiser(codes, dim, decay)
            self.decoder = nn.Sequential(
                *(nn.Conv2d(dim, 2 * hidden, 3, 1, 1), nn.ReLU()),
                *(nn.ConvTranspose2d(2 * hidden, hidden, 4, 2, 1), nn.ReLU()),
                *(nn.ConvTranspose2d(hidden, 1, 4, 2, 1), nn.Flatten(1, 2)),
            )

    def forward(self, x: Tensor, generator: Generator | None = None):
        """(B, 28, 28) -> x_hat, z (B, M), e (B, M). There is no noise: ``generator`` is not used.

        The decoder sees e, but its gradient reaches z: the straight-through estimator.
        """
        z = self.encoder(x)
        e, _ = self.quantiser(z)
        x_hat = self.decoder(z + (e - z).detach())
        return x_hat, z.flatten(1), e.flatten(1)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """The codes that an image is turned into: (B, 28, 28) -> (B, 7, 7) integers."""
        return self.quantiser(self.encoder(x))[1]

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Pixel means (B, 28, 28)."""
        return self(x)[0]
