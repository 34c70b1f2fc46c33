"""Any combination of reductions, weights, sizes and precisions has the c and β of its algebra."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vaeloss.audit import audit_loss


def kl(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var)


REDUCE = {  # name -> (reduction of (B, n) values, its weight on one sample's sum)
    "sum, batch mean": (lambda t: t.sum(1).mean(), lambda n, b: 1),
    "sum, batch sum": (lambda t: t.sum(), lambda n, b: b),
    "mean, batch mean": (lambda t: t.mean(), lambda n, b: 1 / n),
    "mean, batch sum": (lambda t: t.mean(1).sum(), lambda n, b: b / n),
    "per sample, sum": (lambda t: t.sum(1), lambda n, b: 1),
    "per sample, mean": (lambda t: t.mean(1), lambda n, b: 1 / n),
}
RECONSTRUCT = {  # name -> (elementwise, its weight on the NLL)
    "gaussian": (lambda x, p: (x - p).square(), 2),
    "bernoulli": (lambda x, p: F.binary_cross_entropy(p, x, reduction="none"), 1),
    "bernoulli-logits": (
        lambda x, p: F.binary_cross_entropy_with_logits(p, x, reduction="none"),
        1,
    ),
    "laplace": (lambda x, p: (x - p).abs(), 1),
}
shapes = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)
weights = st.floats(-8, 8).map(lambda e: 10**e)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(sorted(RECONSTRUCT)),
    st.sampled_from(sorted(REDUCE)),
    st.sampled_from(sorted(REDUCE)),
    weights,
    weights,
    shapes,
    st.integers(1, 8),
    st.integers(1, 40),
    st.sampled_from([torch.float32, torch.float64]),
    st.floats(-1e6, 1e6),
)
def test_any_reductions_and_weights(
    likelihood, reduce_x, reduce_z, w_x, w_z, shape, m, b, dtype, constant
):
    elementwise, unit = RECONSTRUCT[likelihood]
    (over_x, size_x), (over_z, size_z) = REDUCE[reduce_x], REDUCE[reduce_z]

    def loss_fn(x, x_hat, mu, log_var):
        x, x_hat, mu, log_var = (t.to(dtype) for t in (x, x_hat, mu, log_var))
        rec = over_x(elementwise(x, x_hat).flatten(1))
        return w_x * rec + w_z * over_z(kl(mu, log_var)) + constant

    audit = audit_loss(loss_fn, data_shape=shape, latent_dim=m, batch_size=b)
    c = w_x * unit * size_x(math.prod(shape), b)
    assert str(audit.likelihood) == likelihood, audit
    assert audit.c == pytest.approx(c, rel=1e-4, abs=0), audit
    assert audit.beta == pytest.approx(w_z * size_z(m, b) / c, rel=1e-4, abs=0), audit
    same_reduction = ("batch sum" in reduce_x) == ("batch sum" in reduce_z)
    assert audit.has("beta-depends-on-batch") == (not same_reduction)
