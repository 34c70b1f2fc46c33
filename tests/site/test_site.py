"""The book builds without a warning, is complete, and works without a network."""

import doctest
import importlib
import inspect
import json
import pkgutil
import re

import collected
import launch_buttons
import matplotlib.pyplot as plt
import pictures
import published
import pytest
import site_check
import tinycss2
from bs4 import BeautifulSoup
from built import parsed
from fontTools.ttLib import TTFont

import sumormean
import vaeloss

ROOT = site_check.ROOT
# With examples in docstrings; those of the packages are collected by pytest itself.
HELPERS = sorted((ROOT / "book" / "_ext").glob("*.py")) + [
    ROOT / "tools" / f"{name}.py" for name in ("constraints", "times")
]


def test_every_page_of_the_toc_is_built(html):
    assert site_check.toc_pages()
    assert site_check.missing_pages(html) == []


def test_no_request_to_another_host(html):
    assert site_check.foreign_requests(html) == []


def test_the_check_sees_what_it_is_for(tmp_path):
    (tmp_path / "page.html").write_text(
        '<script src="https://cdn.example/a.js"></script><img src="../_static/a.png">'
        '<link rel="stylesheet" href="//cdn.example/b.css"><a href="https://example.org">fine</a>'
        "<pre>fetch('https://shown.example')</pre><script>import('https://cdn.example/c')</script>"
    )
    addresses = ["https://cdn.example/a.js", "//cdn.example/b.css", "https://cdn.example/c"]
    assert site_check.foreign_requests(tmp_path) == [f"page.html: {a}" for a in addresses]
    assert site_check.missing_pages(tmp_path) == site_check.toc_pages()
    assert site_check.main([str(tmp_path)]) == 1


def test_formulas_are_set_by_the_local_mathjax(html):
    page = parsed(html, "book/derive/the-elbo")
    assert page.select("div.math.notranslate.nohighlight")
    assert page.select('script[src^="../../_static/mathjax/"]')
    assert any((html / "_static" / "mathjax").glob("*.js"))


@pytest.mark.parametrize(
    "script, where",
    [
        ("_static/mathjax/", ".math.notranslate"),
        ("table.js", "table[data-choice]"),
        ("slider.js", ".beta-slider"),
    ],
)
def test_a_script_is_loaded_where_it_does_something_and_nowhere_else(html, script, where):
    pages = [parsed(html, page) for page in site_check.toc_pages()]
    loads = [bool(page.select(f'script[src*="{script}"]')) for page in pages]
    assert loads == [bool(page.select(where)) for page in pages]
    assert any(loads) and not all(loads)


def icon_names(html) -> set[str]:
    """Names of the icons that pages and scripts ask for, e.g. fa-sun."""
    names = set()
    for page in [*site_check.toc_pages(), "search", "404"]:
        for tag in parsed(html, page).select('[class*="fa-"]'):
            names.update(name for name in tag["class"] if name.startswith("fa-"))
    for path in html.glob("_static/scripts/*.js"):
        classes = r'class(?:Name|List)?\s*=\s*"([^"]*)"'
        for value in re.findall(classes, path.read_text(encoding="utf-8")):
            names.update(name for name in value.split() if name.startswith("fa-"))
    return names - {"fa-solid", "fa-regular", "fa-brands", "fa-lg"}


def test_every_icon_is_in_the_small_font(html):
    css = (html / "_static" / "styles" / "pydata-sphinx-theme.css").read_text(encoding="utf-8")
    fonts = list((html / "_static" / "vendor" / "fontawesome").rglob("*.woff"))
    drawn = {code for path in fonts for code in TTFont(path).getBestCmap()}
    assert len(fonts) == 3
    names = icon_names(html)
    assert {"fa-bars", "fa-magnifying-glass", "fa-circle-half-stroke", "fa-list"} <= names
    for name in names:
        (escape,) = re.findall(rf'\.{name}:before[^{{]*{{content:"(.*?)"}}', css)
        assert ord(next(iter(tinycss2.parse_component_value_list(f'"{escape}"'))).value) in drawn
    # and those of admonitions
    for character in re.findall(r'--pst-icon-[\w-]+:"(.+?)"', css):
        if not character.startswith("\\"):
            assert ord(character) in drawn


def test_pages_have_icon_search_and_style(html):
    for name in site_check.toc_pages():
        page = parsed(html, name)
        for wanted in (
            'link[rel~="icon"][href$="_static/favicon.svg"]',
            'link[rel~="stylesheet"][href*="_static/book.css"]',
            ".search-button, .search-button-field, .search-button__button",
            "html[lang]",
        ):
            assert page.select(wanted), (name, wanted)
    assert (html / "_static" / "favicon.svg").is_file()


