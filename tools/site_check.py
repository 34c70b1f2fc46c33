"""Is the built site whole, and does it keep to itself?

`python tools/site_check.py _build/html` prints what is wrong and exits 1, or one line and 0.
"""

import re
import sys
from pathlib import Path
from urllib.parse import urlparse

import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent

# What scripts and style sheets fetch. What a tag fetches is in `fetched`.
IN_CODE = [
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


def fetched_by_code(text: str) -> list[str]:
    """Addresses that a script or a style sheet fetches."""
    return [address for pattern in IN_CODE for address in pattern.findall(text)]


def fetched(page: BeautifulSoup) -> list[str]:
    """Addresses that a browser fetches by itself when it shows this page.

    A plain <a href> is the reader's choice, and code that is shown is not run.
    """
    tags = page.select('[src], [poster], object[data], link[href]:not([rel~="canonical"])')
    found = [
        tag[key] for tag in tags for key in ("src", "poster", "data", "href") if key in tag.attrs
    ]
    codes = [tag.string or "" for tag in page(["script", "style"])]
    codes += [tag["style"] for tag in page.select("[style]")]
    return found + [address for text in codes for address in fetched_by_code(text)]


def foreign_requests(html: Path) -> list[str]:
    """'page: address' for everything a page or a style sheet would fetch from another host."""
    found = []
    for path in sorted([*html.rglob("*.html"), *html.rglob("*.css")]):
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".html":
            addresses = fetched(BeautifulSoup(text, "html.parser"))
        else:
            addresses = fetched_by_code(text)
        for address in addresses:
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
