"""What a loss weighs: find c and β of any VAE loss by probing it.

A loss is written c · [NLL + β · KL]: NLL summed over the pixels, KL over the latents, both averaged
over the batch; c is a gradient scale, β the weight that changes the model.
"""

from vaeloss.audit.bridges import from_jax, from_tensorflow
from vaeloss.audit.evidence import AuditError
from vaeloss.audit.findings import Finding
from vaeloss.audit.loss import audit_loss
from vaeloss.audit.quantiser import QuantiserAudit, audit_quantiser
from vaeloss.audit.result import Audit
from vaeloss.audit.step import StepAudit, audit_step
from vaeloss.audit.watch import Call, Watch, watch_step

__all__ = [
    "Audit",
    "AuditError",
    "Call",
    "Finding",
    "QuantiserAudit",
    "StepAudit",
    "Watch",
    "audit_loss",
    "audit_quantiser",
    "audit_step",
    "watch_step",
    "from_jax",
    "from_tensorflow",
]
