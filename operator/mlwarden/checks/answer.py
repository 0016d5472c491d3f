"""What a check says about one place, before anybody has decided what to do about it.

A check knows nothing of profiles, roll-out or holding: it answers its question and the engine makes a `Finding` of the answer. Rejected:
checks that return findings, because then every check would carry the rules of every profile.
"""

import msgspec

from mlwarden.model.finding import Edit, Outcome
from mlwarden.model.nodes import Nodes


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One requirement's answer about one element of a workload.

    Attributes:
        outcome: Pass, Fail or Unknown.
        element: JSON path of the element that was judged; always exists in the object.
        path: JSON path of the place that is to blame: the element's, or a field below it, which need not exist yet.
        message: what is wrong, one safe line, no final full stop; `""` for a Pass.
        fix: how to put it right, one safe line.
        edit: the fix as a program would write it; None where it is only words.
        wanted: the image reference whose evidence is missing, `""` where none is.
        final: nothing that comes later judges this again (an Unknown about a whole object that is not a pod): it cannot wait for its pods.
        nodes: a Pass is one on these nodes only; None for everywhere.
    """

    outcome: Outcome
    element: str
    path: str
    message: str = ""
    fix: str = ""
    edit: Edit | None = None
    wanted: str = ""
    final: bool = False
    nodes: Nodes | None = None
