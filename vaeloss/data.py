"""MNIST, Fashion-MNIST and a bundled set that needs no network.

`load(name)` looks in `$VAELOSS_DATA`, then in the cache, then downloads; the SHA-256 sum of every
file is checked on every load, wherever it comes from. Files are parsed with NumPy, never unpickled.
`data/README.md` has the sources, licences and sums.
"""

import difflib
import gzip
import hashlib
import math
import os
import sys
import tempfile
import threading
import time
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pooch's tqdm asks for ipywidgets, which nothing here needs
    import pooch

PROBE_SECONDS = 5.0  # to find out whether any mirror can be reached at all
FORGET_SECONDS = 300.0  # after which mirrors that did not answer are asked again
TIMEOUT = (5.0, 15.0)  # seconds to connect, and between two chunks of a download
MAX_BYTES = 10**9  # of one array: beyond every data set here, within a laptop's memory


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: mirrors in order, and name, SHA-256, shape of its four files."""

    title: str
    mirrors: tuple[str, ...]
    files: tuple[tuple[str, str, tuple[int, ...]], ...]


_FILES = (
    ("train-images-idx3-ubyte.gz", (60_000, 28, 28)),
    ("train-labels-idx1-ubyte.gz", (60_000,)),
    ("t10k-images-idx3-ubyte.gz", (10_000, 28, 28)),
    ("t10k-labels-idx1-ubyte.gz", (10_000,)),
)


def _source(title: str, mirrors: tuple[str, ...], *sums: str) -> Source:
    files = tuple((file, s, shape) for (file, shape), s in zip(_FILES, sums, strict=True))
    return Source(title, mirrors, files)


SOURCES = {
    "mnist": _source(
        "MNIST",
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
        "Fashion-MNIST",
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
    """A data set cannot be used; the message names the file and says how to mend it.

    reason : why no source works, in a few words; None for what a fallback must not hide.
    """

    def __init__(self, message: str, reason: str | None = None):
        super().__init__(message)
        self.reason = reason


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
        official one (also with a fallback, which would hide it); no source works and no fallback.

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
        paths = _locate(name)
    except DataError as error:
        if fallback is None or error.reason is None:
            raise
        failure = f"{SOURCES[name].title} could not be loaded ({error.reason})"
        print(f"{failure}; using the bundled {fallback} instead.")
        return _load_bundled(fallback)
    arrays = []
    for path, (_, _, shape) in zip(paths, SOURCES[name].files, strict=True):
        array = read_idx(path)
        if array.shape != shape:
            raise DataError(f"{path} has an array of shape {array.shape}, not {shape}: replace it")
        arrays.append(array)
    return _dataset(name, *arrays)


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes, the format of MNIST.

    Returns
    -------
    uint8 array, read-only, of the shape that the header announces: images (N, 28, 28) with pixels
    from 0 to 255, or labels (N,).

    Raises
    ------
    DataError: cannot be opened, not gzip, wrong magic number, truncated, or bytes left over.

    >>> import gzip, os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "labels-idx1-ubyte.gz")
    ...     with gzip.open(path, "wb") as file:
    ...         _ = file.write(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """

    def error(what: str) -> DataError:
        return DataError(f"{path}: {what}; replace it with the original file")

    try:
        with gzip.open(path) as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 3:
                raise error(f"not an IDX file of bytes (it begins with '{magic.hex(' ')}')")
            header = file.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise error("truncated inside its header")
            shape = tuple(int(n) for n in np.frombuffer(header, ">u4"))
            size = math.prod(shape)  # of Python's integers, which do not overflow
            if not 0 < size <= MAX_BYTES:
                raise error(f"its header announces an impossible array of shape {shape}")
            # One byte more than announced: enough to see a surplus, too little for a gzip bomb.
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as problem:
        raise error(f"cannot be read as a gzip file ({problem})") from problem
    if len(body) != size:
        what = "truncated" if len(body) < size else "bytes are left over"
        raise error(f"{what}: its header announces an array of shape {shape}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def bundled(filename: str) -> Path:
    """Path of a file that comes with the library, such as `digits28.npz`, or `folder/file`.

    Raises
    ------
    DataError: there is no such file.

    >>> bundled("digits28.npz").name
    'digits28.npz'
    """
    here = Path(__file__).parent
    # An installed wheel carries the files in vaeloss/_data, a checkout in data.
    for folder in (here / "_data", here.parent / "data"):
        if (folder / filename).is_file():
            return folder / filename
    raise DataError(f"the bundled file {filename} is missing: install vaeloss again")


def cache_folder() -> Path:
    """Where downloads are kept: `vaeloss` in the user's cache folder (`~/.cache` on Linux)."""
    return Path(pooch.os_cache("vaeloss")).expanduser()


def _locate(name: str) -> list[Path]:
    """The four files of a data set, sums checked; what is in neither folder is downloaded first."""
    local, cache = _local_folder(name), cache_folder() / name
    paths, missing = [], []
    for file, sha256, _ in SOURCES[name].files:
        path = cache / file
        if local and (local / file).exists():
            path = local / file
            if not _has_sum(path, sha256):
                raise DataError(
                    f"{path} is not the official file (its SHA-256 differs, or it cannot be read): "
                    "replace it, or remove it and it will be downloaded"
                )
        elif not _has_sum(path, sha256):
            missing.append((path, sha256))
        paths.append(path)
    if missing:
        _download(name, missing)
    return paths


def _local_folder(name: str) -> Path | None:
    root = os.environ.get("VAELOSS_DATA")
    if not root:
        return None
    folder = Path(root).expanduser().absolute()  # absolute: messages say where we really looked
    for path in (folder, folder / name):
        if path != folder and not path.exists():
            return None  # a folder with some of the data sets is fine
        if not (path.is_dir() and os.access(path, os.R_OK | os.X_OK)):
            raise DataError(f"VAELOSS_DATA: {path} is no readable folder: correct it or unset it")
    return folder / name


def _has_sum(path: Path, sha256: str) -> bool:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _download(name: str, missing: list[tuple[Path, str]]) -> None:
    source = SOURCES[name]

    def no_source(reason: str, tried: list[str]) -> DataError:
        return DataError(
            f"{source.title} could not be loaded: {reason} (tried {'; '.join(tried)}). Put its "
            f"files into a folder named {name} and set VAELOSS_DATA to the folder above it, or "
            f"call load({name!r}, fallback='digits28')",
            reason,
        )

    mirrors = _reachable(source.mirrors, missing[0][0].name)
    if not mirrors:
        raise no_source("no mirror reachable", [m + missing[0][0].name for m in source.mirrors])
    silent = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    fetch = pooch.HTTPDownloader(
        progressbar=not silent and sys.stderr is not None and sys.stderr.isatty(),
        chunk_size=2**16,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},  # the .gz itself, not unpacked on the way
    )
    for path, sha256 in missing:
        tried = []
        for url in (mirror + path.name for mirror in mirrors):
            try:
                _download_file(fetch, url, path, sha256)
            except (OSError, ValueError) as problem:  # requests' errors are OSErrors
                # Windows refuses to replace a file that another process has open: then it is there.
                if not _has_sum(path, sha256):
                    text = str(problem) if isinstance(problem, DataError) else repr(problem)
                    tried.append(f"{url}: {text}")
                    continue
            break
        else:
            raise no_source("every download failed", tried)


