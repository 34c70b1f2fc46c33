"""The book builds without a warning, is complete, and works without a network."""

import doctest
import importlib
import inspect
import json
import pkgutil
import re
from html import unescape

import claims_page
import launch_buttons
import matplotlib.pyplot as plt
import published
import pytest
import run_times
import site_check
import social_card
import tinycss2
from fontTools.ttLib import TTFont

import vaeloss

ROOT = site_check.ROOT


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
    page = (html / "book" / "derive" / "the-elbo.html").read_text(encoding="utf-8")
    assert '<div class="math notranslate nohighlight">' in page
    assert 'src="../../_static/mathjax/' in page
    assert any((html / "_static" / "mathjax").glob("*.js"))


def test_mathjax_is_loaded_where_there_are_formulas_and_nowhere_else(html):
    for page in site_check.toc_pages():
        text = (html / f"{page}.html").read_text(encoding="utf-8")
        assert ("_static/mathjax/" in text) == ("math notranslate" in text), page


def icon_names(html) -> set[str]:
    """Names of the icons that pages and scripts ask for, e.g. fa-sun."""
    names = set()
    for path in [*html.rglob("*.html"), *html.glob("_static/scripts/*.js")]:
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
    for page in site_check.toc_pages():
        text = (html / f"{page}.html").read_text(encoding="utf-8")
        for wanted in ("_static/favicon.svg", "_static/book.css", "search-button", 'lang="en"'):
            assert wanted in text, (page, wanted)
    assert (html / "_static" / "favicon.svg").is_file()


def test_every_figure_has_a_number_and_an_alternative_text(html):

    for page in site_check.toc_pages():
        text = (html / f"{page}.html").read_text(encoding="utf-8")
        for figure in re.findall(r"<figure.*?</figure>", text, flags=re.DOTALL):
            assert 'class="caption-number"' in figure, page
            assert re.search(r'<img[^>]* alt="[^"]{20,}', figure), page


def test_previous_and_next_follow_the_table_of_contents(html):
    pages = site_check.toc_pages()
    for before, page, after in zip([None, *pages], pages, [*pages[1:], None], strict=False):
        path = html / f"{page}.html"
        text = path.read_text(encoding="utf-8")
        for side, neighbour in (("left-prev", before), ("right-next", after)):
            links = re.findall(rf'<a class="{side}"\s+href="([^"]+)"', text)
            wanted = [] if neighbour is None else [html / f"{neighbour}.html"]
            assert [(path.parent / link).resolve() for link in links] == wanted, page


def test_notebooks_can_be_downloaded(html):
    for page in site_check.toc_pages():
        if (ROOT / f"{page}.ipynb").exists():
            assert (html / "_sources" / f"{page}.ipynb").is_file()


def test_the_page_of_claims_has_every_claim(html):
    page = (html / "book" / "reference" / "claims.html").read_text(encoding="utf-8")
    for name in site_check.toc_pages():
        notebook = ROOT / f"{name}.ipynb"
        if notebook.exists():
            sentences = claims_page.claims(notebook)
            link = f'href="../{name.removeprefix("book/")}.html"><span class="doc">'
            section = page.partition(link)[2].partition("</section>")[0]
            assert section.count("<li>") == len(sentences) > 0, name


def test_a_claim_is_shown_as_it_was_printed():
    assert claims_page.plain("a_b * <c> [d] $x$") == r"a\_b \* \<c\> \[d\] \$x\$"


# API


