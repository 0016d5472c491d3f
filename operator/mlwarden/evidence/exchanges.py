"""What the registry answered cosign, read from its debug log.

cosign does not tell "there is no signature" from "the signature could not be fetched": a bundle that the registry fails to deliver is
skipped in silence, and so is a failing list of referrers; then it looks for the older form, finds none, and says "no signatures found".
Taken at its word, a registry that hiccups makes an image unsigned. Its debug log (`-d`) has every request with its answer, so absence is
believed only where the registry was heard to say so.

Nothing here can make a signature valid: it only says why there is none. So what a hostile registry or a stored document writes into the
log (bodies are in it) can at most change one reason for a refusal into another.

Rejected: asking the registry again ourselves (another answer than the one cosign acted on), and exit codes alone (1 is everything).
"""

import re
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec

from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError, one_line

_TIME = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d "
_ANSWER = re.compile(rf"^{_TIME}<-- (\d{{3}}) (\S+) \(", re.MULTILINE)
_FAILURE = re.compile(rf"^{_TIME}<-- (\D.*?) [A-Z]+ (https?://\S+) \([^()]*\)(?: \[body redacted.*)?$", re.MULTILINE)
_LOGGED = re.compile(rf"^{_TIME}")
_RETRY_AFTER = re.compile(r"^Retry-After: (\d{1,5})\s*$", re.MULTILINE | re.IGNORECASE)
_ABSENT = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_ACCEPTABLE})
"""What a registry answers that does not have it, or does not know the referrers API (distribution-spec, "Listing Referrers")."""

_NO_TLS = ("first record does not look like a TLS handshake", "server gave HTTP response to HTTPS client")


class Exchanges(msgspec.Struct, frozen=True, kw_only=True):
    """The last answer to each request of one run.

    Attributes:
        answers: host and path → HTTP status, or what went wrong where there was no answer.
        retry_after: seconds, where the registry said so.
    """

    answers: dict[str, int | str]
    retry_after: float = 0

    def absent(self, suffix: str) -> bool:
        """Whether the registry said that it does not have a manifest whose name ends like this."""
        return any(path.endswith(suffix) and status in _ABSENT for path, status in self.answers.items())

    def asked(self, suffix: str) -> bool:
        """Whether a manifest whose name ends like this was asked for."""
        return any(path.endswith(suffix) for path in self.answers)

    def trouble(self) -> GatherError | None:
        """Why what cosign says about absence means nothing; None where the registry answered everything."""
        statuses = {status for path, status in self.answers.items() if not path.endswith("/v2/") or status not in {401, 403}}
        if HTTPStatus.TOO_MANY_REQUESTS in statuses:
            return TransientError("the registry's rate limit is reached (429)", retry_after=self.retry_after or 60)
        for status in sorted(status for status in statuses if isinstance(status, int)):
            if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
                return DefinitiveError(
                    f"the registry does not let its signatures be read ({status})",
                    hint="the pull credential must be good for the whole repository",
                )
            if status == HTTPStatus.REQUEST_TIMEOUT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return TransientError(f"the registry answered {status} when asked for signatures", retry_after=self.retry_after)
        said = sorted(status for status in statuses if isinstance(status, str))
        return TransientError(f"the registry cannot be reached: {one_line(said[0], 160)}") if said else None


def read(log: str) -> Exchanges:
    """Returns the exchanges in a debug log."""
    answers: dict[str, int | str] = {}
    found: list[tuple[int, str, int | str]] = [(each.start(), each[2], int(each[1])) for each in _ANSWER.finditer(log)]
    found += [(each.start(), each[2], each[1]) for each in _FAILURE.finditer(log)]
    for _, url, status in sorted(found, key=lambda each: each[0]):
        address = urlsplit(url)
        path = f"{address.netloc}{address.path}"
        before = answers.get(path)
        # cosign tries plain HTTP after HTTPS for private names: what was wrong with HTTPS says more, unless that was no HTTPS at all.
        told = isinstance(status, str) and isinstance(before, str)
        if not told or (any(each in str(before) for each in _NO_TLS) and "proxyconnect" not in str(status)):
            answers[path] = status
    waits = [float(each) for each in _RETRY_AFTER.findall(log)]
    return Exchanges(answers=answers, retry_after=min(max(waits, default=0), 3600))


def said(log: str, starts: Iterable[str] = ("Error: ",)) -> str:
    """Returns cosign's own last line that starts in one of these ways, without that start; empty where it said nothing."""
    lines = [line for line in log.splitlines() if not _LOGGED.match(line)]
    found = [line.removeprefix(start) for line in lines for start in starts if line.startswith(start)]
    return found[-1] if found else ""
