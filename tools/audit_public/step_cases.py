"""The packages: their own losses and training steps, unmodified, and c and β by algebra.

Each function below is a package; to add one, write another. B samples, D values, M latents.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

from audit_public.rows import Row
from audit_public.steps import audited, package, watched

B, D, M = 32, 48, 4
NOW = ("step-value", "step-negative-beta")  # what is said where one step does not tell all


def parts(x, out: int):
    """The tensors of a small model: for losses that are functions."""
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(x.shape[1], 2 * M), nn.Linear(M, out)
    mu, log_var = encoder(x).chunk(2, dim=1)
    return decoder(mu + (log_var / 2).exp() * torch.randn_like(mu)), mu, log_var


@package("pythae==0.1.2")
def pythae():
    """Its models' forward and loss_function, as its trainer calls them."""
    from pythae import models

    def run(row, name, **options):
        torch.manual_seed(0)
        config = getattr(models, f"{name}Config")(input_dim=(1, 6, 8), latent_dim=M, **options)
        model = getattr(models, name)(config)
        batch = {"data": torch.rand(B, 1, 6, 8), "labels": torch.zeros(B)}

        def pick(output, recon_x, x, mu, log_var, *rest):
            return {"x": x, "x_hat": recon_x, "mu": mu, "log_var": log_var}

        def train():
            model(batch, epoch=1, dataset_size=1000).loss.backward()

        return watched(row, model.loss_function, pick, train)

    row = Row("VAE, mse", "½ Σ_D squares + Σ_M KL, mean over B", 1, 1)
    yield run(row, "VAE", reconstruction_loss="mse")
    row = Row("VAE, bce", "Σ_D cross-entropy + Σ_M KL, mean over B", 1, 1)
    yield run(row, "VAE", reconstruction_loss="bce")
    for beta in (2.0, 1e-4):
        row = Row(f"BetaVAE, beta={beta:g}", f"½ Σ_D squares + {beta:g} Σ_M KL", 1, beta)
        yield run(row, "BetaVAE", reconstruction_loss="mse", beta=beta)
    for where, beta, capacity in (("below", -10.0, 1e4), ("above", 10.0, 1e-3)):
        why = f"½ Σ_D squares + 10 |KL - C|: {beta:+g} where KL is {where} C"
        row = Row(f"DisentangledBetaVAE, KL {where} its capacity", why, 1, beta, NOW)
        name = "DisentangledBetaVAE"
        yield run(row, name, reconstruction_loss="mse", beta=10.0, C=capacity, warmup_epoch=1)
    row = Row("IWAE", "every draw has an importance weight of its own", None, None)
    yield run(row, "IWAE", number_samples=5)
    row = Row("VAMP", "½ Σ_D squares + KL to a mixture of posteriors", 1, None)
    yield run(row, "VAMP", reconstruction_loss="mse")
    why = "½ Σ_D squares, total correlation with weight 10, the other parts of the KL with 1"
    options = {"reconstruction_loss": "mse", "alpha": 1.0, "beta": 10.0, "gamma": 1.0}
    yield run(Row("BetaTCVAE", why, 1, None), "BetaTCVAE", **options)


@package("pyro-ppl==1.9.2")
def pyro():
    """SVI.step with its ELBOs: model and guide as in its documentation."""
    import pyro
    import pyro.distributions as dist
    from pyro import infer

    class VAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Linear(D, 2 * M), nn.Linear(M, D)

        def model(self, x, scale):
            pyro.module("decoder", self.decoder)
            with pyro.plate("data", len(x)):
                with pyro.poutine.scale(scale=scale):
                    z = pyro.sample("z", dist.Normal(torch.zeros(len(x), M), 1.0).to_event(1))
                logits = self.decoder.forward(z)
                pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

        def guide(self, x, scale):
            pyro.module("encoder", self.encoder)
            with pyro.plate("data", len(x)):
                self.spread = self.encoder.forward(x).chunk(2, dim=1)
                mu, log_std = self.spread
                with pyro.poutine.scale(scale=scale):
                    pyro.sample("z", dist.Normal(mu, log_std.exp()).to_event(1))

    for name in ("Trace_ELBO", "TraceMeanField_ELBO", "TraceGraph_ELBO"):
        for scale in (1.0, 0.3):
            pyro.clear_param_store()
            torch.manual_seed(0)
            vae, x = VAE(), torch.bernoulli(torch.full((B, D), 0.5))
            elbo = getattr(infer, name)()
            svi = infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), loss=elbo)

            def pick(encode, decode, vae=vae):
                mu, log_std = vae.spread
                return {"x": encode.args[0], "x_hat": decode.output, "mu": mu, "log_std": log_std}

            def train(svi=svi, x=x, scale=scale):
                svi.step(x, scale)

            why = f"Σ_B [Σ_D cross-entropy + {scale:g} Σ_M KL]: c = B"
            row = Row(f"SVI.step, {name}, z scaled by {scale:g}", why, B, scale)
            yield watched(row, (vae.encoder, vae.decoder), pick, train)


