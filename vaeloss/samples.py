"""Reading a file of samples: .npy, .npz, .csv, IDX, or a folder of images.

Nothing is unpickled. Values are left as they are: what unit they have is for the reader to say.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
MISSING = ("na", "n/a", "null", "none", "?", "-")
KINDS = ".npy, .npz, .csv, an IDX file, or a folder of images"


def read_samples(name: str) -> np.ndarray:
    """The array in a file, (N, ...), or of a folder of images, (N, H, W) or (N, H, W, 3).

    Parameters
    ----------
    name : str
        A path; of an archive with several arrays ``path.npz:key``. A memory map of .npy.

    Raises
    ------
    ValueError
        The file is missing, of another kind, broken, or holds no array of numbers.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "x.csv")
    ...     with open(path, "w") as file:
    ...         _ = file.write("a,b\\n0.5,1\\n0,2.5\\n")
    ...     read_samples(path)
    array([[0.5, 1. ],
           [0. , 2.5]])
    """
    path, key = _split(name)
    try:
        if path.is_dir():
            x = _images(path)
        elif not path.exists():
            raise ValueError("no such file or folder")
        elif path.suffix.lower() == ".npy":
            x = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix.lower() == ".npz":
            x = _of_archive(path, key)
        elif path.suffix.lower() in (".csv", ".txt", ".tsv"):
            x = _table(path)
        else:
            x = _idx(path)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        what = str(error)
        if "pickle" in what or "Python objects" in what:
            what = f"no array of numbers, or not what its name says (expected {KINDS})"
        raise ValueError(f"{name}: {what[:300]}") from error
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "fiub":
        raise ValueError(f"{name}: holds {getattr(x, 'dtype', type(x).__name__)}, not real numbers")
    return x


def _split(name: str) -> tuple[Path, str | None]:
    if ".npz:" in name and not Path(name).exists():
        path, _, key = name.partition(".npz:")
        return Path(path + ".npz"), key
    return Path(name), None


def _of_archive(path: Path, key: str | None) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        if not archive.files:
            raise ValueError("an archive without arrays")
        if key is None and len(archive.files) > 1:
            raise ValueError(f"holds {', '.join(archive.files)}: write {path}:{archive.files[0]}")
        key = archive.files[0] if key is None else key
        if key not in archive.files:
            raise ValueError(f"holds no {key!r}, but {', '.join(archive.files)}")
        return archive[key]


def _table(path: Path) -> np.ndarray:
    """Numbers in lines, with commas, semicolons, tabs or spaces; a heading is passed over."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        lines = [line for line in file if line.strip() and not line.startswith("#")]
    between = next((c for c in ";\t," if c in "".join(lines[:2])), None)
    words = [word.strip().strip('"') for word in lines[0].split(between)] if lines else []
    missing = any(word.lower() in MISSING for word in words)  # a sample, and not a heading
    heading = not missing and any(not _number(word) for word in words if word)
    if len(lines) == heading:
        raise ValueError("holds no numbers")
    x = np.loadtxt(lines[int(heading) :], delimiter=between, ndmin=2, quotechar='"')
    return x[:, 0] if x.shape[1] == 1 else x


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _idx(path: Path) -> np.ndarray:
    """The format of MNIST, gzipped or not: unsigned bytes."""
    with open(path, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if gzipped else open(path, "rb") as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 4:
            raise ValueError(f"not a file of samples: expected {KINDS}")
        shape = np.frombuffer(file.read(4 * magic[3]), ">u4").astype(int)
        if len(shape) < magic[3] or not 0 < math.prod(map(int, shape)) <= 2**32:
            raise ValueError("a broken header of an IDX file")
        body = file.read(math.prod(map(int, shape)) + 1)
    if len(body) != math.prod(map(int, shape)):
        raise ValueError("an IDX file of another length than its header says: fetch it again")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _images(folder: Path) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError(
            "a folder of images needs Pillow: pip install 'vaeloss[images]'"
        ) from error
    paths = sorted(p for p in folder.rglob("[!.]*") if p.suffix.lower() in IMAGES and p.is_file())
    if not paths:
        raise ValueError(f"a folder without images ({', '.join(IMAGES)})")
    pictures = []
    for path in paths:
        try:
            with Image.open(path) as image:
                if image.mode[0] in "IF":  # Pillow would cut them off at 255
                    raise ValueError(f"{path.name} has more than 8 bits a value: give an .npy")
                grey = image.mode in ("1", "L", "LA")
                pictures.append(image.convert("L" if grey else "RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path.name} is no image that can be read") from error
    mode = "L" if all(p.mode == "L" for p in pictures) else "RGB"
    sizes = {p.size for p in pictures}
    if len(sizes) > 1:
        one, other = sorted(sizes)[:2]
        raise ValueError(
            f"images of different sizes, such as {one[0]}x{one[1]} and {other[0]}x{other[1]}: "
            "resize them as for training"
        )
    return np.stack([np.asarray(p.convert(mode)) for p in pictures])
