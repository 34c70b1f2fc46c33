"""The Keras VAEs that people copy, on Keras 3 with its torch backend.

The networks are those of the Keras examples (2018: fully connected; since 2020: convolutional),
the code is ours. The loss is an argument, because the losses are what the examples differ in.
"""

import os
from collections.abc import Callable

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras  # noqa: E402 (the backend must be chosen before the import)
import torch  # noqa: E402
from keras import layers, losses, ops  # noqa: E402

from sumormean.models import seeded  # noqa: E402
from sumormean.originals.configs import Config  # noqa: E402

if keras.backend.backend() != "torch":
    raise ImportError(
        f"the book's Keras models need the torch backend, Keras runs on {keras.backend.backend()}: "
        "set KERAS_BACKEND=torch before keras is first imported"
    )

# terms(x, x_hat, mu, log_var) -> reconstruction, KL: two scalars whose sum is the loss
Terms = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def sample_normal(mu, log_var, seed):
    """z = mu + exp(log_var / 2) * eps, eps ~ N(0, I). Shapes (B, M) -> (B, M)."""
    return mu + ops.exp(0.5 * log_var) * keras.random.normal(ops.shape(mu), seed=seed)


class KerasVAE(keras.Model):
    """Encoder, sample, decoder and a custom ``train_step``, as in the Keras example.

    After an epoch the history holds the means over the steps of ``loss``, ``reconstruction_loss``
    and ``kl_loss``, and ``bar_loss``: the mean over the steps of the running mean of the loss,
    which is what the progress bar of Keras 2 printed as "loss" and what the log on keras.io shows.

    Parameters
    ----------
    encoder : Model
        (B, ...) -> [mu, log_var], each (B, M).
    decoder : Model
        (B, M) -> pixel means in [0, 1], (B, ...).
    terms : callable
        ``terms(x, x_hat, mu, log_var)`` -> (reconstruction, kl), already reduced and weighted.
    sample : callable
        ``sample(mu, log_var, seed)`` -> z.
    seed : int
        Of the latent noise.
    """

    def __init__(self, encoder, decoder, terms: Terms, sample=sample_normal, seed: int = 0):
        super().__init__()
        self.encoder, self.decoder, self.terms, self.sample = encoder, decoder, terms, sample
        self.noise = keras.random.SeedGenerator(seed)
        names = ("loss", "reconstruction_loss", "kl_loss", "bar_loss")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True  # there is no call() from which Keras could build it

    @property
    def metrics(self):
        return list(self.trackers.values())

    def forward_terms(self, x, training: bool = False):
        """reconstruction and KL of one batch, as ``terms`` reduces them."""
        mu, log_var = self.encoder(x, training=training)
        x_hat = self.decoder(self.sample(mu, log_var, self.noise), training=training)
        return self.terms(x, x_hat, mu, log_var)

    def train_step(self, x):
        self.zero_grad()  # Keras only does this in its own train_step; without it gradients add up
        reconstruction, kl = self.forward_terms(x, training=True)
        loss = reconstruction + kl
        loss.backward()
        weights = self.trainable_weights
        with torch.no_grad():
            self.optimizer.apply([w.value.grad for w in weights], weights)
        return self._track(loss, reconstruction, kl)

    def test_step(self, x):
        reconstruction, kl = self.forward_terms(x)
        return self._track(reconstruction + kl, reconstruction, kl)

    def _track(self, loss, reconstruction, kl):
        values = {"loss": loss, "reconstruction_loss": reconstruction, "kl_loss": kl}
        for name, value in values.items():
            self.trackers[name].update_state(value.detach())
        self.trackers["bar_loss"].update_state(self.trackers["loss"].result())
        return {name: tracker.result() for name, tracker in self.trackers.items()}


def conv_networks(latent_dim: int = 2, channels: int = 1, seed: int = 0):
    """Encoder and decoder of the convolutional example: (B, 28, 28, channels) <-> (B, M).

    Examples
    --------
    >>> encoder, decoder = conv_networks()
    >>> encoder.count_params(), decoder.count_params()
    (69076, 65089)
    """
    inputs = keras.Input((28, 28, channels))
    h = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(inputs)
    h = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu")(h)
    h = layers.Dense(16, activation="relu")(layers.Flatten()(h))
    encoder = keras.Model(inputs, [layers.Dense(latent_dim)(h), layers.Dense(latent_dim)(h)])

    inputs = keras.Input((latent_dim,))
    h = layers.Reshape((7, 7, 64))(layers.Dense(7 * 7 * 64, activation="relu")(inputs))
    h = layers.Conv2DTranspose(64, 3, strides=2, padding="same", activation="relu")(h)
    h = layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu")(h)
    outputs = layers.Conv2DTranspose(channels, 3, padding="same", activation="sigmoid")(h)
    return _initialised(encoder, keras.Model(inputs, outputs), seed=seed)


def mlp_networks(n_in: int = 784, hidden: int = 512, latent_dim: int = 2, seed: int = 0):
    """Encoder and decoder of the fully connected example of 2018: (B, n_in) <-> (B, M).

    Examples
    --------
    >>> encoder, decoder = mlp_networks()
    >>> encoder.count_params(), decoder.count_params()
    (403972, 403728)
    """
    inputs = keras.Input((n_in,))
    h = layers.Dense(hidden, activation="relu")(inputs)
    encoder = keras.Model(inputs, [layers.Dense(latent_dim)(h), layers.Dense(latent_dim)(h)])

    inputs = keras.Input((latent_dim,))
    h = layers.Dense(hidden, activation="relu")(inputs)
    decoder = keras.Model(inputs, layers.Dense(n_in, activation="sigmoid")(h))
    return _initialised(encoder, decoder, seed=seed)


def _initialised(*models: keras.Model, seed: int) -> tuple[keras.Model, ...]:
    """Draw Keras's default weights (Glorot uniform) again, from seeds of our own.

    Keras seeds its default initialisers from Python's global ``random``, which we leave alone.
    """
    kernels = [w for model in models for w in model.trainable_weights if w.name == "kernel"]
    for i, kernel in enumerate(kernels):
        draw = keras.initializers.GlorotUniform(seed=1000 * seed + i)
        kernel.assign(draw(kernel.shape))
    return models


def keras_terms(loss: str):
    """The losses of the Keras examples, for x and x_hat (B, n_in) in 2018, else (B, H, W, 1).

    The examples write the number of pixels as 784 or 28 * 28.
    """

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


class KerasRun:
    """A Keras model of ``config`` and its optimiser, trained by ``fit`` with a train_step."""

    def __init__(self, config: Config, loss: str):
        self.config = config
        if config.network == "keras-conv":
            networks = conv_networks(config.latent_dim, seed=config.seed)
            self.shape = (28, 28, 1)
        else:
            networks = mlp_networks(784, config.hidden, config.latent_dim, config.seed)
            self.shape = (784,)
        self.model = KerasVAE(*networks, keras_terms(loss), seed=config.seed)
        self.model.compile(keras.optimizers.Adam(config.learning_rate))
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
        return {name: terms[name] for name in ("loss", "reconstruction_loss", "kl_loss")}

    def latents(self, x: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(self._predict(self.model.encoder, x)[0])

    def outputs(self, x: np.ndarray) -> torch.Tensor:
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
