"""The book's figures: one style, one colour per thing, readable by colour-blind readers.

The colours are those of Okabe & Ito (2008). Figures have an opaque white ground, so they read
the same on a light and on a dark page.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SUM = "#0072B2"  # reconstruction summed over pixels (blue)
MEAN = "#D55E00"  # reconstruction averaged over pixels (vermillion)
KL = "#009E73"  # rate: anything about the KL term (green)
NLL = "#CC79A7"  # distortion: anything about the reconstruction term (purple)
THRESHOLD = "#000000"  # predicted threshold, best constant image, and other reference lines
NEUTRAL = "#7F7F7F"

# Ten colours for ten classes cannot all be told apart; latent_map also writes the class names.
CLASSES = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442",
    "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F", "#8C510A",
)  # fmt: skip


def sequence(n: int) -> list[tuple[float, ...]]:
    """n colours for n values of an ordered parameter (a β, a batch size), dark to light.

    From cividis, which colour-blind and other readers see alike; its pale end is left out.
    """
    return [plt.get_cmap("cividis")(value) for value in np.linspace(0, 0.85, n)]


def use_style() -> None:
    """Set the book's matplotlib style for this notebook."""
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=[SUM, MEAN, KL, NLL, NEUTRAL]),
            "axes.titlesize": 11,
            "legend.frameon": False,
            "image.cmap": "gray",
            "lines.linewidth": 2,
        }
    )


def image_rows(rows: dict[str, np.ndarray], vmax: float | None = 1.0) -> Figure:
    """One row of images per entry, its name written to the left.

    Parameters
    ----------
    rows : dict of str to array, shape (n, H, W)
        Pixels in [0, 1]; with ``vmax=None`` each image is scaled by itself.
    """
    n = max(len(images) for images in rows.values())
    fig, axes = plt.subplots(len(rows), n, figsize=(0.8 * n + 1.6, 0.85 * len(rows)), squeeze=False)
    for ax_row, (name, images) in zip(axes, rows.items(), strict=True):
        for ax in ax_row:
            ax.axis("off")
        for ax, image in zip(ax_row, images, strict=False):
            ax.imshow(image, vmin=0 if vmax else None, vmax=vmax)
        ax_row[0].text(
            -0.15, 0.5, name, transform=ax_row[0].transAxes, ha="right", va="center", fontsize=10
        )
    return fig


def latent_map(ax: Axes, mu: np.ndarray, y: np.ndarray, names: Sequence[str] | None = None) -> None:
    """Scatter of the first two latents by class, each class named at its median.

    Parameters
    ----------
    mu : array, shape (N, M)
        Posterior means of two latents or more.
    y : array, shape (N,)
        Integer labels.
    names : sequence of str, optional
        Of the classes, by label; default: the label itself.
    """
    mu, y = np.asarray(mu), np.asarray(y)
    ax.scatter(*mu[:, :2].T, c=np.take(CLASSES, y % 10), s=3, alpha=0.5, linewidths=0)
    for label in np.unique(y):
        ax.annotate(
            names[label] if names is not None else str(label),
            np.median(mu[y == label, :2], axis=0),
            ha="center",
            va="center",
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
        )
    ax.set(xlabel="$\\mu_1$", ylabel="$\\mu_2$", aspect="equal")
