"""Mirrors on the loopback, small stand-ins for the official files, and faults of a mirror."""

import dataclasses
import gzip
import hashlib
import http.server
import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from sumormean.data import sets
from sumormean.data.download import OfficialFile


def idx(array: np.ndarray) -> bytes:
    """An array as IDX, not compressed."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def small_files(seed: int = 0) -> dict[str, bytes]:
    """Stand-ins for the four files: 30 training and 10 test images of random pixels."""
    rng = np.random.default_rng(seed)
    arrays = {
        "train-images-idx3-ubyte.gz": rng.integers(0, 256, (30, 28, 28)),
        "train-labels-idx1-ubyte.gz": rng.integers(0, 10, 30),
        "t10k-images-idx3-ubyte.gz": rng.integers(0, 256, (10, 28, 28)),
        "t10k-labels-idx1-ubyte.gz": rng.integers(0, 10, 10),
    }
    return {name: gzip.compress(idx(a.astype(np.uint8)), mtime=0) for name, a in arrays.items()}


FILES = small_files()
FIRST = "train-images-idx3-ubyte.gz"
SHAPES = {FIRST: (30, 28, 28), "t10k-images-idx3-ubyte.gz": (10, 28, 28)}


def official(name: str, body: bytes) -> OfficialFile:
    shape = SHAPES.get(name, (30 if "train" in name else 10,))
    return OfficialFile(name, shape, len(body), hashlib.sha256(body).hexdigest())


TABLE = tuple(official(name, body) for name, body in FILES.items())


class Mirror:
    """A mirror on the loopback. `answer(handler, body)` replaces how files are sent."""

    def __init__(self, files=FILES, answer=None):
        self.got: list[str] = []
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(200)
                self.end_headers()

            def do_GET(self):
                name = self.path.rsplit("/", 1)[-1]
                mirror.got.append(name)
                if answer:
                    answer(self, files[name])
                else:
                    send(self, files[name])

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                pass  # a client that hung up: some tests kill it

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/files/"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def send(handler, body: bytes, part: float = 1.0, status: int = 200):
    """Send a body, or break the connection after a part of it."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: int(part * len(body))])
    handler.wfile.flush()


def refuse(handler, body):
    send(handler, b"gone", status=503)


def html(handler, body):
    send(handler, b"<!DOCTYPE html><title>Welcome to the hotel</title>")


def other_bytes(handler, body):
    send(handler, gzip.compress(b"something else"))


def broken(handler, body):
    send(handler, body, part=0.5)


def without_length(handler, body):
    """Half of the file, and no Content-Length that would tell."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])


def loop(handler, body):
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.end_headers()


def fill(folder: Path, files=FILES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in files.items():
        (folder / name).write_bytes(body)
    return folder


def check_small(dataset):
    assert dataset.name == "mnist"
    for x, y, n in (
        (dataset.x_train, dataset.y_train, 30),
        (dataset.x_test, dataset.y_test, 10),
    ):
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((n, 28, 28), np.float32, (n,), np.int64)
    raw = np.frombuffer(gzip.decompress(FILES[FIRST])[16:], np.uint8).reshape(30, 28, 28)
    assert np.array_equal(dataset.x_train, raw / np.float32(255))
    labels = gzip.decompress(FILES["t10k-labels-idx1-ubyte.gz"])[8:]
    assert dataset.y_test.tolist() == list(labels)


def check_complete(folder: Path):
    """The four files and nothing else, such as a part of a download."""
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == FILES


def environment() -> dict[str, str]:
    """For another process, which imports the package that is tested here; without the settings that
    the fixture `own_cache` has removed."""
    return {**os.environ, "PYTHONPATH": str(Path(sets.__file__).parents[2])}


CHILD = """
import json, sys
from pathlib import Path
from sumormean.data import download, sets

cache, mirrors, table = json.load(sys.stdin)
download.cache_folder = lambda: Path(cache)
table = tuple(download.OfficialFile(name, tuple(shape), *rest) for name, shape, *rest in table)
sets.SOURCES["mnist"] = sets.Source("MNIST", tuple(mirrors), table)
print(int(sets.load("mnist").y_train.sum()))
"""


def child(cache: Path, *mirrors: Mirror) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    table = [dataclasses.astuple(file) for file in TABLE]
    process.stdin.write(json.dumps([str(cache.parent), [m.url for m in mirrors], table]))
    process.stdin.close()
    process.stdin = None
    return process
