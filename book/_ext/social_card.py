"""The picture that is shown with a link to the book: its title, its rule and its first figure.

`python book/_ext/social_card.py` draws `book/_static/social-card.png` again.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

STATIC = Path(__file__).resolve().parent.parent / "_static"
SIZE = (1200, 630)  # pixels, what sites that show cards expect


def draw(figure: Path = STATIC / "sum-or-mean.png", card: Path = STATIC / "social-card.png"):
    fig = plt.figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, facecolor="white")
    fig.text(0.06, 0.8, "Sum or Mean?", fontsize=48, fontweight="bold", color="#14213d")
    rule = "Sum over the pixels, sum over the latents, mean over the batch."
    fig.text(0.06, 0.68, rule, fontsize=21, color="#14213d")
    ax = fig.add_axes((0.06, 0.06, 0.88, 0.54))
    ax.imshow(plt.imread(figure), interpolation="antialiased")
    ax.axis("off")
    fig.savefig(card, metadata={"Software": None})
    plt.close(fig)


if __name__ == "__main__":
    draw()
