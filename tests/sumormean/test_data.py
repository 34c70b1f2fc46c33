"""The data sets: every source, every way in which one can fail, and what the reader is told then.

The only network is a server on this machine. Small stand-ins take the place of the official files,
which are looked at too where $VAELOSS_DATA has them.
"""

import dataclasses
import gzip
import hashlib
import importlib.util
import io
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import fuzz
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from mirrors import (
    FILES,
    FIRST,
    TABLE,
    broken,
    check_complete,
    check_small,
    child,
    environment,
    fill,
    html,
    idx,
    loop,
    other_bytes,
    refuse,
    send,
    without_length,
)

from sumormean.data import DataError, bundled, download, files, load, read_idx, sets

ROOT = Path(__file__).resolve().parents[2]
REAL = os.environ.get("VAELOSS_DATA")  # read before the tests take it out of the environment
FALLBACK_LINE = "MNIST could not be loaded ({}); using the bundled digits28 instead.\n"


@pytest.fixture(autouse=True)
def cache(own_cache) -> Path:
    return own_cache


# Downloads


def test_download_then_cache(mirror, use, cache, capfd):
    first, second = mirror(), mirror()
    use(first.url, second.url)
    check_small(load("mnist"))
    check_complete(cache)
    check_small(load("mnist"))
    assert sorted(first.got) == sorted(FILES), "downloaded once, then taken from the cache"
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
    seen = []
    downloader = download.pooch.HTTPDownloader
    monkeypatch.setattr(
        download.pooch,
        "HTTPDownloader",
        lambda progressbar, **kwargs: seen.append(progressbar) or downloader(False, **kwargs),
    )
    use(mirror().url)
    check_small(load("mnist"))
    assert seen == [shown] * 4


FAULTS = [refuse, html, other_bytes, broken, without_length, loop]


@pytest.mark.parametrize("fault", FAULTS)
def test_second_mirror_when_the_first_is_at_fault(mirror, use, cache, fault):
    first, second = mirror(answer=fault), mirror()
    use(first.url, second.url)
    check_small(load("mnist"))
    check_complete(cache)
    assert sorted(second.got) == sorted(FILES)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_mirror_at_fault(mirror, use, cache, fault, capsys):
    mirrors = [mirror(answer=fault).url, mirror(answer=fault).url]
    use(*mirrors)
    with pytest.raises(DataError) as caught:
        load("mnist")
    message = str(caught.value)
    for part in (*(m + FIRST for m in mirrors), "VAELOSS_DATA", "fallback='digits28'"):
        assert part in message
    assert "\n" not in message
    assert list(cache.iterdir()) == [], "nothing that counts as a file, and no litter"
    assert load("mnist", fallback="digits28").name == "digits28"
    assert capsys.readouterr().out == FALLBACK_LINE.format("every download failed")


def test_first_mirror_refuses_connections(mirror, use, dead):
    use(dead, mirror().url)
    check_small(load("mnist"))


def test_first_mirror_never_answers(mirror, use, black_hole, monkeypatch):
    monkeypatch.setattr(download, "PROBE_SECONDS", 0.5)
    use(black_hole, mirror().url)
    check_small(load("mnist"))


def test_mirror_that_stops_in_the_middle(mirror, use, cache, monkeypatch):
    go_on = threading.Event()

    def stop(handler, body):
        send(handler, body, part=0.5)
        go_on.wait(20)

    monkeypatch.setattr(download, "TIMEOUT", (1.0, 0.5))
    use(mirror(answer=stop).url, mirror().url)
    started = time.monotonic()
    check_small(load("mnist"))
    go_on.set()
    assert time.monotonic() - started < 10
    check_complete(cache)


def test_only_what_is_missing_is_downloaded(mirror, use, cache):
    server = mirror()
    use(server.url)
    fill(cache)
    (cache / "t10k-labels-idx1-ubyte.gz").unlink()
    check_small(load("mnist"))
    assert server.got == ["t10k-labels-idx1-ubyte.gz"]


