"""Where signatures are looked for. What cosign itself says is not the question here, so it is made up."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest

from mlwarden.embedded import images
from mlwarden.embedded.door import Door
from mlwarden.evidence.credentials import Credential, Credentials
from mlwarden.evidence.failure import TransientError
from mlwarden.evidence.proofs import Prover
from mlwarden.evidence.registries import Registries, RegistrySettings
from mlwarden.evidence.registry import Registry
from mlwarden.evidence.trivy import Pull
from mlwarden.model.signing import Authority, Demand, Proof, Proven

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
        proofs = await prover.prove([f"{front.host}/team/signed@{digest}"], DEMANDS, keys)
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
