"""Draw the two pictures that are made from the first figure of the first chapter.

`python tools/pictures.py` writes the picture of the landing page, and the card that is shown with a
link to the book: its title, its rule and that picture.
"""

import base64
import json
from pathlib import Path

import matplotlib
import site_check

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

STATIC = site_check.ROOT / "book" / "_static"
LANDING, CARD = STATIC / "sum-or-mean.png", STATIC / "social-card.png"
SIZE = (1200, 630)  # pixels, what sites that show cards expect


def first_figure(notebook: Path) -> bytes:
    """The first PNG among the outputs of a notebook."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    data = (output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
    return base64.b64decode(next(d["image/png"] for d in data if "image/png" in d))


def draw_card(figure: Path = LANDING, card: Path = CARD) -> None:
    """Draw the card around this figure."""
    fig = plt.figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, facecolor="white")
    fig.text(0.06, 0.8, "Sum or Mean?", fontsize=48, fontweight="bold", color="#14213d")
    rule = "Sum over the pixels, sum over the latents, mean over the batch."
    fig.text(0.06, 0.68, rule, fontsize=21, color="#14213d")
    ax = fig.add_axes((0.06, 0.06, 0.88, 0.54))
    ax.imshow(plt.imread(figure), interpolation="antialiased")
    ax.axis("off")
    fig.savefig(card, metadata={"Software": None})
    plt.close(fig)


def main() -> None:
    LANDING.write_bytes(first_figure(site_check.ROOT / f"{site_check.chapters()[0]}.ipynb"))
    draw_card()


if __name__ == "__main__":
    main()
