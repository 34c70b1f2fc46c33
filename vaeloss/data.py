"""MNIST, Fashion-MNIST and a bundled set that needs no network.

`load(name)` looks in `$VAELOSS_DATA`, then in the cache, then downloads; the SHA-256 sum of every
file is checked on every load, wherever it comes from. Files are parsed with NumPy, never unpickled.
"""

import difflib
import gzip
import hashlib
import os
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import requests

PROBE_SECONDS = 6.0  # to find out whether any mirror can be reached at all
TIMEOUT = (5.0, 15.0)  # seconds to connect, and between two chunks of a download


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: mirrors in order, and name, SHA-256, shape of its four files."""

    mirrors: tuple[str, ...]
    files: tuple[tuple[str, str, tuple[int, ...]], ...]


_FILES = (
    ("train-images-idx3-ubyte.gz", (60_000, 28, 28)),
    ("train-labels-idx1-ubyte.gz", (60_000,)),
    ("t10k-images-idx3-ubyte.gz", (10_000, 28, 28)),
    ("t10k-labels-idx1-ubyte.gz", (10_000,)),
)


def _source(mirrors: tuple[str, ...], *sums: str) -> Source:
    return Source(mirrors, tuple((f, s, shape) for (f, shape), s in zip(_FILES, sums, strict=True)))


SOURCES = {
    "mnist": _source(
        (
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    "fashion_mnist": _source(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}
BUNDLED = ("digits28",)


class DataError(ValueError):
    """A data set cannot be used; the message names the file and says how to mend it."""


@dataclass(frozen=True)
class Dataset:
    """Images x (N, 28, 28), float32 in [0, 1], and labels y (N,), int64, in train and test."""

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load(name: str, fallback: str | None = None) -> Dataset:
    """Load a data set by name: `mnist`, `fashion_mnist`, or the bundled `digits28`.

    Looks in the folder `$VAELOSS_DATA/<name>`, then in the cache, then downloads.

    Parameters
    ----------
    fallback : a bundled set to use, with one line that says so, when no source can be reached.

    Raises
    ------
    DataError: unknown name; a file in `$VAELOSS_DATA` that is not the official one; no source works
        (and no fallback was named).

    Sources: LeCun et al. 1998 (MNIST), Xiao et al. 2017 (Fashion-MNIST), UCI handwritten digits.

    >>> digits = load("digits28")
    >>> digits.x_train.shape, digits.x_train.dtype, float(digits.x_train.max())
    ((1438, 28, 28), dtype('float32'), 1.0)
    """
    for known in (name, fallback):
        if known is not None and known not in (*SOURCES, *BUNDLED):
            near = difflib.get_close_matches(known, (*SOURCES, *BUNDLED), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"unknown data set {known!r}: use one of {[*SOURCES, *BUNDLED]}.{hint}")
    if fallback is not None and fallback not in BUNDLED:
        raise DataError(
            f"{fallback!r} needs a download, so it cannot be a fallback: use 'digits28'"
        )
    if name in BUNDLED:
        return _load_bundled(name)
    try:
        folder = _folder(name)
    except Unreachable as error:
        if fallback is None:
            raise
        print(f"{name}: {error.reason}; using the bundled {fallback} instead.")
        return _load_bundled(fallback)
    arrays = []
    for file, _, shape in SOURCES[name].files:
        array = read_idx(folder / file)
        if array.shape != shape:
            raise DataError(f"{folder / file} holds an array of shape {array.shape}, not {shape}")
        arrays.append(array)
    x_train, y_train, x_test, y_test = arrays
    return _dataset(name, x_train, y_train, x_test, y_test)


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes, the format of MNIST.

    Returns
    -------
    uint8 array of the shape that the header announces.

    Raises
    ------
    DataError: cannot be opened, not gzip, wrong magic number, truncated, or bytes left over.
    """

    def error(what: str) -> DataError:
        return DataError(f"{path}: {what}. Delete the file; load() will fetch it again")

    try:
        with gzip.open(path) as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 3:
                raise error(f"not an IDX file of bytes (it begins with {magic.hex() or 'nothing'})")
            header = file.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise error("truncated inside its header")
            shape = tuple(int(n) for n in np.frombuffer(header, ">u4"))
            size = int(np.prod(shape, dtype=object))
            if size > 10**9:
                raise error(f"its header announces {size:,} bytes, which no data set here has")
            # One byte more than announced: enough to see a surplus, too little for a gzip bomb.
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as problem:
        raise error(f"cannot be read as gzip ({problem})") from problem
    if len(body) != size:
        raise error(f"{'truncated' if len(body) < size else 'too long'}: {size:,} bytes expected")
    return np.frombuffer(body, np.uint8).reshape(shape)


