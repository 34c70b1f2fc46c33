"""The loader: sources in order, sums, downloads that go wrong (on loopback), IDX files."""

import gzip
import hashlib
import importlib.util
import multiprocessing
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaeloss import data
from vaeloss.data import DataError, load, read_idx


def idx(array: np.ndarray) -> bytes:
    """A gzipped IDX file, always the same bytes."""
    header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


RNG = np.random.default_rng(0)
TINY = {
    "train-images.gz": idx(RNG.integers(0, 256, (6, 28, 28))),
    "train-labels.gz": idx(np.arange(6)),
    "test-images.gz": idx(RNG.integers(0, 256, (3, 28, 28))),
    "test-labels.gz": idx(np.arange(3)),
}
SHAPES = [(6, 28, 28), (6,), (3, 28, 28), (3,)]


class Mirror:
    """A loopback web server; `behave(handler, name)` answers, or returns the bytes to send."""

    def __init__(self, behave=lambda handler, name: TINY[name]):
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(200)
                self.end_headers()

            def do_GET(self):
                name = self.path.rpartition("/")[2]
                outer.asked.append(name)
                body = behave(self, name)
                if body is not None:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def mirror():
    servers = []

    def start(*args):
        servers.append(Mirror(*args))
        return servers[-1]

    yield start
    for started in servers:
        started.server.shutdown()
        started.server.server_close()


