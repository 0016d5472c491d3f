"""Registries that lead whoever asks them to somewhere else: real trivy, real cosign, a real registry behind a door that redirects."""

import hashlib
import http.client
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from mlwarden.embedded import images
from mlwarden.embedded.build import binary
from mlwarden.embedded.door import Door
from mlwarden.embedded.signer import Signer
from mlwarden.evidence import transport as transports
from mlwarden.evidence.cosign import Cosign
from mlwarden.evidence.failure import DefinitiveError
from mlwarden.evidence.gather import Gatherer
from mlwarden.evidence.proofs import Prover
from mlwarden.evidence.registry import MEDIA_TYPES, Registry
from mlwarden.evidence.transport import Transport
from mlwarden.evidence.trivy import Trivy
from mlwarden.model.signing import Authority, Demand, Proven

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
MANIFEST = MEDIA_TYPES[2]


def redirecting(location: str) -> Callable[[web.Request], web.Response | None]:
    """What a registry answers that sends whoever wants a blob to somewhere else."""
    return lambda request: web.Response(status=307, headers={"Location": location}) if "/blobs/" in request.path else None


@pytest.fixture
async def inside(serve: Serve) -> tuple[str, list[str]]:
    """A service of this machine that no registry may lead to: `host:port`, and what it was asked."""
    reached: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        reached.append(request.path)
        raise web.HTTPNotFound

    return await serve(answer), reached


@pytest.mark.parametrize(
    "where", ["http://{0}/", "http://localhost:{1}/", "https://{0}/", "https://localhost:{1}/", "https://169.254.169.254/"]
)
async def test_trivy_is_not_led_to_what_is_behind_the_scanner(
    registry: str, database: Path, tmp_path: Path, inside: tuple[str, list[str]], attack: Callable[[str, str, str], None], *, where: str
) -> None:
    digest = images.clean(registry, "team/led:1")
    target, reached = inside
    with Door(registry) as front:
        front.twist = redirecting(where.format(target, target.rpartition(":")[2]))
        trivy = Trivy(binary=binary("trivy"), cache=database, scratch=tmp_path)
        async with Registry(plain_http=frozenset({front.host}), timeout=10) as client:
            with pytest.raises(DefinitiveError, match=r"where no registry may be|would be spoken to in plain HTTP"):
                await Gatherer(registry=client, trivy=trivy, architectures=("amd64",)).scan([f"{front.host}/team/led@{digest}"])
    assert reached == []
    attack(
        "a registry redirects trivy to a service on the scanner's own loopback",
        "followed, and asked there",
        "refused with the reason: the worker asks, and trivy reaches nothing but it",
    )


async def test_a_registry_that_nobody_listed_does_not_lead_into_private_networks(serve: Serve) -> None:
    async def away(_request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "https://10.1.2.3/"})

    host = await serve(away)
    transport = Transport(plain_http=frozenset({host}), authorities={}, listed=frozenset())
    transport.open()
    try:
        with pytest.raises(DefinitiveError, match=r"10\.1\.2\.3 is an address where no registry may be"):
            await transport.request("GET", URL(f"http://{host}/"), {}, cap=10)
    finally:
        await transport.close()


@pytest.mark.parametrize("behind", [False, True])
async def test_one_that_is_in_a_private_network_itself_may(serve: Serve, monkeypatch: pytest.MonkeyPatch, *, behind: bool) -> None:
    """Registries and their stores behind private endpoints: nobody outside could have put them there."""

    async def away(_request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "https://store.example/"})

    host = await serve(away)
    monkeypatch.setattr(transports, "private", lambda address: behind and address == "127.0.0.1")
    transport = Transport(plain_http=frozenset({host}), authorities={}, listed=frozenset())
    asked: list[tuple[str | None, bool]] = []

    def guard(url: URL, *, public: bool = False) -> None:
        asked.append((url.host, public))
        if url.host == "store.example":
            raise DefinitiveError("far enough")

    monkeypatch.setattr(transport, "guard", guard)
    transport.open()
    try:
        with pytest.raises(DefinitiveError, match="far enough"):
            await transport.request("GET", URL(f"http://{host}/"), {}, cap=10)
    finally:
        await transport.close()
    assert asked == [("127.0.0.1", False), ("store.example", not behind)]


