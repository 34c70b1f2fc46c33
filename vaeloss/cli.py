"""What a loss weighs, and whether it will collapse: the library without a notebook."""

import argparse
import importlib
import math
import os
import sys
from collections.abc import Callable
from typing import NamedTuple


class Command(NamedTuple):
    """A subcommand: one line of help, its arguments, and what it does (-> exit status)."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def dispatch(
    prog: str, description: str, commands: dict[str, Command], argv: list[str] | None
) -> int:
    """Run one of the commands and return its exit status.

    Only the chosen command adds its arguments, and may import what they need for it: so the help
    is instant.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    chosen = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in commands.items():
        chosen.add_parser(name, help=command.summary, add_help=False)
    known, rest = parser.parse_known_args(argv)
    command = commands[known.command]
    parser = argparse.ArgumentParser(prog=f"{prog} {known.command}", description=command.summary)
    command.add_arguments(parser)
    return command.run(parser.parse_args(rest))


# --- vaeloss audit -------------------------------------------------------------------------------


def audit_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``vaeloss audit``."""
    parser.add_argument(
        "loss", metavar="module:function", help="a function of (x, x_hat, mu, log_var)"
    )
    parser.add_argument(
        "--data-shape", required=True, metavar="28,28", help="shape of one image, e.g. 784 or 28,28"
    )
    parser.add_argument("--latent", type=int, required=True, metavar="M", help="number of latents")
    parser.add_argument("--batch-size", type=int, default=64, metavar="B", help="default: 64")
    parser.add_argument("--likelihood", help="gaussian, bernoulli-logits …; default: recognise it")


def audit(args: argparse.Namespace) -> int:
    """Print the audit; 0 if it found β, 1 if the loss has no constant β or cannot be probed."""
    from vaeloss.audit import audit_loss

    try:
        found = audit_loss(
            _imported(args.loss),
            data_shape=_shape(args.data_shape),
            latent_dim=args.latent,
            batch_size=args.batch_size,
            likelihood=args.likelihood,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(found)
    return 0 if math.isfinite(found.beta) else 1


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in text.split(","))
    except ValueError:
        raise ValueError(f"--data-shape {text}: write whole numbers, e.g. 784 or 28,28") from None


def _imported(name: str) -> Callable:
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise ValueError(f"{name!r}: write module:function, e.g. train:vae_loss")
    sys.path.insert(0, os.getcwd())  # where `python -m` looks, but an installed script does not
    os.environ.setdefault("KERAS_BACKEND", "torch")  # a Keras loss will be given torch tensors
    os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")  # on the CPU
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise ValueError(f"{module_name} needs {error.name!r}, which is missing") from error
        raise ValueError(f"{error}: run this in the folder of {module_name}.py") from error
    try:
        return getattr(module, function_name)
    except AttributeError as error:
        raise ValueError(f"{module_name} has no function {function_name!r}") from error


# --- vaeloss threshold ---------------------------------------------------------------------------


def threshold_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``vaeloss threshold``."""
    from vaeloss import commands_threshold

    commands_threshold.add_arguments(parser)


def threshold(args: argparse.Namespace) -> int:
    """Print β* and a verdict; 0 if that is answered, 2 if the data cannot be used."""
    from vaeloss import commands_threshold

    return commands_threshold.run(args)


COMMANDS = {
    "audit": Command("find what a loss of yours weighs: c, β and σ²", audit_arguments, audit),
    "threshold": Command(
        "will a VAE with this loss collapse on these data?", threshold_arguments, threshold
    ),
}


def main(argv: list[str] | None = None) -> int:
    """The script ``vaeloss``; also ``python -m vaeloss``.

    Returns
    -------
    int
        The exit status: 0 if the question was answered; 2 on unusable arguments or data.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "x.npy")
    ...     np.save(path, np.array([[0.0, 1.0], [1.0, 0.0]]))
    ...     main(["threshold", path])
    β* = 2 for a bernoulli decoder on 2 samples of 2 values.
    Scope: outputs that are independent given z. ...
    0
    """
    return dispatch("vaeloss", __doc__, COMMANDS, argv)
