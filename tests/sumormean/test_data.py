"""The data sets: every source, the reader of IDX files, and what is bundled.

The only network is a server on this machine. Small stand-ins take the place of the official files,
which are looked at too where $VAELOSS_DATA has them.
"""

import gzip
import hashlib
import io
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import fuzz
import numpy as np
import pytest
from hypothesis import example, given, settings
from mirrors import FILES, FIRST, check_complete, check_small, environment, fill, idx

from sumormean.data import DataError, bundled, load, read_idx, sets

ROOT = Path(__file__).resolve().parents[2]
REAL = os.environ.get("VAELOSS_DATA")  # read before the tests take it out of the environment


@pytest.fixture(autouse=True)
def own_cache(cache):
    """For every test."""


# Sources


def test_download_then_cache(mirror, use, cache, capfd):
    first, second = mirror(), mirror()
    use(first.url, second.url)
    check_small(load("mnist"))
    check_complete(cache)
    check_small(load("mnist"))
    assert first.got == list(FILES), "downloaded once, then taken from the cache"
    assert second.got == [], "the second mirror is asked only if the first fails"
    assert capfd.readouterr() == ("", ""), "nothing is printed where nobody watches"


@pytest.mark.parametrize(
    "terminal, disable, shown", [(True, "0", True), (True, "1", False), (False, "0", False)]
)
def test_progress_bar_when_a_person_watches(mirror, use, monkeypatch, terminal, disable, shown):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TQDM_DISABLE", disable)
    use(mirror().url)
    check_small(load("mnist"))
    assert (FIRST in stream.getvalue()) == bool(stream.getvalue()) == shown


@pytest.mark.parametrize("left_out", [set(), {FIRST}, set(FILES)])
def test_local_folder(mirror, use, tmp_path, monkeypatch, left_out):
    """What it lacks is downloaded; the folder is only read, and nothing is copied."""
    server = mirror()
    use(server.url)
    kept = {name: FILES[name] for name in FILES if name not in left_out}
    folder = fill(tmp_path / "sets" / "mnist", kept)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAELOSS_DATA", "sets")
    check_small(load("mnist"))
    assert set(server.got) == left_out and len(list(folder.iterdir())) == 4 - len(left_out)
    assert (tmp_path / "cache").exists() == bool(left_out)


@pytest.mark.parametrize("fallback", [None, "digits28"])
@pytest.mark.parametrize("kind", ["absent", "file", "not permitted", "data set not permitted"])
def test_local_folder_that_cannot_be_read(mirror, use, tmp_path, monkeypatch, kind, fallback):
    use(mirror().url)
    folder = tmp_path / "sets"
    if kind == "file":
        folder.write_text("not a folder")
    elif kind != "absent":
        named = fill(folder / "mnist")
        shut = folder if kind == "not permitted" else named
        # not chmod: the tests may run as root, which may read everything
        access = os.access
        monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != shut and access(p, mode))
    monkeypatch.setenv("VAELOSS_DATA", str(folder))
    with pytest.raises(DataError, match="VAELOSS_DATA") as caught:
        load("mnist", fallback=fallback)
    assert str(folder) in str(caught.value)
    assert load("digits28").name == "digits28", "the bundled set needs no folder"


NAMES = [("MNIST", "mnist"), ("fashion-mnist", "fashion_mnist"), ("digits", "digits28"), (3, None)]


@pytest.mark.parametrize("name, near", NAMES)
def test_unknown_names(name, near):
    with pytest.raises(DataError) as caught:
        load(name)
    message = str(caught.value)
    assert f"{name!r}" in message and "mnist, fashion_mnist, digits28, emoji32." in message
    assert message.endswith(f"Did you mean {near!r}?" if near else "emoji32.")


def test_what_load_does_not_do():
    with pytest.raises(DataError, match="'emoji32' cannot be a fallback: use 'digits28'"):
        load("mnist", fallback="emoji32")
    with pytest.raises(DataError, match=r"Use load_molecules\(\)"):
        load("molecules")