async def test_a_redirect_to_a_host_that_is_listed_is_followed(registry: str, database: Path, tmp_path: Path) -> None:
    digest = images.clean(registry, "team/stored:1")
    with Door(registry) as front:
        front.twist = lambda request: (
            web.Response(status=307, headers={"Location": f"http://{registry}{request.path}"}) if "/blobs/" in request.path else None
        )
        trivy = Trivy(binary=binary("trivy"), cache=database, scratch=tmp_path)
        async with Registry(plain_http=frozenset({front.host, registry}), timeout=10) as client:
            found = await Gatherer(registry=client, trivy=trivy, architectures=("amd64",)).scan([f"{front.host}/team/stored@{digest}"])
    assert found.counts == {"unfixed": 0}


async def test_cosign_is_not_led_there_either(registry: str, tmp_path: Path, inside: tuple[str, list[str]]) -> None:
    target, reached = inside
    signer = Signer(tmp_path)
    key = signer.key_pair("ours")
    digest = images.clean(registry, "team/signed:1")
    signer.sign(f"{registry}/team/signed@{digest}", key, legacy=True)
    demand = Demand(authority=Authority(name="ours", key=key.pem))
    with Door(registry) as front:
        cosign = Cosign(binary=binary("cosign"), scratch=tmp_path)
        async with Registry(plain_http=frozenset({front.host}), timeout=10) as client:
            prover = Prover(registry=client, verifier=cosign)
            (good,) = (await prover.prove([f"{front.host}/team/signed@{digest}"], {"one": demand})).proofs
            front.twist = redirecting(f"http://{target}/")
            (led,) = (await prover.prove([f"{front.host}/team/signed@{digest}"], {"one": demand})).proofs
    assert good.outcome is Proven.VERIFIED
    assert (led.outcome, reached) == (Proven.UNKNOWN, [])
    assert "plain HTTP" in led.reason


async def test_cosign_does_not_fetch_a_signature_from_where_its_manifest_says(
    registry: str, tmp_path: Path, inside: tuple[str, list[str]]
) -> None:
    """go-containerregistry asks the `urls` of a layer for what the registry does not have."""
    target, reached = inside
    signer = Signer(tmp_path)
    key = signer.key_pair("ours")
    digest = images.clean(registry, "team/urls:1")
    config = b"{}"
    images.push_artifact(registry, "team/urls:other", config_type="application/x", layer_type="application/x", layer=b"x", title="x")
    layer = {
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": "sha256:" + "0" * 64,
        "size": 240,
        "urls": [f"http://{target}/signature"],
        "annotations": {"dev.cosignproject.cosign/signature": "MEUCIQ=="},
    }
    described = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": f"sha256:{hashlib.sha256(config).hexdigest()}",
        "size": len(config),
    }
    body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [layer]}
    connection = http.client.HTTPConnection(registry)
    connection.request("PUT", f"/v2/team/urls/manifests/{digest.replace(':', '-')}.sig", json.dumps(body), {"Content-Type": MANIFEST})
    assert connection.getresponse().status == 201
    connection.close()
    async with Registry(plain_http=frozenset({registry}), timeout=10) as client:
        prover = Prover(registry=client, verifier=Cosign(binary=binary("cosign"), scratch=tmp_path))
        demand = Demand(authority=Authority(name="ours", key=key.pem))
        (proof,) = (await prover.prove([f"{registry}/team/urls@{digest}"], {"one": demand})).proofs
    assert (proof.outcome, reached) == (Proven.UNKNOWN, [])
    assert "somewhere else" in proof.reason