@package("scvi-tools==1.4.2")
def scvi():
    """SCVI.train on its synthetic cells: negative binomial counts, a warm-up of the KL."""
    import scvi

    warnings.simplefilter("ignore")
    scvi.settings.seed = 0
    cells = scvi.data.synthetic_iid()
    scvi.model.SCVI.setup_anndata(cells)

    def own(output, tensors, inference, generative, kl_weight=1.0):
        nll = output.reconstruction_loss["reconstruction_loss"]
        return {"nll": nll, "posterior": inference["qz"], "prior": generative["pz"]}

    def run(row, likelihood, epochs, warmup, pick=own):
        model = scvi.model.SCVI(cells, gene_likelihood=likelihood)

        def train():
            model.train(
                max_epochs=epochs,
                accelerator="cpu",
                batch_size=64,
                plan_kwargs={"n_epochs_kl_warmup": warmup},
                enable_progress_bar=False,
                logger=False,
            )

        return watched(row, model.module.loss, pick, train)

    for likelihood in ("zinb", "nb"):
        for epochs in (2, 4):
            beta = (epochs - 1) / 10
            why = f"mean over B of Σ NLL + w Σ_M KL, w = epoch / 10 = {beta:g}"
            what = f"SCVI.train, {likelihood}, epoch {epochs} of a warm-up of 10"
            yield run(Row(what, why, 1, beta), likelihood, epochs, 10)

    def by_likelihood(output, tensors, inference, generative, kl_weight=1.0):
        px = generative["px"]

        def nll(x, mu):
            same = type(px)(mu=mu, theta=px.theta.detach().double(), scale=mu)
            return -same.log_prob(x)

        return {"x": tensors["X"], "x_hat": px.mu, "likelihood": nll, "posterior": inference["qz"]}

    row = Row("SCVI.train, nb, no warm-up, likelihood= a function", "Σ NLL + Σ_M KL", 1, 1)
    yield run(row, "nb", 1, None, by_likelihood)


@package("vae-anomaly-detection==2.0.1")
def vae_anomaly_detection():
    """A learned standard deviation, several draws of z for each x."""
    from vae_anomaly_detection.VAE import VAEAnomalyTabular

    torch.manual_seed(0)
    model, x = VAEAnomalyTabular(input_size=D, latent_size=M, L=5), torch.rand(B, D)

    def pick(output, x):
        outs = output["recon_mu"], output["recon_sigma"]
        return {"x": x, "x_hat": outs, "mu": output["latent_mu"], "std": output["latent_sigma"]}

    row = Row("VAEAnomalyTabular.forward", "Σ_D NLL, mean over 5 draws and B, + Σ_M KL", 1, 1)
    yield watched(row, model, pick, lambda: model(x)["loss"].backward())


@package("pi-vae-pytorch==1.1.0")
def pi_vae_pytorch():
    """Poisson counts and a prior that is learned from labels."""
    from pi_vae_pytorch.loss import ELBOLoss

    counts = torch.poisson(torch.full((B, D), 2.0))
    out, mu, log_var = parts(counts, D)
    _, label_mu, label_log_var = parts(torch.randn(B, 3), 1)
    prior = Normal(label_mu, (label_log_var / 2).exp())
    rates = F.softplus(out)
    given = {"x": counts, "x_hat": rates, "mu": mu, "log_var": log_var, "prior": prior}
    terms = (counts, rates, mu, log_var, label_mu, label_log_var)
    for weight in (1.0, 0.2):
        loss = ELBOLoss(version=1)(*terms, kl_weight=weight)
        why = f"Σ_D Poisson + {weight:g} · ½ Σ_M KL to the prior of the label"
        yield audited(Row(f"ELBOLoss, version 1, kl_weight={weight:g}", why, 1, weight / 2),
                      loss, **given)  # fmt: skip

    from pi_vae_pytorch import PiVAE

    model = PiVAE(x_dim=D, u_dim=3, z_dim=M, discrete_labels=False)
    seen = model(counts, torch.randn(B, 3))
    names = ("posterior_firing_rate", "posterior_mean", "posterior_log_variance")
    names += ("label_mean", "label_log_variance", "encoder_mean", "encoder_log_variance")
    terms = [seen[name] for name in names]
    given = {
        "x": counts,
        "x_hat": terms[0],
        "mu": terms[1],
        "log_var": terms[2],
        "prior": Normal(terms[3], (terms[4] / 2).exp()),
    }
    why = "Σ_D Poisson + ½ Σ_M KL of the posterior, and ½ of the encoder's own, said"
    row = Row("PiVAE and ELBOLoss, defaults (version 2)", why, 1, 0.5, ("step-other-term",))
    yield audited(row, ELBOLoss()(counts, *terms), **given)


