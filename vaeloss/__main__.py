"""`python -m vaeloss COMMAND`: the library for people who don't want a notebook."""

import argparse
import importlib
import sys

# command -> (module with add_arguments and run, one line of help). Modules are imported only when
# asked for, so that help is instant.
COMMANDS: dict[str, tuple[str, str]] = {
    "audit": ("vaeloss.audit", "find what a loss of yours weighs: c, β and σ²"),
    "threshold": ("vaeloss.collapse", "will a VAE with this loss collapse on these data?"),
    "ablate": ("vaeloss.ablate", "run one of the book's larger sweeps (resumable)"),
    "reproduce": ("vaeloss.reproduce", "train a published example at full length (resumable)"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status is 0 on success, 2 on unusable arguments."""
    parser = argparse.ArgumentParser(prog="python -m vaeloss", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, summary) in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    chosen, rest = parser.parse_known_args(argv)
    module_name, summary = COMMANDS[chosen.command]
    module = importlib.import_module(module_name)
    sub = argparse.ArgumentParser(prog=f"python -m vaeloss {chosen.command}", description=summary)
    module.add_arguments(sub)
    return module.run(sub.parse_args(rest))


if __name__ == "__main__":
    sys.exit(main())
