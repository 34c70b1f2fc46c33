"""vaeloss: what a VAE loss weighs, and whether it will collapse.

The library behind the book "Sum or Mean?". One idea per module; import what you need, e.g.
``from vaeloss.likelihoods import bernoulli_nll``. Nothing heavy is imported here.
"""

__version__ = "0.1.0"
