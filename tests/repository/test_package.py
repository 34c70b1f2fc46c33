"""The wheel and the sdist, used from an empty folder, and the library with what it needs alone."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
import site_check
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = site_check.ROOT
pytest.importorskip("hatchling", reason="builds the packages")
pytestmark = [
    pytest.mark.launch,
    pytest.mark.skipif(os.name == "nt", reason="needs symbolic links"),
]


def built(source: Path, folder: Path, target: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


def files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_both_packages_and_their_data(wheel):
    names = set(files(wheel))
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {
        "vaeloss",
        "sumormean",
    }
    folders = (ROOT / "vaeloss", ROOT / "sumormean")
    here = {p.relative_to(ROOT).as_posix() for folder in folders for p in folder.rglob("*.py")}
    assert here | {"vaeloss/py.typed", "sumormean/_data/digits28.npz"} <= names
    assert {"sumormean/_data/runs/beta.json", "sumormean/_data/oracles/chainer.npz"} <= names
    [scripts] = [text for name, text in files(wheel).items() if name.endswith("entry_points.txt")]
    assert b"vaeloss = vaeloss.cli:main" in scripts


def test_the_sdist_makes_the_same_wheel(wheel, tmp_path):
    sdist = built(ROOT, tmp_path / "sdist", "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    [source] = (tmp_path / "source").iterdir()
    assert files(built(source, tmp_path / "again", "wheel")) == files(wheel)


def closure(names: list[str]) -> set[str]:
    """These distributions and all that they need here."""
    found, todo = set(), [canonicalize_name(name) for name in names]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            for needed in map(Requirement, distribution(name).requires or []):
                if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                    todo.append(canonicalize_name(needed.name))
    return found


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """A function that runs Python where only torch, NumPy, SciPy and the wheel are installed."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", symlinks=True, with_pip=False)
    [site] = (folder / "venv" / "lib").glob("python*/site-packages")
    for name in closure(["torch", "numpy", "scipy"]):
        package = distribution(name)
        for top in {path.parts[0] for path in package.files or [] if path.parts[0] != ".."}:
            source = Path(package.locate_file(top))
            if source.exists() and not (site / top).exists() and top != "__pycache__":
                (site / top).symlink_to(source)
    python = folder / "venv" / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    command += ["--no-index", "--no-deps", "--disable-pip-version-check", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    empty = tmp_path_factory.mktemp("empty")

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess:
        hidden = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
        environment = {k: v for k, v in os.environ.items() if k not in hidden}
        command = [python.with_name(program), *arguments]
        return subprocess.run(
            command, cwd=empty, env=environment, capture_output=True, text=True, encoding="utf-8"
        )

    return run


def test_nothing_else_is_there(bare):
    missing = "matplotlib pooch requests tqdm joblib dask keras threadpoolctl PIL pytest pip"
    code = f"import importlib.util as i; print([m for m in {missing.split()} if i.find_spec(m)])"
    assert bare("python", "-c", code).stdout == "[]\n"


def test_importing_the_library_imports_nothing_heavy(bare):
    code = "import sys, vaeloss; print(sorted({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    done = bare("python", "-c", code)
    assert done.stdout == "[]\n", done.stderr


def test_every_public_name_is_there(bare):
    code = """
import vaeloss
from vaeloss import *
assert set(vaeloss.__all__) <= set(dir(vaeloss))
for name in vaeloss.__all__:
    assert getattr(vaeloss, name).__module__.startswith("vaeloss"), name
print(vaeloss.__version__)
try:
    vaeloss.audit_los
except AttributeError as error:
    print(error)
"""
    done = bare("python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "module 'vaeloss' has no attribute 'audit_los'"


def test_every_example_in_its_docstrings_runs(bare):
    code = """
import doctest, importlib, pkgutil, vaeloss
failed = tried = 0
for module in pkgutil.walk_packages(vaeloss.__path__, "vaeloss."):
    if not module.name.endswith("__main__"):
        result = doctest.testmod(
            importlib.import_module(module.name), optionflags=doctest.ELLIPSIS
        )
        failed, tried = failed + result.failed, tried + result.attempted
print(failed, tried > 20, tried)
"""
    done = bare("python", "-c", code)
    assert done.stdout.startswith("0 True "), done.stdout + done.stderr


@pytest.mark.parametrize("command", [["vaeloss"], ["python", "-m", "vaeloss"]], ids=" ".join)
def test_the_command_line(bare, command):
    save = "import numpy; numpy.save('x.npy', [[0.0, 1.0], [1.0, 0.0]])"
    assert bare("python", "-c", save).returncode == 0
    done = bare(*command, "threshold", "x.npy", "--loss-beta", "784")
    assert done.returncode == 0 and "β* = 2" in done.stdout, done.stderr
    assert "audit" in bare(*command, "--help").stdout


def test_the_workbench_names_what_it_lacks(bare):
    done = bare("python", "-c", "import sumormean.plots")
    assert done.returncode == 1 and "No module named 'matplotlib'" in done.stderr
