"""Exit codes of `mlwarden check`: one table, and which of several wins."""

from mlwarden.cli.judging import Tally
from mlwarden.model.finding import Decision
from mlwarden.workloads import Standing

DENIED = 1
UNREADABLE = 2


def code(tally: Tally, *, strict: bool, strict_input: bool) -> int:
    """Returns 0, 1 or 2; what could not be read outweighs what was judged, because nobody knows what it would have been.

    Args:
        tally: what came of everything.
        strict: what is not known, and a kind that is not understood, count as denied.
        strict_input: what is no manifest counts as unreadable.
    """
    if tally.problems or not tally.total or (strict_input and tally.strict_asides):
        return UNREADABLE
    if tally.decided(Decision.DENY) or (strict and (tally.unknown or tally.standing(Standing.UNKNOWN))):
        return DENIED
    return 0
