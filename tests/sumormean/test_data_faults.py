"""What networks, disks and other programs do to a download and to the files that are kept of it.

Whatever happens, a load ends: in the right data, or in an error that says how to mend it; and what
it leaves in the cache under a file's name is whole. The only network is a server on this machine.
"""

import _thread
import contextlib
import errno
import gzip
import hashlib
import io
import itertools
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import tracemalloc
from functools import partial
from pathlib import Path

import pooch
import pytest
from mirrors import FILES, FIRST, check_complete, check_small, child, fill, send, start

from sumormean.data import DataError, download, load, sets

CACHE_FOLDER = download.cache_folder  # before the fixture puts another in its place
LABELS = "train-labels-idx1-ubyte.gz"
LINE = "MNIST could not be loaded ({}); using the bundled digits28 instead.\n"
FAILED, UNREACHABLE = "every download failed", "no mirror reachable"
UNWRITABLE = "the cache cannot be written"
posix = pytest.mark.skipif(os.name == "nt", reason="pipes, devices, links and modes of POSIX")


@contextlib.contextmanager
def within(seconds: float):
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def refused(reason: str, *parts: str) -> None:
    """MNIST is refused in one line that says how to mend it; a fallback is taken, in one line."""
    with pytest.raises(DataError) as caught:
        load("mnist")
    message = str(caught.value)
    for part in (reason, *parts, "VAELOSS_DATA", "fallback='digits28'"):
        assert part in message
    assert "\n" not in message and caught.value.reason == reason
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert load("mnist", fallback="digits28").name == "digits28"
    assert printed.getvalue() == LINE.format(reason)


# Wrong data from a mirror


def sends(content: bytes):
    return lambda handler, body: send(handler, content)


def page_of_the_right_length(handler, body):
    send(handler, b"\n<!doctype html>Your room?".ljust(len(body)))


def redirect_to_a_page(handler, body):
    if "login" in handler.path:
        return send(handler, b"<html>Your room?")
    start(handler, "Location: /login/here", "Content-Length: 0", status="302 Found")


BOMB = gzip.compress(bytes(20 * 2**20))  # shorter than the file, 20 MB when unpacked


def bomb(handler, body):
    start(handler, "Content-Encoding: gzip")
    handler.wfile.write(BOMB)


def endless(status: str, headers: tuple[str, ...], piece: bytes, handler, body):
    start(handler, *headers, status=status)
    for _ in range(2**12):  # 256 MB, then the test has failed
        handler.wfile.write(piece)


