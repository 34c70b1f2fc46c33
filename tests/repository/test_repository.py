"""What the repository promises: pins that agree, files that are valid, nothing that leaks."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import launch_buttons
import licences
import pytest
import site_check
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import vaeloss

ROOT = site_check.ROOT


README = (ROOT / "README.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DEPENDENCIES = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
EXTRAS = {
    extra: [Requirement(line) for line in lines]
    for extra, lines in PYPROJECT["project"]["optional-dependencies"].items()
}


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
OF_TORCH = re.compile(r"torch$|triton|nvidia|cuda")


# Pins


def test_requirements_are_pinned_and_constrained():
    assert lines("requirements.txt")[:2] == ["-c constraints.txt", "-e .[book]"]
    for name, exact in REQUIRED.items():
        if name != "torch":
            assert CONSTRAINED[name] == {exact}, f"{name}: run make constraints"


def test_constraints_leave_cuda_to_the_wheel_of_torch():
    assert not [name for name in CONSTRAINED if OF_TORCH.match(name)]
    assert len(CONSTRAINED) > len(REQUIRED)


def needs_the_pinned_environment() -> None:
    """Skip where the direct requirements are not those of requirements.txt."""
    for name, exact in REQUIRED.items():
        try:
            installed = Version(distribution(name).version).public
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed")
        if installed != exact:
            pytest.skip(f"{name} is {installed}, and pinned is {exact}")


def installed_closure(requirements: list[Requirement]) -> dict[str, str]:
    """Name -> installed version, of these and all that they need here, extras included."""
    found, done, todo = {}, set(), list(requirements)
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        package = distribution(name)
        found[name] = Version(package.version).public
        for extra in {"", *requirement.extras}:
            if (name, extra) not in done:
                done.add((name, extra))
                for needed in map(Requirement, package.requires or []):
                    if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                        todo.append(needed)
    return found


def test_everything_that_is_installed_is_constrained():
    """What pip brought in for the requirements, on this platform, has the version of its pin."""
    needs_the_pinned_environment()
    direct = [r for rs in pins("requirements.txt").values() for r in rs]
    project = DEPENDENCIES + EXTRAS["book"]
    installed = installed_closure(direct + project)
    assert len(installed) > 2 * len(REQUIRED)
    here = {
        name: version(r)
        for name, rs in pins("constraints.txt").items()
        for r in rs
        if r.marker is None or r.marker.evaluate()
    }
    assert installed["torch"] == REQUIRED["torch"]
    free = re.compile(f"{OF_TORCH.pattern}|vaeloss$")
    bound = {name: exact for name, exact in installed.items() if not free.match(name)}
    differ = {n: (exact, here.get(n)) for n, exact in bound.items() if here.get(n) != exact}
    assert not differ, "name: (installed, constrained)"


def test_the_audit_has_the_same_pins():
    """pip-audit is installed by the weekly workflow alone, and all of it is pinned."""
    audit = {name: {version(r) for r in rs} for name, rs in pins(".github/pip-audit.txt").items()}
    assert "pip-audit" in audit
    for name in audit.keys() & CONSTRAINED.keys():
        assert audit[name] == CONSTRAINED[name], f"{name}: run make constraints"


# Licences


def licence_rows() -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| (\S+) \| (\d.*?) \| (.*) \|$", licences.PATH.read_text("utf-8"), re.M)
    return {name: (versions, licence) for name, versions, licence in rows}


def test_licences_are_complete():
    rows = licence_rows()
    listed = {name: set(versions.split(", ")) for name, (versions, _) in rows.items()}
    assert listed == {**CONSTRAINED, "torch": {REQUIRED["torch"]}}, "run make licences"
    for name, (_, licence) in rows.items():
        assert licence.strip() and not re.search("unknown|none", licence, re.IGNORECASE), name


@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info >= (3, 12), reason="the list is made elsewhere"
)
def test_licences_are_what_the_packages_declare():
    needs_the_pinned_environment()
    for name, (_, licence) in licence_rows().items():
        if name != "torch":  # a wheel with CUDA may declare more
            assert licence == licences.licence(name), f"{name}: run make licences"


def test_the_library_accepts_what_the_book_pins():
    for requirement in [*DEPENDENCIES, *sum(EXTRAS.values(), [])]:
        name = canonicalize_name(requirement.name)
        if name in REQUIRED:  # not an extra inside another, or what the book does without
            assert requirement.specifier.contains(REQUIRED[name]), str(requirement)


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
    library = {r.name for r in DEPENDENCIES + EXTRAS["book"]} - {"vaeloss"}
    assert library | {"keras", "jupyterlab-myst"} <= set(binder)
    assert not {"jupyter-book", "sphinx-mathjax-offline", "pytest", "nbval", "ruff"} & set(binder)
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in lines(
        "binder/requirements.txt"
    )
    # What these bring with them is pinned as well: an image that is built next year is the same.
    # pip takes -c as relative to the file, and -e as relative to where it runs, the clone's root.
    assert {"-c ../constraints.txt", "-e .[book]"} <= set(lines("binder/requirements.txt"))
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


def test_workflows_run_what_they_name():
    """Actions are pinned by commit, a tag can be moved; what pip installs is pinned in a file."""
    commits = {}
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        text = path.read_text(encoding="utf-8")
        for line in re.findall(r"^.*\buses:.*$", text, flags=re.MULTILINE):
            pinned = re.search(r"uses: ([\w./-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+$", line)
            assert pinned, f"{path.name}: {line.strip()}"
            assert commits.setdefault(pinned[1], pinned[2]) == pinned[2], pinned[1]
        for installed in re.findall(r"pip install (.*)", text):
            assert installed in (
                "-r requirements.txt",
                "-c constraints.txt .",
                "-r .github/pip-audit.txt",
                '-r "$RUNNER_TEMP/newest.txt"',  # once a week, without the pins
            ), path.name
        for job in yaml.safe_load(text)["jobs"].values():
            for step in job["steps"]:
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False, path.name
    assert "actions/checkout" in commits


@pytest.mark.skipif(os.name == "nt", reason="the step is for a POSIX shell")
def test_the_audit_looks_at_every_pin(tmp_path):
    """The weekly workflow's lines make one list of all pins, of every platform."""
    weekly = yaml.safe_load((ROOT / ".github/workflows/weekly.yml").read_text(encoding="utf-8"))
    *make_list, audit = weekly["jobs"]["audit"]["steps"][-1]["run"].splitlines()
    assert audit.startswith("pip-audit --strict") and "audit" in weekly["jobs"]["report"]["needs"]
    environment = {**os.environ, "RUNNER_TEMP": str(tmp_path)}
    command = ["bash", "-e", "-c", "\n".join(make_list)]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    listed = [Requirement(x) for x in (tmp_path / "pins.txt").read_text("utf-8").splitlines()]
    assert {canonicalize_name(r.name) for r in listed} == {*CONSTRAINED, "torch"}
    for requirement in listed:  # the job runs on more than one Python, but on one platform
        marker = str(requirement.marker or "")
        assert not marker or re.fullmatch(r'python_full_version (<|>=) "[\d.]+"', marker), marker


