"""Every page in a real browser: quiet, whole, readable by everyone, on a phone as well."""

import contextlib
import functools
import http.server
import json
import math
import re
import shutil
import subprocess
import threading
import zipfile
from pathlib import Path
from urllib.parse import urlparse

import pytest
import site_check
import stamp
import yaml
from axe_playwright_python.sync_playwright import Axe
from built import Silent, build_site, parsed

from sumormean.catalogue.table import Cell, Table

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
    if "the-symptom" not in page.url:
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
        assert any("the-symptom" in address for address in found)
        assert wrong == []


def test_the_landing_page_is_light(chromium, site):
    """All that a browser fetches to show it, from a server that does not compress."""
    requests = []
    with chromium.new_context() as context:
        page = context.new_page()
        page.on("requestfinished", lambda request: requests.append(request))
        page.goto(f"{site}/book/index.html", wait_until="networkidle")
        page.evaluate("document.fonts.ready.then(() => null)")
        sizes = {request.url: request.sizes() for request in requests}
    total = {u: s["responseBodySize"] + s["responseHeadersSize"] for u, s in sizes.items()}
    assert any(url.endswith(".woff") for url in total) and any(".png" in url for url in total)
    largest = sorted(total.items(), key=lambda item: -item[1])[:5]
    assert sum(total.values()) < 600_000, f"{sum(total.values())} bytes; the largest: {largest}"


def test_the_slider_of_beta(chromium, site):
    """By keyboard and by mouse it changes the pictures and the numbers, and it says what it is."""
    with opened(chromium, f"{site}/book/ablate/beta.html") as (page, wrong):
        slider = page.get_by_role("slider", name="β before the KL")
        rec = page.locator("#beta-slider-rec")

        def state():
            return {
                "value": slider.get_attribute("aria-valuetext"),
                "beta": page.locator("#beta-slider-beta").text_content(),
                "numbers": page.locator("#beta-slider-bce, #beta-slider-kl").all_text_contents(),
                "pictures": [
                    page.locator(f"#beta-slider-{name}").evaluate(
                        "e => getComputedStyle(e).backgroundPosition"
                    )
                    for name in ("rec", "sam")
                ],
                "map": page.locator("#beta-slider-map").evaluate("e => e.toDataURL()"),
                "label": rec.get_attribute("aria-label"),
            }

        first = state()
        slider.focus()
        page.keyboard.press("ArrowRight")
        second = state()
        assert all(first[key] != second[key] for key in first)
        page.keyboard.press("ArrowLeft")
        assert state() == first
        box = slider.bounding_box()
        page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
        last = state()
        assert last["beta"] == "784" and last["value"] == "beta 784"
        assert "784" in last["label"] and "KL 0.000 nats" in last["numbers"]
        assert page.locator("#beta-slider-live").text_content() == "0 of 2 latents live"
        assert wrong == []


# The table that sorts and filters, on a page of its own

ROWS = [
    ["Chainer & co", Cell("D/2 = 392", 392), "collapses"],
    [Cell("keras", link="https://example.org/?a=1&b=2"), Cell("1", 1), "lives"],
    ["sigma", Cell("none", math.nan), "lives"],
    ["antixk", Cell("1.54", 1.54), "lives"],
]
TABLE = Table("losses", 'Losses <"all">', ["loss", "β", "verdict"], ROWS, choice="verdict")


@pytest.fixture(scope="module")
def table_page(tmp_path_factory):
    """The address of a page in a folder, with the script as the site has it."""
    folder = tmp_path_factory.mktemp("table")
    shutil.copy(site_check.ROOT / "book" / "_static" / "table.js", folder)
    head = '<!doctype html><html lang="en"><title>t</title><meta charset="utf-8">'
    head += '<script src="table.js"></script>'
    page = f"{head}<main><h1>t</h1>{TABLE._repr_html_()}</main></html>"
    (folder / "page.html").write_text(page, encoding="utf-8")
    return (folder / "page.html").as_uri()


@pytest.fixture
def table(chromium, table_page):
    with opened(chromium, table_page) as (page, wrong):
        yield page
        assert wrong == []


def shown(page) -> list[str]:
    return page.locator("tbody tr:visible td:first-child").all_inner_texts()


