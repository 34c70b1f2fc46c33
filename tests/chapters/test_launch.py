"""Launching: the first cell of every notebook, its stamp, and what `make lab` starts."""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace

import launch
import launch_buttons
import nbformat
import pytest
import stamp as stamping
from launch import ADDRESS, ROOT, TOKEN

NOTEBOOKS = sorted((ROOT / "book").glob("*/*.ipynb"))
pytestmark = pytest.mark.launch
posix = pytest.mark.skipif(os.name == "nt", reason="needs make, symbolic links and signals")


def sources(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def head(source: str) -> str:
    """The first lines of a notebook's first cell, as far as the one that installs the library."""
    return re.match(r".*?^    %pip .*?$\n(?=\n)", source, flags=re.DOTALL | re.MULTILINE)[0]


# The cell


def test_every_notebook_starts_with_the_same_few_lines():
    heads = {path.stem: head(sources(path)[0]) for path in NOTEBOOKS}
    assert len(set(heads.values())) == 1, "copy the first chapter's, then run make stamp"
    assert len(heads["the-symptom"].splitlines()) <= 9
    assert re.fullmatch(
        r"(vaeloss\[book\] @ git\+https://github\.com/[\w.-]+/[\w.-]+)?",
        launch_buttons.stamp(NOTEBOOKS[0]),
    )


def test_the_library_is_never_installed_by_its_name():
    """Nobody published it: on a package index the name is whoever's takes it."""
    for path in [*NOTEBOOKS, *(ROOT / "book").rglob("*.md"), ROOT / "README.md"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pip install[^\n`#]*(?<![/\w])vaeloss\b", text), path.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_keras_is_told_its_backend_before_it_is_imported(path):
    """Colab has no `make lab` that sets it."""
    code = "\n".join(sources(path))
    imported = re.search(
        r"^\s*(?:import keras|from keras|from sumormean\.originals\.keras)",
        code,
        flags=re.MULTILINE,
    )
    told = re.search(r'^os\.environ\["KERAS_BACKEND"\] = "torch"', code, flags=re.MULTILINE)
    assert imported is None or (told is not None and told.start() < imported.start())


# The stamp


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True)


def test_stamp_changes_one_line_and_back(tmp_path, capsys):
    part = tmp_path / "book" / "derive"
    part.mkdir(parents=True)
    originals = {part / path.name: path.read_bytes() for path in NOTEBOOKS[:3]}
    for path, content in originals.items():
        path.write_bytes(content)
        stamping.set_stamp(path, "")
    project = tmp_path / "pyproject.toml"
    project.write_bytes((ROOT / "pyproject.toml").read_bytes())
    without = stamping.set_urls(project.read_text(encoding="utf-8"), None)
    unstamped = {path: path.read_text(encoding="utf-8").splitlines() for path in originals}
    git(tmp_path, "init")
    git(tmp_path, "remote", "add", "origin", "git@github.com:someone/sum-or-mean.git")
    stamping.main(tmp_path)
    assert f"3 notebooks stamped with {ADDRESS}" in capsys.readouterr().out
    urls = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["urls"]
    assert urls == {"Repository": "https://github.com/someone/sum-or-mean"}
    for path, before in unstamped.items():
        after = path.read_text(encoding="utf-8").splitlines()
        [(old, new)] = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
        assert r"BOOK = \"\"" in old and rf"BOOK = \"{ADDRESS}\"" in new
        assert launch_buttons.stamp(path) == ADDRESS
    git(tmp_path, "remote", "set-url", "origin", "https://gitlab.com/someone/sum-or-mean.git")
    stamping.main(tmp_path)
    assert "stamped with nothing" in capsys.readouterr().out
    assert project.read_text(encoding="utf-8") == without
    for path, before in unstamped.items():
        assert path.read_text(encoding="utf-8").splitlines() == before


def test_stamp_refuses_a_notebook_without_a_place_for_it(tmp_path):
    path = tmp_path / "no.ipynb"
    cell = nbformat.v4.new_code_cell("import vaeloss")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    before = path.read_bytes()
    assert launch_buttons.stamp(path) is None
    with pytest.raises(ValueError, match="no line BOOK"):
        stamping.set_stamp(path, ADDRESS)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "stamp, origin, buttons",
    [
        (ADDRESS, "https://github.com/someone/sum-or-mean", ["Binder", "Colab"]),
        (ADDRESS, "https://github.com/someone/their-fork", ["Binder"]),
        ("", "https://github.com/someone/sum-or-mean", ["Binder"]),
        ("", None, ["Binder"]),
    ],
)
def test_colab_button_only_where_origin_and_stamp_agree(tmp_path, stamp, origin, buttons):
    path = tmp_path / "page.ipynb"
    path.write_bytes(NOTEBOOKS[0].read_bytes())
    stamping.set_stamp(path, stamp)
    env = SimpleNamespace(all_docs={"page": 0}, doc2path=lambda name: str(path))
    config = SimpleNamespace(html_theme_options={"repository_url": origin} if origin else {})
    both = [{"text": "Binder"}, {"text": "Colab"}]
    context = {"header_buttons": [{"label": "launch-buttons", "buttons": both}, {"type": "link"}]}
    launch_buttons.leave_out_colab(
        SimpleNamespace(env=env, config=config), "page", "", context, None
    )
    assert [b["text"] for b in context["header_buttons"][0]["buttons"]] == buttons


# The cell where the library is missing: this environment without it, and without an index


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder with all that is installed here but the library."""
    pytest.importorskip("hatchling", reason="pip builds the library with it")
    folder = tmp_path_factory.mktemp("packages")
    for kind in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(kind).iterdir():
            if "vaeloss" not in entry.name and entry.name != "sumormean":
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def bare(packages, tmp_path):
    """A function that runs this Python's modules without the library; and where pip puts it."""
    venv.create(tmp_path / "venv", symlinks=True)
    [site] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n")
    environment = launch.without_this_checkout(
        PIP_NO_INDEX="1",
        PIP_NO_BUILD_ISOLATION="0",  # pip reads 0 as yes here
        IPYTHONDIR=str(tmp_path / "ipython"),
        JUPYTER_DATA_DIR=str(tmp_path / "jupyter"),
    )

    def run(*arguments, cwd: Path, **more) -> subprocess.CompletedProcess:
        command = [tmp_path / "venv" / "bin" / "python", "-m", *arguments]
        environ = {**environment, **more}
        return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True)

    return run, site


def installed(site: Path) -> list[str]:
    return sorted(p.name for p in site.iterdir() if p.name != "packages.pth")


@posix
def test_alone_and_unstamped_it_says_what_to_do(bare, tmp_path):
    run, site = bare
    script = re.sub(r'^BOOK = ".*?"', 'BOOK = ""', head(sources(NOTEBOOKS[0])[0]), flags=re.M)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "cell.ipy").write_text(script)
    done = run("IPython", "cell.ipy", cwd=tmp_path / "alone")
    plain = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
    message = "AssertionError: sumormean is missing: run this in a clone of the book"
    assert done.returncode != 0 and message in plain and "During handling" not in plain
    assert installed(site) == []


@posix
def test_in_a_checkout_it_installs_that(bare, tmp_path):
    run, site = bare
    folder = launch.clone(tmp_path / "clone") / "book" / "derive"
    script = head(sources(NOTEBOOKS[0])[0]) + "import vaeloss\nprint(vaeloss.__file__)\n"
    (folder / "cell.ipy").write_text(script)
    done = run("IPython", "cell.ipy", cwd=folder)
    assert str(site / "vaeloss" / "__init__.py") in done.stdout, done.stdout + done.stderr
    assert (site / "sumormean" / "_data" / "digits28.npz").is_file()


@posix
def test_alone_and_stamped_it_installs_the_library_and_nothing_else(bare, tmp_path):
    """As on Colab: the notebook is alone, and torch and Keras are there already."""
    run, site = bare
    repository = launch.clone(tmp_path / "clone")
    notebook = nbformat.read(ROOT / "book" / "derive" / "the-elbo.ipynb", as_version=4)
    first = launch_buttons.first_code_cell(notebook)
    there = (
        "import sumormean.data, vaeloss\nassert sumormean.data.load('digits28').name == 'digits28'"
    )
    notebook.cells = [first, nbformat.v4.new_code_cell(f"{there}\nprint(vaeloss.__file__)")]
    alone = tmp_path / "alone" / "the-elbo.ipynb"
    alone.parent.mkdir()
    nbformat.write(notebook, alone)
    stamping.set_stamp(alone, ADDRESS)
    done = run(
        "nbconvert", *("--to", "notebook", "--execute", "--inplace", alone.name),
        cwd=alone.parent, **launch.git_finds(repository),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    outputs = nbformat.read(alone, as_version=4).cells[1].outputs
    assert outputs[0]["text"].strip() == str(site / "vaeloss" / "__init__.py")
    assert {name.partition("-")[0] for name in installed(site)} == {"sumormean", "vaeloss"}


@posix
def test_where_only_the_extra_is_missing_it_installs_that(bare, packages, tmp_path):
    """The library alone is there, as `pip install` without [book] leaves it."""
    run, site = bare
    repository = launch.clone(tmp_path / "clone")
    folder = repository / "book" / "derive"
    wheels = tmp_path / "wheels"
    pip = ("pip", "install", "-q", "--no-deps", "--no-index")
    assert run(*pip, str(repository), cwd=tmp_path).returncode == 0
    name, version = "threadpoolctl", importlib.metadata.version("threadpoolctl")
    wheels.mkdir()
    with zipfile.ZipFile(wheels / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for entry in packages.glob(f"{name}*"):  # what is installed here, as a wheel again
            for path in [entry, *entry.rglob("*")]:
                if path.is_file() and path.name not in ("INSTALLER", "REQUESTED"):
                    wheel.write(path, path.relative_to(packages))
    without = tmp_path / "without"
    without.mkdir()
    for entry in packages.iterdir():
        if not entry.name.startswith(name):
            (without / entry.name).symlink_to(entry.resolve())
    (site / "packages.pth").write_text(f"{without}\n")
    script = head(sources(NOTEBOOKS[0])[0]) + f"import {name}\nprint({name}.__file__)\n"
    (folder / "cell.ipy").write_text(script)
    done = run("IPython", "cell.ipy", cwd=folder, PIP_FIND_LINKS=str(wheels))
    assert str(site / f"{name}.py") in done.stdout, done.stdout + done.stderr
    assert not any("torch" in entry for entry in installed(site))


# JupyterLab


@posix
def test_make_lab_serves_the_book_and_its_kernel_has_the_library(tmp_path):
    port = launch.free_port()
    options = f"--no-browser --ServerApp.port={port} --IdentityProvider.token={TOKEN}"
    if os.geteuid() == 0:
        options += " --allow-root"
    # The environment the tests run in, taken as set up.
    command = ["make", "-C", str(ROOT), "lab", f"LAB_ARGS={options}", f"VENV={sys.prefix}"]
    command += ["-o", f"{sys.prefix}/.installed"]
    environment = launch.without_this_checkout(JUPYTER_CONFIG_DIR=str(tmp_path))
    with launch.serving(command, port, tmp_path / "log", env=environment) as (address, _):
        assert b"JupyterLab" in launch.ask(f"{address}/lab")
        listing = launch.ask(f"{address}/api/contents/derive/the-symptom.ipynb?content=0")
        assert b"the-symptom.ipynb" in listing
        with launch.session(address, "derive/the-symptom.ipynb") as run:
            code = "import os, vaeloss\nprint(os.environ['KERAS_BACKEND'], os.getcwd())"
            expected = f"torch {ROOT / 'book' / 'derive'}\n"
            assert launch.printed(run(code)) == expected
