"""What networks, disks and other programs do to a download and to the files that are kept of it.

Whatever happens, a load ends within 30 seconds: in the right data, or in an error that says how to
mend it; and what it leaves in the cache is whole. The only network is a server on this machine.
"""

import _thread
import contextlib
import dataclasses
import errno
import gzip
import hashlib
import itertools
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import requests
import urllib3
from mirrors import (
    FILES,
    FIRST,
    TABLE,
    broken,
    check_complete,
    check_small,
    child,
    fill,
    html,
    idx,
    official,
    refuse,
    send,
)

from sumormean.data import DataError, download, load, sets

CACHE_FOLDER = download.cache_folder  # before the fixture puts another in its place
LINE = "MNIST could not be loaded ({}); using the bundled digits28 instead.\n"
UNWRITABLE = "the cache cannot be written"


@pytest.fixture(autouse=True)
def cache(own_cache):
    started = time.monotonic()
    yield own_cache
    assert time.monotonic() - started < 30


@contextlib.contextmanager
def within(seconds: float):
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def refused(*parts: str) -> str:
    """The message of the error with which MNIST is refused: one line, with these parts."""
    with pytest.raises(DataError) as caught:
        load("mnist")
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "\n" not in message
    return message


def start(handler, *headers: str, status: str = "200 OK") -> None:
    """The head of an answer, as it is: nothing that http.server would add."""
    lines = [f"HTTP/1.1 {status}", *headers, "", ""]
    handler.wfile.write("\r\n".join(lines).encode())


# A download that is cut off


TINY = gzip.compress(idx(np.arange(4, dtype=np.uint8)), mtime=0)


def with_length(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def without_length(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n" + body


def chunked(body: bytes) -> bytes:
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:20], body[20:]))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"


