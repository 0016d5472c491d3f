"""What can be proven about a digest: every demand against every repository it is in, until one of them settles it.

A signature is of a digest and not of a place, so it counts wherever it is found; a copy that was pushed elsewhere without its signatures is
the same image. That there are none is known only when every repository has said so: one that could not be asked leaves it `Unknown`.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec

from mlwarden.errors import EvidenceError, InputError
from mlwarden.evidence.failure import GatherError, TransientError, one_line
from mlwarden.evidence.registry import Registry
from mlwarden.evidence.trivy import Pull
from mlwarden.model import reference as references
from mlwarden.model.reference import Reference
from mlwarden.model.signing import Demand, Proof, Proven

_PROCESSES = 4
"""Runs of cosign at the same time: 100 MB each, for a tenth of a second."""
_BETTER = (Proven.VERIFIED, Proven.UNKNOWN, Proven.INVALID, Proven.MISSING)
"""Of the answers of several repositories the first of these counts."""


class Verifier(Protocol):
    """`evidence.cosign.Cosign`."""

    async def establish(self, pull: Pull, demand: Demand) -> Proof:
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

    async def prove(self, candidates: Sequence[str], demands: Mapping[str, Demand]) -> tuple[Proof, ...]:
        """Returns one proof per demand, under the name that it was asked by.

        Args:
            candidates: `repository@sha256:…`, all of one digest.
            demands: by id.

        Raises:
            EvidenceError: the verifier itself is not fit for use.
        """
        return tuple(await asyncio.gather(*(self._one(candidates, name, demand) for name, demand in demands.items())))

    async def _one(self, candidates: Sequence[str], name: str, demand: Demand) -> Proof:
        found: list[Proof] = []
        for text in candidates:
            try:
                proof = await self._at(references.parse(text), demand)
            except (GatherError, InputError) as error:
                proof = _proof(Proven.UNKNOWN, error)
            found.append(proof)
            if proof.outcome is Proven.VERIFIED:
                break
        best = min(found, key=lambda proof: _BETTER.index(proof.outcome), default=None) or _proof(
            Proven.UNKNOWN, EvidenceError("nobody said in which repository this digest is")
        )
        return msgspec.structs.replace(best, demand=name, authority=demand.authority.name)

    async def _at(self, reference: Reference, demand: Demand) -> Proof:
        if not reference.digest:
            raise InputError(f"{reference.repository} is named without a digest")
        if self._verifier is None:
            raise TransientError("the scanner has no cosign", hint="install cosign 3.1.2 or later, and name it with --cosign")
        self._registry.refuse(reference)
        pull = Pull(
            image=reference.at(reference.digest),
            digest=reference.digest,
            plain_http=self._registry.plain(reference.registry),
            docker_config=self._registry.docker_config(reference.registry),
        )
        async with self._processes:
            return await self._verifier.establish(pull, demand)


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
