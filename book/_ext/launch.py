"""Launch buttons for Binder and Colab whose address is the checkout's own.

A book that is built from a clone of a GitHub repository links to that repository: a fork's site
launches the fork. A book built from anything else (no git, no origin, another host) has no launch
buttons, because a link that leads nowhere is worse than none.
"""

import re
import subprocess
from pathlib import Path

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


def set_options(app, config) -> None:
    config.html_theme_options = {**config.html_theme_options, **theme_options(Path(app.srcdir))}


def setup(app) -> dict:
    app.connect("config-inited", set_options)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
