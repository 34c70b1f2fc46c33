"""A likelihood as one object: what the auditor, the threshold and the metrics ask of it.

The output of a decoder becomes a density of the data through a *link*: it is the mean itself, or
logits, or the logarithm of the mean. To add a likelihood, write a function below that returns one,
name it in ``FAMILIES``, and test it; whoever works with likelihoods then knows it.
"""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy import special
from torch import Tensor

from vaeloss.likelihoods import continuous
from vaeloss.likelihoods.nll import at_least_float32, continuous_bernoulli_nll

PerValue = Callable[[Tensor, Tensor], Tensor]
OfMean = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Likelihood:
    """How the outputs of a decoder are scored.

    Two likelihoods are equal if their names and links are.

    Attributes
    ----------
    name : str
        With its parameter where that is not the default: "gaussian", "binomial(255)".
    link : str
        What the outputs are: a key of ``forms``.
    forms : dict of str to callable
        For each link the NLL of single values in nats, with all constants: ``form(x, out)``,
        elementwise and differentiable.
    support : tuple of float
        The least and the largest value that x may have.
    variance : callable or None
        ``variance(mean, spread)``: the variance that the likelihood claims of values with this
        mean, arrays (D,); a learned variance is the data's own, ``spread``. None where the best
        constant is no mean (laplace), or where outputs are coupled (categorical).
    cost : callable or None
        ``cost(mean)``: nats of the best constant for values with this mean, but for what depends on
        x alone. Concave, so that ``cost(mean of x)`` is at least the mean of ``cost(x)``. None for
        squared error, where the difference is the variance of the data over twice the claimed one.
    constant : float
        Nats of a value that depend on neither x nor the output; losses leave them out.
    median_scale : float or None
        b, where the NLL is ``|x - m| / b``: the best constant is then the median, not the mean.
    worth : callable or None
        ``worth(width)``: a β from which on no value is worth a latent by itself, given the width of
        the interval that it lies in, arrays (D,). None where no such β is known, as where densities
        are unbounded.
    outputs : int
        Outputs for each value: one; the number of symbols (categorical), or mean and log of the
        variance.

    Examples
    --------
    >>> likelihood = bernoulli(link="logits")
    >>> str(likelihood), likelihood == as_likelihood("bernoulli-logits")
    ('bernoulli-logits', True)
    >>> likelihood.nll(torch.ones(1, 784), torch.zeros(1, 784)).item()  # 784 log 2
    543.4...
    """

    name: str
    link: str
    forms: dict[str, PerValue] = field(compare=False, repr=False)
    support: tuple[float, float] = field(default=(-math.inf, math.inf), compare=False, repr=False)
    variance: Callable | None = field(default=None, compare=False, repr=False)
    cost: OfMean | None = field(default=None, compare=False, repr=False)
    constant: float = field(default=0.0, compare=False, repr=False)
    median_scale: float | None = field(default=None, compare=False, repr=False)
    worth: OfMean | None = field(default=None, compare=False, repr=False)
    outputs: int = field(default=1, compare=False, repr=False)

    @property
    def learned(self) -> bool:
        """Whether its variance is learned: the same for every z, but not given."""
        return self.variance is not None and self.outputs == 2

    @property
    def scaled(self) -> bool:
        """Whether its threshold depends on the unit of x, as that of squared error does."""
        return self.support == (-math.inf, math.inf) and self.outputs == 1

    def __str__(self) -> str:
        return self.name if self.link == next(iter(self.forms)) else f"{self.name}-{self.link}"

    def __reduce__(self):
        # Functions inside do not pickle; the name says it all.
        return as_likelihood, (str(self),)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def with_link(self, link: str) -> "Likelihood":
        """The same likelihood of other outputs.

        Raises
        ------
        ValueError
            It has no such link.
        """
        if link not in self.forms:
            known = ", ".join(self.forms)
            raise ValueError(f"{self.name} has no link {link!r}: use one of {known}")
        return replace(self, link=link)

    def out_shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the outputs for one sample of this shape.

        Examples
        --------
        >>> categorical(30).out_shape((40,))
        (40, 30)
        """
        return (*data_shape, self.outputs) if self.outputs > 1 else tuple(data_shape)

    def per_value(self, x: Tensor, out: Tensor) -> Tensor:
        """NLL of each value in nats, of the shape of x; float16 is computed in float32."""
        x, out = at_least_float32(x, out)
        return self.forms[self.link](x, out)

    def nll(self, x: Tensor, out: Tensor) -> Tensor:
        """NLL of each sample in nats, (B,): the sum over its values.

        Raises
        ------
        ValueError
            The outputs have not the shape that belongs to x.
        """
        wanted = (len(x), *self.out_shape(tuple(x.shape[1:])))
        if tuple(out.shape) != wanted:
            raise ValueError(f"out has shape {tuple(out.shape)}, {self} needs {wanted}")
        return self.per_value(x, out).flatten(1).sum(1)

    def score(self, x: Tensor, out: Tensor) -> Tensor:
        """Derivative of the NLL with respect to the output, of the shape of ``out``."""
        with torch.enable_grad():
            out = out.detach().requires_grad_()
            return torch.autograd.grad(self.per_value(x, out).sum(), out)[0]

    def information(self, x: Tensor, out: Tensor) -> Tensor:
        """Second derivative of the NLL, averaged over the data: (B, ...) -> (...).

        The *observed* information. Of a categorical likelihood it is the diagonal of each value's
        block. Zero where the NLL has a kink and no curvature (laplace).
        """
        with torch.enable_grad():
            out = out.detach().requires_grad_()
            [score] = torch.autograd.grad(
                self.per_value(x, out).sum(), out, create_graph=self.median_scale is None
            )
            if not score.requires_grad:
                return torch.zeros_like(out).mean(0)
            if self.outputs == 1:
                return torch.autograd.grad(score.sum(), out)[0].mean(0)
            rows = [
                torch.autograd.grad(score[..., k].sum(), out, retain_graph=True)[0][..., k]
                for k in range(self.outputs)
            ]
            return torch.stack(rows, dim=-1).mean(0)


def _named(name: str, parameter: float) -> str:
    """The name with its parameter, to the last digit, so that it can be read back."""
    short = f"{parameter:g}"
    return f"{name}({short if float(short) == parameter else repr(float(parameter))})"


def _of_sigmoid(form: PerValue) -> PerValue:
    return lambda x, out: form(x, out.sigmoid())


# --- the likelihoods -----------------------------------------------------------------------------


def gaussian(sigma2: float | str = 1.0, link: str = "mean") -> Likelihood:
    """Squared error, with a variance that is given or learned.

    Parameters
    ----------
    sigma2 : float or str
        The variance in squared units of the data; or "shared", one learned variance, which is
        tr C / D at collapse; or "per-pixel", a learned variance for each value. What is learned
        does not depend on z, and the outputs are (..., 2): mean and log of the variance.
    """
    if isinstance(sigma2, str):
        if sigma2 not in ("shared", "per-pixel"):
            raise ValueError(f"sigma2={sigma2!r}: give a variance, 'shared' or 'per-pixel'")

        def learned(x, out):
            mean, log_var = out.unbind(-1)
            squares = (x - mean).square() * torch.exp(-log_var)
            return 0.5 * (squares + log_var + math.log(2 * math.pi))

        def variance(mean, spread):
            return np.full_like(mean, spread.mean()) if sigma2 == "shared" else spread

        return Likelihood(
            f"gaussian-{sigma2}", "mean", {"mean": learned}, variance=variance, outputs=2
        )
    if not (math.isfinite(sigma2) and sigma2 > 0):
        raise ValueError(f"sigma2 must be a positive variance in squared pixel units, got {sigma2}")
    constant = 0.5 * math.log(2 * math.pi * sigma2)

    def form(x, mean):
        return (x - mean).square() / (2 * sigma2) + constant

    return Likelihood(
        "gaussian" if sigma2 == 1 else _named("gaussian", sigma2),
        "mean",
        {"mean": form, "logits": _of_sigmoid(form)},
        variance=lambda mean, spread: np.full_like(mean, sigma2),
        constant=constant,
        worth=lambda width: np.square(width) / (4 * sigma2),  # Hoeffding
    ).with_link(link)


def bernoulli(link: str = "mean") -> Likelihood:
    """Binary cross-entropy, x in [0, 1]; on grey values it is no normalised likelihood."""
    return Likelihood(
        "bernoulli",
        "mean",
        {
            "mean": lambda x, p: F.binary_cross_entropy(p, x, reduction="none"),
            "logits": lambda x, out: F.binary_cross_entropy_with_logits(out, x, reduction="none"),
        },
        support=(0.0, 1.0),
        variance=lambda mean, spread: mean * (1 - mean),
        cost=lambda mean: special.entr(mean) - special.xlog1py(1 - mean, -mean),
        worth=lambda width: (width > 0) * 1.0,  # the ratio of likelihoods is convex in x
    ).with_link(link)


def binomial(n: float, link: str = "mean") -> Likelihood:
    """n tries for each value; x in [0, 1] is the share that succeeded: k / n.

    Of 8-bit pixels, n = 255, this is what cross-entropy is a likelihood of: its NLL is
    n times the cross-entropy, less log C(n, k).
    """
    if not (n == int(n) and n >= 1):
        raise ValueError(f"n={n!r}: give the number of tries, at least 1")
    plain = bernoulli()

    def log_ways(x):
        k = n * x
        return math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)

    return Likelihood(
        _named("binomial", n),
        "mean",
        {k: lambda x, out, f=f: n * f(x, out) - log_ways(x) for k, f in plain.forms.items()},
        support=(0.0, 1.0),
        variance=lambda mean, spread: mean * (1 - mean) / n,
        cost=lambda mean: n * plain.cost(mean),
        worth=lambda width: n * plain.worth(width),
    ).with_link(link)


def continuous_bernoulli(link: str = "probability") -> Likelihood:
    """Cross-entropy made a density on [0, 1]: Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845.

    Its outputs are the parameter, as a probability or as logits, and not the mean. Its spectrum is
    ruled by values that are almost never on.
    """

    def logits(x, out):
        return continuous_bernoulli_nll(x.reshape(-1, 1), out.reshape(-1, 1)).view(x.shape)

    return Likelihood(
        "continuous-bernoulli",
        "probability",
        {"probability": lambda x, p: logits(x, p.logit()), "logits": logits},
        support=(0.0, 1.0),
        variance=lambda mean, spread: continuous.variance(mean),
        cost=continuous.cost,
    ).with_link(link)


def laplace(b: float = 1.0, link: str = "mean") -> Likelihood:
    """Absolute error; b is the scale. The best constant is the median."""
    if not (math.isfinite(b) and b > 0):
        raise ValueError(f"b must be a positive scale, got {b}")
    constant = math.log(2 * b)

    def form(x, median):
        return (x - median).abs() / b + constant

    return Likelihood(
        "laplace" if b == 1 else _named("laplace", b),
        "mean",
        {"mean": form, "logits": _of_sigmoid(form)},
        constant=constant,
        median_scale=float(b),
    ).with_link(link)


def poisson(link: str = "mean") -> Likelihood:
    """Counts, 0, 1, 2 …; the outputs are rates, or their logarithms."""
    return Likelihood(
        "poisson",
        "mean",
        {
            "mean": lambda x, rate: rate - torch.xlogy(x, rate) + torch.lgamma(x + 1),
            "log": lambda x, out: out.exp() - x * out + torch.lgamma(x + 1),
        },
        support=(0.0, math.inf),
        variance=lambda mean, spread: mean,
        cost=lambda mean: mean + special.entr(mean),
    ).with_link(link)


def negative_binomial(r: float, link: str = "mean") -> Likelihood:
    """Counts that vary more than Poisson's: variance m + m² / r for a mean m."""
    if not (math.isfinite(r) and r > 0):
        raise ValueError(f"r must be a positive number, got {r}")

    def form(x, mean):
        ways = torch.lgamma(x + r) - math.lgamma(r) - torch.lgamma(x + 1)
        return (x + r) * torch.log1p(mean / r) - torch.xlogy(x, mean / r) - ways

    return Likelihood(
        _named("negative-binomial", r),
        "mean",
        {"mean": form, "log": lambda x, out: form(x, out.exp())},
        support=(0.0, math.inf),
        variance=lambda mean, spread: mean + np.square(mean) / r,
        cost=lambda mean: (mean + r) * np.log1p(mean / r) - special.xlogy(mean, mean / r),
    ).with_link(link)


