"""Seventeen public reports of a broken VAE, and the kinds of trouble in them, each in a few lines.

Every loss is our own, written from what the report says. The audit must give the right number, or
the code of a finding that names the cause; never a number that misleads.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import distributions

from vaeloss.audit import AuditError, audit_loss


def kl(mu, log_var):
    """(B,), summed over the latents."""
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1)


def audit(loss_fn, shape, m, b=16, **more):
    return audit_loss(loss_fn, data_shape=shape, latent_dim=m, batch_size=b, **more)


def formula(found):
    [each] = [f for f in found.findings if f.code in ("reductions", "weighted")]
    return each.data["formula"]


def data(found, code):
    return next(f.data for f in found.findings if f.code == code)


def has_beta(found, beta):
    return math.isclose(found.beta, beta, rel_tol=1e-4)


# --- the threads ---------------------------------------------------------------------------------


def test_03_an_exploding_kl_is_no_matter_of_reductions():
    """WorldModels 9: 10 · mean of squares, mean KL; NaN comes from log_var, β = 19.2 does not."""

    def loss_fn(y_true, y_pred, z_mean, z_log_var):
        return (
            10 * (y_true - y_pred).square().mean()
            - 0.5 * (1 + z_log_var - z_mean**2 - z_log_var.exp()).mean()
        )

    found = audit(loss_fn, (64, 64, 3), 32, 4)
    assert has_beta(found, 19.2) and formula(found) == "D/(20·M)"
    assert not found.has("overflows")  # as every KL: at 88.7


def test_04_two_parts_are_no_loss_of_one_of_them():
    """podgorskiy/VAE 1: (reconstruction, 0.1 · mean KL), the reconstruction first."""

    def loss_fn(recon_x, x, mu, logvar):
        rec = (recon_x - x).square().mean()
        return rec, -0.05 * (1 + logvar - mu**2 - logvar.exp()).mean()

    with pytest.raises(AuditError, match="parts and no total.*weighted sum"):
        audit(loss_fn, (8, 8, 3), 32)
    found = audit(
        lambda recon_x, x, mu, logvar: sum(loss_fn(recon_x, x, mu, logvar)), (8, 8, 3), 32
    )
    assert has_beta(found, 0.1 * 192 / 64) and formula(found) == "0.1·D/(2·M)"


@pytest.mark.parametrize("summed", [False, True])
def test_06_a_swapped_mse_that_summed_over_the_batch(summed):
    """rlkit 119: what old versions of torch did where the target needed a gradient."""

    def loss_fn(x, x_hat, mu, log_var):
        error = (x - x_hat).square()
        return (error.sum() if summed else error.mean()) + kl(mu, log_var).mean()

    found = audit(loss_fn, (192,), 4)
    assert has_beta(found, 1 / (2 * 16) if summed else 192 / 2)
    assert found.has("beta-depends-on-batch") == summed


def test_10_smiles_with_binary_cross_entropy_and_without():
    """keras-molecules 59, 60, 61: L · mean BCE over (L, C), mean KL; categorical instead."""
    length, symbols, m = 12, 7, 5

    def binary(x, p, mu, log_var):
        return length * F.binary_cross_entropy(p, x) + kl(mu, log_var).mean() / m

    def categorical(x, logits, mu, log_var):  # one-hot targets
        return -(x * logits.log_softmax(-1)).sum((1, 2)).mean() + kl(mu, log_var).mean()

    found = audit(binary, (length, symbols), m)
    assert has_beta(found, symbols / m) and formula(found) == "7/M"
    found = audit(categorical, (length,), m, categories=symbols)
    assert has_beta(found, 1) and found.has("elbo")

    def softmax_inside(x, logits, mu, log_var):  # grammarVAE 7: BCE of a softmax
        return length * F.binary_cross_entropy(logits.softmax(-1), x) + kl(mu, log_var).mean()

    found = audit(softmax_inside, (length, symbols), m)
    assert found.has("reconstruction-unknown") and math.isclose(found.kl_weight, 1, rel_tol=1e-4)


def test_12_a_mean_over_all_tokens_that_are_no_padding():
    """MOSES 45, 42: β is the weight times the mean length."""
    length, symbols = 10, 6

    def loss_fn(x, y, mu, logvar):
        y, x = y[:, :-1].flatten(0, 1), x[:, 1:].flatten()
        return F.cross_entropy(y, x, ignore_index=0) + 0.05 * kl(mu, logvar).mean()

    found = audit(loss_fn, (length,), 8, categories=symbols)
    kept = data(found, "mean-over-kept")["kept"]
    assert has_beta(found, 0.05 * kept) and formula(found) == "0.05·K" and found.has("next-token")
    with pytest.raises(AuditError, match="categories= for tokens"):
        audit(loss_fn, (length,), 8)


def test_14_an_exact_elbo_of_text_is_one():
    """vae-lagging-encoder 5, 8: the loss is right; the decoder sees the tokens before."""

    def loss_fn(x, y, mu, logvar, kl_weight=1.0):
        return F.cross_entropy(y.transpose(1, 2), x, reduction="none").sum(1) + kl_weight * kl(
            mu, logvar
        )

    found = audit(loss_fn, (10,), 4, categories=6)
    assert has_beta(found, 1) and found.has("elbo")
    assert "sees the tokens before" in " ".join(audit_loss.__doc__.split())  # no loss shows it


def test_15_low_bins_that_count_twice():
    """vae_tacotron 10: two outputs, and the low bins of one again; KL summed over the batch."""
    mel, linear = 4, 8

    def loss_fn(x, x_hat, mu, log_var):
        error = (x - x_hat).abs()
        low = error[..., mel : mel + 2].mean()
        rec = error[..., :mel].mean() + 0.5 * error[..., mel:].mean() + 0.5 * low
        return rec + 1e-5 * kl(mu, log_var).sum()

    found = audit(loss_fn, (5, mel + linear), 4)
    assert math.isnan(found.beta) and math.isclose(found.kl_weight, 16e-5, rel_tol=1e-4)
    assert data(found, "weights-differ")["likelihood"] == "laplace"
    beta = data(found, "beta-range")
    assert beta["low"] < 1e-5 * 16 * 5 * mel < beta["high"]


def test_16_a_masked_chunk_of_actions_in_a_dict():
    """ACT 6, 55 and lerobot: mean L1 with padding as zeros, 10 · KL: β = 10 · D."""

    def loss_fn(actions, a_hat, mu, logvar):
        padded = torch.arange(20)[None] >= 20 - torch.arange(len(actions))[:, None] % 9
        l1 = torch.where(padded[..., None], 0.0, (actions - a_hat).abs()).mean()
        return {"l1": l1, "kl": kl(mu, logvar).mean(), "loss": l1 + 10 * kl(mu, logvar).mean()}

    found = audit(loss_fn, (20, 3), 6)
    assert has_beta(found, 10 * 60) and found.reached < 1
    assert str(found.likelihood) == "laplace" and {"masked", "total"} <= {
        f.code for f in found.findings
    }


def test_18_tables_with_a_width_for_each_column():
    """CTGAN 212, 143: learned σ, factor 2, columns of kinds; as parts, and numbers alone."""
    sigma = torch.linspace(0.1, 0.5, 4, dtype=torch.float64)

    def parts(recon, x, mu, logvar):
        z = (x - recon) / sigma
        return 2 * (0.5 * z.square() + sigma.log()).sum() / len(x), kl(mu, logvar).mean()

    with pytest.raises(AuditError, match="no total"):
        audit(parts, (4,), 8)
    found = audit(lambda recon, x, mu, logvar: sum(parts(recon, x, mu, logvar)), (4,), 8)
    assert math.isnan(found.beta) and data(found, "weights-differ")["likelihood"] == "gaussian"
    assert math.isclose(data(found, "beta-range")["high"], 0.25 / 2, rel_tol=1e-4)


def test_23_counts_and_a_warm_up():
    """scvi-tools 1569, 735, 307: negative binomial; β is the weight that the warm-up reached."""

    def loss_fn(x, logits, mu, log_var, kl_weight=20 / 400):
        r = torch.tensor(2.5, dtype=x.dtype)
        nb = distributions.NegativeBinomial(r, logits=logits, validate_args=False)
        return (-nb.log_prob(x).sum(-1) + kl_weight * kl(mu, log_var)).mean()

    found = audit(loss_fn, (30,), 10, likelihood="negative-binomial(2.5)")
    assert has_beta(found, 0.05) and formula(found) == "0.05"
    unasked = audit(loss_fn, (30,), 10)
    assert unasked.likelihood is None and math.isclose(unasked.kl_weight, 0.05, rel_tol=1e-4)


def latent_diffusion(x, rec, mu, log_var, perceptual):
    filters = torch.randn(48, 6, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    other = ((x - rec).flatten(1) @ filters).square().mean(1)
    nll = (x - rec).abs().flatten(1).sum(1) + perceptual * other
    return nll.mean() + 1e-6 * kl(mu.flatten(1), log_var.flatten(1)).mean()


def test_25_an_autoencoder_with_a_millionth_of_a_kl():
    """latent-diffusion 187 …: β = 1e-6; a perceptual term hides c, not the weight of the KL."""

    def maps(perceptual):
        def loss_fn(x, rec, mu, log_var):
            mu, log_var = (t.unflatten(1, (2, 2, 2)) for t in (mu, log_var))
            return latent_diffusion(x, rec, mu, log_var, perceptual)

        return loss_fn

    found = audit(maps(0), (3, 4, 4), 8)
    assert has_beta(found, 1e-6) and str(found.likelihood) == "laplace"
    found = audit(maps(0.1), (3, 4, 4), 8)
    assert math.isnan(found.beta) and math.isclose(found.kl_weight, 1e-6, rel_tol=1e-4)
    assert data(found, "reconstruction-partly")["likelihood"] == "laplace"

    def unshaped(x, rec, mu, log_var):
        return x.sum() + mu.sum((1, 2, 3))

    with pytest.raises(AuditError, match="latent maps: mu.unflatten"):
        audit(unshaped, (3, 4, 4), 8)


def test_26_means_over_pixels_and_over_latents():
    """vdvae 8, 10: both over D is ½; a mean over many latents is far below 1; a learned prior."""

    def both_over_d(x, x_hat, mu, log_var):
        return ((x - x_hat).square().flatten(1).mean(1) + kl(mu, log_var) / 48).mean()

    def means(x, x_hat, mu, log_var):
        return (x - x_hat).square().mean() + kl(mu, log_var).mean() / mu.shape[1]

    def learned_prior(x, x_hat, mu, log_var, m=0.3, lv=-1.0):
        rate = 0.5 * (lv - log_var + (log_var.exp() + (mu - m) ** 2) / math.exp(lv) - 1)
        return (x - x_hat).square().sum() / len(x) + rate.sum(1).mean()

    assert has_beta(audit(both_over_d, (3, 4, 4), 8), 1 / 2)
    found = audit(means, (3, 4, 4), 3000)
    assert has_beta(found, 48 / 6000) and not found.has("overflows")
    found = audit(learned_prior, (3, 4, 4), 8)
    assert math.isnan(found.beta) and found.has("kl-unknown")  # "another prior"


def test_28_a_discrete_code():
    """DALLE-pytorch 40 …: mean of squares, KL to the uniform summed over positions: β = w D/2."""

    def loss_fn(img, out, logits, _):
        log_q = logits.unflatten(1, (4, 8)).log_softmax(-1)
        return F.mse_loss(out, img) + (log_q.exp() * (log_q + math.log(8))).sum((1, 2)).mean()

    found = audit(loss_fn, (3, 4, 4), 32)
    assert has_beta(found, 48 / 2) and found.has("kl-categorical")


@pytest.mark.parametrize("weight", [1.0, 6.0])
def test_29_a_total_correlation_from_the_batch(weight):
    """disentangling-vae 54, 60: an estimate, of any sign; with weights of one it is the ELBO."""

    def log_n(z, mu, log_var):
        return -0.5 * (math.log(2 * math.pi) + log_var + (z - mu) ** 2 / log_var.exp())

    def loss_fn(x, x_hat, mu, log_var):
        z = mu + (log_var / 2).exp() * torch.randn_like(mu)
        matrix = log_n(z[:, None], mu[None], log_var[None])
        joint, product = matrix.sum(2).logsumexp(1), matrix.logsumexp(1).sum(1)
        q, p = log_n(z, mu, log_var).sum(1), log_n(z, 0 * z, 0 * z).sum(1)
        tc = weight * (joint - product) + q - joint + product - p
        return F.binary_cross_entropy(x_hat, x, reduction="sum") / len(x) + tc.mean()

    found = audit(loss_fn, (20,), 6)
    if weight == 1:
        assert has_beta(found, 1) and found.has("kl-sampled")
    else:
        assert math.isnan(found.beta) and found.has("kl-random")


def test_30_a_loss_that_decodes_by_itself():
    """pyro 539: Trace_ELBO of a model; then with x_hat handed in, and with checked pixels."""
    w = torch.randn(4, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def trace_elbo(x, _, mu, lv):
        q = distributions.Normal(mu, (lv / 2).exp())
        z = q.rsample()
        p = distributions.Bernoulli(logits=z @ w.to(z.dtype), validate_args=False)
        prior = distributions.Normal(0.0, 1.0)
        return -(p.log_prob(x).sum() + (prior.log_prob(z) - q.log_prob(z)).sum())

    found = audit(trace_elbo, (20,), 4)
    codes = [f.code for f in found.findings]
    assert codes == ["decodes-inside"] and math.isnan(found.beta) and math.isnan(found.kl_weight)
    assert "audit_step" in str(found) and "detach" not in str(found)
    with pytest.raises(AuditError, match="audit_step or watch_step"):
        audit(lambda x: trace_elbo(x, None, x, x), (20,), 4)

    def split(x, p, mu, lv):
        q = distributions.Normal(mu, (lv / 2).exp())
        z = q.rsample()
        log_p = distributions.Bernoulli(probs=p).log_prob(x).sum()  # refuses grey pixels
        return -(log_p + (distributions.Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum())

    found = audit(split, (20,), 4)
    assert has_beta(found, 1) and math.isclose(found.c, 16, rel_tol=1e-4)


def test_32_a_kl_that_is_negative():
    """AntixK 68, sqvae 1 (logged with a minus, a constant left out): in order. A sign, σ: not."""

    def antixk(recons, x, mu, log_var, w=0.00025):
        rec, k = F.mse_loss(recons, x), kl(mu, log_var).mean()
        return {"loss": rec + w * k, "Reconstruction_Loss": rec.detach(), "KLD": -k.detach()}

    def no_constant(x, x_hat, mu, log_var):
        rate = 0.5 * (mu**2 + log_var.exp() - log_var).sum(1)
        return (x - x_hat).square().sum() / len(x) + rate.mean() - 10.0

    def wrong_sign(x, x_hat, mu, log_var):
        return 12 * F.binary_cross_entropy(x_hat, x) - kl(mu, log_var).mean()

    def sigma_for_variance(x, x_hat, mu, sigma):
        rate = -0.5 * (1 + sigma.log() - mu**2 - sigma).sum(1)
        return (x - x_hat).square().sum() / len(x) + rate.mean()

    def square_for_double(x, x_hat, mu, log_sigma):  # FluxML: (log σ)² for -2 log σ
        rate = 0.5 * ((2 * log_sigma).exp() + mu**2 - 1 + log_sigma**2).sum(1)
        return (x - x_hat).square().sum() / len(x) + rate.mean()

    assert formula(audit(antixk, (12,), 3)) == "0.00025·D/2"
    assert has_beta(audit(no_constant, (12,), 3), 1 / 2)
    assert audit(wrong_sign, (12,), 3).has("negative-beta")
    assert data(audit(sigma_for_variance, (12,), 3), "takes-as")["takes"] == "σ²"
    found = audit(square_for_double, (12,), 3)
    assert math.isnan(found.beta) and found.has("kl-unknown")


def test_34_a_weight_that_is_never_used():
    """tsgm 69, Lightning-bolts 328: the same β at a weight of 1 and of 10 is the answer."""

    class BetaVAE:
        def __init__(self, beta):
            self.beta = beta

        def loss(self, x, reconstruction, z_mean, z_log_var):
            return (x - reconstruction).square().sum((1, 2)).mean() + kl(z_mean, z_log_var).mean()

    assert all(has_beta(audit(BetaVAE(beta).loss, (24, 5), 8), 1 / 2) for beta in (1, 10))


# --- kinds that no thread above shows ------------------------------------------------------------


def test_a_closure_and_a_class_get_in():
    def made(weight):
        def loss_fn(*, target, output, mean, log_sigma):
            rate = 0.5 * (mean**2 + (2 * log_sigma).exp() - 1 - 2 * log_sigma).sum(1)
            return F.l1_loss(output, target, reduction="sum") / len(target) + weight * rate.mean()

        return loss_fn

    found = audit(made(4.0), (12,), 3)
    assert has_beta(found, 4) and data(found, "takes")["takes"] == "log σ"


def test_absolute_error_leads_on_to_a_threshold():
    """Kind 8: the audit's likelihood is what the threshold takes."""
    from vaeloss.collapse import collapse_threshold

    found = audit(lambda x, p, mu, lv: F.l1_loss(p, x) + kl(mu, lv).mean(), (12,), 3)
    x = torch.rand(200, 12, generator=torch.Generator().manual_seed(0)).numpy()
    assert has_beta(found, 12) and math.isfinite(collapse_threshold(x, found.likelihood))


def test_a_quantiser_is_sent_to_its_own_audit():
    """Kind 10."""

    def loss_fn(x, x_hat, z, e):
        codes = (z.detach() - e).square().mean() + 0.25 * (z - e.detach()).square().mean()
        return F.mse_loss(x_hat, x) + codes

    assert audit(loss_fn, (12,), 3).has("quantiser")


def test_no_error_prints_a_tensor():
    """Kind 12."""

    def loss_fn(x, x_hat, mu, log_var):
        raise ValueError(f"Expected parameter probs to satisfy Interval, but found:\n{x}")

    with pytest.raises(AuditError) as raised:
        audit(loss_fn, (784,), 20, 64)
    assert len(str(raised.value)) <= 400 and "[[" not in str(raised.value)
