"""Answers that are made a second time: who forges one must not be able to count on it.

Every replica throws dice over every answer that another one wrote, and makes some of them again, with its own tools and from the image
itself. Which ones is known to nobody before, and is written down nowhere until it is done. A replica that is alone looks again at what it
wrote itself: a worker that an image took over, or a tool that broke, does not always say the same.

A second answer that is worse replaces the first. Then every other answer of the same pod is looked at again, too. It is not claimed: a
claim would tell whoever forges, and give them something to take away.

Tags are left out: they move, and what one points at is judged by its digest.
"""

import logging
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from mlwarden.cluster import IMAGE_EVIDENCE, ApiError, Client
from mlwarden.errors import Error
from mlwarden.evidence import disagreement, store
from mlwarden.evidence.failure import one_line
from mlwarden.evidence.store import Compared, EvidenceStatus, ImageEvidence, SecondLook
from mlwarden.model.evidence import Phase, Scan
from mlwarden.model.signing import Proof, Proven
from mlwarden.scanner import metrics
from mlwarden.scanner.agenda import Due, backoff, renewal
from mlwarden.scanner.claim import LostError, put
from mlwarden.scanner.provenance import Writer, answer

LOG = logging.getLogger(__name__)
_RANDOM = secrets.SystemRandom()
_TRIES = 8
_ATTEMPTS = 5
"""Looks that told nothing (a registry that is away) before it is left to chance again."""
_COLLEAGUE = timedelta(hours=1)
"""Who answered since then is a replica that looks again at what we write."""
_Found = Scan | tuple[Proof, ...]


