"""The published examples at their original settings: config, loss, and a model to train.

Each setting is a `Config`, and every number the code uses is in it.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vaeloss.likelihoods import bernoulli_nll, kl_standard_normal
from vaeloss.metrics import posterior, reconstructions
from vaeloss.models import ChainerVAE, seeded
from vaeloss.training import default_device, fit

SEED = 0


@dataclass(frozen=True)
class Config:
    """One published setting; `losses` are trained one after the other from the same weights."""

    name: str
    source: str
    deviations: str
    library: str  # "torch" or "keras"
    network: str  # "chainer", "keras-mlp" or "keras-conv"
    hidden: int | None
    latent_dim: int
    losses: tuple[str, ...]
    data: str
    train_on: str  # "train", or "train+test" as on keras.io
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    C: float = 1.0  # weight of the KL term
    seed: int = SEED


def _chainer(data: str) -> Config:
    return Config(
        name=f"chainer-{data.split('_')[0]}",
        source="network: the Chainer question (2019); settings: chainer/chainer examples/vae, v5",
        deviations="PyTorch instead of Chainer; the example's own network has one hidden layer",
        library="torch",
        network="chainer",
        hidden=500,
        latent_dim=20,
        losses=("bernoulli_nll", "mean_squared_error", "summed_squared_error"),
        data=data + "_mnist" * (data == "fashion"),
        train_on="train",
        epochs=100,
        batch_size=100,
        optimizer="Adam",
        learning_rate=1e-3,
    )


def _keras_io(name: str, source: str, loss: str) -> Config:
    return Config(
        name=name,
        source=source,
        deviations="Keras 3 on its torch backend instead of TensorFlow",
        library="keras",
        network="keras-conv",
        hidden=None,
        latent_dim=2,
        losses=(loss,),
        data="mnist",
        train_on="train+test",
        epochs=30,
        batch_size=128,
        optimizer="Adam",
        learning_rate=1e-3,
    )


CONFIGS = {
    config.name: config
    for config in (
        _chainer("mnist"),
        _chainer("fashion"),
        Config(
            name="keras-mlp",
            source="keras-team/keras examples/variational_autoencoder.py, 2018",
            deviations="Keras 3 on its torch backend instead of Keras 2 on TensorFlow",
            library="keras",
            network="keras-mlp",
            hidden=512,
            latent_dim=2,
            losses=("keras-2018-bce", "keras-2018-mse"),
            data="mnist",
            train_on="train",
            epochs=50,
            batch_size=128,
            optimizer="Adam",
            learning_rate=1e-3,
        ),
        _keras_io("keras-2020", "keras.io examples/generative/vae, July 2020", "keras-2020"),
        _keras_io("keras-now", "keras.io examples/generative/vae, 2024 (cca4efb)", "keras-now"),
    )
}


# --- losses: terms(x, out, mu, log_var) -> reconstruction, KL, reduced as the original does ------


def chainer_terms(loss: str, C: float = 1.0):
    """The three reconstructions of the Chainer question, out are logits, x (B, n_in)."""

    def terms(x: Tensor, out: Tensor, mu: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
        if loss == "bernoulli_nll":
            reconstruction = bernoulli_nll(x, out).mean()
        elif loss == "mean_squared_error":  # over batch *and* pixels, no 1/2: Chainer's default
            reconstruction = F.mse_loss(out.sigmoid(), x)
        else:  # the fix: summed over the pixels, averaged over the batch, no 1/2
            reconstruction = (x - out.sigmoid()).square().sum(1).mean()
        return reconstruction, C * kl_standard_normal(mu, log_var).mean()

    return terms


def keras_terms(loss: str):
    """The losses of the Keras examples, for x and x_hat (B, n_in) in 2018, else (B, H, W, 1).

    The examples write the number of pixels as 784 or 28 * 28.
    """
    from keras import losses, ops

    def terms(x, x_hat, mu, log_var):
        kl = -0.5 * (1 + log_var - ops.square(mu) - ops.exp(log_var))
        if loss == "keras-2018-bce":
            reconstruction = x.shape[1] * losses.binary_crossentropy(x, x_hat)
        elif loss == "keras-2018-mse":
            reconstruction = x.shape[1] * losses.mean_squared_error(x, x_hat)
        elif loss == "keras-2020":  # the mean over all elements x 784, and a mean over latents
            pixels = x.shape[1] * x.shape[2]
            return pixels * ops.mean(losses.binary_crossentropy(x, x_hat)), ops.mean(kl)
        else:
            reconstruction = ops.sum(losses.binary_crossentropy(x, x_hat), axis=(1, 2))
        return ops.mean(reconstruction), ops.mean(ops.sum(kl, axis=1))

    return terms


# --- training, one epoch at a time ---------------------------------------------------------------
# All randomness of an epoch comes from (seed, epoch), so a checkpoint needs weights and optimiser
# only, and an interrupted run ends with the same numbers as one that was not.


class TorchRun:
    """A PyTorch model of `config` and its optimiser."""

    def __init__(self, config: Config, loss: str, n_in: int = 784):
        self.config, self.terms = config, chainer_terms(loss, config.C)
        self.model = ChainerVAE(n_in, config.latent_dim, config.hidden, config.seed)
        self.model.to(default_device())
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, fused=True
        )

    def epoch(self, epoch: int, x: np.ndarray) -> dict[str, float]:
        sums = torch.zeros(2, dtype=torch.float64, device=default_device())

        def loss_fn(x: Tensor, *outputs: Tensor) -> Tensor:
            pair = torch.stack(self.terms(x, *outputs))
            sums.add_(pair.detach())
            return pair.sum()

        steps = len(
            fit(
                self.model,
                x,
                loss_fn,
                epochs=1,
                batch_size=self.config.batch_size,
                optimizer=self.optimizer,
                seed=1000 * self.config.seed + epoch,
            ).loss
        )
        return _named(sums / steps)

    def test(self, x: np.ndarray) -> dict[str, float]:
        generator = torch.Generator(default_device()).manual_seed(self.config.seed)
        batches = torch.as_tensor(x, device=default_device()).split(1000)
        with torch.no_grad():
            pairs = [torch.stack(self.terms(b, *self.model(b, generator))) for b in batches]
        return _named(torch.stack(pairs).double().mean(0))

    def latents(self, x: np.ndarray) -> Tensor:
        return posterior(self.model, x)[0]

    def outputs(self, x: np.ndarray) -> Tensor:
        return reconstructions(self.model, x)

    def state(self) -> dict:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


class KerasRun:
    """A Keras model of `config` and its optimiser, trained by `fit` with a custom train_step."""

    def __init__(self, config: Config, loss: str):
        from vaeloss import keras_models

        self.config, self.keras = config, keras_models.keras
        if config.network == "keras-conv":
            networks = keras_models.conv_networks(config.latent_dim, seed=config.seed)
            self.shape = (28, 28, 1)
        else:
            networks = keras_models.mlp_networks(784, config.hidden, config.latent_dim, config.seed)
            self.shape = (784,)
        self.model = keras_models.KerasVAE(*networks, keras_terms(loss), seed=config.seed)
        self.model.compile(self.keras.optimizers.Adam(config.learning_rate))
        self.model.optimizer.build(self.model.trainable_weights)

    def epoch(self, epoch: int, x: np.ndarray) -> dict[str, float]:
        with seeded(1000 * self.config.seed + epoch):  # Keras shuffles with torch's generator
            history = self.model.fit(
                x.reshape(-1, *self.shape), batch_size=self.config.batch_size, verbose=0
            )
        return {name: values[0] for name, values in history.history.items()}

    def test(self, x: np.ndarray) -> dict[str, float]:
        with torch.no_grad():
            terms = self.model.evaluate(
                x.reshape(-1, *self.shape), batch_size=1000, verbose=0, return_dict=True
            )
        return {name: terms[name] for name in _named(torch.zeros(2))}

    def latents(self, x: np.ndarray) -> Tensor:
        return torch.as_tensor(self._predict(self.model.encoder, x)[0])

    def outputs(self, x: np.ndarray) -> Tensor:
        return torch.as_tensor(
            self.model.decoder.predict(self._predict(self.model.encoder, x)[0], 500, verbose=0)
        )

    def _predict(self, network, x: np.ndarray):
        return network.predict(x.reshape(-1, *self.shape), 500, verbose=0)

    def _variables(self) -> list:
        return [*self.model.variables, *self.model.optimizer.variables]

    def state(self) -> dict:
        return {str(i): v.value.detach().clone() for i, v in enumerate(self._variables())}

    def restore(self, state: dict) -> None:
        for i, variable in enumerate(self._variables()):
            variable.assign(state[str(i)])


def _named(pair: Tensor) -> dict[str, float]:
    reconstruction, kl = pair.tolist()
    return {"loss": reconstruction + kl, "reconstruction_loss": reconstruction, "kl_loss": kl}


# Stands for the data where only the code is in question: the losses of the untrained network on it
# are stored in the record, and a test computes them again.
RAMP = np.linspace(0, 1, 64 * 784, dtype=np.float32).reshape(64, 784)


def new_run(config: Config, loss: str) -> TorchRun | KerasRun:
    """The untrained model of `config` with one of its losses."""
    return (TorchRun if config.library == "torch" else KerasRun)(config, loss)
