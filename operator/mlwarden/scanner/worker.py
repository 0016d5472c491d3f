"""The process that reads hostile bytes: it resolves, pulls and scans, and knows nothing of the cluster.

It mounts no token and gets a clean environment. Whoever closes a connection stops the work behind it, so that an agent that died leaves
no scan running.
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
from mlwarden.evidence.trivy import Trivy
from mlwarden.evidence.vex import Document
from mlwarden.model.digest import digest
from mlwarden.model.evidence import Scan
from mlwarden.model.signing import Demand
from mlwarden.scanner import protocol
from mlwarden.scanner.canary import Canary, UnfitError
from mlwarden.scanner.candidates import in_turn
from mlwarden.scanner.protocol import (
    Answer,
    Failed,
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
_VERIFY_SECONDS = 300
_UPDATE_RETRY_SECONDS = 60
_T = TypeVar("_T")


class Service:
    """Answers questions.

    Args:
        gatherer: resolves and scans.
        trivy: whose state is told.
        prover: answers demands about a digest, and fetches what was attested.
        canaries: whether the tools may be believed: what scans, and what verifies where there is something that does.
        workers: scans at the same time.
        seconds: for one digest altogether.
        roots: name → file of the trust roots that the prover uses.
    """

    def __init__(
        self,
        *,
        gatherer: Gatherer,
        trivy: Trivy,
        prover: Prover,
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
        match question:
            case Resolve(reference=reference, credentials=credentials):
                async with self._resolutions:
                    return Resolved(digest=await self._gatherer.resolve(reference, protocol.shown(credentials)))
            case Look(references=references, credentials=credentials, vex=vex, fresh=fresh):
                async with self._scans:
                    looking = self._look(references, protocol.shown(credentials), vex, fresh=fresh)
                    return Scanned(scan=await self._believed(self._canaries[:1], looking))
            case LookAgain(digests=digests):
                async with self._again:
                    found = await self._believed(self._canaries[:1], self._gatherer.reevaluate([digest(of) for of in digests]))
                    return ScannedAgain(scans={str(of): scan for of, scan in found.scans.items()})
            case Verify(references=references, demands=demands, credentials=credentials):
                proving = self._prover.prove(references, demands, protocol.shown(credentials))
                async with asyncio.timeout(_VERIFY_SECONDS):
                    return Verified(proofs=await self._believed(self._canaries[1:], proving))
            case Report():
                return await self._state()

    async def _look(self, references: Sequence[str], credentials: Credentials, vex: Mapping[str, Demand], *, fresh: bool) -> Scan:
        """One digest, in all its repositories and with all that it stands for: in a bounded time."""
        documents: tuple[Document, ...] = ()
        if vex:
            with contextlib.suppress(TimeoutError):  # what cannot be had excuses nothing
                async with asyncio.timeout(_VERIFY_SECONDS):
                    documents = await self._prover.documents(references, vex, credentials)
        return await in_turn(
            references, self._seconds, lambda reference: self._gatherer.scan((reference,), credentials, documents=documents, fresh=fresh)
        )

    async def _believed(self, tried: Sequence[Canary], work: Coroutine[Any, Any, _T]) -> _T:
        """What a tool says, where it may be believed before and after."""
        try:
            for canary in tried:
                await canary.ensure()
            found = await work
        finally:
            work.close()
        for canary in self._canaries:
            canary.believable()
        return found

    async def _state(self) -> State:
        version = await self._trivy.version()
        good = [canary.good_at for canary in self._canaries if canary.good_at is not None]
        unfit = "; ".join(canary.unfit for canary in self._canaries if canary.unfit)
        at = min(good) if len(good) == len(self._canaries) and good else None
        roots = await asyncio.to_thread(_fingerprints, self._roots)
        state = State(trivy=version, database_at=None, canary_at=at, unfit=unfit, scans=self._workers, roots=roots)
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


def _fingerprints(roots: Mapping[str, Path]) -> dict[str, str]:
    found = {}
    for name, path in roots.items():
        with contextlib.suppress(OSError):  # whoever is asked by it says so
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


async def serve(service: Service, path: Path) -> None:
    """Listens until cancelled. The socket is for this user alone."""
    listener = _listen(path)
    async with await asyncio.start_unix_server(service.connected, sock=listener, limit=protocol.QUESTION_LIMIT) as server:
        await server.serve_forever()


def _listen(path: Path) -> socket.socket:
    """Binds under another name and renames, so that the socket is never there with other permissions or without a listener."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    made.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(made))
    made.chmod(0o600)
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