def test_every_figure_has_a_number_and_an_alternative_text(html):
    figures = [(name, f) for name in site_check.toc_pages() for f in parsed(html, name)("figure")]
    assert figures
    for name, figure in figures:
        assert figure.select_one(".caption-number"), name
        assert len(figure.img["alt"]) > 20, name


def test_chapters_and_figures_are_numbered_in_the_order_of_the_table_of_contents(html):
    """The notebooks 1, 2, 3, … through all parts; no other page has a number."""
    chapters = site_check.chapters()
    for name in site_check.toc_pages():
        page, figure = parsed(html, name), 0
        number = page.select_one("article h1 > .section-number")
        wanted = f"{chapters.index(name) + 1}. " if name in chapters else None
        assert (number and number.get_text()) == wanted, name
        assert not page.select("article h2 > .section-number"), name
        for figure, caption in enumerate(page.select("figure .caption-number"), 1):
            before = wanted.replace(". ", ".") if wanted else ""
            assert caption.get_text() == f"Fig. {before}{figure} ", name
        assert figure > 0 or name not in chapters


def test_previous_and_next_follow_the_table_of_contents(html):
    pages = site_check.toc_pages()
    for before, page, after in zip([None, *pages], pages, [*pages[1:], None], strict=False):
        path = html / f"{page}.html"
        for side, neighbour in (("left-prev", before), ("right-next", after)):
            links = [a["href"] for a in parsed(html, page).select(f"a.{side}")]
            wanted = [] if neighbour is None else [html / f"{neighbour}.html"]
            assert [(path.parent / link).resolve() for link in links] == wanted, page


def test_notebooks_can_be_downloaded(html):
    for page in site_check.toc_pages():
        if (ROOT / f"{page}.ipynb").exists():
            assert (html / "_sources" / f"{page}.ipynb").is_file()


def linked_chapters(tags) -> list[str]:
    """The chapters that the first links in these tags of a page in book/reference lead to."""
    links = [tag.select_one("a.reference")["href"] for tag in tags]
    return [f"book/{link.removeprefix('../').removesuffix('.html')}" for link in links]


def test_the_page_of_claims_has_every_claim(html):
    sections = parsed(html, "book/reference/claims").select("section section")
    assert linked_chapters(sections) == site_check.chapters()
    for name, section in zip(site_check.chapters(), sections, strict=True):
        sentences = collected.claims(ROOT / f"{name}.ipynb")
        assert len(section("li")) == len(sentences) > 0, name


def test_the_page_of_claims_tells_live_and_recorded_apart(html):
    cells = [
        c for name in site_check.chapters() for c in collected.read(ROOT / f"{name}.ipynb")["cells"]
    ]
    recorded = [r for _, r in collected.printed(cells)]
    page = parsed(html, "book/reference/claims").select_one("article")
    shown = [item.get_text() for item in page.select("section section li")]
    assert [bool(re.search(r"\(recorded[^()]*\)$", item)) for item in shown] == recorded
    assert 0 < sum(recorded) < len(recorded) / 2
    # A record that is read again is no run of its own.
    of_records = [s for s, r in zip(shown, recorded, strict=True) if r]
    assert not any(re.search(r"\d+ of \d+[^()]*\)$", s) for s in of_records)
    counts = f"{recorded.count(False)} sentences are computed anew in every test run, "
    assert counts + f"{recorded.count(True)} are read from records" in page.get_text()


def test_a_claim_is_shown_as_it_was_printed():
    assert collected.plain("a_b * <c> [d] $x$") == r"a\_b \* \<c\> \[d\] \$x\$"


# API


def modules(package) -> list[str]:
    """The modules of a package and of the packages in it, less those with an underscore."""
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [m.name for m in found if not m.name.rpartition(".")[2].startswith("_")]


def public(module) -> list[str]:
    """Functions and classes that a module offers: in __all__, or defined and not hidden."""
    items = {name: vars(module)[name] for name in getattr(module, "__all__", vars(module))}
    return [
        name
        for name, item in items.items()
        if not name.startswith("_")
        and (inspect.isfunction(item) or inspect.isclass(item))
        and (hasattr(module, "__all__") or item.__module__ == module.__name__)
    ]


@pytest.mark.parametrize("name", modules(vaeloss) + modules(sumormean))
def test_the_api_has_every_public_function_and_class(html, name):
    """Once: under the package that offers it in __all__, else under the module that defines it."""
    page = parsed(html, "book/reference/api")
    package, items = name.rpartition(".")[0], public(importlib.import_module(name))
    offered = []  # by a package that stands on the page, and then speaks for its modules
    if page.find(id=f"module-{package}"):
        offered = getattr(importlib.import_module(package), "__all__", [])
    listed = page.find(id=f"module-{name}")
    assert listed or offered or not items, f"list {name} in book/reference/api.md"
    for item in items:
        under = {home for home in (package, name) if page.find(id=f"{home}.{item}")}
        assert under == {package} if item in offered else (under == {name} or not listed), item


