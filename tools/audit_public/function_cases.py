"""The losses of public repositories: how to reach each one, and its c and β by algebra.

To add one, write a ``Case``. What a user would have to write around a loss stands in ``load``; the
loss itself is the repository's. B samples, D values, M latents.
"""

import functools
import importlib
import sys
import types
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from vaeloss.audit import from_jax, from_tensorflow
from vaeloss.script import resolve


@dataclass(frozen=True)
class Case:
    """A loss, and what is true of it.

    Parameters
    ----------
    repository, path, what : str
        owner/name, the file, and which loss with which settings.
    derivation : str
        Where c and β come from.
    c, beta : float or None
        None: there is none.
    load : callable
        Folder with the repository's text -> a function for ``audit_loss``.
    sizes : dict
        For ``audit_loss``.
    say : tuple of str
        Codes of which one must be found.
    """

    repository: str
    path: str
    what: str
    derivation: str
    c: float | None
    beta: float | None
    load: Callable[[Path], Callable]
    sizes: dict
    say: tuple[str, ...] = ()
    framework: str = "torch"


CASES: list[Case] = []


def case(*args, **kwargs):
    """Register a loader as a case."""

    def register(load):
        CASES.append(Case(*args, load=load, **kwargs))
        return load

    return register


def stub(name: str, **contents) -> None:
    """A module that an import at the top of a file asks for, and the loss does not use."""
    module = types.ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module


def bare(cls, **attributes):
    """An object of a module without its networks: a loss that is a method needs none."""
    made = cls.__new__(cls)
    torch.nn.Module.__init__(made)
    vars(made).update(attributes)
    return made


# --- pytorch/examples ----------------------------------------------------------------------------


@case(
    "pytorch/examples", "vae/main.py", "loss_function",
    "Σ_BD BCE + Σ_BM KL, so c = B and β = 1; (recon_x, x, mu, logvar)", 128.0, 1.0,
    sizes={"data_shape": (784,), "latent_dim": 20, "batch_size": 128}, say=("arguments",),
)  # fmt: skip
def pytorch_examples(folder):
    return resolve(f"{folder}/vae/main.py:loss_function")  # a script that parses and downloads


# --- AntixK/PyTorch-VAE: (recons, input, mu, log_var) as *args, a dict with "loss" ---------------

ANTIXK = "AntixK/PyTorch-VAE"
FACES = {"data_shape": (3, 64, 64), "latent_dim": 128, "batch_size": 64}
PIXELS = 3 * 64 * 64
W = 0.00025  # kld_weight, M_N, of its configurations


def antixk(folder, file, name, **attributes):
    sys.path.insert(0, str(folder))
    stub("models", BaseVAE=torch.nn.Module, __path__=[f"{folder}/models"])
    cls = getattr(importlib.import_module(f"models.{file}"), name)
    return functools.partial(bare(cls, **attributes).loss_function, M_N=W)


@case(ANTIXK, "models/vanilla_vae.py", "VanillaVAE", "mean SE + w KL: c = 2/D, β = w D/2",
      2 / PIXELS, W * PIXELS / 2, sizes=FACES, say=("total",))  # fmt: skip
def antixk_vanilla(folder):
    return antixk(folder, "vanilla_vae", "VanillaVAE")


@case(ANTIXK, "models/cvae.py", "ConditionalVAE", "as VanillaVAE",
      2 / PIXELS, W * PIXELS / 2, sizes=FACES, say=("total",))  # fmt: skip
def antixk_cvae(folder):
    return antixk(folder, "cvae", "ConditionalVAE")


@case(ANTIXK, "models/beta_vae.py", "BetaVAE, loss_type H, beta 10", "mean SE + 10 w KL",
      2 / PIXELS, 10 * W * PIXELS / 2, sizes=FACES)  # fmt: skip
def antixk_beta_h(folder):
    return antixk(folder, "beta_vae", "BetaVAE", beta=10, loss_type="H")


@case(ANTIXK, "models/beta_vae.py", "BetaVAE, loss_type B, the default",
      "γ w |KL - C| with a C that counts the calls: no β", 2 / PIXELS, None, sizes=FACES,
      say=("keeps-state", "kl-weight-varies"))  # fmt: skip
def antixk_beta_b(folder):
    capacity = {"C_max": torch.tensor([25.0]), "C_stop_iter": 1e5}
    return antixk(folder, "beta_vae", "BetaVAE", gamma=1000.0, loss_type="B", **capacity)


@case(ANTIXK, "models/dip_vae.py", "DIPVAE", "a penalty on the covariance of mu besides: no β",
      2.0 * 64, None, sizes=FACES)  # fmt: skip
def antixk_dip(folder):
    return antixk(folder, "dip_vae", "DIPVAE", lambda_offdiag=1.0, lambda_diag=2.0)


