"""Likelihoods: the pure functions people write into a loss, and each likelihood as one object."""

from vaeloss.likelihoods.likelihood import (
    FAMILIES,
    Likelihood,
    as_likelihood,
    bernoulli,
    binomial,
    categorical,
    continuous_bernoulli,
    gaussian,
    laplace,
    negative_binomial,
    poisson,
    recognisable,
)
from vaeloss.likelihoods.nll import (
    at_least_float32,
    bernoulli_nll,
    continuous_bernoulli_nll,
    gaussian_nll,
    kl_standard_normal,
)

__all__ = [
    "FAMILIES",
    "Likelihood",
    "as_likelihood",
    "at_least_float32",
    "bernoulli",
    "bernoulli_nll",
    "binomial",
    "categorical",
    "continuous_bernoulli",
    "continuous_bernoulli_nll",
    "gaussian",
    "gaussian_nll",
    "kl_standard_normal",
    "laplace",
    "negative_binomial",
    "poisson",
    "recognisable",
]
