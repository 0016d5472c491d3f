"""Real images in a real registry behind authentication, behind TLS of a private authority, and in mirrors; the real trivy pulls them."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from mlwarden.embedded import images, pki
from mlwarden.embedded.build import binary
from mlwarden.embedded.door import Door
from mlwarden.evidence.credentials import Credential, Credentials
from mlwarden.evidence.failure import DefinitiveError, TransientError
from mlwarden.evidence.gather import Gatherer
from mlwarden.evidence.registries import Registries, RegistrySettings
from mlwarden.evidence.registry import Registry
from mlwarden.evidence.trivy import Trivy
from mlwarden.model.evidence import Scan
from mlwarden.model.reference import parse

Open = Callable[..., Door]
ANA = Credential(username="ana", password="s3cret")
WRONG = Credential(username="ana", password="old")
VULNERABLE = {"CRITICAL": 1, "HIGH": 1, "unfixed": 0}


@pytest.fixture
def trivy(database: Path, tmp_path: Path) -> Trivy:
    return Trivy(binary=binary("trivy"), cache=database, scratch=tmp_path)


async def both(
    trivy: Trivy, reference: str, *, shown: Credentials | None = None, own: Credentials | None = None, registries: Registries
) -> tuple[str, Scan]:
    """Resolves a tag and scans what it points at, as the scanner's worker does; `shown` belongs to the pod, `own` to the worker."""
    async with Registry(registries=registries, credentials=own, timeout=20) as registry:
        gatherer = Gatherer(registry=registry, trivy=trivy, architectures=("amd64",))
        digest = await gatherer.resolve(reference, shown or Credentials())
        name = reference.rpartition(":")[0]
        return digest, await gatherer.scan([f"{name}@{digest}"], shown or Credentials())


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("whose", ["the pod's", "the worker's"])
async def test_a_private_image_is_resolved_and_scanned_with_a_credential(
    registry: str, door: Open, trivy: Trivy, whose: str, *, tokens: bool
) -> None:
    pushed = images.vulnerable(registry, "team/private:1")
    front = door(password="s3cret", tokens=tokens)
    keys = Credentials({front.host: ANA})
    registries = Registries(plain_http=frozenset({front.host}))
    pods, workers = (keys, None) if whose == "the pod's" else (None, keys)
    digest, scan = await both(trivy, f"{front.host}/team/private:1", shown=pods, own=workers, registries=registries)
    assert digest == pushed
    assert scan.counts == VULNERABLE
    assert not scan.anonymous
    with pytest.raises(DefinitiveError, match=r"wants credentials|denies access \(401\)"):
        await both(trivy, f"{front.host}/team/private:1", registries=registries)


async def test_a_wrong_password_of_somebody_else_does_not_hide_the_right_one_nor_what_is_public(
    registry: str, door: Open, trivy: Trivy
) -> None:
    images.vulnerable(registry, "team/private:1")
    front = door(password="s3cret", tokens=True)
    registries = Registries(plain_http=frozenset({front.host, registry}))
    keys = Credentials([(front.host, WRONG), (f"{front.host}/team", WRONG)])
    _, scan = await both(trivy, f"{front.host}/team/private:1", shown=keys, own=Credentials({front.host: ANA}), registries=registries)
    assert scan.counts == VULNERABLE
    assert not scan.anonymous
    _, scan = await both(trivy, f"{registry}/team/private:1", shown=Credentials({registry: WRONG}), registries=registries)
    assert scan.counts == VULNERABLE
    assert scan.anonymous  # nothing was asked for, so nothing was shown
    with pytest.raises(DefinitiveError, match="denies access"):
        await both(trivy, f"{front.host}/team/private:1", shown=keys, registries=registries)


async def test_a_credential_of_one_question_is_not_there_for_the_next(registry: str, door: Open) -> None:
    digest = images.vulnerable(registry, "team/private:1")
    front = door(password="s3cret", tokens=True)
    reference = parse(f"{front.host}/team/private:1")
    async with Registry(plain_http=frozenset({front.host})) as client:
        assert await client.showing(Credentials({front.host: ANA})).resolve(reference) == digest
        with pytest.raises(DefinitiveError, match="denies access"):
            await client.resolve(reference)


async def test_a_registry_with_a_private_authority_is_trusted_where_it_is_listed(
    registry: str, door: Open, trivy: Trivy, private_tls: tuple[ssl.SSLContext, str], tmp_path: Path
) -> None:
    images.vulnerable(registry, "team/tls:1")
    context, authority = private_tls
    front = door(password="s3cret", tokens=True, tls=context)
    file = tmp_path / "ca.pem"
    file.write_text(authority)
    keys = Credentials({front.host: ANA})
    for settings in (RegistrySettings(ca=authority), RegistrySettings(ca_file=str(file))):
        _, scan = await both(trivy, f"{front.host}/team/tls:1", shown=keys, registries=Registries({front.host: settings}))
        assert scan.counts == VULNERABLE


