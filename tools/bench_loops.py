"""Four ways through the same steps of the same VAE, timed in turn: for `make bench`.

784-400-20-400-784, ReLU, batches of 128, cross-entropy summed over the pixels plus the KL, Adam:
the network of PyTorch's own VAE example.
"""

import os
import statistics
import time
from collections.abc import Callable

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
import torch.nn.functional as F
from keras import ops
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sumormean.models import mlp_vae
from sumormean.originals.keras import KerasVAE, mlp_networks
from sumormean.training import fit
from vaeloss.likelihoods import bernoulli_nll, kl_standard_normal

HIDDEN, LATENT, BATCH, STEPS, ROUNDS = 400, 20, 128, 469, 5  # an epoch of MNIST


def network():
    return mlp_vae(latent_dim=LATENT, hidden=(HIDDEN,))


def ours(images: np.ndarray) -> None:
    def loss_fn(x, logits, mu, log_var):
        return bernoulli_nll(x, logits) + kl_standard_normal(mu, log_var)

    fit(network(), images, loss_fn, steps=STEPS, batch_size=BATCH, device="cpu")


def products() -> Callable[[], None]:
    """The matrix products of one step, forward and backward, into memory that is there already."""
    sizes = [(784, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, 784)]
    weights = [torch.randn(n_out, n_in) for n_in, n_out in sizes]
    inputs = [torch.randn(BATCH, n_in) for n_in, _ in sizes]
    outputs = [torch.randn(BATCH, n_out) for _, n_out in sizes]
    into = [torch.empty_like(tensor) for tensor in (*weights, *inputs, *outputs)]
    to_weights, to_inputs, to_outputs = into[:4], into[4:8], into[8:]

    def step():
        for i, (w, x, y) in enumerate(zip(weights, inputs, outputs, strict=True)):
            torch.mm(x, w.T, out=to_outputs[i])
            torch.mm(y.T, x, out=to_weights[i])
            if i > 0:  # nobody asks for the gradient of the pixels
                torch.mm(y, w, out=to_inputs[i])

    return step


class Images(Dataset):
    """One image and its label at a time, through PIL and into a tensor.

    The operations per image of torchvision's MNIST with ToTensor, without its checks: a pass costs
    85 % of torchvision 0.28's.
    """

    def __init__(self, images: np.ndarray):
        self.images = torch.as_tensor(images)
        self.labels = torch.zeros(len(images), dtype=torch.int64)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index: int):
        image = Image.fromarray(self.images[index].numpy(), mode="L")
        pixels = torch.from_numpy(np.array(image, np.uint8, copy=True))
        channels_last = pixels.view(image.height, image.width, len(image.getbands()))
        channels_first = channels_last.permute(2, 0, 1).contiguous()
        return channels_first.to(torch.float32).div(255), int(self.labels[index])


def loader(images: np.ndarray) -> None:
    """The loop of PyTorch's example: a DataLoader, Adam as it comes, the loss read at each step."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    total = 0.0
    for x, _ in DataLoader(Images(images), batch_size=BATCH, shuffle=True):
        x = x[:, 0]
        optimizer.zero_grad()
        logits, mu, log_var = model(x)
        bce = F.binary_cross_entropy(torch.sigmoid(logits), x, reduction="sum")
        kl = -0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp())
        loss = bce + kl
        loss.backward()
        total += loss.item()
        optimizer.step()


def keras_fit(images: np.ndarray) -> None:
    def terms(x, x_hat, mu, log_var):
        bce = 784 * keras.losses.binary_crossentropy(x, x_hat)
        kl = 0.5 * ops.sum(ops.square(mu) + ops.exp(log_var) - 1 - log_var, axis=1)
        return ops.mean(bce), ops.mean(kl)

    model = KerasVAE(*mlp_networks(784, HIDDEN, LATENT), terms)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    model.fit(images.reshape(-1, 784), epochs=1, batch_size=BATCH, verbose=0)


def ratios() -> dict[str, float]:
    """Seconds per step of our loop, and medians over rounds in which every way is timed once."""
    rng = np.random.default_rng(0)
    as_bytes = rng.integers(0, 256, (STEPS * BATCH, 28, 28), dtype=np.uint8)
    images = as_bytes.astype(np.float32) / 255
    step = products()

    def bound():
        for _ in range(STEPS):
            step()

    ways = {
        "products": bound,
        "ours": lambda: ours(images),
        "keras": lambda: keras_fit(images),
        "loader": lambda: loader(as_bytes),
    }
    rounds = []
    for _ in range(ROUNDS + 1):  # the first warms up
        took = {}
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            took[name] = time.perf_counter() - start
        rounds.append(took)
    rounds = rounds[1:]

    def median(above: str, below: str) -> float:
        return statistics.median(r[above] / r[below] for r in rounds)

    return {
        "ours": statistics.median(r["ours"] for r in rounds) / STEPS,
        "ours / products": median("ours", "products"),
        "keras / ours": median("keras", "ours"),
        "loader / ours": median("loader", "ours"),
    }
