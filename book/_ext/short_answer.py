"""The short answer in several languages, from one source.

The prose of each page is written by hand. All else has one source: the table of reductions and the
code are those of the first page (`{reductions}`, `{literalinclude}`), and the measured numbers are
those of the claims of CHAPTER, asked for by id (`{{ beta_star }}` and so on). `{languages}` writes
the line of links between the pages, and each page says in which language it is.
"""

import re
from pathlib import Path

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import pending_xref
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from collected import claims_by_id

ROOT = Path(__file__).resolve().parents[2]


def languages(root: Path) -> dict[str, tuple[str, str]]:
    """Page -> its language (BCP 47) and the name of the language in that language.

    The pages are those of the table of contents, in its order; each names its language at its top.
    """
    toc = (root / "_toc.yml").read_text(encoding="utf-8")
    found = {}
    for page in re.findall(r"^ *- file: (book/use/short-answer-\S+)$", toc, flags=re.MULTILINE):
        text = (root / f"{page}.md").read_text(encoding="utf-8")
        head = re.match(r"---\n(.*?)^---$", text, flags=re.DOTALL | re.MULTILINE)
        keys = yaml.safe_load(head[1]) if head else {}
        if missing := {"language", "language-name"} - set(keys):
            raise ExtensionError(f"short_answer: {page}.md does not say {sorted(missing)}")
        found[page] = (keys["language"], keys["language-name"])
    return found


LANGUAGES = languages(ROOT)
CHAPTER = "book/ablate/collapse-threshold.ipynb"
NUMBERS = {  # name in the pages: id and value of the claim of CHAPTER that prints it
    "beta_star": ("thresholds-on-mnist", "bernoulli"),
    "beta_star_squared": ("thresholds-on-mnist", "gaussian"),
    "budget": ("budgets-on-mnist", "bernoulli"),
}
SAME_IN_ALL = {"KL", "MNIST", "ELBO"}


def numbers(claims: dict[str, dict]) -> dict[str, str]:
    """The numbers that the pages quote, out of the claims of CHAPTER (`claims_by_id`)."""
    found = {}
    for name, (claim, value) in NUMBERS.items():
        if claim not in claims:
            raise ExtensionError(f"short_answer: no claim of {CHAPTER} has the id {claim!r}")
        if value not in claims[claim]["values"]:
            raise ExtensionError(f"short_answer: the claim {claim!r} has no value {value!r}")
        found[name] = f"{claims[claim]['values'][value]}"
    return found


def table(page: str) -> list[str]:
    """The lines of the first table of a Markdown page."""
    return re.search(r"(?:^\|.*\n)+", page, flags=re.MULTILINE)[0].splitlines()


def translated(lines: list[str], words: dict[str, str]) -> list[str]:
    """A table in other words; nothing but its words changes. ValueError if a word is missing.

    >>> translated(["| the mean | **β = 784** |"], {"the mean": "平均"})
    ['| 平均 | **β = 784** |']
    """
    phrases = sorted(words, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, phrases)))
    rest = " ".join(pattern.sub(" ", line) for line in lines)
    missing = set(re.findall(r"[A-Za-z]{2,}", rest)) - SAME_IN_ALL
    used = {match[0] for line in lines for match in pattern.finditer(line)}
    if missing or used != set(words):
        raise ValueError(f"no words for {sorted(missing)}, no use for {sorted(set(words) - used)}")
    return [pattern.sub(lambda match: words[match[0]], line) for line in lines]


class Reductions(SphinxDirective):
    """The first page's table. A line of the content is `words: the same in this language`."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        source = Path(self.env.doc2path(self.config.root_doc))
        self.env.note_dependency(str(source))
        lines = table(source.read_text(encoding="utf-8"))
        words = dict(re.split(r" *: +", line, maxsplit=1) for line in self.content if line)
        if words:
            try:
                lines = translated(lines, words)
            except ValueError as problem:
                raise self.error(str(problem)) from problem
        parent = nodes.Element()
        self.state.nested_parse(StringList(lines, str(source)), 0, parent)
        return parent.children


class Languages(SphinxDirective):
    """A line of links to the short answer in each language, after the argument, if there is one."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        line = nodes.paragraph(classes=["languages"])
        if self.arguments:
            line += nodes.Text(f"{self.arguments[0]} ")
        for number, (page, (language, name)) in enumerate(LANGUAGES.items()):
            if number > 0:
                line += nodes.Text(" · ")
            shown = nodes.inline(classes=[f"language-{language}"])
            if page == self.env.docname:
                shown += nodes.strong(name, name)
            else:
                target = pending_xref(
                    "",
                    nodes.inline(name, name),
                    refdomain="std",
                    reftype="doc",
                    reftarget=f"/{page}",
                    refexplicit=True,
                    refwarn=True,
                    refdoc=self.env.docname,
                )
                shown += target
            line += shown
        return [line]


def add_numbers(app, config) -> None:
    notebook = Path(app.srcdir) / CHAPTER
    if notebook.is_file():
        try:
            found = numbers(claims_by_id(notebook))
        except ValueError as problem:
            raise ExtensionError(f"short_answer: {problem}") from problem
        config.myst_substitutions = {**config.myst_substitutions, **found}


def mark_language(app, doctree) -> None:
    """Say it of the page, and of its titles, which also stand in the table of contents."""
    language, _ = LANGUAGES.get(app.env.docname, (None, None))
    if language is None:
        return
    for section in doctree.children:
        if isinstance(section, nodes.section):
            section["classes"].append(f"language-{language}")
    for title in list(doctree.findall(nodes.title)):
        if isinstance(title.parent, nodes.section):
            children = title.children
            title.clear()
            title += nodes.inline("", "", *children, classes=[f"language-{language}"])


def add_to_head(app, pagename, templatename, context, doctree) -> None:
    if pagename not in LANGUAGES:
        return
    context["language"], _ = LANGUAGES[pagename]
    for page, (language, _) in LANGUAGES.items():
        address = app.builder.get_relative_uri(pagename, page) or f"{Path(page).name}.html"
        context["metatags"] += f'\n<link rel="alternate" hreflang="{language}" href="{address}" />'
    if context["language"] != "en":
        app.add_js_file("around-is-english.js")


def setup(app) -> dict:
    app.add_directive("reductions", Reductions)
    app.add_directive("languages", Languages)
    app.connect("config-inited", add_numbers)
    app.connect("doctree-read", mark_language, priority=400)  # before the titles are collected
    app.connect("html-page-context", add_to_head)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
