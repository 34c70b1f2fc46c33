"""What a record says of how it was made."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch


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
