"""What one term of a loss is: a weight, and how well it fits."""

from dataclasses import dataclass, field

from torch import Tensor

from vaeloss.audit.findings import Finding, finding
from vaeloss.likelihoods import Likelihood

TOLERANCE = 1e-4  # largest residual of a term that counts as known; it bounds its weight's error


@dataclass
class Term:
    """One term of the loss, its weight on the sum over one sample, and how well that fits."""

    weight: float
    residual: float
    likelihood: Likelihood | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def known(self) -> bool:
        """Whether the term fits: its relative residual is at most TOLERANCE."""
        return self.residual <= TOLERANCE

    def refused(self, code: str, **data) -> "Term":
        """The same, of unknown weight because of this finding."""
        self.findings.append(finding(code, **data))
        self.residual = max(self.residual, 1.0)
        return self


def fit(gradients: list[Tensor], references: list[Tensor]) -> tuple[float, float]:
    """Least-squares weight common to all probes, and the worst relative residual of any.

    Each probe counts alike, whatever the size of its gradient. A residual of r bounds the relative
    error of the weight by about r.

    Examples
    --------
    >>> import torch
    >>> fit([torch.tensor([2.0, 4.0])], [torch.tensor([1.0, 2.0])])
    (2.0, 0.0)
    """
    pairs = list(zip(gradients, references, strict=True))
    weights = [((g * r).sum() / r.square().sum()).item() for g, r in pairs]
    weight = sum(weights) / len(weights)
    distances = [
        (
            (g - weight * r).norm() / max(g.norm().item(), abs(weight) * r.norm().item(), 1e-300)
        ).item()
        for g, r in pairs
    ]
    return weight, max(distances)
