"""What can be proven about a digest: every demand against every repository it is in, side by side.

A signature is of a digest and not of a place, so it counts wherever it is found, and the first one is enough; a copy that was pushed
elsewhere without its signatures is the same image. An attestation counts as long as there is no newer one: whoever copies an image, and
leaves behind that it failed its last scan, changes nothing, so for those every repository is asked. What is said is therefore said with
the places that said it: whoever names a repository that could not be asked has no answer from it (`checks.proven`).

Whoever may name repositories may name some that hang. So they are asked at the same time, none is waited for longer than its own time, and
what others have answered by then is kept.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec

from mlwarden.errors import EvidenceError, InputError
from mlwarden.evidence.attestations import Attestations
from mlwarden.evidence.credentials import Credentials
from mlwarden.evidence.failure import GatherError, TransientError, one_line
from mlwarden.evidence.hearing import Hearing
from mlwarden.evidence.history import Looked, together
from mlwarden.evidence.registries import Access
from mlwarden.evidence.registry import Registry
from mlwarden.evidence.tool import Pull
from mlwarden.model import reference as references
from mlwarden.model.signing import Demand, Place, Proof, Proven

_ANONYMOUS = Credentials()
_NOWHERE = EvidenceError("nobody said in which repository this digest is")
_NO_VERIFIER = EvidenceError("the scanner has no cosign", hint="install cosign 3.1.2 or later, and name it with --cosign")
_PROCESSES = 4
"""Runs of cosign at the same time, beside one for each question: 100 MB each, for a tenth of a second. The one of its own is so that
registries that hang, a minute each time, cost whoever asks about their images and nobody else; who may ask is for the caller to bound."""
_HEAD_START = 0.5
"""Seconds after which the next repository is asked for a signature, too."""
_RUN_SECONDS = 60
"""For one question in one place, once it is its turn."""
_ALL_SECONDS = 120
"""For all of them; what has not answered by then is `Unknown`."""


class Verifier(Protocol):
    """`evidence.cosign.Cosign`."""

    async def establish(self, pull: Pull, demand: Demand) -> Proof:
        """Raises GatherError, EvidenceError."""
        ...

    async def attested(self, pull: Pull, demand: Demand) -> Attestations:
        """Raises GatherError, EvidenceError."""
        ...


class Prover:
    """Answers demands.

    Args:
        registry: says how a registry is spoken to; entered.
        verifier: looks at one repository; None where there is no cosign: then nothing can be found out.
    """

    def __init__(self, *, registry: Registry, verifier: Verifier | None) -> None:
        self._registry, self._verifier = registry, verifier
        self._processes = asyncio.Semaphore(_PROCESSES)

    async def prove(
        self,
        candidates: Sequence[str],
        demands: Mapping[str, Demand],
        credentials: Credentials = _ANONYMOUS,
        *,
        seconds: float = _ALL_SECONDS,
    ) -> Looked:
        """Returns one proof per demand, under the name that it was asked by, and where it was looked.

        Args:
            candidates: `repository@sha256:…`, all of one digest; who is to be asked first comes first.
            demands: by id.
            credentials: for this question alone, before the configured ones.
            seconds: after which what is known by then is the answer.

        Raises:
            EvidenceError: the verifier itself is not fit for use.
        """
        ways, slots = [_Ways(self._registry.showing(credentials), text) for text in candidates], _Slots(self._processes)
        ends = asyncio.get_running_loop().time() + seconds
        found = await asyncio.gather(*(self._everywhere(ways, slots, demand, ends) for demand in demands.values()))
        proofs, said = [], dict(zip(demands, found, strict=True))
        for name, demand in demands.items():
            proof = together(list(said[name].values())) if said[name] else _proof(Proven.UNKNOWN, _NOWHERE)
            proofs.append(msgspec.structs.replace(proof, demand=name, authority=demand.authority.name))
        return Looked(proofs=tuple(proofs), places=tuple(_place(text, said) for text in dict.fromkeys(candidates)))

    async def _everywhere(self, ways: Sequence["_Ways"], slots: "_Slots", demand: Demand, ends: float) -> dict[str, Proof]:
        """What each place says about one demand, as far as it was asked: the first signature is enough."""
        loop, waiting, running, found = asyncio.get_running_loop(), list(ways), dict[asyncio.Task[Proof], str](), dict[str, Proof]()
        enough = not demand.predicate_type
        try:
            while (waiting or running) and loop.time() < ends:
                for way in waiting[: 1 if enough else None]:
                    running[asyncio.create_task(self._at(way, slots, demand))] = way.text
                    waiting = waiting[1:]
                left = ends - loop.time()
                done, _ = await asyncio.wait(
                    running, timeout=min(left, _HEAD_START) if waiting else left, return_when=asyncio.FIRST_COMPLETED
                )
                found |= {running.pop(task): task.result() for task in done}
                if enough and any(proof.outcome is Proven.VERIFIED for proof in found.values()):
                    return found
            late = TransientError("it did not say in time whether there is one")
            return found | {text: _proof(Proven.UNKNOWN, late) for text in (*running.values(), *(way.text for way in waiting))}
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def hearing(self, candidates: Sequence[str], demands: Mapping[str, Demand], credentials: Credentials = _ANONYMOUS) -> Hearing:
        """Returns what looks for the VEX documents about a digest that are signed by whom they are demanded of; to be entered.

        The demand's name is the source of what is found.
        """
        ways = {text: _Ways(self._registry.showing(credentials), text) for text in candidates}
        slots = _Slots(self._processes)

        async def look(text: str, demand: Demand, alive: Callable[[], None]) -> list[Attestations]:
            if self._verifier is None:
                raise _NO_VERIFIER
            found: list[Attestations] = []
            for way in await ways[text].found():
                if isinstance(way, Exception):
                    raise EvidenceError(way.message)
                alive()
                try:
                    async with slots.one(), asyncio.timeout(_RUN_SECONDS):
                        found.append(await self._verifier.attested(way, demand))
                except TimeoutError:
                    raise TransientError(f"cosign took more than {_RUN_SECONDS} s") from None
            return found

        return Hearing(look, candidates, demands)

    async def _at(self, ways: "_Ways", slots: "_Slots", demand: Demand) -> Proof:
        """What one place says: its mirrors, which may not have what belongs to an image, and itself."""
        if self._verifier is None:
            return _proof(Proven.UNKNOWN, _NO_VERIFIER)
        found: list[Proof] = []
        for way in await ways.found():
            try:
                if isinstance(way, Exception):
                    found.append(_proof(Proven.UNKNOWN, way))
                    continue
                async with slots.one(), asyncio.timeout(_RUN_SECONDS):
                    found.append(await self._verifier.establish(way, demand))
            except GatherError as error:
                found.append(_proof(Proven.UNKNOWN, error))
            except TimeoutError:
                found.append(_proof(Proven.UNKNOWN, TransientError(f"cosign took more than {_RUN_SECONDS} s")))
            if found[-1].outcome is Proven.VERIFIED and not demand.predicate_type:
                break
        said = together(found)
        # What a mirror does not have the registry itself may have: only when all of them have said so is there nothing.
        return said if said.answers else next((each for each in found if each.outcome is Proven.UNKNOWN), said)


def _place(text: str, said: Mapping[str, Mapping[str, Proof]]) -> Place:
    of = {name: proofs[text] for name, proofs in said.items() if text in proofs}
    reason = next((proof.reason for proof in of.values() if proof.outcome is Proven.UNKNOWN), "")
    answered = {name: proof.at for name, proof in of.items() if proof.outcome is not Proven.UNKNOWN}
    return Place(reference=text, at=datetime.now(UTC), reason=one_line(reason, 200), answered=answered)


class _Slots:
    """What one question may run at the same time: one by right, more where the others leave room."""

    def __init__(self, shared: asyncio.Semaphore) -> None:
        self._own, self._shared = asyncio.Semaphore(1), shared

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Room for one run."""
        async with self._shared if self._own.locked() and not self._shared.locked() else self._own:
            yield


