import asyncio
import base64
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from mlwarden.evidence.credentials import Credential, Credentials
from mlwarden.evidence.failure import DefinitiveError, TransientError
from mlwarden.evidence.registry import MAX_MANIFEST, MEDIA_TYPES, Registry
from mlwarden.model.digest import Digest
from mlwarden.model.reference import Reference, parse

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
BODY = b'{"schemaVersion": 2}'
DIGEST = Digest("sha256:" + hashlib.sha256(BODY).hexdigest())
OTHER = Digest("sha256:" + "b" * 64)


def manifest(body: bytes = BODY, **headers: str) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": MEDIA_TYPES[2], "Docker-Content-Digest": DIGEST} | headers)


async def resolve(host: str, text: str = "team/model:1", **options: object) -> Digest:
    async with Registry(plain_http=frozenset({host}), **{"timeout": 5, **options}) as registry:
        return await registry.resolve(parse(f"{host}/{text}"))


async def fetch(host: str, digest: Digest = DIGEST, **options: object) -> bytes:
    async with Registry(plain_http=frozenset({host}), **{"timeout": 5, **options}) as registry:
        return (await registry.manifest(parse(f"{host}/team/model"), digest)).body


async def test_a_tag_is_resolved_by_one_head_that_accepts_every_kind_of_image(serve: Serve) -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.method, request.path, request.headers["Accept"]))
        return manifest()

    assert await resolve(await serve(handler)) == DIGEST
    assert seen == [("HEAD", "/v2/team/model/manifests/1", ", ".join(MEDIA_TYPES))]


async def test_a_registry_whose_head_has_no_digest_is_read_and_hashed(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        response = manifest()
        del response.headers["Docker-Content-Digest"]
        return response

    assert await resolve(await serve(handler)) == DIGEST


async def test_a_reference_with_a_digest_is_resolved_without_asking() -> None:
    async with Registry() as registry:
        assert await registry.resolve(parse(f"nobody.invalid/x@{DIGEST}")) == DIGEST


async def test_a_manifest_is_believed_under_its_digest_only(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return manifest(b'{"schemaVersion": 2, "evil": 1}')

    with pytest.raises(DefinitiveError, match="other bytes"):
        await fetch(await serve(handler))


async def test_a_registry_that_contradicts_its_own_header_is_not_believed(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return manifest(**{"Docker-Content-Digest": OTHER})

    with pytest.raises(DefinitiveError, match="other bytes"):
        await fetch(await serve(handler))


@pytest.mark.parametrize(("claimed", "media_type"), [("md5:x", MEDIA_TYPES[0]), ("sha512:" + "a" * 128, MEDIA_TYPES[0])])
async def test_a_digest_of_another_algorithm_is_refused(serve: Serve, claimed: str, media_type: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return manifest(**{"Docker-Content-Digest": claimed, "Content-Type": media_type})

    with pytest.raises(DefinitiveError, match="not sha256"):
        await resolve(await serve(handler))


async def test_what_is_not_an_image_is_refused(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return manifest(**{"Content-Type": "text/html"})

    with pytest.raises(DefinitiveError, match="not an image"):
        await resolve(await serve(handler))


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (404, DefinitiveError, "no such image"),
        (401, DefinitiveError, "credentials"),
        (403, DefinitiveError, "denies access"),
        (400, DefinitiveError, "answers 400"),
        (204, DefinitiveError, "answers 204"),
        (429, TransientError, "rate limit"),
        (500, TransientError, "answers 500"),
        (503, TransientError, "answers 503"),
    ],
)
async def test_every_status_is_definitive_or_transient(serve: Serve, status: int, kind: type[Exception], words: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status)

    host = await serve(handler)
    with pytest.raises(kind, match=words):
        await resolve(host)
    with pytest.raises(kind, match=words):
        await fetch(host)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("120", 120, 120),
        (format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True), 1, 600),
        (format_datetime(datetime.now(UTC) + timedelta(hours=20), usegmt=True), 3600, 3600),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 60, 60),
        ("99999999999999999999", 3600, 3600),
        ("soon", 60, 60),
        ("", 60, 60),
    ],
    ids=["seconds", "a date", "a far date", "a past date", "many seconds", "a word", "nothing"],
)
async def test_a_rate_limit_says_when_to_come_back_within_an_hour(serve: Serve, value: str, low: float, high: float) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": value})

    with pytest.raises(TransientError) as error:
        await resolve(await serve(handler))
    assert low <= error.value.retry_after <= high


