"""Sweeps: resume, failures, threads, and a Dask cluster that loses a worker."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor

from sumormean.sweep import grid, sweep

ROOT = Path(__file__).parents[2]


def without_seconds(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def make_run(log):
    """A run that says so in a file. A closure travels to other processes by value."""

    def run(beta, latent_dim, seed):
        with open(log, "a") as file:
            file.write(f"{beta}\n")
        if beta < 0:
            raise ValueError("beta is negative")
        noise = np.random.default_rng(seed).normal()
        return {"kl": np.float64(latent_dim / beta), "noise": noise, "curve": np.ones(2)}

    return run


def count(log):
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_row_per_run_in_order(tmp_path, jobs):
    rows = sweep(
        make_run(tmp_path / "log"), grid(beta=[4, 1], latent_dim=[2, 8]), [0, 7], jobs=jobs
    )
    assert [(r["beta"], r["latent_dim"], r["seed"]) for r in rows] == [
        (b, m, s) for b in [4, 1] for m in [2, 8] for s in [0, 7]
    ]
    assert rows[2]["kl"] == 2.0 and rows[0]["noise"] != rows[1]["noise"]
    assert all(r["error"] is None and r["seconds"] >= 0 for r in rows)


def test_finished_runs_are_never_repeated_and_rows_survive_the_store(tmp_path):
    log, store = tmp_path / "log", tmp_path / "store"
    run = make_run(log)
    first = sweep(run, grid(beta=[1, 2], latent_dim=[2]), store=store, jobs=1)
    assert count(log) == 2
    more = sweep(run, grid(beta=[1, 2, 3], latent_dim=[2]), store=store, jobs=1)
    assert count(log) == 3
    assert [(r["beta"], r["kl"]) for r in more] == [(1, 2.0), (2, 1.0), (3, 2 / 3)]
    assert more[0]["noise"] == first[0]["noise"] and more[0]["seconds"] == first[0]["seconds"]
    assert sorted(p.suffix for p in store.iterdir()) == [".json"] * 3


def test_a_failure_is_recorded_stops_nothing_and_is_tried_again(tmp_path):
    log, store = tmp_path / "log", tmp_path / "store"
    run = make_run(log)
    settings = grid(beta=[-1, 5], latent_dim=[2])
    rows = sweep(run, settings, store=store, jobs=1)
    assert rows[0]["error"] == "ValueError: beta is negative" and "kl" not in rows[0]
    assert rows[1]["error"] is None and rows[1]["kl"] == 0.4
    sweep(run, settings, store=store, jobs=1)
    assert count(log) == 3  # the failed one once more, the good one not


def test_results_that_cannot_be_kept_are_failures_of_their_run():
    rows = sweep(lambda beta, seed: {"beta": 1}, grid(beta=[3]), jobs=1)
    assert "share the names ['beta']" in rows[0]["error"] and rows[0]["beta"] == 3
    rows = sweep(lambda beta, seed: {"model": object()}, grid(beta=[3]), jobs=1)
    assert "object is not a JSON value" in rows[0]["error"]


def test_unusable_settings_are_refused_in_words():
    run = make_run("unused")
    with pytest.raises(ValueError, match="same setting and seed"):
        sweep(run, grid(beta=[1, 1], latent_dim=[2]), jobs=1)
    with pytest.raises(ValueError, match="JSON values"):
        sweep(run, [{"beta": object()}], jobs=1)


def test_a_worker_has_torch_before_its_first_run():
    get_reusable_executor().shutdown()  # no workers of other tests
    rows = sweep(lambda i, seed: {"there": "torch" in sys.modules}, grid(i=[0, 1]), jobs=2)
    assert [r["there"] for r in rows] == [True, True]


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_run_has_one_thread_and_the_caller_keeps_its_own(jobs):
    def threads(i, seed):
        import torch

        return {"threads": torch.get_num_threads()}

    before = torch.get_num_threads()
    rows = sweep(threads, grid(i=[0, 1, 2]), jobs=jobs)
    assert [r["threads"] for r in rows] == [1, 1, 1]
    assert torch.get_num_threads() == before


KILLED = """
import sys, time
from sumormean.sweep import grid, sweep

def run(i, seed):
    time.sleep(0.2)
    return {"text": "x" * 1_000_000}

sweep(run, grid(i=range(50)), store=sys.argv[1], jobs=1)
"""


def test_a_killed_sweep_leaves_only_whole_files_and_resumes(tmp_path):
    store = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(store)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"},
    )
    try:
        wait_for(lambda: len(list(store.glob("*.json"))) >= 3)
    finally:
        process.kill()
        process.wait()
    files = list(store.glob("*.json"))
    assert 3 <= len(files) < 50
    assert all(len(json.loads(f.read_text())["text"]) == 1_000_000 for f in files)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


@pytest.fixture
def cluster(tmp_path):
    """A real scheduler and two real worker processes on loopback: (address, worker processes)."""
    pytest.importorskip("distributed")
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "60s",
    }
    address_file = tmp_path / "scheduler.json"
    processes = []

    def start(*arguments):
        command = [sys.executable, "-m", "dask", *arguments]
        with open(tmp_path / f"{len(processes)}.log", "w") as log:
            processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
        return processes[-1]

    try:
        start(
            *("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
            *("--scheduler-file", str(address_file)),
        )
        wait_for(address_file.exists)
        address = json.loads(address_file.read_text())["address"]
        workers = [
            start(
                *("worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny"),
                *("--no-dashboard", "--local-directory", str(tmp_path / f"worker-{i}")),
            )
            for i in range(2)
        ]
        from distributed import Client

        with Client(address) as client:  # a sweep begun before would not see both
            client.wait_for_workers(2, timeout=60)
        yield address, workers
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


@pytest.mark.filterwarnings("ignore")  # the client's, while its cluster is being killed
def test_a_cluster_that_loses_a_worker_gives_the_same_table(cluster, tmp_path):
    address, workers = cluster
    pids = tmp_path / "pids"
    pids.mkdir()
    killed = tmp_path / "killed"

    def run(beta, seed):
        import os
        import signal
        import time

        import numpy as np

        time.sleep(0.3)
        (pids / f"{os.getpid()}-{beta}").touch()
        # Mid-sweep and in the middle of a run: the first worker to reach its third kills itself.
        if len(list(pids.glob(f"{os.getpid()}-*"))) == 3 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"kl": 1 / beta, "noise": np.random.default_rng(seed).normal()}

    settings = grid(beta=list(range(1, 11)))
    rows = sweep(run, settings, [0, 1], store=tmp_path / "store", cluster=address)
    wait_for(lambda: any(w.poll() is not None for w in workers))
    assert sorted(w.poll() or 0 for w in workers) == [-signal.SIGKILL, 0]  # one dead, one alive
    by = {int(p.name.split("-")[0]) for p in pids.iterdir()}
    assert by == {w.pid for w in workers}  # both had worked
    local = sweep(run, settings, [0, 1], jobs=1)
    assert without_seconds(rows) == without_seconds(local)
    assert len(list((tmp_path / "store").glob("*.json"))) == 20
