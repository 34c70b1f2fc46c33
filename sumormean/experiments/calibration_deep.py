"""Some of the ways to set a decoder's noise again, in ten layers of convolutions, in colour."""

from sumormean.experiments.calibration import run

__all__ = ["ARRAYS", "SEEDS", "run", "settings"]

SEEDS = (0, 1, 2)
ARRAYS = {}
COMPARED = (
    "fixed × 0.5",
    "fixed × 1",
    "fixed × 2",
    "annealed × 1",
    "1/2",
    "learned",
    "closed form",
    "running minimum",
    "log σ²(z)",
    "bernoulli",
    "binomial",
)


def settings() -> list[dict]:
    """The emoji, with the deep network."""
    return [
        {"network": "deep", "data": "emoji32", "method": method, "epochs": 50}
        for method in COMPARED
    ]