async def test_an_authority_is_trusted_for_its_own_host_alone(
    door: Open, trivy: Trivy, private_tls: tuple[ssl.SSLContext, str], tmp_path: Path
) -> None:
    context, authority = private_tls
    one, other = door(tls=context), door(tls=context)
    stranger = pki.make(tmp_path).ca.read_text()
    settings = {one.host: RegistrySettings(ca=authority), other.host: RegistrySettings(ca=stranger)}
    with pytest.raises(TransientError, match="no trusted TLS connection"):
        await both(trivy, f"{other.host}/team/tls:1", registries=Registries(settings))
    assert not other.seen


async def test_a_digest_comes_from_a_mirror_that_has_it_and_a_tag_from_the_registry(registry: str, door: Open, trivy: Trivy) -> None:
    digest = images.vulnerable(registry, "mirrored/team/model:1")
    images.vulnerable(registry, "team/model:1")
    mirror, home = door(password="s3cret"), door()
    plain = frozenset({mirror.host, home.host})
    registries = Registries({home.host: RegistrySettings(mirrors=(f"{mirror.host}/mirrored",))}, plain_http=plain)
    own = Credentials({mirror.host: ANA})
    async with Registry(registries=registries, credentials=own) as client:
        gatherer = Gatherer(registry=client, trivy=trivy, architectures=("amd64",))
        assert await gatherer.resolve(f"{home.host}/team/model:1") != digest
        home.seen.clear()
        assert (await gatherer.scan([f"{home.host}/team/model@{digest}"])).counts == VULNERABLE
    assert not home.seen
    assert {path for _, path, _ in mirror.seen if "manifests" in path} == {f"/v2/mirrored/team/model/manifests/{digest}"}


async def test_what_an_open_mirror_has_of_a_closed_registry_is_not_for_everybody(registry: str, door: Open, trivy: Trivy) -> None:
    digest = images.vulnerable(registry, "mirrored/team/model:1")
    mirror, home = door(), door(password="s3cret")
    registries = Registries(
        {home.host: RegistrySettings(mirrors=(f"{mirror.host}/mirrored",))}, plain_http=frozenset({mirror.host, home.host})
    )
    async with Registry(registries=registries) as client:
        gatherer = Gatherer(registry=client, trivy=trivy, architectures=("amd64",))
        assert not (await gatherer.scan([f"{home.host}/team/model@{digest}"])).anonymous
        assert (await gatherer.scan([f"{mirror.host}/mirrored/team/model@{digest}"])).anonymous


async def test_a_mirror_answers_for_tags_where_the_administrator_says_so(registry: str, door: Open) -> None:
    digest = images.vulnerable(registry, "mirrored/team/model:1")
    images.vulnerable(registry, "team/model:1")
    mirror, home = door(), door()
    settings = RegistrySettings(mirrors=(f"{mirror.host}/mirrored",), tags=True)
    async with Registry(registries=Registries({home.host: settings}, plain_http=frozenset({mirror.host, home.host}))) as client:
        assert await client.resolve(parse(f"{home.host}/team/model:1")) == digest
    assert not home.seen


@pytest.mark.parametrize("fault", ["down", "without it", "with other bytes", "wants a password"])
async def test_a_mirror_that_fails_is_passed_over(registry: str, door: Open, trivy: Trivy, fault: str) -> None:
    digest = images.vulnerable(registry, "team/model:1")
    mirror, home = door(password="s3cret" if fault == "wants a password" else ""), door()
    mirror.down = fault == "down"
    prefix = {"without it": "nothing", "with other bytes": "other"}.get(fault, "")
    if fault == "with other bytes":
        images.clean(registry, "other/team/model:1")
    place = f"{mirror.host}/{prefix}" if prefix else mirror.host
    registries = Registries({home.host: RegistrySettings(mirrors=(place,))}, plain_http=frozenset({mirror.host, home.host}))
    async with Registry(registries=registries) as client:
        gatherer = Gatherer(registry=client, trivy=trivy, architectures=("amd64",))
        assert (await gatherer.scan([f"{home.host}/team/model@{digest}"])).counts == VULNERABLE
        assert mirror.seen
        missing = f"{home.host}/team/nothing@{digest}"
        with pytest.raises(TransientError if fault == "down" else DefinitiveError, match=r"no such image.*before that its mirror"):
            await gatherer.scan([missing])


async def test_the_credential_of_a_registry_is_never_shown_to_its_mirror(registry: str, door: Open) -> None:
    digest = images.vulnerable(registry, "team/model:1")
    mirror, home = door(password="s3cret"), door(password="s3cret")
    registries = Registries({home.host: RegistrySettings(mirrors=(mirror.host,))}, plain_http=frozenset({mirror.host, home.host}))
    async with Registry(registries=registries, credentials=Credentials({home.host: ANA})) as client:
        found = await client.showing(Credentials({home.host: ANA})).manifest(parse(f"{home.host}/team/model@{digest}"), digest)
    assert found.access.repository == f"{home.host}/team/model"
    assert {shown for _, _, shown in mirror.seen} == {""}
    assert ANA.basic in {shown for _, _, shown in home.seen}
