"""The format of MNIST: gzipped IDX files of unsigned bytes, parsed with NumPy."""

import gzip
import math
import os
import zlib

import numpy as np

from sumormean.data.download import DataError

MAX_BYTES = 10**9  # of one array: beyond every data set here, within a laptop's memory


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
    return parse_idx(path, path)


def parse_idx(source, name: str | os.PathLike) -> np.ndarray:
    """From a path, or a file that is open; `name` is for the messages."""

    def error(what: str) -> DataError:
        return DataError(f"{name}: {what}; replace it with the original file")

    try:
        with gzip.open(source) as file:
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
