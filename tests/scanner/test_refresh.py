"""A new database, and a worker that cannot answer about everything at once."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from mlwarden.evidence import store
from mlwarden.evidence.failure import TransientError
from mlwarden.evidence.store import EvidenceSpec, EvidenceStatus, ImageEvidence, Metadata
from mlwarden.model.evidence import Phase, Scan
from mlwarden.scanner.provenance import Writer
from mlwarden.scanner.refresh import Refresh

OLD = datetime(2026, 11, 24, tzinfo=UTC)
NEW = OLD + timedelta(hours=6)


def evidence(number: int) -> ImageEvidence:
    digest = f"{number:064x}"
    scan = Scan(scanner="trivy 0.72.0", scanned_at=OLD, database_at=OLD)
    return ImageEvidence(
        metadata=Metadata(name=f"sha256-{digest}", uid="u", resource_version="1"),
        spec=EvidenceSpec(references=(f"r.example/team/model@sha256:{digest}",)),
        status=EvidenceStatus(phase=Phase.READY, at=OLD, scan=scan),
    )


class Renewal:
    """Of so many digests, with a worker that fails as it is told; `known` is what the API server would have."""

    def __init__(self, count: int, fails: Callable[[tuple[str, ...]], TransientError | None]) -> None:
        self.known = {(each := evidence(number)).metadata.name: each for number in range(count)}
        self._fails = fails
        self.asked: list[tuple[str, ...]] = []
        self._refresh = Refresh(self, self, Writer("a"), known=self.known)  # type: ignore[arg-type]

    async def scan_again(self, digests: tuple[str, ...]) -> dict[str, Scan]:
        self.asked.append(digests)
        if (error := self._fails(digests)) is not None:
            raise error
        return {digest: Scan(scanner="trivy 0.72.0", scanned_at=NEW, database_at=NEW) for digest in digests}

    async def update(self, _kind: object, body: dict[str, Any], *, subresource: str) -> dict[str, Any]:
        assert subresource == "status"
        self.known[body["metadata"]["name"]] = store.read(body)
        return body

    def old(self) -> list[str]:
        return [name for name, each in self.known.items() if each.status.scan is not None and each.status.scan.database_at == OLD]

    async def until(self, condition: Callable[[], bool]) -> None:
        self._refresh.database(NEW)
        running = asyncio.create_task(self._refresh.run())
        try:
            async with asyncio.timeout(20):
                while not condition():
                    await asyncio.sleep(0.01)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


BAD = f"sha256:{137:064x}"


async def test_a_digest_that_no_answer_can_be_had_about_is_left_out_and_the_others_are_renewed() -> None:
    ended = TransientError("the scanner's worker ended without an answer")
    renewal = Renewal(450, lambda digests: ended if BAD in digests else None)
    await renewal.until(lambda: len(renewal.old()) == 1)
    assert renewal.old() == [BAD.replace(":", "-")]
    assert len(renewal.asked) < 40


async def test_an_answer_that_is_too_long_is_asked_for_in_parts() -> None:
    ended = TransientError("the scanner's worker ended without an answer")
    renewal = Renewal(450, lambda digests: ended if len(digests) > 100 else None)
    await renewal.until(lambda: not renewal.old())


async def test_a_worker_that_is_not_ready_is_no_reason_to_leave_anything_out() -> None:
    unready = [TransientError("the scanner's worker cannot be reached", retry_after=5)]
    renewal = Renewal(1, lambda _digests: unready.pop() if unready else None)
    await renewal.until(lambda: bool(renewal.asked))
    assert not renewal._refresh._spoilt
