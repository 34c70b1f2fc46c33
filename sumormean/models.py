"""The networks of the book, in PyTorch.

A model maps x ``(B, *data_shape)`` to ``(out, mu, log_var)``: ``out`` ``(B, *data_shape)`` are the
decoder's raw outputs (logits of a Bernoulli, or means of a Gaussian), ``mu`` and ``log_var`` (B, M)
describe the posterior. What the outputs mean is decided by the loss, so one network serves all of
them.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn


class VAE(nn.Module):
    """An encoder, a decoder and a sample in between.

    Parameters
    ----------
    encoder : Module
        Maps ``(B, *data_shape)`` to (B, 2M): mu and log_var side by side.
    decoder : Module
        Maps (B, M) to ``(B, *data_shape)``.
    pixel_mean : callable
        Turns the decoder's outputs into pixel means; ``torch.sigmoid`` for logits (the default),
        ``torch.nn.Identity()`` for outputs that are means already.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        pixel_mean: Callable[[Tensor], Tensor] = torch.sigmoid,
    ):
        super().__init__()
        self.encoder, self.decoder, self.pixel_mean = encoder, decoder, pixel_mean

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, *data_shape)`` -> mu, log_var, each (B, M)."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        return mu, log_var

    def forward(self, x: Tensor, generator: Generator | None = None):
        """``(B, *data_shape)`` -> out, mu, log_var; one sample of z per image."""
        mu, log_var = self.encode(x)
        return self.decoder(reparameterise(mu, log_var, generator)), mu, log_var

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Pixel means ``(B, *data_shape)`` decoded from the posterior mean: what people look at."""
        return self.pixel_mean(self.decoder(self.encode(x)[0]))


def reparameterise(mu: Tensor, log_var: Tensor, generator: Generator | None = None) -> Tensor:
    """z = mu + exp(log_var / 2) * eps with eps ~ N(0, I), differentiable in mu and log_var.

    Shapes (B, M) -> (B, M). Kingma & Welling 2014, section 2.4.

    Examples
    --------
    >>> reparameterise(torch.ones(1, 2), torch.full((1, 2), -80.0))
    tensor([[1., 1.]])
    """
    eps = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
    return mu + torch.exp(0.5 * log_var) * eps


def mlp_vae(
    data_shape: Sequence[int] = (28, 28),
    latent_dim: int = 2,
    hidden: Sequence[int] = (512,),
    activation: type[nn.Module] = nn.ReLU,
    pixel_mean: Callable[[Tensor], Tensor] = torch.sigmoid,
    outputs: int = 1,
    seed: int = 0,
) -> VAE:
    """A fully connected VAE: D - hidden - M - reversed(hidden) - D.

    The defaults are the 784-512-2 network of the 2018 Keras example, with PyTorch's
    initialisation. ``seed`` fixes the initial weights without touching the global generator.
    ``outputs`` is how many numbers the decoder gives for each pixel; if more than one, they come
    first in ``out``: ``(B, outputs, *data_shape)``.

    Examples
    --------
    >>> out, mu, log_var = mlp_vae()(torch.zeros(3, 28, 28))
    >>> out.shape, mu.shape
    (torch.Size([3, 28, 28]), torch.Size([3, 2]))
    """
    d = math.prod(data_shape)
    with seeded(seed):
        encoder = nn.Sequential(nn.Flatten(), _mlp([d, *hidden, 2 * latent_dim], activation))
        decoder = nn.Sequential(
            _mlp([latent_dim, *reversed(hidden), outputs * d], activation),
            nn.Unflatten(1, tuple(data_shape) if outputs == 1 else (outputs, *data_shape)),
        )
    return VAE(encoder, decoder, pixel_mean)


def conv_vae(
    latent_dim: int = 2,
    channels: int = 8,
    activation: type[nn.Module] = nn.ReLU,
    pixel_mean: Callable[[Tensor], Tensor] = torch.sigmoid,
    seed: int = 0,
) -> VAE:
    """A small convolutional VAE for (28, 28): 28 - 14 - 7 - M - 7 - 14 - 28, strides of two.

    Examples
    --------
    >>> out, mu, log_var = conv_vae()(torch.zeros(3, 28, 28))
    >>> out.shape, mu.shape
    (torch.Size([3, 28, 28]), torch.Size([3, 2]))
    """
    c, kernel = channels, {"kernel_size": 4, "stride": 2, "padding": 1}
    with seeded(seed):
        encoder = nn.Sequential(
            nn.Unflatten(1, (1, 28)),
            *(nn.Conv2d(1, c, **kernel), activation()),
            *(nn.Conv2d(c, 2 * c, **kernel), activation()),
            *(nn.Flatten(), nn.Linear(2 * c * 49, 2 * latent_dim)),
        )
        decoder = nn.Sequential(
            *(nn.Linear(latent_dim, 2 * c * 49), activation(), nn.Unflatten(1, (2 * c, 7, 7))),
            *(nn.ConvTranspose2d(2 * c, c, **kernel), activation()),
            *(nn.ConvTranspose2d(c, 1, **kernel), nn.Flatten(1, 2)),
        )
    return VAE(encoder, decoder, pixel_mean)


def deep_conv_vae(
    data_shape: Sequence[int] = (32, 32, 3),
    latent_dim: int = 32,
    channels: int = 16,
    outputs: int = 1,
    pixel_mean: Callable[[Tensor], Tensor] = torch.sigmoid,
    seed: int = 0,
) -> VAE:
    """Ten layers of convolutions, SiLU between them, for (H, W) or (H, W, 3); 4 divides H and W.

    Two strides of two each way, a layer of 3 x 3 at every resolution. ``outputs`` is how many
    numbers the decoder gives for each value of the data; if more than one, they come first in
    ``out``: ``(B, outputs, *data_shape)``.

    Examples
    --------
    >>> out, mu, log_var = deep_conv_vae()(torch.zeros(2, 32, 32, 3))
    >>> out.shape, mu.shape
    (torch.Size([2, 32, 32, 3]), torch.Size([2, 32]))
    """
    height, width, *colour = data_shape
    colours = math.prod(colour)
    c, h, w = channels, height // 4, width // 4
    stride = {"kernel_size": 4, "stride": 2, "padding": 1}
    with seeded(seed):
        encoder = nn.Sequential(
            ToPlanes(colours),
            *(nn.Conv2d(colours, c, 3, padding=1), nn.SiLU()),
            *(nn.Conv2d(c, 2 * c, **stride), nn.SiLU()),
            *(nn.Conv2d(2 * c, 2 * c, 3, padding=1), nn.SiLU()),
            *(nn.Conv2d(2 * c, 4 * c, **stride), nn.SiLU()),
            *(nn.Flatten(), nn.Linear(4 * c * h * w, 2 * latent_dim)),
        )
        decoder = nn.Sequential(
            *(nn.Linear(latent_dim, 4 * c * h * w), nn.SiLU(), nn.Unflatten(1, (4 * c, h, w))),
            *(nn.ConvTranspose2d(4 * c, 2 * c, **stride), nn.SiLU()),
            *(nn.Conv2d(2 * c, 2 * c, 3, padding=1), nn.SiLU()),
            *(nn.ConvTranspose2d(2 * c, c, **stride), nn.SiLU()),
            nn.Conv2d(c, outputs * colours, 3, padding=1),
            FromPlanes(outputs, tuple(data_shape)),
        )
    return VAE(encoder, decoder, pixel_mean)


class ToPlanes(nn.Module):
    """(B, H, W) or (B, H, W, C) -> (B, C, H, W)."""

    def __init__(self, colours: int):
        super().__init__()
        self.colours = colours

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:3], self.colours).movedim(-1, 1)


class FromPlanes(nn.Module):
    """The way back: (B, outputs C, H, W) -> (B, H, W, C), or (B, outputs, H, W, C)."""

    def __init__(self, outputs: int, data_shape: tuple[int, ...]):
        super().__init__()
        self.shape = data_shape if outputs == 1 else (outputs, *data_shape)
        self.outputs = outputs

    def forward(self, planes: Tensor) -> Tensor:
        split = planes.unflatten(1, (self.outputs, -1)).movedim(2, -1)
        return split.reshape(len(planes), *self.shape)


def _mlp(sizes: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        layers += [nn.Linear(n_in, n_out)] + [activation()] * (i < len(sizes) - 2)
    return nn.Sequential(*layers)


class seeded:
    """Fix torch's global generator inside a ``with`` block and restore it afterwards.

    PyTorch's initialisers take no generator, so this is how a model gets weights of its own
    without anyone relying on a global seed.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def __enter__(self):
        self._fork = torch.random.fork_rng()
        self._fork.__enter__()
        torch.manual_seed(self.seed)

    def __exit__(self, *exc):
        return self._fork.__exit__(*exc)
