"""What a loss weighs, and whether it will collapse: the library without a notebook."""

import argparse
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
    from vaeloss import commands_audit

    commands_audit.add_arguments(parser)


def audit(args: argparse.Namespace) -> int:
    """Print the audit; 0 if it found β, 1 if the loss has none, 2 on bad input."""
    from vaeloss import commands_audit

    return commands_audit.run(args)


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
