"""The short answer says the same in every language: titles, table, links, numbers and code.

Its wording is nobody's interface: a sentence of the English page may be reworded there alone.
"""

import json
import re
from collections import Counter

import collected
import pytest
import short_answer
import site_check
from bs4 import BeautifulSoup
from sphinx.errors import ExtensionError

ROOT = site_check.ROOT


ENGLISH, *TRANSLATIONS = PAGES = list(short_answer.LANGUAGES)
INDEX = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
# Letters that an article in this language has many of, and none of the others has.
LETTERS = {
    "zh-Hans": "[对图码为张损项阈编输权维误个变这从该时练样]",
    "vi": "[ạảấầậắằặẹẻếềệỉịọỏốồộớờợủụứừựỳỷđ]",
    "ja": "[ぁ-ゖァ-ヺ]",
}


def source(page: str) -> str:
    return (ROOT / f"{page}.md").read_text(encoding="utf-8")


def built(html, page: str) -> BeautifulSoup:
    return BeautifulSoup((html / f"{page}.html").read_text(encoding="utf-8"), "html.parser")


def article(html, page: str) -> BeautifulSoup:
    """The article without the line of languages, which differs by the page itself."""
    soup = built(html, page).select_one("article.bd-article")
    soup.select_one("p.languages").decompose()
    return soup


def code(soup) -> list[str]:
    return [block.get_text() for block in soup.select("div.highlight pre")]


def rows(soup) -> list[list[str]]:
    return [[cell.get_text() for cell in row.select("th, td")] for row in soup.select("table tr")]


def figures(text: str) -> Counter:
    return Counter(re.findall(r"\d+(?:\.\d+)?|[½¼]", text))


# The languages


def test_every_language_is_there_once():
    assert [page for page in site_check.toc_pages() if "short-answer" in page] == PAGES
    files = {path.stem for path in (ROOT / "book" / "use").glob("short-answer-*.md")}
    assert files == {page.rpartition("/")[2] for page in PAGES}


def test_a_language_is_a_page_and_a_line_of_the_table_of_contents(tmp_path):
    page = "book/use/short-answer-no"
    (tmp_path / page).parent.mkdir(parents=True)
    (tmp_path / "_toc.yml").write_text(f"  - file: {page}\n", encoding="utf-8")
    (tmp_path / f"{page}.md").write_text(
        '---\nlanguage: "nb"\nlanguage-name: "Norsk"\n---\n\n# Svar\n', encoding="utf-8"
    )
    assert short_answer.languages(tmp_path) == {page: ("nb", "Norsk")}
    (tmp_path / f"{page}.md").write_text("# Svar\n", encoding="utf-8")
    with pytest.raises(ExtensionError, match=f"{page}.md does not say"):
        short_answer.languages(tmp_path)


# The same in every language


@pytest.mark.parametrize("page", TRANSLATIONS)
def test_it_is_built_the_same(html, page):
    """The same titles, paragraphs, list items and cells, one after the other, and literals."""
    blocks = ["h1", "h2", "h3", "p", "ol", "ul", "li", "table", "tr", "th", "td", "pre"]
    english, other = article(html, ENGLISH), article(html, page)
    assert [e.name for e in other(blocks)] == [e.name for e in english(blocks)]
    assert len(other("h2")) == 5
    literals = [[e.get_text() for e in soup.select("code.literal")] for soup in (english, other)]
    assert Counter(literals[0]) == Counter(literals[1])


@pytest.mark.parametrize("page", TRANSLATIONS)
def test_it_has_the_same_numbers_in_every_block(html, page):
    blocks = [article(html, p).select("h1, h2, p, td, th") for p in (ENGLISH, page)]
    for english, other in zip(*blocks, strict=True):
        assert figures(other.get_text()) == figures(english.get_text()), other.get_text()


@pytest.mark.parametrize("page", TRANSLATIONS)
def test_it_has_the_same_links(html, page):
    """All but those to its own sections, whose addresses come from their titles."""
    links = [
        Counter(a["href"] for a in article(html, p)("a") if not a["href"].startswith("#"))
        for p in (ENGLISH, page)
    ]
    assert links[0] == links[1]
    assert len(links[0]) > 9


@pytest.mark.parametrize("page", PAGES)
def test_its_code_is_that_of_the_first_page(html, page):
    tabs = re.findall(r":::\{tab-item\} [^\n]*\n```python\n(.*?)```", INDEX, flags=re.DOTALL)
    assert code(article(html, page)) == tabs[:2]
    labels = [e.get_text().strip() for e in article(html, page).select("label.sd-tab-label")]
    assert labels == ["PyTorch", "Keras 3"]


@pytest.mark.parametrize("page", PAGES)
def test_its_table_is_that_of_the_first_page(html, page):
    first = rows(built(html, "book/index").select_one("article"))
    assert len(first) == 6
    if page == ENGLISH:
        assert rows(article(html, page)) == first
    for row, wanted in zip(rows(article(html, page)), first, strict=True):
        assert row[2:4] == wanted[2:4]
        assert row[4].split("ELBO")[0].strip("（, ") in wanted[4]
        assert re.findall(r"[cβ] = [\d/½]+", row[4]) == re.findall(r"[cβ] = [\d/½]+", wanted[4])


def test_english_and_the_first_page_have_the_same_rule():
    """Sum what, mean of what: in other words, if need be."""
    rules = [
        re.search(r"^\*\*(.*)\*\*$", p, flags=re.MULTILINE)[1].lower()
        for p in (INDEX, source(ENGLISH))
    ]
    first, english = (re.findall("sum|mean|pixels|latents|batch", rule) for rule in rules)
    assert first == english == ["sum", "pixels", "sum", "latents", "mean", "batch"]


