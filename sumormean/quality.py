"""How good samples are, without a download: distances between features.

The usual score (FID, Heusel et al. 2017, arXiv:1706.08500) takes its features from a network
trained on photographs. Here they come from a small classifier of the same data set, so scores
compare methods on one data set under one classifier, and nothing else. Always show beside a score
that of real images against real images: no model can be expected to fall below it. A second
network, an autoencoder that never saw a label, says whether an order depends on the features; and
precision and recall say whether samples fail to look real, or fail to cover what is real.
"""

import numpy as np
import torch
from torch import Tensor

from sumormean.data import Dataset
from sumormean.features import feature_autoencoder, feature_classifier


def precision_and_recall(
    samples: np.ndarray | Tensor, real: np.ndarray | Tensor, k: int = 3
) -> tuple[float, float]:
    """Which share of the samples lies among real ones, and which of the real ones among samples.

    A point lies among others if it is no farther from one of them than that one's k-th nearest
    neighbour among its own: Kynkäänniemi et al. 2019, arXiv:1904.06991. Samples that are few and
    perfect have a high precision and a low recall. Of two draws from one distribution both are
    below 1, so show what real images get against real images.

    Parameters
    ----------
    samples, real : array or Tensor, shapes (N, F) and (N', F)
        Features; sets of one size if numbers are to be compared.

    Raises
    ------
    ValueError
        Different numbers of features, or no more than k points in one of the sets.

    Examples
    --------
    >>> real = np.random.default_rng(0).normal(size=(200, 2))
    >>> precision_and_recall(real[:20], real), precision_and_recall(real + 9, real)
    ((1.0, 0.875), (0.0, 0.0))
    """
    samples, real = (torch.as_tensor(a).double() for a in (samples, real))
    if (
        samples.ndim != 2
        or samples.shape[1:] != real.shape[1:]
        or min(map(len, (samples, real))) <= k
    ):
        raise ValueError(
            f"expected features (N, F) and (N', F), N > {k}; "
            f"got {tuple(samples.shape)}, {tuple(real.shape)}"
        )

    def among(points, others):
        radius = torch.cdist(others, others).kthvalue(k + 1, dim=1).values  # the first is itself
        return (torch.cdist(points, others) <= radius).any(1).double().mean().item()

    return among(samples, real), among(real, samples)


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
        self.test = data.x_test[rng.permutation(len(data.x_test))[: self.size]]
        self.train = data.x_train[rng.permutation(len(data.x_train))[: self.size]]
        self._target = self.net.features(self.test)
        self.real = self(self.train)

    def __call__(self, images: np.ndarray | Tensor) -> float:
        if len(images) != self.size:
            raise ValueError(f"got {len(images)} images; only sets of {self.size} compare")
        return frechet_distance(self.net.features(images), self._target)


class SampleScores:
    """Several scores of samples on one data set, under the two networks of this module.

    Called with ``size`` images (size, 28, 28) it returns a dict: Fréchet distance, precision and
    recall against test images, of the features of the classifier ("classifier", "precision",
    "recall") and of the autoencoder ("autoencoder", "precision_autoencoder", ...).

    Attributes
    ----------
    size : int
        How many images are compared.
    real : dict
        The scores of training images.

    Examples
    --------
    >>> from sumormean.data import load
    >>> scores = SampleScores(load("digits28"))
    >>> grey = scores(np.full((scores.size, 28, 28), 0.5))
    >>> grey["precision"], scores.real["precision"] > 0.5
    (0.0, True)
    """

    def __init__(self, data: Dataset, size: int = 2000, seed: int = 0):
        one = SampleScore(data, size, seed)
        self.size = one.size
        self.nets = {"classifier": one.net, "autoencoder": feature_autoencoder(data.x_train, seed)}
        self._targets = {name: net.features(one.test) for name, net in self.nets.items()}
        self.real = self(one.train)

    def __call__(self, images: np.ndarray | Tensor) -> dict[str, float]:
        if len(images) != self.size:
            raise ValueError(f"got {len(images)} images; only sets of {self.size} compare")
        scores = {}
        for name, net in self.nets.items():
            features, of = net.features(images), "_autoencoder" * (name == "autoencoder")
            precision, recall = precision_and_recall(features, self._targets[name])
            scores[name] = frechet_distance(features, self._targets[name])
            scores |= {f"precision{of}": precision, f"recall{of}": recall}
        return scores