def test_the_hooks_have_the_pinned_ruff():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["additional_dependencies"] == [f"ruff=={REQUIRED['ruff']}"]


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


def test_what_binder_runs_after_its_build_can_be_imported():
    script = (ROOT / "binder" / "postBuild").read_text(encoding="utf-8")
    program = re.search(r"<<'PYTHON'\n(.*?)^PYTHON$", script, flags=re.DOTALL | re.MULTILINE)[1]
    for node in ast.parse(program).body:
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


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
    for page in site_check.chapters():
        assert f"]({page}.ipynb)" in README, page
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        if target != "book/_static/sum-or-mean.png":  # drawn from the first chapter
            assert (ROOT / target).exists(), target


def test_readme_and_chapters_agree_on_what_they_cost():
    rows = re.findall(r"\]\((book/\S+\.ipynb)\) \|.*\| (\d+) \| ([\d.]+ GB) \|", README)
    assert [path for path, *_ in rows] == [f"{page}.ipynb" for page in site_check.chapters()]
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
        if name != "tests/repository/test_repository.py":
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
    assert launch_buttons.github_url(origin) == "https://github.com/someone/sum-or-mean"


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
    assert launch_buttons.github_url(origin) is None


def make_checkout(folder: Path, origin: str | None) -> None:
    def git(*arguments):
        subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True)

    git("init", "--initial-branch", "edition-2")
    if origin:
        git("remote", "add", "origin", origin)


def test_options_of_a_github_checkout(tmp_path):
    make_checkout(tmp_path, "git@github.com:someone/sum-or-mean.git")
    options = launch_buttons.theme_options(tmp_path)
    assert options["repository_url"] == "https://github.com/someone/sum-or-mean"
    assert options["repository_branch"] == "edition-2"
    assert options["launch_buttons"]["binderhub_url"] == "https://mybinder.org"
    assert options["launch_buttons"]["colab_url"] == "https://colab.research.google.com"
    assert launch_buttons.git_address(options["repository_url"]) == (
        "vaeloss[book] @ git+https://github.com/someone/sum-or-mean"
    )


@pytest.mark.parametrize("origin", [None, "https://gitlab.com/someone/sum-or-mean.git"])
def test_no_options_without_a_github_origin(tmp_path, origin):
    make_checkout(tmp_path, origin)
    assert launch_buttons.theme_options(tmp_path) == {}


def test_no_options_outside_git(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert launch_buttons.theme_options(tmp_path) == {}
    monkeypatch.setattr(
        launch_buttons.subprocess, "run", lambda *a, **k: (_ for _ in ()).throw(OSError)
    )
    assert launch_buttons.theme_options(tmp_path) == {}