@pytest.mark.parametrize("content", [b"", FILES[FIRST][:1000], b"x" * len(FILES[FIRST])])
def test_wrong_file_in_the_cache_is_replaced(mirror, use, cache, content):
    server = mirror()
    use(server.url)
    fill(cache)
    (cache / FIRST).write_bytes(content)
    check_small(load("mnist"))
    check_complete(cache)
    assert server.got == [FIRST]


def test_cache_that_cannot_be_written(mirror, use, cache, capsys):
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    use(mirror().url)
    with pytest.raises(DataError, match=f"{cache}.*XDG_CACHE_HOME.*VAELOSS_DATA"):
        load("mnist")
    assert load("mnist", fallback="digits28").name == "digits28"


# Two processes


def test_two_processes_on_one_cache(mirror, use, cache):
    both = threading.Barrier(2, timeout=20)

    def together(handler, body):
        if handler.path.endswith(FIRST):
            both.wait()  # neither gets the first file before both are at it
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            for i in range(0, len(body), 4096):
                handler.wfile.write(body[i : i + 4096])
                time.sleep(0.01)
        else:
            send(handler, body)

    server = mirror(answer=together)
    processes = [child(cache, server) for _ in range(2)]
    expected = sum(gzip.decompress(FILES["train-labels-idx1-ubyte.gz"])[8:])
    for process in processes:
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out.strip(), err) == (0, str(expected), "")
    assert server.got.count(FIRST) == 2
    check_complete(cache)


def test_a_killed_download_is_not_seen_as_complete(mirror, use, cache):
    half_sent, done = threading.Event(), threading.Event()

    def stop(handler, body):
        send(handler, body, part=0.5)
        half_sent.set()
        done.wait(20)

    process = child(cache, mirror(answer=stop))
    assert half_sent.wait(20)
    process.kill()
    process.communicate(timeout=10)
    done.set()
    assert list(cache.iterdir()) == []
    use(mirror().url)
    check_small(load("mnist"))


def test_a_file_that_another_process_has_open(mirror, use, cache, monkeypatch):
    """Windows does not replace an open file: another process's copy is as good as ours."""
    replaced = []

    def replace(source, target):
        replaced.append(Path(target).name)
        Path(target).write_bytes(Path(source).read_bytes())
        raise PermissionError("the file is open")

    monkeypatch.setattr(os, "replace", replace)
    server = mirror()
    use(server.url)
    check_small(load("mnist"))
    assert sorted(replaced) == sorted(server.got) == sorted(FILES), "each moved in one step"
    check_complete(cache)


# No network


def test_silent_network_within_ten_seconds(use, black_hole, capsys):
    """Both data sets of a notebook, one after the other, at mirrors that swallow every packet."""
    use(black_hole + "a/", black_hole + "b/")
    use(black_hole + "c/", black_hole + "d/", name="fashion_mnist", title="Fashion-MNIST")
    started = time.monotonic()
    assert load("mnist", fallback="digits28").name == "digits28"
    assert load("fashion_mnist", fallback="digits28").name == "digits28"
    assert time.monotonic() - started < 10
    line = FALLBACK_LINE.format("no mirror reachable")
    assert capsys.readouterr().out == line + line.replace("MNIST", "Fashion-MNIST")
    started = time.monotonic()
    with pytest.raises(DataError, match="no mirror reachable.*VAELOSS_DATA"):
        load("mnist")
    assert time.monotonic() - started < 1, "mirrors that were silent are not asked again"


