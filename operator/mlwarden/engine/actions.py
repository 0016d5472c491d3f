"""What is done about an answer, here: the profile, the roll-out and whether this thing can wait decide, in this one place.

The rules, weakest first:

- A `Pass` does nothing, a `Fail` does what the policy says for the profile.
- An `Unknown` never does more than a `Fail` would: a policy that warns does not hold. Otherwise `onUnknown` decides.
- `Hold` on a pod that can wait holds it. A template is warned about: its pods are held when they come. What is never judged again (an
  ephemeral container, a pod that names its node, a whole object that is not a pod, a pod where nothing holds) is denied.
- `rollout: audit` turns every `Deny` and every `Hold` into a warning.
"""

from enum import StrEnum

import msgspec

from mlwarden.model.finding import Action, Decision, Finding, OnUnknown, Outcome

HOLD = "Hold"
"""The action of an Unknown that holds; the only one that is not in `Action`."""
NONE = "Audit"
"""The action of what needs none (a Pass): recorded, nothing more."""

_ORDER = {Action.DENY.value: 0, HOLD: 1, Action.WARN.value: 2, Action.AUDIT.value: 3}


class Waiting(StrEnum):
    """What happens to this workload while an answer is not known."""

    GATED = "gated"  # a pod that carries the gate
    PODS_ARE_JUDGED = "template"  # it runs nothing itself; what it creates is judged
    IMPOSSIBLE = "impossible"  # now or never


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules need to know of a request.

    Attributes:
        waiting: whether it can wait.
        audit: the roll-out only audits.
    """

    waiting: Waiting
    audit: bool


def action(outcome: Outcome, on_fail: Action, on_unknown: OnUnknown, situation: Situation, *, final: bool = False) -> str:
    """Returns what is done: `Deny`, `Hold`, `Warn` or `Audit`.

    Args:
        outcome: the answer.
        on_fail: what the policy does with a Fail in this profile.
        on_unknown: what it does with an Unknown.
        situation: whether it can wait, and the roll-out.
        final: nothing that comes later judges this again.
    """
    match outcome:
        case Outcome.PASS | Outcome.EXCEPTED:
            return NONE
        case Outcome.FAIL:
            wanted: str = on_fail.value
        case Outcome.UNKNOWN:
            wanted = weaker(on_fail.value, _unknown(on_unknown, situation.waiting, final=final))
    return softened(wanted, situation)


def softened(wanted: str, situation: Situation) -> str:
    """Returns `wanted`, or a warning instead of a refusal where the roll-out only audits."""
    return weaker(wanted, Action.WARN.value) if situation.audit else wanted


def weaker(first: str, second: str) -> str:
    """Returns the action of the two that does less."""
    return max(first, second, key=_ORDER.__getitem__)


def decision(findings: list[Finding]) -> Decision:
    """Returns the decision that findings make together: Deny over Hold over Admit."""
    actions = {finding.action for finding in findings}
    if Action.DENY.value in actions:
        return Decision.DENY
    return Decision.HOLD if HOLD in actions else Decision.ADMIT


def rank(finding: Finding) -> tuple[int, int, int]:
    """Sorts findings the worst first: by what is done, then a Fail before an Unknown before the rest, then severity.

    A Fail first, however severe what is not known may be: where something fails nothing is asked for, and waiting does not help.
    """
    outcome = (Outcome.FAIL, Outcome.UNKNOWN, Outcome.EXCEPTED, Outcome.PASS).index(finding.outcome)
    return (outcome > 1, _ORDER[finding.action], outcome * 4 + finding.severity.rank)


def _unknown(on_unknown: OnUnknown, waiting: Waiting, *, final: bool) -> str:
    match on_unknown:
        case OnUnknown.WARN:
            return Action.WARN.value
        case OnUnknown.DENY:
            return Action.DENY.value
        case OnUnknown.HOLD:
            if final or waiting is Waiting.IMPOSSIBLE:
                return Action.DENY.value
            return HOLD if waiting is Waiting.GATED else Action.WARN.value