def _download_file(fetch: pooch.HTTPDownloader, url: str, path: Path, sha256: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Into a folder of this process's own, checked, and moved in one step: nobody sees a part of a
    # file under its name, and processes that download at once do not meet.
    with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        fetch(url, str(part), None)
        if not _has_sum(part, sha256):
            raise DataError("wrong SHA-256 sum")
        os.replace(part, path)


_silent_since: dict[tuple[str, ...], float] = {}  # mirrors none of which answered, and when


def _reachable(mirrors: tuple[str, ...], file: str) -> list[str]:
    """The mirrors that answer, in order, asked all at once: a dead network costs seconds in all."""
    now = time.monotonic()
    recent = [m for m, since in _silent_since.items() if now - since < FORGET_SECONDS]
    if mirrors in recent:
        return []
    answered: set[str] = set()

    def probe(mirror: str) -> None:
        try:
            requests.head(mirror + file, timeout=TIMEOUT)
            answered.add(mirror)  # with whatever status: the download and its sum decide
        except (OSError, ValueError):
            pass

    # Daemon threads: a name server that never answers cannot be interrupted, only left behind.
    threads = [threading.Thread(target=probe, args=(m,), daemon=True) for m in mirrors]
    for thread in threads:
        thread.start()
    # Where another data set's mirrors have just been silent, these have half the time.
    deadline = now + PROBE_SECONDS / (2 if recent else 1)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    reachable = [m for m in mirrors if m in answered]
    if not reachable:
        _silent_since[mirrors] = now
    return reachable


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
