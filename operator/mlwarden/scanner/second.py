"""Answers that are made a second time: who forges one must not be able to count on it.

Every replica throws dice over every answer that another one wrote, and makes some of them again, with its own tools and from the image
itself. Which ones is known to nobody before, and is written down nowhere until it is done. A replica that is alone looks again at what it
wrote itself: a worker that an image took over, or a tool that broke, does not always say the same.

A second answer that is worse replaces the first. Then every other answer of the same pod is looked at again, too, after everything that
somebody waits for. What dice chose does not wait behind that: whoever can ask for many images could put it off for ever. It is not claimed:
a claim would tell whoever forges, and give them something to take away. Nor does writing an answer again call it off.

Tags are left out: they move, and what one points at is judged by its digest.
"""

import logging
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from mlwarden.cluster import IMAGE_EVIDENCE, ApiError, Client, clock
from mlwarden.errors import Error
from mlwarden.evidence import disagreement, store
from mlwarden.evidence.failure import one_line
from mlwarden.evidence.history import merged
from mlwarden.evidence.store import Compared, EvidenceStatus, ImageEvidence, SecondLook
from mlwarden.model.evidence import Phase, Scan
from mlwarden.model.signing import Proof, Proven
from mlwarden.scanner import metrics
from mlwarden.scanner.agenda import Due, Rank, backoff, renewal
from mlwarden.scanner.claim import LostError, put
from mlwarden.scanner.provenance import Writer, answer

LOG = logging.getLogger(__name__)
_RANDOM = secrets.SystemRandom()
_TRIES = 8
_PAUSE = timedelta(seconds=10)
_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_ATTEMPTS = 10
"""Looks that told nothing (a registry that is away) before it is left to chance again."""
_COLLEAGUE = timedelta(hours=1)
"""Who answered since then is a replica that looks again at what we write."""
_Found = Scan | tuple[Proof, ...]