def test_the_table_sorts_numbers_as_numbers_and_what_has_none_last(table):
    heading = table.get_by_role("columnheader", name="β")
    heading.get_by_role("button").click()
    assert shown(table) == ["keras", "antixk", "Chainer & co", "sigma"]
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").click()
    assert shown(table) == ["Chainer & co", "antixk", "keras", "sigma"]
    assert heading.get_attribute("aria-sort") == "descending"


def test_the_table_sorts_text_by_keyboard(table):
    table.get_by_role("button", name="loss").focus()
    table.keyboard.press("Enter")
    assert shown(table) == ["antixk", "Chainer & co", "keras", "sigma"]
    table.keyboard.press("Tab")
    table.keyboard.press("Space")
    assert shown(table)[0] == "keras"
    assert table.locator("[aria-sort]").count() == 1


def test_the_table_filters_and_says_how_many(table):
    table.get_by_label("Search").fill("LIVES an")
    assert shown(table) == ["antixk"]
    assert table.get_by_role("status").inner_text() == "1 of 4 shown"
    table.get_by_label("Search").fill("")
    table.get_by_label("verdict").select_option("lives")
    assert shown(table) == ["keras", "sigma", "antixk"]
    table.get_by_label("verdict").select_option("all")
    assert table.get_by_role("status").inner_text() == "4 of 4 shown"
    assert violations(table) == []


def test_the_table_is_plain_without_scripts(chromium, table_page):
    with opened(chromium, table_page, java_script_enabled=False) as (page, _):
        assert shown(page) == ["Chainer & co", "keras", "sigma", "antixk"]
        assert page.locator("button, input, select").count() == 0
        assert page.locator("caption").inner_text() == 'Losses <"all">'


def test_both_tables_of_the_catalogue_can_be_searched(chromium, html):
    """From a folder, as in the zip."""
    with opened(chromium, (html / "book" / "reproduce" / "in-the-wild.html").as_uri()) as (
        page,
        wrong,
    ):
        assert page.locator("table[data-choice]").count() == 2
        counts = page.locator(".table-controls").get_by_role("status")
        assert counts.count() == 2
        page.get_by_label("Search").locator("visible=true").last.fill("no such loss")
        assert counts.last.inner_text().startswith("0 of ")
        assert wrong == []


def test_the_slider_shows_one_beta_without_scripts(chromium, html):
    address = (html / "book" / "ablate" / "beta.html").as_uri()
    with opened(chromium, address, java_script_enabled=False) as (page, _):
        slider = page.locator(".beta-slider")
        assert slider.locator("#beta-slider-beta").inner_text() == "1"
        assert "table above" in slider.inner_text() and "arrow keys" not in slider.inner_text()
        assert slider.locator("input:visible, canvas:visible").count() == 0
        names = ("rec", "sam")
        recorded = [slider.locator(f"#beta-slider-{n}").get_attribute("style") for n in names]
    with opened(chromium, address) as (page, wrong):
        styles = [page.locator(f"#beta-slider-{n}").get_attribute("style") for n in names]
        positions = [
            [float(re.search(r"[\d.]+(?=%)", s)[0]) for s in x] for x in (recorded, styles)
        ]
        assert positions[0] == pytest.approx(positions[1], abs=0.01), (
            "another strip than the script's"
        )
        assert page.locator(".beta-slider .no-script").count() == 0
        assert wrong == []


class Published(Silent):
    """As GitHub serves a site: below a prefix, and 404.html for what is not there."""

    def __init__(self, *args, prefix: str, **kwargs):
        self.prefix = prefix
        super().__init__(*args, **kwargs)

    def translate_path(self, path):
        return super().translate_path("/" + path.removeprefix(self.prefix))

    def send_error(self, code, message=None, explain=None):
        self.error_message_format = (  # one string, in which % has a meaning
            Path(self.directory, "404.html").read_text(encoding="utf-8").replace("%", "%%")
        )
        super().send_error(code, message, explain)


