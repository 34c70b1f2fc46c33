"""Vector quantisation: the model, and what the terms of its loss weigh.

A quantiser replaces what the encoder said, z (B, M), by code vectors e (B, M). Its loss is
c · [NLL + α · Σ (sg z - e)² + β · Σ (z - sg e)²] with all sums over one image, NLL against
sigma2 = 1 for squared error, and sg the stop-gradient; α and β are 1 and 0.25 in van den Oord et
al. 2017, arXiv:1711.00937.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from vaeloss.audit import Audit, audit_loss
from vaeloss.models import seeded


class Quantiser(nn.Module):
    """Replaces each vector of the encoder's map by the nearest of K code vectors.

    Parameters
    ----------
    codes, dim : K and the length of a code vector.
    decay : None, and the code vectors are parameters, moved by the codebook term of the loss; or
        a number below 1, and they follow the mean of the vectors they replace as an exponential
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

    `decay` as in `Quantiser`. The decoder's outputs are pixel means.

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
        """(B, 28, 28) -> x_hat, z (B, M), e (B, M). There is no noise: `generator` is not used.

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


def perplexity(chosen: Tensor, codes: int) -> float:
    """exp of the entropy of code usage: as many codes as if all used ones were used alike.

    chosen : integers of any shape, below `codes`.

    >>> round(perplexity(torch.tensor([0, 0, 1, 1]), codes=8), 6)
    2.0
    """
    p = torch.bincount(chosen.flatten(), minlength=codes).double() / chosen.numel()
    return torch.exp(-torch.xlogy(p, p).sum()).item()


@dataclass(frozen=True)
class QuantiserAudit:
    """What `audit_quantiser` found; NaN where a term is not a squared distance.

    likelihood, scale : of the reconstruction, as in `vaeloss.audit.Audit`.
    codebook, commitment : α and β above, at `batch_size`.
    notes : findings, in sentences.
    """

    likelihood: str | None
    scale: float
    codebook: float
    commitment: float
    notes: tuple[str, ...]
    batch_size: int

    def __str__(self) -> str:
        rows = [
            ("likelihood", self.likelihood or "?"),
            *((n, f"{getattr(self, n):.6g}") for n in ("scale", "codebook", "commitment")),
            *(("note", note) for note in self.notes),
        ]
        head = "loss = scale · [NLL + codebook · Σ(sg z - e)² + commitment · Σ(z - sg e)²]"
        head += f" at batch size {self.batch_size}"
        return "\n".join([head, *(f"  {name:12}{text}" for name, text in rows)])


def audit_quantiser(
    loss_fn: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    *,
    data_shape: Sequence[int],
    latent_dim: int,
    batch_size: int = 64,
) -> QuantiserAudit:
    """Find the weights of the terms of a quantiser's loss by probing it.

    Parameters
    ----------
    loss_fn : `loss_fn(x, x_hat, z, e)` -> a scalar or one value per sample; x, x_hat
        (B, *data_shape), z and e (B, latent_dim): the encoder's output and the code vectors
        chosen for it, flattened. It must detach as in training, and must not quantise itself.
    data_shape, latent_dim, batch_size : as in `vaeloss.audit.audit_loss`.

    Returns
    -------
    QuantiserAudit. Raises AuditError and ValueError as `audit_loss` does.

    >>> def loss_fn(x, x_hat, z, e):
    ...     codebook, commitment = (z.detach() - e).square(), (z - e.detach()).square()
    ...     return (x - x_hat).square().mean() + codebook.mean() + 0.25 * commitment.mean()
    >>> print(audit_quantiser(loss_fn, data_shape=(784,), latent_dim=196))
    loss = scale · [NLL + codebook · Σ(sg z - e)² + commitment · Σ(z - sg e)²] at batch size 64
      likelihood  gaussian
      scale       0.00255102
      codebook    2
      commitment  0.5
    """
    sizes = {"latent_dim": 1, "batch_size": batch_size}

    # Each audit looks at one term and keeps the inputs of the others still. A term's squared
    # distance looks to the auditor like a squared error, of which z or e is the output.
    def reconstruction(x, x_hat, *_):
        z = x.new_zeros(len(x), latent_dim)
        return loss_fn(x, x_hat, z, z)

    def codebook(z, e, *_):
        image = z.new_full((len(z), *data_shape), 0.5)
        return loss_fn(image, image, z, e) + 0 * e.sum()  # a gradient even if there is no term

    def commitment(e, z, *_):
        image = z.new_full((len(z), *data_shape), 0.5)
        return loss_fn(image, image, z, e) + 0 * z.sum()

    rec = audit_loss(reconstruction, data_shape=data_shape, **sizes)
    weights, notes = [], []
    for name, fn in [("codebook", codebook), ("commitment", commitment)]:
        term = audit_loss(fn, data_shape=(latent_dim,), **sizes)
        if any("ignores x_hat" in n or "gradient does not" in n for n in term.notes):
            weights.append(0.0)
            notes.append(f"no {name} term")
            continue
        # the auditor's unit is half of the squared distance, here it is the whole
        squared = term.likelihood == "gaussian"
        weights.append(term.scale / 2 / rec.scale if squared else math.nan)
        notes += [] if squared else [f"the {name} term is not a squared distance"]
        if _batch(term) != _batch(rec):
            notes.append(
                f"the weight of the {name} term depends on the batch size: the reconstruction is "
                f"{_batch(rec)}, the {name} {_batch(term)}"
            )
    return QuantiserAudit(rec.likelihood, rec.scale, *weights, tuple(notes), rec.batch_size)


def _batch(audit: Audit) -> str:
    found = [note for note in audit.notes if "the batch" in note or "batch size" in note]
    return found[0].split(":")[0] if found else "averaged over the batch"
