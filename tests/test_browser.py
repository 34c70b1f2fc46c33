"""Every page in a real browser: quiet, whole, readable by everyone, on a phone as well."""

import contextlib
import json
import re
import shutil
import subprocess
import zipfile
from urllib.parse import urlparse

import pytest
import site_check
import yaml
from axe_playwright_python.sync_playwright import Axe
from launch_check import launch

from conftest import build_site

PAGES = [f"{page}.html" for page in site_check.toc_pages()] + ["search.html", "genindex.html"]
PHONE = {"width": 390, "height": 844}


@contextlib.contextmanager
def opened(browser, address: str, **context):
    """The page at this address, when its formulas are set; and what went wrong on the way."""
    wrong = []
    with browser.new_context(**context) as context:
        page = context.new_page()
        page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(m.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on("response", lambda r: r.status >= 400 and wrong.append(f"{r.status}: {r.url}"))
        page.on(
            "request",
            lambda r: (
                urlparse(r.url).netloc not in ("", urlparse(address).netloc)
                and wrong.append(f"another host: {r.url}")
            ),
        )
        page.goto(address, wait_until="networkidle")
        page.evaluate("window.MathJax?.startup?.promise")
        yield page, wrong


def violations(page, **options) -> list[str]:
    # What MathJax draws is its own affair. Most of the time goes into the colours of code, which
    # are the same everywhere: looked at in the first chapter. preload: axe would read the style
    # sheets again, from addresses relative to the page.
    context = {"exclude": [["mjx-container"]]}
    if "01-the-symptom" not in page.url:
        context["exclude"].append(["pre span"])
    result = Axe().run(page, context=context, options={"preload": False, **options})
    found = result.response["violations"]
    return [f"{v['id']} ({v['help']}): {n['html'][:200]}" for v in found for n in v["nodes"]]


@pytest.mark.parametrize("name", PAGES)
def test_page(chromium, site, name):
    """One visit for all that holds for every page, because loading is what takes the time."""
    with opened(chromium, f"{site}/{name}", color_scheme="light") as (page, wrong):
        assert page.title() and page.locator("article h1, #search-results").count() >= 1
        unset = ".math.notranslate:not(:has(mjx-container))"
        wrong += page.locator(unset).evaluate_all("all => all.map(e => e.textContent)")
        wrong += page.locator("mjx-merror").evaluate_all("all => all.map(e => e.textContent)")
        page.add_style_tag(content="* { transition: none !important }")  # final colours at once
        wrong += violations(page)
        page.emulate_media(color_scheme="dark")
        page.wait_for_selector('html[data-theme="dark"]')
        wrong += [f"dark: {v}" for v in violations(page, runOnly=["color-contrast"])]
        page.set_viewport_size(PHONE)
        width = page.evaluate("document.documentElement.scrollWidth")
        wrong += [f"{width} pixels wide on a phone"] if width > PHONE["width"] else []
        assert not wrong, "\n".join(dict.fromkeys(wrong))


def test_search_finds_posterior_collapse(chromium, site):
    with opened(chromium, f"{site}/search.html?q=posterior+collapse") as (page, wrong):
        page.wait_for_selector("ul.search li a")
        found = page.locator("ul.search li a").evaluate_all("links => links.map(a => a.href)")
        assert any("01-the-symptom" in address for address in found)
        assert wrong == []


def test_the_zip_opens_from_a_folder(chromium, site, html, tmp_path):
    with opened(chromium, f"{site}/book/index.html") as (page, _):
        with page.expect_download() as download:
            page.click("text=The whole book as one zip")
        download.value.save_as(tmp_path / "book.zip")
    with zipfile.ZipFile(tmp_path / "book.zip") as archive:
        archive.extractall(tmp_path)
    with opened(chromium, (tmp_path / "sum-or-mean" / "index.html").as_uri()) as (page, wrong):
        page.wait_for_url("**/sum-or-mean/book/index.html")
        page.click(".bd-sidebar-primary >> text=The ELBO")
        page.wait_for_selector("mjx-container")
        assert wrong == []
    assert site_check.missing_pages(tmp_path / "sum-or-mean") == []


# Launch buttons, on a small book from a checkout whose origin we choose


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """The first chapter, built from a clone of a repository on GitHub."""
    source = tmp_path_factory.mktemp("checkout")
    book = site_check.ROOT / "book"
    shutil.copy(site_check.ROOT / "_config.yml", source)
    for folder in ("_ext", "_static"):
        shutil.copytree(book / folder, source / "book" / folder)
    shutil.copy(book / "references.bib", source / "book")
    (source / "book" / "index.md").write_text("# A small book\n", encoding="utf-8")
    (source / "book" / "derive").mkdir()
    chapter = json.loads((book / "derive" / "01-the-symptom.ipynb").read_text(encoding="utf-8"))
    # without the links to chapters that this book lacks
    chapter["cells"] = [c for c in chapter["cells"] if "{doc}" not in "".join(c["source"])]
    path = source / "book" / "derive" / "01-the-symptom.ipynb"
    path.write_text(json.dumps(chapter), encoding="utf-8")
    # and two pages more: stamped with this origin, and with the one it was forked from
    start = next(c for c in chapter["cells"] if c["cell_type"] == "code")
    for name, owner in [("ours", "someone/their-fork"), ("upstream", "others/sum-or-mean")]:
        chapter["cells"] = [{"cell_type": "markdown", "metadata": {}, "source": f"# {name}"}, start]
        (path.parent / f"{name}.ipynb").write_text(json.dumps(chapter), encoding="utf-8")
        launch.set_stamp(path.parent / f"{name}.ipynb", f"git+https://github.com/{owner}")
    launch.set_stamp(path, "")
    toc = {"format": "jb-book", "root": "book/index"}
    (source / "book" / "reference").mkdir()
    shutil.copy(book / "reference" / "bibliography.md", source / "book" / "reference")
    toc["chapters"] = [
        {"file": "book/derive/01-the-symptom"},
        {"file": "book/derive/ours"},
        {"file": "book/derive/upstream"},
        {"file": "book/reference/bibliography"},
    ]
    (source / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    for command in (
        ["init", "--initial-branch", "edition-2"],
        ["remote", "add", "origin", "git@github.com:someone/their-fork.git"],
    ):
        subprocess.run(["git", "-C", source, *command], check=True, capture_output=True)
    return build_site(source, tmp_path_factory.mktemp("launched"))


@pytest.mark.parametrize("name, colab", [("ours", 1), ("upstream", 0), ("01-the-symptom", 0)])
def test_launch_buttons_open_this_notebook_of_this_origin(chromium, serve, launched, name, colab):
    """Colab's only where the notebook is stamped with this origin: elsewhere it would fail."""
    address = f"{serve(launched)}/book/derive/{name}.html"
    with opened(chromium, address) as (page, wrong):
        links = page.locator(".dropdown-launch-buttons a")
        targets = links.evaluate_all("all => all.map(a => a.href)")
        notebook = f"book/derive/{name}.ipynb"
        binder = "https://mybinder.org/v2/gh/someone/their-fork/edition-2?urlpath=lab/tree/"
        google = "https://colab.research.google.com/github/someone/their-fork/blob/edition-2/"
        assert targets == [f"{binder}{notebook}", f"{google}{notebook}"][: 1 + colab]
        page.click(".dropdown-launch-buttons button")
        assert links.first.is_visible() and links.last.is_visible()
        assert wrong == []


def test_without_such_an_origin_there_are_none(html):
    """Of this checkout: buttons if, and only if, its origin is a repository on GitHub."""
    done = subprocess.run(
        ["git", "-C", site_check.ROOT, "remote", "get-url", "origin"],
        capture_output=True,
        text=True,
    )
    page = (html / "book" / "derive" / "01-the-symptom.html").read_text(encoding="utf-8")
    assert ("dropdown-launch-buttons" in page) == bool(re.search(r"github\.com[:/]", done.stdout))
