"""Grids of runs as one tidy table: on one machine, or on a Dask cluster by one option.

A run is a function of its settings and a seed that returns numbers. Finished runs are kept in a
folder, one small JSON file each, so that a sweep that was interrupted goes on where it stopped.
"""

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import joblib

# Not used here, but loaded in each worker before its first run: joblib takes a worker that grows by
# 300 MB after that for leaking and replaces it, and torch with CUDA is larger.
import torch  # noqa: F401
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from sumormean.records import whole_file


def grid(**axes: Iterable) -> list[dict]:
    """All combinations of the axes' values, the last axis running fastest.

    Examples
    --------
    >>> grid(beta=[1, 784], latent_dim=[2])
    [{'beta': 1, 'latent_dim': 2}, {'beta': 784, 'latent_dim': 2}]
    """
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def sweep(
    run: Callable[..., dict],
    settings: Iterable[dict],
    seeds: Iterable[int] = (0,),
    *,
    store: str | os.PathLike | None = None,
    jobs: int = 2,
    cluster: str | None = None,
) -> list[dict]:
    """Call ``run(**setting, seed=seed)`` for every setting and seed; one row per run, in order.

    Each run has one thread: processes that share cores and bring several threads each are slower,
    by a lot. Data sets are better loaded inside ``run`` than sent to it.

    Parameters
    ----------
    run : callable
        Returns a dict of results that JSON can hold. It may live in a notebook.
    settings : iterable of dict
        The keyword arguments of each run, e.g. from ``grid``; JSON values.
    store : str or path, optional
        Folder for finished runs. What it holds is not run again, unless it failed; a file appears
        only when its run is complete. Runs are told apart by the name of ``run``, setting and seed:
        use another folder when the code of ``run`` has changed.
    jobs : int
        Processes on this machine; 1 runs in this process.
    cluster : str, optional
        Address of a Dask scheduler, e.g. "tcp://10.0.0.1:8786". Then the runs are done by its
        workers, which need this library, and a run whose worker dies is done by another. Results
        and ``store`` stay on this machine.

    Returns
    -------
    list of dict
        Rows: setting, "seed", the results, "seconds", and "error", which is None, or says why the
        run failed; the results are then missing. ``pandas.DataFrame(rows)`` makes a table of them.

    Raises
    ------
    ValueError
        Two runs are the same; a setting is not a JSON value.
    ImportError
        ``cluster`` is given and dask[distributed] is not installed.

    Examples
    --------
    >>> def area(width, height, seed):
    ...     return {"area": width * height}
    >>> rows = sweep(area, grid(width=[1, 2], height=[3]), jobs=1)
    >>> [(row["width"], row["area"], row["error"]) for row in rows]
    [(1, 3, None), (2, 6, None)]
    """
    arguments = [{**setting, "seed": s} for setting, s in itertools.product(settings, seeds)]
    runs = {_key(run, each): each for each in arguments}
    if len(runs) < len(arguments):
        raise ValueError("two runs of the sweep have the same setting and seed")
    store = Path(store) if store is not None else None
    rows = _finished(store, runs) if store is not None else {}
    missing = [key for key in runs if key not in rows]
    with _workers(cluster), tqdm(total=len(runs), initial=len(rows), unit="run") as bar:
        parallel = joblib.Parallel(
            n_jobs=jobs, batch_size=1, pre_dispatch="all", return_as="generator_unordered"
        )
        for key, row in parallel(joblib.delayed(_one)(run, key, runs[key]) for key in missing):
            rows[key] = row
            if store is not None:
                with whole_file(store / f"{key}.json") as file:
                    file.write(json.dumps(row, default=_plain).encode())
            bar.update()
    return [rows[key] for key in runs]


def _one(run: Callable[..., dict], key: str, arguments: dict) -> tuple[str, dict]:
    start = time.perf_counter()
    results, error = {}, None
    try:
        with threadpool_limits(limits=1):
            results = run(**arguments)
        json.dumps(results, default=_plain)  # found out here, it is one failed run
        if clash := sorted(set(results) & {*arguments, "seconds", "error"}):
            raise ValueError(f"results and settings share the names {clash}")
    except Exception as exception:
        results, error = {}, f"{type(exception).__name__}: {exception}"
    seconds = round(time.perf_counter() - start, 3)
    return key, {**arguments, **results, "seconds": seconds, "error": error}


@contextlib.contextmanager
def _workers(cluster: str | None):
    if cluster is None:
        with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
            yield
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("a cluster needs Dask: pip install 'dask[distributed]'") from error
    with Client(cluster) as client, joblib.parallel_config(backend="dask", client=client):
        client.wait_for_workers(1, timeout=60)  # with none, joblib would run everything here
        yield


def _key(run: Callable, arguments: dict) -> str:
    name = f"{run.__module__}.{run.__qualname__}"
    try:
        text = json.dumps([name, arguments], sort_keys=True, default=_plain)
    except TypeError as error:
        raise ValueError(f"settings must be JSON values (numbers, text, lists): {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _finished(store: Path, runs: dict[str, dict]) -> dict[str, dict]:
    store.mkdir(parents=True, exist_ok=True)
    paths = {key: store / f"{key}.json" for key in runs}
    rows = {key: json.loads(p.read_text("utf-8")) for key, p in paths.items() if p.exists()}
    return {key: row for key, row in rows.items() if row["error"] is None}


def _plain(value):
    """NumPy and torch values as what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a JSON value")