def test_silent_network_does_not_hold_the_process(cache, black_hole):
    """What still waits for a mirror ends with the process, long before its own time is out."""
    code = (
        "import sys; from sumormean.data import download, sets;"
        "download.PROBE_SECONDS = 0.1; download.TIMEOUT = (60, 60);"
        "sets.SOURCES['mnist'] = sets.Source('MNIST', (sys.argv[1],), sets.SOURCES['mnist'].files);"
        "download.cache_folder = lambda: download.Path(sys.argv[2]);"
        "print(sets.load('mnist', fallback='digits28').name)"
    )
    command = [sys.executable, "-c", code, black_hole, str(cache)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines()[-1:] == ["digits28"], done.stderr


def test_name_server_that_never_answers(use, monkeypatch, capsys):
    hang = threading.Event()

    def getaddrinfo(*args, **kwargs):
        hang.wait(20)
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(download, "PROBE_SECONDS", 0.5)
    use("http://mirror.invalid/", "http://other.invalid/")
    started = time.monotonic()
    assert load("mnist", fallback="digits28").name == "digits28"
    assert time.monotonic() - started < 3
    hang.set()


def test_silent_mirrors_are_asked_again_later(use, mirror, monkeypatch):
    """A reader who mends the network need not restart the kernel."""
    server = mirror()
    use(server.url)
    download._silent_since[(server.url,)] = time.monotonic()
    with pytest.raises(DataError, match="no mirror reachable"):
        load("mnist")
    monkeypatch.setattr(download, "FORGET_SECONDS", 0.0)
    check_small(load("mnist"))


def test_refused_connections_need_no_waiting(use, dead):
    use(dead)
    started = time.monotonic()
    with pytest.raises(DataError, match="no mirror reachable"):
        load("mnist")
    assert time.monotonic() - started < download.PROBE_SECONDS


# $VAELOSS_DATA


def test_local_folder(use, dead, cache, tmp_path, monkeypatch):
    use(dead)
    fill(tmp_path / "sets" / "mnist")
    monkeypatch.setenv("VAELOSS_DATA", str(tmp_path / "sets"))
    check_small(load("mnist"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAELOSS_DATA", "sets")
    check_small(load("mnist"))
    assert not cache.exists(), "nothing is copied"


@pytest.mark.parametrize("left_out", [set(FILES), {FIRST}])
def test_what_the_local_folder_lacks_is_downloaded(mirror, use, tmp_path, monkeypatch, left_out):
    server = mirror()
    use(server.url)
    folder = fill(tmp_path / "sets" / "mnist", {k: FILES[k] for k in FILES if k not in left_out})
    monkeypatch.setenv("VAELOSS_DATA", str(tmp_path / "sets"))
    check_small(load("mnist"))
    assert set(server.got) == left_out
    assert not (folder / FIRST).exists(), "the reader's folder is only read"


def test_local_folder_without_this_data_set(mirror, use, tmp_path, monkeypatch):
    use(mirror().url)
    monkeypatch.setenv("VAELOSS_DATA", str(tmp_path))
    check_small(load("mnist"))


@pytest.mark.parametrize("fallback", [None, "digits28"])
def test_wrong_local_file(mirror, use, tmp_path, monkeypatch, fallback):
    use(mirror().url)
    folder = fill(tmp_path / "sets" / "mnist")
    (folder / FIRST).write_bytes(FILES[FIRST][:-1])
    monkeypatch.setenv("VAELOSS_DATA", str(tmp_path / "sets"))
    with pytest.raises(DataError) as caught:
        load("mnist", fallback=fallback)
    assert str(folder / FIRST) in str(caught.value)
    assert f"not {len(FILES[FIRST]):,} bytes" in str(caught.value) and "replace it" in str(
        caught.value
    )
    assert (folder / FIRST).exists()


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
    with pytest.raises(DataError) as caught:
        load("mnist", fallback=fallback)
    assert str(folder) in str(caught.value) and "VAELOSS_DATA" in str(caught.value)
    assert load("digits28").name == "digits28", "the bundled set needs no folder"


def test_right_sum_and_wrong_shape(mirror, use, monkeypatch):
    table = (dataclasses.replace(TABLE[0], shape=(60_000, 28, 28)), *TABLE[1:])
    monkeypatch.setitem(sets.SOURCES, "mnist", sets.Source("MNIST", (mirror().url,), table))
    with pytest.raises(DataError, match=rf"{FIRST}.*\(30, 28, 28\), not \(60000, 28, 28\)"):
        load("mnist")


# Names


@pytest.mark.parametrize(
    "name, near",
    [("MNIST", "mnist"), ("fashion-mnist", "fashion_mnist"), ("digits", "digits28"), ("", None)],
)
def test_unknown_names(name, near):
    for arguments in ((name,), ("digits28", name)):
        with pytest.raises(DataError) as caught:
            load(*arguments)
        message = str(caught.value)
        assert f"{name!r}" in message and "mnist, fashion_mnist, digits28" in message
        assert message.endswith(f"Did you mean {near!r}?" if near else "digits28.")


@pytest.mark.parametrize("name", [None, 3, Path("mnist")])
def test_names_that_are_no_strings(name):
    with pytest.raises(DataError, match="unknown data set"):
        load(name)


def test_fallback_must_be_bundled():
    with pytest.raises(DataError, match="'fashion_mnist' is not bundled.*'digits28'"):
        load("mnist", fallback="fashion_mnist")


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
    "empty when unpacked": (gzip.compress(b""), "not an IDX file"),
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
    "bytes after the gzip member": (gzip.compress(GOOD) + b"tail", "gzip"),
    "no elements": (gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 0, 2**32 - 1, 9)), "impossible"),
    "size that overflows": (gzip.compress(b"\0\0\x08\2" + b"\xff" * 8), "impossible"),
    "pickle": (gzip.compress(b"\x80\x04N."), "not an IDX file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_malformed_idx(tmp_path, kind):
    content, what = BAD[kind]
    path = tmp_path / "bad-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert str(caught.value).startswith(str(path)) and what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_idx_that_cannot_be_opened(tmp_path):
    for path in (tmp_path / "absent.gz", tmp_path):
        with pytest.raises(DataError) as caught:
            read_idx(path)
        assert str(path) in str(caught.value)


def test_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(GOOD[:16])
        for _ in range(64):
            file.write(bytes(2**20))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="left over"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def fuzz_file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "fuzz.gz"


@settings(deadline=None, max_examples=400)
@given(content=fuzz.inputs())
@example(content=gzip.compress(GOOD))
def test_only_data_errors_leave_read_idx(fuzz_file, content):
    """A part of what `make fuzz` does."""
    fuzz.examine(content, fuzz_file)


def fails(*args):
    raise KeyError("of NumPy's, say")


@pytest.mark.parametrize(
    "reader",
    [fails, lambda path: np.zeros((1, 2, 3), np.uint8), lambda path: read_idx(path)[0]],
)
def test_fuzzing_finds_a_reader_that_is_wrong(tmp_path, monkeypatch, reader):
    good, damaged = gzip.compress(GOOD), gzip.compress(GOOD[:-1])
    assert fuzz.examine(good, tmp_path / "a.gz")
    assert not fuzz.examine(damaged, tmp_path / "a.gz")
    monkeypatch.setattr(fuzz, "read_idx", reader)
    with pytest.raises((AssertionError, KeyError)):
        fuzz.examine(good, tmp_path / "a.gz")


def test_fuzzing_finds_a_refusal_and_an_acceptance(tmp_path, monkeypatch):
    def refuse_all(path):
        raise DataError(f"{path}: no")

    monkeypatch.setattr(fuzz, "read_idx", refuse_all)
    with pytest.raises(AssertionError, match="refused"):
        fuzz.examine(gzip.compress(GOOD), tmp_path / "a.gz")
    monkeypatch.setattr(fuzz, "read_idx", lambda path: np.arange(5, dtype=np.uint8))
    with pytest.raises(AssertionError):
        fuzz.examine(gzip.compress(idx(np.arange(6, dtype=np.uint8))[:-1]), tmp_path / "a.gz")


# The bundled set


def builder():
    spec = importlib.util.spec_from_file_location("build", ROOT / "data" / "build_digits28.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_digits28_is_what_its_script_builds(tmp_path, monkeypatch, capsys):
    script = builder()
    monkeypatch.setattr(script, "OUT", tmp_path / "digits28.npz")
    script.main()
    with (
        np.load(bundled("digits28.npz"), allow_pickle=False) as shipped,
        np.load(tmp_path / "digits28.npz", allow_pickle=False) as built,
    ):
        assert sorted(shipped) == sorted(built) == ["x_test", "x_train", "y_test", "y_train"]
        for key in shipped:
            assert shipped[key].dtype == built[key].dtype == np.uint8
            assert np.array_equal(shipped[key], built[key])


def test_digits28_against_pytorch_interpolation():
    """PyTorch's bilinear interpolation, in floating point, agrees to the rounding of a pixel."""
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    source = sklearn_datasets.load_digits()
    images = torch.from_numpy(source.images)[:, None]  # float64, 0 to 16
    resized = torch.nn.functional.interpolate(images, (28, 28), mode="bilinear")[:, 0].numpy()
    digits = load("digits28")
    test = np.arange(len(images)) % 5 == 4
    for x, part in ((digits.x_train, ~test), (digits.x_test, test)):
        assert np.abs(255.0 * x - resized[part] * (255 / 16)).max() < 0.5 + 1e-4
    assert np.array_equal(digits.y_train, source.target[~test])
    assert np.array_equal(digits.y_test, source.target[test])


def test_digits28():
    digits = load("digits28")
    assert digits.name == "digits28"
    assert digits.x_train.shape == (1438, 28, 28) and digits.x_test.shape == (359, 28, 28)
    for x, y in ((digits.x_train, digits.y_train), (digits.x_test, digits.y_test)):
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert (x.min(), x.max()) == (0.0, 1.0)
        assert set(y) == set(range(10)) and len(y) == len(x)
    with pytest.raises(AttributeError):
        digits.name = "other"


def test_bundled_files(tmp_path, monkeypatch):
    assert bundled("digits28.npz").is_file()
    with pytest.raises(DataError, match="folder/absent.json is missing"):
        bundled("folder/absent.json")
    # a wheel: the files lie inside the package
    (tmp_path / "_data" / "folder").mkdir(parents=True)
    (tmp_path / "_data" / "folder" / "a.json").write_text("{}")
    monkeypatch.setattr(files, "__file__", str(tmp_path / "data" / "files.py"))
    assert bundled("folder/a.json") == tmp_path / "_data" / "folder" / "a.json"
    with pytest.raises(DataError, match="digits28.npz is missing"):
        load("digits28")


# The official files


def test_readme_has_every_source():
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for name, source in sets.SOURCES.items():
        assert len(source.mirrors) == 2 and all(m.endswith("/") for m in source.mirrors)
        for mirror in source.mirrors:
            assert mirror in text
        for file in source.files:
            assert f"{file.sha256}  {name}/{file.name}" in text
    sha256 = hashlib.sha256((ROOT / "data" / "digits28.npz").read_bytes()).hexdigest()
    assert f"{sha256}  digits28.npz" in text


COUNTS = {
    "mnist": (
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ),
    "fashion_mnist": ([6000] * 10, [1000] * 10),
}


@pytest.mark.parametrize("name, mean", [("mnist", 0.1307), ("fashion_mnist", 0.2860)])
def test_official_files(name, mean, monkeypatch):
    if not REAL or not (Path(REAL) / name).is_dir():
        pytest.skip(f"VAELOSS_DATA has no folder {name}")
    monkeypatch.setenv("VAELOSS_DATA", REAL)
    dataset = load(name)
    assert dataset.name == name
    assert (dataset.x_train.shape, dataset.x_test.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    parts = ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test))
    for (x, y), counts in zip(parts, COUNTS[name], strict=True):
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert (x.min(), x.max()) == (0.0, 1.0)
        assert np.bincount(y).tolist() == counts
    assert dataset.x_train.mean(dtype=np.float64) == pytest.approx(mean, abs=1e-4)
