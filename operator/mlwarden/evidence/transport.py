"""HTTP towards hosts that anybody may have named: no credentials across a redirect, no endless body, no address where no registry is.

An HTTP client's own redirects, cookies, decompression and `~/.netrc` were rejected: each of them has been somebody's CVE. What a request
may raise becomes one of the two kinds of failure here, so that nothing above knows aiohttp.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType

import aiohttp
import msgspec
from aiohttp.connector import Connection
from multidict import CIMultiDictProxy
from yarl import URL

from mlwarden.evidence.failure import DefinitiveError, TransientError, one_line
from mlwarden.evidence.network import ForbiddenAddressError, GuardedResolver, forbidden, private
from mlwarden.evidence.relay import Take

_MAX_REDIRECTS = 3
_SSL = re.compile(r" ssl:(?:<[^>]*>|\w+)")
"""What aiohttp puts into its messages for people."""
_MAX_RETRY_AFTER = 3600.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class _Response(aiohttp.ClientResponse):
    """Remembers whom it is from: a response without a body lets go of its connection at once."""

    peer = ""

    async def start(self, connection: Connection) -> "_Response":
        """Reads the head."""
        name = connection.transport.get_extra_info("peername") if connection.transport is not None else None
        self.peer = str(name[0]) if name else ""
        await super().start(connection)
        return self


class Answer(msgspec.Struct, frozen=True):
    """What came back; the body of a 200 alone, and never longer than was asked for."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def media_type(self) -> str:
        """Of the body, without parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def retry_after(self) -> float:
        """Seconds of a `Retry-After` header (a number or an HTTP date), 0 where there is none to be read, at most an hour."""
        value = self.headers.get("Retry-After", "")
        if value.isascii() and value.isdigit():
            seconds = float(value[:9])
        else:
            try:
                seconds = (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds()
            except (ValueError, TypeError, OverflowError):
                return 0
        return min(max(seconds, 0), _MAX_RETRY_AFTER)


class Transport:
    """Requests under the rules above.

    Args:
        plain_http: hosts (`host` or `host:port`) that are spoken to in plain HTTP.
        authorities: host → PEM of certificate authorities that are trusted for that host alone, beside the system's.
        ca_file: PEM file of certificate authorities that are trusted for every host beside the system's.
        listed: every host that the administrator named: to these, and from these as from a private network, redirects into private networks
            are followed.

    Hosts that the administrator listed in the first two may be on loopback.
    """

    def __init__(
        self, *, plain_http: frozenset[str], authorities: Mapping[str, str], ca_file: str = "", listed: frozenset[str] = frozenset()
    ) -> None:
        self._plain, self._listed = plain_http, listed
        self._tls = _context(ca_file)
        self._own_tls = {host: _context(ca_file, pem) for host, pem in authorities.items()}
        self._session: aiohttp.ClientSession | None = None
        self._public: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """To be called in an event loop, and `close` later."""
        self._session, self._public = self._opened(public=False), self._opened(public=True)

    def _opened(self, *, public: bool) -> aiohttp.ClientSession:
        resolver = GuardedResolver(self._plain | self._own_tls.keys(), public=public)
        # No limit: hosts that hang would take what there is from all others. How much is asked at a time is bounded by who asks.
        connector = aiohttp.TCPConnector(resolver=resolver, ssl=self._tls, limit=0, use_dns_cache=False)
        return aiohttp.ClientSession(
            read_bufsize=1 << 20,  # layers of gigabytes are passed on
            connector=connector,
            response_class=_Response,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a digest is of the bytes as sent, and a small body must not become a large one
            trust_env=False,  # would read credentials from ~/.netrc
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"User-Agent": "mlwarden", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Ends every connection."""
        for session in (self._session, self._public):
            if session is not None:
                await session.close()

    def guard(self, url: URL, *, public: bool = False) -> None:
        """Raises DefinitiveError unless a URL is HTTPS, or HTTP to a listed host, and not to a literal address that is forbidden."""
        host = url.host or ""
        listed = authority(url) in self._plain
        if url.scheme != "https" and not (url.scheme == "http" and listed):
            raise DefinitiveError(
                f"{one_line(authority(url), 100)} would be spoken to in plain HTTP",
                hint="list the host with --plain-http if that is meant",
            )
        if url.user or url.password or not host:
            raise DefinitiveError(f"{one_line(authority(url), 100)} is not a plain URL")
        if forbidden(host, loopback=listed or authority(url) in self._own_tls, public=public):
            raise DefinitiveError(f"{one_line(host, 100)} is an address where no registry may be")

    async def request(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        cap: int,
        data: Mapping[str, str] | None = None,
        take: Take | None = None,
    ) -> Answer:
        """One request, its redirects followed without credentials and nowhere `guard` would not go.

        Args:
            method: HEAD, GET or POST.
            url: where to.
            headers: an `Authorization` among them is for this host alone.
            cap: bytes of body that are read; more is a failure.
            data: a form; what carries one is not redirected.
            take: is given an answer with status 200 as it comes; the body is not read here then.
        """
        if self._session is None or self._public is None:
            raise RuntimeError("Registry is used outside of its context")
        first, behind = url, False
        for _ in range(_MAX_REDIRECTS + 1):
            # A registry that anybody may have named, and anybody may run, leads nobody into the networks behind us.
            public = url.host != first.host and not behind and self._listed.isdisjoint({authority(url), authority(first)})
            self.guard(url, public=public)
            tls, session = self._own_tls.get(authority(url), self._tls), self._public if public else self._session
            async with session.request(method, url, headers=headers, allow_redirects=False, data=data, ssl=tls) as response:
                behind = behind or (url is first and isinstance(response, _Response) and private(response.peer))
                location = response.headers.get("Location", "")
                if response.status not in _REDIRECTS or not location:
                    if take is not None and response.status == 200:
                        await take(response)
                        return Answer(status=200, headers=response.headers, body=b"")
                    body = await _read(response, cap, url) if response.status == 200 else b""
                    return Answer(status=response.status, headers=response.headers, body=body)
            if data is not None:
                raise DefinitiveError(f"{authority(url)}: the token service redirects a request that carries credentials")
            headers = {name: value for name, value in headers.items() if name != "Authorization"}
            try:
                url = url.join(URL(location))
            except ValueError:
                raise DefinitiveError(f"{authority(url)}: redirects to something that is not a URL") from None
        raise DefinitiveError(f"{authority(url)}: more than {_MAX_REDIRECTS} redirects")