def closed_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}/"


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A small data set "mnist" with mirrors of our choice and an empty cache."""
    monkeypatch.delenv("VAELOSS_DATA", raising=False)
    monkeypatch.setattr(data, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(data, "_dead", set())

    def use(*urls):
        files = tuple(
            (name, hashlib.sha256(body).hexdigest(), shape)
            for (name, body), shape in zip(TINY.items(), SHAPES, strict=True)
        )
        monkeypatch.setitem(data.SOURCES, "mnist", data.Source(urls, files))
        return tmp_path / "cache" / "mnist"

    return use


def write_tiny(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, body in TINY.items():
        (folder / name).write_bytes(body)
    return folder


def test_download_once_then_from_the_cache(tiny, mirror):
    server = mirror()
    cache = tiny(server.url)
    first = load("mnist")
    assert sorted(p.name for p in cache.iterdir()) == sorted(TINY)
    server.asked.clear()
    again = load("mnist")
    assert server.asked == []
    assert first.name == "mnist" and first.x_train.shape == (6, 28, 28)
    assert first.x_train.dtype == np.float32 and first.y_train.dtype == np.int64
    assert np.array_equal(again.x_test, first.x_test) and list(first.y_test) == [0, 1, 2]


def broken_off(handler, name):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(TINY[name])))
    handler.end_headers()
    handler.wfile.write(TINY[name][:10])
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


BAD = {
    "other bytes": lambda handler, name: TINY[name][:-1] + b"?",
    "captive portal": lambda handler, name: b"<html>Please log in</html>",
    "not there": lambda handler, name: handler.send_error(404),
    "broken off": broken_off,
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_mirror_is_passed_over(tiny, mirror, fault):
    bad, good = mirror(BAD[fault]), mirror()
    cache = tiny(bad.url, good.url)
    assert load("mnist").x_train.shape == (6, 28, 28)
    assert len(bad.asked) == 4
    assert {p.name: p.read_bytes() for p in cache.iterdir()} == TINY  # and nothing besides


@pytest.mark.parametrize("fault", BAD)
def test_when_all_mirrors_are_bad_nothing_that_counts_is_left(tiny, mirror, fault, capsys):
    server = mirror(BAD[fault])
    cache = tiny(server.url)
    with pytest.raises(DataError, match="mnist could not be loaded.*train-images.*VAELOSS_DATA"):
        load("mnist")
    assert not cache.exists() or not any(p.name in TINY for p in cache.iterdir())
    assert load("mnist", fallback="digits28").name == "digits28"
    assert capsys.readouterr().out.count("\n") == 1


def test_a_dead_first_mirror_is_passed_over(tiny, mirror):
    tiny(closed_port(), mirror().url)
    assert load("mnist").name == "mnist"


def test_a_wrong_file_in_the_cache_is_replaced(tiny, mirror):
    server = mirror()
    cache = write_tiny(tiny(server.url))
    (cache / "train-labels.gz").write_bytes(b"half")
    load("mnist")
    assert server.asked == ["train-labels.gz"]
    assert (cache / "train-labels.gz").read_bytes() == TINY["train-labels.gz"]


def test_a_network_that_swallows_everything_costs_at_most_ten_seconds(tiny, capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        tiny(url, url + "second/")
        start = time.monotonic()
        assert load("mnist", fallback="digits28").name == "digits28"
        assert time.monotonic() - start < 10
        start = time.monotonic()
        load("mnist", fallback="digits28")  # the process remembers
        assert time.monotonic() - start < 1
    line = "mnist: no mirror can be reached; using the bundled digits28 instead.\n"
    assert capsys.readouterr().out == 2 * line


def _load_elsewhere(source, cache, queue):
    data.SOURCES["mnist"] = source
    data.cache_folder = lambda: cache
    queue.put(load("mnist").x_train.sum())


def test_two_processes_at_once(tiny, mirror):
    def slow(handler, name):
        time.sleep(0.2)
        return TINY[name]

    cache = tiny(mirror(slow).url)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    args = (data.SOURCES["mnist"], cache.parent, queue)
    both = [context.Process(target=_load_elsewhere, args=args) for _ in range(2)]
    for process in both:
        process.start()
    sums = [queue.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    assert sums[0] == sums[1]
    assert {p.name: p.read_bytes() for p in cache.iterdir()} == TINY


def test_the_environment_variable_comes_first(tiny, monkeypatch, tmp_path):
    tiny(closed_port())
    write_tiny(tmp_path / "mine" / "mnist")
    monkeypatch.setenv("VAELOSS_DATA", str(tmp_path / "mine"))
    assert load("mnist").x_train.shape == (6, 28, 28)


def test_what_the_environment_variable_lacks_is_looked_for_elsewhere(
    tiny, mirror, monkeypatch, tmp_path
):
    tiny(mirror().url)
    monkeypatch.setenv("VAELOSS_DATA", str(tmp_path))
    assert load("mnist").x_train.shape == (6, 28, 28)


def test_a_wrong_file_of_the_users_is_named_and_kept(tiny, mirror, monkeypatch, tmp_path):
    tiny(mirror().url)
    mine = write_tiny(tmp_path / "mine" / "mnist")
    (mine / "test-images.gz").write_bytes(b"mine")
    monkeypatch.setenv("VAELOSS_DATA", str(tmp_path / "mine"))
    for fallback in [None, "digits28"]:
        with pytest.raises(DataError, match="test-images.gz is not the official file.*replace it"):
            load("mnist", fallback=fallback)
    assert (mine / "test-images.gz").read_bytes() == b"mine"


def test_a_folder_that_is_none_is_named(tiny, monkeypatch, tmp_path):
    tiny(closed_port())
    monkeypatch.setenv("VAELOSS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere, which is not a readable folder: correct it"):
        load("mnist", fallback="digits28")


def test_a_file_of_the_wrong_shape_is_named(tiny, monkeypatch, tmp_path):
    tiny(closed_port())
    source = data.SOURCES["mnist"]
    files = tuple((name, sha, (7, *shape[1:])) for name, sha, shape in source.files)
    monkeypatch.setitem(data.SOURCES, "mnist", data.Source(source.mirrors, files))
    write_tiny(tmp_path / "mnist")
    monkeypatch.setenv("VAELOSS_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"train-images.gz holds an array of shape \(6, 28, 28\)"):
        load("mnist")


@pytest.mark.parametrize(
    "args, message",
    [
        (["minst"], "unknown data set 'minst'.*Did you mean 'mnist'"),
        (["mnist", "nothing"], "unknown data set 'nothing'"),
        (["mnist", "fashion_mnist"], "cannot be a fallback: use 'digits28'"),
    ],
)
def test_unknown_names(args, message):
    with pytest.raises(DataError, match=message):
        load(*args)


IMAGES = TINY["test-images.gz"]
RAW = gzip.decompress(IMAGES)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "begins with nothing"),
        (b"<html>", "cannot be read as gzip"),
        (IMAGES[: len(IMAGES) // 2], "cannot be read as gzip"),
        (gzip.compress(RAW[:-1]), "truncated: 2,352 bytes expected"),
        (gzip.compress(RAW + b"\0"), "too long: 2,352 bytes expected"),
        (gzip.compress(RAW[:9]), "truncated inside its header"),
        (gzip.compress(b"\0\0\x0d" + RAW[3:]), "not an IDX file of bytes.*00000d03"),
        (gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12), "its header announces"),
    ],
)
def test_bad_idx_files_are_named(tmp_path, content, message):
    path = tmp_path / "bad.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"(?s)bad\.gz: .*{message}.*Delete the file"):
        read_idx(path)


def test_a_missing_idx_file_is_named(tmp_path):
    with pytest.raises(DataError, match="missing.gz"):
        read_idx(tmp_path / "missing.gz")


def test_a_gzip_bomb_is_not_blown_up(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(RAW + bytes(200_000_000), compresslevel=1))
    start = time.monotonic()
    with pytest.raises(DataError, match="too long"):
        read_idx(path)
    assert time.monotonic() - start < 0.2  # 200 MB would take longer to unpack


@given(st.binary(max_size=200) | st.binary(max_size=64).map(lambda b: gzip.compress(b, mtime=0)))
def test_any_bytes_are_an_array_or_a_data_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.gz"
    path.write_bytes(content)
    try:
        array = read_idx(path)
    except DataError as error:
        assert "fuzz.gz" in str(error)
    else:
        assert array.dtype == np.uint8


@given(st.integers(0, 4), st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_any_array_comes_back(tmp_path_factory, n, h, w, seed):
    array = np.random.default_rng(seed).integers(0, 256, (n, h, w))
    path = tmp_path_factory.getbasetemp() / "any.gz"
    path.write_bytes(idx(array))
    assert np.array_equal(read_idx(path), array)


def test_digits28_is_what_its_script_makes():
    script = Path(__file__).parent.parent / "data" / "build_digits28.py"
    spec = importlib.util.spec_from_file_location("build_digits28", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arrays = module.build()
    with np.load(data.bundled("digits28.npz"), allow_pickle=False) as shipped:
        assert sorted(shipped) == sorted(arrays)
        for name, array in arrays.items():
            assert shipped[name].dtype == array.dtype and np.array_equal(shipped[name], array)
    assert module.weights().sum(1).tolist() == [14] * 28  # bilinear weights sum to one
    digits = load("digits28")
    assert len(digits.x_train) + len(digits.x_test) == 1797
    assert 0 == digits.x_train.min() and digits.x_train.max() == 1


def test_a_missing_bundled_file_is_named():
    with pytest.raises(DataError, match="bundled file runs/none.json is missing"):
        data.bundled("runs/none.json")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_sets(name):
    try:
        real = load(name)
    except data.Unreachable as error:
        pytest.skip(f"no network and no VAELOSS_DATA: {error}")
    for x, y, n in [(real.x_train, real.y_train, 60_000), (real.x_test, real.y_test, 10_000)]:
        assert x.shape == (n, 28, 28) and x.dtype == np.float32 and x.flags.c_contiguous
        assert x.min() == 0 and x.max() == 1
        assert y.shape == (n,) and y.dtype == np.int64 and set(y) == set(range(10))