def reset(handler) -> None:
    """Let the connection end with an error instead of an orderly close."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@pytest.mark.parametrize(
    "framing, end",
    [(with_length, None), (with_length, reset), (without_length, None), (chunked, None)],
)
def test_cut_at_any_byte(mirror, cache, framing, end):
    """Of the whole answer, its head too. A file whose last byte has come is complete."""
    whole = framing(TINY)
    complete = whole.index(TINY[-8:]) + 8
    cut = 0

    def send_a_part(handler, body):
        handler.wfile.write(whole[:cut])
        if end:
            end(handler)

    bad, good = mirror({FIRST: TINY}, send_a_part), mirror({FIRST: TINY})
    sha256 = hashlib.sha256(TINY).hexdigest()
    files = (download.OfficialFile(FIRST, (4,), len(TINY), sha256),)
    for cut in range(complete):
        with pytest.raises(DataError) as caught:
            download.official_files("mnist", download.Source("MNIST", (bad.url,), files))
        assert f"{bad.url}{FIRST}: " in str(caught.value) and "VAELOSS_DATA" in str(caught.value)
        assert list(cache.iterdir()) == [], cut
        both = download.Source("MNIST", (bad.url, good.url), files)
        assert download.official_files("mnist", both) == [TINY]
        assert [path.name for path in cache.iterdir()] == [FIRST], cut
        assert (cache / FIRST).read_bytes() == TINY, cut
        (cache / FIRST).unlink()
    assert len(bad.got) == 2 * complete


# A download that does not get on, or does not end


def drip(handler, pieces) -> None:
    for piece in pieces:
        handler.wfile.write(piece)
        handler.wfile.flush()
        time.sleep(0.1)


def drip_status(handler, body):
    drip(handler, itertools.chain([b"HTTP/1.1 200 "], itertools.repeat(b"O", 300)))


def drip_headers(handler, body):
    start(handler)
    drip(handler, itertools.repeat(b"A: b\r\n", 300))


def drip_body(handler, body):
    start(handler, f"Content-Length: {len(body)}")
    drip(handler, (body[i : i + 1] for i in range(300)))


def drip_chunks(handler, body):
    start(handler, "Transfer-Encoding: chunked")
    drip(handler, (b"1\r\n%c\r\n" % byte for byte in body[:300]))


def drip_continue(handler, body):
    drip(handler, itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n", 300))


def drip_redirects(handler, body):
    time.sleep(0.1)
    start(handler, f"Location: {handler.path}", "Content-Length: 0", status="302 Found")


def drip_half(handler, body):
    start(handler, f"Content-Length: {len(body)}")
    handler.wfile.write(body[: len(body) // 2])
    drip(handler, itertools.repeat(b"x", 300))


def never_hang_up(handler, body):
    """All of it, but who could know?"""
    start(handler)
    drip(handler, itertools.chain([body], itertools.repeat(b"", 300)))


DRIPS = [
    never_hang_up,
    drip_status,
    drip_headers,
    drip_body,
    drip_chunks,
    drip_continue,
    drip_redirects,
    drip_half,
]


@pytest.mark.parametrize("fault", DRIPS)
def test_mirror_that_drips(mirror, use, cache, monkeypatch, capsys, fault):
    """No packet is late, so that no time-out of a socket ends it."""
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    first, second = mirror(answer=fault), mirror()
    use(first.url, second.url)
    with within(3):
        check_small(load("mnist"))
    check_complete(cache)
    assert set(first.got) == {FIRST}, "the next files are taken from the mirror that works"
    shutil.rmtree(cache)
    use(first.url, mirror(answer=fault).url)
    with within(4):
        assert load("mnist", fallback="digits28").name == "digits28"
    assert capsys.readouterr().out == LINE.format("every download failed")
    assert list(cache.iterdir()) == []


def test_every_mirror_drips_for_less_than_30_seconds():
    for source in sets.SOURCES.values():
        assert download.PROBE_SECONDS + len(source.mirrors) * download.PATIENCE <= 25


def test_slow_mirror_that_gets_on(mirror, cache, monkeypatch):
    """It takes longer than a mirror is allowed to make no progress."""
    images = np.random.default_rng(0).integers(0, 256, (200, 28, 28)).astype(np.uint8)
    files = {**FILES, FIRST: gzip.compress(idx(images))}
    first = dataclasses.replace(official(FIRST, files[FIRST]), shape=images.shape)
    table = (first, *TABLE[1:])

    def slow(handler, body):
        start(handler, f"Content-Length: {len(body)}")
        for i in range(0, len(body), 2**14):
            handler.wfile.write(body[i : i + 2**14])
            time.sleep(0.15)

    monkeypatch.setattr(download, "PATIENCE", 1.0)
    address = mirror(files, slow).url
    monkeypatch.setitem(sets.SOURCES, "mnist", sets.Source("MNIST", (address,), table))
    started = time.monotonic()
    assert np.array_equal(load("mnist").x_train, images / np.float32(255))
    assert time.monotonic() - started > 1.0


def endless(handler, *headers, status="200 OK", piece=bytes(2**16)):
    start(handler, *headers, status=status)
    for _ in range(2**12):  # 256 MB, then the test has failed
        handler.wfile.write(piece)


def endless_body(handler, body):
    endless(handler)


def endless_chunks(handler, body):
    endless(handler, "Transfer-Encoding: chunked", piece=b"10000\r\n" + bytes(2**16) + b"\r\n")


def endless_headers(handler, body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(2**12):
        handler.wfile.write(b"A: b\r\n" * 2**12)


def endless_redirect(handler, body):
    endless(handler, "Location: /files/elsewhere", status="302 Found")


def endless_chunks_of_a_redirect(handler, body):
    piece = b"10000\r\n" + bytes(2**16) + b"\r\n"
    headers = ("Location: /files/elsewhere", "Transfer-Encoding: chunked")
    endless(handler, *headers, status="302 Found", piece=piece)


def endless_error_page(handler, body):
    endless(handler, status="404 Not Found")


ENDLESS = [
    endless_body,
    endless_chunks,
    endless_headers,
    endless_redirect,
    endless_chunks_of_a_redirect,
    endless_error_page,
]


@pytest.mark.parametrize("fault", ENDLESS)
def test_mirror_that_never_ends(mirror, use, cache, fault):
    bad = mirror({**FILES, "elsewhere": FILES[FIRST]}, fault)
    use(bad.url, mirror().url)
    tracemalloc.start()
    try:
        with within(5):
            check_small(load("mnist"))
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    check_complete(cache)
    use(bad.url)
    shutil.rmtree(cache)
    refused(bad.url)
    assert list(cache.iterdir()) == []


def test_file_that_is_announced_as_too_long(mirror, use, cache):
    done = threading.Event()

    def announce(handler, body):
        start(handler, "Content-Length: 1000000000000")
        done.wait(20)

    first = mirror(answer=announce)
    use(first.url)
    with within(2):
        refused(f"{first.url}{FIRST}: it is longer than {len(FILES[FIRST]):,} bytes")
        use(first.url, mirror().url)
        check_small(load("mnist"))
    done.set()
    check_complete(cache)


def test_one_byte_too_many(mirror, use, cache):
    def surplus(handler, body):
        handler.wfile.write(without_length(body + b"\n"))

    first = mirror(answer=surplus)
    use(first.url)
    refused(f"{FIRST}: it is longer than {len(FILES[FIRST]):,} bytes")
    use(first.url, mirror().url)
    check_small(load("mnist"))
    check_complete(cache)


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "br", "zstd"])
def test_nothing_is_unpacked_on_the_way(mirror, use, cache, coding):
    """Some servers take the .gz for an encoding of what is in it; others would send a bomb."""
    files = FILES

    def label(handler, body):
        start(handler, f"Content-Encoding: {coding}")
        handler.wfile.write(files[handler.path.rsplit("/", 1)[-1]])

    server = mirror(answer=label)
    use(server.url)
    check_small(load("mnist"))
    check_complete(cache)
    shutil.rmtree(cache)
    bomb = gzip.compress(bytes(20 * 2**20))
    assert len(bomb) < len(FILES[FIRST])
    files = dict.fromkeys(FILES, bomb)
    tracemalloc.start()
    try:
        refused(f"it is not {len(FILES[FIRST]):,} bytes long")
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"\0" * 1000,
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a number\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nbody\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\xff\xfe: \xff\r\n\r\nbody",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://a..b/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe://\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/hostname\r\n\r\n",
        b"HTTP/1.1 302 Found\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: \0=;;;=\r\n\r\nbody",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nbody",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_answer_that_is_hardly_http(mirror, use, cache, answer):
    """Whatever a library makes of it, the next mirror is asked."""
    bad = mirror(answer=lambda handler, body: handler.wfile.write(answer))
    use(bad.url)
    refused(bad.url)
    use(bad.url, mirror().url)
    check_small(load("mnist"))
    check_complete(cache)


@pytest.mark.parametrize("function", ["head", "get"])
def test_exception_that_only_a_library_knows(mirror, use, cache, monkeypatch, function):
    first, second = mirror(), mirror()
    real = getattr(requests, function)

    def fail_at_the_first(url, **kwargs):
        if url.startswith(first.url):
            raise urllib3.exceptions.HTTPError("neither an OSError nor a ValueError")
        return real(url, **kwargs)

    monkeypatch.setattr(requests, function, fail_at_the_first)
    use(first.url, second.url)
    check_small(load("mnist"))
    check_complete(cache)
    assert (first.got, second.got) == ([], list(FILES))


def test_answer_to_a_probe_that_is_hardly_http(use):
    """A mirror is only as reachable as its answer can be read."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        use(f"http://127.0.0.1:{server.getsockname()[1]}/")
        with within(download.PROBE_SECONDS + 1):
            refused("VAELOSS_DATA")
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


