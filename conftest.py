"""What holds for every test: quiet, one thread, Keras on PyTorch; of notebooks, all but stderr.

And what every notebook cost in this run, in `_build/run-times.json`: `make times` brings it to the
page "Run times".
"""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import tempfile
from pathlib import Path

import pytest

# Set before any kernel or library starts, so that a plain `pytest` is the same as `make test`.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    TQDM_DISABLE="1",
    KERAS_BACKEND="torch",
)


# Every notebook runs as on a machine with a GPU: who asks is told that there is one. On a build for
# the CPU whoever then uses it, and mixes its tensors with those of the CPU, fails.
STARTUP = """
import torch
torch.cuda.is_available = lambda: True
"""


def pytest_configure(config):
    # A profile of IPython's own: neither the user's start-up files nor their history.
    if not hasattr(config, "workerinput"):
        profile = tempfile.TemporaryDirectory(prefix="ipython")
        config.add_cleanup(profile.cleanup)
        startup = Path(profile.name) / "profile_default" / "startup"
        startup.mkdir(parents=True)
        (startup / "a_gpu_that_refuses.py").write_text(STARTUP, encoding="utf-8")
        os.environ["IPYTHONDIR"] = profile.name  # which workers and kernels inherit


def pytest_collection_modifyitems(items):
    """Rings: `make check` leaves out what is slow, a notebook, a page or an installation."""
    for item in items:
        path = item.path.relative_to(ROOT)
        if path.suffix == ".ipynb":
            item.add_marker("notebook")
        elif path.parts[:2] == ("tests", "site"):
            item.add_marker("site")


def pytest_collectstart(collector):
    # Warnings of libraries differ between versions; all other text of a notebook is compared.
    if hasattr(collector, "skip_compare"):
        collector.skip_compare = (*collector.skip_compare, "stderr")


# Run times. Workers send what they measured with their reports, so it is one file whatever their
# number. Nothing here may make a test fail.

ROOT = Path(__file__).resolve().parent
VERSIONS = ("torch", "keras", "numpy", "scipy", "matplotlib", "ipykernel", "nbval")
COST = "notebook, peak memory of its kernel"
costs: dict[str, list[tuple[float, float | None, bool]]] = {}  # notebook -> cells


def peak_megabytes(kernel) -> float | None:
    """The most memory a kernel's process has held, in MB; None where Linux does not say."""
    try:
        status = Path(f"/proc/{kernel.km.provisioner.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6
    except Exception:  # no such file or line, a kernel of another kind, or one that has died
        return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        return (yield)
    finally:
        kernel = getattr(item.parent, "kernel", None)
        if kernel is not None:
            item.user_properties.append((COST, peak_megabytes(kernel)))


def pytest_runtest_logreport(report):
    for name, peak in report.user_properties:
        if name == COST and report.when == "call":
            cell = (report.duration, peak, report.passed)
            costs.setdefault(report.nodeid.partition("::")[0], []).append(cell)


def complete(notebook: str, cells: list[tuple[float, float | None, bool]]) -> bool:
    """Whether every code cell was run, and passed."""
    source = json.loads((ROOT / notebook).read_text(encoding="utf-8"))["cells"]
    code = sum(cell["cell_type"] == "code" for cell in source)
    return len(cells) == code and all(passed for _, _, passed in cells)


def machine() -> str:
    """The machine in words: system, processor, cores."""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        processor = re.search(r"model name\s*: (.*)", info)[1]
    except (OSError, TypeError):
        processor = platform.processor() or platform.machine()
    return f"{platform.system()}, {processor}, {os.cpu_count()} cores"


def pytest_sessionfinish(session):
    if hasattr(session.config, "workerinput") or not costs:
        return
    rows = {}
    for notebook, cells in sorted(costs.items()):
        if complete(notebook, cells):
            peaks = [peak for _, peak, _ in cells if peak is not None]
            seconds = round(sum(seconds for seconds, _, _ in cells), 1)
            rows[notebook] = {"seconds": seconds, "megabytes": round(max(peaks)) if peaks else None}
    measured = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "processes": getattr(session.config.option, "numprocesses", None) or 1,
        "data": "files" if os.environ.get("VAELOSS_DATA") else "cache, download or bundled set",
        "versions": {
            "Python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in VERSIONS},
        },
        "notebooks": rows,
    }
    path = ROOT / "_build" / "run-times.json"
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        print(f"run times were not written: {error}")