# The right language


@pytest.mark.parametrize("page", PAGES)
def test_it_says_which_language_it_is(html, page):
    language, name = short_answer.LANGUAGES[page]
    soup = built(html, page)
    assert soup.html["lang"] == language
    assert soup.select_one("article > section")["lang"] == language
    for title in article(html, page).select("h1, h2"):
        assert title.select_one("span")["lang"] == language
    here = f"{page.rpartition('/')[2]}.html"
    links = {a["href"]: a.parent["lang"] for a in soup.select("article p.languages a")}
    others = {
        f"{p.rpartition('/')[2]}.html": lang for p, (lang, _) in short_answer.LANGUAGES.items()
    }
    assert links | {here: language} == others and here not in links
    assert soup.select_one("p.languages strong").get_text() == name
    alternates = {a["href"]: a["hreflang"] for a in soup.select('link[rel="alternate"][hreflang]')}
    assert alternates == others
    text = article(html, page).get_text()
    for other, letters in LETTERS.items():
        found = len(re.findall(letters, text))
        assert found > 100 if other == language else found == 0, (other, found)


@pytest.mark.parametrize("page", PAGES)
def test_nothing_of_the_source_is_left(html, page):
    """Markdown ends bold type differently before a full-width character."""
    soup = article(html, page)
    for element in soup(["pre", "code"]):
        element.decompose()
    assert not re.search(r"\*\*|\]\(|\{\{|\}\}|\\|``", soup.get_text())


def test_the_first_page_names_each_language_in_its_own(html):
    line = built(html, "book/index").select_one("article p.languages")
    links = {a.get_text(): (a["href"], a.parent["lang"]) for a in line("a")}
    assert links == {
        name: (f"{page.removeprefix('book/')}.html", language)
        for page, (language, name) in short_answer.LANGUAGES.items()
    }


def test_the_sidebar_says_so_as_well(html):
    for anywhere in ("book/index", "book/derive/the-elbo", PAGES[-1]):
        entries = built(html, anywhere).select(".bd-sidebar-primary a [lang]")
        assert [e["lang"] for e in entries] == [lang for lang, _ in short_answer.LANGUAGES.values()]


def test_around_the_article_it_is_english(chromium, site):
    page = chromium.new_page()
    for name in PAGES:
        page.goto(f"{site}/{name}.html", wait_until="domcontentloaded")
        for part in (
            ".skip-link a",
            ".bd-sidebar-primary a",
            ".prev-next-info p",
            "footer.bd-footer-content p",
        ):
            found = page.locator(part).first.evaluate("e => e.closest('[lang]').lang")
            assert found == "en", (name, part)
    page.close()


# The parts


def test_the_numbers_are_those_that_the_chapter_claims():
    claims = collected.claims_by_id(ROOT / short_answer.CHAPTER)
    found = short_answer.numbers(claims)
    assert 1 < float(found["beta_star_squared"]) < float(found["beta_star"]) < 784
    assert 0 < float(found["budget"]) < 0.6931  # log 2
    name = "thresholds-on-mnist"
    changed = claims | {name: {"sentence": "In other words.", "values": {"bernoulli": 33.3}}}
    with pytest.raises(ExtensionError, match="'thresholds-on-mnist' has no value 'gaussian'"):
        short_answer.numbers(changed)
    changed[name]["values"]["gaussian"] = 5.5
    assert short_answer.numbers(changed)["beta_star"] == "33.3"
    with pytest.raises(ExtensionError, match="no claim of book/ablate.* has the id 'thresholds-"):
        short_answer.numbers({key: claim for key, claim in claims.items() if key != name})


@pytest.mark.parametrize(
    ("source", "output", "problem"),
    [
        ('claim("One.", f(1), id="a", value={"n": n})', "✓ One.\n", "are literals"),
        ('claim("One.", f(1), id="a")', "✓ Another.\n", "'a' is not in its cell's output"),
        ('claim("One.", f(1), id="a")\nclaim("Two.", f(2), id="a")', "✓ One.\n✓ Two.\n", "two"),
    ],
)
def test_a_claim_with_an_id_is_read_from_its_source(tmp_path, source, output, problem):
    def write(source, output):
        cell = {"cell_type": "code", "source": [source], "outputs": [{"text": [output]}]}
        (tmp_path / "some.ipynb").write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
        return tmp_path / "some.ipynb"

    fine = write('%pip list\nclaim("One is 1.", f(1), id="a", value={"n": 1})', "✓ One is 1.\n")
    assert collected.claims_by_id(fine) == {"a": {"sentence": "One is 1.", "values": {"n": 1}}}
    with pytest.raises(ValueError, match=problem):
        collected.claims_by_id(write(source, output))


def test_a_word_of_the_table_without_translation_is_an_error():
    lines = short_answer.table(INDEX)
    words = {
        "reconstruction": "r",
        "sum over pixels": "a",
        "mean over pixels": "b",
        "sum over latents": "c",
        "mean over latents": "d",
        "sum, divided by D": "e",
        "the ELBO": "f",
        "the ELBO, with smaller gradients": "g",
    }
    assert len(short_answer.translated(lines, words)) == len(lines) == 7
    for word in words:
        if word != "the ELBO":
            with pytest.raises(ValueError, match="no words for"):
                short_answer.translated(lines, {k: v for k, v in words.items() if k != word})
    with pytest.raises(ValueError, match="no use for \\['median'\\]"):
        short_answer.translated(lines, words | {"median": "h"})