# A captive portal, and mirrors that are good in parts


LOGIN = b"\n<!doctype html>Your room?"


def page(handler, body):
    send(handler, LOGIN)


def page_of_the_right_length(handler, body):
    send(handler, LOGIN.ljust(len(body)))


def page_without_length(handler, body):
    handler.wfile.write(without_length(LOGIN))


def redirect_to_a_page(handler, body):
    if "login" in handler.path:
        return send(handler, LOGIN)
    start(handler, f"Location: /login/{FIRST}", "Content-Length: 0", status="302 Found")


PORTALS = [page, page_of_the_right_length, page_without_length, redirect_to_a_page]


@pytest.mark.parametrize("portal", PORTALS)
@pytest.mark.parametrize("name", FILES)
def test_captive_portal(mirror, use, cache, portal, name):
    """It takes over at any of the four files."""

    def take_over(handler, body):
        at_fault = handler.path.endswith(name) or "login" in handler.path
        (portal if at_fault else send)(handler, body)

    first, second = mirror(answer=take_over), mirror()
    use(first.url, second.url)
    check_small(load("mnist"))
    check_complete(cache)
    assert second.got == list(FILES)[list(FILES).index(name) :]
    shutil.rmtree(cache)
    use(first.url)
    message = refused(f"{first.url}{name}: it is a web page, such as a network's request to log in")
    assert "VAELOSS_DATA" in message
    before = list(FILES)[: list(FILES).index(name)]
    assert {p.name: p.read_bytes() for p in cache.iterdir()} == {n: FILES[n] for n in before}
    use(second.url)
    check_small(load("mnist"))
    check_complete(cache)


