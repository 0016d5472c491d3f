"""From an image reference to a digest, and from a digest to a manifest, over the OCI distribution API.

Source of the rules: distribution-spec v1.1 (pull, "Content verification"), docker's token authentication specification. An existing
client was rejected: the Python ones follow redirects with credentials, read bodies without a limit and know no difference between "no such
image" and "try again". What this one trusts is little: the registry says what a tag points at; bytes are believed under their digest only.
"""

import asyncio
import hashlib
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from mlwarden.errors import InputError
from mlwarden.evidence import challenge
from mlwarden.evidence.credentials import Credential, Credentials
from mlwarden.evidence.failure import DefinitiveError, TransientError, one_line
from mlwarden.evidence.network import ForbiddenAddressError, GuardedResolver, forbidden
from mlwarden.model.digest import Digest, digest
from mlwarden.model.reference import Reference

MEDIA_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
MAX_MANIFEST = 4 << 20
"""Bytes; distribution-spec: registries should accept at least this."""
_MAX_TOKEN_BODY = 1 << 16
_MAX_REDIRECTS = 3
_MAX_RETRY_AFTER = 3600.0
_MAX_TOKENS = 1024
_HOSTS: Mapping[str, str] = {"docker.io": "registry-1.docker.io"}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of a manifest or index, which hash to `digest`."""

    digest: Digest
    media_type: str
    body: bytes


class _Token(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


class _Answer(msgspec.Struct, frozen=True):
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class Registry:
    """A client for every registry; an asynchronous context manager.

    Args:
        plain_http: hosts (`host` or `host:port`, as they stand in references) that are spoken to in plain HTTP and may be on loopback.
        credentials: by registry host; shown to that host or its own token service only, over TLS or a listed plain HTTP host.
        timeout: seconds for one call of a public method, tokens and redirects included.
        ca_file: PEM file of certificate authorities that are trusted beside the system's.
    """

    def __init__(
        self, *, plain_http: frozenset[str] = frozenset(), credentials: Credentials | None = None, timeout: float = 20, ca_file: str = ""
    ) -> None:
        self._plain = plain_http
        self._credentials = credentials or Credentials()
        self._timeout = timeout
        self._tls = ssl.create_default_context()
        if ca_file:
            self._tls.load_verify_locations(ca_file)
        self._session: aiohttp.ClientSession | None = None
        self._tokens: dict[tuple[str, str], tuple[float, str]] = {}

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(resolver=GuardedResolver(self._plain), ssl=self._tls, limit=64, use_dns_cache=False)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a digest is of the bytes as sent, and a small body must not become a large one
            trust_env=False,  # would read credentials from ~/.netrc
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"User-Agent": "mlwarden", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def resolve(self, reference: Reference) -> Digest:
        """Returns what the reference points at now: the digest of an index or of a manifest.

        Asks with HEAD, which rate limits do not count; where a registry's HEAD has no digest, the body is fetched and hashed.

        Raises:
            DefinitiveError, TransientError: why it could not be told.
        """
        if reference.digest:
            return reference.digest
        async with self._deadline(reference):
            answer = await self._call("HEAD", reference, reference.tag, cap=0)
            claimed, media_type = answer.headers.get("Docker-Content-Digest", ""), _media_type(answer)
            if claimed and media_type in MEDIA_TYPES:
                try:
                    return digest(claimed)
                except InputError:
                    raise DefinitiveError(f"{_name(reference)}: the registry's digest is not sha256: {one_line(claimed, 80)}") from None
            return (await self._get(reference, reference.tag)).digest

    async def manifest(self, reference: Reference, wanted: Digest) -> Manifest:
        """Returns the manifest under `wanted` in the reference's repository, verified.

        Raises:
            DefinitiveError, TransientError: why it could not be had.
        """
        async with self._deadline(reference):
            return await self._get(reference, wanted)

    def refuse(self, reference: Reference) -> None:
        """Raises DefinitiveError where the registry's address is one that is never connected to; for tools that connect by themselves."""
        self._guard(self._base(reference.registry))

    def plain(self, registry: str) -> bool:
        """Whether the administrator listed this registry for plain HTTP."""
        return registry in self._plain

    def docker_config(self, registry: str) -> bytes:
        """A docker `config.json` with this registry's credential alone, for tools that pull by themselves."""
        return self._credentials.docker_config(registry)

    async def _get(self, reference: Reference, what: str) -> Manifest:
        answer = await self._call("GET", reference, what, cap=MAX_MANIFEST)
        found = Digest("sha256:" + hashlib.sha256(answer.body).hexdigest())
        claimed = answer.headers.get("Docker-Content-Digest", found)
        for expected in (what if what.startswith("sha256:") else found, claimed):
            if expected != found:
                raise DefinitiveError(
                    f"{_name(reference)}: the registry served other bytes ({found[:19]}…) than {one_line(expected, 19)}… promises",
                    hint="the registry or something between is broken or hostile",
                )
        if (media_type := _media_type(answer)) not in MEDIA_TYPES:
            raise DefinitiveError(f"{_name(reference)}: not an image but {one_line(media_type, 80) or 'of no media type'}")
        return Manifest(digest=found, media_type=media_type, body=answer.body)

    def _deadline(self, reference: Reference) -> "_Deadline":
        return _Deadline(self._timeout, _name(reference))

    def _base(self, registry: str) -> URL:
        host = _HOSTS.get(registry, registry)
        try:
            return URL(f"{'http' if registry in self._plain else 'https'}://{host}")
        except ValueError:
            raise DefinitiveError(f"{one_line(registry, 100)} is not a registry host") from None

    def _guard(self, url: URL) -> None:
        """A URL that leaves the ways we go: only HTTPS, or HTTP to a listed host, and no literal address that is forbidden."""
        host = url.host or ""
        listed = _authority(url) in self._plain
        if url.scheme != "https" and not (url.scheme == "http" and listed):
            raise DefinitiveError(
                f"{one_line(_authority(url), 100)} would be spoken to in plain HTTP",
                hint="list the host with --plain-http if that is meant",
            )
        if url.user or url.password or not host:
            raise DefinitiveError(f"{one_line(_authority(url), 100)} is not a plain URL")
        if forbidden(host, loopback=listed):
            raise DefinitiveError(f"{one_line(host, 100)} is an address where no registry may be")

    async def _call(self, method: str, reference: Reference, what: str, *, cap: int) -> _Answer:
        """One request for a manifest, with at most one round of authentication, its status turned into an answer or a failure."""
        url = self._base(reference.registry).joinpath("v2", *reference.repository.split("/"), "manifests", what)
        key = (reference.registry, reference.repository)
        headers = {"Accept": ", ".join(MEDIA_TYPES)}
        expires, value = self._tokens.get(key, (0.0, ""))
        if value and expires > time.monotonic():
            headers["Authorization"] = value
        answer = await self._request(method, url, headers, cap=cap)
        if answer.status == 401:
            self._tokens.pop(key, None)
            headers["Authorization"] = await self._authorize(reference, answer.headers.getall("WWW-Authenticate", []))
            answer = await self._request(method, url, headers, cap=cap)
        if answer.status == 200:
            return answer
        raise _refusal(answer, reference)

    async def _request(
        self, method: str, url: URL, headers: Mapping[str, str], *, cap: int, data: Mapping[str, str] | None = None
    ) -> _Answer:
        """Follows redirects by itself: without credentials, and nowhere `_guard` would not go."""
        if self._session is None:
            raise RuntimeError("Registry is used outside of its context")
        for _ in range(_MAX_REDIRECTS + 1):
            self._guard(url)
            async with self._session.request(method, url, headers=headers, allow_redirects=False, data=data) as response:
                location = response.headers.get("Location", "")
                if response.status not in {301, 302, 303, 307, 308} or not location:
                    body = await _read(response, cap, url) if response.status == 200 else b""
                    return _Answer(status=response.status, headers=response.headers, body=body)
            if data is not None:
                raise DefinitiveError(f"{_authority(url)}: the token service redirects a request that carries credentials")
            headers = {name: value for name, value in headers.items() if name != "Authorization"}
            try:
                url = url.join(URL(location))
            except ValueError:
                raise DefinitiveError(f"{_authority(url)}: redirects to something that is not a URL") from None
        raise DefinitiveError(f"{_authority(url)}: more than {_MAX_REDIRECTS} redirects")

    async def _authorize(self, reference: Reference, headers: list[str]) -> str:
        """The `Authorization` that a 401 asked for."""
        credential = self._credentials.of(reference.registry)
        challenges = {found.scheme: found for header in headers for found in challenge.parse(header)}
        if bearer := challenges.get("bearer"):
            value, lifetime = await self._token(reference, bearer.parameters, credential)
        elif "basic" in challenges and credential is not None and credential.password:
            value, lifetime = credential.basic, 300.0
        else:
            raise DefinitiveError(f"{_name(reference)}: {reference.registry} wants credentials and there are none for it", hint=_PULL_HINT)
        if len(self._tokens) >= _MAX_TOKENS:
            self._tokens.clear()
        self._tokens[reference.registry, reference.repository] = (time.monotonic() + lifetime, value)
        return value

    async def _token(self, reference: Reference, asked: Mapping[str, str], credential: Credential | None) -> tuple[str, float]:
        """A bearer token for pulling this repository and nothing else, and the seconds to use it for."""
        try:
            realm = URL(asked.get("realm", ""))
            self._guard(realm)
        except ValueError:
            raise DefinitiveError(f"{_name(reference)}: the registry names a token service that is not a URL") from None
        fields = {"service": asked.get("service", "")[:256], "scope": f"repository:{reference.repository}:pull"}
        headers: dict[str, str] = {}
        shown = credential if challenge.may_show_credentials(reference.registry, realm) else None
        if shown is not None and shown.identity_token:
            form = {**fields, "grant_type": "refresh_token", "client_id": "mlwarden", "refresh_token": shown.identity_token}
            answer = await self._request("POST", realm, headers, cap=_MAX_TOKEN_BODY, data=form)
        else:
            if shown is not None:
                headers["Authorization"] = shown.basic
            answer = await self._request("GET", realm.update_query(fields), headers, cap=_MAX_TOKEN_BODY)
        if answer.status != 200:
            raise _refusal(answer, reference)
        try:
            token = msgspec.json.decode(answer.body, type=_Token)
        except (ValueError, RecursionError):
            raise TransientError(f"{_name(reference)}: the token service's answer is not a token") from None
        value = token.token or token.access_token or ""
        if not value or not value.isascii() or not value.isprintable():
            raise TransientError(f"{_name(reference)}: the token service answered without a token")
        return f"Bearer {value}", min(max((token.expires_in or 60) - 15, 0), 300)


