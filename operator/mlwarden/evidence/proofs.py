"""What can be proven about a digest: every demand against every repository it is in, until one of them settles it.

A signature is of a digest and not of a place, so it counts wherever it is found; a copy that was pushed elsewhere without its signatures is
the same image. An attestation counts as long as there is no newer one: whoever copies an image, and leaves behind that it failed its last
scan, changes nothing, so for those every repository is asked. That there are none is known only when every repository has said so: one
that could not be asked leaves it `Unknown`.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec

from mlwarden.errors import EvidenceError, InputError
from mlwarden.evidence import vex
from mlwarden.evidence.attestations import Attested
from mlwarden.evidence.credentials import Credentials
from mlwarden.evidence.failure import GatherError, one_line
from mlwarden.evidence.registries import Access
from mlwarden.evidence.registry import Registry
from mlwarden.evidence.tool import Pull
from mlwarden.model import reference as references
from mlwarden.model.signing import Demand, Proof, Proven

_ANONYMOUS = Credentials()
_NO_VERIFIER = EvidenceError("the scanner has no cosign", hint="install cosign 3.1.2 or later, and name it with --cosign")
LOG = logging.getLogger(__name__)
_PROCESSES = 4
"""Runs of cosign at the same time, beside one for each question: 100 MB each, for a tenth of a second. The one of its own is so that
registries that hang, a minute each time, cost whoever asks about their images and nobody else; who may ask is for the caller to bound."""
_BETTER = (Proven.VERIFIED, Proven.UNKNOWN, Proven.INVALID, Proven.MISSING)
"""Of the answers of several repositories the first of these counts."""


class Verifier(Protocol):
    """`evidence.cosign.Cosign`."""

    async def establish(self, pull: Pull, demand: Demand) -> Proof:
        """Raises GatherError, EvidenceError."""
        ...

    async def attested(self, pull: Pull, demand: Demand) -> Sequence[Attested]:
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
        self, candidates: Sequence[str], demands: Mapping[str, Demand], credentials: Credentials = _ANONYMOUS
    ) -> tuple[Proof, ...]:
        """Returns one proof per demand, under the name that it was asked by.

        Args:
            candidates: `repository@sha256:…`, all of one digest.
            demands: by id.
            credentials: for this question alone, before the configured ones.

        Raises:
            EvidenceError: the verifier itself is not fit for use.
        """
        ways, slots = [_Ways(self._registry.showing(credentials), text) for text in candidates], _Slots(self._processes)
        return tuple(await asyncio.gather(*(self._one(ways, slots, name, demand) for name, demand in demands.items())))

    async def documents(
        self, candidates: Sequence[str], demands: Mapping[str, Demand], credentials: Credentials = _ANONYMOUS
    ) -> tuple[vex.Document, ...]:
        """Returns the VEX documents about a digest that are signed by whom they are demanded of; the demand's name is their source.

        From every repository: what was taken back in one of them is not said any more by a copy elsewhere. What cannot be had, or read,
        excuses nothing, and is no reason to lose the scan.
        """
        ways, slots = [_Ways(self._registry.showing(credentials), text) for text in candidates], _Slots(self._processes)
        found = await asyncio.gather(*(self._said(ways, slots, name, demand) for name, demand in demands.items()))
        return tuple(document for each in found for document in each)

    async def _said(self, ways: Sequence["_Ways"], slots: "_Slots", name: str, demand: Demand) -> list[vex.Document]:
        documents: list[vex.Document] = []
        for way in [way for each in ways for way in await each.found()]:
            if isinstance(way, Exception) or self._verifier is None:
                continue
            try:
                async with slots.one():
                    attested = await self._verifier.attested(way, demand)
                documents += [vex.read(each.predicate, source=name, signer=each.signer) for each in attested]
            except EvidenceError as error:
                LOG.warning("VEX documents of %s: %s", demand.authority.name, error.message)
        return documents

    async def _one(self, ways: Sequence["_Ways"], slots: "_Slots", name: str, demand: Demand) -> Proof:
        found: list[Proof] = []
        for each in ways:
            found += await self._at(each, slots, demand)
            if found[-1].outcome is Proven.VERIFIED and not demand.predicate_type:
                break
        best = min(found, key=_rank, default=None) or _proof(
            Proven.UNKNOWN, EvidenceError("nobody said in which repository this digest is")
        )
        return msgspec.structs.replace(best, demand=name, authority=demand.authority.name)

    async def _at(self, ways: "_Ways", slots: "_Slots", demand: Demand) -> list[Proof]:
        """At least one: of the mirrors of a repository, which may not have its signatures, and of itself."""
        if self._verifier is None:
            return [_proof(Proven.UNKNOWN, _NO_VERIFIER)]
        found: list[Proof] = []
        for way in await ways.found():
            try:
                if isinstance(way, Exception):
                    found.append(_proof(Proven.UNKNOWN, way))
                    continue
                async with slots.one():
                    found.append(await self._verifier.establish(way, demand))
            except GatherError as error:
                found.append(_proof(Proven.UNKNOWN, error))
            if found[-1].outcome is Proven.VERIFIED and not demand.predicate_type:
                break
        return found


def _rank(proof: Proof) -> tuple[bool, float, int]:
    """The least counts: of attestations with a date the newest, whichever repository it is in, and at the same date the one that fails."""
    if proof.made_at is not None and proof.outcome in {Proven.VERIFIED, Proven.INVALID}:
        return False, -proof.made_at.timestamp(), -_BETTER.index(proof.outcome)
    return True, 0, _BETTER.index(proof.outcome)


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
        self._registry, self._text = registry, text
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
            reference = references.parse(self._text)
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
