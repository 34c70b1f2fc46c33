"""Mirrors on the loopback, and small stand-ins for the official files."""

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


def idx(array: np.ndarray) -> bytes:
    """An array as IDX, not compressed."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def small_files() -> dict[str, bytes]:
    """Stand-ins for the four files: 30 training and 10 test images of random pixels."""
    rng = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte.gz": rng.integers(0, 256, (30, 28, 28)),
        "train-labels-idx1-ubyte.gz": rng.integers(0, 10, 30),
        "t10k-images-idx3-ubyte.gz": rng.integers(0, 256, (10, 28, 28)),
        "t10k-labels-idx1-ubyte.gz": rng.integers(0, 10, 10),
    }
    return {name: gzip.compress(idx(a.astype(np.uint8)), mtime=0) for name, a in arrays.items()}


FILES = small_files()
FIRST = "train-images-idx3-ubyte.gz"
TABLE = {name: (len(body), hashlib.sha256(body).hexdigest()) for name, body in FILES.items()}


class Mirror:
    """A mirror on the loopback. `answer(handler, body)` replaces how files are sent."""

    def __init__(self, answer=None, files=FILES):
        self.got: list[str] = []
        mirror, answer = self, answer or send

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.got.append(self.path.rsplit("/", 1)[-1])
                answer(self, files.get(mirror.got[-1], b""))

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                pass  # a client that hung up, as it should

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/files/"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def start(handler, *headers: str, status: str = "200 OK") -> None:
    """The head of an answer, as it is: nothing that http.server would add."""
    handler.wfile.write("\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode())


def send(handler, body: bytes, part: float = 1.0, status: str = "200 OK"):
    """Send a body, or break the connection after a part of it."""
    start(handler, f"Content-Length: {len(body)}", status=status)
    handler.wfile.write(body[: int(part * len(body))])
    handler.wfile.flush()


def fill(folder: Path, files=FILES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in files.items():
        (folder / name).write_bytes(body)
    return folder


def check_small(dataset):
    assert dataset.name == "mnist"
    parts = ((dataset.x_train, dataset.y_train, 30), (dataset.x_test, dataset.y_test, 10))
    for x, y, n in parts:
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((n, 28, 28), np.float32, (n,), np.int64)
    raw = np.frombuffer(gzip.decompress(FILES[FIRST])[16:], np.uint8).reshape(30, 28, 28)
    assert np.array_equal(dataset.x_train, raw / np.float32(255))
    assert dataset.y_test.tolist() == list(gzip.decompress(FILES["t10k-labels-idx1-ubyte.gz"])[8:])


def check_complete(folder: Path):
    """The four files and nothing else, such as a part of a download."""
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == FILES


def environment() -> dict[str, str]:
    """For another process, which imports the package that is tested here; without the settings that
    the fixture `cache` has removed."""
    return {**os.environ, "PYTHONPATH": str(Path(sets.__file__).parents[2])}


CHILD = """
import json, sys
from pathlib import Path
from sumormean.data import download, sets

cache, mirrors, table, fallback, download.PROBE_SECONDS = json.load(sys.stdin)
download.cache_folder = lambda: Path(cache)
sets.SOURCES["mnist"] = download.Source("MNIST", tuple(mirrors), table)
print(int(sets.load("mnist", fallback).y_train.sum()))
"""


def child(cache: Path, *urls: str, fallback=None, probe=20.0) -> subprocess.Popen:
    """A process that loads MNIST and prints the sum of its training labels."""
    piped = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", CHILD]
    process = subprocess.Popen(command, text=True, env=environment(), **piped)
    process.stdin.write(json.dumps([str(cache.parent), urls, TABLE, fallback, probe]))
    process.stdin.close()
    process.stdin = None
    return process
