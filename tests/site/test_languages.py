"""The short answer says the same in every language, and no language falls behind the English."""

import hashlib
import re
from collections import Counter

import collected
import pytest
import short_answer
import site_check
import yaml
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


def head(page: str) -> dict:
    """What stands between the two --- at the top of a page."""
    match = re.match(r"---\n(.*?)---\n", source(page), flags=re.DOTALL)
    return yaml.safe_load(match[1]) if match else {}


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


# Nobody falls behind


@pytest.mark.parametrize("page", TRANSLATIONS)
def test_it_was_translated_from_this_english_page(page):
    now = hashlib.sha256(source(ENGLISH).encode()).hexdigest()[:12]
    assert head(page)["translated-from"] == now, (
        f"{ENGLISH}.md has changed since {page}.md was translated. Compare the two "
        f"(git log -p {ENGLISH}.md shows the change), bring the translation up to date, and then "
        f'write at its top: translated-from: "{now}"'
    )


def test_every_language_is_there_once():
    assert [page for page in site_check.toc_pages() if "short-answer" in page] == PAGES
    files = {path.stem for path in (ROOT / "book" / "use").glob("short-answer-*.md")}
    assert files == {page.rpartition("/")[2] for page in PAGES}
    assert head(ENGLISH) == {}


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
    rules = [
        re.search(r"^\*\*(.*)\*\*$", p, flags=re.MULTILINE)[1] for p in (INDEX, source(ENGLISH))
    ]
    assert rules[0] == rules[1]


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
    sentences = collected.claims(ROOT / short_answer.CHAPTER)
    found = short_answer.numbers(sentences)
    assert 1 < float(found["beta_star_squared"]) < float(found["beta_star"]) < 784
    assert 0 < float(found["budget"]) < 0.6931  # log 2
    changed = [s.replace(found["beta_star"], "33.3") for s in sentences]
    assert short_answer.numbers(changed)["beta_star"] == "33.3"
    with pytest.raises(ExtensionError, match="no claim of book/ablate"):
        short_answer.numbers([s for s in sentences if "β* is" not in s])


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
