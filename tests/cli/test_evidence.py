"""`mlwarden evidence` says who answered, and what came of a second look."""

from datetime import UTC, datetime, timedelta

import pytest

from mlwarden.cli import evidence
from mlwarden.evidence.store import Compared, EvidenceSpec, EvidenceStatus, ImageEvidence, Metadata, SecondLook
from mlwarden.model.evidence import Phase, Scan

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64


def text(look: SecondLook | None, *, by: str = "scanner-a") -> str:
    status = EvidenceStatus(
        phase=Phase.READY, at=NOW, scan=Scan(scanner="trivy 0.72.0", scanned_at=NOW, packages=7), answered_by=by, second_look=look
    )
    name = Metadata(name=DIGEST.replace(":", "-"))
    known = ImageEvidence(metadata=name, spec=EvidenceSpec(references=(f"r.example/x@{DIGEST}",)), status=status)
    return "\n".join(evidence.text(evidence.Found(image="r.example/x:1", digest=DIGEST, scan=known), NOW))


def test_who_answered_is_named_and_nobody_where_that_was_not_written_down() -> None:
    assert "answered by scanner-a" in text(None)
    assert "answered by" not in text(None, by="")


@pytest.mark.parametrize(
    ("outcome", "by", "says"),
    [
        (Compared.AGREES, "scanner-a", "scanner-b looked again and found nothing worse, 5 minutes ago"),
        (
            Compared.WORSE,
            "scanner-b",
            "found worse, which stands here now at the answer of scanner-a, 5 minutes ago: 1 CRITICAL instead of 0",
        ),
    ],
)
def test_a_second_look_is_told_with_what_came_of_it(outcome: Compared, by: str, says: str) -> None:
    reason = "1 CRITICAL instead of 0" if outcome is Compared.WORSE else ""
    look = SecondLook(by="scanner-b", of="scanner-a", at=NOW - timedelta(minutes=5), outcome=outcome, reason=reason)
    assert says in text(look, by=by)
