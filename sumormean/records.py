"""Records: how they are written and read, and what one says of how it was made.

A record is one JSON file in data/runs/, made once, with long runs. The chapters read it.
"""

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from sumormean.data import bundled


def load_record(name: str) -> dict:
    """The record data/runs/NAME.json; what lies beside it in NAME.npz is under "arrays".

    Raises
    ------
    DataError
        There is no such record.

    Examples
    --------
    >>> len(load_record("beta")["rows"]), load_record("beta")["arrays"]["samples"].shape
    (63, (63, 10, 28, 28))
    """
    path = bundled(f"runs/{name}.json")
    record = json.loads(path.read_text("utf-8"))
    beside = path.with_suffix(".npz")
    if beside.is_file():
        with np.load(beside, allow_pickle=False) as arrays:
            record["arrays"] = {key: arrays[key] for key in arrays.files}
    return record


def published_logs() -> dict[str, dict]:
    """What keras.io has printed of its VAE example, one log for each version of the page.

    A log says which loss it is of, where it stands, which of its numbers are means over an epoch,
    and which are means of running means.

    Examples
    --------
    >>> {name: len(log["rows"]) for name, log in published_logs().items()}
    {'2020-07': 6, 'cca4efb': 6, '216c5a2': 30, 'keras-3': 30}
    """
    text = bundled("published-logs.json").read_text("utf-8")
    return {log["id"]: log for log in json.loads(text)["logs"]}


def write_record(path: Path, record: dict, arrays: dict[str, np.ndarray] | None = None) -> None:
    """Write what ``load_record`` reads: JSON values, and arrays, if any, to an .npz beside them."""
    if arrays:
        with whole_file(path.with_suffix(".npz")) as file:
            np.savez_compressed(file, **arrays)
    text = json.dumps({key: record[key] for key in record if key != "rows"}, indent=1)
    if "rows" in record:
        # One row per line: readable, and a changed run is a changed line.
        lines = ",\n".join(json.dumps(row) for row in record["rows"])
        text = text.removesuffix("\n}") + f',\n "rows": [\n{lines}\n]}}'
    with whole_file(path) as file:
        file.write(f"{text}\n".encode())


def cost(record: dict) -> str:
    """Hours of one core that a record has cost; of older ones a bound, from what a clock said.

    Examples
    --------
    >>> cost({"runs": {"a": {"cpu_seconds": 1800.0}, "b": {"cpu_seconds": 1800.0}}})
    '1.00'
    >>> cost({"rows": [{"seconds": 900.0}]})
    '≤ 0.25'
    """
    if "cpu_hours" in record:
        return f"{record['cpu_hours']:.2f}"
    if "runs" in record:
        return f"{sum(run['cpu_seconds'] for run in record['runs'].values()) / 3600:.2f}"
    return f"≤ {sum(row['seconds'] for row in record['rows']) / 3600:.2f}"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that appears under its name once it is complete.

    Whoever reads, or goes on after an interruption, sees the whole file, or the one before it.
    """
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "wb") as file:
        yield file
    os.replace(partial, path)


def machine() -> str:
    """The machine in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return (
        f"{os.cpu_count()}-core {platform.machine()} CPU, "
        f"{threads} thread{'s' * (threads > 1)}, Python {platform.python_version()}"
    )


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package; one that is missing is left out.

    Examples
    --------
    >>> list(versions("torch", "no-such-package"))
    ['torch']
    """
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a run that does not need it is recorded all the same
            continue
    return found