class Deadline:
    """Turns whatever a request may raise, and running out of time, into the two kinds of failure."""

    def __init__(self, seconds: float, name: str) -> None:
        self._timeout, self._seconds, self._name = asyncio.timeout(seconds), seconds, name

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise TransientError(f"{self._name}: the registry did not answer within {self._seconds:g} s") from None
        if isinstance(error, ForbiddenAddressError) or isinstance(getattr(error, "os_error", None), ForbiddenAddressError):
            raise DefinitiveError(f"{self._name}: its registry leads to an address where no registry may be") from None
        if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
            raise TransientError(f"{self._name}: no trusted TLS connection ({one_line(str(error), 120)})") from None
        if isinstance(error, ValueError):  # aiohttp.InvalidURL, and UnicodeError for labels that DNS does not know
            raise DefinitiveError(f"{self._name}: not a host that can be asked") from None
        if isinstance(error, aiohttp.ClientError | OSError):
            raise TransientError(
                f"{self._name}: the registry cannot be reached ({one_line(_SSL.sub('', str(error)) or type(error).__name__, 120)})"
            ) from None


def authority(url: URL) -> str:
    """`host` or `host:port` as it stands in a reference."""
    host = f"[{url.host}]" if url.host and ":" in url.host else (url.host or "")
    return f"{host}:{url.explicit_port}" if url.explicit_port is not None else host


async def _read(response: aiohttp.ClientResponse, cap: int, url: URL) -> bytes:
    """The body, refused as soon as it is longer than `cap`. A HEAD has none."""
    body = bytearray()
    if cap:
        async for chunk in response.content.iter_chunked(1 << 16):
            body += chunk
            if len(body) > cap:
                response.close()
                raise DefinitiveError(f"{authority(url)}: an answer of more than {cap >> 10} KiB")
    return bytes(body)


def _context(ca_file: str, pem: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    if pem:
        context.load_verify_locations(cadata=pem)
    return context
