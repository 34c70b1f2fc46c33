"""The published settings; every number the code uses is in them."""

from dataclasses import dataclass

SEED = 0


@dataclass(frozen=True)
class Config:
    """One published setting; ``losses`` are trained one after the other from the same weights."""

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