def public(module) -> list[str]:
    """Functions and classes that a module defines and does not hide."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, item in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(item) or inspect.isclass(item))
        and item.__module__ == module.__name__
    ]


MODULES = [m.name for m in pkgutil.iter_modules(vaeloss.__path__) if not m.name.startswith("_")]


@pytest.mark.parametrize("name", MODULES)
def test_the_api_has_every_public_function_and_class(html, name):
    page = (html / "book" / "reference" / "api.html").read_text(encoding="utf-8")
    assert f'id="module-vaeloss.{name}"' in page, f"list vaeloss.{name} in book/reference/api.md"
    items = public(importlib.import_module(f"vaeloss.{name}"))
    assert items
    for item in items:
        assert f'id="vaeloss.{name}.{item}"' in page, item


def test_the_api_shows_parameters_errors_and_examples(html):
    page = (html / "book" / "reference" / "api.html").read_text(encoding="utf-8")
    start = page.index('id="vaeloss.collapse.collapse_spectrum"')
    entry = page[start : page.index('id="vaeloss.collapse.collapse_threshold"')]
    assert "Parameters" in entry and "Raises" in entry and "doctest" in entry
    assert "<strong>sigma2</strong>" in entry and "ValueError" in entry


# Run times


def test_the_page_of_run_times_has_every_notebook(html):
    measured = json.loads((ROOT / run_times.COMMITTED).read_text(encoding="utf-8"))
    assert measured["notebooks"]
    page = (html / "book" / "reference" / "run-times.html").read_text(encoding="utf-8")
    for name in site_check.toc_pages():
        if (ROOT / f"{name}.ipynb").exists():
            link = f'href="../{name.removeprefix("book/")}.html"><span class="doc">'
            row = page.partition("<table")[2].partition(link)[2].partition("</tr>")[0]
            cells = re.findall(r"<td[^>]*><p>(.*?)</p>", row)
            cost = measured["notebooks"].get(f"{name}.ipynb")
            assert cells[0] == (f"{cost['seconds']:.0f}" if cost else "–"), name
    for notebook in measured["notebooks"]:
        assert (ROOT / notebook).exists(), f"{notebook} is gone: make times"


def test_the_benchmark_is_shown_with_its_targets():
    rows = [
        {"what": "`make a`", "value": 1.8, "unit": "×", "target": "≥ 1.7"},
        {"what": "c", "value": 3, "unit": "s", "target": "≤ 2", "missed": True},
        {"what": "d", "value": 4, "unit": "s * s"},
    ]
    assert run_times.bench_table({"rows": rows}).splitlines() == [
        "| what | measured | target |",
        "|---|---:|---:|",
        "| `make a` | 1.8 × | ≥ 1.7 |",
        "| c | 3 s | ≤ 2, missed |",
        r"| d | 4 s \* s |  |",
    ]


def test_every_row_of_the_benchmark_is_on_the_page(html):
    bench = json.loads((ROOT / run_times.BENCH).read_text(encoding="utf-8"))
    page = (html / "book" / "reference" / "run-times.html").read_text(encoding="utf-8")
    table = page.partition('id="how-fast-it-is"')[2].partition("</table>")[0]
    shown = re.findall(r"<td[^>]*><p>(.*?)</p></td>", table)[::3]
    text = [unescape(re.sub("<[^>]+>", "", cell)) for cell in shown]
    assert text == [row["what"].replace("`", "") for row in bench["rows"]]
    assert sum("<code" in cell for cell in shown) == sum("`" in r["what"] for r in bench["rows"])


# A published site


def test_the_404_page_offers_the_doors_of_the_landing_page():
    index = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    body = published.not_found(index, "/fork/")
    doors = re.findall(r'href="/fork/book/([^"]+)\.html">([^<]+)<', body)
    assert len(doors) == index.count("{grid-item-card}") + 1 == 4
    for page, title in doors:
        assert f"book/{page}" in site_check.toc_pages()
        assert title in index or page == "index"
    assert 'action="/fork/search.html"' in body


def test_a_site_without_an_address_has_no_sitemap_and_no_cards(html):
    """Of this checkout: an address if, and only if, its origin is a repository on GitHub."""
    url = published.site_url(
        launch_buttons.github_url(launch_buttons.git(ROOT, "remote", "get-url", "origin"))
    )
    index = (html / "book" / "index.html").read_text(encoding="utf-8")
    assert (html / "sitemap.xml").exists() == ("og:url" in index) == (url is not None)
    assert (html / "404.html").exists()


def test_the_social_card_is_drawn_from_the_first_figure(tmp_path):
    social_card.draw(card=tmp_path / "card.png")
    drawn = plt.imread(tmp_path / "card.png")
    committed = plt.imread(ROOT / "book" / published.CARD)
    assert drawn.shape == committed.shape == (*social_card.SIZE[::-1], 4)
    # Letters may be a shade different on another system; the picture is the same.
    assert abs(drawn - committed).mean() < 0.01


@pytest.mark.parametrize(
    "path", sorted((ROOT / "book" / "_ext").glob("*.py")), ids=lambda p: p.stem
)
def test_examples_of_the_extensions(path):
    assert doctest.testmod(importlib.import_module(path.stem)).failed == 0
