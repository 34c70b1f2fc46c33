"""vaeloss: what a VAE loss weighs, and whether it will collapse.

The library of the book "Sum or Mean?". It needs torch, NumPy and SciPy, nothing else, and nothing
heavy is imported before a name is used: ``from vaeloss import audit_loss``.
"""

import importlib

__version__ = "0.1.0"

# public name -> where it is defined
_HOME = {
    name: module
    for module, names in {
        "vaeloss.audit": (
            "Audit",
            "AuditError",
            "Finding",
            "QuantiserAudit",
            "StepAudit",
            "audit_loss",
            "audit_quantiser",
            "audit_step",
            "watch_step",
            "from_jax",
            "from_tensorflow",
        ),
        "vaeloss.collapse": (
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
        ),
        "vaeloss.likelihoods": (
            "Likelihood",
            "as_likelihood",
            "bernoulli_nll",
            "continuous_bernoulli_nll",
            "gaussian_nll",
            "kl_standard_normal",
        ),
        "vaeloss.metrics": (
            "bits_per_dim",
            "constant_image_nll",
            "importance_weighted_nll",
            "live_units",
            "output_spread",
            "perplexity",
            "posterior",
            "rate_distortion",
            "reconstructions",
        ),
    }.items()
    for name in names
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
