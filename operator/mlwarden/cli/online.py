"""Evidence gathered on a laptop, by the same code as the cluster's scanner: for `mlwarden check --online`.

The judgement says what it lacks, that is gathered, and it is judged again: a tag, then what is in its digest, then its signatures. So
exactly what the cluster would ask for is asked for, and nothing else. What was gathered is kept as the same `ImageEvidence` objects that
the cluster has; saved in a file, a pipeline can judge by it again without pulling anything.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from mlwarden.checks.text import clean, printable
from mlwarden.cli import terminal
from mlwarden.errors import Error, EvidenceError, InputError
from mlwarden.evidence import store
from mlwarden.evidence.cosign import Cosign
from mlwarden.evidence.credentials import Credentials
from mlwarden.evidence.excuses import merged as excused
from mlwarden.evidence.failure import DefinitiveError, GatherError
from mlwarden.evidence.gather import ARCHITECTURES, Gatherer
from mlwarden.evidence.history import Looked, merged
from mlwarden.evidence.process import Limits
from mlwarden.evidence.proofs import Prover, trust_roots
from mlwarden.evidence.registries import Registries
from mlwarden.evidence.registry import Registry
from mlwarden.evidence.store import EvidenceStatus, ImageEvidence, Known
from mlwarden.evidence.summary import KEPT_UNHEARD
from mlwarden.evidence.tool import on_path
from mlwarden.evidence.trivy import Trivy, program
from mlwarden.model.evidence import SIGNATURES, Phase
from mlwarden.model.signing import Demand, Proven

_AT_ONCE = 2
_SCAN_SECONDS = 1800
_LARGEST_FILE = 256 << 20
Say = Callable[[str], None]
Demanded = Callable[[Sequence[str]], Mapping[str, Demand]]
"""References of one digest → what is to be proven about it."""


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """The file of `--evidence`: a List of `ImageEvidence`, as `kubectl get imageevidences -o json` prints it, too."""

    items: list[ImageEvidence] = []
    kind: str = "List"
    apiVersion: str = "v1"  # noqa: N815 -- Kubernetes' name


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """What gathers, and whose VEX documents go with a scan."""

    gatherer: Gatherer
    prover: Prover
    excuses: Mapping[str, Demand]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `--online` can be told."""
    group = parser.add_argument_group("evidence")
    group.add_argument(
        "--online", action="store_true", help="gather what is missing: registries are asked, images are scanned and verified"
    )
    group.add_argument(
        "--evidence", metavar="FILE", default="", help="judge by the evidence in this file; with --online, save what was gathered there"
    )
    group.add_argument("--trivy", metavar="PROGRAM", default="trivy", help="trivy 0.71 or later (default: on PATH)")
    group.add_argument("--cosign", metavar="PROGRAM", default="cosign", help="cosign 3.1.2 or later (default: on PATH)")
    text = "trusted_root.json that policies call NAME (repeatable)"
    group.add_argument("--trust-root", metavar="NAME=FILE", action="append", default=[], help=text)
    group.add_argument("--trivy-cache", metavar="DIR", default="", help="trivy's cache, with its database (default: trivy's own)")
    group.add_argument(
        "--plain-http", metavar="HOST", action="append", default=[], help="registry spoken to in plain HTTP; may be repeated"
    )
    group.add_argument("--registries", metavar="FILE", default="", help="mirrors and authorities, as scanner.registries of the chart")
    group.add_argument("--registry-ca", metavar="FILE", default="", help="PEM of certificate authorities of registries")


