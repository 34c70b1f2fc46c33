"""What a published site has beside its pages: a sitemap, cards for links to it, a 404, one zip.

The address is that of the GitHub Pages of the checkout's own origin, as for the launch buttons
(launch_buttons.py). A book built from anything else has no address, so it has no sitemap and no
cards: their links would lead nowhere. The 404 page is always there, and so is the whole site as one
zip, which opens from a folder without a network.
"""

import html
import re
import zipfile
from pathlib import Path
from urllib.parse import urlparse

from launch_buttons import git, github_url

DOOR = re.compile(r":::\{grid-item-card\} (?P<title>.+)\n:link: (?P<page>\S+)\n")
CARD = "_static/social-card.png"  # made by tools/pictures.py
CARD_ALT = (
    "Sum or Mean? Three rows of ten images: handwritten digits, their reconstructions with the "
    "summed loss, and the same grey blob ten times with the averaged loss."
)
ZIP = "sum-or-mean.zip"
FIRST = '<meta http-equiv="Refresh" content="0; url=book/index.html" />\n'


def site_url(repository: str | None) -> str | None:
    """The address of a GitHub repository's pages; None for None.

    >>> site_url("https://github.com/Someone/sum-or-mean")
    'https://someone.github.io/sum-or-mean/'
    >>> site_url("https://github.com/someone/someone.github.io")
    'https://someone.github.io/'
    """
    if repository is None:
        return None
    owner, name = urlparse(repository).path.strip("/").split("/")
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def not_found(index: str, prefix: str) -> str:
    """The body of the 404 page: a search, and the doors of the landing page in Markdown `index`."""
    doors = [
        f'<li><a href="{prefix}book/{door["page"]}.html">{html.escape(door["title"])}</a></li>'
        for door in DOOR.finditer(index)
    ]
    return f"""<h1>This page does not exist</h1>
<p>The address may be mistyped, or the page has another name now. Search for it, or start here:</p>
<ul>
<li><a href="{prefix}book/index.html">Sum or Mean? The short answer</a></li>
{"".join(doors)}
</ul>
<form action="{prefix}search.html" method="get" role="search">
<label for="not-found-search">Search the book</label>
<input id="not-found-search" type="search" name="q" class="form-control">
<button type="submit" class="btn btn-primary mt-2">Search</button>
</form>"""


def set_options(app, config) -> None:
    url = site_url(github_url(git(Path(app.srcdir), "remote", "get-url", "origin")))
    prefix = urlparse(url).path if url else "/"
    index = (Path(app.srcdir) / "book" / "index.md").read_text(encoding="utf-8")
    config.notfound_urls_prefix = prefix
    config.notfound_context = {"title": "Page not found", "body": not_found(index, prefix)}
    if url:
        config.html_baseurl = url
        config.sitemap_url_scheme = "{link}"
        config.sitemap_excludes = ["404.html", "genindex.html", "search.html"]
        config.ogp_site_url = url
        config.ogp_site_name = config.html_title
        config.ogp_image = CARD
        config.ogp_image_alt = CARD_ALT
        config.ogp_custom_meta_tags = [
            '<meta property="og:image:width" content="1200" />',
            '<meta property="og:image:height" content="630" />',
            '<meta name="twitter:card" content="summary_large_image" />',
        ]


def write_zip(app, exception) -> None:
    if exception is not None or app.builder.name != "html":
        return
    site = Path(app.outdir)
    files = [path for path in sorted(site.rglob("*")) if path.is_file() and path.name != ZIP]
    with zipfile.ZipFile(site / ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, Path("sum-or-mean") / path.relative_to(site))
        if site / "index.html" not in files:  # Jupyter Book writes it after Sphinx has finished
            archive.writestr("sum-or-mean/index.html", FIRST)


def setup(app) -> dict:
    app.setup_extension("notfound.extension")
    if github_url(git(Path(app.srcdir), "remote", "get-url", "origin")):
        app.setup_extension("sphinx_sitemap")
        app.setup_extension("sphinxext.opengraph")
    # Before the others look at the configuration.
    app.connect("config-inited", set_options, priority=100)
    app.connect("build-finished", write_zip, priority=950)  # when all else is done
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
