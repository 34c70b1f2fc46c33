"""How public implementations of the VAE reduce and weight their loss.

``data/implementations.toml`` has a block for each, ``losses`` a function, ``entries`` holds one
against the other, ``table`` shows them.
"""

from sumormean.catalogue.entries import (
    CatalogueError,
    Implementation,
    catalogue,
    evaluate,
    parse,
)

__all__ = ["CatalogueError", "Implementation", "catalogue", "evaluate", "parse"]
