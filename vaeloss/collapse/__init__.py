r"""Will a VAE collapse on these data? What can be said before training.

``vaeloss.collapse.local`` has the threshold β\* and the spectrum behind it,
``vaeloss.collapse.rate`` the most that a code can pay for.
"""

from vaeloss.collapse.local import collapse_spectrum, collapse_threshold, predicted_live_units
from vaeloss.collapse.rate import information_budget

__all__ = [
    "collapse_spectrum",
    "collapse_threshold",
    "information_budget",
    "predicted_live_units",
]
