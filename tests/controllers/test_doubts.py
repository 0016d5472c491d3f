"""An answer that was taken back is said in an Event; one that a second look agrees with is not."""

import secrets
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden import evidence

if TYPE_CHECKING:
    from conftest import Running

pytestmark = pytest.mark.cluster
PATH = "/apis/mlwarden.io/v1alpha1/imageevidences"
AT = "2026-11-30T12:00:00Z"


def events(running: "Running", name: str) -> list[dict[str, Any]]:
    path, selector = "/api/v1/namespaces/default/events", f"involvedObject.name={name},reason=AnswerTakenBack"
    found: list[dict[str, Any]] = running.admin.get(path, fieldSelector=selector)["items"]
    return found


def looked_at(running: "Running", **look: str) -> str:
    """An answer, and a second look at it, as the scanner writes them; returns the object's name."""
    by = f"{running.settings.scanner}-0"
    image = f"registry.example/app@sha256:{secrets.token_hex(32)}"
    running.held.account(running.settings.webhook).create(PATH, evidence.pending(image))
    running.answer(image, scan={"counts": {}})
    name = evidence.name_for(image)
    running.write_status(f"{PATH}/{name}", {"secondLook": {"by": by, "at": AT, **look}}, more=True)
    return name


def test_an_answer_that_a_second_look_took_back_is_said_with_whose_it_was_and_one_that_stands_is_not(running: "Running") -> None:
    stands = looked_at(running, of="scanner-x", outcome="Agrees")
    corrected = looked_at(running, of="scanner-x", outcome="Corrected", reason="with a fix 1 HIGH instead of 0")
    worse = looked_at(running, of="scanner-x", outcome="Worse", reason="with a fix 1 CRITICAL instead of 0")
    forged = looked_at(running, of="scanner-y", outcome="Forged", reason="it stands under the name of scanner-y, which did not write it")
    (said,) = running.held.until(lambda: events(running, worse))
    assert "The answer of scanner-x was taken back" in said["message"]
    assert "CRITICAL" not in said["message"]  # the namespace `default` is read by more people than evidence
    assert said["type"] == "Warning"
    assert said["involvedObject"]["kind"] == "ImageEvidence"
    (said,) = running.held.until(lambda: events(running, forged))
    assert "delete pod scanner-y, which ends its token" in said["message"]
    assert events(running, stands) == events(running, corrected) == []
