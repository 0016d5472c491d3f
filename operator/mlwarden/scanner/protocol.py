"""What agent, worker and verifier say to each other: one question and one answer per connection, each a line of JSON on a unix socket.

The worker may be taken over by an image it reads. So the agent takes nothing from it but these types, of bounded size, and closing the
connection is all it takes to stop the work. What is asked about signatures goes to the verifier, over a socket that the worker does not
have: it cannot answer for it. gRPC and HTTP were rejected: two message types need neither.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

import msgspec

from mlwarden.errors import InputError
from mlwarden.evidence.credentials import Credential, Credentials
from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError, one_line
from mlwarden.evidence.history import Looked
from mlwarden.evidence.vex import Document
from mlwarden.model.digest import Digest, digest
from mlwarden.model.evidence import Scan, Unheard
from mlwarden.model.signing import Demand, Place, Proof

QUESTION_LIMIT = ANSWER_LIMIT = 1 << 24


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", forbid_unknown_fields=True):
    """Base of all messages."""


class PullCredential(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A credential that may be shown for one image, `registry/repository`, while one question is answered."""

    image: str
    credential: Credential


class Resolve(_Message, frozen=True, kw_only=True, tag="resolve"):
    """What does this reference point at?"""

    reference: str
    credentials: tuple[PullCredential, ...] = ()


class Look(_Message, frozen=True, kw_only=True, tag="scan"):
    """What is in this digest?

    Attributes:
        references: `repository@sha256:…`, to try in turn.
        credentials: to pull with.
        documents: verified, that may speak of it.
        fresh: read the image itself, whatever is kept of it.
    """

    references: tuple[str, ...]
    credentials: tuple[PullCredential, ...] = ()
    documents: tuple[Document, ...] = ()
    fresh: bool = False


class Find(_Message, frozen=True, kw_only=True, tag="find"):
    """Which of these, `repository@sha256:…`, has the image?"""

    references: tuple[str, ...]
    credentials: tuple[PullCredential, ...] = ()


class LookAgain(_Message, frozen=True, kw_only=True, tag="again"):
    """What would you say of these digests now, without pulling any of them?"""

    digests: tuple[str, ...]


class Verify(_Message, frozen=True, kw_only=True, tag="verify"):
    """What can be proven about this digest? `references`: `repository@sha256:…`, to try in turn; `demands`: by id, keys filled in."""

    references: tuple[str, ...]
    demands: dict[str, Demand]
    credentials: tuple[PullCredential, ...] = ()


class Documents(_Message, frozen=True, kw_only=True, tag="documents"):
    """What do those who may excuse say about this digest? `demands`: by the source that they are to be called, keys filled in."""

    references: tuple[str, ...]
    demands: dict[str, Demand]
    credentials: tuple[PullCredential, ...] = ()


class Report(_Message, frozen=True, kw_only=True, tag="state"):
    """How are you?"""


class Resolved(_Message, frozen=True, kw_only=True, tag="resolved"):
    """What it points at."""

    digest: str


class Found(_Message, frozen=True, kw_only=True, tag="found"):
    """One that has it."""

    reference: str


class Scanned(_Message, frozen=True, kw_only=True, tag="scanned"):
    """What is in it."""

    scan: Scan


class ScannedAgain(_Message, frozen=True, kw_only=True, tag="scanned again"):
    """Digest → what is in it by the present database; those that have to be pulled for it are left out."""

    scans: dict[str, Scan]


class Verified(_Message, frozen=True, kw_only=True, tag="verified"):
    """What was found out: one proof per demand, and of each place what it has answered."""

    proofs: tuple[Proof, ...]
    places: tuple[Place, ...] = ()


class Documented(_Message, frozen=True, kw_only=True, tag="documented"):
    """What they say, signed by them; what does not count of it, and which repositories were asked whose."""

    documents: tuple[Document, ...]
    unheard: tuple[Unheard, ...] = ()
    places: tuple[Place, ...] = ()


class State(_Message, frozen=True, kw_only=True, tag="state"):
    """How the worker is, or the verifier.

    Attributes:
        trivy: its version; `""` of a verifier.
        database_at: age of the vulnerability database; None where there is none yet.
        canary_at: when its tools last found what is known to be there; None where they were not asked yet.
        unfit: what they got wrong since, `""` where nothing.
        roots: name → sha256 of its trust roots, in hexadecimal digits.
        scans: how many at the same time its memory allows; 0 where it does not say.
    """

    trivy: str
    database_at: datetime | None
    canary_at: datetime | None = None
    unfit: str = ""
    scans: int = 0
    roots: dict[str, str] = {}


class Failed(_Message, frozen=True, kw_only=True, tag="failed"):
    """Why there is no answer."""

    definitive: bool
    reason: str
    retry_after: float = 0


Question = Resolve | Find | Look | LookAgain | Verify | Documents | Report
Answer = Resolved | Found | Scanned | ScannedAgain | Verified | Documented | State | Failed
_ANSWERS: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
_QUESTIONS: msgspec.json.Decoder[Question] = msgspec.json.Decoder(Question)
_T = TypeVar("_T", Resolved, Found, Scanned, ScannedAgain, Verified, Documented, State)


def shown(credentials: tuple[PullCredential, ...]) -> Credentials:
    """Returns what the worker may show, each for its own image."""
    # `/v2` is what a path in front of the repository loses again, so that a repository called `v2/x` keeps its own.
    pairs = [(each.image.partition("/"), each.credential) for each in credentials]
    return Credentials([(f"{registry}/v2/{repository}", credential) for (registry, _, repository), credential in pairs])


def encode(message: Question | Answer) -> bytes:
    """Returns one line."""
    return msgspec.json.encode(message) + b"\n"