@package("ctgan==0.12.1")
def ctgan():
    """TVAE.fit on a table: tanh in the loss, a standard deviation for each column, a factor 2."""
    import numpy as np
    import pandas as pd
    from ctgan.synthesizers import tvae

    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(200, 3)), columns=list("abc"))
    table["d"] = rng.choice(["u", "v"], 200)
    model = tvae.TVAE(epochs=1, batch_size=50, loss_factor=2, embedding_dim=M)

    def pick(encode, decode):
        mu, _, log_var = encode.output
        out, sigma = decode.output
        spans = [span for column in model.transformer.output_info_list for span in column]

        def nll(x, out):
            done, start = [], 0
            for span in spans:
                part = slice(start, start + span.dim)
                if span.activation_fn == "softmax":
                    target = x[:, part].argmax(1)
                    done.append(F.cross_entropy(out[:, part], target, reduction="none"))
                else:
                    error = (x[:, start] - out[:, start].tanh()) / sigma[start].detach()
                    done.append(error.square() / 2)
                start += span.dim
            return torch.stack(done)

        x = encode.args[1]
        return {"x": x, "x_hat": out, "likelihood": nll, "mu": mu, "log_var": log_var}

    row = Row("TVAE.fit, loss_factor=2, likelihood= a function", "2 Σ NLL + Σ_M KL", 2, 0.5)
    yield watched(row, (tvae.Encoder, tvae.Decoder), pick, lambda: model.fit(table, ["d"]))


@package("pyod==3.6.7")
def pyod():
    """VAE.fit: by default the KL is clamped to at most 0."""
    import numpy as np
    from pyod.models import vae

    x = np.random.default_rng(0).normal(size=(200, 10)).astype("float32")

    def pick(output, model, x):
        out, mu, log_var = output
        return {"x": x, "x_hat": out, "mu": mu, "log_var": log_var}

    def fit(**options):
        model = vae.VAE(epoch_num=1, batch_size=50, latent_dim=M, verbose=0, device="cpu",
                        dropout_rate=0, **options)  # fmt: skip
        return lambda: model.fit(x)

    row = Row("VAE.fit, defaults", "mean squares + min(Σ_M KL, capacity), capacity = 0", 2 / 10, 0)
    yield watched(row, vae.VAEModel, pick, fit())
    row = Row("VAE.fit, capacity=1e6, beta=0.5", "mean squares + ½ Σ_M KL: D/2 · ½", 2 / 10, 2.5)
    yield watched(row, vae.VAEModel, pick, fit(capacity=1e6, beta=0.5))


@package("vaes-ptorch==0.0.1")
def vaes_ptorch():
    """Its own train(): a variance in the place of a width, one half of the KL summed over B."""
    from vaes_ptorch import args, train_vae, vae

    torch.manual_seed(0)
    model = vae.VAE(vae.GaussianMLP(D, [8, 8], M), vae.GaussianMLP(M, [8, 8], D))
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.rand(B, D)), B)

    def pick(output, x):
        return {"x": x, "x_hat": output.mu_x, "mu": output.mu_z, "std": output.sig_z}

    def train():
        optimiser = torch.optim.SGD(model.parameters(), 1e-3)
        train_vae.train(data, model, optimiser, args.TrainArgs(num_epochs=1))

    why = "½ mean squares / max(variance, 1); ½ Σ_BM mu² is not averaged over B: no KL"
    yield watched(Row("train()", why, None, None), model, pick, train)


