"""The processes that meet what anybody may have made: one resolves, pulls and scans, one verifies; both know nothing of the cluster.

They are two because the one reads every byte of an image, with all that may be wrong in the reader, and the other says who signed it:
whoever takes over the first must not be believed about that. Neither mounts a token, and both get a clean environment. Whoever closes a
connection stops the work behind it, so that an agent that died leaves no scan running.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, TypeVar

import msgspec

from mlwarden.errors import Error
from mlwarden.evidence.credentials import Credentials
from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError
from mlwarden.evidence.gather import Gatherer
from mlwarden.evidence.proofs import Prover
from mlwarden.evidence.summary import KEPT_UNHEARD
from mlwarden.evidence.trivy import Trivy
from mlwarden.evidence.vex import Document
from mlwarden.model.digest import digest
from mlwarden.model.evidence import Scan, Unheard
from mlwarden.scanner import protocol
from mlwarden.scanner.canary import Canary, UnfitError
from mlwarden.scanner.candidates import in_turn
from mlwarden.scanner.protocol import (
    Answer,
    Documented,
    Documents,
    Failed,
    Find,
    Found,
    Look,
    LookAgain,
    Question,
    Report,
    Resolve,
    Resolved,
    Scanned,
    ScannedAgain,
    State,
    Verified,
    Verify,
)

LOG = logging.getLogger(__name__)
_RESOLUTIONS = 32
_QUESTION_SECONDS = 10
_FIND_SECONDS = 60
_VERIFY_SECONDS = 300
_UPDATE_RETRY_SECONDS = 60
_DOCUMENTS = 8 << 20
"""Bytes of all VEX documents about one digest, as they are passed on."""
_T = TypeVar("_T")


class Service:
    """Answers questions: those about what is in an image, those about who signed it, or (in tests) both.

    Args:
        gatherer: resolves and scans; None in the verifier.
        trivy: whose state is told; None in the verifier.
        prover: answers demands about a digest, and fetches what was attested; None in the worker.
        canaries: whether its tools may be believed.
        workers: scans at the same time.
        seconds: for one digest altogether.
        roots: name → file of the trust roots that the prover uses.
    """

    def __init__(
        self,
        *,
        gatherer: Gatherer | None = None,
        trivy: Trivy | None = None,
        prover: Prover | None = None,
        canaries: Sequence[Canary],
        workers: int,
        seconds: float = 900,
        roots: Mapping[str, Path] = MappingProxyType({}),
    ) -> None:
        self._gatherer, self._trivy, self._prover, self._canaries = gatherer, trivy, prover, tuple(canaries)
        self._workers, self._seconds, self._roots = workers, seconds, dict(roots)
        self._again = asyncio.Semaphore(1)
        self._scans, self._resolutions = asyncio.Semaphore(workers), asyncio.Semaphore(_RESOLUTIONS)

    async def answer(self, question: Question) -> Answer:
        """Never raises but for cancellation: a failure is an answer."""
        try:
            return await self._answer(question)
        except GatherError as error:
            return Failed(definitive=isinstance(error, DefinitiveError), reason=error.message, retry_after=error.retry_after)
        except TimeoutError:
            return Failed(definitive=False, reason=f"it took more than {_VERIFY_SECONDS} s to look for signatures")
        except UnfitError as error:  # it tries itself out again soon, and the agent asks for nothing until then
            return Failed(definitive=False, reason=f"the scanner is not fit for use: {error.message}", retry_after=10)
        except Error as error:
            return Failed(definitive=False, reason=f"the scanner is not fit for use: {error.message}", retry_after=300)
        except Exception as error:  # a defect of ours is no answer about an image
            LOG.exception("%s", question)
            return Failed(definitive=False, reason=f"the scanner failed: {type(error).__name__}")

    async def _answer(self, question: Question) -> Answer:
        if isinstance(question, Report):
            return await self._state()
        if self._gatherer is not None and isinstance(question, Resolve | Find | Look | LookAgain):
            return await self._in_it(self._gatherer, question)
        if self._prover is not None and isinstance(question, Verify | Documents):
            return await self._signed(self._prover, question)
        raise TransientError(f"this process of the scanner is not asked about {type(question).__name__}")

    async def _in_it(self, gatherer: Gatherer, question: Resolve | Find | Look | LookAgain) -> Answer:
        match question:
            case Resolve(reference=reference, credentials=credentials):
                async with self._resolutions:
                    return Resolved(digest=await gatherer.resolve(reference, protocol.shown(credentials)))
            case Find(references=references, credentials=credentials):
                async with self._resolutions:
                    return Found(reference=await _find(gatherer, references, protocol.shown(credentials)))
            case Look(references=references, credentials=credentials, documents=documents, fresh=fresh):
                shown = protocol.shown(credentials)
                async with self._scans:
                    return Scanned(scan=await self._believed(self._look(gatherer, references, shown, documents, fresh=fresh)))
            case LookAgain(digests=digests):
                async with self._again:
                    found = await self._believed(gatherer.reevaluate([digest(of) for of in digests]))
                    return ScannedAgain(scans={str(of): scan for of, scan in found.scans.items()})

    async def _look(
        self, gatherer: Gatherer, references: Sequence[str], shown: Credentials, documents: Sequence[Document], *, fresh: bool
    ) -> Scan:
        """One digest, in all its repositories and with all that it stands for: in a bounded time."""
        if not fresh and (known := await gatherer.known(references, documents)) is not None:
            return known
        return await in_turn(
            references,
            self._seconds,
            lambda each: gatherer.scan((each,), shown, documents=documents, fresh=fresh),
            there=lambda each: gatherer.there(each, shown),
        )

    async def _signed(self, prover: Prover, question: Verify | Documents) -> Answer:
        shown = protocol.shown(question.credentials)
        async with asyncio.timeout(_VERIFY_SECONDS):
            if isinstance(question, Verify):
                looked = await self._believed(prover.prove(question.references, question.demands, shown))
                return Verified(proofs=looked.proofs, places=looked.places)
            async with prover.hearing(question.references, question.demands, shown) as hearing:
                documents, late = _that_fit(await self._believed(hearing.heard()))
                return Documented(documents=documents, unheard=(*hearing.unheard(), *late)[:KEPT_UNHEARD], places=hearing.places())

    async def _believed(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What a tool says, where it may be believed before and after."""
        try:
            for canary in self._canaries:
                await canary.ensure()
            found = await work
        finally:
            work.close()
        for canary in self._canaries:
            canary.believable()
        return found

    async def _state(self) -> State:
        good = [canary.good_at for canary in self._canaries if canary.good_at is not None]
        unfit = "; ".join(canary.unfit for canary in self._canaries if canary.unfit)
        at = min(good) if len(good) == len(self._canaries) and good else None
        roots = await asyncio.to_thread(_fingerprints, self._roots)
        state = State(trivy="", database_at=None, canary_at=at, unfit=unfit, scans=self._workers, roots=roots)
        if self._trivy is None:
            return state
        state = msgspec.structs.replace(state, trivy=await self._trivy.version())
        try:
            return msgspec.structs.replace(state, database_at=self._trivy.database().updated_at)
        except TransientError:
            return state

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one line in, one line out; an end of the other side meanwhile stops the work."""
        try:
            line = await asyncio.wait_for(reader.readline(), _QUESTION_SECONDS)
            work = asyncio.create_task(self.answer(protocol.question(line)))
            gone = asyncio.create_task(reader.read(1))
            try:
                await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    writer.write(protocol.encode(work.result()))
                    await writer.drain()
            finally:
                for task in (work, gone):
                    task.cancel()
                await asyncio.gather(work, gone, return_exceptions=True)
        except (TimeoutError, OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            LOG.warning("a connection ended: %s", type(error).__name__)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _find(gatherer: Gatherer, references: Sequence[str], shown: Credentials) -> str:
    async def there(reference: str) -> str:
        await gatherer.there(reference, shown)
        return reference

    return await in_turn(references, _FIND_SECONDS, there, there=lambda each: gatherer.there(each, shown))


def _that_fit(documents: Sequence[Document]) -> tuple[tuple[Document, ...], tuple[Unheard, ...]]:
    """As many as fit into an answer and into the next question, and why the others excuse nothing."""
    kept, left, room = [], [], _DOCUMENTS
    for document in documents:
        size = len(msgspec.json.encode(document))
        if size <= room:
            kept.append(document)
            room -= size
        else:
            left.append(Unheard(source=document.source, reason=f"it is too large ({size >> 10} KiB)"))
    return tuple(kept), tuple(left)


def _fingerprints(roots: Mapping[str, Path]) -> dict[str, str]:
    found = {}
    for name, path in roots.items():
        with contextlib.suppress(OSError):  # whoever is asked by it says so
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


async def serve(service: Service, path: Path, *, shared: bool = False) -> None:
    """Listens until cancelled. The socket is for this user alone; where it is shared, for the group of its directory as well."""
    listener = _listen(path, 0o660 if shared else 0o600)
    async with await asyncio.start_unix_server(service.connected, sock=listener, limit=protocol.QUESTION_LIMIT) as server:
        await server.serve_forever()


def _listen(path: Path, mode: int) -> socket.socket:
    """Binds under another name and renames, so that the socket is never there with other permissions or without a listener."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    made.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(made))
    made.chmod(mode)
    listener.listen(128)
    made.rename(path)
    return listener


async def keep_database(trivy: Trivy, *, every: float) -> None:
    """Keeps the vulnerability database current until cancelled: looks whether there is a newer one, every so many seconds."""
    while True:
        delay = every
        try:
            await trivy.update()
        except Error as error:
            LOG.warning("%s", error.diagnostics())
            delay = _UPDATE_RETRY_SECONDS
        await asyncio.sleep(delay)


class Scratch:
    """A directory of this process alone; those of processes that died are removed when the next one starts.

    A lock on a file in it says that its process lives: process ids begin again in every container.
    """

    def __init__(self, base: Path) -> None:
        base.mkdir(parents=True, exist_ok=True)
        for old in base.glob("mlwarden-worker-*"):
            with contextlib.suppress(OSError), (old / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix="mlwarden-worker-", dir=base))
        self._lock: IO[str] = (self.path / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.set_inheritable(self._lock.fileno(), False)

    def close(self) -> None:
        """Removes it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()
