"""Mirrors, good and bad, for all tests of data."""

import socket
from pathlib import Path

import mirrors
import pytest

from sumormean.data import download, sets


@pytest.fixture
def mirror():
    made = []

    def make(*args, **kwargs) -> mirrors.Mirror:
        made.append(mirrors.Mirror(*args, **kwargs))
        return made[-1]

    yield make
    for m in made:
        m.close()


@pytest.fixture
def black_hole():
    """The address of a socket that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"http://127.0.0.1:{silent.getsockname()[1]}/"


@pytest.fixture
def dead():
    """An address that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """No test sees the user's settings, cache or proxies, nor the memory of another test."""
    for variable in ("VAELOSS_DATA", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(download, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(download, "_silent_since", {})
    return tmp_path / "cache" / "mnist"


@pytest.fixture
def use(monkeypatch, cache):
    """Let the small stand-ins take MNIST's place, at these mirrors."""

    def use(*addresses: str, name: str = "mnist", title: str = "MNIST"):
        source = download.Source(title, addresses, mirrors.TABLE)
        monkeypatch.setitem(sets.SOURCES, name, source)

    return use
