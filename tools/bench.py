"""`make bench`: what the book promises of speed, measured; the table goes to data/bench.json.

Run it on a machine that has nothing else to do. Ratios are medians of pairs measured in turn, so
that a drifting clock rate hits both sides. Exit status 1 if a target was missed.
"""

import functools
import http.server
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "keras", "numpy", "scipy", "joblib")


def row(what: str, value: float, unit: str, target: str | None = None) -> dict:
    """One line of the table; `target` is a bound such as "≤ 2" or "≥ 1.7".

    >>> row("one eigenvalue", 3.14159, "s", "≤ 2")["missed"]
    True
    """
    found = {"what": what, "value": float(f"{value:.3g}"), "unit": unit}
    if target is not None:
        sense, bound = target.split()
        met = {"≤": value <= float(bound), "≥": value >= float(bound)}[sense]
        found |= {"target": target, "missed": not met}
    return found


def seconds(call: Callable) -> float:
    """Wall-clock seconds of `call()`."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_a_process(code: str) -> dict:
    """Run a program of its own and return the numbers that it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return json.loads(done.stdout)


# --- the threshold -------------------------------------------------------------------------------

IN_MEMORY = """
import json, time
import numpy as np, torch
from vaeloss.collapse import collapse_threshold

torch.set_num_threads(2)
x = np.random.default_rng(0).random((60_000, 784), dtype=np.float32)
start = time.perf_counter()
collapse_threshold(x)
print(json.dumps({"seconds": time.perf_counter() - start}))
"""

MEMORY_MAP = """
import json, resource, sys, tempfile, time
from pathlib import Path
import numpy as np
from vaeloss.collapse import collapse_threshold

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "x.npy"
    x = np.lib.format.open_memmap(path, "w+", np.float32, (20_000, 64 * 64 * 3))
    rng = np.random.default_rng(0)
    # Some structure over noise: a spectrum that falls, as that of images does.
    parts = rng.random((8, x.shape[1]), dtype=np.float32)
    for rows in range(0, len(x), 500):
        mixed = rng.dirichlet(np.full(8, 0.3), 500).astype(np.float32) @ parts
        x[rows : rows + 500] = 0.8 * mixed + 0.2 * rng.random(mixed.shape, dtype=np.float32)
    x.flush()
    del x
    x = np.load(path, mmap_mode="r")
    start = time.perf_counter()
    collapse_threshold(x)
    seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, else kilobytes
gb = peak * (1 if sys.platform == "darwin" else 1024) / 1e9
print(json.dumps({"seconds": seconds, "GB": gb}))
"""


TOKENS = """
import json, time
import numpy as np, torch
from vaeloss.collapse import collapse_threshold

torch.set_num_threads(2)
x = np.random.default_rng(0).integers(0, 29, (20_000, 40))
start = time.perf_counter()
collapse_threshold(x, "categorical(29)")
print(json.dumps({"seconds": time.perf_counter() - start}))
"""

GLOBAL = """
import json, time
import numpy as np, torch
from sumormean.data import load
from vaeloss.collapse import optimal_collapse_threshold

torch.set_num_threads(2)
x = load("mnist", fallback="digits28").x_train
x = x if len(x) == 60_000 else np.tile(x, (42, 1, 1))[:60_000]
start = time.perf_counter()
optimal_collapse_threshold(x, "gaussian")
print(json.dumps({"seconds": time.perf_counter() - start}))
"""


def threshold_rows() -> Iterator[dict]:
    best = statistics.median(in_a_process(IN_MEMORY)["seconds"] for _ in range(3))
    yield row("β* of 60,000 × 784 pixels, two threads", best, "s", "≤ 0.7")
    found = in_a_process(MEMORY_MAP)
    what = "β* of 20,000 × 12,288 pixels from a memory map"
    yield row(what, found["seconds"], "s", "≤ 5")
    yield row(f"{what}, peak memory of the process", found["GB"], "GB", "≤ 2")
    best = statistics.median(in_a_process(TOKENS)["seconds"] for _ in range(3))
    yield row("β* of 20,000 strings of 40 tokens, 29 symbols", best, "s", "≤ 10")
    found = in_a_process(GLOBAL)
    yield row("bounds of the global threshold of 60,000 images", found["seconds"], "s", "≤ 60")


# --- the auditor ---------------------------------------------------------------------------------

AUDIT = """
import json, time
import torch.nn.functional as F
from vaeloss.audit import audit_loss

def loss_fn(x, x_hat, mu, log_var):
    kl = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1)
    return F.binary_cross_entropy(x_hat, x) + kl.mean()

start = time.perf_counter()
audit_loss(loss_fn, data_shape=(784,), latent_dim=20)
print(json.dumps({"seconds": time.perf_counter() - start}))
"""


def audit_rows() -> Iterator[dict]:
    best = statistics.median(in_a_process(AUDIT)["seconds"] for _ in range(3))
    yield row("c and β of a loss on 784 pixels", best, "s", "≤ 1")


