"""Build digits28.npz: scikit-learn's handwritten digits, 8 x 8, resampled to 28 x 28.

Run from the repository: python data/build_digits28.py
Everything is integer arithmetic, so the result is the same on every machine.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

OUT = Path(__file__).with_name("digits28.npz")


def weights() -> np.ndarray:
    """(28, 8) bilinear weights in units of 1/14, half-pixel centres, edges clamped.

    Output pixel i lies at (2i + 1) * 8 / 56 - 1/2 = (4i - 5) / 14 in units of input pixels.
    """
    w = np.zeros((28, 8), dtype=np.int64)
    for i in range(28):
        left, part = divmod(4 * i - 5, 14)
        w[i, max(left, 0)] += 14 - part
        w[i, min(left + 1, 7)] += part
    return w


def build() -> dict[str, np.ndarray]:
    """The four arrays: x (N, 28, 28) and y (N,), uint8; every fifth image is for testing."""
    digits = load_digits()
    levels = digits.images.astype(np.int64)  # (1797, 8, 8), 0 to 16
    w = weights()
    total = w @ levels @ w.T  # 0 to 16 * 14 * 14
    x = ((255 * total * 2 + 3136) // (2 * 3136)).astype(np.uint8)  # rounded to nearest
    y = digits.target.astype(np.uint8)
    test = np.arange(len(x)) % 5 == 4
    return {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}


def main() -> None:
    arrays = build()
    np.savez_compressed(OUT, **arrays)
    print(f"{OUT.name}: {', '.join(f'{k} {v.shape}' for k, v in arrays.items())}")


if __name__ == "__main__":
    main()
