"""The book's long runs: its larger sweeps, and the published examples at full length."""

import importlib
import sys

from vaeloss.cli import Command, dispatch


def _later(module: str, summary: str) -> Command:
    """The command whose ``add_arguments`` and ``run`` a module has, imported when it is chosen."""
    return Command(
        summary,
        lambda parser: importlib.import_module(module).add_arguments(parser),
        lambda args: importlib.import_module(module).run(args),
    )


COMMANDS = {
    "ablate": _later(
        "sumormean.experiments.ablate", "run one of the book's larger sweeps (resumable)"
    ),
    "reproduce": _later(
        "sumormean.originals.runs", "train a published example at full length (resumable)"
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status is 0 on success, 2 on unusable arguments."""
    return dispatch("python -m sumormean", __doc__, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