class _Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A second look that is to come: not before when, how many told nothing, and whether it goes before what is only being renewed."""

    at: datetime
    attempts: int = 0
    rank: Rank = Rank.HELD


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
        self._wanted: dict[str, _Wish] = {}
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
        said = answer(name, known.status)
        if self._seen.get(name) == said:
            return
        self._seen[name] = said
        by, now = known.status.answered_by, _now()
        if not is_looked_at(known) or (name in self._wanted and by == self._writer.identity):
            self._wanted.pop(name, None)
            return
        if by and by != self._writer.identity:
            self._colleagues[by] = max(min(known.status.at or now, now), self._colleagues.get(by, _EVER))
        if name in self._wanted:
            return  # it was written again: that does not call the look off
        if self._draw() < self._chance(by):
            self._wanted[name] = _Wish(at=now)
        elif by in self._suspects:
            self._wanted[name] = _Wish(at=now, rank=Rank.RENEWAL)

    def _chance(self, by: str) -> float:
        """So that all replicas together look again at `share`: of others' answers, and of our own where there is nobody else."""
        since = _now() - _COLLEAGUE
        others = sum(at >= since for at in self._colleagues.values())
        if by == self._writer.identity:
            return 0.0 if others else self._share
        return 1.0 - float((1 - self._share) ** (1 / max(others, 1)))

    def due(self, known: ImageEvidence) -> Due | None:
        """Returns when it is to be looked at again, None where it is not. It is on nobody's behalf, and fair among registries."""
        wish = self._wanted.get(known.metadata.name)
        return msgspec.structs.replace(renewal(known, wish.at), rank=wish.rank, attempts=wish.attempts) if wish is not None else None

    def failed(self, name: str) -> None:
        """It told nothing: again later, a few times."""
        wish = self._wanted.pop(name, None)
        if wish is not None and wish.attempts + 1 < _ATTEMPTS:
            attempts = wish.attempts + 1
            self._wanted[name] = msgspec.structs.replace(wish, at=_now() + max(backoff(attempts), _PAUSE), attempts=attempts)
        metrics.SECOND_LOOKS.labels("unknown").inc()

    def suspect(self, stored: ImageEvidence, known: Mapping[str, ImageEvidence]) -> list[str]:
        """Everything of the pod whose answer turned out too good is to be looked at again; returns the names."""
        look = stored.status.second_look
        pod = look.of if look is not None and look.outcome is Compared.WORSE and look.by == self._writer.identity else ""
        if not pod or pod == self._writer.identity or pod in self._suspects:
            return []
        self._suspects.add(pod)
        found = [name for name, each in known.items() if each.status.answered_by == pod and is_looked_at(each)]
        for name in found:
            self._wanted.setdefault(name, _Wish(at=_now(), rank=Rank.RENEWAL))
        return found

    async def conclude(self, known: ImageEvidence, found: _Found, began: datetime) -> ImageEvidence | None:
        """Compares with what stands there now, and writes what came of it; None where that told nothing.

        Args:
            known: as it was looked at.
            found: the second answer.
            began: when that look began.

        Raises:
            ApiError: the API server did not take it.
        """
        current: ImageEvidence | None = known
        for _ in range(_TRIES):
            if current is None or self._tells_nothing(current, found, began):
                self.failed(known.metadata.name)
                return None
            outcome, change, reason = self._compared(current.status, found)
            of = current.status.answered_by
            look = SecondLook(by=self._writer.identity, of=of, at=_now(), outcome=outcome, reason=one_line(reason))
            status = msgspec.structs.replace(current.status, **change, second_look=look)
            try:
                stored = await put(self._client, current, status, self._writer)
            except LostError:
                current = await self._again(known)
                continue
            self._wanted.pop(known.metadata.name, None)
            self._tell(known.metadata.name, outcome, of, reason)
            return stored
        raise ApiError(f"{known.metadata.name}: what a second look says cannot be written: it is written over each time", code=409)

    def noticed(self, known: ImageEvidence, found: Scan) -> SecondLook | None:
        """Returns what is to be written where a scan that was due anyway shows that the one before was too good; None where it does not."""
        first, of = known.status.scan, known.status.answered_by
        if first is None or not is_looked_at(known) or of == self._writer.identity or not disagreement.is_comparable(first, found):
            return None
        if not (reason := disagreement.worse(first, found)):
            return None
        self._tell(known.metadata.name, Compared.WORSE, of, reason)
        return SecondLook(by=self._writer.identity, of=of, at=_now(), outcome=Compared.WORSE, reason=one_line(reason))

    def _tell(self, name: str, outcome: Compared, of: str, reason: str) -> None:
        metrics.SECOND_LOOKS.labels(outcome.value.lower()).inc()
        if outcome is Compared.WORSE:
            LOG.error("%s: a second look is worse than the answer of %s: %s", name, of or "an older version", reason)

    async def _again(self, known: ImageEvidence) -> ImageEvidence | None:
        """The object as it is stored now, where somebody else's answer stands there."""
        try:
            stored = store.read(await self._client.get(IMAGE_EVIDENCE, known.metadata.name))
        except Error:
            return None
        name = known.metadata.name
        ours = stored.status.answered_by == self._writer.identity and answer(name, stored.status) != answer(name, known.status)
        return stored if is_looked_at(stored) and not ours else None

    def is_last(self, name: str) -> bool:
        """Whether this is the last try after many that told nothing: what answers now decides, and what hangs does not.

        Else whoever names a repository that never answers could keep a forged signature.
        """
        wish = self._wanted.get(name)
        return wish is not None and wish.attempts + 1 >= _ATTEMPTS

    def _tells_nothing(self, current: ImageEvidence, found: _Found, began: datetime) -> bool:
        """Whether what was proven could not be looked for, or may be newer than the look; and whether it may be a fluke."""
        if isinstance(found, Scan):
            return self._may_be_a_fluke(current, found)
        if disagreement.is_open(current.status.proofs, found):
            return True
        wish = self._wanted.get(current.metadata.name)
        is_newer = current.status.at is not None and current.status.at > began
        return is_newer and wish is not None and wish.attempts <= 1

    def _may_be_a_fluke(self, current: ImageEvidence, found: Scan) -> bool:
        """Whether only an excuse was not found, for the first time: a registry that is slow hides one."""
        first, wish = current.status.scan, self._wanted.get(current.metadata.name)
        if first is None or wish is None or wish.attempts:
            return False
        return bool(disagreement.unexcused(first, found)) and not disagreement.worse(first, found)

    def _compared(self, first: EvidenceStatus, found: _Found) -> tuple[Compared, dict[str, Any], str]:
        """What came of it, and what is written: nothing where the first answer stands."""
        now = _now()
        if isinstance(found, Scan):
            if first.scan is None:
                return Compared.AGREES, {}, ""
            lies = _joined(disagreement.worse(first.scan, found), disagreement.unexcused(first.scan, found))
            reason = _joined(lies, disagreement.unscanned(first.scan, found))
            change: dict[str, Any] = {"scan": msgspec.structs.replace(found, scanned_at=now)}
            if reason and not (lies and disagreement.is_comparable(first.scan, found)):
                return Compared.CORRECTED, {**change, "at": now}, reason
        else:
            reason = disagreement.unproven(first.proofs, found)
            known = {proof.demand: proof for proof in found if proof.outcome is not Proven.UNKNOWN}
            proofs = tuple(_after(proof, known.get(proof.demand), now) for proof in first.proofs)
            change = {"proofs": proofs, "proven": store.proven(proofs)}
        return (Compared.WORSE, {**change, "at": now}, reason) if reason else (Compared.AGREES, {}, "")


def _joined(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))


def _after(first: Proof, second: Proof | None, now: datetime) -> Proof:
    """What is known after a second look: what it denies is forgotten, and nothing else."""
    if second is None:
        return first
    return merged(None if disagreement.denied(first, second) else first, second, now, complete=False)


def is_looked_at(known: ImageEvidence) -> bool:
    """Whether there is an answer of the kind that is looked at again: what is in a digest, or what is proven about it."""
    return known.status.phase is Phase.READY and not known.is_resolution


def _now() -> datetime:
    return clock.now()
