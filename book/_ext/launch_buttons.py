"""Launch buttons for Binder and Colab whose address is the checkout's own.

A book that is built from a clone of a GitHub repository links to that repository: a fork's site
launches the fork. A book built from anything else (no git, no origin, another host) has no launch
buttons, because a link that leads nowhere is worse than none.

Colab opens a notebook alone, without the checkout around it. Its first cell then installs the
library from the git address that stands in it, the *stamp*, which `make stamp` writes
(tools/stamp.py). A page has a Colab button only if its notebook's stamp is this checkout's origin.
"""

import re
import subprocess
from pathlib import Path

import nbformat

GITHUB = re.compile(
    r"""(?:https?://(?:[^@/]+@)?|ssh://git@|git@|git://)   # any credentials are left behind
        (?:www\.)?github\.com[:/]
        (?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:\.git)?/?$""",
    re.VERBOSE,
)


def github_url(origin: str | None) -> str | None:
    """The https address of a GitHub repository, from any form of its git address; else None.

    >>> github_url("git@github.com:someone/sum-or-mean.git")
    'https://github.com/someone/sum-or-mean'
    >>> github_url("https://gitlab.com/someone/sum-or-mean.git") is None
    True
    """
    match = GITHUB.match((origin or "").strip())
    return f"https://github.com/{match['owner']}/{match['name']}" if match else None


STAMP = re.compile(r'^BOOK = "(.*)"', re.MULTILINE)


def first_code_cell(notebook):
    return next((cell for cell in notebook.cells if cell.cell_type == "code"), None)


def stamp(path: Path) -> str | None:
    """The address in a notebook's first code cell: "" if unstamped, None without a place for it."""
    cell = first_code_cell(nbformat.read(path, as_version=4))
    match = cell and STAMP.search(cell.source)
    return match and match[1]


def git(folder: Path, *arguments: str) -> str | None:
    """What a git command prints, without the line end; None if it fails or git is missing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None


def theme_options(folder: Path) -> dict:
    """Options of sphinx-book-theme for the checkout in `folder`; empty without a GitHub origin."""
    url = github_url(git(folder, "remote", "get-url", "origin"))
    if url is None:
        return {}
    return {
        "repository_url": url,
        # Without a branch (a detached checkout) Binder and Colab take HEAD for the default one.
        "repository_branch": git(folder, "symbolic-ref", "--short", "HEAD") or "HEAD",
        "use_repository_button": True,
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
        },
    }


def git_address(url: str | None) -> str:
    """What pip takes to install the book's library from the repository at `url`; "" without one."""
    return f"vaeloss[book] @ git+{url}" if url else ""


def leave_out_colab(app, pagename, templatename, context, doctree) -> None:
    """Without the Colab button if the notebook would not find the library there."""
    path = app.env.doc2path(pagename) if pagename in app.env.all_docs else ""
    address = git_address(app.config.html_theme_options.get("repository_url"))
    if path.endswith(".ipynb") and address and stamp(Path(path)) == address:
        return
    for group in context.get("header_buttons", []):
        if group.get("label") == "launch-buttons":
            group["buttons"] = [b for b in group["buttons"] if b["text"] != "Colab"]


def set_options(app, config) -> None:
    config.html_theme_options = {**config.html_theme_options, **theme_options(Path(app.srcdir))}


def setup(app) -> dict:
    app.connect("config-inited", set_options)
    # The theme adds the buttons at 501.
    app.connect("html-page-context", leave_out_colab, priority=600)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
