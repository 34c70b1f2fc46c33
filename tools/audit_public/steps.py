"""Training steps and losses that wheels hold, unmodified, under audit_step and watch_step.

Run in an environment that has the package: ``python -m audit_public.steps pythae`` prints one line
of JSON for each row. To add a package, write a function below: it yields rows, and its derivation
says in a line where c and β come from.
"""

import importlib.metadata
import json
import math
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import nn

from audit_public.rows import Row
from vaeloss import audit_step, watch_step
from vaeloss.audit import AuditError

PACKAGES: dict[str, tuple[str, Callable[[], Iterator[Row]]]] = {}  # name -> requirement, cases
B, D, M = 32, 48, 4


def package(name: str, requirement: str):
    """Register the cases of a package and what pip has to install for them."""

    def register(cases):
        PACKAGES[name] = requirement, cases
        return cases

    return register


def watched(row: Row, model, pick, train, step: int = -1) -> Row:
    """The row of one step (by default the last) of unmodified training code."""
    try:
        with watch_step(model, pick) as seen:
            train()
    except AuditError:
        return row.judge(math.nan, math.nan, math.nan, ["error"])
    audit = seen.audits[step]
    codes = sorted({f.code for f in (*audit.findings, *seen.findings)})
    return row.judge(audit.c, audit.beta, audit.kl_weight, codes)


def audited(row: Row, loss, **given) -> Row:
    """The row of a loss that was computed by the package's own function."""
    try:
        audit = audit_step(loss, **given)
    except AuditError:
        return row.judge(math.nan, math.nan, math.nan, ["error"])
    codes = sorted(f.code for f in audit.findings)
    return row.judge(audit.c, audit.beta, audit.kl_weight, codes)


def parts(d: int = D, m: int = M, out: int | None = None):
    """x and the tensors of a small model: for losses that are functions."""
    torch.manual_seed(0)
    x, encoder, decoder = torch.rand(B, d), nn.Linear(d, 2 * m), nn.Linear(m, out or d)
    mu, log_var = encoder(x).chunk(2, dim=1)
    z = mu + (log_var / 2).exp() * torch.randn_like(mu)
    return x, decoder(z), mu, log_var, z


# --- pythae ---------------------------------------------------------------------------------------


@package("pythae", "pythae==0.1.2")
def pythae() -> Iterator[Row]:
    from pythae import models

    x = torch.rand(B, 1, 6, 8)

    def run(row, name, **options):
        torch.manual_seed(0)
        config = getattr(models, f"{name}Config")(input_dim=(1, 6, 8), latent_dim=M, **options)
        model = getattr(models, name)(config)
        batch = {"data": x, "labels": torch.zeros(B)}

        def pick(output, recon_x, x, mu, log_var, *rest):
            return {"x": x.reshape(recon_x.shape) if x.numel() == recon_x.numel() else x,
                    "x_hat": recon_x, "mu": mu, "log_var": log_var,
                    "z": next((t for t in rest if torch.is_tensor(t)), None)}  # fmt: skip

        def train():
            model.train()
            model(batch, epoch=1, dataset_size=1000).loss.backward()

        return watched(row, model.loss_function, pick, train)

    half = "½ Σ_D squares + Σ_M KL, mean over B"
    yield run(Row("pythae", "VAE, mse", half, 1, 1), "VAE", reconstruction_loss="mse")
    bce = "Σ_D cross-entropy + Σ_M KL, mean over B"
    yield run(Row("pythae", "VAE, bce", bce, 1, 1), "VAE", reconstruction_loss="bce")
    for beta in (2.0, 1e-4):
        yield run(
            Row("pythae", f"BetaVAE, beta={beta:g}", f"½ Σ_D squares + {beta:g} Σ_M KL", 1, beta),
            "BetaVAE", reconstruction_loss="mse", beta=beta,
        )  # fmt: skip
    one_step = ("step-value", "step-negative-beta")
    yield run(
        Row("pythae", "DisentangledBetaVAE below its capacity",
            "½ Σ_D squares + 10 |KL - C|: -10 where KL < C", 1, -10.0, one_step),
        "DisentangledBetaVAE", reconstruction_loss="mse", beta=10.0, C=1e4, warmup_epoch=1,
    )  # fmt: skip
    yield run(
        Row("pythae", "DisentangledBetaVAE above its capacity",
            "½ Σ_D squares + 10 |KL - C|: +10 where KL > C", 1, 10.0, one_step),
        "DisentangledBetaVAE", reconstruction_loss="mse", beta=10.0, C=1e-3, warmup_epoch=1,
    )  # fmt: skip
    none = "importance weights: every draw has a weight of its own"
    yield run(Row("pythae", "IWAE", none, None, None), "IWAE", number_samples=5)
    none = "½ Σ_D squares + KL to a mixture of posteriors: not to N(0, I)"
    yield run(Row("pythae", "VAMP", none, None, None), "VAMP", reconstruction_loss="mse")
    none = "mutual information, total correlation and the rest with weights 1, 10, 1"
    yield run(
        Row("pythae", "BetaTCVAE, weights 1, 10, 1", none, None, None),
        "BetaTCVAE", reconstruction_loss="mse", alpha=1.0, beta=10.0, gamma=1.0,
    )  # fmt: skip
    none = "½ Σ_D squares + (1 - α) KL + MMD on z"
    yield run(Row("pythae", "INFOVAE_MMD", none, None, None), "INFOVAE_MMD")


