"""The catalogue's losses, one function with its block each, in modules by where they are from.

Each is written from the description of what an implementation adds up, not from its source.
"""

from importlib import import_module

from sumormean.catalogue.entries import ENTRIES, Implementation

# The order of the tables in the book. Whoever imports one of them imports this package first, and
# with it all of them in this order.
FAMILIES = (
    "benchmark_vae",
    "keras",
    "chainer",
    "pytorch",
    "quantisers",
    "decoders",
    "frameworks",
    "weighted",
    "tutorials",
)
for family in FAMILIES:
    import_module(f"{__name__}.{family}")


def catalogue() -> list[Implementation]:
    """All entries: family by family, each in the order of its module.

    Examples
    --------
    >>> len(catalogue()) > 60
    True
    """
    return list(ENTRIES.values())
