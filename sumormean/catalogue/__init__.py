"""How public implementations of the VAE reduce and weight their loss.

``losses`` has a function for each with a block of expectations above it, ``parts`` what they are
made of, ``entries`` holds one against the other, ``table`` shows them.
"""

from sumormean.catalogue.entries import CatalogueError, Implementation, entry, evaluate
from sumormean.catalogue.losses import catalogue

__all__ = ["CatalogueError", "Implementation", "catalogue", "entry", "evaluate"]
