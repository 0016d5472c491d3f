"""`WardenPolicy`: its schema, its loader, what it is about, and how it becomes a ValidatingAdmissionPolicy.

Pure: texts come in as arguments.
"""

from mlwarden.model.documents import yaml_loads
from mlwarden.policy.admission_policies import admission_policies, not_compiled
from mlwarden.policy.compiled import CompiledPolicy, compile_policy
from mlwarden.policy.crd import ACCEPTED, COMPILED, READY, PolicyStatus, StatusCondition, crd
from mlwarden.policy.loader import accepted, load, parse, pod_security, shipped
from mlwarden.policy.match import matches
from mlwarden.policy.revocations import read_revocation, revocation_crd, revoked
from mlwarden.policy.trusted import NAME as TRUSTED_REGISTRIES

__all__ = [
    "ACCEPTED",
    "COMPILED",
    "READY",
    "TRUSTED_REGISTRIES",
    "CompiledPolicy",
    "PolicyStatus",
    "StatusCondition",
    "accepted",
    "admission_policies",
    "compile_policy",
    "crd",
    "load",
    "matches",
    "not_compiled",
    "parse",
    "pod_security",
    "read_revocation",
    "revocation_crd",
    "revoked",
    "shipped",
    "yaml_loads",
]
