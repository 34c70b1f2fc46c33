"""The official files of a data set, from a folder, the cache or a mirror, and nothing but those."""

import functools
import hashlib
import io
import os
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import requests
from tqdm import tqdm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pooch's tqdm asks for ipywidgets, which nothing here needs
    import pooch
pooch.get_logger().setLevel("WARNING")  # else it writes addresses and paths into notebooks

PROBE_SECONDS, FORGET_SECONDS = 5.0, 60.0  # to answer at all; until a silent mirror is asked again
LIMIT_SECONDS, SLOWEST = 30.0, 5e4  # for a file, and one second more for every 50 kB


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: mirrors, in the order to ask them; size and SHA-256 of files."""

    title: str
    mirrors: tuple[str, ...]
    files: dict[str, tuple[int, str]]


class DataError(ValueError):
    """A data set cannot be used; the message names the file and says how to mend it.

    Attributes
    ----------
    reason : str or None
        Why no source works, in a few words; None for what a fallback must not hide.
    """

    def __init__(self, message: str, reason: str | None = None):
        super().__init__(message)
        self.reason = reason


def cache_folder() -> Path:
    """Where downloads are kept: `vaeloss` in the user's cache folder (`~/.cache` on Linux)."""
    return Path(pooch.os_cache("vaeloss")).expanduser()


def official_files(name: str, source: Source) -> list[bytes]:
    """The contents of a data set's files, in order, exactly as they were published.

    Each is taken from `$VAELOSS_DATA/<name>/`, else from the cache, else from a mirror.

    Raises
    ------
    DataError
        `$VAELOSS_DATA` is no readable folder or holds another file than the official one; or, with
        a `reason`, no mirror works, or the cache cannot be written.
    """
    found, mirrors = _local_files(name, source), list(source.mirrors)
    try:
        for file in source.files:
            if file not in found:
                path = cache_folder() / name / file
                found[file] = _download(path, *source.files[file], mirrors)
    except (DataError, OSError, RuntimeError) as problem:  # RuntimeError: the user has no home
        reason = getattr(problem, "reason", "the cache cannot be written")
        raise DataError(
            f"{source.title} could not be loaded: {reason} ({problem}). Mend that, or put its files"
            f" into a folder named {name} and set VAELOSS_DATA to the folder above it, or call "
            f"load({name!r}, fallback='digits28')",
            reason,
        ) from problem
    return [found[file] for file in source.files]


def _local_files(name: str, source: Source) -> dict[str, bytes]:
    """The contents of the files in `$VAELOSS_DATA/<name>/`; a part of them is fine, or none."""
    if not os.environ.get("VAELOSS_DATA"):
        return {}
    root = Path(os.path.expanduser(os.environ["VAELOSS_DATA"])).absolute()
    for folder in [root, *[root / name] * os.path.exists(root / name)]:
        if not (folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)):
            raise DataError(f"VAELOSS_DATA: {folder} is no readable folder: correct or unset it")
    found = {}
    for path in (root / name / file for file in source.files):
        if os.path.lexists(path):
            try:
                found[path.name] = _read(path, *source.files[path.name])
            except DataError as problem:
                raise DataError(
                    f"{path} is not the official file ({problem}): "
                    "replace it, or remove it and it will be downloaded"
                ) from problem
    return found


def _read(path: Path, size: int, sha256: str) -> bytes:
    """The contents of a file on the disk; DataError: why it is not the official one."""
    try:
        if path.stat().st_size != size:  # a pipe has none: to open it would wait for ever
            raise DataError(f"it is not {size:,} bytes long")
        body = path.read_bytes()
    except OSError as problem:
        raise DataError(f"it cannot be read: {problem.strerror}") from problem
    if hashlib.sha256(body).hexdigest() != sha256:
        raise DataError("its SHA-256 sum differs")
    return body


_silent_since: dict[str, float] = {}  # mirrors that did not answer, and when


def _download(path: Path, size: int, sha256: str, mirrors: list[str]) -> bytes:
    """From the cache, else into it; mirrors that fail go to the end of the list."""
    if path.exists() and not path.is_file():
        path.unlink()  # pooch would read a pipe, and move the file into a folder
    tried, reasons = [], set()
    for mirror in list(mirrors):
        url, fetch = mirror + path.name, functools.partial(_fetch, mirror=mirror, size=size)
        try:
            pooch.retrieve(url, sha256, path.name, path.parent, downloader=fetch)
            return _read(path, size, sha256)
        except ValueError as problem:  # DataError, or pooch's own: the sum differs
            tried.append(f"{url}: {problem}")
            reasons.add(getattr(problem, "reason", None))
            mirrors.append(mirrors.pop(0))
        except OSError as problem:
            try:  # Windows does not replace what another process has open: then it is there
                return _read(path, size, sha256)
            except DataError:
                raise problem from None
    reason = "no mirror reachable" if reasons == {"silent"} else "every download failed"
    raise DataError("; ".join(tried), reason)


def _fetch(url: str, output: str, _, mirror: str, size: int) -> None:
    """One file from one mirror, in limited time and memory; DataError: why it did not come."""
    if time.monotonic() - _silent_since.get(mirror, -FORGET_SECONDS) < FORGET_SECONDS:
        raise DataError("it did not answer a moment ago", "silent")
    problems, answered = [], threading.Event()
    silent = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")

    def look(response: requests.Response, **_) -> None:
        answered.set()
        if response.is_redirect:
            response.close()  # else its page would be read to the end, and it may have none

    def run() -> None:
        try:
            wishes = {"headers": {"Accept-Encoding": "identity"}, "hooks": {"response": look}}
            with requests.get(url, stream=True, timeout=10, **wishes) as response:
                response.raise_for_status()
                # Not unpacked: the sum is that of the bytes on their way.
                read = functools.partial(response.raw.read, decode_content=False)
                while chunk := read(min(2**14, size - arrived.tell())):
                    bar.update(arrived.write(chunk))
        except Exception as problem:  # whatever a library makes of what a mirror sends
            problems.append(problem)

    # In a thread, to memory: no time-out of a socket limits how long a mirror or a name server can
    # drip. What is left behind ends with its next write, as `arrived` is closed.
    shown = {"desc": url.rpartition("/")[2], "unit": "B", "unit_scale": True, "leave": False}
    with tqdm(total=size, disable=silent or None, **shown) as bar, io.BytesIO() as arrived:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        started = time.monotonic()
        while thread.is_alive():
            thread.join(0.1)  # not in one go: Windows would not heed Ctrl-C
            allowed = LIMIT_SECONDS + size / SLOWEST if answered.is_set() else PROBE_SECONDS
            if time.monotonic() - started > allowed:
                problems.append(TimeoutError(f"more than {allowed:.0f} seconds"))
                if not answered.is_set():
                    _silent_since[mirror] = time.monotonic()
                break
        body = arrived.getvalue()
    if body[:99].lstrip().startswith(b"<"):
        raise DataError("it is a web page, such as a network's request to log in")
    if not answered.is_set():
        raise DataError(f"it does not answer ({type(problems[0]).__name__})", "silent")
    if problems and len(body) < size:
        raise DataError(repr(problems[0]))
    Path(output).write_bytes(body)
