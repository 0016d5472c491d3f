"""The rules of what is done about an answer, row by row."""

import itertools

import pytest

from mlwarden.engine.actions import Situation, Waiting, action
from mlwarden.model.finding import Action, OnUnknown, Outcome

GATED, TEMPLATE, IMPOSSIBLE = Waiting.GATED, Waiting.PODS_ARE_JUDGED, Waiting.IMPOSSIBLE


def enforced(waiting: Waiting) -> Situation:
    return Situation(waiting=waiting, audit=False)


@pytest.mark.parametrize(
    ("on_fail", "on_unknown", "waiting", "done"),
    [
        (Action.DENY, OnUnknown.HOLD, GATED, "Hold"),
        (Action.DENY, OnUnknown.HOLD, TEMPLATE, "Warn"),
        (Action.DENY, OnUnknown.HOLD, IMPOSSIBLE, "Deny"),
        (Action.DENY, OnUnknown.DENY, GATED, "Deny"),
        (Action.DENY, OnUnknown.DENY, TEMPLATE, "Deny"),
        (Action.DENY, OnUnknown.WARN, IMPOSSIBLE, "Warn"),
        (Action.WARN, OnUnknown.HOLD, GATED, "Warn"),
        (Action.WARN, OnUnknown.DENY, IMPOSSIBLE, "Warn"),
        (Action.AUDIT, OnUnknown.DENY, IMPOSSIBLE, "Audit"),
    ],
)
def test_an_unknown_does_what_the_table_says(on_fail: Action, on_unknown: OnUnknown, waiting: Waiting, done: str) -> None:
    assert action(Outcome.UNKNOWN, on_fail, on_unknown, enforced(waiting)) == done


@pytest.mark.parametrize("on_fail", list(Action))
def test_a_fail_does_what_the_policy_says_wherever_it_is(on_fail: Action) -> None:
    for waiting, on_unknown in itertools.product(Waiting, OnUnknown):
        assert action(Outcome.FAIL, on_fail, on_unknown, enforced(waiting)) == on_fail.value


def test_what_is_never_judged_again_cannot_wait_for_its_pods() -> None:
    assert action(Outcome.UNKNOWN, Action.DENY, OnUnknown.HOLD, enforced(TEMPLATE), final=True) == "Deny"


def test_an_audit_rollout_neither_denies_nor_holds() -> None:
    for outcome, on_fail, on_unknown, waiting, final in itertools.product(Outcome, Action, OnUnknown, Waiting, (True, False)):
        done = action(outcome, on_fail, on_unknown, Situation(waiting=waiting, audit=True), final=final)
        assert done in {"Warn", "Audit"}
