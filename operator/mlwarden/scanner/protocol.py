"""What agent and worker say to each other: one question and one answer per connection, each a line of JSON on a unix socket.

The worker may be taken over by an image it reads. So the agent takes nothing from it but these types, of bounded size, and closing the
connection is all it takes to stop the work. gRPC and HTTP were rejected: two message types need neither.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TypeVar

import msgspec

from mlwarden.errors import InputError
from mlwarden.evidence.credentials import Credential, Credentials
from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError, one_line
from mlwarden.model.digest import Digest, digest
from mlwarden.model.evidence import Scan
from mlwarden.model.signing import Demand, Proof

QUESTION_LIMIT = 1 << 21
ANSWER_LIMIT = 1 << 24


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
        vex: whose documents are wanted, keys filled in.
        fresh: read the image itself, whatever is kept of it.
    """

    references: tuple[str, ...]
    credentials: tuple[PullCredential, ...] = ()
    vex: dict[str, Demand] = {}
    fresh: bool = False


class LookAgain(_Message, frozen=True, kw_only=True, tag="again"):
    """What would you say of these digests now, without pulling any of them?"""

    digests: tuple[str, ...]


class Verify(_Message, frozen=True, kw_only=True, tag="verify"):
    """What can be proven about this digest? `references`: `repository@sha256:…`, to try in turn; `demands`: by id, keys filled in."""

    references: tuple[str, ...]
    demands: dict[str, Demand]
    credentials: tuple[PullCredential, ...] = ()


class Report(_Message, frozen=True, kw_only=True, tag="state"):
    """How are you?"""


class Resolved(_Message, frozen=True, kw_only=True, tag="resolved"):
    """What it points at."""

    digest: str


class Scanned(_Message, frozen=True, kw_only=True, tag="scanned"):
    """What is in it."""

    scan: Scan


class ScannedAgain(_Message, frozen=True, kw_only=True, tag="scanned again"):
    """Digest → what is in it by the present database; those that have to be pulled for it are left out."""

    scans: dict[str, Scan]


class Verified(_Message, frozen=True, kw_only=True, tag="verified"):
    """What was found out, one per demand."""

    proofs: tuple[Proof, ...]


class State(_Message, frozen=True, kw_only=True, tag="state"):
    """How the worker is.

    Attributes:
        trivy: its version.
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


Question = Resolve | Look | LookAgain | Verify | Report
Answer = Resolved | Scanned | ScannedAgain | Verified | State | Failed
_ANSWERS: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
_QUESTIONS: msgspec.json.Decoder[Question] = msgspec.json.Decoder(Question)
_T = TypeVar("_T", Resolved, Scanned, ScannedAgain, Verified, State)


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
        timeout: seconds for any answer; the worker has shorter limits of its own.
    """

    def __init__(self, socket: str, *, timeout: float = 3600) -> None:
        self._socket, self._timeout = socket, timeout

    async def resolve(self, reference: str, credentials: tuple[PullCredential, ...] = ()) -> Digest:
        """Raises DefinitiveError, TransientError."""
        answer = await self._ask(Resolve(reference=reference, credentials=credentials), Resolved)
        try:
            return digest(answer.digest)
        except InputError:
            raise TransientError("the scanner's worker answered with something that is not a digest") from None

    async def scan(
        self,
        references: tuple[str, ...],
        credentials: tuple[PullCredential, ...] = (),
        vex: Mapping[str, Demand] = MappingProxyType({}),
        *,
        fresh: bool = False,
    ) -> Scan:
        """Raises DefinitiveError, TransientError. Cancelling it stops the scan."""
        return (await self._ask(Look(references=references, credentials=credentials, vex=dict(vex), fresh=fresh), Scanned)).scan

    async def scan_again(self, digests: tuple[str, ...]) -> dict[str, Scan]:
        """Raises TransientError. Only of digests that were asked about."""
        scans = (await self._ask(LookAgain(digests=digests), ScannedAgain)).scans
        return {of: scan for of, scan in scans.items() if of in digests}

    async def verify(
        self, references: tuple[str, ...], demands: dict[str, Demand], credentials: tuple[PullCredential, ...] = ()
    ) -> tuple[Proof, ...]:
        """Raises DefinitiveError, TransientError. One proof per demand, or it is no answer."""
        proofs = (await self._ask(Verify(references=references, demands=demands, credentials=credentials), Verified)).proofs
        if sorted(proof.demand for proof in proofs) != sorted(demands):
            raise TransientError("the scanner's worker answered other demands than it was asked")
        return proofs

    async def state(self) -> State:
        """Raises TransientError while there is no worker."""
        return await self._ask(Report(), State)

    async def _ask(self, message: Question, expected: type[_T]) -> _T:
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await asyncio.open_unix_connection(self._socket, limit=ANSWER_LIMIT)
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
            raise TransientError("the scanner's worker did not answer in time") from None
        except OSError as error:
            raise TransientError(f"the scanner's worker cannot be reached ({type(error).__name__})", retry_after=5) from None
        except (ValueError, RecursionError):  # a line that is too long, cut off or no message
            raise TransientError("the scanner's worker ended without an answer") from None
        if isinstance(answer, Failed):
            raise _failure(answer)
        if not isinstance(answer, expected):
            raise TransientError("the scanner's worker answered another question")
        return answer


def _failure(answer: Failed) -> GatherError:
    kind = DefinitiveError if answer.definitive else TransientError
    return kind(one_line(answer.reason), retry_after=min(max(answer.retry_after, 0), 3600))
