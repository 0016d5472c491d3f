"""Where evidence comes from, and where it is kept: the registry, trivy, and the `ImageEvidence` objects.

Every failure is one of two kinds, `DefinitiveError` and `TransientError`, and none of them ever looks like a clean answer.
"""

from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError
from mlwarden.evidence.store import Known, collect, crd, name_for, pending, request, to_facts

__all__ = ["DefinitiveError", "GatherError", "Known", "TransientError", "collect", "crd", "name_for", "pending", "request", "to_facts"]
