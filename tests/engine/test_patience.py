"""When to try again: a number where something is known, and no number where nothing is."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from mlwarden.engine.patience import again
from mlwarden.model.digest import digest
from mlwarden.model.evidence import Facts, ImageFacts, Phase, Resolution, Scan, Waits

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = digest("sha256:" + "a" * 64)
TAG = "registry.example/debug/tools:1.0"
IMAGE = f"registry.example/debug/tools@{DIGEST}"
SCAN = Scan(scanner="trivy", scanned_at=NOW)
WAITS = Waits(scans=(8.0, 9.0, 11.0, 12.0, 60.0), resolutions=(0.5, 1.0, 2.0))


def said(*wanted: str, image: ImageFacts | None = None, resolution: Resolution | None = None, waits: Waits = WAITS) -> str:
    known: dict[str, Any] = {"images": {DIGEST: image}} if image else {}
    found = {"resolutions": {TAG: resolution}} if resolution else {}
    return again(wanted, Facts(now=NOW, namespace={}, profile="production", waits=waits, **known, **found))


def pending(seconds: float) -> ImageFacts:
    return ImageFacts(digest=DIGEST, phase=Phase.PENDING, asked_at=NOW - timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "in about 15 s: it is being scanned"),  # the median, 11, and not the mean
        (6, "in about 5 s: it is being scanned"),
        (10, "in about 5 s: it is being scanned"),  # of those that took longer than 10 s the median is 12
        (20, "in about 40 s: it is being scanned"),
    ],
)
def test_the_number_is_what_is_left_of_what_the_last_ones_took(seconds: float, expected: str) -> None:
    assert said(IMAGE, image=pending(seconds)) == expected


def test_what_takes_longer_than_all_of_them_gets_no_number_and_the_reason() -> None:
    assert said(IMAGE, image=pending(61)) == "in a minute: it is being scanned, and takes longer than the last images did"


def test_a_tag_is_resolved_first_and_scanned_then() -> None:
    assert said(TAG) == "in about 15 s: it is being scanned"
    assert said(TAG, waits=Waits(scans=(8.0,), resolutions=(30.0,))) == "in about 40 s: it is being scanned"


def test_a_tag_whose_image_was_scanned_is_only_resolved_again() -> None:
    old = Resolution(digest=DIGEST, at=NOW - timedelta(minutes=5), asked_at=NOW - timedelta(minutes=6))
    image = ImageFacts(digest=DIGEST, phase=Phase.READY, scan=SCAN, asked_at=NOW - timedelta(minutes=6), answered_at=NOW)
    assert said(TAG, image=image, resolution=old) == "in about 5 s: it is being scanned"


def test_a_scan_that_is_too_old_and_was_asked_for_again_is_waited_for_from_then_on() -> None:
    asked, answered = NOW - timedelta(seconds=20), NOW - timedelta(days=8)
    stale = ImageFacts(digest=DIGEST, phase=Phase.READY, scan=SCAN, asked_at=asked, answered_at=answered)
    assert said(IMAGE, image=stale) == "in about 40 s: it is being scanned"


@pytest.mark.parametrize("waits", [Waits(), Waits(scans=(5.0,))], ids=["nothing", "no tag"])
def test_where_nothing_was_scanned_lately_nobody_pretends_to_know(waits: Waits) -> None:
    assert said(TAG, waits=waits).startswith("in about half a minute: it is being scanned, and nothing was scanned lately")


def test_minutes_are_said_in_minutes() -> None:
    assert said(IMAGE, waits=Waits(scans=(170.0,))) == "in about 3 min: it is being scanned"


def test_of_several_the_longest_counts() -> None:
    slow = Waits(scans=(8.0,), resolutions=(30.0,))
    assert said(IMAGE, TAG, waits=slow) == said(TAG, IMAGE, waits=slow) == "in about 40 s: it is being scanned"


def test_signatures_of_an_image_are_waited_for_like_its_scan() -> None:
    assert said(f"signatures of {IMAGE}") == said(IMAGE)


def test_what_has_failed_is_not_promised() -> None:
    asked, answered = NOW - timedelta(seconds=20), NOW - timedelta(seconds=10)
    failed = ImageFacts(digest=DIGEST, phase=Phase.FAILED, asked_at=asked, answered_at=answered)
    assert said(IMAGE, image=failed) == ""
    assert said(TAG, resolution=Resolution(digest=None, at=answered, asked_at=asked, reason="404")) == ""
    assert said("UPPER@what") == said() == ""
    assert said(IMAGE, image=msgspec.structs.replace(failed, asked_at=NOW)).startswith("in about")
