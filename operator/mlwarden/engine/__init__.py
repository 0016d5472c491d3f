"""From policies, facts and a workload to a verdict, and from a verdict to what a person reads.

Pure: the webhook, the release, `mlwarden check` and the background re-evaluation all call these functions, so they cannot disagree.
"""

from mlwarden.engine.evaluate import evaluate
from mlwarden.engine.messages import audit, held, refusal, warnings
from mlwarden.engine.patience import again
from mlwarden.engine.restored import restored, restored_affinity, with_images
from mlwarden.engine.revoked import REVOKED
from mlwarden.engine.updates import relevant_change

__all__ = [
    "REVOKED",
    "again",
    "audit",
    "evaluate",
    "held",
    "refusal",
    "relevant_change",
    "restored",
    "restored_affinity",
    "warnings",
    "with_images",
]