# --- sweeps --------------------------------------------------------------------------------------


def one_run(beta: float, seed: int) -> dict:
    """One cell of a sweep, some seconds long: a 784-512-2 network on random pixels."""
    import numpy as np

    from sumormean.models import mlp_vae
    from sumormean.training import fit
    from vaeloss.likelihoods import bernoulli_nll, kl_standard_normal

    def loss_fn(x, logits, mu, log_var):
        return bernoulli_nll(x, logits) + beta * kl_standard_normal(mu, log_var)

    x = np.random.default_rng(seed).random((10_000, 28, 28), dtype=np.float32)
    return {"loss": fit(mlp_vae(seed=seed), x, loss_fn, steps=700, seed=seed).loss[-1]}


def sweep_rows() -> Iterator[dict]:
    from sumormean.sweep import grid, sweep

    settings = grid(beta=[1.0, 4.0, 16.0, 64.0])
    sweep(one_run, settings[:2], jobs=2)  # the workers start once, not in each measurement
    ratios = []
    for _ in range(3):
        one = seconds(lambda: sweep(one_run, settings, jobs=1))
        two = seconds(lambda: sweep(one_run, settings, jobs=2))
        ratios.append(one / two)
    what = "a sweep of four runs: one process against two, on two free cores"
    yield row(what, statistics.median(ratios), "×", "≥ 1.7")


# --- training ------------------------------------------------------------------------------------

TRAINING = """
import json, sys

import torch

sys.path.insert(0, "tools")
import bench_loops

torch.set_num_threads(1)
print(json.dumps(bench_loops.ratios()))
"""


def training_rows() -> Iterator[dict]:
    found = in_a_process(TRAINING)
    yield row("our training loop, one step", found["ours"] * 1e3, "ms")
    what = "our training loop against "
    yield row(what + "its matrix products alone", found["ours / products"], "×", "≤ 1.6")
    yield row("Keras `fit` against our training loop", found["keras / ours"], "×", "≥ 2.5")
    what = "a DataLoader with per-item transforms against our training loop"
    yield row(what, found["loader / ours"], "×", "≥ 2.5")


# --- what a reader and a developer wait for ------------------------------------------------------

IMPORT = """
import json, time

{before}
start = time.perf_counter()
import {modules}
print(json.dumps({{"seconds": time.perf_counter() - start}}))
"""
MODULES = "vaeloss.audit, vaeloss.collapse, sumormean.data, vaeloss.metrics, sumormean.training"


def import_rows() -> Iterator[dict]:
    def median(before: str, modules: str) -> float:
        code = IMPORT.format(before=before, modules=modules)
        return statistics.median(in_a_process(code)["seconds"] for _ in range(5))

    yield row("`import vaeloss`", median("", "vaeloss"), "s", "≤ 0.3")
    others = "import torch, scipy.optimize, scipy.sparse.linalg, scipy.special, pooch, tqdm"
    ours = median(others, MODULES)
    yield row("our modules, once torch and SciPy are loaded", ours, "s", "≤ 0.3")


def make(target: str) -> None:
    """`make target`; what it prints only where it fails."""
    done = subprocess.run(["make", target], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"make {target} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")


def page_seconds(folder: Path) -> float:
    """From the request for the first page to its load event, in a browser with nothing cached."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = handler.func.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    took = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for _ in range(6):
            page = browser.new_context().new_page()
            address = f"http://127.0.0.1:{server.server_port}/book/index.html"
            took.append(seconds(functools.partial(page.goto, address, wait_until="load")))
            page.get_by_role("heading", level=1).wait_for()
            page.context.close()
        browser.close()
    server.shutdown()
    return statistics.median(took[1:])  # the first starts the browser's own processes


def site_rows() -> Iterator[dict]:
    yield row("`make book`", seconds(functools.partial(make, "book")), "s", "≤ 60")
    what = "the first page from this machine, until it is loaded"
    yield row(what, page_seconds(ROOT / "_build" / "html"), "s", "≤ 1")
    yield row("`make check`", seconds(functools.partial(make, "check")), "s", "≤ 90")
    minutes = seconds(functools.partial(make, "test")) / 60
    yield row("`make test`", minutes, "min", "≤ 10")


def main() -> int:
    from sumormean.records import machine, versions

    rows = []
    table = {
        "command": "make bench",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "rows": rows,
    }
    for measure in (import_rows, training_rows, threshold_rows, audit_rows, sweep_rows, site_rows):
        for found in measure():
            rows.append(found)
            verdict = "MISSED" if found.get("missed") else ""
            print(
                "{what:75}{value:>9.3g} {unit:3}".format(**found), found.get("target", ""), verdict
            )
        # After each group: should a later one fail, what was measured is kept.
        text = json.dumps(table, indent=1, ensure_ascii=False) + "\n"
        (ROOT / "data" / "bench.json").write_text(text, encoding="utf-8")
    return any(found.get("missed", False) for found in rows)


if __name__ == "__main__":
    sys.exit(main())