def categorical(classes: float, link: str = "logits") -> Likelihood:
    """Tokens: x holds whole numbers below ``classes``; logits are (..., classes)."""
    if not (classes == int(classes) and classes >= 2):
        raise ValueError(f"classes={classes!r}: give the number of symbols, at least 2")

    def form(x, out):
        return -out.log_softmax(-1).gather(-1, x.long()[..., None])[..., 0]

    return Likelihood(
        _named("categorical", classes),
        "logits",
        {"logits": form},
        support=(0.0, classes - 1),
        worth=lambda width: (width > 0) * 1.0,  # the mean ratio of likelihoods is 1
        outputs=int(classes),
    ).with_link(link)


FAMILIES: dict[str, Callable[..., Likelihood]] = {
    "gaussian": gaussian,
    "gaussian-shared": lambda link="mean": gaussian("shared").with_link(link),
    "gaussian-per-pixel": lambda link="mean": gaussian("per-pixel").with_link(link),
    "bernoulli": bernoulli,
    "binomial": binomial,
    "laplace": laplace,
    "continuous-bernoulli": continuous_bernoulli,
    "poisson": poisson,
    "negative-binomial": negative_binomial,
    "categorical": categorical,
}


def as_likelihood(likelihood: Likelihood | str) -> Likelihood:
    """The likelihood of this name, as ``str`` gives it: "gaussian(0.5)", "bernoulli-logits".

    Raises
    ------
    ValueError
        There is none of this name, or it lacks a parameter.

    Examples
    --------
    >>> as_likelihood("binomial(255)").variance(np.array([0.5]), None)
    array([0.00098039])
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    match = re.fullmatch(r"(.+?)(?:\(([^()]+)\))?(?:-(mean|logits|log|probability))?", likelihood)
    name, parameter, link = match.groups() if match else (likelihood, None, None)
    if name not in FAMILIES:
        raise ValueError(f"unknown likelihood {likelihood!r}: use one of {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    first = next(iter(inspect.signature(family).parameters.values()))
    if parameter is None and first.default is first.empty:
        raise ValueError(f"likelihood {likelihood!r} needs its {first.name}: {name}(10)")
    if parameter is not None and first.name == "link":
        raise ValueError(f"likelihood {likelihood!r}: {name} has no parameter")
    try:
        found = family() if parameter is None else family(float(parameter))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"likelihood {likelihood!r}: {error}") from error
    return found if link is None else found.with_link(link)


def recognisable() -> list[Likelihood]:
    """Every likelihood and link that a gradient alone tells from the others, first links first."""
    found = []
    for family in FAMILIES.values():
        first = next(iter(inspect.signature(family).parameters.values()))
        if first.default is not first.empty:  # else it is the user's: a binomial looks like a BCE
            found += [likelihood for likelihood in [family()] if likelihood.outputs == 1]
    others = [f.with_link(link) for f in found for link in list(f.forms)[1:]]
    return found + others
