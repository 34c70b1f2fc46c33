"""``python -m sumormean ablate NAME``: run one of the book's larger sweeps and write its record.

The record is one JSON file in data/runs/, which the chapters read; started again after an
interruption, the command goes on where it stopped.
"""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np

from sumormean.data import DataError
from sumormean.experiments import (
    beta,
    calibrated,
    calibration,
    calibration_deep,
    colour,
    molecules,
    rebalancing,
    scale,
    second_stage,
    threshold,
    vq,
)
from sumormean.records import machine, versions, write_record
from sumormean.sweep import sweep

EXPERIMENTS = {
    "beta": beta,
    "calibrated": calibrated,
    "calibration": calibration,
    "calibration-deep": calibration_deep,
    "colour": colour,
    "molecules": molecules,
    "rebalancing": rebalancing,
    "scale": scale,
    "second-stage": second_stage,
    "threshold": threshold,
    "vq": vq,
}


def record(name: str, out: Path, jobs: int = 2, cluster: str | None = None) -> Path:
    """Run a sweep, or what is left of it, and write its record; returns the record's path.

    Raises
    ------
    RuntimeError
        A run failed. The others are kept, and the next call tries it again.
    """
    partial = out / f"{name}.partial"
    experiment = EXPERIMENTS[name]
    rows = sweep(
        experiment.run,
        experiment.settings(),
        experiment.SEEDS,
        store=partial,
        jobs=jobs,
        cluster=cluster,
    )
    errors = [row["error"] for row in rows if row["error"] is not None]
    if errors:
        raise RuntimeError(f"{len(errors)} of {len(rows)} runs failed, the first with {errors[0]}")
    arrays = {
        key: np.array([row.pop(key) for row in rows], dtype)
        for key, dtype in experiment.ARRAYS.items()
    }
    made = {
        "command": f"python -m sumormean ablate {name}",
        "versions": versions("torch", "numpy"),
        "machine": machine(),
        "cpu_hours": round(sum(row.get("cpu_seconds", 0) for row in rows) / 3600, 2),
        "rows": rows,
    }
    path = out / f"{name}.json"
    write_record(path, made, arrays)
    shutil.rmtree(partial)
    return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``python -m sumormean ablate``."""
    parser.add_argument("name", choices=EXPERIMENTS, help="which sweep")
    parser.add_argument("--jobs", type=int, default=2, help="processes on this machine (2)")
    parser.add_argument("--cluster", metavar="ADDRESS", help="address of a Dask scheduler")
    parser.add_argument("--out", type=Path, default=Path("data/runs"), help="folder of the record")


def run(args: argparse.Namespace) -> int:
    """Run a sweep and write its record; 1 if runs failed, 2 if it cannot start."""
    try:
        print(f"wrote {record(args.name, args.out, args.jobs, args.cluster)}")
    except (DataError, ImportError) as error:
        print(f"ablate: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"ablate: {error}; the same command tries these again", file=sys.stderr)
        return 1
    return 0