async def test_a_registry_that_is_down_is_worth_another_try(unused_tcp_port: int) -> None:
    with pytest.raises(TransientError, match="cannot be reached") as error:
        await resolve(f"127.0.0.1:{unused_tcp_port}")
    assert "ssl:" not in str(error.value)
    assert "Connect call failed" in str(error.value)


async def test_a_name_that_does_not_exist_is_worth_another_try() -> None:
    async with Registry(timeout=20) as registry:
        with pytest.raises(TransientError):
            await registry.resolve(parse("registry.invalid/x:1"))


async def test_a_label_that_dns_does_not_know_is_not_an_internal_error() -> None:
    async with Registry(timeout=20) as registry:
        with pytest.raises(DefinitiveError):
            await registry.resolve(Reference(registry="a" * 70 + ".example", repository="x", tag="1", digest=None))


async def test_a_registry_that_hangs_costs_the_timeout_and_no_more(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(TransientError, match=r"did not answer within 0\.2 s"):
        await resolve(await serve(handler), timeout=0.2)


async def test_a_body_that_never_ends_is_cut_off(serve: Serve) -> None:
    sent = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": MEDIA_TYPES[0]})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"x" * 65536)
                sent += 65536
        return response

    with pytest.raises(DefinitiveError, match="more than 4096 KiB"):
        await fetch(await serve(handler))
    assert sent < 8 * MAX_MANIFEST


async def test_a_body_that_drips_is_cut_off(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": MEDIA_TYPES[0]})
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.Event().wait()
        return response

    with pytest.raises(TransientError, match="did not answer"):
        await fetch(await serve(handler), timeout=0.2)


async def test_a_compressed_body_is_not_unpacked(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        response = manifest()
        response.enable_compression(web.ContentCoding.gzip)
        return response

    with pytest.raises(DefinitiveError, match="other bytes"):
        await fetch(await serve(handler))


async def test_a_truncated_body_is_worth_another_try(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": MEDIA_TYPES[0], "Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"x")
        assert request.transport is not None
        request.transport.close()
        return response

    with pytest.raises(TransientError):
        await fetch(await serve(handler))


def tokens(realm: str, seen: list[tuple[str, str]], *, credential: str = "") -> Callable[[web.Request], Awaitable[web.Response]]:
    """A registry that wants a bearer token from `realm` (its own /token where empty), and notes who was shown what."""

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.path_qs, request.headers.get("Authorization", "")))
        if request.path == "/token":
            if credential and request.headers.get("Authorization") != credential:
                return web.Response(status=401)
            return web.json_response({"token": "t0ken", "expires_in": 300})
        if request.headers.get("Authorization") != "Bearer t0ken":
            where = realm or f"http://{request.host}/token"
            header = f'Bearer realm="{where}",service="s",scope="repository:other/secret:pull,push,delete"'
            return web.Response(status=401, headers={"WWW-Authenticate": header})
        return manifest()

    return handler


async def test_an_anonymous_token_is_asked_for_this_repository_and_pull_alone_and_reused(serve: Serve) -> None:
    seen: list[tuple[str, str]] = []
    host = await serve(tokens("", seen))
    async with Registry(plain_http=frozenset({host}), timeout=5) as registry:
        assert await registry.resolve(parse(f"{host}/team/model:1")) == DIGEST
        assert await registry.resolve(parse(f"{host}/team/model:1")) == DIGEST
    asked = [path for path, _ in seen if path.startswith("/token")]
    assert asked == ["/token?service=s&scope=repository:team/model:pull"]


async def test_a_token_service_of_the_registry_is_shown_its_credential(serve: Serve) -> None:
    seen: list[tuple[str, str]] = []
    credential = Credential(username="ana", password="s3cret")
    host = await serve(tokens("", seen, credential=credential.basic))
    assert await resolve(host, credentials=Credentials({host: credential})) == DIGEST


async def test_a_realm_elsewhere_is_never_shown_a_credential(serve: Serve) -> None:
    stolen: list[tuple[str, str]] = []
    thief = await serve(tokens("", stolen))
    host = await serve(tokens(f"http://{thief}/token", []))
    credentials = Credentials({host: Credential(username="ana", password="s3cret")})
    async with Registry(plain_http=frozenset({host, thief}), credentials=credentials, timeout=5) as registry:
        assert await registry.resolve(parse(f"{host}/team/model:1")) == DIGEST
    assert [shown for _, shown in stolen] == [""]


@pytest.mark.parametrize(
    "realm", ["http://169.254.169.254/token", "https://169.254.169.254/", "file:///etc/passwd", "https://[fe80::1]/", "", "::"]
)
async def test_a_realm_at_a_metadata_service_is_never_asked(serve: Serve, realm: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})

    with pytest.raises(DefinitiveError):
        await resolve(await serve(handler))


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"null", b'{"token": "a\\r\\nX-Evil: 1"}', b"\xff", b"[" * 60000, b'{"token": 5}', b"x" * 100_000]
)
async def test_a_token_service_that_talks_nonsense_is_a_failure(serve: Serve, body: bytes) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/token":
            return web.Response(body=body)
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{request.host}/token"'})

    with pytest.raises((TransientError, DefinitiveError)):
        await resolve(await serve(handler))


