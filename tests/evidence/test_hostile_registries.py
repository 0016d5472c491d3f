"""Registries that attack whoever reads from them. Each attack ends in a typed failure with one sentence; none hangs, leaks or passes."""

import asyncio
import contextlib
import gzip
import hashlib
import json
import resource
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from mlwarden.embedded import images
from mlwarden.embedded.build import binary
from mlwarden.embedded.door import Door
from mlwarden.evidence.credentials import Credential, Credentials
from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError
from mlwarden.evidence.gather import MAX_ENTRIES, Gatherer
from mlwarden.evidence.registries import Registries, RegistrySettings
from mlwarden.evidence.registry import MAX_MANIFEST, MEDIA_TYPES, Registry
from mlwarden.evidence.report import Findings, System
from mlwarden.evidence.tool import Pull
from mlwarden.evidence.trivy import Database, Trivy
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Scan
from mlwarden.model.reference import parse

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
BODY = b'{"schemaVersion": 2}'
ANA = Credential(username="ana", password="s3cret")
INDEX, MANIFEST = MEDIA_TYPES[0], MEDIA_TYPES[2]


def named(body: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(body).hexdigest())


DIGEST = named(BODY)


async def failure(host: str, *, plain: tuple[str, ...] = (), keys: Credentials | None = None, seconds: float = 5) -> GatherError:
    """How asking this registry for a tag and for a digest fails: both must, in the same kind and one line each."""
    found = []
    async with Registry(plain_http=frozenset({host, *plain}), timeout=seconds) as registry:
        asking = registry.showing(keys or Credentials())
        for what in (asking.resolve(parse(f"{host}/team/x:1")), asking.manifest(parse(f"{host}/team/x"), DIGEST)):
            with pytest.raises(GatherError) as error:
                await what
            found.append(error.value)
    assert len({type(each) for each in found}) == 1
    assert all(each.message and "\n" not in each.message for each in found)
    return found[0]