@case(ANTIXK, "models/logcosh_vae.py", "LogCoshVAE", "log cosh of the error: no likelihood known",
      None, None, sizes=FACES)  # fmt: skip
def antixk_logcosh(folder):
    return antixk(folder, "logcosh_vae", "LogCoshVAE", alpha=10.0, beta=1.0)


# --- YannDubs/disentangling-vae ------------------------------------------------------------------

DISVAE = "YannDubs/disentangling-vae"
DIGITS = {"data_shape": (1, 32, 32), "latent_dim": 10, "batch_size": 64}


def disvae(folder, name, is_train, **settings):
    sys.path.insert(0, str(folder))
    stub("disvae", __path__=[f"{folder}/disvae"])
    stub("disvae.models", __path__=[f"{folder}/disvae/models"])
    stub("disvae.utils", __path__=[f"{folder}/disvae/utils"])
    loss = getattr(importlib.import_module("disvae.models.losses"), name)(**settings)

    def loss_fn(x, x_hat, mu, log_var):  # it takes a tuple, and where to log
        return loss(x, x_hat, (mu, log_var), is_train, defaultdict(list))

    return loss_fn


for dist, c, beta, why in [
    ("bernoulli", 1.0, 4.0, "Σ BCE + 4 KL"),
    ("gaussian", 510.0, 4 / 510, "255² SE / 255 = 255 SE = 510 · ½ SE; 4 KL"),
    ("laplace", 3.0, 4 / 3, "3 AE + 4 KL"),
]:

    @case(DISVAE, "disvae/models/losses.py", f"BetaHLoss, {dist}, evaluation", why, c, beta,
          sizes=DIGITS)  # fmt: skip
    def disvae_h(folder, dist=dist):
        return disvae(folder, "BetaHLoss", False, rec_dist=dist, beta=4)


@case(DISVAE, "disvae/models/losses.py", "BetaHLoss, training, anneal 10,000",
      "the weight 4 n / 10,000 grows with the calls: no β", 1.0, None, sizes=DIGITS,
      say=("kl-random", "keeps-state", "kl-weight-varies"))  # fmt: skip
def disvae_annealed(folder):
    return disvae(folder, "BetaHLoss", True, beta=4, steps_anneal=10_000)


@case(DISVAE, "disvae/models/losses.py", "BetaBLoss, training, anneal 100,000, the default",
      "100 |KL - C|, C counts the calls: no β", 1.0, None, sizes=DIGITS,
      say=("keeps-state", "kl-weight-varies"))  # fmt: skip
def disvae_capacity(folder):
    return disvae(folder, "BetaBLoss", True, steps_anneal=100_000)


# --- CompVis/latent-diffusion --------------------------------------------------------------------

LDM = "CompVis/latent-diffusion"
MAPS = {"data_shape": (3, 32, 32), "latent_dim": 64, "batch_size": 8}


def latent_diffusion(folder, perceptual):
    """The loss without the two networks that it downloads; its posterior is its own class."""
    sys.path.insert(0, str(folder))
    filters = torch.nn.Conv2d(3, 8, 3, padding=1)

    class Perceptual(torch.nn.Module):  # (B, 1, 1, 1), as LPIPS
        def forward(self, x, y):
            return (filters(x) - filters(y)).square().mean((1, 2, 3), keepdim=True)

    class Critic(torch.nn.Module):
        def __init__(self, **_):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 1, 4, stride=2)

        def forward(self, x):
            return self.conv(x)

    def adopt_weight(weight, step, threshold=0, value=0.0):
        return weight if step >= threshold else value

    stub("taming", __path__=[])
    stub("taming.modules", __path__=[])
    stub("taming.modules.losses", __path__=[])
    contents = {"LPIPS": Perceptual, "NLayerDiscriminator": Critic, "adopt_weight": adopt_weight}
    contents |= {"weights_init": lambda m: None, "hinge_d_loss": None, "vanilla_d_loss": None}
    stub("taming.modules.losses.vqperceptual", torch=torch, nn=torch.nn, **contents)
    made = resolve(f"{folder}/ldm/modules/losses/contperceptual.py:LPIPSWithDiscriminator")
    loss = made(disc_start=50_001, kl_weight=1e-6, disc_weight=0.5, perceptual_weight=perceptual)
    posterior = resolve(
        f"{folder}/ldm/modules/distributions/distributions.py:DiagonalGaussianDistribution"
    )

    def loss_fn(x, x_hat, mu, log_var):
        shaped = torch.cat([mu, log_var], 1).unflatten(1, (8, 4, 4))
        return loss(x, x_hat, posterior(shaped), 0, 0, last_layer=x_hat)

    return loss_fn