def test_the_api_shows_parameters_errors_and_examples(html):
    page = parsed(html, "book/reference/api")
    entry = page.find(id="vaeloss.collapse.collapse_spectrum").parent
    assert "likelihood" in [name.get_text() for name in entry.select("dd strong")]
    assert "ValueError" in entry.get_text() and entry.select(".doctest")
    for heading in ("Parameters", "Returns", "Raises", "Examples"):
        assert heading in [
            tag.get_text(strip=True).rstrip(":") for tag in entry.select("dt, p.rubric")
        ]


def test_the_api_describes_together_what_the_docstring_does(html):
    entry = parsed(html, "book/reference/api").find(id="vaeloss.likelihoods.gaussian_nll").parent
    assert "x, mean" in [name.get_text() for name in entry.select("dd strong")]


# Run times


def test_the_page_of_run_times_has_every_notebook(html):
    measured = json.loads((ROOT / collected.RUN_TIMES).read_text(encoding="utf-8"))["notebooks"]
    assert measured
    *rows, _ = parsed(html, "book/reference/run-times").table.tbody("tr")  # and their sum
    assert linked_chapters(rows) == site_check.chapters()
    for name, row in zip(site_check.chapters(), rows, strict=True):
        cost = measured.get(f"{name}.ipynb")
        seconds = f"{cost['seconds']:.0f}" if cost else "–"
        assert row("td")[1].get_text() == seconds, name
    for notebook in measured:
        assert (ROOT / notebook).exists(), f"{notebook} is gone: make times"


def test_the_benchmark_is_shown_with_its_targets():
    rows = [
        {"what": "`make a`", "value": 1.8, "unit": "×", "target": "≥ 1.7"},
        {"what": "c", "value": 3, "unit": "s", "target": "≤ 2", "missed": True},
        {"what": "d", "value": 4, "unit": "s * s"},
    ]
    assert collected.bench_table({"rows": rows}).splitlines() == [
        "| what | measured | target |",
        "|---|---:|---:|",
        "| `make a` | 1.8 × | ≥ 1.7 |",
        "| c | 3 s | ≤ 2, missed |",
        r"| d | 4 s \* s |  |",
    ]


def test_every_row_of_the_benchmark_is_on_the_page(html):
    rows = json.loads((ROOT / collected.BENCH).read_text(encoding="utf-8"))["rows"]
    section = parsed(html, "book/reference/run-times").find(id="how-fast-it-is")
    shown = [row.td for row in section.tbody("tr")]
    assert [cell.get_text() for cell in shown] == [row["what"].replace("`", "") for row in rows]
    assert [bool(cell.code) for cell in shown] == ["`" in row["what"] for row in rows]


# A published site


def test_the_404_page_offers_the_doors_of_the_landing_page():
    index = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    body = BeautifulSoup(published.not_found(index, "/fork/"), "html.parser")
    doors = body.select("li a")
    assert len(doors) == index.count("{grid-item-card}") + 1 == 4
    for door in doors:
        page = door["href"].removeprefix("/fork/").removesuffix(".html")
        assert page in site_check.toc_pages()
        assert door.get_text() in index or page == "book/index"
    assert body.form["action"] == "/fork/search.html"


def test_a_site_without_an_address_has_no_sitemap_and_no_cards(html):
    """Of this checkout: an address if, and only if, its origin is a repository on GitHub."""
    url = published.site_url(
        launch_buttons.github_url(launch_buttons.git(ROOT, "remote", "get-url", "origin"))
    )
    card = bool(parsed(html, "book/index").select('meta[property="og:url"]'))
    assert (html / "sitemap.xml").exists() == card == (url is not None)
    assert (html / "404.html").exists()


def test_the_social_card_is_drawn_from_the_first_figure(tmp_path):
    pictures.draw_card(card=tmp_path / "card.png")
    drawn = plt.imread(tmp_path / "card.png")
    committed = plt.imread(ROOT / "book" / published.CARD)
    assert drawn.shape == committed.shape == (*pictures.SIZE[::-1], 4)
    # Letters may be a shade different on another system; the picture is the same.
    assert abs(drawn - committed).mean() < 0.01


@pytest.mark.parametrize("path", HELPERS, ids=lambda p: p.stem)
def test_examples_of_extensions_and_tools(path):
    assert doctest.testmod(importlib.import_module(path.stem)).failed == 0