def endless_headers(handler, body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(2**12):
        handler.wfile.write(b"A: b\r\n" * 2**12)


PIECE, CHUNK = bytes(2**16), b"10000\r\n" + bytes(2**16) + b"\r\n"
CHUNKED, ELSEWHERE = ("Transfer-Encoding: chunked",), ("Location: /files/elsewhere",)
PAGE, DIFFERS = "it is a web page, such as a network's request to log in", "does not match"
CIRCLE, HALF = "TooManyRedirects", "IncompleteRead"
WRONG = {
    "status 503": (partial(send, status="503 Gone"), FAILED, "503"),
    "no HTTP": (lambda handler, body: handler.wfile.write(b"SSH-2.0-x\r\n"), UNREACHABLE, ""),
    "page": (sends(b"<!DOCTYPE html>Hotel"), FAILED, PAGE),
    "page of the right length": (page_of_the_right_length, FAILED, PAGE),
    "redirect to a page": (redirect_to_a_page, FAILED, PAGE),
    "other bytes": (lambda handler, body: send(handler, body[::-1]), FAILED, DIFFERS),
    "another official file": (sends(FILES[LABELS]), FAILED, DIFFERS),
    "half": (partial(send, part=0.5), FAILED, HALF),
    "bomb": (bomb, FAILED, DIFFERS),
    "endless body": (partial(endless, "200 OK", (), PIECE), FAILED, DIFFERS),
    "endless chunks": (partial(endless, "200 OK", CHUNKED, CHUNK), FAILED, DIFFERS),
    "endless headers": (endless_headers, UNREACHABLE, ""),
    "endless redirect": (partial(endless, "302 Found", ELSEWHERE, PIECE), FAILED, CIRCLE),
    "endless error page": (partial(endless, "404 Not Found", (), PIECE), FAILED, "404"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_mirror_that_sends_something_else(mirror, use, cache, fault):
    answer, reason, what = WRONG[fault]
    first, second = mirror(answer), mirror()
    use(first.url, second.url)
    tracemalloc.start()
    try:
        with within(20):
            check_small(load("mnist"))
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    check_complete(cache)
    assert second.got == list(FILES)
    assert first.got[0] == FIRST and not set(first.got[1:]) & FILES.keys(), "asked once"
    shutil.rmtree(cache)
    use(first.url)
    with within(20):
        refused(reason, first.url + FIRST, what)
    assert list(cache.iterdir()) == [], "nothing that counts as a file, and no litter"


def test_download_that_is_cut_anywhere(mirror, cache):
    """Of the whole answer, its head too."""
    body = gzip.compress(b"tiny", mtime=0)
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    cut = 0
    bad = mirror(lambda handler, _: handler.wfile.write(whole[:cut])).url
    table = {FIRST: (len(body), hashlib.sha256(body).hexdigest())}
    for cut in range(len(whole)):
        with pytest.raises(DataError):
            download.official_files("mnist", download.Source("MNIST", (bad,), table))
        assert list(cache.iterdir()) == [], cut
    cut = len(whole)
    assert download.official_files("mnist", download.Source("MNIST", (bad,), table)) == [body]


def test_official_file_in_an_odd_answer(mirror, use, cache):
    """Elsewhere, labelled as if .gz were an encoding, with a surplus, and nobody hangs up."""

    def odd(handler, body):
        if "moved" not in handler.path:
            name = handler.path.rpartition("/")[2]
            return start(handler, f"Location: /moved/{name}", "Content-Length: 0", status="307 No")
        start(handler, "Content-Encoding: gzip")
        handler.wfile.write(body + b"\n")
        time.sleep(5)

    use(mirror(odd).url)
    check_small(load("mnist"))
    check_complete(cache)


# A hang


def drip(head, piece: bytes, handler, body):
    """A piece every 50 ms: none is late, so that no time-out of a socket ends it."""
    with contextlib.suppress(OSError):
        for part in itertools.chain([head(body)], itertools.repeat(piece, 200)):
            handler.wfile.write(part)
            time.sleep(0.05)


OK = b"HTTP/1.1 200 OK\r\n"
HANGS = {
    "silent": (lambda body: b"", b"", UNREACHABLE),
    "silent after half": (lambda body: OK + b"\r\n" + body[: len(body) // 2], b"", FAILED),
    "headers drip": (lambda body: OK, b"A: b\r\n", UNREACHABLE),
    "body drips": (lambda body: OK + b"\r\n", b"x", FAILED),
}


@pytest.fixture
def impatient(monkeypatch):
    for name, value in {"PROBE_SECONDS": 0.2, "LIMIT_SECONDS": 0.2, "SLOWEST": 1e9}.items():
        monkeypatch.setattr(download, name, value)


@pytest.mark.parametrize("fault", HANGS)
def test_mirror_that_does_not_get_on(mirror, use, cache, impatient, fault):
    *what, reason = HANGS[fault]
    first, second = mirror(partial(drip, *what)), mirror()
    use(first.url, second.url)
    with within(8):
        check_small(load("mnist"))
        check_complete(cache)
        assert first.got == [FIRST], "the next files are taken from the mirror that works"
        shutil.rmtree(cache)
        use(first.url)
        refused(reason, first.url + FIRST)
    assert list(cache.iterdir()) == []


def test_limits_in_seconds():
    """A network that is down costs seconds; a link with half a megabit a second is fast enough."""
    for source in sets.SOURCES.values():
        assert len(source.mirrors) * download.PROBE_SECONDS <= 10
        for size, _ in source.files.values():
            assert size * 8 / 5e5 < download.LIMIT_SECONDS + size / download.SLOWEST < 600


def test_silent_network(use, mirror, black_hole, impatient, monkeypatch):
    """A mirror that was silent is not asked again at once, but later: the network may be mended."""
    good = mirror().url
    use(black_hole + "a/", black_hole + "b/", good)
    download._silent_since[good] = time.monotonic()
    with within(8):
        refused(UNREACHABLE)
    monkeypatch.setattr(download, "PROBE_SECONDS", 60.0)
    with within(8):
        refused(UNREACHABLE, "a moment ago")
    download._silent_since[good] -= download.FORGET_SECONDS
    check_small(load("mnist"))


def test_silent_network_does_not_hold_the_process(cache, black_hole):
    """What still waits for a mirror ends with the process, long before its own time is out."""
    with within(9):
        process = child(cache, black_hole, fallback="digits28", probe=0.1)
        out, err = process.communicate(timeout=30)
        assert out.startswith("MNIST could not be loaded") and process.returncode == 0, err


def test_name_server_that_never_answers(use, impatient, monkeypatch):
    hang = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: hang.wait(20) or [])
    use("http://mirror.invalid/", "http://other.invalid/")
    with within(8):
        refused(UNREACHABLE)
    hang.set()


def test_refused_connections(use, dead, mirror):
    use(dead)
    refused(UNREACHABLE, "ConnectionError")
    use(dead, mirror().url)
    check_small(load("mnist"))


# A file that is not what it was


def link(path: Path):
    other = path.parents[2] / "other"
    other.write_bytes(b"not ours")
    path.symlink_to(other)


CHANGES = {
    "longer": lambda path: path.write_bytes(FILES[FIRST] + b"\0"),
    "truncated": lambda path: path.write_bytes(FILES[FIRST][:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "changed": lambda path: path.write_bytes(FILES[FIRST][::-1]),
    "another official file": lambda path: path.write_bytes(FILES[LABELS]),
    "folder": Path.mkdir,
}
SPECIAL = {
    "pipe": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link": link,
    "link to itself": lambda path: path.symlink_to(path),
}
each_change = pytest.mark.parametrize(
    "change", [*CHANGES, *(pytest.param(name, marks=posix) for name in SPECIAL)]
)


@each_change
def test_changed_file_in_the_cache(mirror, use, cache, change):
    fill(cache, {n: body for n, body in FILES.items() if n != FIRST})
    (CHANGES | SPECIAL)[change](cache / FIRST)
    server = mirror()
    use(server.url)
    if change == "folder":
        refused(UNWRITABLE, str(cache / FIRST))
        (cache / FIRST).rmdir()
    with within(8):
        check_small(load("mnist"))
    check_complete(cache)
    assert server.got == [FIRST] and not (cache / FIRST).is_symlink()
    assert change != "link" or (cache.parents[1] / "other").read_bytes() == b"not ours"


@each_change
@pytest.mark.parametrize("fallback", [None, "digits28"])
def test_changed_file_in_the_readers_folder(mirror, use, tmp_path, monkeypatch, change, fallback):
    named = fill(tmp_path / "sets" / "mnist", {n: b for n, b in FILES.items() if n != FIRST})
    (CHANGES | SPECIAL)[change](named / FIRST)
    monkeypatch.setenv("VAELOSS_DATA", str(named.parent))
    server = mirror()
    use(server.url)
    with within(8), pytest.raises(DataError) as caught:
        load("mnist", fallback=fallback)
    assert f"{named / FIRST} is not the official file (it" in str(caught.value)
    assert "replace it" in str(caught.value) and os.path.lexists(named / FIRST)
    assert server.got == []


# A cache that cannot be written


@posix
@pytest.mark.parametrize("block", ["file", "file above", "dangling link", "pipe"])
def test_cache_that_is_no_folder(mirror, use, cache, block):
    path = cache.parent if block == "file above" else cache
    path.parent.mkdir(exist_ok=True)
    if block == "dangling link":
        path.symlink_to(path.parent / "absent")
    else:
        os.mkfifo(path) if block == "pipe" else path.write_text("a file")
    server = mirror()
    use(server.url)
    with within(8):
        refused(UNWRITABLE, str(path))
    assert server.got == []


@posix
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_cache_without_permission_to_write(mirror, use, monkeypatch, dead, mode):
    """A superuser, who may do everything, becomes another user for the test."""
    superuser = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as root:  # not tmp_path, which other users may not enter
        Path(root).chmod(0o755)
        monkeypatch.setattr(download, "cache_folder", lambda: Path(root))
        named = Path(root) / "mnist"
        named.mkdir(mode=mode)
        server = mirror()
        use(server.url)
        try:
            os.seteuid(65534 if superuser else os.geteuid())
            refused(UNWRITABLE, "Permission denied", str(named))
            assert server.got == [], "found out before anything is downloaded"
            os.seteuid(0 if superuser else os.geteuid())
            named.chmod(0o755)
            fill(named).chmod(0o555)
            use(dead)
            os.seteuid(65534 if superuser else os.geteuid())
            check_small(load("mnist"))
        finally:
            os.seteuid(0 if superuser else os.geteuid())
            named.chmod(0o755)


def test_full_disk(mirror, use, cache):
    """A limit on the size of files stands in for a full disk."""
    resource = pytest.importorskip("resource")
    first, second = mirror(), mirror()
    use(first.url, second.url)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        refused(UNWRITABLE, os.strerror(errno.EFBIG))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(cache.iterdir()) == [] and second.got == [], "another would not make room"
    check_small(load("mnist"))
    check_complete(cache)


def test_user_without_a_home(mirror, use, tmp_path, monkeypatch):
    """As in a container that runs under a number of its own."""
    pwd = pytest.importorskip("pwd")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    monkeypatch.setattr(download, "cache_folder", CACHE_FOLDER)
    use(mirror().url)
    refused(UNWRITABLE, "home directory")
    monkeypatch.setenv("VAELOSS_DATA", str(fill(tmp_path / "sets" / "mnist").parent))
    check_small(load("mnist"))


# Two notebooks, and a reader who gives up


def test_two_notebooks_while_the_first_mirror_fails_midway(mirror, cache):
    """Both start with an empty cache, and are in the same file when the connections break."""
    both = threading.Barrier(2, timeout=20)

    def fail_midway(handler, body):
        send(handler, body, part=0.5)
        both.wait()

    first, second = mirror(fail_midway), mirror()
    processes = [child(cache, first.url, second.url) for _ in range(2)]
    expected = sum(gzip.decompress(FILES[LABELS])[8:])
    for process in processes:
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out.strip(), err) == (0, str(expected), "")
    assert first.got == [FIRST, FIRST], "neither had the first file from the other"
    check_complete(cache)


def test_a_file_that_another_process_has_open(mirror, use, cache, monkeypatch):
    """Windows does not replace an open file: another process's copy is as good as ours."""

    def move(source, target):
        Path(target).write_bytes(Path(source).read_bytes())
        raise PermissionError("the file is open")

    monkeypatch.setattr(pooch.core.shutil, "move", move)
    use(mirror().url)
    check_small(load("mnist"))
    check_complete(cache)


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_reader_who_ends_a_download(mirror, use, cache, how):
    half_sent, go_on = threading.Event(), threading.Event()

    def stop(handler, body):
        send(handler, body, part=0.5)
        half_sent.set()
        go_on.wait(20)

    url = mirror(stop).url
    if how == "killed":
        process = child(cache, url)
        assert half_sent.wait(20)
        process.kill()
        process.communicate(timeout=10)
        assert not any((cache / name).exists() for name in FILES)
    else:
        use(url)
        watcher = threading.Thread(target=lambda: half_sent.wait(20) and _thread.interrupt_main())
        # Python heeds Ctrl-C even in a job that a shell put in the background, deaf to it.
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        watcher.start()
        with within(8), pytest.raises(KeyboardInterrupt):
            load("mnist")
        signal.signal(signal.SIGINT, handler)
        assert list(cache.iterdir()) == []
    go_on.set()
    use(mirror().url)
    check_small(load("mnist"))
    assert {name: (cache / name).read_bytes() for name in FILES} == FILES
