"""What the repository promises: pins that agree, files that are valid, nothing that leaks."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import site_check
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vaeloss

ROOT = site_check.ROOT
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import launch  # noqa: E402

README = (ROOT / "README.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def lines(path: str) -> list[str]:
    text = (ROOT / path).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(path: str) -> dict[str, list[Requirement]]:
    """Requirements of a file by name; a name may stand twice, for different Pythons."""
    found = {}
    for line in lines(path):
        if not line.startswith("-"):
            requirement = Requirement(line)
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def version(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==" and "*" not in specifier.version, str(requirement)
    assert "+" not in specifier.version, f"{requirement}: a local version is one platform's"
    return specifier.version


REQUIRED = {name: version(*r) for name, r in pins("requirements.txt").items()}
CONSTRAINED = {name: {version(r) for r in rs} for name, rs in pins("constraints.txt").items()}


# Pins


def test_requirements_are_pinned_and_constrained():
    assert lines("requirements.txt")[:2] == ["-c constraints.txt", "-e ."]
    for name, exact in REQUIRED.items():
        if name != "torch":
            assert CONSTRAINED[name] == {exact}, f"{name}: run make constraints"


def test_constraints_leave_cuda_to_the_wheel_of_torch():
    assert not [n for n in CONSTRAINED if re.match(r"torch$|triton|nvidia|cuda", n)]
    assert len(CONSTRAINED) > len(REQUIRED)


def test_the_library_accepts_what_the_book_pins():
    for line in PYPROJECT["project"]["dependencies"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(REQUIRED[canonicalize_name(requirement.name)]), line


def test_the_library_declares_what_it_imports():
    project = PYPROJECT["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    requirements = [Requirement(line) for line in project["dependencies"] + extras]
    declared = {name for r in requirements for name in (r.name, *r.extras)}
    for path in sorted((ROOT / "vaeloss").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in (n.partition(".")[0] for n in names):
                assert name in declared | sys.stdlib_module_names | {"vaeloss"}, (path.name, name)


def test_a_clone_has_what_the_wheel_takes():
    """A file or folder that only this checkout has would make a clone fail to install."""
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source in wheel["force-include"]:
        command = ["git", "-C", ROOT, "ls-files", source]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip("not a git checkout")
        assert done.stdout.strip(), f"{source} is not committed"


def test_binder_has_the_same_pins_and_no_site():
    binder = {name: version(*r) for name, r in pins("binder/requirements.txt").items()}
    assert binder == {name: REQUIRED[name] for name in binder}
    library = {canonicalize_name(Requirement(r).name) for r in PYPROJECT["project"]["dependencies"]}
    assert library | {"keras", "jupyterlab-myst"} <= set(binder)
    assert not {"jupyter-book", "sphinx-mathjax-offline", "pytest", "nbval", "ruff"} & set(binder)
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in lines(
        "binder/requirements.txt"
    )
    # What these bring with them is pinned as well: an image that is built next year is the same.
    # pip takes -c as relative to the file, and -e as relative to where it runs, the clone's root.
    assert {"-c ../constraints.txt", "-e ."} <= set(lines("binder/requirements.txt"))
    assert lines("binder/runtime.txt") == ["python-3.11"]


# Valid files

needs_make = pytest.mark.skipif(
    os.name == "nt" or shutil.which("make") is None, reason="needs make and a POSIX shell"
)


@pytest.mark.parametrize(
    "schema, pattern",
    [
        ("vendor.github-workflows", ".github/workflows/*.yml"),
        ("vendor.citation-file-format", "CITATION.cff"),
    ],
)
def test_schema(schema, pattern):
    files = [str(path) for path in sorted(ROOT.glob(pattern))]
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_have_least_permissions():
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}, path.name
        assert "concurrency" in workflow, path.name
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"] <= 60
            granted = job.get("permissions", {})
            assert granted in ({}, {"issues": "write"}, {"pages": "write", "id-token": "write"})


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, flags=re.MULTILINE)[1]
    declared = PYPROJECT["project"]["version"]
    assert declared == vaeloss.__version__ == citation["version"] == newest


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
@pytest.mark.parametrize("path", [".ci/run", "binder/start", "binder/postBuild"])
def test_scripts_are_executable_and_parse(path):
    assert os.access(ROOT / path, os.X_OK)
    assert subprocess.run(["bash", "-n", ROOT / path]).returncode == 0


@needs_make
def test_every_target_says_what_it_does():
    done = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)[1].split()
    for target in targets:
        assert re.search(rf"^  make {target}: +\S", done.stdout, flags=re.MULTILINE), target
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`?make ([a-z]+)\b(?=[` ]|$)", README + guide)) - {"alone"} <= {*targets}


@needs_make
def test_make_names_an_old_python(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "-f", ROOT / "Makefile", "-C", tmp_path, "book", f"PYTHON={old}"]
    for name in ("requirements.txt", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr and "Python 3.9.1" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_readme_lists_every_chapter():
    for page in site_check.toc_pages():
        if re.match(r"book/[a-z]+/\d\d-", page):
            assert f"]({page}.ipynb)" in README, page
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        if target != "book/_static/sum-or-mean.png":  # drawn from the first chapter
            assert (ROOT / target).exists(), target


def test_readme_and_chapters_agree_on_what_they_cost():
    rows = re.findall(r"\]\((book/\S+\.ipynb)\) \|.*\| (\d+) \| ([\d.]+ GB) \|", README)
    assert len(rows) == sum(bool(re.match(r"book/[a-z]+/\d\d-", p)) for p in site_check.toc_pages())
    for path, seconds, memory in rows:
        first = json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"][0]
        cost = f"**It costs** {seconds} seconds on one core and {memory}"
        assert cost in "".join(first["source"]), path


# Nothing leaks


def text_files() -> list[Path]:
    command = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [p for p in paths if p.is_file() and b"\0" not in p.read_bytes()]


def test_no_path_of_a_machine():
    path = re.compile(r"(?<![\w./~-])/(?:root|home|Users|work|opt|tmp|farm|mnt)/\w|[A-Z]:\\Users")
    for file in text_files():
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            assert not path.search(line), f"{file.relative_to(ROOT)}:{number}: {line[:120]}"


def test_no_host_of_a_package_registry():
    # PyTorch's index for wheels without CUDA is the one exception, where CPU wheels are needed.
    host = re.compile(r"pypi\.(?:org|python)|pythonhosted|anaconda\.org|npmjs|deb\.debian")
    pytorch = {"README.md", "binder/requirements.txt"}
    for file in text_files():
        name = file.relative_to(ROOT).as_posix()
        text = file.read_text(encoding="utf-8")
        if name != "tests/test_repository.py":
            assert not host.search(text), name
            if name not in pytorch and not name.startswith(".github/workflows/"):
                assert "download.pytorch.org" not in text, name


# Launch buttons


@pytest.mark.parametrize(
    "origin",
    [
        "https://github.com/someone/sum-or-mean",
        "https://github.com/someone/sum-or-mean.git",
        "https://github.com/someone/sum-or-mean/",
        "https://user:secret@github.com/someone/sum-or-mean.git",
        "git@github.com:someone/sum-or-mean.git",
        "ssh://git@github.com/someone/sum-or-mean.git",
        "git://github.com/someone/sum-or-mean.git",
    ],
)
def test_github_origins(origin):
    assert launch.github_url(origin) == "https://github.com/someone/sum-or-mean"


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "https://gitlab.com/someone/sum-or-mean.git",
        "git@gitlab.com:someone/sum-or-mean.git",
        "https://github.com.example.org/someone/sum-or-mean",
        "https://example.org/github.com/someone/sum-or-mean",
        "https://github.com/someone",
        "../sum-or-mean",
        "file:///srv/git/sum-or-mean.git",
    ],
)
def test_other_origins_have_no_buttons(origin):
    assert launch.github_url(origin) is None


def make_checkout(folder: Path, origin: str | None) -> None:
    def git(*arguments):
        subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True)

    git("init", "--initial-branch", "edition-2")
    if origin:
        git("remote", "add", "origin", origin)


def test_options_of_a_github_checkout(tmp_path):
    make_checkout(tmp_path, "git@github.com:someone/sum-or-mean.git")
    options = launch.theme_options(tmp_path)
    assert options["repository_url"] == "https://github.com/someone/sum-or-mean"
    assert options["repository_branch"] == "edition-2"
    assert options["launch_buttons"]["binderhub_url"] == "https://mybinder.org"
    assert options["launch_buttons"]["colab_url"] == "https://colab.research.google.com"
    assert launch.git_address(options["repository_url"]) == (
        "git+https://github.com/someone/sum-or-mean"
    )


@pytest.mark.parametrize("origin", [None, "https://gitlab.com/someone/sum-or-mean.git"])
def test_no_options_without_a_github_origin(tmp_path, origin):
    make_checkout(tmp_path, origin)
    assert launch.theme_options(tmp_path) == {}


def test_no_options_outside_git(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert launch.theme_options(tmp_path) == {}
    monkeypatch.setattr(launch.subprocess, "run", lambda *a, **k: (_ for _ in ()).throw(OSError))
    assert launch.theme_options(tmp_path) == {}