@package("torch_geometric==2.8.1")
def torch_geometric():
    """VGAE with its two losses, added as in its examples."""
    from torch_geometric.nn import VGAE, GCNConv

    nodes = 20

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.mu, self.log_std = GCNConv(6, M), GCNConv(6, M)

        def forward(self, x, edges):
            return self.mu(x, edges), self.log_std(x, edges)

    torch.manual_seed(0)
    model, x, edges = VGAE(Encoder()), torch.randn(nodes, 6), torch.randint(nodes, (2, 60))
    z = model.encode(x, edges)
    nll = model.recon_loss(z, edges)
    loss = nll + model.kl_loss() / nodes
    row = Row(
        "recon_loss + kl_loss / N, nll= its own", "1 · NLL + (1/N) mean_N Σ_M KL", 1, 1 / nodes
    )
    yield audited(row, loss, nll=nll, mu=model.__mu__, log_std=model.__logstd__)


@package("mlcolvar==1.3.1")
def mlcolvar():
    """Its ELBO loss."""
    from mlcolvar.core.loss.elbo import ELBOGaussiansLoss

    x = torch.rand(B, D)
    out, mu, log_var = parts(x, D)
    given = {"x": x, "x_hat": out, "mu": mu, "log_var": log_var}
    for beta in (1.0, 0.01):
        loss = ELBOGaussiansLoss()(x, out, mu, log_var, beta=beta)
        why = f"mean_BD squares + {beta:g} mean_B Σ_M KL: β = {beta:g} D/2"
        yield audited(
            Row(f"ELBOGaussiansLoss, beta={beta:g}", why, 2 / D, beta * D / 2), loss, **given
        )


@package("d3rlpy==2.8.1")
def d3rlpy():
    """The VAE of actions in batch-constrained Q-learning."""
    from d3rlpy.models.torch import imitators

    class Both(nn.Module):  # its encoders of observations are built from configurations
        def __init__(self, first, second):
            super().__init__()
            self.layer = nn.Linear(first + second, 16)

        def forward(self, x, other):
            return self.layer(torch.cat([x, other], dim=1)).tanh()

    torch.manual_seed(0)
    observed, actions = torch.randn(B, 5), torch.rand(B, 6)
    encoder = imitators.VAEEncoder(Both(5, 6), 16, M)
    decoder = imitators.VAEDecoder(Both(5, M), 16, 6)

    def pick(encode, decode):
        return {"x": encode.args[1], "x_hat": decode.output, "posterior": encode.output}

    def train():
        imitators.compute_vae_error(encoder, decoder, observed, actions, beta=0.5).backward()

    why = "mean squares over D = 6 + ½ mean_M KL: β = ½ D / (2 M)"
    row = Row("compute_vae_error, beta=0.5", why, 2 / 6, 0.5 * 6 / (2 * M))
    yield watched(row, (encoder, decoder), pick, train)


@package("cornac==3.0.1")
def cornac():
    """Recommenders: four likelihoods of what a person has bought, and RecVAE."""
    from cornac.models.recvae import recvae
    from cornac.models.vaecf import vaecf

    torch.manual_seed(0)
    bought = (torch.rand(B, D) < 0.2).float()
    factor = {"mult": 1, "bern": 1, "gaus": 2, "pois": 1}
    own = {"likelihood": lambda x, p: -x * torch.log(p + 1e-10)}
    for name, c in factor.items():
        model = vaecf.VAE(M, [D, 16], "tanh", name)

        def pick(output, x, out, mu, log_var, beta, name=name):
            given = {"x": x, "x_hat": out, "mu": mu, "log_var": log_var}
            return given | (own if name == "mult" else {})

        def train(model=model):
            model.loss(bought, *model(bought), 0.2).backward()

        why = f"Σ_D {'squares' if c == 2 else 'NLL'} + 0.2 Σ_M KL, mean over B"
        row = Row(f"VAECF, {name}, beta=0.2", why, c, 0.2 / c)
        yield watched(row, model.loss, pick, train)

    model = recvae.VAE(16, M, D)

    def spread(encode, decode):
        mu, log_var = encode.output
        nll = {"likelihood": lambda x, out: -x * out.log_softmax(1)}
        return nll | {"x": bought, "x_hat": decode.output, "mu": mu, "log_var": log_var,
                      "z": decode.args[0]}  # fmt: skip

    def train_recvae():
        model(bought, gamma=0.005, dropout_rate=0.0)[1].backward()

    why = "Σ_D NLL + 0.005 · (things bought) · KL to a mixture; noise of std 0.01 in z"
    row = Row("RecVAE, gamma=0.005", why, 1, None, ("step-noise",))
    yield watched(row, (model.encoder, model.decoder), spread, train_recvae)
