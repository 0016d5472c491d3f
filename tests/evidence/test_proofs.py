"""Where signatures are looked for. What cosign itself says is not the question here, so it is made up."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import msgspec
import pytest

from mlwarden.embedded import images
from mlwarden.embedded.build import binary
from mlwarden.embedded.door import Door
from mlwarden.evidence import vex
from mlwarden.evidence.attestations import Attestations, Attested
from mlwarden.evidence.credentials import Credential, Credentials
from mlwarden.evidence.failure import TransientError
from mlwarden.evidence.proofs import Prover
from mlwarden.evidence.registries import Registries, RegistrySettings
from mlwarden.evidence.registry import Registry
from mlwarden.evidence.report import Findings
from mlwarden.evidence.tool import Pull
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Vulnerability
from mlwarden.model.signing import Authority, Demand, Proof, Proven, Signer

Open = Callable[..., Door]
ANA = Credential(username="ana", password="s3cret")
DEMANDS = {name: Demand(authority=Authority(name=name, key="PEM")) for name in ("one", "two", "three", "four", "five")}


class Verifier:
    """Knows which repositories have the signatures."""

    def __init__(self, *signed: str, broken: str = "") -> None:
        self.signed, self.broken = signed, broken
        self.asked: list[Pull] = []

    async def establish(self, pull: Pull, demand: Demand) -> Proof:
        self.asked.append(pull)
        if self.broken and pull.image.startswith(self.broken):
            raise TransientError("cosign was killed")
        found = any(pull.image.startswith(f"{each}@") for each in self.signed)
        return Proof(demand="", outcome=Proven.VERIFIED if found else Proven.MISSING, at=datetime.now(UTC))


@pytest.fixture
def front(door: Open) -> Door:
    return door(password="s3cret")


@pytest.fixture
def mirror(door: Open) -> Door:
    return door()


async def outcomes(verifier: Verifier, front: Door, mirror: Door, digest: str, keys: Credentials | None = None) -> set[Proven]:
    """Of the five demands about an image of `front`, whose mirror is asked first."""
    registries = Registries({front.host: RegistrySettings(mirrors=(mirror.host,))}, plain_http=frozenset({front.host, mirror.host}))
    async with Registry(registries=registries, timeout=10) as registry:
        prover = Prover(registry=registry, verifier=verifier)
        keys = Credentials({front.host: ANA}) if keys is None else keys
        proofs = (await prover.prove([f"{front.host}/team/signed@{digest}"], DEMANDS, keys)).proofs
    assert [proof.demand for proof in proofs] == list(DEMANDS)
    return {proof.outcome for proof in proofs}


async def test_signatures_that_the_mirror_does_not_have_are_looked_for_in_the_registry(registry: str, front: Door, mirror: Door) -> None:
    digest = images.clean(registry, "team/signed:1")
    verifier = Verifier(f"{front.host}/team/signed")
    assert await outcomes(verifier, front, mirror, digest) == {Proven.VERIFIED}
    places = [pull.image.partition("/")[0] for pull in verifier.asked]
    assert places.count(mirror.host) == places.count(front.host) == len(DEMANDS)
    shown = {pull.image.partition("/")[0]: msgspec.json.decode(pull.docker_config)["auths"] for pull in verifier.asked}
    assert shown[mirror.host] == {}
    assert set(shown[front.host]) == {front.host}


async def test_five_demands_about_one_image_fetch_one_manifest(registry: str, front: Door, mirror: Door) -> None:
    digest = images.clean(registry, "team/signed:1")
    assert await outcomes(Verifier(f"{mirror.host}/team/signed"), front, mirror, digest) == {Proven.VERIFIED}
    assert len(mirror.asked("/manifests/")) == 1


async def test_none_is_known_only_when_the_registry_itself_has_said_so(registry: str, front: Door, mirror: Door) -> None:
    digest = images.clean(registry, "team/signed:1")
    assert await outcomes(Verifier(), front, mirror, digest) == {Proven.MISSING}
    assert await outcomes(Verifier(), front, mirror, digest, keys=Credentials()) == {Proven.UNKNOWN}
    assert await outcomes(Verifier(broken=mirror.host), front, mirror, digest) == {Proven.UNKNOWN}
    mirror.down = True
    assert await outcomes(Verifier(), front, mirror, digest) == {Proven.MISSING}
    front.down = True
    assert await outcomes(Verifier(), front, mirror, digest) == {Proven.UNKNOWN}


VUL = "https://cosign.sigstore.dev/attestation/vuln/v1"
THEN, NOW = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC)


def copied(registry: str) -> str:
    """An image in two repositories."""
    digest = images.clean(registry, "team/home:1")
    command = [str(binary("crane")), "copy", "--insecure", f"{registry}/team/home:1", f"{registry}/evil/copy:1"]
    subprocess.run(command, check=True, capture_output=True)
    return digest


class Attestor:
    """Knows what was attested in which repository: a proof, or a document."""

    def __init__(self, **said: Proof | Attested) -> None:
        self.said = said

    def _at(self, pull: Pull) -> Proof | Attested | None:
        return self.said.get(pull.image.partition("@")[0].rpartition("/")[2])

    async def establish(self, pull: Pull, demand: Demand) -> Proof:
        said = self._at(pull)
        return said if isinstance(said, Proof) else Proof(demand="", outcome=Proven.MISSING, at=NOW)

    async def attested(self, pull: Pull, demand: Demand) -> Attestations:
        said = self._at(pull)
        return Attestations(found=(said,) if isinstance(said, Attested) else ())


@pytest.mark.parametrize(
    ("elsewhere", "expected"),
    [
        (Proof(demand="", outcome=Proven.VERIFIED, made_at=THEN, at=NOW), Proven.INVALID),
        (Proof(demand="", outcome=Proven.VERIFIED, made_at=NOW, at=NOW), Proven.INVALID),
        (Proof(demand="", outcome=Proven.VERIFIED, made_at=NOW + timedelta(hours=1), at=NOW), Proven.VERIFIED),
        (Proof(demand="", outcome=Proven.INVALID, at=NOW), Proven.INVALID),
        (Proof(demand="", outcome=Proven.UNKNOWN, at=NOW), Proven.INVALID),
    ],
)
async def test_an_old_attestation_beside_a_copy_of_the_image_does_not_outlive_a_newer_one_that_fails(
    registry: str, elsewhere: Proof, expected: Proven
) -> None:
    digest = copied(registry)
    verifier = Attestor(home=Proof(demand="", outcome=Proven.INVALID, made_at=NOW, at=NOW), copy=elsewhere)
    demand = Demand(authority=Authority(name="scans", key="PEM"), predicate_type=VUL, condition="true")
    places = [f"{registry}/evil/copy@{digest}", f"{registry}/team/home@{digest}"]
    async with Registry(plain_http=frozenset({registry}), timeout=10) as client:
        for candidates in (places, places[::-1]):
            (proof,) = (await Prover(registry=client, verifier=verifier).prove(candidates, {"one": demand})).proofs
            assert proof.outcome is expected


async def test_an_excuse_that_was_taken_back_is_not_found_in_a_copy(registry: str) -> None:
    digest = copied(registry)

    def says(status: str, at: datetime) -> Attested:
        statement = {
            "vulnerability": {"name": "CVE-1"},
            "products": [{"@id": f"pkg:oci/home@{digest}"}],
            "status": status,
            "justification": "component_not_present",
        }
        document = {"@context": "https://openvex.dev/ns/v0.2.0", "timestamp": at.isoformat(), "statements": [statement]}
        return Attested(predicate=document, signer=Signer(key="sha256:" + "a" * 64), made_at=at)

    verifier = Attestor(home=says("affected", NOW), copy=says("not_affected", THEN))
    async with Registry(plain_http=frozenset({registry}), timeout=10) as client:
        places = [f"{registry}/evil/copy@{digest}", f"{registry}/team/home@{digest}"]
        async with Prover(registry=client, verifier=verifier).hearing(places, {"one": DEMANDS["one"]}) as hearing:
            found = await hearing.heard()
            assert {place.reference for place in hearing.places() if place.answered} == set(places)
    finding = Vulnerability(id="CVE-1", package="musl", installed="1", severity="HIGH")
    assert vex.spoken([Findings(digest=digest, vulnerabilities=(finding,))], found, digest=Digest(digest)).suppressed == ()
    old = [each for each in found if each.statements[0].status == "not_affected"]
    assert vex.spoken([Findings(digest=digest, vulnerabilities=(finding,))], old, digest=Digest(digest)).suppressed


async def test_registries_that_hang_do_not_keep_others_from_being_asked(registry: str, front: Door, mirror: Door) -> None:
    """Twenty images whose signatures nobody sends, five questions about each."""
    digest = images.clean(registry, "team/signed:1")
    hangs = f"{mirror.host}/other/hangs@{images.clean(registry, 'other/hangs:1')}"

    class Hanging(Verifier):
        running = most = 0

        async def establish(self, pull: Pull, demand: Demand) -> Proof:
            if "/other/hangs@" not in pull.image:
                return await super().establish(pull, demand)
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.Event().wait()
            raise AssertionError

    verifier = Hanging(f"{mirror.host}/team/signed")
    async with Registry(plain_http=frozenset({mirror.host}), timeout=10) as client:
        prover = Prover(registry=client, verifier=verifier)
        hanging = [asyncio.create_task(prover.prove([hangs], DEMANDS)) for _ in range(20)]
        async with asyncio.timeout(60):
            while verifier.running < 24:
                await asyncio.sleep(0.01)
            proofs = (await prover.prove([f"{mirror.host}/team/signed@{digest}"], DEMANDS)).proofs
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
    assert {proof.outcome for proof in proofs} == {Proven.VERIFIED}
    assert verifier.most == 20 + 4


async def test_documents_of_a_repository_that_answers_are_heard_beside_fifteen_that_hang(
    registry: str, serve: Callable[..., Awaitable[str]]
) -> None:
    """The scan is over by the time that it asks for the documents: it waits as long again, and no longer."""
    digest, hosts, asked = images.clean(registry, "team/home:1"), [], asyncio.Event()

    async def hang(_request: object) -> NoReturn:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    hosts = [await serve(hang) for _ in range(15)]
    statement = {"vulnerability": {"name": "CVE-1"}, "products": [], "status": "affected"}
    document = {"@context": "https://openvex.dev/ns/v0.2.0", "timestamp": NOW.isoformat(), "statements": [statement]}
    verifier = Attestor(home=Attested(predicate=document, signer=Signer(key="sha256:" + "a" * 64), made_at=NOW))
    home = f"{registry}/team/home@{digest}"
    places = [*(f"{host}/evil/copy@{digest}" for host in hosts), home]
    async with (
        Registry(plain_http=frozenset({registry, *hosts}), timeout=300) as client,
        asyncio.timeout(60),
        Prover(registry=client, verifier=verifier).hearing(places, {"one": DEMANDS["one"]}) as hearing,
    ):
        await asked.wait()
        assert len(await hearing.heard()) == 1
        said = {place.reference: place for place in hearing.places()}
    assert list(said[home].answered) == ["one"]
    assert {place.reason for reference, place in said.items() if reference != home} == {"it was not heard in time"}


async def test_what_is_late_is_unknown_and_what_others_have_answered_is_kept(registry: str, serve: Callable[..., Awaitable[str]]) -> None:
    digest = images.clean(registry, "team/home:1")

    async def hang(_request: object) -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError

    hangs, home = f"{await serve(hang)}/evil/copy@{digest}", f"{registry}/team/home@{digest}"
    verifier = Attestor(home=Proof(demand="", outcome=Proven.VERIFIED, signer=Signer(key="sha256:" + "a" * 64), made_at=THEN, at=NOW))
    demand = Demand(authority=Authority(name="scans", key="PEM"), predicate_type=VUL, condition="true")
    async with Registry(plain_http=frozenset({registry, hangs.partition("/")[0]}), timeout=300) as client, asyncio.timeout(60):
        looked = await Prover(registry=client, verifier=verifier).prove([hangs, home], {"one": demand}, seconds=3)
    assert looked.proofs[0].outcome is Proven.VERIFIED
    assert [(place.reference, list(place.answered)) for place in looked.places] == [(hangs, []), (home, ["one"])]
    assert looked.places[0].reason == "it did not say in time whether there is one"