def test_nothing_heavy_is_imported():
    code = "import sys, sumormean.data; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


# IDX files


def test_read_idx(tmp_path):
    for shape in ((5,), (3, 4), (2, 28, 28)):
        array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        path = tmp_path / "array.gz"
        path.write_bytes(gzip.compress(idx(array)))
        for p in (path, str(path)):
            read = read_idx(p)
            assert read.dtype == np.uint8 and np.array_equal(read, array)


GOOD = idx(np.arange(6, dtype=np.uint8).reshape(1, 2, 3))
BAD = {
    "empty file": (b"", "not an IDX file"),
    "not compressed": (GOOD, "gzip"),
    "HTML": (b"<!DOCTYPE html><p>Sign in", "gzip"),
    "wrong magic number": (gzip.compress(b"\0\1" + GOOD[2:]), "not an IDX file"),
    "floats": (gzip.compress(b"\0\0\x0d" + GOOD[3:]), "not an IDX file"),
    "no dimensions": (gzip.compress(b"\0\0\x08\0"), "not an IDX file"),
    "too many dimensions": (gzip.compress(b"\0\0\x08\xff" + bytes(2000)), "not an IDX file"),
    "header truncated": (gzip.compress(GOOD[:9]), "truncated inside its header"),
    "data truncated": (gzip.compress(GOOD[:-1]), "truncated"),
    "gzip truncated": (gzip.compress(GOOD)[:-9], "gzip"),
    "gzip checksum": (gzip.compress(GOOD)[:-8] + b"12345678", "gzip"),
    "bytes left over": (gzip.compress(GOOD + b"\0"), "left over"),
    "a second gzip member": (gzip.compress(GOOD) * 2, "left over"),
    "no elements": (gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 0, 2**32 - 1, 9)), "impossible"),
    "size that overflows": (gzip.compress(b"\0\0\x08\2" + b"\xff" * 8), "impossible"),
    "bomb": (gzip.compress(GOOD[:16] + bytes(64 * 2**20)), "left over"),
}


@pytest.mark.parametrize("kind", [*BAD, "absent", "folder"])
def test_malformed_idx(tmp_path, kind):
    content, what = BAD.get(kind, (b"", "cannot be read"))
    path = tmp_path if kind == "folder" else tmp_path / "bad-idx3-ubyte.gz"
    if kind in BAD:
        path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(str(path)) and what in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=400)
@given(content=fuzz.inputs())
@example(content=gzip.compress(GOOD))
def test_only_data_errors_leave_read_idx(tmp_path_factory, content):
    """A part of what `make fuzz` does."""
    fuzz.examine(content, tmp_path_factory.getbasetemp() / "fuzz.gz")


# The official files


def test_readme_has_every_source_and_sum():
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for name, source in sets.SOURCES.items():
        assert len(source.mirrors) == 2 and all(
            m.endswith("/") and m in text for m in source.mirrors
        )
        for file, (_, sha256) in source.files.items():
            assert f"{sha256}  {name}/{file}" in text
    for file in ("digits28.npz", "emoji32.npz", "emoji32-groups.json", "molecules.txt.gz"):
        assert f"{hashlib.sha256(bundled(file).read_bytes()).hexdigest()}  {file}\n" in text


@pytest.mark.parametrize("name, mean", [("mnist", 0.1307), ("fashion_mnist", 0.2860)])
def test_official_files(name, mean, monkeypatch):
    if not REAL or not (Path(REAL) / name).is_dir():
        pytest.skip(f"VAELOSS_DATA has no folder {name}")
    monkeypatch.setenv("VAELOSS_DATA", REAL)
    data = load(name)
    assert (data.x_train.shape, data.x_test.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert (x.dtype, y.dtype, x.min(), x.max()) == (np.float32, np.int64, 0.0, 1.0)
        assert np.bincount(y).max() < 0.12 * len(y) and np.bincount(y).min() > 0.08 * len(y)
    assert data.x_train.mean(dtype=np.float64) == pytest.approx(mean, abs=1e-4)