def question(line: bytes) -> Question:
    """Returns the question that a line is. Raises msgspec.MsgspecError, UnicodeDecodeError or RecursionError where it is none."""
    return _QUESTIONS.decode(line)


class Worker:
    """The agent's side.

    Args:
        socket: path of the worker's socket.
        verifier: path of the verifier's.
        timeout: seconds for any answer; the others have shorter limits of their own.
    """

    def __init__(self, socket: str, *, verifier: str, timeout: float = 3600) -> None:
        self._socket, self._verifier, self._timeout = socket, verifier, timeout

    async def resolve(self, reference: str, credentials: tuple[PullCredential, ...] = ()) -> Digest:
        """Raises DefinitiveError, TransientError."""
        answer = await self._ask(Resolve(reference=reference, credentials=credentials), Resolved, of=self._socket)
        try:
            return digest(answer.digest)
        except InputError:
            raise TransientError("the scanner's worker answered with something that is not a digest") from None

    async def find(self, references: tuple[str, ...], credentials: tuple[PullCredential, ...] = ()) -> str:
        """Raises DefinitiveError, TransientError."""
        found = (await self._ask(Find(references=references, credentials=credentials), Found, of=self._socket)).reference
        if found not in references:
            raise TransientError("the scanner's worker answered about other places than it was asked")
        return found

    async def scan(
        self,
        references: tuple[str, ...],
        credentials: tuple[PullCredential, ...] = (),
        documents: tuple[Document, ...] = (),
        *,
        fresh: bool = False,
    ) -> Scan:
        """Raises DefinitiveError, TransientError. Cancelling it stops the scan. Excuses that nobody signed are left out."""
        asked = Look(references=references, credentials=credentials, documents=documents, fresh=fresh)
        scan = (await self._ask(asked, Scanned, of=self._socket)).scan
        said = {(document.source, each.signer) for document in documents for each in document.statements}
        excused, affirmed = (
            tuple(each for each in spoken if (each.source, each.signer) in said) for spoken in (scan.suppressed, scan.affirmed)
        )
        return msgspec.structs.replace(scan, suppressed=excused, affirmed=affirmed)

    async def scan_again(self, digests: tuple[str, ...]) -> dict[str, Scan]:
        """Raises TransientError. Only of digests that were asked about."""
        scans = (await self._ask(LookAgain(digests=digests), ScannedAgain, of=self._socket)).scans
        return {of: scan for of, scan in scans.items() if of in digests}

    async def verify(self, references: tuple[str, ...], demands: dict[str, Demand], credentials: tuple[PullCredential, ...] = ()) -> Looked:
        """Raises DefinitiveError, TransientError. One proof per demand, and nothing about other places, or it is no answer."""
        answer = await self._ask(Verify(references=references, demands=demands, credentials=credentials), Verified, of=self._verifier)
        if sorted(proof.demand for proof in answer.proofs) != sorted(demands):
            raise TransientError("the scanner's verifier answered other demands than it was asked")
        _check(answer.places, references, demands)
        return Looked(proofs=answer.proofs, places=answer.places)

    async def documents(
        self, references: tuple[str, ...], demands: dict[str, Demand], credentials: tuple[PullCredential, ...] = ()
    ) -> Documented:
        """Raises DefinitiveError, TransientError. Only of sources that were asked for, and nothing about other places."""
        answer = await self._ask(Documents(references=references, demands=demands, credentials=credentials), Documented, of=self._verifier)
        _check(answer.places, references, demands)
        documents = tuple(each for each in answer.documents if each.source in demands)
        unheard = tuple(each for each in answer.unheard if each.source in demands)
        return Documented(documents=documents, unheard=unheard, places=answer.places)

    async def state(self) -> State:
        """How both are; what is said of signatures is the verifier's word alone. Raises TransientError while one of them is not there."""
        worker, verifier = await self._ask(Report(), State, of=self._socket), await self._ask(Report(), State, of=self._verifier)
        known = [each for each in (worker.canary_at, verifier.canary_at) if each is not None]
        return msgspec.structs.replace(
            worker,
            canary_at=min(known) if len(known) == 2 else None,
            unfit="; ".join(each for each in dict.fromkeys((worker.unfit, verifier.unfit)) if each),
            roots=verifier.roots,
        )

    async def _ask(self, message: Question, expected: type[_T], *, of: str) -> _T:
        who = "verifier" if of == self._verifier else "worker"
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await asyncio.open_unix_connection(of, limit=ANSWER_LIMIT)
                try:
                    writer.write(encode(message))
                    await writer.drain()
                    line = await reader.readline()
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await asyncio.shield(writer.wait_closed())
            answer = _ANSWERS.decode(line)
        except TimeoutError:
            raise TransientError(f"the scanner's {who} did not answer in time") from None
        except OSError as error:
            raise TransientError(f"the scanner's {who} cannot be reached ({type(error).__name__})", retry_after=5) from None
        except (ValueError, RecursionError):  # a line that is too long, cut off or no message
            raise TransientError(f"the scanner's {who} ended without an answer") from None
        if isinstance(answer, Failed):
            raise _failure(answer)
        if not isinstance(answer, expected):
            raise TransientError(f"the scanner's {who} answered another question")
        return answer


def _check(places: tuple[Place, ...], references: tuple[str, ...], demands: Mapping[str, Demand]) -> None:
    if any(place.reference not in references or not place.answered.keys() <= demands.keys() for place in places):
        raise TransientError("the scanner's verifier answered about other places than it was asked")


def _failure(answer: Failed) -> GatherError:
    kind = DefinitiveError if answer.definitive else TransientError
    return kind(one_line(answer.reason), retry_after=min(max(answer.retry_after, 0), 3600))
