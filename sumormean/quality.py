"""How good samples are, without a download: the Fréchet distance between features.

The usual score (FID, Heusel et al. 2017, arXiv:1706.08500) takes its features from a network
trained on photographs. Here they come from a small classifier of the same data set, so scores
compare methods on one data set under one classifier, and nothing else. Always show beside a score
that of real images against real images: no model can be expected to fall below it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sumormean.data import Dataset
from sumormean.models import seeded


class FeatureClassifier(nn.Module):
    """A small convolutional classifier of (B, 28, 28) images; its last hidden layer has 64 units.

    ``forward(x)`` -> logits (B, classes).
    """

    def __init__(self, classes: int = 10):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Unflatten(1, (1, 28)), nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU()),
            *(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(16 * 49, 64), nn.ReLU()),
        )
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    @torch.no_grad()
    def features(self, x: np.ndarray | Tensor) -> Tensor:
        """Last hidden layer of every image, (N, 28, 28) -> (N, 64)."""
        batches = torch.as_tensor(x, dtype=torch.float32).split(1000)
        return torch.cat([self.body(batch) for batch in batches]).float()  # also under autocast

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


def frechet_distance(a: np.ndarray | Tensor, b: np.ndarray | Tensor) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features.

    ``|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))``: Dowson & Landau 1982; as a score of
    samples Heusel et al. 2017, arXiv:1706.08500. In squared units of the features; 0 if means and
    covariances agree. Finite sets raise it, the more the smaller they are, so compare only scores
    of sets of one size.

    Parameters
    ----------
    a, b : array or Tensor, shapes (N, F) and (N', F)
        Features.

    Raises
    ------
    ValueError
        Different numbers of features, or fewer than two samples.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> round(frechet_distance(x, x + [3.0, 4.0, 0.0]), 6)  # a shift costs its square
    25.0
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"expected features (N, F) and (N', F), N > 1; got {a.shape}, {b.shape}")
    cov_a, cov_b = (np.atleast_2d(np.cov(values, rowvar=False, ddof=0)) for values in (a, b))
    # The eigenvalues of C_a C_b are those of the symmetric root(C_a) C_b root(C_a), which stays
    # real and positive where a covariance is singular.
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    # Rounding may leave -1e-12 where the true value is 0.
    return float(max(shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross, 0.0))


class SampleScore:
    """The score of samples on one data set: 0 is perfect, ``real`` is what real images get.

    Called with as many images (size, 28, 28) as it was made for, it returns their Fréchet distance
    from as many test images. Both sets of real images are drawn at random: the first half of
    MNIST's test set was written by neater people than the second, which alone costs more than ten
    times what chance does.

    Attributes
    ----------
    size : int
        How many images are compared; at most as many as there are test images.
    accuracy : float
        Of the classifier, on the whole test set.
    real : float
        The distance of training images from test images.

    Examples
    --------
    >>> from sumormean.data import load
    >>> digits = load("digits28")
    >>> score = SampleScore(digits)
    >>> grey = np.full((score.size, 28, 28), 0.5)
    >>> score.real < score(grey)
    True
    """

    def __init__(self, data: Dataset, size: int = 2000, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.size = min(size, len(data.x_test))
        self.net = feature_classifier(data.x_train, data.y_train, seed)
        self.accuracy = self.net.accuracy(data.x_test, data.y_test)
        self._target = self.net.features(
            data.x_test[rng.permutation(len(data.x_test))[: self.size]]
        )
        self.real = self(data.x_train[rng.permutation(len(data.x_train))[: self.size]])

    def __call__(self, images: np.ndarray | Tensor) -> float:
        if len(images) != self.size:
            raise ValueError(f"got {len(images)} images; only sets of {self.size} compare")
        return frechet_distance(self.net.features(images), self._target)