@case(LDM, "ldm/modules/losses/contperceptual.py", "LPIPSWithDiscriminator, no perceptual term",
      "Σ AE / e^0 + 1e-6 KL", 1.0, 1e-6, sizes=MAPS, say=("total",))  # fmt: skip
def ldm_plain(folder):
    return latent_diffusion(folder, 0.0)


@case(LDM, "ldm/modules/losses/contperceptual.py", "LPIPSWithDiscriminator, perceptual term 1",
      "a stand-in for LPIPS beside it: the weight of the KL alone", None, None, sizes=MAPS,
      say=("reconstruction-partly",))  # fmt: skip
def ldm_perceptual(folder):
    return latent_diffusion(folder, 1.0)


# --- tonyzhaozh/act ------------------------------------------------------------------------------

CHUNK = {"data_shape": (100, 14), "latent_dim": 32, "batch_size": 8}


def act(folder, padded):
    names = {"build_ACT_model_and_optimizer": None, "build_CNNMLP_model_and_optimizer": None}
    stub("detr", __path__=[])
    stub("detr.main", **names)
    stub("IPython", embed=None)
    stub("torchvision", __path__=[])
    stub("torchvision.transforms", Normalize=lambda **_: lambda image: image)
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]
    policy = bare(resolve(f"{folder}/policy.py:ACTPolicy"), kl_weight=10)

    def loss_fn(actions, a_hat, mu, logvar):
        class Model:  # what the network would have said
            num_queries = 100

            def __call__(self, *_):
                return a_hat, None, (mu, logvar)

        vars(policy)["model"] = Model()
        last = 100 - 20 * (torch.arange(len(actions)) % 3) * padded
        is_pad = torch.arange(100)[None] >= last[:, None]
        return policy(None, None, actions, is_pad)

    return loss_fn


@case("tonyzhaozh/act", "policy.py", "ACTPolicy, kl_weight 10", "mean AE + 10 KL: c = 1/D",
      1 / 1400, 14_000.0, sizes=CHUNK, say=("total",))  # fmt: skip
def act_plain(folder):
    return act(folder, 0)


@case("tonyzhaozh/act", "policy.py", "ACTPolicy with padding",
      "padding counts as zeros in the mean: c = 1/D for the rest", 1 / 1400, 14_000.0,
      sizes=CHUNK, say=("masked",))  # fmt: skip
def act_padded(folder):
    return act(folder, 1)


# --- timbmg/Sentence-VAE -------------------------------------------------------------------------


@case("timbmg/Sentence-VAE", "train.py", "loss_fn inside main(), logistic weight at step 2,500",
      "(Σ NLL without padding + ½ Σ KL) / B: c = 1, β = ½", 1.0, 0.5, say=("masked",),
      sizes={"data_shape": (20,), "latent_dim": 16, "batch_size": 8, "categories": 30})  # fmt: skip
def sentence_vae(folder):
    import ast

    import numpy as np

    tree = ast.parse((folder / "train.py").read_text(encoding="utf-8"))
    wanted = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in ("loss_fn", "kl_anneal_function")
    ]
    nll = torch.nn.NLLLoss(ignore_index=0, reduction="sum")
    names = {"torch": torch, "np": np, "NLL": nll}
    exec(compile(ast.Module(wanted, type_ignores=[]), "train.py", "exec"), names)

    def loss_fn(target, logp, mean, logv):
        length = torch.tensor([target.shape[1]])
        nll, kl, weight = names["loss_fn"](
            logp, target, length, mean, logv, "logistic", 2500, 0.0025, 2500
        )
        return (nll + weight * kl) / len(target)

    return loss_fn


# --- molecularsets/moses -------------------------------------------------------------------------


@case(
    "molecularsets/moses",
    "moses/vae/model.py",
    "VAE.forward_encoder and forward_decoder, the trainer's 0.05",
    "mean NLL of the 9 next tokens of 10, 0.05 KL: c = 1/9, β = 0.45",
    1 / 9,
    0.45,
    say=("next-token",),
    sizes={"data_shape": (10,), "latent_dim": 16, "batch_size": 8, "categories": 30},
)
def moses(folder):
    vae = bare(resolve(f"{folder}/moses/vae/model.py:VAE"), pad=30)  # no token is padding

    class Recurrent:  # the networks, which say what they are told
        bidirectional, num_layers = False, 1

        def __call__(self, packed, _):
            return packed, torch.zeros(1, packed.batch_sizes[0], 1)

    def loss_fn(x, logits, mu, logvar):
        given = {"x_emb": lambda t: t[..., None].to(mu), "encoder_rnn": Recurrent()}
        given |= {"q_mu": lambda _: mu, "q_logvar": lambda _: logvar, "decoder_lat": lambda z: z}
        given |= {"decoder_rnn": Recurrent(), "decoder_fc": lambda _: logits}
        vars(vae).update(given)
        z, kl = vae.forward_encoder(list(x))
        return 0.05 * kl + vae.forward_decoder(list(x), z)

    return loss_fn