async def test_basic_authentication_works_where_a_registry_wants_it(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Basic " + base64.b64encode(b"ana:s3cret").decode():
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        return manifest()

    host = await serve(handler)
    assert await resolve(host, credentials=Credentials({host: Credential(username="ana", password="s3cret")})) == DIGEST
    with pytest.raises(DefinitiveError, match="wants credentials"):
        await resolve(host)


async def test_a_redirect_is_followed_without_credentials(serve: Serve) -> None:
    seen: list[str | None] = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return manifest()

    other = await serve(elsewhere)

    async def handler(request: web.Request) -> web.Response:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        return web.Response(status=307, headers={"Location": f"http://{other}/x"})

    host = await serve(handler)
    credentials = Credentials({host: Credential(username="ana", password="s3cret")})
    async with Registry(plain_http=frozenset({host, other}), credentials=credentials, timeout=5) as registry:
        assert await registry.resolve(parse(f"{host}/team/model:1")) == DIGEST
    assert seen == [None]


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/",
        "http://127.0.0.1:1/",
        "ftp://x/",
        "http://[",
        "//u:p@127.0.0.1:1/x",
    ],
)
async def test_a_redirect_to_where_no_registry_is_ends_there(serve: Serve, location: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": location})

    with pytest.raises(DefinitiveError):
        await resolve(await serve(handler))


async def test_redirects_that_go_round_end(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/again"})

    with pytest.raises(DefinitiveError, match="redirects"):
        await resolve(await serve(handler))


async def test_plain_http_is_spoken_to_listed_hosts_alone(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return manifest()

    host = await serve(handler)
    async with Registry(timeout=5) as registry:
        with pytest.raises(DefinitiveError, match="no registry may be"):
            await registry.resolve(parse(f"{host}/team/model:1"))


async def test_one_listed_port_of_this_machine_says_nothing_of_its_others(serve: Serve, unused_tcp_port: int) -> None:
    async with Registry(plain_http=frozenset({"127.0.0.1:5000", "localhost:5000"}), timeout=5) as registry:
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(DefinitiveError, match="no registry may be"):
                await registry.resolve(parse(f"{host}:{unused_tcp_port}/team/model:1"))


@pytest.mark.parametrize("host", ["169.254.169.254", "localhost:5000"])
async def test_a_manifest_cannot_send_the_scanner_to_the_node_or_the_metadata_service(host: str) -> None:
    async with Registry(timeout=5) as registry:
        with pytest.raises(DefinitiveError, match="no registry may be"):
            await registry.resolve(parse(f"{host}/team/model:1"))
