"""The published examples, at full length: ``python -m sumormean reproduce NAME``.

A run is checkpointed after every epoch and goes on from there when started again. It ends as one
JSON record in data/runs/: command, config, versions, machine, history, seconds. The settings are
those of ``sumormean.originals.configs``, of seed 0; a run of another seed has a record of its own.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from sumormean.data import load
from sumormean.originals.chainer import ChainerRun
from sumormean.originals.configs import CONFIGS, Config
from sumormean.records import machine, versions, whole_file, write_record
from vaeloss.metrics import live_units, output_spread

# All randomness of an epoch comes from (seed, epoch), so a checkpoint needs weights and optimiser
# only, and an interrupted run ends with the same numbers as one that was not.

# Stands for the data where only the code is in question: the losses of the untrained network on it
# are stored in the record, and a test computes them again.
RAMP = np.linspace(0, 1, 64 * 784, dtype=np.float32).reshape(64, 784)


def new_run(config: Config, loss: str):
    """The untrained model of ``config`` with one of its losses: a ``ChainerRun`` or a ``KerasRun``.

    Raises
    ------
    ImportError
        The setting is one of Keras, which is not installed, or not on torch.
    """
    if config.library == "torch":
        return ChainerRun(config, loss)
    from sumormean.originals.keras import KerasRun

    return KerasRun(config, loss)


def record_name(name: str, seed: int) -> str:
    """What the record of a setting is called: that of seed 0 has the name of the setting alone.

    Examples
    --------
    >>> record_name("keras-now", 0), record_name("keras-now", 2)
    ('keras-now', 'keras-now-seed2')
    """
    return f"{name}-seed{seed}" if seed else name


def command(config: Config) -> str:
    """The line that makes the record of ``config``.

    Examples
    --------
    >>> command(replace(CONFIGS["keras-now"], seed=2, epochs=5))
    'python -m sumormean reproduce keras-now --seed 2 --epochs 5'
    """
    line = f"python -m sumormean reproduce {config.name}"
    original = CONFIGS[config.name]
    for option in ("seed", "epochs"):
        value = getattr(config, option)
        line += f" --{option} {value}" * (value != getattr(original, option))
    return line


def reproduce(config: Config, out: Path, x_train: np.ndarray, x_test: np.ndarray) -> Path:
    """Train every loss of ``config``, or what an interrupted call left to do; write the record.

    Parameters
    ----------
    x_train, x_test : array, shape (N, 28, 28)
        float32 in [0, 1].
    out : Path
        Folder for the record, NAME.json (``record_name``), and, while it runs, the checkpoint
        NAME.partial.pt.

    Returns
    -------
    Path
        Of the record.

    Raises
    ------
    ValueError
        The checkpoint belongs to another config.
    """
    out.mkdir(parents=True, exist_ok=True)
    name = record_name(config.name, config.seed)
    checkpoint = out / f"{name}.partial.pt"
    saved = {"config": json.dumps(asdict(config)), "done": {}, "current": None}
    if checkpoint.exists():
        loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if loaded["config"] != saved["config"]:
            raise ValueError(f"{checkpoint} was made with another config: delete it to start anew")
        saved = loaded
    x = np.concatenate([x_train, x_test]) if config.train_on == "train+test" else x_train
    x, x_test = x.reshape(len(x), -1), x_test.reshape(len(x_test), -1)

    for loss in config.losses:
        if loss in saved["done"]:
            continue
        run = new_run(config, loss)
        fingerprint = run.test(RAMP)
        history, clock = [], {"seconds": 0.0, "cpu_seconds": 0.0}
        if saved["current"] is not None:
            history, clock = saved["current"]["history"], saved["current"]["clock"]
            run.restore(saved["current"]["state"])
        with tqdm(total=config.epochs, initial=len(history), desc=loss, unit="epoch") as bar:
            for epoch in range(len(history), config.epochs):
                started, cpu = time.perf_counter(), time.process_time()
                train = run.epoch(epoch, x)
                clock["seconds"] += time.perf_counter() - started
                clock["cpu_seconds"] += time.process_time() - cpu
                test = {} if config.train_on == "train+test" else run.test(x_test)
                history.append({"epoch": epoch + 1, **train, **_prefixed("test_", test)})
                saved["current"] = {"history": history, "clock": clock, "state": run.state()}
                _save(saved, checkpoint)
                bar.set_postfix(loss=f"{train['loss']:.2f}")
                bar.update()
        mu, x_hat = run.latents(x_test), run.outputs(x_test)
        saved["done"][loss] = {
            "history": {key: [row[key] for row in history] for key in history[0]},
            "fingerprint": fingerprint,
            "live_units": live_units(mu),
            "output_spread": output_spread(x_hat.reshape(x_test.shape), x_test),
            **{name: round(value, 1) for name, value in clock.items()},
        }
        saved["current"] = None
        _save(saved, checkpoint)

    record = {
        "command": command(config),
        "config": asdict(config),
        "images": {"train": len(x), "test": len(x_test)},
        "versions": versions("torch", "keras", "numpy"),
        "machine": machine(),
        "runs": saved["done"],
    }
    path = out / f"{name}.json"
    write_record(path, _rounded(record))
    checkpoint.unlink()
    return path


def _save(saved: dict, checkpoint: Path) -> None:
    with whole_file(checkpoint) as file:
        torch.save(saved, file)


def _prefixed(prefix: str, values: dict) -> dict:
    return {prefix + name: value for name, value in values.items()}


def _rounded(value):
    """Floats to 6 significant digits, for small files that diff well."""
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


# --- the command ---------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``python -m sumormean reproduce``."""
    parser.add_argument("name", choices=sorted(CONFIGS), help="which published setting")
    parser.add_argument("--epochs", type=int, help="stop early (default: as many as the original)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and noise (0)")
    parser.add_argument(
        "--out", type=Path, default=Path("data/runs"), help="folder of the record (data/runs)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status is 0 when done, 2 on bad arguments, 130 if interrupted."""
    config = replace(CONFIGS[args.name], seed=args.seed)
    if args.epochs is not None:
        if not 1 <= args.epochs <= config.epochs:
            print(f"--epochs: choose between 1 and {config.epochs}", file=sys.stderr)
            return 2
        config = replace(config, epochs=args.epochs)
    try:
        if config.library == "keras" and not find_spec("keras"):  # better known before the data
            raise ImportError(f"{config.name} needs Keras: pip install keras")
        data = load(config.data)
        path = reproduce(config, args.out, data.x_train, data.x_test)
    except (ImportError, ValueError) as error:  # DataError is one
        print(f"reproduce: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on after the last whole epoch", file=sys.stderr)
        return 130
    print(f"wrote {path}")
    return 0