# --- google/flax, pyro-ppl/numpyro: JAX ----------------------------------------------------------

MNIST = {"data_shape": (784,), "latent_dim": 20, "batch_size": 32}


@case("google/flax", "examples/vae/train.py", "compute_metrics", "Σ BCE of logits + KL", 1.0, 1.0,
      sizes=MNIST, say=("total",), framework="jax")  # fmt: skip
def flax(folder):
    for name in ("absl", "ml_collections", "optax", "tensorflow_datasets", "tensorflow"):
        stub(name, logging=None, ConfigDict=None)
    for name in ("input_pipeline", "models", "utils"):
        stub(name)
    sys.path.insert(0, str(folder / "examples" / "vae"))
    return from_jax(resolve(f"{folder}/examples/vae/train.py:compute_metrics"))


@case("pyro-ppl/numpyro", "examples/vae.py", "Trace_ELBO of model and guide",
      "Σ_B (BCE + KL at one draw): c = B, β = 1", 32.0, 1.0, sizes=MNIST,
      say=("kl-sampled-once",), framework="jax")  # fmt: skip
def numpyro(folder):
    import jax
    from numpyro.infer import Trace_ELBO

    stub("jax.example_libraries.stax")
    script = f"{folder}/examples/vae.py"
    model, guide = resolve(f"{script}:model"), resolve(f"{script}:guide")

    def loss_fn(x, x_hat, mu, std):
        # the two networks are what the model asks for by name
        def module(name, *_):
            return lambda batch: (mu, std) if name == "encoder" else x_hat

        for each in (model, guide):
            each.__globals__["numpyro"].module = module
            each.__globals__["encoder"] = each.__globals__["decoder"] = lambda *_: None
        elbo = Trace_ELBO()
        return elbo.loss(jax.random.key(0), {}, model, guide, x, z_dim=20)

    return from_jax(loss_fn)


# --- pyro-ppl/pyro -------------------------------------------------------------------------------


@case("pyro-ppl/pyro", "examples/vae/vae.py", "Trace_ELBO of VAE.model and VAE.guide",
      "Σ_B (BCE + KL at one draw): c = B, β = 1", 32.0, 1.0, sizes=MNIST,
      say=("kl-sampled",))  # fmt: skip
def pyro(folder):
    import pyro as library
    from pyro.infer import Trace_ELBO

    sys.path.insert(0, str(folder / "examples" / "vae"))
    stub("visdom")
    stub("utils", __path__=[])
    stub("utils.mnist_cached", MNISTCached=None, mkdir_p=None, setup_data_loaders=None)
    stub("utils.vae_plots", mnist_test_tsne=None, plot_llk=None, plot_vae_samples=None)
    vae = resolve(f"{folder}/examples/vae/vae.py:VAE")(z_dim=20)

    def loss_fn(x, x_hat, mu, std):
        vae.encoder.forward = lambda _: (mu, std)
        vae.decoder.forward = lambda _: x_hat
        library.clear_param_store()
        return Trace_ELBO().differentiable_loss(vae.model, vae.guide, x)

    return loss_fn


# --- tensorflow/docs -----------------------------------------------------------------------------


@case("tensorflow/docs", "site/en/tutorials/generative/cvae.ipynb", "compute_loss",
      "Σ BCE of logits + KL at one draw, mean over B", 1.0, 1.0, say=("kl-sampled",),
      sizes={"data_shape": (28, 28, 1), "latent_dim": 2, "batch_size": 32},
      framework="tensorflow")  # fmt: skip
def tensorflow_docs(folder):
    import ast
    import json

    import numpy as np
    import tensorflow as tf

    notebook = folder / "site" / "en" / "tutorials" / "generative" / "cvae.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    [cell] = [text for text in code if "def compute_loss" in text]
    wanted = [node for node in ast.parse(cell).body if isinstance(node, ast.FunctionDef)]
    names = {"tf": tf, "np": np}
    exec(compile(ast.Module(wanted, type_ignores=[]), "cvae.ipynb", "exec"), names)

    def loss_fn(x, logits, mean, logvar):
        x, logits, mean, logvar = (tf.cast(t, tf.float32) for t in (x, logits, mean, logvar))

        class Model:
            def encode(self, _):
                return mean, logvar

            def reparameterize(self, mean, logvar):
                return mean + tf.exp(logvar / 2) * tf.random.normal(tf.shape(mean))

            def decode(self, _):
                return logits

        return names["compute_loss"](Model(), x)

    return from_tensorflow(loss_fn)