def bundled(filename: str) -> Path:
    """Path of a file that comes with the library: `digits28.npz`, or a record in `runs/`.

    Raises
    ------
    DataError: there is no such file.

    >>> bundled("digits28.npz").name
    'digits28.npz'
    """
    here = Path(__file__).parent
    # an installed wheel carries the files in vaeloss/_data, a checkout in data
    for folder in (here / "_data", here.parent / "data"):
        if (folder / filename).is_file():
            return folder / filename
    raise DataError(f"the bundled file {filename} is missing: install vaeloss again")


def cache_folder() -> Path:
    """Where downloads are kept: the user's cache folder, in `vaeloss`."""
    return Path(pooch.os_cache("vaeloss"))


class Unreachable(DataError):
    """No source of a data set works."""

    def __init__(self, name: str, reason: str):
        self.reason = reason
        super().__init__(
            f"{name} could not be loaded: {reason}. Put its files into a folder {name} and set "
            "VAELOSS_DATA to the folder above it, or call load(name, fallback='digits28')"
        )


def _folder(name: str) -> Path:
    """A folder with the four files of a data set, sums checked, downloading what is missing."""
    root = os.environ.get("VAELOSS_DATA")
    if root:
        if not Path(root).is_dir() or not os.access(root, os.R_OK | os.X_OK):
            raise DataError(f"VAELOSS_DATA is {root}, which is not a readable folder: correct it")
        folder = Path(root) / name
        present = [f for f in SOURCES[name].files if (folder / f[0]).exists()]
        for file, sha256, _ in present:
            if not _has_sum(folder / file, sha256):
                raise DataError(
                    f"{folder / file} is not the official file (its SHA-256 differs, or it cannot "
                    "be read): replace it, or unset VAELOSS_DATA to download"
                )
        if len(present) == len(SOURCES[name].files):
            return folder
    folder = cache_folder() / name
    missing = [f for f in SOURCES[name].files if not _has_sum(folder / f[0], f[1])]
    if missing:
        _download(name, folder, missing)
    return folder


def _has_sum(path: Path, sha256: str) -> bool:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _download(name: str, folder: Path, files) -> None:
    mirrors = _reachable(SOURCES[name].mirrors, files[0][0])
    if not mirrors:
        raise Unreachable(name, "no mirror can be reached")
    quiet = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    fetch = pooch.HTTPDownloader(progressbar=not quiet, timeout=TIMEOUT)
    pooch.get_logger().setLevel("ERROR")
    for file, sha256, _ in files:
        problems = []
        for mirror in mirrors:
            try:
                # into a temporary file beside the target, sum checked, then moved: a partial
                # download is never seen, and two processes do not disturb each other
                pooch.retrieve(mirror + file, f"sha256:{sha256}", file, folder, downloader=fetch)
            except (OSError, ValueError, requests.RequestException) as problem:
                problems.append(f"{mirror + file}: {type(problem).__name__}: {problem}")
            # another process may have put the file there while ours failed to
            if _has_sum(folder / file, sha256):
                break
        else:
            raise Unreachable(name, "every mirror failed: " + "; ".join(problems))


def _reachable(mirrors: tuple[str, ...], file: str) -> list[str]:
    """The mirrors that answer, in order, asked all at once: a dead network costs seconds in all."""
    if mirrors in _dead:
        return []
    answered: set[str] = set()

    def probe(mirror: str) -> None:
        try:
            requests.head(mirror + file, timeout=TIMEOUT)
            answered.add(mirror)  # with whatever status: the download and its sum decide
        except requests.RequestException:
            pass

    # daemon threads: a name server that never answers cannot be interrupted, only left behind
    threads = [threading.Thread(target=probe, args=(m,), daemon=True) for m in mirrors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PROBE_SECONDS / len(threads))
    reachable = [m for m in mirrors if m in answered]
    if not reachable:
        _dead.add(mirrors)
    return reachable


_dead: set[tuple[str, ...]] = set()  # not asked twice by one process


def _load_bundled(name: str) -> Dataset:
    with np.load(bundled(f"{name}.npz"), allow_pickle=False) as f:
        return _dataset(name, f["x_train"], f["y_train"], f["x_test"], f["y_test"])


def _dataset(name, x_train, y_train, x_test, y_test) -> Dataset:
    def pixels(x):
        return x.astype(np.float32) / np.float32(255)

    return Dataset(
        name, pixels(x_train), y_train.astype(np.int64), pixels(x_test), y_test.astype(np.int64)
    )