def test_redirect_to_the_file(mirror, use, cache):
    def elsewhere(handler, body):
        if "mirror" in handler.path:
            return send(handler, body)
        location = f"Location: /mirror/{handler.path.rsplit('/', 1)[-1]}"
        start(handler, location, status="307 Temporary Redirect")
        handler.wfile.write(LOGIN)

    use(mirror(answer=elsewhere).url)
    check_small(load("mnist"))
    check_complete(cache)


@pytest.mark.parametrize("fault", [refuse, html, broken])
def test_bad_mirror_is_not_asked_four_times(mirror, use, fault):
    first, second = mirror(answer=fault), mirror()
    use(first.url, second.url)
    check_small(load("mnist"))
    assert (first.got, second.got) == ([FIRST], list(FILES))


def test_mirrors_that_have_half_of_the_files_each(mirror, use, cache):
    """One that has failed is still asked for the next file where the other one fails."""
    last = list(FILES)[-1]

    def all_but(*names):
        return lambda h, body: (refuse if h.path.endswith(names) else send)(h, body)

    first, second = mirror(answer=all_but(FIRST)), mirror(answer=all_but(last))
    use(first.url, second.url)
    check_small(load("mnist"))
    check_complete(cache)
    assert first.got == [FIRST, last]


# A disk that is full


