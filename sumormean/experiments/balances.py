"""Ways to set the noise of a decoder: the losses, and what moves beside the network.

A loss is a function of a batch, and METHODS says which method uses which, so that a chapter can
hold the loss that it shows against the one that was recorded. ``sumormean.experiments.calibration``
compares the methods.
"""

import math

import torch
from torch import Tensor, nn

from vaeloss.likelihoods import bernoulli_nll, binomial, gaussian_nll, kl_standard_normal

FLOOR = 1e-3  # of a predicted variance: a standard deviation of 8 grey levels
FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)  # of the best variance, for the grid of fixed ones
BINOMIAL = binomial(255, "logits")

# Losses: x and decoder outputs (B, ...), mu and log_var (B, M) -> one number for the batch, in nats
# per image. The pixel means are sigmoid(out).


def gaussian_loss(x: Tensor, out: Tensor, mu: Tensor, log_var: Tensor, sigma2) -> Tensor:
    """The negative ELBO of Gaussian noise of variance ``sigma2``, a number or a Tensor."""
    nll = gaussian_nll(x, torch.sigmoid(out), sigma2)
    return (nll + kl_standard_normal(mu, log_var)).mean()


def log_mse_loss(x: Tensor, out: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """The same with the best variance put in, which is the mean squared error of the batch."""
    mse = (x - torch.sigmoid(out)).square().mean()
    nll = x[0].numel() / 2 * (torch.log(2 * torch.pi * mse) + 1)
    return nll + kl_standard_normal(mu, log_var).mean()


def constrained_loss(
    x: Tensor, out: Tensor, mu: Tensor, log_var: Tensor, target: float, multiplier: float
) -> Tensor:
    """The KL, and ``multiplier`` times what the squared error exceeds a mean of ``target`` by."""
    excess = (x - torch.sigmoid(out)).square().flatten(1).sum(1) - target * x[0].numel()
    return (kl_standard_normal(mu, log_var) + multiplier * excess).mean()


def predicted_variance_loss(x: Tensor, out: Tensor, mu: Tensor, log_var: Tensor, start) -> Tensor:
    """A decoder that says its noise: out (B, 2, ...) holds logits of means, and log variances.

    ``start`` is the variance that an output of 0 stands for; FLOOR is added to every variance.
    """
    nll = gaussian_nll(x, torch.sigmoid(out[:, 0]), start * out[:, 1].exp() + FLOOR)
    return (nll + kl_standard_normal(mu, log_var)).mean()


def bernoulli_loss(x: Tensor, out: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """Cross-entropy plus the KL: an ELBO of pixels that are 0 or 1, and of grey ones not."""
    return (bernoulli_nll(x, out) + kl_standard_normal(mu, log_var)).mean()


def binomial_loss(x: Tensor, out: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """The negative ELBO of 8-bit pixels, each 255 tries: 255 times the cross-entropy, and so on."""
    return (BINOMIAL.nll(x, out) + kl_standard_normal(mu, log_var)).mean()


# Methods: a loss, and what moves beside the network.


class Balance(nn.Module):
    """What a method minimises. This one does so with a variance that stays as it is.

    Parameters
    ----------
    x : Tensor, shape (N, ...)
        The training images.
    steps : int
        How long the training will be.
    best : float
        The best variance, for methods that are told one.
    """

    outputs = 1  # numbers that the decoder gives for each pixel

    def __init__(self, x: Tensor, steps: int, best: float):
        super().__init__()
        self.steps = steps
        self.of_a_pixel = x.var(0).mean().item()  # what the mean image leaves
        self.variance = self.begin(x, best)

    def begin(self, x: Tensor, best: float) -> float:
        return best

    def sigma2(self) -> float | Tensor | None:
        """The variance at present; None for a method that has not one."""
        return self.variance

    def loss(self, x: Tensor, out: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        return gaussian_loss(x, out, mu, log_var, self.sigma2())

    def on_step(self, step: int) -> None:
        """Called by ``fit`` after each step; what changes counts from the next one on."""

    def nll(self, x: Tensor, out: Tensor) -> Tensor:
        """Its own likelihood of images that it has not seen, (B,) nats."""
        return gaussian_nll(x, torch.sigmoid(out), self.sigma2())


def fixed(factor: float) -> type[Balance]:
    """The best variance times ``factor``, from the first step to the last."""

    class Fixed(Balance):
        def begin(self, x, best):
            return factor * best

    return Fixed


def annealed(factor: float) -> type[Balance]:
    """The same, but on the way: from the variance of a pixel, in a quarter of the training."""

    class Annealed(Balance):
        def begin(self, x, best):
            self.end = factor * best
            return self.of_a_pixel

        def on_step(self, step):
            part = min(4 * (step + 1) / self.steps, 1.0)
            self.variance = self.of_a_pixel ** (1 - part) * self.end**part

    return Annealed


class Half(Balance):
    """σ² = ½: the summed squared error, as most people write it."""

    def begin(self, x, best):
        return 0.5


class OfTheData(Balance):
    """The variance of all pixels of all images: DeepMind's scaling of VQ-VAE's error."""

    def begin(self, x, best):
        return x.var().item()


class Learned(Balance):
    """log σ² is a parameter that begins at the variance of a pixel."""

    def begin(self, x, best):
        self.log_sigma2 = nn.Parameter(torch.tensor(self.of_a_pixel).log())
        return self.of_a_pixel

    def sigma2(self):
        return self.log_sigma2.exp()


class RunningMinimum(Balance):
    """It begins at 1; each batch pulls it by a hundredth, never upwards: Asperti & Trentin 2020."""

    def begin(self, x, best):
        return 1.0

    def loss(self, x, out, mu, log_var):
        self.mse = (x - torch.sigmoid(out)).square().mean().item()  # of the batch of this step
        return gaussian_loss(x, out, mu, log_var, self.variance)

    def on_step(self, step):
        self.variance = min(self.variance, 0.99 * self.variance + 0.01 * self.mse)


class ClosedForm(RunningMinimum):
    """(D/2) log MSE of the batch; for new images a moving average of the MSEs is the variance."""

    def loss(self, x, out, mu, log_var):
        self.mse = (x - torch.sigmoid(out)).square().mean().item()
        return log_mse_loss(x, out, mu, log_var)

    def on_step(self, step):
        self.variance = self.mse if step == 0 else 0.99 * self.variance + 0.01 * self.mse


def geco(factor: float) -> type[Balance]:
    """The least KL at a mean squared error of ``factor`` times the best variance.

    Rezende & Viola 2018, arXiv:1810.00597. The constraint has a multiplier, lambda = 1 / (2 σ²), so
    that its σ² is a β that is solved for: it falls while the error is too large and rises after.
    """

    class Geco(Balance):
        def begin(self, x, best):
            self.target, self.excess = factor * best, None
            return self.of_a_pixel

        def loss(self, x, out, mu, log_var):
            mse = (x - torch.sigmoid(out)).square().mean()
            now = mse.item() / self.target - 1
            self.excess = now if self.excess is None else 0.9 * self.excess + 0.1 * now
            return constrained_loss(x, out, mu, log_var, self.target, 1 / (2 * self.variance))

        def on_step(self, step):
            self.variance *= math.exp(-0.01 * min(max(self.excess, -1.0), 1.0))
            # A target out of reach, as at first they all are, would wind it down without end.
            self.variance = max(self.variance, self.target / 2)

    return Geco


class Predicted(Balance):
    """The decoder says log σ²(z), pixel by pixel, with a floor."""

    outputs = 2

    def sigma2(self):
        return None

    def loss(self, x, out, mu, log_var):
        return predicted_variance_loss(x, out, mu, log_var, self.of_a_pixel)

    def nll(self, x, out):
        return gaussian_nll(x, torch.sigmoid(out[:, 0]), self.of_a_pixel * out[:, 1].exp() + FLOOR)


class Bernoulli(Balance):
    """Cross-entropy: no variance."""

    def sigma2(self):
        return None

    def loss(self, x, out, mu, log_var):
        return bernoulli_loss(x, out, mu, log_var)

    def nll(self, x, out):
        return bernoulli_nll(x, out)


class Binomial(Bernoulli):
    """The likelihood of 8-bit pixels that cross-entropy is a part of; probabilities, no density."""

    def loss(self, x, out, mu, log_var):
        return binomial_loss(x, out, mu, log_var)

    def nll(self, x, out):
        return BINOMIAL.nll(x, out)


METHODS: dict[str, type[Balance]] = {
    **{f"fixed × {factor:g}": fixed(factor) for factor in FACTORS},
    **{f"annealed × {factor:g}": annealed(factor) for factor in FACTORS},
    "1/2": Half,
    "variance of the data": OfTheData,
    "learned": Learned,
    "closed form": ClosedForm,
    "running minimum": RunningMinimum,
    "log σ²(z)": Predicted,
    "bernoulli": Bernoulli,
    "binomial": Binomial,
}

# For the chapter on priors: the ways to a first stage.
FIRST_STAGES: dict[str, type[Balance]] = {
    **{f"geco × {factor:g}": geco(factor) for factor in (1.4, 2.0)},
    **{
        name: METHODS[name]
        for name in ("1/2", "learned", "running minimum", "bernoulli", "binomial")
    },
}
