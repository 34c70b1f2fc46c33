r"""Will a VAE collapse on these data? What can be said before training.

``vaeloss.collapse.local`` has the threshold β\* and the spectrum behind it: above β\* collapse is
stable. ``vaeloss.collapse.optimum`` has the bounds above which it is optimal, and the verdict on a
β; ``vaeloss.collapse.rate`` what a code pays for; ``vaeloss.collapse.speed`` how long it takes.
"""

from vaeloss.collapse.batches import UnitsWarning
from vaeloss.collapse.local import (
    Threshold,
    collapse_spectrum,
    collapse_threshold,
    predicted_live_units,
)
from vaeloss.collapse.optimum import (
    CollapseBounds,
    Verdict,
    collapse_verdict,
    optimal_collapse_threshold,
)
from vaeloss.collapse.rate import information_budget, predicted_rate
from vaeloss.collapse.speed import growth_rate, steps_until_visible

__all__ = [
    "CollapseBounds",
    "Threshold",
    "UnitsWarning",
    "Verdict",
    "collapse_spectrum",
    "collapse_threshold",
    "collapse_verdict",
    "growth_rate",
    "information_budget",
    "optimal_collapse_threshold",
    "predicted_live_units",
    "predicted_rate",
    "steps_until_visible",
]
