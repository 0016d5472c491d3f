"""How long the last answers took, told from what is stored."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlwarden import evidence
from mlwarden.cluster.waits import KEPT, Recent
from mlwarden.model.digest import digest
from mlwarden.model.evidence import ImageFacts, Phase, Proofs, Resolution, Scan

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = digest("sha256:" + "a" * 64)
SCAN = Scan(scanner="trivy", scanned_at=NOW)


def told(obj: dict[str, Any]) -> tuple[str, ImageFacts | Proofs | Resolution]:
    about, known = evidence.to_facts(obj)
    return str(about), known


def scanned(took: float, *, at: datetime = NOW) -> ImageFacts:
    return ImageFacts(digest=DIGEST, phase=Phase.READY, scan=SCAN, asked_at=at - timedelta(seconds=took), answered_at=at)


def test_scans_and_resolutions_are_kept_apart() -> None:
    recent = Recent()
    recent.note("a", scanned(7))
    recent.note("b:1", Resolution(digest=DIGEST, at=NOW, asked_at=NOW - timedelta(seconds=2)))
    assert (recent.waits.scans, recent.waits.resolutions) == ((7.0,), (2.0,))


@pytest.mark.parametrize(
    "known",
    [
        ImageFacts(digest=DIGEST, phase=Phase.PENDING, asked_at=NOW),
        ImageFacts(digest=DIGEST, phase=Phase.READY, scan=SCAN, answered_at=NOW),
        scanned(-3),
        scanned(16 * 60),
        Resolution(digest=None, at=NOW, asked_at=NOW - timedelta(seconds=2)),
    ],
    ids=["no answer", "nobody knows when it was asked for", "answered before it was asked again", "renewed by itself", "a failure"],
)
def test_what_nobody_waited_for_is_no_wait(known: ImageFacts | Resolution) -> None:
    recent = Recent()
    recent.note("a", scanned(7))
    recent.note("b", known)
    assert (recent.waits.scans, recent.waits.resolutions) == ((7.0,), ())


def test_the_last_ones_count_and_one_image_counts_once() -> None:
    recent = Recent()
    for number in range(KEPT + 5):
        recent.note(str(number), scanned(number, at=NOW + timedelta(minutes=number)))
        recent.note(str(number), scanned(number, at=NOW + timedelta(minutes=number)))
    assert sorted(recent.waits.scans) == [float(number) for number in range(5, KEPT + 5)]


def test_the_times_are_those_of_the_stored_evidence() -> None:
    about = f"registry.example/a@{DIGEST}"
    obj = evidence.pending(about)
    obj["metadata"]["creationTimestamp"] = "2026-11-24T11:00:00Z"
    obj["status"] = {
        "phase": "Ready",
        "at": "2026-11-24T11:00:09Z",
        "scan": {"scanner": "trivy 0.72.0", "scannedAt": "2026-11-24T11:00:09Z"},
    }
    recent = Recent()
    recent.note(*told(obj))
    obj["spec"]["requestedAt"] = "2026-11-24T11:59:00.5Z"
    recent.note(*told(obj))
    assert recent.waits.scans == (9.0,)
    obj["status"]["at"] = "2026-11-24T11:59:02.5Z"
    recent.note(*told(obj))
    assert recent.waits.scans == (2.0,)