class SecondLooks:
    """Chooses, compares, and writes what came of it.

    Args:
        client: of the API server.
        writer: who we are.
        share: of all answers, how many are made again: from 0 to 1.
        draw: from 0 to below 1, as nobody can foresee it.
    """

    def __init__(self, client: Client, writer: Writer, share: float, *, draw: Callable[[], float] = _RANDOM.random) -> None:
        self._client, self._writer, self._share, self._draw = client, writer, share, draw
        self._seen: dict[str, bytes] = {}
        self._wanted: dict[str, tuple[datetime, int]] = {}
        self._colleagues: dict[str, datetime] = {}
        self._suspects: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._wanted

    def changed(self, name: str, known: ImageEvidence | None) -> None:
        """Takes in an object as it is now: throws the dice over an answer that is new to us."""
        if known is None:
            self._seen.pop(name, None)
            self._wanted.pop(name, None)
            return
        said = answer(known.status)
        if self._seen.get(name) == said:
            return
        self._seen[name] = said
        self._wanted.pop(name, None)
        if not is_looked_at(known):
            return
        by, at = known.status.answered_by, known.status.at or _now()
        if by and by != self._writer.identity:
            self._colleagues[by] = max(at, self._colleagues.get(by, at))
        if by in self._suspects or self._draw() < self._chance(by):
            self._wanted[name] = (_now(), 0)

    def _chance(self, by: str) -> float:
        """So that all replicas together look again at `share`: of others' answers, and of our own where there is nobody else."""
        since = _now() - _COLLEAGUE
        others = sum(at >= since for at in self._colleagues.values())
        if by == self._writer.identity:
            return 0.0 if others else self._share
        return 1.0 - float((1 - self._share) ** (1 / max(others, 1)))

    def due(self, known: ImageEvidence) -> Due | None:
        """Returns when it is to be looked at again, None where it is not: after everything that somebody waits for."""
        at, attempts = self._wanted.get(known.metadata.name, (None, 0))
        return msgspec.structs.replace(renewal(known, at), attempts=attempts) if at is not None else None

    def failed(self, name: str) -> None:
        """It told nothing: again later, a few times."""
        _, attempts = self._wanted.pop(name, (None, 0))
        if attempts + 1 < _ATTEMPTS:
            self._wanted[name] = (_now() + max(backoff(attempts + 1), timedelta(seconds=10)), attempts + 1)
        metrics.SECOND_LOOKS.labels("unknown").inc()

    def suspect(self, pod: str, known: Mapping[str, ImageEvidence]) -> list[str]:
        """Everything that a pod answered is to be looked at again; returns the names."""
        if not pod or pod == self._writer.identity or pod in self._suspects:
            return []
        self._suspects.add(pod)
        found = [name for name, each in known.items() if each.status.answered_by == pod and is_looked_at(each)]
        self._wanted |= {name: (_now(), 0) for name in found if name not in self._wanted}
        return found

    async def conclude(self, known: ImageEvidence, found: _Found) -> ImageEvidence | None:
        """Compares, and writes what came of it under the answer that was looked at; None where another one stands there by now.

        Raises:
            ApiError: the API server did not take it.
        """
        name, current = known.metadata.name, known
        if self._may_be_a_fluke(known, found):
            self.failed(name)
            return None
        self._wanted.pop(name, None)
        outcome, change, reason = self._compared(known.status, found)
        if outcome is Compared.WORSE:
            LOG.error("%s: a second look is worse than the answer of %s: %s", name, known.status.answered_by or "an older version", reason)
        metrics.SECOND_LOOKS.labels(outcome.value.lower()).inc()
        look = SecondLook(by=self._writer.identity, of=known.status.answered_by, at=_now(), outcome=outcome, reason=one_line(reason))
        for _ in range(_TRIES):
            try:
                return await put(self._client, current, msgspec.structs.replace(current.status, **change, second_look=look), self._writer)
            except LostError:
                stored = await self._again(known)
                if stored is None:
                    return None
                current = stored
        raise ApiError(f"{name}: what a second look says cannot be written: it is written over each time", code=409)

    async def _again(self, known: ImageEvidence) -> ImageEvidence | None:
        """The object as it is stored now, where the answer is still the one that was looked at."""
        try:
            stored = store.read(await self._client.get(IMAGE_EVIDENCE, known.metadata.name))
        except Error:
            return None
        return stored if answer(stored.status) == answer(known.status) else None

    def _may_be_a_fluke(self, known: ImageEvidence, found: _Found) -> bool:
        """Whether only an excuse was not found, for the first time: a registry that is slow hides one."""
        first, (_, attempts) = known.status.scan, self._wanted.get(known.metadata.name, (None, 0))
        if attempts or first is None or not isinstance(found, Scan):
            return False
        return bool(disagreement.unexcused(first, found)) and not disagreement.worse(first, found)

    def _compared(self, first: EvidenceStatus, found: _Found) -> tuple[Compared, dict[str, Any], str]:
        """What came of it, and what is written: nothing where the first answer stands."""
        now = _now()
        if isinstance(found, Scan):
            if first.scan is None:
                return Compared.AGREES, {}, ""
            reason = "; ".join(filter(None, (disagreement.worse(first.scan, found), disagreement.unexcused(first.scan, found))))
            change: dict[str, Any] = {"scan": msgspec.structs.replace(found, scanned_at=now)}
            if reason and not disagreement.by_as_old_a_database(first.scan, found):
                return Compared.NEWER, {**change, "at": now}, reason
        else:
            reason = disagreement.unproven(first.proofs, found)
            known = {proof.demand: proof for proof in found if proof.outcome is not Proven.UNKNOWN}
            proofs = tuple(known.get(proof.demand, proof) for proof in first.proofs)
            change = {"proofs": proofs, "proven": store.proven(proofs)}
        return (Compared.WORSE, {**change, "at": now}, reason) if reason else (Compared.AGREES, {}, "")


def is_looked_at(known: ImageEvidence) -> bool:
    """Whether there is an answer of the kind that is looked at again: what is in a digest, or what is proven about it."""
    return known.status.phase is Phase.READY and not known.is_resolution


def _now() -> datetime:
    return datetime.now(UTC)