def redirecting(location: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": location})

    return handler


METADATA = [
    "169.254.169.254",
    "[fd00:ec2::254]",
    "[::ffff:169.254.169.254]",
    "[fe80::a9fe:a9fe]",
    "2852039166",
    "0xa9fea9fe",
    "0xa9.0xfe.0xa9.0xfe",
    "0251.0376.0251.0376",
    "025177524776",
    "169.254.43518",
    "169.254.169.254.",
    "metadata.attacker.example",
    "100.100.100.200",
]


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where sockets were connected to, as addresses; a name of the attacker's leads to the metadata service."""
    made: list[str] = []
    look_up, connect = socket.getaddrinfo, asyncio.selector_events.BaseSelectorEventLoop.sock_connect

    def named(host: str, *rest: object, **options: object) -> object:
        return look_up("169.254.169.254" if host == "metadata.attacker.example" else host, *rest, **options)

    async def noted(loop: asyncio.selector_events.BaseSelectorEventLoop, sock: socket.socket, address: tuple[str, int]) -> None:
        made.append(address[0])
        await connect(loop, sock, address)

    monkeypatch.setattr(socket, "getaddrinfo", named)
    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", noted)
    return made


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("address", METADATA)
async def test_a_redirect_to_a_metadata_service_is_not_followed_however_it_is_spelled(
    serve: Serve, connections: list[str], address: str, scheme: str
) -> None:
    host = await serve(redirecting(f"{scheme}://{address}/latest/meta-data/iam"))
    assert isinstance(await failure(host), DefinitiveError)
    assert set(connections) == {"127.0.0.1"}


@pytest.mark.parametrize("address", METADATA)
async def test_a_realm_at_a_metadata_service_is_not_asked_however_it_is_spelled(serve: Serve, connections: list[str], address: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="https://{address}/token",service="s"'})

    host = await serve(handler)
    assert isinstance(await failure(host, keys=Credentials({host: ANA})), DefinitiveError)
    assert set(connections) == {"127.0.0.1"}


@pytest.mark.parametrize("address", [each for each in METADATA if not each.isalnum()])
async def test_an_image_named_at_a_metadata_service_is_not_asked_for(connections: list[str], address: str) -> None:
    async with Registry(timeout=5) as registry:
        for reference in (f"{address}/x:1", f"{address}:443/x:1"):
            with pytest.raises(GatherError):
                await Gatherer(
                    registry=registry, trivy=Trivy(binary=Path("x"), cache=Path("x"), scratch=Path("x")), architectures=("amd64",)
                ).resolve(reference)
    assert connections == []


async def test_a_redirect_from_tls_to_plain_http_is_not_followed(serve: Serve, private_tls: tuple[ssl.SSLContext, str]) -> None:
    async def plain(request: web.Request) -> web.Response:
        raise AssertionError("spoken to in plain HTTP")

    other = await serve(plain)
    context, authority = private_tls

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": f"http://{other}/v2/"})

    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    host = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with Registry(registries=Registries({host: RegistrySettings(ca=authority)}), timeout=5) as client:
            with pytest.raises(DefinitiveError, match="plain HTTP"):
                await client.resolve(parse(f"{host}/team/x:1"))
    finally:
        await runner.cleanup()


async def test_redirects_that_always_go_on_end(serve: Serve) -> None:
    asked = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=302, headers={"Location": f"/v2/{asked}"})

    error = await failure(await serve(handler))
    assert "redirects" in error.message
    assert asked < 20


# Credentials.


def realm(where: Callable[[], str]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{where()}",service="s"'})

    return handler


def thief(stolen: list[str]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        stolen.append(request.headers.get("Authorization", "") + (await request.text()))
        return web.json_response({"token": "t"})

    return handler


@pytest.mark.parametrize("credential", [ANA, Credential(identity_token="s3cret")])
async def test_cve_2026_48978_a_realm_elsewhere_is_never_shown_the_credential_of_a_pod(serve: Serve, credential: Credential) -> None:
    """GHSA-vh4v-…, the same in oras-go: the challenge of a registry decides where its token is asked for, not who sees a password."""
    stolen: list[str] = []
    elsewhere = await serve(thief(stolen))
    host = await serve(realm(lambda: f"http://{elsewhere}/token"))
    error = await failure(host, plain=(elsewhere,), keys=Credentials({host: credential}))
    assert "denies access" in error.message or "credentials" in error.message
    assert stolen
    assert set(stolen) == {""}


async def test_a_token_service_that_the_administrator_listed_is_shown_the_credential(serve: Serve) -> None:
    seen: list[str] = []
    elsewhere = await serve(thief(seen))

    async def handler(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") == "Bearer t":
            return web.Response(body=BODY, headers={"Content-Type": MANIFEST, "Docker-Content-Digest": DIGEST})
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{elsewhere}/token"'})

    host = await serve(handler)
    registries = Registries({host: RegistrySettings(realms=(elsewhere,))}, plain_http=frozenset({host, elsewhere}))
    async with Registry(registries=registries, credentials=Credentials({host: ANA})) as client:
        assert await client.resolve(parse(f"{host}/team/x:1")) == DIGEST
    assert seen == [ANA.basic]


async def test_cve_2025_27403_a_registry_of_the_attackers_is_never_shown_the_credential_of_another(serve: Serve) -> None:
    """Ratify sent a token for Azure's registry to whatever host an image named."""
    stolen: list[str] = []
    evil = await serve(thief(stolen))

    async def basic(request: web.Request) -> web.Response:
        stolen.append(request.headers.get("Authorization", ""))
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    host = await serve(basic)
    keys = Credentials([(key, ANA) for key in ("team.azurecr.io", "*.azurecr.io", evil, "127.0.0.1", "*.0.0.1", f"{host}0")])
    assert "credentials" in (await failure(host, keys=keys)).message
    assert set(stolen) == {""}


async def test_the_credential_of_a_pod_does_not_cross_a_redirect_and_a_token_request_is_not_redirected(serve: Serve) -> None:
    stolen: list[str] = []
    asked = ""
    elsewhere = await serve(thief(stolen))

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/token" or "Authorization" in request.headers:
            return web.Response(status=307, headers={"Location": f"http://{elsewhere}{request.path}"})
        return web.Response(status=401, headers={"WWW-Authenticate": f'{asked} realm="http://{request.host}/token"'})

    host = await serve(handler)
    for credential, kind in ((ANA, "Basic"), (ANA, "Bearer"), (Credential(identity_token="s3cret"), "Bearer")):
        asked = kind
        await failure(host, plain=(elsewhere,), keys=Credentials({host: credential}))
    assert not any("s3cret" in each or each.startswith("Basic") for each in stolen)


async def test_cve_2024_35192_the_credential_for_an_image_is_shown_to_its_registry_alone(
    registry: str, door: Callable[..., Door], database: Path, tmp_path: Path, serve: Serve
) -> None:
    """Trivy before 0.51.2 sent the cloud's credentials to registries that only looked like the cloud's."""
    digest = images.vulnerable(registry, "team/redirected:1")
    stolen: list[str] = []
    front = door(password="s3cret")

    async def handler(request: web.Request) -> web.Response:
        stolen.append(request.headers.get("Authorization", ""))
        raise web.HTTPNotFound

    elsewhere = await serve(handler)

    def twist(request: web.Request) -> web.Response | None:
        if "/blobs/" not in request.path:
            return None
        return web.Response(status=307, headers={"Location": f"http://{elsewhere}/blob"})

    front.twist = twist
    trivy = Trivy(binary=binary("trivy"), cache=database, scratch=tmp_path)
    async with Registry(plain_http=frozenset({front.host, elsewhere}), timeout=10) as client:
        with pytest.raises(GatherError):
            await Gatherer(registry=client, trivy=trivy, architectures=("amd64",)).scan(
                [f"{front.host}/team/redirected@{digest}"], Credentials({front.host: ANA})
            )
    assert stolen
    assert set(stolen) == {""}
    assert ANA.basic in {shown for _, path, shown in front.seen if "/blobs/" in path}


# Sizes and times.


@contextlib.contextmanager
def raw(*said: bytes, again: bytes = b"") -> Iterator[str]:
    """A server that says what no HTTP server says, and then `again` without an end; without `again` it ends, unless it said nothing."""

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(1 << 16)
            for each in said:
                connection.sendall(each)
            while again:
                connection.sendall(again)
            while not said and connection.recv(1 << 16):
                pass

    def listen() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        accepting = threading.Thread(target=listen, daemon=True)
        accepting.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        accepting.join(timeout=20)


async def test_a_connection_that_is_taken_and_never_answered_costs_the_timeout_and_no_more() -> None:
    with raw() as host:
        assert "did not answer within 0.3 s" in (await failure(host, seconds=0.3)).message


@pytest.mark.parametrize("line", [b"X-Fill: " + b"a" * 100 + b"\r\n", b"X" * 100])
async def test_headers_that_never_end_are_cut_off(line: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with raw(b"HTTP/1.1 200 OK\r\nA: ", again=line * 500) as host:
        assert isinstance(await failure(host), TransientError)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


NOT_HTTP = [b"HTTP/1.1 99999 x\r\n\r\n", b"SSH-2.0-x\r\n", b"\0" * 100, b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"]


@pytest.mark.parametrize("said", NOT_HTTP)
async def test_what_is_not_http_is_a_failure(said: bytes) -> None:
    with raw(said) as host:
        assert isinstance(await failure(host), TransientError)


async def test_a_gzip_bomb_is_never_unpacked(serve: Serve) -> None:
    """4 GiB of zeros in 4 MiB, twice compressed."""
    bomb = gzip.compress(gzip.compress(b"\0" * (64 << 20)) * 64)

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/token":
            return web.Response(body=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})
        if request.path.endswith("/1"):
            return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{request.host}/token"'})
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip", "Content-Type": MANIFEST})

    host = await serve(handler)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with Registry(plain_http=frozenset({host}), timeout=5) as client:
        with pytest.raises(GatherError, match=r"not a token|more than 64 KiB"):
            await client.resolve(parse(f"{host}/team/x:1"))
        with pytest.raises(DefinitiveError, match="other bytes"):
            await client.manifest(parse(f"{host}/team/x"), DIGEST)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


async def test_cve_2023_42813_to_42816_a_manifest_without_an_end_is_read_to_its_bound(serve: Serve) -> None:
    """Kyverno read manifests and lists of signatures of any size. Here both their bytes and their entries are bounded."""
    body = b'{"schemaVersion": 2, "layers": [' + b'{"digest": "sha256:x"},' * (1 << 18)

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": MANIFEST})

    assert len(body) > MAX_MANIFEST
    assert "more than 4096 KiB" in (await failure(await serve(handler))).message


class Scanner:
    """In place of trivy: finds nothing in anything."""

    scanners = ("vuln",)

    def database(self) -> Database:
        return Database(version=2, updated_at=datetime.now(UTC), next_update=datetime.now(UTC))

    async def version(self) -> str:
        return "0.72.0"

    async def scan(self, pull: Pull) -> Findings:
        return Findings(digest=pull.digest, system=System(family="alpine", version="3.22.1"))


# What is served is not what was named.


async def looked_at(serve: Serve, *documents: tuple[bytes, str]) -> tuple[Scan, list[str]]:
    """Serves documents under their digests and gathers about the first; returns what came of it, and what was asked of the registry."""
    by_digest = {named(body): (body, kind) for body, kind in documents}
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path.rpartition("/")[2])
        found = by_digest.get(asked[-1])
        return web.Response(body=found[0], headers={"Content-Type": found[1]}) if found else web.Response(status=404)

    host = await serve(handler)
    async with Registry(plain_http=frozenset({host}), timeout=5) as client:
        gatherer = Gatherer(registry=client, trivy=Scanner(), architectures=("amd64",))
        return await gatherer.scan([f"{host}/team/x@{named(documents[0][0])}"]), asked


async def test_cve_2022_47633_a_tag_that_answers_differently_every_time_is_resolved_once(
    registry: str, database: Path, tmp_path: Path
) -> None:
    """Kyverno asked twice, and verified one digest while another one ran. Here the one answer is what is scanned, and what is pinned."""
    good, bad = images.clean(registry, "team/turncoat:good"), images.vulnerable(registry, "team/turncoat:bad")
    with Door(registry) as front:
        answers = iter([bad, good, good, good])

        def twist(request: web.Request) -> str | None:
            return request.path.removesuffix("1") + next(answers) if request.path.endswith("/manifests/1") else None

        front.twist = twist
        trivy = Trivy(binary=binary("trivy"), cache=database, scratch=tmp_path)
        async with Registry(plain_http=frozenset({front.host}), timeout=10) as client:
            gatherer = Gatherer(registry=client, trivy=trivy, architectures=("amd64",))
            digest = await gatherer.resolve(f"{front.host}/team/turncoat:1")
            assert digest == bad
            scan = await gatherer.scan([parse(f"{front.host}/team/turncoat:1").at(digest)])
        assert scan.counts["CRITICAL"] == 1
        assert front.asked("/manifests/1") == ["/v2/team/turncoat/manifests/1"]


async def test_cve_2023_47630_bytes_of_another_digest_are_not_the_image(registry: str, database: Path, tmp_path: Path) -> None:
    """Kyverno took the digest from the registry's header. Here the bytes are hashed, ours and trivy's."""
    good, bad = images.clean(registry, "team/swapped:good"), images.vulnerable(registry, "team/swapped:bad")
    with Door(registry) as front:
        honest = 0

        def twist(request: web.Request) -> str | None:
            nonlocal honest
            honest -= 1
            return request.path.replace(bad, good) if honest < 0 and "/manifests/" in request.path else None

        front.twist = twist
        trivy = Trivy(binary=binary("trivy"), cache=database, scratch=tmp_path)
        async with Registry(plain_http=frozenset({front.host}), timeout=10) as client:
            gatherer = Gatherer(registry=client, trivy=trivy, architectures=("amd64",))
            with pytest.raises(DefinitiveError, match="other bytes"):
                await gatherer.scan([f"{front.host}/team/swapped@{bad}"])
            honest = 1  # to us, and then not to trivy
            with pytest.raises(GatherError, match="trivy"):
                await gatherer.scan([f"{front.host}/team/swapped@{bad}"])


def layered(**layer: object) -> bytes:
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 1}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}).encode()


@pytest.mark.parametrize(
    "layer",
    [
        {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": DIGEST},
        {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "digest": DIGEST},
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "urls": ["http://169.254.169.254/layer"]},
    ],
)
async def test_a_layer_from_somewhere_else_is_never_seen_and_never_clean(serve: Serve, layer: dict[str, object]) -> None:
    scan, _ = await looked_at(serve, (layered(**layer), MANIFEST))
    assert scan.blind[0] == "1 layers are not in the registry"


async def test_a_list_of_ten_thousand_images_is_not_fetched_ten_thousand_times(serve: Serve) -> None:
    """Each a different image for our platform: a few are looked at, and what was left out is said."""
    bodies = [(layered(mediaType="application/vnd.oci.image.layer.v1.tar", digest=DIGEST, size=n), MANIFEST) for n in range(MAX_ENTRIES)]
    rows = [{"mediaType": MANIFEST, "digest": named(body), "size": len(body)} for body, _ in bodies]
    rows += [{"mediaType": MANIFEST, "digest": f"sha256:{number:064x}", "size": 1} for number in range(10_000)]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}).encode()
    scan, asked = await looked_at(serve, (index, INDEX), *bodies)
    assert len(asked) == 1 + MAX_ENTRIES
    assert scan.blind[0] == "10000 more images behind this digest were not scanned"
