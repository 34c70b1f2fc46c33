"""Pages without the weight that nobody sees.

The theme is made for any site: 1.5 MB of script with every icon there is, 0.4 MB of style sheet for
components that this book has not, a search index on pages that do not search, and MathJax on the
first page because later ones have formulas. Here the built site is reduced to what it uses:

- icons come from the theme's icon font, cut down to the icons that occur, instead of the script;
- rules of style sheets that no page and no script can match are dropped;
- scripts are loaded where they do something.

What is used is read from the built pages, so nothing has to be listed and a new version of the
theme needs no change here.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import tinycss2
from bs4 import BeautifulSoup
from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.errors import ExtensionError

WORD = re.compile(r"[A-Za-z_][\w-]*")
# Scripts, by the end of their name, and what a page must have for them to do something.
WHERE = {
    "fontawesome.js": "no-page",
    "searchtools.js": "#search-results",
    "language_data.js": "#search-results",
    "searchindex.js": "#search-results",
    "table.js": "table[data-choice]",
    "slider.js": ".beta-slider",
}
FONT_SOURCES = re.compile(
    r'url\(([^)]*)\.woff2\) format\("woff2"\),\s*url\([^)]*\.ttf\) format\("truetype"\)'
)


def drop_scripts(page: BeautifulSoup) -> None:
    """Take out the scripts that have nothing to do on this page."""
    for script in page.select("script[src]"):
        name = script["src"].partition("?")[0].rpartition("/")[2]
        if name in WHERE and not page.select_one(WHERE[name]):
            script.decompose()


def names_in(page: BeautifulSoup) -> set[str]:
    """Every word in an attribute or a script: what a class or an id can be."""
    texts = {script.string or "" for script in page("script")}
    for tag in page(True):
        for value in tag.attrs.values():
            texts.update(value if isinstance(value, list) else [value])
    return {name for text in texts for name in WORD.findall(text)}


def names_in_scripts(html: Path) -> set[str]:
    """Every word in a script file that is loaded."""
    files = [
        p for p in html.rglob("*.js") if p.name != "searchindex.js" and "mathjax" not in p.parts
    ]
    return {name for path in files for name in WORD.findall(path.read_text(encoding="utf-8"))}


def can_match(selector: list, names: set[str]) -> bool:
    """Whether every class and id that the selector demands exists; :not() and :is() demand none.

    >>> tokens = tinycss2.parse_component_value_list(".card:not(.rare) > #top")
    >>> can_match(tokens, {"card", "top"}), can_match(tokens, {"card"})
    (True, False)
    """
    before = None
    for token in selector:
        if token.type == "ident" and before == "." and token.value not in names:
            return False
        if token.type == "hash" and token.value not in names:
            return False
        before = getattr(token, "value", None) if token.type == "literal" else None
    return True


def selectors(prelude: Iterable) -> list[list]:
    """The selectors of a rule, which commas separate."""
    found = [[]]
    for token in prelude:
        if token == ",":
            found.append([])
        else:
            found[-1].append(token)
    return found


def purge(rules: Iterable, names: set[str]) -> str:
    """The rules that can match something, and everything that is no rule, as text.

    >>> css = "a, .rare, .card { color: red } @media print { .rare { color: blue } }"
    >>> purge(tinycss2.parse_stylesheet(css, skip_whitespace=True), {"card"})
    'a,.card{color: red}'
    """
    kept = []
    for rule in rules:
        if rule.type == "comment":
            if rule.value.startswith("!"):  # licences
                kept.append(rule.serialize())
        elif rule.type == "qualified-rule":
            some = [s for s in selectors(rule.prelude) if can_match(s, names)]
            if some:
                heads = ",".join(tinycss2.serialize(s).strip() for s in some)
                kept.append(f"{heads}{{{tinycss2.serialize(rule.content).strip()}}}")
        elif rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports"):
            inner = purge(tinycss2.parse_rule_list(rule.content, skip_whitespace=True), names)
            if inner:
                head = tinycss2.serialize(rule.prelude).strip()
                kept.append(f"@{rule.lower_at_keyword} {head}{{{inner}}}")
        else:
            kept.append(rule.serialize())
    return "\n".join(kept)


def characters(tokens: Iterable) -> Iterator[str]:
    """Strings of one character: this is how a style sheet names an icon."""
    for token in tokens:
        if token.type == "string" and len(token.value) == 1:
            yield token.value
        for part in ("prelude", "content", "arguments"):
            yield from characters(getattr(token, part, None) or [])


def shrink_font(font: Path, text: str) -> None:
    """Replace a TrueType font by a WOFF with the glyphs of this text.

    The result has another name inside, as the font's licence wants of a modified version.
    """
    logging.getLogger("fontTools.subset").setLevel(logging.WARNING)
    options = subset.Options(flavor="woff", notdef_outline=True, layout_features=[])
    small = TTFont(font)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=text)
    subsetter.subset(small)
    for record in small["name"].names:
        if record.nameID != 0:  # 0: the copyright
            record.string = "Icons of this book"
    subset.save_font(small, font.with_suffix(".woff"), options)
    font.unlink()


def shrink(html: Path) -> None:
    """Reduce a built site to what its pages use."""
    names = set()
    for path in html.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        page = BeautifulSoup(text, "html.parser", on_duplicate_attribute="ignore")
        drop_scripts(page)
        names |= names_in(page)
        path.write_text(str(page), encoding="utf-8", newline="\n")
    for path in html.rglob("fontawesome.js*"):
        path.unlink()
    names |= names_in_scripts(html)

    icons = set()
    for path in html.rglob("*.css"):
        rules = tinycss2.parse_stylesheet(path.read_text(encoding="utf-8"), skip_whitespace=True)
        css = FONT_SOURCES.sub(r'url(\1.woff) format("woff")', purge(rules, names))
        if ".woff2" in css:
            raise ExtensionError(f"{path.name} names its fonts in a way that is not known here")
        path.write_text(css, encoding="utf-8", newline="\n")
        icons.update(characters(tinycss2.parse_component_value_list(css)))
    for path in html.glob("_static/styles/*.css.map"):
        path.unlink()
    for path in html.glob("_static/vendor/fontawesome/webfonts/*.ttf"):
        shrink_font(path, "".join(sorted(icons)))
    for path in html.glob("_static/vendor/fontawesome/webfonts/*.woff2"):
        path.unlink()


def only_own_formulas(app, pagename: str, templatename, context: dict, doctree) -> None:
    """No MathJax on a page without formulas; Sphinx counts those of the pages below it too."""
    if not app.env.get_domain("math").data["has_equations"].get(pagename):
        scripts = context["script_files"]
        scripts[:] = [s for s in scripts if "mathjax" not in str(s.filename)]


def shrink_site(app, exception) -> None:
    if exception is None and app.builder.name == "html":
        shrink(Path(app.outdir))


def setup(app) -> dict:
    app.connect("html-page-context", only_own_formulas, priority=900)
    app.connect("build-finished", shrink_site, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
