"""The book builds without a warning, is complete, and works without a network."""

import re
import sys

import site_check

ROOT = site_check.ROOT
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import claims_page  # noqa: E402


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
    page = (html / "book" / "derive" / "02-the-elbo.html").read_text(encoding="utf-8")
    assert '<div class="math notranslate nohighlight">' in page
    assert 'src="../../_static/mathjax/' in page
    assert any((html / "_static" / "mathjax").glob("*.js"))


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
