"""`make repeat`: are the notebooks' outputs the same each time? Some 25 minutes on two cores.

Every notebook is executed three times: twice with one thread, by a pool of two processes that each
take one notebook after another, in random order and from other global seeds; then with two threads.

- The text of every cell must be the same in the first two runs, measured numbers included; only
  times may differ.
- The claims must hold with two threads too, where sums are rounded otherwise.
- No file may appear in the repository, the home folder or the folder for temporary files, but in
  the caches of the libraries.

Exit status 1 if not.

    python tools/repeat.py [seed of the orders]
"""

import os
import random
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import running

# A number with a unit of time, or in a table's row or column of times.
TIMES = re.compile(r"\d+(\.\d+)?(?= ?(s|ms|seconds?|CPU seconds?)\b)")
CACHES = (".cache/", ".keras/", ".ipython/", ".config/matplotlib/")


def one_run(notebook: str, seed: int) -> list[running.Cell]:
    """Execute a notebook after global generators were seeded, which must not matter to it."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return running.run_notebook(notebook, {}, lambda tree: tree)


def run_all(order: random.Random, threads: int, workers: int) -> dict[str, list[running.Cell]]:
    notebooks = order.sample(running.NOTEBOOKS, len(running.NOTEBOOKS))
    # Read once by each process, by torch's libraries and by NumPy's and SciPy's.
    os.environ |= dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)
    )
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        runs = {n: pool.submit(one_run, n, order.getrandbits(32)) for n in notebooks}
        return {notebook: run.result() for notebook, run in runs.items()}


def errors(cells: list[running.Cell]) -> list[str]:
    return [f"cell {cell.id}: {cell.error}" for cell in cells if cell.error]


def differences(first: list[running.Cell], second: list[running.Cell]) -> list[str]:
    """The lines that differ, times aside."""
    found = []
    for a, b in zip(first, second, strict=True):
        lines = zip(a.text.splitlines(), b.text.splitlines(), strict=False)
        for one, two in lines:
            if TIMES.sub("…", one) != TIMES.sub("…", two):
                found.append(f"cell {a.id}:\n    {one}\n    {two}")
        if len(a.text.splitlines()) != len(b.text.splitlines()):
            found.append(f"cell {a.id}: {len(a.text)} and {len(b.text)} characters")
    return found


def files_in_repository() -> set[str]:
    listing = subprocess.run(
        ["git", "status", "--porcelain", "--ignored", "--untracked-files=all"],
        cwd=running.ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return set(listing.splitlines())


def main(seed: int) -> int:
    print(f"orders and global seeds from {seed}")
    order = random.Random(seed)
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        home, temporary = Path(folder, "home"), Path(folder, "tmp")
        home.mkdir()
        temporary.mkdir()
        os.environ |= {
            "HOME": str(home), "USERPROFILE": str(home), "TMPDIR": str(temporary),
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        for name in (
            "XDG_CACHE_HOME",
            "XDG_CONFIG_HOME",
            "IPYTHONDIR",
            "KERAS_HOME",
            "MPLCONFIGDIR",
        ):
            os.environ.pop(name, None)
        before = files_in_repository()
        first = run_all(order, threads=1, workers=2)
        second = run_all(order, threads=1, workers=2)
        threaded = run_all(order, threads=2, workers=1)
        cells = 0
        for notebook in running.NOTEBOOKS:
            problems = {
                "fails": errors(first[notebook]) + errors(second[notebook]),
                "differs": differences(first[notebook], second[notebook]),
                "fails with two threads": errors(threaded[notebook]),
            }
            cells += len(first[notebook])
            for what, lines in problems.items():
                faults += len(lines)
                for line in lines:
                    print(f"{notebook} {what}: {line}")
        files = [p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file()]
        left = [file for file in files if not file.startswith(CACHES)]
        left += [p.relative_to(folder).as_posix() for p in temporary.rglob("*") if p.is_file()]
        left += sorted(files_in_repository() - before)
    faults += len(left)
    for file in left:
        print(f"left behind: {file}")
    print(f"{len(running.NOTEBOOKS)} notebooks, {cells} cells, {faults} faults")
    return faults > 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else random.SystemRandom().getrandbits(32)))
