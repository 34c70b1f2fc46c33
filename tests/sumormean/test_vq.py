"""The quantiser, the VQ-VAE and the audit of their losses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sumormean.experiments import vq
from sumormean.training import fit
from sumormean.vq import VQVAE, Quantiser, quantiser_terms, vq_loss
from vaeloss.audit import AuditError, audit_quantiser
from vaeloss.metrics import perplexity


def parts(x, x_hat, z, e):
    error = (x - x_hat).square().flatten(1)
    return error, (z.detach() - e).square(), (z - e.detach()).square()


def loss(x, x_hat, z, e):
    error, codebook, commitment = parts(x, x_hat, z, e)
    return (0.5 * error.sum(1) + codebook.sum(1) + 0.25 * commitment.sum(1)).mean()


@pytest.mark.parametrize(
    ("name", "reduction"),
    [
        (
            "mean over all numbers",
            lambda e, k, c: (e.sum(1).mean() + k.mean() + 0.25 * c.mean()) / 2,
        ),
        (
            "mean over the positions",  # ||.||^2 is a sum over the 8 numbers of a vector
            lambda e, k, c: (
                0.5 * e.sum(1) + (k + 0.25 * c).view(-1, 8, 7, 7).sum(1).mean((1, 2))
            ).mean(),
        ),
        ("sum over the image", lambda e, k, c: (0.5 * e.sum(1) + (k + 0.25 * c).sum(1)).mean()),
        ("sum over the batch", lambda e, k, c: (e.sum(1).mean() + k.sum() + 0.25 * c.sum()) / 2),
    ],
)
def test_a_weight_is_the_reduction_of_its_name(name, reduction):
    generator = torch.Generator().manual_seed(0)
    b = vq.BATCH
    x, x_hat = torch.rand(2, b, 28, 28, generator=generator, dtype=torch.float64)
    z, e = torch.randn(2, b, vq.NUMBERS, generator=generator, dtype=torch.float64)
    want = reduction(*quantiser_terms(x, x_hat, z, e))
    assert torch.isclose(vq_loss(vq.WEIGHTS[name])(x, x_hat, z, e).mean(), want)


def test_the_auditor_reads_the_weight():
    found = audit_quantiser(lambda *a: vq_loss(3.0)(*a).mean(), data_shape=(8, 8), latent_dim=6)
    assert (found.codebook, found.commitment) == pytest.approx((3, 0.75), rel=1e-3)


def test_a_run_counts_the_codes_in_use():
    row = vq.run("digits28", "sum over the image", steps=30, seed=0)
    assert 1 <= row["perplexity"] <= 64 - row["dead"] <= 64 and row["squared_error"] > 0


def test_moving_averages_go_to_the_means_of_what_they_replace():
    quantiser = Quantiser(codes=3, dim=2, decay=0.5)
    quantiser.vectors.copy_(torch.tensor([[0.0, 0.0], [10.0, 10.0], [-50.0, 0.0]]))
    quantiser.sums.copy_(quantiser.vectors)
    points = torch.tensor([[1.0, 0.0], [3.0, 0.0], [9.0, 9.0], [9.0, 11.0]]).T.view(1, 2, 2, 2)
    for _ in range(40):
        quantiser(points)
    expected = torch.tensor([[2.0, 0.0], [9.0, 10.0]])
    torch.testing.assert_close(quantiser.vectors[:2], expected)
    assert quantiser.vectors.isfinite().all()  # the unused one, too
    before = quantiser.vectors.clone()
    quantiser.eval()(points + 1)
    assert torch.equal(quantiser.vectors, before)


def test_with_moving_averages_the_code_vectors_are_no_parameters():
    model = VQVAE(decay=0.9)
    x_hat, z, e = model(torch.rand(2, 28, 28))
    assert not e.requires_grad
    assert "quantiser.vectors" in model.state_dict()
    assert "quantiser.vectors" not in dict(model.named_parameters())


@pytest.mark.parametrize("decay", [None, 0.9])
def test_trains_reproducibly_and_learns(decay):
    x = torch.rand(64, 1, 1, generator=torch.Generator().manual_seed(0)).expand(64, 28, 28)
    runs = []
    for _ in range(2):
        model = VQVAE(codes=16, dim=4, hidden=4, decay=decay, seed=1)
        history = fit(model, x, loss, steps=60, batch_size=32, lr=1e-2)
        runs.append(history.loss)
    assert (runs[0] == runs[1]).all()
    assert runs[0][-5:].mean() < 0.3 * runs[0][0]
    assert model.codes(x).shape == (64, 7, 7)


def test_a_seed_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    VQVAE(seed=1)
    assert torch.rand(1) == expected


def test_perplexity_counts_codes():
    assert perplexity(torch.arange(8), codes=8) == pytest.approx(8)
    assert perplexity(torch.zeros(5, 7, 7, dtype=int), codes=8) == 1


@settings(max_examples=25, deadline=None)
@given(
    c=st.floats(1e-4, 1e3),
    alpha=st.floats(1e-6, 1e4),
    beta=st.floats(1e-6, 1e4),
    kind=st.sampled_from(["gaussian", "laplace"]),
    shape=st.sampled_from([(12,), (1, 3, 4), (5, 5)]),
    m=st.integers(1, 9),
)
def test_weights_are_found(c, alpha, beta, kind, shape, m):
    def weighted(x, x_hat, z, e):
        error, codebook, commitment = parts(x, x_hat, z, e)
        nll = 0.5 * error if kind == "gaussian" else (x - x_hat).abs().flatten(1)
        quantiser = alpha * codebook.sum(1) + beta * commitment.sum(1)
        return c * (nll.sum(1) + quantiser).mean()

    audit = audit_quantiser(weighted, data_shape=shape, latent_dim=m, batch_size=7)
    assert str(audit.likelihood) == kind
    assert audit.c == pytest.approx(c, rel=1e-4)
    assert audit.codebook == pytest.approx(alpha, rel=1e-4)
    assert audit.commitment == pytest.approx(beta, rel=1e-4)
    assert audit.findings == ()


def test_what_is_no_squared_distance_has_no_weight():
    def absolute(x, x_hat, z, e):
        return loss(x, x_hat, z, z) + (z.detach() - e).abs().sum()

    audit = audit_quantiser(absolute, data_shape=(12,), latent_dim=3)
    assert math.isnan(audit.codebook)
    assert [found.code for found in audit.findings][:1] == ["not-squared"]


def test_a_loss_that_fails_is_named():
    def broken(x, x_hat, z, e):
        return (x - x_hat.T).mean()

    with pytest.raises(AuditError, match="RuntimeError"):
        audit_quantiser(broken, data_shape=(12,), latent_dim=3)
