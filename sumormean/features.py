"""Two small networks whose last hidden layer describes an image, for scores of samples.

One is taught the classes of a data set, the other nothing but its images.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sumormean.models import seeded

IMAGE = nn.Unflatten(1, (28, 28))


class Features(nn.Module):
    """A small convolutional network of (B, 28, 28) images; its last hidden layer has 64 units.

    ``forward(x)`` -> what the ``head`` of a subclass makes of these.
    """

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Unflatten(1, (1, 28)), nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU()),
            *(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(16 * 49, 64), nn.ReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    @torch.no_grad()
    def features(self, x: np.ndarray | Tensor) -> Tensor:
        """Last hidden layer of every image, (N, 28, 28) -> (N, 64)."""
        batches = torch.as_tensor(x, dtype=torch.float32).split(1000)
        return torch.cat([self.body(batch) for batch in batches]).float()  # also under autocast


class FeatureAutoencoder(Features):
    """Its head gives the logits of the image again, (B, 28, 28): 64 numbers say all it knows."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 784), IMAGE)


class FeatureClassifier(Features):
    """Its head gives the logits of the classes, (B, classes)."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.head = nn.Linear(64, classes)

    @torch.no_grad()
    def accuracy(self, x: np.ndarray | Tensor, y: np.ndarray) -> float:
        """Fraction of images (N, 28, 28) whose most likely class is y (N,)."""
        return float((self.head(self.features(x)).argmax(1) == torch.as_tensor(y)).float().mean())


def feature_classifier(
    x: np.ndarray | Tensor, y: np.ndarray, seed: int = 0, steps: int = 600
) -> FeatureClassifier:
    """A trained ``FeatureClassifier``: Adam on cross-entropy, a few seconds on one core.

    Parameters
    ----------
    x : array or Tensor, shape (N, 28, 28)
        Pixels in [0, 1].
    y : array, shape (N,)
        Integer classes from 0.
    seed : int
        Of the initial weights and of the batches.

    Examples
    --------
    >>> from sumormean.data import load
    >>> digits = load("digits28")
    >>> net = feature_classifier(digits.x_train, digits.y_train, steps=200)
    >>> net.accuracy(digits.x_test, digits.y_test) > 0.9
    True
    """
    x = torch.as_tensor(x, dtype=torch.float32)
    y = torch.as_tensor(y, dtype=torch.long)
    with seeded(seed):
        net = FeatureClassifier(int(y.max()) + 1)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, fused=True)
    for _ in range(steps):
        pick = torch.randint(len(x), (128,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(net(x[pick]), y[pick]).backward()
        optimizer.step()
    return net.eval()


def feature_autoencoder(
    x: np.ndarray | Tensor, seed: int = 0, steps: int = 600
) -> FeatureAutoencoder:
    """A trained ``FeatureAutoencoder``: Adam on cross-entropy, a few seconds on one core.

    Parameters
    ----------
    x : array or Tensor, shape (N, 28, 28)
        Pixels in [0, 1].
    seed : int
        Of the initial weights and of the batches.

    Examples
    --------
    >>> feature_autoencoder(np.zeros((10, 28, 28)), steps=1).features(np.ones((3, 28, 28))).shape
    torch.Size([3, 64])
    """
    x = torch.as_tensor(x, dtype=torch.float32)
    with seeded(seed):
        net = FeatureAutoencoder()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, fused=True)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (128,), generator=generator)]
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(net(batch), batch).backward()
        optimizer.step()
    return net.eval()
