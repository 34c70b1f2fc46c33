"""One built site and one browser for all tests of pages."""

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest
import site_check
from built import Silent, build_site
from filelock import FileLock
from playwright.sync_api import Error, sync_playwright

# A browser that keeps to itself: no request but those of the page.
CHROMIUM = [
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def html(tmp_path_factory, worker_id) -> Path:
    """The book's pages, built once in a run however many workers it has."""
    base = tmp_path_factory.getbasetemp()
    output = (base if worker_id == "master" else base.parent) / "site"
    with FileLock(f"{output}.lock"):
        if not (output / "built").exists():
            shutil.rmtree(output, ignore_errors=True)  # what a failed build left
            output.mkdir()
            build_site(site_check.ROOT, output)
            (output / "built").touch()
    return output / "_build" / "html"


@pytest.fixture(scope="session")
def chromium():
    """Debian's Chromium, or any other in the path."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    found = {"executable_path": path} if path else {"channel": "chrome"}  # macOS, Windows
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(**found, args=CHROMIUM)
        except Error as problem:
            if path or os.environ.get("CI"):  # there, a test that is left out is a test that failed
                raise
            pytest.skip(f"no Chromium: install it, e.g. with apt-get install chromium ({problem})")
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def serve():
    """A function that serves a folder on this machine and returns its address."""
    servers = []

    def serve_folder(folder: Path) -> str:
        handler = functools.partial(Silent, directory=folder)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve_folder
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def site(html, serve) -> str:
    """The address of the built book."""
    return serve(html)
