"""MNIST, Fashion-MNIST and a bundled set that needs no network.

`load(name)` looks in `$VAELOSS_DATA`, then in the cache, then downloads; the SHA-256 sum of every
file is checked on every load, wherever it comes from. Files are parsed with NumPy, never unpickled.
`data/README.md` has the sources, licences and sums.
"""

import difflib
import io
from dataclasses import dataclass

import numpy as np

from sumormean.data.download import DataError, OfficialFile, Source, official_files
from sumormean.data.files import bundled
from sumormean.data.idx import parse_idx

_FILES = (
    ("train-images-idx3-ubyte.gz", (60_000, 28, 28)),
    ("train-labels-idx1-ubyte.gz", (60_000,)),
    ("t10k-images-idx3-ubyte.gz", (10_000, 28, 28)),
    ("t10k-labels-idx1-ubyte.gz", (10_000,)),
)


def _source(title: str, mirrors: tuple[str, ...], *published: tuple[int, str]) -> Source:
    both = zip(_FILES, published, strict=True)
    return Source(title, mirrors, tuple(OfficialFile(*known, *new) for known, new in both))


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
BUNDLED = ("digits28",)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images x (N, 28, 28), float32 in [0, 1], and labels y (N,), int64, in train and test."""

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load(name: str, fallback: str | None = None) -> Dataset:
    """Load a data set: `mnist`, `fashion_mnist` (60,000 + 10,000 images), `digits28` (1,438 + 359).

    Each file is taken from `$VAELOSS_DATA/<name>/`, else from the cache, else from a mirror.

    Parameters
    ----------
    fallback : the bundled set, `digits28`, to use when no source works. One printed line says so,
        within seconds if there is no network, and `Dataset.name` is the set that was loaded.

    Raises
    ------
    DataError: unknown name; `$VAELOSS_DATA` is no readable folder or holds a file that is not the
        official one (also with a fallback, which would hide it); without a fallback, no source
        works, or the cache cannot be written. (The class is `sumormean.data.download.DataError`.)

    Sources
    -------
    MNIST: Y. LeCun, C. Cortes, C. J. C. Burges; CC BY-SA 3.0. Fashion-MNIST: H. Xiao, K. Rasul,
    R. Vollgraf; MIT licence. digits28: E. Alpaydin, C. Kaynak, UCI; CC BY 4.0, from 8 x 8 images.

    >>> digits = load("digits28")
    >>> digits.x_train.shape, digits.x_train.dtype, float(digits.x_train.max())
    ((1438, 28, 28), dtype('float32'), 1.0)
    """
    known = [*SOURCES, *BUNDLED]
    for asked in (name,) if fallback is None else (name, fallback):
        if asked not in known:
            near = difflib.get_close_matches(str(asked).lower(), known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"unknown data set {asked!r}: use one of {', '.join(known)}.{hint}")
    if fallback in SOURCES:
        raise DataError(f"{fallback!r} is not bundled, so it cannot be a fallback: use 'digits28'")
    if name in BUNDLED:
        return _load_bundled(name)
    try:
        bodies = official_files(name, SOURCES[name])
    except DataError as error:
        if fallback is None or error.reason is None:
            raise
        failure = f"{SOURCES[name].title} could not be loaded ({error.reason})"
        print(f"{failure}; using the bundled {fallback} instead.")
        return _load_bundled(fallback)
    arrays = []
    for file in SOURCES[name].files:
        body = bodies.pop(0)  # what is parsed is what was checked, and freed as we go
        array = parse_idx(io.BytesIO(body), file.name)
        if array.shape != file.shape:
            raise DataError(f"{file.name} has an array of shape {array.shape}, not {file.shape}")
        arrays.append(array)
    return _dataset(name, *arrays)


def _load_bundled(name: str) -> Dataset:
    with np.load(bundled(f"{name}.npz"), allow_pickle=False) as f:
        return _dataset(name, f["x_train"], f["y_train"], f["x_test"], f["y_test"])


def _dataset(name, x_train, y_train, x_test, y_test) -> Dataset:
    def pixels(x):
        x = x.astype(np.float32)
        x /= 255  # in place: the training images take 188 MB
        return x

    return Dataset(
        name, pixels(x_train), y_train.astype(np.int64), pixels(x_test), y_test.astype(np.int64)
    )