@pytest.fixture
def disk(tmp_path):
    """A function that makes a file system of so many bytes, and changes its size or its mode."""
    folder = tmp_path / "disk"

    def mount(options: str, *flags: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, *flags, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as problem:
            pytest.skip(f"there is no mount here: {problem}")
        if done.returncode != 0:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
        return folder

    folder.mkdir()
    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


def size_on_disk(files) -> int:
    return sum(-(-len(FILES[name]) // 4096) * 4096 for name in files)


def test_full_disk(mirror, use, disk, monkeypatch, capsys):
    """A real one, with room for the first two files: then it is given more."""
    room = size_on_disk(list(FILES)[:2])
    folder = disk(f"size={room}") / "cache"
    monkeypatch.setattr(download, "cache_folder", lambda: folder)
    first, second = mirror(), mirror()
    use(first.url, second.url)
    third = list(FILES)[2]
    refused(f"{folder / 'mnist' / third}: No space left", "XDG_CACHE_HOME", "VAELOSS_DATA")
    assert second.got == [], "another mirror would not make room"
    complete = {name: FILES[name] for name in list(FILES)[:2]}
    assert {p.name: p.read_bytes() for p in (folder / "mnist").iterdir()} == complete
    assert load("mnist", fallback="digits28").name == "digits28"
    assert capsys.readouterr().out == LINE.format(UNWRITABLE)
    disk("size=1m,remount")
    first.got.clear()
    check_small(load("mnist"))
    check_complete(folder / "mnist")
    assert first.got == list(FILES)[2:]


def test_disk_without_room_for_anything(mirror, use, disk, monkeypatch):
    folder = disk("size=4096")
    (folder / "other").write_bytes(bytes(4096))
    monkeypatch.setattr(download, "cache_folder", lambda: folder)
    use(mirror().url)
    refused("No space left", str(folder), "VAELOSS_DATA")
    assert [p for p in folder.rglob("*") if p.is_file()] == [folder / "other"]


def test_write_that_the_system_ends(mirror, use, cache):
    """A limit on the size of files stands in for a full disk where none can be mounted."""
    resource = pytest.importorskip("resource")
    use(mirror().url)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        refused(f"{cache / FIRST}: File too large", "VAELOSS_DATA")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(cache.iterdir()) == []
    check_small(load("mnist"))
    check_complete(cache)


def test_write_that_fails(mirror, use, cache, monkeypatch, capsys):
    write = Path.write_bytes

    def fail(path, content):
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    use(mirror().url, mirror().url)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        refused(f"{cache / FIRST}: {os.strerror(errno.ENOSPC)}", "XDG_CACHE_HOME", "VAELOSS_DATA")
        assert load("mnist", fallback="digits28").name == "digits28"
    assert capsys.readouterr().out == LINE.format(UNWRITABLE)
    assert list(cache.iterdir()) == []
    check_small(load("mnist"))
    check_complete(cache)


# A cache that can only be read, or not even that


@pytest.fixture
def folder_of_nobody(monkeypatch):
    """A folder in which permissions count: a superuser becomes another user for the test."""
    if os.name == "nt":
        pytest.skip("Windows has other permissions")
    folder = Path(tempfile.mkdtemp())  # not tmp_path, which other users may not enter
    folder.chmod(0o755)
    monkeypatch.setattr(download, "cache_folder", lambda: folder)
    superuser = os.geteuid() == 0

    @contextlib.contextmanager
    def permissions(mode: int):
        (folder / "mnist").chmod(mode)
        if superuser:
            os.seteuid(65534)
        try:
            yield
        finally:
            if superuser:
                os.seteuid(0)
            (folder / "mnist").chmod(0o755)

    yield folder, permissions
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", [0o555, 0o444, 0o000])
def test_cache_without_permission_to_write(mirror, use, folder_of_nobody, capsys, mode):
    folder, permissions = folder_of_nobody
    (folder / "mnist").mkdir()
    server = mirror()
    use(server.url)
    with permissions(mode):
        refused(f"{folder / 'mnist'}: Permission denied", "XDG_CACHE_HOME", "VAELOSS_DATA")
        assert load("mnist", fallback="digits28").name == "digits28"
    assert server.got == [], "found out before anything is downloaded"
    assert capsys.readouterr().out == LINE.format(UNWRITABLE)
    assert list((folder / "mnist").iterdir()) == []
    check_small(load("mnist"))


def test_cache_that_can_be_read(mirror, use, folder_of_nobody, dead):
    folder, permissions = folder_of_nobody
    fill(folder / "mnist")
    use(dead)
    with permissions(0o555):
        check_small(load("mnist"))
    check_complete(folder / "mnist")
    (folder / "mnist" / FIRST).write_bytes(b"damaged")
    use(mirror().url)
    with permissions(0o555):
        refused(str(folder / "mnist"), UNWRITABLE)
    check_small(load("mnist"))


def test_read_only_file_system(mirror, use, disk, monkeypatch, dead):
    folder = disk("size=1m")
    monkeypatch.setattr(download, "cache_folder", lambda: folder)
    disk("ro,remount")
    server = mirror()
    use(server.url)
    refused(f"{folder / 'mnist'}: Read-only file system", "XDG_CACHE_HOME", "VAELOSS_DATA")
    assert server.got == []
    disk("rw,remount")
    check_small(load("mnist"))
    disk("ro,remount")
    use(dead)
    check_small(load("mnist"))


@pytest.mark.parametrize("kind", ["file", "file above", "dangling link", "pipe"])
def test_cache_that_is_no_folder(mirror, use, cache, kind):
    if kind == "file above":
        cache.parent.write_text("a file")
    else:
        cache.parent.mkdir()
    if kind == "file":
        cache.write_text("a file")
    elif kind == "dangling link":
        cache.symlink_to(cache.parent / "absent")
    elif kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("no named pipes on this system")
        os.mkfifo(cache)
    server = mirror()
    use(server.url)
    refused(str(cache), "XDG_CACHE_HOME", "VAELOSS_DATA")
    assert server.got == []
    assert load("mnist", fallback="digits28").name == "digits28"


def test_user_without_a_home(mirror, use, tmp_path, monkeypatch, capsys):
    """As in a container that runs under a number of its own."""
    pwd = pytest.importorskip("pwd")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    monkeypatch.setattr(download, "cache_folder", CACHE_FOLDER)
    use(mirror().url)
    refused(UNWRITABLE, "home directory", "VAELOSS_DATA")
    assert load("mnist", fallback="digits28").name == "digits28"
    assert capsys.readouterr().out == LINE.format(UNWRITABLE)
    fill(tmp_path / "sets" / "mnist")
    monkeypatch.setenv("VAELOSS_DATA", str(tmp_path / "sets"))
    check_small(load("mnist"))
    monkeypatch.setenv("VAELOSS_DATA", "~/sets")
    refused("~/sets is no readable folder")


# A cache that lies elsewhere


def test_cache_on_another_file_system(mirror, use, monkeypatch):
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        pytest.skip("there is no second file system to write to")
    if memory.stat().st_dev == os.stat(tempfile.gettempdir()).st_dev:
        pytest.skip("temporary files are in memory here")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        monkeypatch.setattr(download, "cache_folder", lambda: Path(folder))
        use(mirror().url)
        check_small(load("mnist"))
        check_complete(Path(folder) / "mnist")


def test_files_are_moved_within_the_cache(mirror, use, cache, monkeypatch):
    """As the system would: a file cannot be moved in one step from elsewhere."""
    replace = os.replace

    def from_here_only(source, target):
        if Path(target).parent not in Path(source).parents:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, target)

    monkeypatch.setattr(os, "replace", from_here_only)
    use(mirror().url)
    check_small(load("mnist"))
    check_complete(cache)


def test_cache_behind_a_link(mirror, use, cache, tmp_path):
    (tmp_path / "real").mkdir()
    cache.parent.symlink_to(tmp_path / "real", target_is_directory=True)
    use(mirror().url)
    check_small(load("mnist"))
    check_complete(tmp_path / "real" / "mnist")


def test_link_in_the_cache(mirror, use, cache, tmp_path):
    """A link to another file is replaced, and the file left as it is."""
    other = tmp_path / "other"
    other.write_text("not ours")
    fill(cache, {n: body for n, body in FILES.items() if n != FIRST})
    (cache / FIRST).symlink_to(other)
    use(mirror().url)
    check_small(load("mnist"))
    check_complete(cache)
    assert other.read_text() == "not ours" and not (cache / FIRST).is_symlink()


# A file that is not what it was


def longer(path: Path):
    path.write_bytes(FILES[path.name] + b"\0")


def truncated(path: Path):
    path.write_bytes(FILES[path.name][:-1])


def empty(path: Path):
    path.write_bytes(b"")


def huge(path: Path):
    with open(path, "wb") as file:
        file.write(FILES[path.name])
        try:
            file.truncate(5 * 10**9)  # takes no room where files may have holes
        except OSError as problem:
            pytest.skip(f"no file of 5 GB here: {problem}")


def pipe(path: Path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes on this system")
    os.mkfifo(path)

    def let_go():  # of a reader that waits for a writer: better too late than never
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    timer = threading.Timer(5, let_go)
    timer.daemon = True
    timer.start()


def device(path: Path):
    if not os.path.exists("/dev/zero"):
        pytest.skip("no /dev/zero on this system")
    path.symlink_to("/dev/zero")


def own_link(path: Path):
    path.symlink_to(path)


def dangling_link(path: Path):
    path.symlink_to(path.parent / "absent")


def folder(path: Path):
    path.mkdir()


CHANGES = [longer, truncated, empty, huge, pipe, device, own_link, dangling_link, folder]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", [FIRST, "t10k-labels-idx1-ubyte.gz"])
def test_changed_file_in_the_cache(mirror, use, cache, name, change):
    fill(cache, {n: body for n, body in FILES.items() if n != name})
    change(cache / name)
    server = mirror()
    use(server.url)
    with within(3):
        if change is folder:
            refused(str(cache / name), UNWRITABLE)
            (cache / name).rmdir()
        check_small(load("mnist"))
    check_complete(cache)
    assert set(server.got) == {name}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("fallback", [None, "digits28"])
def test_changed_file_in_the_readers_folder(
    mirror, use, tmp_path, monkeypatch, capsys, change, fallback
):
    sets = fill(tmp_path / "sets" / "mnist", {n: b for n, b in FILES.items() if n != FIRST}).parent
    change(sets / "mnist" / FIRST)
    monkeypatch.setenv("VAELOSS_DATA", str(sets))
    server = mirror()
    use(server.url)
    with within(3), pytest.raises(DataError) as caught:
        load("mnist", fallback=fallback)
    assert f"{sets / 'mnist' / FIRST} is not the official file (it " in str(caught.value)
    assert "replace it" in str(caught.value)
    assert (server.got, capsys.readouterr().out) == ([], "")


def test_file_that_changes_after_it_was_checked(use, dead, cache, monkeypatch):
    """What becomes an array is what had the right sum, whatever is in the file by then."""
    use(dead)
    fill(cache)
    files = sets.official_files

    def then_change(*args):
        bodies = files(*args)
        fill(cache, {name: FILES[name][:-1] for name in FILES})
        return bodies

    monkeypatch.setattr(sets, "official_files", then_change)
    check_small(load("mnist"))


# Two notebooks, and a reader who gives up


def test_two_notebooks_while_the_first_mirror_fails_midway(mirror, cache):
    """Both start with an empty cache, and are in the same file when the connections break."""
    both = threading.Barrier(2, timeout=20)

    def fail_midway(handler, body):
        start(handler, f"Content-Length: {len(body)}")
        handler.wfile.write(body[: len(body) // 2])
        both.wait()

    first, second = mirror(answer=fail_midway), mirror()
    processes = [child(cache, first, second) for _ in range(2)]
    expected = sum(gzip.decompress(FILES["train-labels-idx1-ubyte.gz"])[8:])
    for process in processes:
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out.strip(), err) == (0, str(expected), "")
    assert first.got == [FIRST, FIRST] and sorted(second.got) == sorted(2 * [*FILES])
    check_complete(cache)


@pytest.fixture
def ctrl_c():
    """Python heeds Ctrl-C even in a job that a shell put in the background, deaf to it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def test_interrupted_by_the_reader(mirror, use, cache, ctrl_c):
    half_sent, go_on = threading.Event(), threading.Event()

    def stop(handler, body):
        send(handler, body, part=0.5)
        half_sent.set()
        go_on.wait(20)

    def interrupt():
        half_sent.wait(20)
        _thread.interrupt_main()

    use(mirror(answer=stop).url)
    watcher = threading.Thread(target=interrupt)
    watcher.start()
    with within(5), pytest.raises(KeyboardInterrupt):
        load("mnist")
    watcher.join()
    go_on.set()
    assert list(cache.iterdir()) == []
    use(mirror().url)
    check_small(load("mnist"))
    check_complete(cache)
