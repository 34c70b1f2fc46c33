"""Built sites: how tests build, serve and read them."""

import functools
import http.server
import os
import subprocess
import sys
from pathlib import Path

from bs4 import BeautifulSoup


def build_site(source: Path, output: Path) -> Path:
    """Build the book in `source` with warnings as errors; the folder with its pages."""
    done = subprocess.run(
        [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
        + [str(source), "--path-output", str(output), "-W", "-n", "--keep-going", "--quiet"],
        cwd=output,  # a relative path in the configuration must not depend on where we stand
        env={**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return output / "_build" / "html"


@functools.cache
def parsed(html: Path, page: str) -> BeautifulSoup:
    """A built page, parsed once for all tests that only look at it."""
    return BeautifulSoup((html / f"{page}.html").read_text(encoding="utf-8"), "html.parser")


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass
