"""The official files of a data set, from a folder, the cache or a mirror, and nothing but those.

A file is read once, as a whole and never beyond its official size. What has the official SHA-256
sum is given to the caller; anything else is replaced, or refused with an error that says how to
mend it.
"""

import hashlib
import io
import os
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import requests

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pooch's tqdm asks for ipywidgets, which nothing here needs
    import pooch

PROBE_SECONDS = 5.0  # to find out whether any mirror can be reached at all
FORGET_SECONDS = 300.0  # after which mirrors that did not answer are asked again
TIMEOUT = (5.0, 10.0)  # seconds to connect, and between two packets
# A mirror is given up if it needs more than 10 seconds for 32 KiB. A link with 30 kbit/s is fast
# enough, and two mirrors that do not get on, however they drip, cost less than 30 seconds together.
PATIENCE, PROGRESS = 10.0, 2**15


@dataclass(frozen=True)
class OfficialFile:
    """Name, shape of the array in it, size in bytes and SHA-256 sum of a gzipped IDX file."""

    name: str
    shape: tuple[int, ...]
    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: mirrors, in the order to ask them, and its four files."""

    title: str
    mirrors: tuple[str, ...]
    files: tuple[OfficialFile, ...]


class DataError(ValueError):
    """A data set cannot be used; the message names the file and says how to mend it.

    reason : why no source works, in a few words; None for what a fallback must not hide.
    """

    def __init__(self, message: str, reason: str | None = None):
        super().__init__(message)
        self.reason = reason


def cache_folder() -> Path:
    """Where downloads are kept: `vaeloss` in the user's cache folder (`~/.cache` on Linux).

    Raises
    ------
    DataError: the user has no home folder, as in some containers.
    """
    try:
        return Path(pooch.os_cache("vaeloss")).expanduser()
    except RuntimeError as problem:
        raise DataError(str(problem)) from problem


def official_files(name: str, source: Source) -> list[bytes]:
    """The contents of a data set's files, in order, exactly as they were published.

    Each is taken from `$VAELOSS_DATA/<name>/`, else from the cache, else from a mirror, and kept in
    the cache.

    Raises
    ------
    DataError: `$VAELOSS_DATA` is no readable folder or holds another file than the official one;
        or, with a `reason`, no mirror works, or the cache cannot be written.
    """
    local, found, missing = _local_folder(name), {}, []
    for file in source.files:
        if local and os.path.lexists(local / file.name):
            try:
                found[file] = _read(local / file.name, file)
            except DataError as problem:
                raise DataError(
                    f"{local / file.name} is not the official file ({problem}): "
                    "replace it, or remove it and it will be downloaded"
                ) from problem
        else:
            try:
                found[file] = _read(cache_folder() / name / file.name, file)
            except DataError:
                missing.append(file)
    if missing:
        found |= _download(name, source, missing)
    return [found[file] for file in source.files]


def _local_folder(name: str) -> Path | None:
    root = os.environ.get("VAELOSS_DATA")
    if not root:
        return None
    folder = Path(os.path.expanduser(root)).absolute()  # messages say where we really looked
    for path in (folder, folder / name):
        if path != folder and not path.exists():
            return None  # a folder with some of the data sets is fine
        if not (path.is_dir() and os.access(path, os.R_OK | os.X_OK)):
            raise DataError(f"VAELOSS_DATA: {path} is no readable folder: correct it or unset it")
    return folder / name


def _read(path: Path, file: OfficialFile) -> bytes:
    """The contents of a file on the disk; DataError: why it is not the official one."""
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for ever
            raise DataError("it is no file")
        with open(path, "rb") as opened:
            body = opened.read(file.size + 1)  # enough to see a surplus of any size
    except OSError as problem:
        raise DataError(f"it cannot be read: {problem.strerror or problem}") from problem
    return _checked(body, file)


def _checked(body: bytes, file: OfficialFile) -> bytes:
    """The same bytes; DataError: what distinguishes them from the official ones."""
    if hashlib.sha256(body).hexdigest() == file.sha256:
        return body
    if body[:99].lstrip().startswith(b"<"):
        raise DataError("it is a web page, such as a network's request to log in")
    if len(body) != file.size:
        raise DataError(f"it is not {file.size:,} bytes long")
    raise DataError("its SHA-256 sum differs")


def _download(name: str, source: Source, missing: list[OfficialFile]) -> dict[OfficialFile, bytes]:
    def failure(reason: str, details: str, advice: str = "Put") -> DataError:
        return DataError(
            f"{source.title} could not be loaded: {reason} ({details}). {advice} its files into a "
            f"folder named {name} and set VAELOSS_DATA to the folder above it, or call "
            f"load({name!r}, fallback='digits28')",
            reason,
        )

    def no_cache(details: str) -> DataError:
        advice = "Mend that, name another cache folder with XDG_CACHE_HOME (Linux), put"
        return failure("the cache cannot be written", details, advice)

    try:
        folder = cache_folder() / name
    except DataError as problem:
        raise no_cache(str(problem)) from problem
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # better known before a long download than after it
    except OSError as problem:
        raise no_cache(f"{folder}: {problem.strerror}") from problem
    mirrors = _reachable(source.mirrors, missing[0].name)
    if not mirrors:
        asked = "; ".join(mirror + missing[0].name for mirror in source.mirrors)
        raise failure("no mirror reachable", f"tried {asked}")
    bodies = {}
    for file in missing:
        tried = []
        for mirror in list(mirrors):
            try:
                bodies[file] = _fetch(mirror + file.name, file)
                break
            except Exception as problem:  # whatever a library makes of what a mirror sends
                text = str(problem) if isinstance(problem, DataError) else repr(problem)
                tried.append(f"{mirror + file.name}: {text}")
                mirrors.append(mirrors.pop(mirrors.index(mirror)))  # the last for the next files
        else:
            raise failure("every download failed", f"tried {'; '.join(tried)}")
        try:
            _keep(folder / file.name, bodies[file])
        except OSError as problem:
            try:  # Windows does not replace what another process has open: then it is there
                _read(folder / file.name, file)
            except DataError:
                raise no_cache(f"{folder / file.name}: {problem.strerror}") from problem
    return bodies


class _Arrived(io.BytesIO):
    """What has come of a file so far, and no more than belongs to it."""

    def __init__(self, size: int):
        super().__init__()
        self.limit = size

    def write(self, chunk: bytes) -> int:
        if self.tell() + len(chunk) > self.limit:
            raise DataError(f"it is longer than {self.limit:,} bytes")
        return super().write(chunk)


def _fetch(url: str, file: OfficialFile) -> bytes:
    """One file from one mirror; DataError, or another exception: why it did not come."""

    def look(response: requests.Response, **kwargs) -> None:
        responses.append(response)
        # The sum is that of the bytes on their way: nothing is unpacked, whatever the server says.
        response.raw.headers.discard("Content-Encoding")
        if response.is_redirect:
            response.close()  # else its page would be read to the end, and it may have none
        elif response.ok and int(response.headers.get("Content-Length", 0)) > file.size:
            raise DataError(f"it is longer than {file.size:,} bytes")

    silent = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    downloader = pooch.HTTPDownloader(
        progressbar=not silent and sys.stderr is not None and sys.stderr.isatty(),
        chunk_size=2**14,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},
        hooks={"response": look},
    )
    problems: list[Exception] = []
    responses: list[requests.Response] = []

    def run() -> None:
        try:
            downloader(url, arrived, None)
        except Exception as problem:
            problems.append(problem)
        for response in responses:
            response.close()

    # In a thread, to memory: no time-out of a socket limits how long a mirror can drip, so that a
    # download may have to be left behind. It then ends with its next write, as `arrived` is closed.
    with _Arrived(file.size) as arrived:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        mark, since = 0, time.monotonic()
        while thread.is_alive():
            thread.join(0.05)
            if arrived.tell() >= mark + PROGRESS:
                mark, since = arrived.tell(), time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                problems.append(DataError(f"less than {PROGRESS:,} bytes in {PATIENCE:g} seconds"))
                break
        body = arrived.getvalue()
    try:
        return _checked(body, file)
    except DataError as wrong:
        raise (problems or [wrong])[0] from None


def _keep(path: Path, body: bytes) -> None:
    # Into a folder of this process's own, and moved in one step: nobody sees a part of a file
    # under its name, and processes that download at once do not meet.
    with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        part.write_bytes(body)
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
        except Exception:  # the libraries have many names for a mirror that cannot be reached
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
