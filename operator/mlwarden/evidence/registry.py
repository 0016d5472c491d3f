"""From an image reference to a digest, and from a digest to a manifest, over the OCI distribution API.

Source of the rules: distribution-spec v1.1 (pull, "Content verification"), docker's token authentication specification. An existing
client was rejected: the Python ones follow redirects with credentials, read bodies without a limit and know no difference between "no such
image" and "try again". What this one trusts is little: the registry says what a tag points at; bytes are believed under their digest only.
"""

import copy
import functools
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec
from yarl import URL

from mlwarden.errors import InputError
from mlwarden.evidence import challenge
from mlwarden.evidence.challenge import Challenge
from mlwarden.evidence.credentials import Credential, Credentials, docker_config
from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError, one_line
from mlwarden.evidence.registries import HOSTS, Access, Registries, system_authorities
from mlwarden.evidence.relay import Asked, Take
from mlwarden.evidence.transport import Answer, Deadline, Transport
from mlwarden.model import reference as references
from mlwarden.model.digest import Digest, digest
from mlwarden.model.reference import Reference

LOG = logging.getLogger(__name__)
MEDIA_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
MAX_MANIFEST = 4 << 20
"""Bytes; distribution-spec: registries should accept at least this."""
_MAX_TOKEN_BODY = 1 << 16
_SLOWEST = 1 << 20
"""Bytes a second at which a blob has to come, beside the timeout."""
_LONGEST = 3600.0
"""Seconds for one request that is passed on."""
_MAX_TOKENS = 1024
_MAX_CREDENTIALS = 9
"""Credentials that are tried for one image, the most specific first."""
_Found = TypeVar("_Found")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of a manifest or index, which hash to `digest`, and how to get there again."""

    digest: Digest
    media_type: str
    body: bytes
    access: Access


class _Token(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


class _Pass(msgspec.Struct, frozen=True, kw_only=True):
    """An `Authorization` that a registry has accepted or is about to see, and what it was made from."""

    value: str
    until: float
    credential: Credential | None

    def __repr__(self) -> str:
        return "_Pass()"


class Registry:
    """A client for every registry; an asynchronous context manager.

    Args:
        plain_http: hosts (`host` or `host:port`, as they stand in references) that are spoken to in plain HTTP and may be on loopback.
        credentials: each shown to its own host or that host's token service only, over TLS or a listed plain HTTP host.
        timeout: seconds for one call of a public method, tokens, redirects and mirrors included.
        ca_file: PEM file of certificate authorities that are trusted beside the system's, for every host.
        registries: mirrors, authorities and plain HTTP by host; `plain_http` is added to it.

    Attributes:
        anonymous: whether everything that this view (`showing`) was given came from the repository that was named, and took no credential:
            then anybody who reaches the registry can have it.
    """

    def __init__(
        self,
        *,
        plain_http: frozenset[str] = frozenset(),
        credentials: Credentials | None = None,
        timeout: float = 20,
        ca_file: str = "",
        registries: Registries | None = None,
    ) -> None:
        self._registries = registries or Registries()
        self._plain = self._registries.plain | plain_http
        authorities = {HOSTS.get(host, host): pem for host, pem in self._registries.authorities.items()}
        listed = frozenset(HOSTS.get(host, host) for host in self._registries.listed | plain_http)
        self._transport = Transport(plain_http=self._plain, authorities=authorities, ca_file=ca_file, listed=listed)
        self._keys: tuple[Credentials, ...] = (credentials or Credentials(),)
        self._timeout, self._ca = timeout, Path(ca_file).read_bytes() if ca_file else b""
        self._passes: dict[tuple[str, str], _Pass] = {}
        self.anonymous = True

    async def __aenter__(self) -> Self:
        self._transport.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._transport.close()

    def showing(self, credentials: Credentials) -> "Registry":
        """Returns the same client for one question: these credentials come first, and what was made with them is forgotten with it."""
        view = copy.copy(self)
        view.anonymous = True
        if credentials:
            view._keys, view._passes = (credentials, *self._keys), {}  # noqa: SLF001 -- of the same class
        return view

    async def resolve(self, reference: Reference) -> Digest:
        """Returns what the reference points at now: the digest of an index or of a manifest.

        Asks with HEAD, which rate limits do not count; where a registry's HEAD has no digest, the body is fetched and hashed.

        Raises:
            DefinitiveError, TransientError: why it could not be told.
        """
        if reference.digest:
            return reference.digest

        async def ask(place: Reference) -> Digest:
            answer, _ = await self._call("HEAD", place, place.tag, cap=0)
            claimed = answer.headers.get("Docker-Content-Digest", "")
            if claimed and answer.media_type in MEDIA_TYPES:
                try:
                    return digest(claimed)
                except InputError:
                    raise DefinitiveError(f"{_name(place)}: the registry's digest is not sha256: {one_line(claimed, 80)}") from None
            return (await self._get(place, place.tag)).digest

        return await self._anywhere(self._registries.places(reference, tag=True), ask)

    async def manifest(self, reference: Reference, wanted: Digest) -> Manifest:
        """Returns the manifest under `wanted` in the reference's repository or in a mirror of it, verified.

        Raises:
            DefinitiveError, TransientError: why it could not be had.
        """

        async def ask(place: Reference) -> Manifest:
            return await self._get(place, wanted)

        return await self._anywhere(self._registries.places(reference, tag=False), ask)

    async def blob(self, reference: Reference, wanted: Digest, *, cap: int) -> bytes:
        """Returns a blob of the reference's repository or of a mirror of it, verified.

        Raises:
            DefinitiveError, TransientError: why it could not be had; more than `cap` bytes are refused.
        """

        async def ask(place: Reference) -> bytes:
            answer, _ = await self._call("GET", place, wanted, cap=cap, kind="blobs")
            if "sha256:" + hashlib.sha256(answer.body).hexdigest() != wanted:
                raise DefinitiveError(f"{_name(place)}: the registry served other bytes than {wanted[:19]}… promises")
            return answer.body

        return await self._anywhere(self._registries.places(reference, tag=False), ask, more=cap / _SLOWEST)

    async def everywhere(self, reference: Reference, wanted: Digest) -> tuple[Access | GatherError, ...]:
        """Returns every way to `wanted`: of the mirrors that have it, then of the repository itself, or why it cannot be had there.

        What belongs to an image (signatures) may be in one place and not in another; what its own repository says is what counts at last.
        """
        found: list[Access | GatherError] = []
        places = self._registries.places(reference, tag=False)
        for place in places:
            try:
                async with Deadline(self._timeout / len(places), _name(place)):
                    found.append((await self._get(place, wanted)).access)
            except GatherError as error:
                if place is places[-1]:
                    found.append(error)
        return tuple(found)

    async def _anywhere(self, places: tuple[Reference, ...], ask: Callable[[Reference], Awaitable[_Found]], more: float = 0) -> _Found:
        """The first answer. Each place has its share of the time: a mirror that hangs does not take the registry's."""
        failures: list[GatherError] = []
        for place in places:
            try:
                async with Deadline(self._timeout / len(places) + more, _name(place)):
                    found = await ask(place)
                self.anonymous = self.anonymous and place is places[-1]
            except GatherError as error:
                failures.append(error)
                if place is not places[-1]:
                    LOG.info("the mirror is passed over: %s", error.message)
            else:
                return found
        *mirrors, own = failures
        if not mirrors:
            raise own
        kind = TransientError if any(isinstance(each, TransientError) for each in failures) else DefinitiveError
        message = f"{own.message}; and before that its mirror: {mirrors[0].message}"
        raise kind(message, hint=own.hint, retry_after=own.retry_after)

    async def _get(self, place: Reference, what: str) -> Manifest:
        answer, credential = await self._call("GET", place, what, cap=MAX_MANIFEST)
        found = Digest("sha256:" + hashlib.sha256(answer.body).hexdigest())
        claimed = answer.headers.get("Docker-Content-Digest", found)
        for expected in (what if what.startswith("sha256:") else found, claimed):
            if expected != found:
                raise DefinitiveError(
                    f"{_name(place)}: the registry served other bytes ({found[:19]}…) than {one_line(expected, 19)}… promises",
                    hint="the registry or something between is broken or hostile",
                )
        if answer.media_type not in MEDIA_TYPES:
            raise DefinitiveError(f"{_name(place)}: not an image but {one_line(answer.media_type, 80) or 'of no media type'}")
        return Manifest(digest=found, media_type=answer.media_type, body=answer.body, access=self._access(place, credential))

    def _access(self, place: Reference, credential: Credential | None) -> Access:
        return Access(
            repository=place.name,
            plain_http=place.registry in self._plain,
            docker_config=docker_config(place.registry, credential),
            ca=self._bundle(place.registry),
            through=functools.partial(self._pass_on, place),
        )

    async def _pass_on(self, place: Reference, asked: Asked, take: Take) -> None:
        """One request of a program that has no way of its own; how long it may take is that program's business."""
        async with Deadline(_LONGEST, _name(place)):
            await self._call(asked.method, place, asked.what, cap=0, kind=asked.kind, asked=asked, take=take)

    def _bundle(self, registry: str) -> bytes:
        own = self._registries.authorities.get(references.same_host(registry), "").encode()
        return b"\n".join(filter(None, (system_authorities(), self._ca, own))) if own or self._ca else b""

    async def _call(
        self,
        method: str,
        place: Reference,
        what: str,
        *,
        cap: int,
        kind: str = "manifests",
        asked: Asked | None = None,
        take: Take | None = None,
    ) -> tuple[Answer, Credential | None]:
        """One request for a manifest or a blob, and where the registry wants it one more with each credential that is meant for it.

        Returns the answer, a 200, and the credential that it took.
        """
        url = self._base(place.registry).joinpath("v2", *place.repository.split("/"), kind, what)
        accept = {"Accept": ", ".join(MEDIA_TYPES)}
        if asked is not None:
            url, accept = url.with_query(asked.query), {"Accept": asked.accept}
        known = self._passes.get((place.registry, place.repository))
        if known is not None and known.until > time.monotonic():
            answer = await self._transport.request(method, url, {**accept, "Authorization": known.value}, cap=cap, take=take)
            if answer.status not in {401, 403}:
                return self._had(answer, place, known.credential)
            self._passes.pop((place.registry, place.repository), None)
        answer = await self._transport.request(method, url, accept, cap=cap, take=take)
        if answer.status != 401:
            return _good(answer, place), None
        challenges = {found.scheme: found for header in answer.headers.getall("WWW-Authenticate", []) for found in challenge.parse(header)}
        refusal: GatherError | None = None
        for credential in self._candidates(place):
            try:
                shown = await self._authorize(place, challenges, credential)
                answer = await self._transport.request(method, url, {**accept, "Authorization": shown.value}, cap=cap, take=take)
                return self._had(answer, place, shown.credential)
            except DefinitiveError as error:
                self._passes.pop((place.registry, place.repository), None)
                refusal = refusal or error  # of the most specific credential: anonymous comes last, and its refusal says less
        raise refusal or _no_credentials(place)

    def _had(self, answer: Answer, place: Reference, credential: Credential | None) -> tuple[Answer, Credential | None]:
        good = _good(answer, place)
        self.anonymous = self.anonymous and credential is None
        return good, credential

    def _candidates(self, place: Reference) -> tuple[Credential | None, ...]:
        """What may be shown for this image, and at the end nothing: somebody else's wrong password must not hide what is public."""
        found = dict.fromkeys(credential for keys in self._keys for credential in keys.all(place.name))
        return (*tuple(found)[:_MAX_CREDENTIALS], None)

    def _base(self, registry: str) -> URL:
        host = HOSTS.get(registry, registry)
        try:
            return URL(f"{'http' if registry in self._plain else 'https'}://{host}")
        except ValueError:
            raise DefinitiveError(f"{one_line(registry, 100)} is not a registry host") from None

    async def _authorize(self, place: Reference, challenges: Mapping[str, Challenge], credential: Credential | None) -> _Pass:
        """The `Authorization` that a 401 asked for."""
        if bearer := challenges.get("bearer"):
            made = await self._token(place, bearer.parameters, credential)
        elif "basic" in challenges and credential is not None and credential.password:
            made = _Pass(value=credential.basic, until=time.monotonic() + 300, credential=credential)
        else:
            raise _no_credentials(place)
        if len(self._passes) >= _MAX_TOKENS:
            self._passes.clear()
        self._passes[place.registry, place.repository] = made
        return made

    async def _token(self, place: Reference, asked: Mapping[str, str], credential: Credential | None) -> _Pass:
        """A bearer token for pulling this repository and nothing else."""
        try:
            realm = URL(asked.get("realm", ""))
            self._transport.guard(realm)
        except ValueError:
            raise DefinitiveError(f"{_name(place)}: the registry names a token service that is not a URL") from None
        fields = {"service": asked.get("service", "")[:256], "scope": f"repository:{place.repository}:pull"}
        headers: dict[str, str] = {}
        shown = credential
        if not challenge.may_show_credentials(place.registry, realm, self._registries.realms(place.registry)):
            shown = None
        if shown is not None and shown.identity_token:
            form = {**fields, "grant_type": "refresh_token", "client_id": "mlwarden", "refresh_token": shown.identity_token}
            answer = await self._transport.request("POST", realm, headers, cap=_MAX_TOKEN_BODY, data=form)
        else:
            if shown is not None:
                headers["Authorization"] = shown.basic
            answer = await self._transport.request("GET", realm.update_query(fields), headers, cap=_MAX_TOKEN_BODY)
        try:
            token = msgspec.json.decode(_good(answer, place).body, type=_Token)
        except (ValueError, RecursionError):
            raise TransientError(f"{_name(place)}: the token service's answer is not a token") from None
        value = token.token or token.access_token or ""
        if not value or not value.isascii() or not value.isprintable():
            raise TransientError(f"{_name(place)}: the token service answered without a token")
        seconds = min(max((token.expires_in or 60) - 15, 0), 300)
        return _Pass(value=f"Bearer {value}", until=time.monotonic() + seconds, credential=shown)


_PULL_HINT = (
    "mlwarden pulls with the pull Secrets of the pod, where the chart's scanner.podPullSecrets says so, and with its --docker-config"
)


def _no_credentials(place: Reference) -> DefinitiveError:
    return DefinitiveError(f"{_name(place)}: {place.registry} wants credentials and there are none for it", hint=_PULL_HINT)


def _good(answer: Answer, place: Reference) -> Answer:
    """Returns an answer with status 200. Raises what any other status means."""
    name, wait = _name(place), answer.retry_after
    match answer.status:
        case 200:
            return answer
        case 404:
            raise DefinitiveError(f"{name}: no such image in the registry", hint="push it, or correct the name", status=404)
        case 401 | 403:
            raise DefinitiveError(f"{name}: the registry denies access ({answer.status})", hint=_PULL_HINT, status=answer.status)
        case 429:
            raise TransientError(f"{name}: the registry's rate limit is reached (429)", retry_after=wait or 60, status=429)
        case status if status >= 500:
            raise TransientError(f"{name}: the registry answers {status}", retry_after=wait, status=status)
        case status:
            raise DefinitiveError(f"{name}: the registry answers {status}", status=status)


def _name(reference: Reference) -> str:
    return one_line(reference.name, 160)