def read(path: Path) -> list[ImageEvidence]:
    """Returns the evidence of a file, each piece checked to be about what it says.

    Raises:
        InputError: it is no such file.
    """
    try:
        raw = path.read_bytes()[: _LARGEST_FILE + 1]
        if len(raw) > _LARGEST_FILE:
            raise InputError(f"{path} is larger than 256 MiB")
        return [store.checked(item) for item in msgspec.json.decode(raw, type=Saved).items]
    except (OSError, EvidenceError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is no file of evidence: {error}", hint="make one with mlwarden check --online --evidence FILE") from None


def _as_of(evidence: ImageEvidence, now: datetime) -> ImageEvidence:
    """What is believed for a minute only counts as of now: nothing is started by this judgement, which is about what was gathered."""
    status = evidence.status
    proofs = tuple(proof if proof.outcome is Proven.VERIFIED else msgspec.structs.replace(proof, at=now) for proof in status.proofs)
    good = {proof.demand for proof in proofs if proof.outcome is Proven.VERIFIED}
    asked = tuple(
        msgspec.structs.replace(place, answered={name: at if name in good else now for name, at in place.answered.items()})
        for place in store.places(evidence)
    )
    at = now if evidence.is_resolution else status.at
    return msgspec.structs.replace(evidence, status=msgspec.structs.replace(status, at=at, proofs=proofs, places=asked))


def write(path: Path, evidence: Iterable[ImageEvidence]) -> None:
    """Saves evidence, whole or not at all."""
    body = msgspec.json.format(msgspec.json.encode(Saved(items=list(evidence))), indent=1)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(body + b"\n")
    temporary.replace(path)


class Collection:
    """Evidence by the names of its objects, and what was already asked for."""

    def __init__(self, evidence: Iterable[ImageEvidence] = ()) -> None:
        self.objects = {each.metadata.name: each for each in evidence}
        self._asked: set[str] = set()

    def known(self, now: datetime) -> Known:
        """Returns all of it as facts. What a tag pointed at counts as of now, however long a scan took meanwhile."""
        return store.collect(_as_of(each, now) for each in self.objects.values())

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Returns what was not asked for yet, and remembers that it was."""
        found = [each for each in dict.fromkeys(wanted) if each not in self._asked]
        self._asked.update(found)
        return found

    async def gather(
        self, wanted: Sequence[str], sources: Sources, demands: Callable[[Sequence[str]], Mapping[str, Demand]], say: Say
    ) -> None:
        """Gathers everything that is wanted, a few at a time. What fails is evidence with a reason."""
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(number: int, each: str) -> None:
            async with free:
                say(f"[{number} of {len(wanted)}] {_doing(each)}")
                found = await _gathered(each, self.objects, sources, demands)
                if found is not None:
                    self.objects[found.metadata.name] = found
                    if found.status.phase is not Phase.READY:
                        say(f"[{number} of {len(wanted)}] {each}: {clean(found.status.reason)}")

        async with asyncio.TaskGroup() as tasks:
            for number, each in enumerate(wanted, 1):
                tasks.create_task(one(number, each))


def _doing(wanted: str) -> str:
    if wanted.startswith(SIGNATURES):
        return f"verifying {wanted}"
    return f"scanning {wanted}" if "@" in wanted else f"resolving {wanted}"


async def _gathered(wanted: str, known: Mapping[str, ImageEvidence], sources: Sources, demands: Demanded) -> ImageEvidence | None:
    try:
        made = store.read(store.pending(wanted))
    except Error:
        return None  # not an image: the judgement has said so
    before = known.get(made.metadata.name)
    if before is not None and not made.is_resolution:
        named = dict.fromkeys((*before.spec.references, *made.spec.references))
        made = msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, references=tuple(named)[-store.MAX_REFERENCES :]))
    references = made.spec.references
    try:
        if made.is_resolution:
            status = EvidenceStatus(phase=Phase.READY, digest=await sources.gatherer.resolve(references[0]))
        elif made.is_signatures:
            status = _known(await sources.prover.prove(references, demands(references)), before, datetime.now(UTC))
        else:
            async with sources.prover.hearing(references, sources.excuses) as hearing:
                documents, asked, unheard = await hearing.heard(), hearing.places(), hearing.unheard()
            scan = await sources.gatherer.scan(references, documents=documents)
            scan = excused(None, scan, datetime.now(UTC), sources=sources.excuses, answered={}, asked=asked)
            scan = msgspec.structs.replace(scan, unheard=(*unheard, *scan.unheard)[:KEPT_UNHEARD])
            status = EvidenceStatus(phase=Phase.READY, scan=scan, places=asked)
    except GatherError as error:
        phase = Phase.FAILED if isinstance(error, DefinitiveError) else Phase.PENDING
        status = EvidenceStatus(phase=phase, reason=error.message[:400])
    return msgspec.structs.replace(made, status=msgspec.structs.replace(status, at=datetime.now(UTC)))


def _known(looked: Looked, before: ImageEvidence | None, now: datetime) -> EvidenceStatus:
    """What is known of signatures after a look that asked every repository."""
    was = {proof.demand: proof for proof in before.status.proofs} if before is not None else {}
    proofs = tuple(merged(was.get(proof.demand), proof, now, complete=True) for proof in looked.proofs)
    return EvidenceStatus(phase=Phase.READY, proofs=proofs, places=looked.places)


@contextlib.asynccontextmanager
async def sources(options: argparse.Namespace, excuses: Mapping[str, Demand], say: Say) -> AsyncIterator[Sources]:
    """Opens what gathers, as the command was told.

    Raises:
        InputError: there is no trivy. EvidenceError: it is not one that may be used.
    """
    with tempfile.TemporaryDirectory(prefix="mlwarden-") as scratch:
        trivy = _trivy(options, Path(scratch))
        await _database(trivy, say)
        plain = frozenset(options.plain_http)
        registries = Registries.load(options.registries, plain_http=plain)
        async with Registry(registries=registries, credentials=_credentials(), ca_file=options.registry_ca) as registry:
            prover = Prover(registry=registry, verifier=_cosign(options, Path(scratch)))
            gatherer = Gatherer(registry=registry, trivy=trivy, architectures=ARCHITECTURES)
            yield Sources(gatherer=gatherer, prover=prover, excuses=excuses)


def _trivy(options: argparse.Namespace, scratch: Path) -> Trivy:
    binary = program(options.trivy)
    limits = Limits(seconds=_SCAN_SECONDS, cpu_seconds=4 * _SCAN_SECONDS)
    cache = Path(options.trivy_cache or _trivy_cache())
    return Trivy(binary=binary, cache=cache, scratch=scratch, limits=limits, ca_file=options.registry_ca)


def _cosign(options: argparse.Namespace, scratch: Path) -> Cosign | None:
    binary = on_path(options.cosign)
    roots = trust_roots(options.trust_root)
    return Cosign(binary=binary, scratch=scratch, ca_file=options.registry_ca, trust_roots=roots) if binary else None


def _credentials() -> Credentials | None:
    return next((Credentials.load(path) for path in _docker_configs() if path.is_file()), None)


async def _database(trivy: Trivy, say: Say) -> None:
    """A database that is there and not due is used; one that cannot be fetched is a reason in the judgement, not an end."""
    say(f"trivy {await trivy.version()}: looking whether its vulnerability database is current")
    try:
        await trivy.update()
    except GatherError as error:
        say(error.diagnostics())


def _trivy_cache() -> Path:
    """Trivy's own default."""
    return Path(os.environ.get("TRIVY_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trivy")


def _docker_configs() -> list[Path]:
    """Where docker and podman keep credentials, in the order they count. Credential helpers are not run."""
    own = Path(os.environ["DOCKER_CONFIG"]) if os.environ.get("DOCKER_CONFIG") else Path.home() / ".docker"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    auth = os.environ.get("REGISTRY_AUTH_FILE")
    return [
        *([Path(auth)] if auth else []),
        own / "config.json",
        *([Path(runtime) / "containers" / "auth.json"] if runtime else []),
    ]


def told(line: str) -> None:
    """Progress, where it does not get into what is read by a program."""
    terminal.say(printable(line), to=sys.stderr)