class _Ways:
    """The ways to one `repository@sha256:…`, found out once for all demands, and only when they are needed."""

    def __init__(self, registry: Registry, text: str) -> None:
        self._registry, self.text = registry, text
        self._lock = asyncio.Lock()
        self._found: tuple[Pull | EvidenceError | InputError, ...] = ()

    async def found(self) -> tuple[Pull | EvidenceError | InputError, ...]:
        """At least one, or why there is none."""
        async with self._lock:
            if not self._found:
                self._found = await self._find()
        return self._found

    async def _find(self) -> tuple[Pull | EvidenceError | InputError, ...]:
        try:
            reference = references.parse(self.text)
        except InputError as error:
            return (error,)
        if not reference.digest:
            return (InputError(f"{reference.repository} is named without a digest"),)
        found = await self._registry.everywhere(reference, reference.digest)
        return tuple(Pull.by(way, reference.digest) if isinstance(way, Access) else way for way in found)


def trust_roots(named: Iterable[str]) -> dict[str, Path]:
    """Returns what `NAME=FILE` says on a command line.

    Raises:
        InputError: there is no such file.
    """
    found = {}
    for text in named:
        name, equals, path = text.partition("=")
        if not equals or not Path(path).is_file():
            raise InputError(f"{text!r} is not NAME=FILE of a trusted_root.json", hint="make one with cosign trusted-root create")
        found[name] = Path(path)
    return found


def _proof(outcome: Proven, error: EvidenceError | InputError) -> Proof:
    return Proof(demand="", outcome=outcome, reason=one_line(error.message), at=datetime.now(UTC))
