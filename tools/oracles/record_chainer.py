"""Record what Chainer 5.0.0 computes for the question's network (recipe: README.md).

A small instance (12 pixels, 7 hidden units, 3 latents, batch of 5) of the two-hidden-layer tanh
network with fixed weights, images and noise: the loss, both its terms and all gradients, for the
losses below, k = 1 and 2 samples, C = 1 and 1/2, in float32 and float64. Each case is one vector:
rec_loss, latent_loss, loss, then the gradients of W and b of every layer in the order of SIZES.
"""

import hashlib
import json
import platform
from pathlib import Path

import numpy as np

N_IN, N_H, N_LATENT, BATCH, SAMPLES = 12, 7, 3, 5, 2
SIZES = {
    "le1": (N_IN, N_H),
    "le2": (N_H, N_H),
    "le3_mu": (N_H, N_LATENT),
    "le3_ln_var": (N_H, N_LATENT),
    "ld1": (N_LATENT, N_H),
    "ld2": (N_H, N_H),
    "ld3": (N_H, N_IN),
}


def inputs() -> dict[str, np.ndarray]:
    """x, noise and weights, float64; weights of layer l are "l/W" (out, in) and "l/b" (out,)."""
    random = np.random.RandomState(0)
    arrays = {"x": random.rand(BATCH, N_IN), "eps": random.randn(SAMPLES, BATCH, N_LATENT)}
    for name, (n_in, n_out) in SIZES.items():
        arrays[f"{name}/W"] = random.randn(n_out, n_in) / np.sqrt(n_in)
        arrays[f"{name}/b"] = 0.1 * random.randn(n_out)
    return arrays


def main() -> None:
    import chainer
    import chainer.functions as F
    import chainer.links as L
    from chainer import Chain, Variable

    def reconstruction(loss, x, logits, k):
        """One sample's share of the reconstruction error."""
        if loss == "bernoulli_nll":
            return F.bernoulli_nll(x, logits) / (k * len(x))
        if loss == "mean_squared_error":
            return F.mean_squared_error(x, F.sigmoid(logits)) / k
        if loss == "mean_squared_error/batch":  # the swapped call with the old divisor left in
            return F.mean_squared_error(x, F.sigmoid(logits)) / (k * len(x))
        return F.mean(F.sum((x - F.sigmoid(logits)) ** 2, axis=1)) / k

    def run(loss, k, C, dtype):
        arrays = {name: array.astype(dtype) for name, array in inputs().items()}
        net = Chain()
        with net.init_scope():
            for name, (n_in, n_out) in SIZES.items():
                link = L.Linear(n_in, n_out)
                link.W.data, link.b.data = arrays[f"{name}/W"], arrays[f"{name}/b"]
                setattr(net, name, link)
        x = Variable(arrays["x"])
        h = F.tanh(net.le2(F.tanh(net.le1(x))))
        mu, ln_var = net.le3_mu(h), net.le3_ln_var(h)
        rec_loss = 0
        for eps in arrays["eps"][:k]:
            z = F.gaussian(mu, ln_var, eps=eps)
            logits = net.ld3(F.tanh(net.ld2(F.tanh(net.ld1(z)))))
            rec_loss += reconstruction(loss, x, logits, k)
        latent_loss = C * F.gaussian_kl_divergence(mu, ln_var) / len(x)
        total = rec_loss + latent_loss
        net.cleargrads()
        total.backward()
        parts = [rec_loss.data, latent_loss.data, total.data]
        parts += [gradient for name in SIZES for gradient in (net[name].W.grad, net[name].b.grad)]
        assert all(part.dtype == dtype for part in parts)
        return np.concatenate([part.ravel() for part in parts])

    losses = [
        "bernoulli_nll",
        "mean_squared_error",
        "mean_squared_error/batch",
        "summed_squared_error",
    ]
    golden = {f"input:{name}": array for name, array in inputs().items()}
    for dtype in ("float64", "float32"):
        for loss in losses:
            for k in (1, 2):
                for C in (1.0, 0.5):
                    golden[f"{dtype}:{loss}:{k}:{C}"] = run(loss, k, C, dtype)
    linear = L.Linear(784, 500)  # Chainer's default initialisation, as two numbers
    golden["init:std * sqrt(n_in)"] = linear.W.data.std() * np.sqrt(784)
    golden["init:largest bias"] = np.abs(linear.b.data).max()

    stamp = {
        "script": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "versions": {
            "chainer": chainer.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    golden["stamp"] = np.array(json.dumps(stamp))
    np.savez_compressed(Path(__file__).parents[2] / "data/oracles/chainer.npz", **golden)


if __name__ == "__main__":
    main()
