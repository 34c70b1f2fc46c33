"""MNIST, Fashion-MNIST, and two bundled sets of pictures that need no network.

`load(name)` looks in `$VAELOSS_DATA`, then in the cache, then downloads; the SHA-256 sum of every
file is checked on every load, wherever it comes from. Files are parsed with NumPy, never unpickled.
`data/README.md` has the sources, licences and sums.
"""

import difflib
import io
import json
from dataclasses import dataclass

import numpy as np

from sumormean.data.download import DataError, Source, official_files
from sumormean.data.files import bundled
from sumormean.data.idx import parse_idx

_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _source(title: str, mirrors: tuple[str, ...], *published: tuple[int, str]) -> Source:
    return Source(title, mirrors, dict(zip(_FILES, published, strict=True)))


SOURCES = {
    "mnist": _source(
        "MNIST",
        (
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    "fashion_mnist": _source(
        "Fashion-MNIST",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
}
BUNDLED = ("digits28", "emoji32")
FALLBACK = "digits28"  # of the same shape, and digits too


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures and their labels, in train and test.

    Attributes
    ----------
    x_train, x_test : array, shape (N, 28, 28) or, in colour, (N, 32, 32, 3)
        float32 in [0, 1].
    y_train, y_test : array, shape (N,), int64
    groups : tuple of str
        The names of the labels, where these are groups (emoji32); else empty.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    groups: tuple[str, ...] = ()


def load(name: str, fallback: str | None = None) -> Dataset:
    """Load a set of pictures.

    ``mnist`` and ``fashion_mnist`` have 60,000 + 10,000 pictures of 28 x 28 pixels. Each of their
    files is taken from ``$VAELOSS_DATA/<name>/``, else from the cache, else from a mirror.
    ``digits28`` (1,438 + 359, 28 x 28) and ``emoji32`` (1,525 + 381, 32 x 32 in colour) are
    bundled.

    Parameters
    ----------
    name : str
        One of the four.
    fallback : str, optional
        "digits28", to use it when no source works. One printed line says so, within seconds if
        there is no network, and ``Dataset.name`` is the set that was loaded.

    Raises
    ------
    DataError
        Unknown name; ``$VAELOSS_DATA`` is no readable folder or holds a file that is not the
        official one (also with a fallback, which would hide it); without a fallback, no source
        works, or the cache cannot be written.

    Notes
    -----
    MNIST: Y. LeCun, C. Cortes, C. J. C. Burges; CC BY-SA 3.0. Fashion-MNIST: H. Xiao, K. Rasul,
    R. Vollgraf; MIT licence. digits28: E. Alpaydin, C. Kaynak, UCI; CC BY 4.0, from 8 x 8 images.
    emoji32: Twemoji, Twitter and other contributors; CC BY 4.0, from 64 x 64 images.

    Examples
    --------
    >>> digits = load("digits28")
    >>> digits.x_train.shape, digits.x_train.dtype, float(digits.x_train.max())
    ((1438, 28, 28), dtype('float32'), 1.0)
    >>> emoji = load("emoji32")
    >>> emoji.x_test.shape, emoji.groups[emoji.y_test[-1]]
    ((381, 32, 32, 3), 'Symbols')
    """
    known = [*SOURCES, *BUNDLED]
    if name not in known:
        near = difflib.get_close_matches(str(name).lower(), known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        hint = " Use load_molecules()." if name == "molecules" else hint
        raise DataError(f"unknown data set {name!r}: use one of {', '.join(known)}.{hint}")
    if fallback not in (None, FALLBACK):
        raise DataError(f"{fallback!r} cannot be a fallback: use {FALLBACK!r}")
    if name == "emoji32":
        return _load_emoji32()
    if name == "digits28":
        return _load_digits28()
    try:
        bodies = official_files(name, SOURCES[name])
    except DataError as error:
        if fallback is None or error.reason is None:
            raise
        failure = f"{SOURCES[name].title} could not be loaded ({error.reason})"
        print(f"{failure}; using the bundled {fallback} instead.")
        return _load_digits28()
    # What is parsed is what was checked, and it is freed as we go.
    return _dataset(name, *(parse_idx(io.BytesIO(bodies.pop(0)), file) for file in _FILES))


def _load_digits28() -> Dataset:
    with np.load(bundled("digits28.npz"), allow_pickle=False) as f:
        return _dataset("digits28", f["x_train"], f["y_train"], f["x_test"], f["y_test"])


def _load_emoji32() -> Dataset:
    with np.load(bundled("emoji32.npz"), allow_pickle=False) as f:
        x = f["x"]
    known = json.loads(bundled("emoji32-groups.json").read_text(encoding="utf-8"))
    y, test = np.array(known["group"]), np.arange(len(x)) % 5 == 4
    groups = tuple(known["groups"])
    return _dataset("emoji32", x[~test], y[~test], x[test], y[test], groups)


def _dataset(name, x_train, y_train, x_test, y_test, groups=()) -> Dataset:
    def pixels(x):
        x = x.astype(np.float32)
        x /= 255  # in place: the training images take 188 MB
        return x

    y_train, y_test = y_train.astype(np.int64), y_test.astype(np.int64)
    return Dataset(name, pixels(x_train), y_train, pixels(x_test), y_test, groups)
