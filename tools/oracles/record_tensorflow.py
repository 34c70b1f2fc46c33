"""Record what TensorFlow computes for the losses of the Keras examples (recipe: README.md).

Each loss is evaluated on the same random images, outputs and posteriors, grey (8, 8, 1) and
colour (8, 8, 3): its value and its gradients with respect to x_hat, mu and log_var, in float32
and float64. Some outputs are exactly 0 or 1, so that the libraries' clipping shows.
"""

import hashlib
import json
import os
import platform
from pathlib import Path

import numpy as np

BATCH, M = 3, 4


def inputs(channels: int) -> dict[str, np.ndarray]:
    """x, x_hat (B, 8, 8, channels) in [0, 1] and mu, log_var (B, M), float64."""
    random = np.random.RandomState(channels)
    shape = (BATCH, 8, 8, channels)
    x_hat = 1 / (1 + np.exp(-3 * random.randn(*shape)))
    x_hat[:, 0, 0], x_hat[:, 0, 1] = 0.0, 1.0
    return {
        "x": random.rand(*shape),
        "x_hat": x_hat,
        "mu": random.randn(BATCH, M),
        "log_var": random.randn(BATCH, M),
    }


def main() -> None:
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    import tensorflow as tf

    bce, mse = tf.keras.losses.binary_crossentropy, tf.keras.losses.MSE

    def kl(mu, log_var):
        return -0.5 * (1 + log_var - tf.square(mu) - tf.exp(log_var))

    def flat(t):
        return tf.reshape(t, (BATCH, -1))

    # The number of pixels is written 784 or 28 * 28 in the examples; here it is that of x.
    def blog_2016(x, x_hat, mu, log_var):
        return tf.reduce_mean(bce(flat(x), flat(x_hat)) + tf.reduce_mean(kl(mu, log_var), axis=1))

    def july_25_2016(x, x_hat, mu, log_var):
        return tf.reduce_mean(bce(flat(x), flat(x_hat)) + tf.reduce_sum(kl(mu, log_var), axis=1))

    def example_2018(call):
        def loss(x, x_hat, mu, log_var):
            d = flat(x).shape[1]
            per_image = d * call(flat(x), flat(x_hat)) + tf.reduce_sum(kl(mu, log_var), axis=1)
            return tf.reduce_mean(per_image)

        return loss

    def july_2020(x, x_hat, mu, log_var):
        d = x.shape[1] * x.shape[2]
        return d * tf.reduce_mean(bce(x, x_hat)) + tf.reduce_mean(kl(mu, log_var))

    def now(x, x_hat, mu, log_var):
        reconstruction = tf.reduce_mean(tf.reduce_sum(bce(x, x_hat), axis=(1, 2)))
        return reconstruction + tf.reduce_mean(tf.reduce_sum(kl(mu, log_var), axis=1))

    def question_squared(x, x_hat, mu, log_var):
        reconstruction = tf.reduce_sum(tf.math.squared_difference(x_hat, x), axis=[1, 2, 3])
        return tf.reduce_mean(reconstruction + tf.reduce_sum(kl(mu, log_var), axis=1))

    def question_clipped(x, x_hat, mu, log_var):
        y = tf.clip_by_value(x_hat, 1e-8, 1 - 1e-8)
        terms = x * tf.math.log(y) + (1 - x) * tf.math.log(1 - y)
        reconstruction = -tf.reduce_sum(terms, axis=[1, 2, 3])
        return tf.reduce_mean(reconstruction + tf.reduce_sum(kl(mu, log_var), axis=1))

    losses = {
        "blog 2016": blog_2016,
        "25 July 2016": july_25_2016,
        "2018": example_2018(bce),
        "2018 --mse": example_2018(mse),
        "July 2020": july_2020,
        "now": now,
        "generic squared": question_squared,
        "generic clipped": question_clipped,
    }
    golden = {}
    for channels in (1, 3):
        arrays = inputs(channels)
        golden |= {f"input:{channels}:{name}": array for name, array in arrays.items()}
        for dtype in ("float64", "float32"):
            tensors = {name: tf.constant(array, dtype) for name, array in arrays.items()}
            for name, loss in losses.items():
                with tf.GradientTape() as tape:
                    tape.watch(list(tensors.values()))
                    value = loss(**tensors)
                wanted = ("x_hat", "mu", "log_var")
                gradients = tape.gradient(value, [tensors[key] for key in wanted])
                golden[f"{dtype}:{channels}:{name}:loss"] = value.numpy()
                for key, gradient in zip(wanted, gradients, strict=True):
                    golden[f"{dtype}:{channels}:{name}:{key}"] = gradient.numpy()

    stamp = {
        "script": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "versions": {
            "tensorflow": tf.__version__,
            "keras": tf.keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    golden["stamp"] = np.array(json.dumps(stamp))
    np.savez_compressed(Path(__file__).parents[2] / "data/oracles/tensorflow.npz", **golden)


if __name__ == "__main__":
    main()