# --- pyro -----------------------------------------------------------------------------------------


@package("pyro", "pyro-ppl==1.9.2")
def pyro() -> Iterator[Row]:
    import pyro
    import pyro.distributions as dist
    from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

    class VAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Linear(D, 2 * M), nn.Linear(M, D)

        def model(self, x, scale):
            pyro.module("decoder", self.decoder)
            with pyro.plate("data", len(x)):
                prior = dist.Normal(torch.zeros(len(x), M), 1.0).to_event(1)
                with pyro.poutine.scale(scale=scale):
                    z = pyro.sample("z", prior)
                logits = self.decoder.forward(z)
                pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

        def guide(self, x, scale):
            pyro.module("encoder", self.encoder)
            with pyro.plate("data", len(x)):
                mu, log_std = self.encoder.forward(x).chunk(2, dim=1)
                self.spread = mu, log_std
                with pyro.poutine.scale(scale=scale):
                    pyro.sample("z", dist.Normal(mu, log_std.exp()).to_event(1))

    for elbo in (Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO):
        for scale in (1.0, 0.3):
            pyro.clear_param_store()
            torch.manual_seed(0)
            vae, x = VAE(), torch.bernoulli(torch.full((B, D), 0.5))
            svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), loss=elbo())

            def pick(encode, decode, vae=vae):
                mu, log_std = vae.spread
                return {"x": encode.args[0], "x_hat": decode.output, "z": decode.args[0],
                        "mu": mu, "log_std": log_std}  # fmt: skip

            row = Row("pyro", f"SVI.step, {elbo.__name__}, z scaled by {scale:g}",
                      f"Σ_B [Σ_D cross-entropy + {scale:g} Σ_M KL]: c = B", B, scale)  # fmt: skip
            train = lambda svi=svi, x=x, s=scale: svi.step(x, s)
            yield watched(row, (vae.encoder, vae.decoder), pick, train)


# --- scvi-tools -----------------------------------------------------------------------------------


@package("scvi", "scvi-tools==1.4.2")
def scvi() -> Iterator[Row]:
    import scvi

    warnings.simplefilter("ignore")
    scvi.settings.seed = 0
    adata = scvi.data.synthetic_iid()

    def own(output, tensors, inference_outputs, generative_outputs, kl_weight=1.0):
        return {"nll": output.reconstruction_loss["reconstruction_loss"],
                "posterior": inference_outputs["qz"], "prior": generative_outputs["pz"]}  # fmt: skip

    def named(output, tensors, inference_outputs, generative_outputs, kl_weight=1.0):
        return {"x": tensors["X"], "x_hat": generative_outputs["px"].mu, "likelihood": nb,
                "posterior": inference_outputs["qz"]}  # fmt: skip

    def fit(model, row, pick, epochs, warmup, step=-1):
        plan = {"n_epochs_kl_warmup": warmup}
        train = (lambda: model.train(
            max_epochs=epochs, accelerator="cpu", plan_kwargs=plan, enable_progress_bar=False,
            logger=False, batch_size=64))  # fmt: skip
        return watched(row, model.module.loss, pick, train, step)

    for likelihood in ("zinb", "nb"):
        for epochs in (1, 3):
            scvi.model.SCVI.setup_anndata(adata)
            model = scvi.model.SCVI(adata, gene_likelihood=likelihood)
            beta = (epochs - 1) / 10
            row = Row("scvi", f"SCVI.train, {likelihood}, epoch {epochs} of a warm-up of 10",
                      f"mean_B [Σ NLL + w Σ KL], w = epoch/10 = {beta:g}", 1, beta)  # fmt: skip
            yield fit(model, row, own, epochs, 10)
    model = scvi.model.SCVI(adata, gene_likelihood="nb")

    def nb(x, mu):
        theta = model.module.px_r.detach().exp().double()
        return -scvi.distributions.NegativeBinomial(mu=mu, theta=theta).log_prob(x)

    row = Row(
        "scvi", "SCVI.train, nb, by a likelihood of one's own", "w = 1 without a warm-up", 1, 1
    )
    yield fit(model, row, named, 1, None)


def main(name: str) -> None:
    """Print a line of JSON for each row of this package."""
    requirement, cases = PACKAGES[name]
    distribution = requirement.partition("==")[0]
    version = importlib.metadata.version(distribution)
    try:
        for row in cases():
            row.version = version
            print("ROW " + json.dumps(row.data(), ensure_ascii=False), flush=True)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