@contextlib.contextmanager
def published(folder):
    """The address of a built site, as its own links on the 404 page want it."""
    icon = parsed(folder, "404").select_one('link[href*="_static/"]')
    prefix = icon["href"].partition("_static/")[0]
    handler = functools.partial(Published, directory=folder, prefix=prefix)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{prefix}"
    server.shutdown()
    server.server_close()


def check_not_found(chromium, folder):
    with published(folder) as address:
        missing = f"{address}book/deep/down/no-such-page.html"
        with opened(chromium, missing, color_scheme="dark") as (page, wrong):
            assert wrong.pop(0) == f"404: {missing}"
            assert "404" in wrong.pop(0)  # the browser's own line about it
            assert page.locator("article h1").text_content() == "This page does not exist"
            assert wrong + violations(page) == []
            page.set_viewport_size(PHONE)
            assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
            doors = page.locator("article a").evaluate_all("all => all.map(a => a.href)")
            assert f"{address}book/index.html" in doors
            assert all(page.request.get(door).ok for door in doors)
            page.get_by_label("Search the book").fill("posterior collapse")
            page.get_by_role("button", name="Search", exact=True).last.click()
            page.wait_for_url(f"{address}search.html?q=posterior+collapse")
            assert wrong == []


def test_a_missing_page_at_any_depth_leads_back(chromium, html):
    check_not_found(chromium, html)


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
    chapter = json.loads((book / "derive" / "the-symptom.ipynb").read_text(encoding="utf-8"))
    # without the links to chapters that this book lacks
    chapter["cells"] = [c for c in chapter["cells"] if "{doc}" not in "".join(c["source"])]
    path = source / "book" / "derive" / "the-symptom.ipynb"
    path.write_text(json.dumps(chapter), encoding="utf-8")
    # and two pages more: stamped with this origin, and with the one it was forked from
    start = next(c for c in chapter["cells"] if c["cell_type"] == "code")
    for name, owner in [("ours", "someone/their-fork"), ("upstream", "others/sum-or-mean")]:
        heading = {"cell_type": "markdown", "id": name, "metadata": {}, "source": f"# {name}"}
        chapter["cells"] = [heading, start]
        (path.parent / f"{name}.ipynb").write_text(json.dumps(chapter), encoding="utf-8")
        stamp.set_stamp(
            path.parent / f"{name}.ipynb", stamp.git_address(f"https://github.com/{owner}")
        )
    stamp.set_stamp(path, "")
    toc = {"format": "jb-book", "root": "book/index"}
    (source / "book" / "reference").mkdir()
    shutil.copy(book / "reference" / "bibliography.md", source / "book" / "reference")
    toc["chapters"] = [
        {"file": "book/derive/the-symptom"},
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


@pytest.mark.parametrize("name, colab", [("ours", 1), ("upstream", 0), ("the-symptom", 0)])
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


def test_a_fork_has_its_own_address(chromium, launched):
    """Sitemap, cards, canonical links and the 404 page, of the origin that it was built from."""
    url = "https://someone.github.io/their-fork/"
    sitemap = (launched / "sitemap.xml").read_text(encoding="utf-8")
    chapters = ["derive/ours", "derive/the-symptom", "derive/upstream"]
    pages = [*chapters, "index", "reference/bibliography"]
    listed = [f"{url}book/{page}.html" for page in pages]
    assert re.findall(r"<loc>(.*?)</loc>", sitemap) == listed
    for address in listed:
        page = parsed(launched, address.removeprefix(url).removesuffix(".html"))
        said = {tag["property"]: tag["content"] for tag in page.select("meta[property]")}
        assert said["og:url"] == page.select_one('link[rel="canonical"]')["href"] == address
        assert said["og:site_name"] == "Sum or Mean?"
        assert (launched / said["og:image"].removeprefix(url)).is_file()
    check_not_found(chromium, launched)


def test_without_such_an_origin_there_are_none(html):
    """Of this checkout: buttons if, and only if, its origin is a repository on GitHub."""
    done = subprocess.run(
        ["git", "-C", site_check.ROOT, "remote", "get-url", "origin"],
        capture_output=True,
        text=True,
    )
    buttons = parsed(html, "book/derive/the-symptom").select(".dropdown-launch-buttons")
    assert bool(buttons) == bool(re.search(r"github\.com[:/]", done.stdout))