_PULL_HINT = "mlwarden pulls with the credentials of its --docker-config"


class _Deadline:
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
                f"{self._name}: the registry cannot be reached ({one_line(str(error) or type(error).__name__, 120)})"
            ) from None


async def _read(response: aiohttp.ClientResponse, cap: int, url: URL) -> bytes:
    """The body, refused as soon as it is longer than `cap`. A HEAD has none."""
    body = bytearray()
    if cap:
        async for chunk in response.content.iter_chunked(1 << 16):
            body += chunk
            if len(body) > cap:
                response.close()
                raise DefinitiveError(f"{_authority(url)}: an answer of more than {cap >> 10} KiB")
    return bytes(body)


def _refusal(answer: _Answer, reference: Reference) -> DefinitiveError | TransientError:
    """What a status other than 200 means."""
    name, wait = _name(reference), _retry_after(answer.headers.get("Retry-After", ""))
    match answer.status:
        case 404:
            return DefinitiveError(f"{name}: no such image in the registry", hint="push it, or correct the name")
        case 401 | 403:
            return DefinitiveError(f"{name}: the registry denies access ({answer.status})", hint=_PULL_HINT)
        case 429:
            return TransientError(f"{name}: the registry's rate limit is reached (429)", retry_after=wait or 60)
        case status if status >= 500:
            return TransientError(f"{name}: the registry answers {status}", retry_after=wait)
        case status:
            return DefinitiveError(f"{name}: the registry answers {status}")


def _retry_after(value: str) -> float:
    """Seconds of a `Retry-After` header (a number or an HTTP date), 0 where there is none to be read, at most an hour."""
    if value.isascii() and value.isdigit():
        seconds = float(value[:9])
    else:
        try:
            seconds = (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0
    return min(max(seconds, 0), _MAX_RETRY_AFTER)


def _media_type(answer: _Answer) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _name(reference: Reference) -> str:
    return one_line(reference.name, 160)


def _authority(url: URL) -> str:
    """`host` or `host:port` as it stands in a reference."""
    host = f"[{url.host}]" if url.host and ":" in url.host else (url.host or "")
    return f"{host}:{url.explicit_port}" if url.explicit_port is not None else host
