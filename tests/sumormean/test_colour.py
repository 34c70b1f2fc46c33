"""Reductions in colour, the deeper network, and the molecules."""

import pytest
import torch

from sumormean.experiments import colour, molecules, threshold
from sumormean.models import deep_conv_vae
from sumormean.sequences import StringVAE, symbols_nll
from vaeloss.audit import audit_loss


@pytest.mark.parametrize("error", colour.RECONSTRUCTIONS)
@pytest.mark.parametrize("loss", colour.REDUCTIONS)
def test_the_losses_weigh_what_the_record_says(error, loss):
    def of_means(x, x_hat, mu, log_var):
        return colour.reduced_loss(error, loss)(x, torch.logit(x_hat), mu, log_var)

    found = audit_loss(of_means, data_shape=(8, 4, 3), latent_dim=4)
    assert found.beta == pytest.approx(colour.loss_beta(error, loss, 96, 4), rel=1e-3)
    assert str(found.likelihood) == {"squared": "gaussian"}.get(error, error)
    if loss == "keras/sum":
        assert found.c == pytest.approx({"squared": 2 / 3}.get(error, 1 / 3), rel=1e-3)


@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 3)])
@pytest.mark.parametrize("outputs", [1, 2])
def test_every_pixel_stays_in_its_place(shape, outputs):
    model = deep_conv_vae(shape, latent_dim=4, channels=2, outputs=outputs)
    planes = model.decoder[:-1](torch.randn(5, 4))
    out = model.decoder[-1](planes)
    assert out.shape == (5, *(() if outputs == 1 else (2,)), *shape)
    colours = shape[2] if len(shape) == 3 else 1
    for o in range(outputs):
        for c in range(colours):
            plane = planes[:, o * colours + c]
            mine = out[:, o] if outputs == 2 else out
            assert torch.equal(plane, mine[..., c] if colours == 3 else mine)
    x = torch.rand(5, *shape)
    back = model.encoder[0](x)
    assert torch.equal(back[:, 0], x[..., 0] if colours == 3 else x)


def test_a_run_in_colour(monkeypatch):
    latents, _, make = colour.NETWORKS["mlp 16"]
    monkeypatch.setitem(colour.NETWORKS, "mlp 16", (latents, 5, make))
    row = colour.run("mlp 16", "squared", "mean/sum", seed=0)
    assert row["beta"] == 1536 and row["beta_star"] == pytest.approx(48.4, rel=0.01)
    assert row["inputs"].shape == row["reconstructions"].shape == (6, 32, 32, 3)


def test_thresholds_are_measured_in_colour_too():
    rows = threshold.settings()
    assert sum(row["data"] == "emoji32" for row in rows) == 4 and len(rows) == 22
    make, _ = threshold.ARCHITECTURES["mlp"]
    assert make((32, 32, 3), 0)(torch.zeros(1, 32, 32, 3))[0].shape == (1, 32, 32, 3)


# Molecules


@pytest.fixture
def batch():
    x = molecules.strings()[0][:16]
    model = StringVAE(30)
    return x, *model(x, torch.Generator().manual_seed(0))


def test_a_string_costs_its_symbols_and_its_end(batch):
    x, logits, *_ = batch
    log_p = torch.log_softmax(logits, 2)
    for row, table, cost in zip(x.long(), log_p, symbols_nll(x, logits), strict=True):
        length = int((row != 0).sum())
        places = range(min(length + 1, len(row)))
        assert cost.item() == pytest.approx(-sum(table[t, row[t]].item() for t in places), rel=1e-4)


def test_a_symbol_sees_only_those_before_it(batch):
    x = batch[0]
    model, z = StringVAE(30), torch.randn(len(x), 32)
    other = x.clone()
    other[:, 7] = (x[:, 7] + 1) % 30
    same = torch.isclose(model.decode(z, x), model.decode(z, other)).all(2).all(0)
    assert same[:8].all() and not same[8:].any()


def test_what_is_written_is_the_likeliest_after_what_was_written(batch):
    model, z = StringVAE(30), torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    x = model.write(z, 12)
    assert torch.equal(model.decode(z, x).argmax(2).float(), x)


def test_beta_rises_and_a_mean_over_symbols_is_the_mean_length(batch):
    x, logits, mu, log_var = batch
    rising = molecules.LOSSES["0.01 to 0.1"](steps=100)
    betas = [rising.beta]
    for step in range(100):
        rising.on_step(step)
        betas.append(rising.beta)
    assert betas[0] == 0.01 and betas[-1] == pytest.approx(0.1)
    assert betas[75:] == pytest.approx(26 * [0.1]) and betas[30] == pytest.approx(0.046)
    mu.retain_grad()
    ratios = []
    for name in ("1", "mean over symbols"):
        loss = molecules.LOSSES[name](steps=8)(x, logits.detach(), mu, log_var).mean()
        ratios.append(torch.autograd.grad(loss, mu, retain_graph=True)[0])
    length = molecules.counted(x).sum(1).mean()
    assert torch.allclose(ratios[0], ratios[1])  # of the KL; the symbols weigh `length` times less
    nll = symbols_nll(x, logits).mean()
    mean = molecules.LOSSES["mean over symbols"](8)(x, logits, mu, log_var)
    plain = molecules.LOSSES["1"](8)(x, logits, mu, log_var).mean()
    assert (mean - nll / length).item() == pytest.approx((plain - nll).item(), rel=1e-3)


def test_a_run_of_molecules(monkeypatch):
    x, x_test, symbols = molecules.strings()
    monkeypatch.setattr(molecules, "strings", lambda: (x[:256], x_test[:64], symbols))
    row = molecules.run("0.1", seed=0, epochs=2)
    assert row["nll"] == pytest.approx(row["nll_symbol"] * row["symbols"])
    assert 0 <= row["exact"] <= 1 and row["kl"] > 0
