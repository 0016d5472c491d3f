"""Whether the worker's tools still find what is known to be there.

A scanner that finds nothing looks like a cluster without vulnerabilities: a database that was emptied, a trivy whose detectors were left
out, a cosign that says yes. So before the first answer, every hour, and with every new database, the tools are asked about images whose
answer is known. Where they get it wrong the worker answers nothing any more, and the agent takes back what it said since they last got it
right.

Where the question cannot be asked (there is no database, trivy is killed for want of memory) nothing is known; that is no failure, but
two hours without a good answer is.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from mlwarden.errors import EvidenceError
from mlwarden.evidence.failure import GatherError, TransientError
from mlwarden.evidence.proofs import Verifier
from mlwarden.evidence.tool import Pull
from mlwarden.evidence.trivy import Trivy
from mlwarden.model.signing import Authority, Demand, Proven
from mlwarden.scanner.exhibits import Suspect, exhibited

LOG = logging.getLogger(__name__)
EVERY = timedelta(hours=1)
_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = 2 * EVERY
_AGAIN_SECONDS = 60.0
_SOON_SECONDS = 5.0


class UnfitError(EvidenceError):
    """The tools get wrong what is known."""


class Canary:
    """Asks a tool about images whose answer is known, and remembers how that went.

    Args:
        ask: does so. Raises UnfitError, TransientError, DefinitiveError.
        data: how old what the tool goes by is: with a new one it is asked again. Raises TransientError where there is none.

    Attributes:
        good_at: when all answers were last right.
        unfit: what was wrong the last time, `""` where nothing was.
    """

    def __init__(self, ask: Callable[[], Awaitable[None]], *, data: Callable[[], datetime] = lambda: _ALWAYS) -> None:
        self._ask, self._data = ask, data
        self._asking, self._failed, self._data_at = asyncio.Lock(), asyncio.Event(), _ALWAYS
        self.good_at: datetime | None = None
        self.unfit = ""

    async def keep(self) -> None:
        """Asks again when it is time, until cancelled."""
        said = ""
        while True:
            try:
                await self.ensure()
                said = ""
            except EvidenceError as error:
                if error.message != said:
                    LOG.warning("%s", error.diagnostics())
                said = error.message
            self._failed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SOON_SECONDS if said else _AGAIN_SECONDS):
                    await self._failed.wait()

    async def ensure(self) -> None:
        """Returns where the tool may be believed now.

        Raises:
            UnfitError: it got it wrong. TransientError: it could not be asked.
        """
        async with self._asking:
            now, data_at = datetime.now(UTC), self._data()
            known = self.good_at is not None and not self.unfit and self._data_at == data_at
            age = now - (self.good_at or _ALWAYS)
            if known and age < EVERY:
                return
            try:
                await self._ask()
            except GatherError as error:
                if known and age < _LONGEST:
                    return
                raise TransientError(f"the scanner could not try itself out: {error.message}", retry_after=_AGAIN_SECONDS) from None
            except UnfitError as error:
                if not self.unfit:
                    self._failed.set()
                self.unfit = error.message
                raise
            self.good_at, self.unfit, self._data_at = now, "", data_at

    def believable(self) -> None:
        """Raises UnfitError where the tool got it wrong meanwhile: what it just said is not passed on."""
        if self.unfit:
            raise UnfitError(self.unfit)


def of_trivy(trivy: Trivy, suspect: Suspect) -> Canary:
    """Trivy must find the suspect."""

    async def ask() -> None:
        async with exhibited(suspect) as exhibits:
            found = await trivy.scan(exhibits.vulnerable)
        if suspect.vulnerability not in {each.id for each in found.vulnerabilities}:
            raise UnfitError(
                f"trivy did not find {suspect.vulnerability} in {suspect.package} {suspect.version}",
                hint="its vulnerability database or the program itself is not what it should be; --canary names what must be found",
            )

    return Canary(ask, data=lambda: trivy.database().updated_at)


def of_cosign(verifier: Verifier) -> Canary:
    """Cosign must tell a good signature from a wrong one and from none."""

    async def ask() -> None:
        async with exhibited(Suspect()) as exhibits:
            questions = (
                (exhibits.unsigned, exhibits.key, False, "cosign verified an image that nobody signed"),
                (exhibits.signed, exhibits.other_key, False, "cosign verified a signature by another key"),
                (exhibits.signed, exhibits.key, True, "cosign did not verify a good signature"),
            )
            for pull, key, good, wrong in questions:
                if await _verified(verifier, pull, key) is not good:
                    raise UnfitError(wrong, hint="the program is not what it should be")

    return Canary(ask)


async def _verified(verifier: Verifier, pull: Pull, key: str) -> bool:
    proof = await verifier.establish(pull, Demand(authority=Authority(name="canary", key=key)))
    if proof.outcome is Proven.UNKNOWN:
        raise TransientError(proof.reason)
    return proof.outcome is Proven.VERIFIED
