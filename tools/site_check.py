"""Is the built site whole, and does it keep to itself?

`python tools/site_check.py _build/html` prints what is wrong and exits 1, or one line and 0.
"""

import re
import sys
from pathlib import Path
from urllib.parse import urlparse

import yaml

ROOT = Path(__file__).resolve().parent.parent

# What a browser fetches by itself when it shows a page. A plain <a href> is the reader's choice.
FETCHED = [
    re.compile(
        r"<(?:script|img|iframe|audio|video|source|embed|track)\b[^>]*?\bsrc=[\"']([^\"']+)"
    ),
    re.compile(r"<link\b(?![^>]*\brel=[\"']canonical)[^>]*?\bhref=[\"']([^\"']+)"),
    re.compile(r"(?:\bimport|\bfetch|\burl)\(\s*[\"'`]?([^\"'`)\s]+)"),
    re.compile(r"\b(?:from|import)\s+[\"']([^\"']+)[\"']"),
]


def toc_pages(toc: Path = ROOT / "_toc.yml") -> list[str]:
    """Pages of the table of contents in order, as paths without suffix; the root is first."""

    def files(entry):
        for key, value in entry.items():
            if key in ("root", "file"):
                yield value
            elif key in ("parts", "chapters", "sections"):
                for child in value:
                    yield from files(child)

    return list(files(yaml.safe_load(toc.read_text(encoding="utf-8"))))


def chapters() -> list[str]:
    """The notebooks among the pages of the table of contents, in its order."""
    return [page for page in toc_pages() if (ROOT / f"{page}.ipynb").is_file()]


def missing_pages(html: Path) -> list[str]:
    """Pages of the table of contents that were not built."""
    return [page for page in toc_pages() if not (html / f"{page}.html").is_file()]


def foreign_requests(html: Path) -> list[str]:
    """'page: address' for everything a page or a style sheet would fetch from another host."""
    found = []
    for path in sorted([*html.rglob("*.html"), *html.rglob("*.css")]):
        text = path.read_text(encoding="utf-8", errors="replace")
        # Code shown to the reader is not run.
        text = re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)
        for address in (match for pattern in FETCHED for match in pattern.findall(text)):
            if urlparse(address).netloc:
                found.append(f"{path.relative_to(html).as_posix()}: {address}")
    return found


def problems(html: Path) -> list[str]:
    return [f"no page for {page}" for page in missing_pages(html)] + [
        f"request to another host in {line}" for line in foreign_requests(html)
    ]


def main(argv: list[str]) -> int:
    html = Path(argv[0])
    found = problems(html)
    print("\n".join(found) or f"{html}: all {len(toc_pages())} pages are there")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
