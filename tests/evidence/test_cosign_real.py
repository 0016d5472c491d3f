"""What the real cosign establishes about images in a real registry, by every kind of authority and in both forms of storage."""

import base64
import json
import secrets
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from mlwarden.embedded import build, images
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.signer import KeyPair, Signer
from mlwarden.embedded.sigstore import Sigstore
from mlwarden.evidence.cosign import Cosign
from mlwarden.evidence.failure import DefinitiveError, TransientError
from mlwarden.evidence.history import merged
from mlwarden.evidence.tool import Pull
from mlwarden.model.digest import Digest
from mlwarden.model.signing import Authority, Certificate, Demand, Identity, Keyless, Proven
from mlwarden.model.signing import Signer as Who

pytestmark = pytest.mark.cluster

VULN = "https://cosign.sigstore.dev/attestation/vuln/v1"
REVIEW = "https://example.com/review/v1"
FORMS = pytest.mark.parametrize("legacy", [False, True], ids=["bundle", "legacy"])


@pytest.fixture
def pull(cluster: EmbeddedCluster) -> Pull:
    """A fresh image."""
    name = f"cosign/{secrets.token_hex(6)}"
    digest = Digest(images.clean(cluster.registry, f"{name}:1"))
    return Pull(image=f"{cluster.registry}/{name}@{digest}", digest=digest, plain_http=True)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, KeyPair]:
    signer = Signer(tmp_path_factory.mktemp("keys"))
    return {name: signer.key_pair(name) for name in ("release", "other")}


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def cosign(scratch: Path, sigstore: Sigstore) -> Cosign:
    return Cosign(binary=build.binary("cosign"), scratch=scratch, trust_roots={"ours": sigstore.trust_root})


@pytest.fixture(scope="module")
def elsewhere(cluster: EmbeddedCluster) -> Iterator[Sigstore]:
    """Another Sigstore, with the same identities."""
    with Sigstore(cluster) as running:
        yield running


def by_key(key: KeyPair, **more: Any) -> Authority:
    return Authority(name="release", key=key.pem, **more)


def keyless(*identities: Identity, root: str = "ours") -> Demand:
    return Demand(authority=Authority(name="ci", keyless=Keyless(identities=identities), trust_root=root))


def own(chain: str, *identities: Identity, **more: Any) -> Demand:
    return Demand(authority=Authority(name="own", certificate=Certificate(chain=chain, identities=identities), **more))


def scanned(at: datetime, **result: Any) -> dict[str, Any]:
    stamp = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"scanStartedOn": stamp, "scanFinishedOn": stamp}
    return {"invocation": {}, "scanner": {"uri": "trivy", "result": result}, "metadata": metadata}


# Keys.


@FORMS
async def test_a_signature_by_the_key_is_verified_and_by_another_is_not(
    cosign: Cosign, signer: Signer, keys: dict[str, KeyPair], pull: Pull, *, legacy: bool
) -> None:
    signer.sign(pull.image, keys["release"], legacy=legacy)
    proof = await cosign.establish(pull, Demand(authority=by_key(keys["release"])))
    assert (proof.outcome, proof.reason) == (Proven.VERIFIED, "")
    assert proof.signer
    assert proof.signer.key.startswith("sha256:")
    refused = await cosign.establish(pull, Demand(authority=by_key(keys["other"])))
    assert refused.outcome is Proven.INVALID
    assert refused.signer is None


async def test_an_image_without_a_signature_is_missing_one(cosign: Cosign, keys: dict[str, KeyPair], pull: Pull) -> None:
    proof = await cosign.establish(pull, Demand(authority=by_key(keys["release"])))
    assert (proof.outcome, proof.reason) == (Proven.MISSING, "there is no signature")
    proof = await cosign.establish(pull, Demand(authority=by_key(keys["release"]), predicate_type=VULN))
    assert (proof.outcome, proof.reason) == (Proven.MISSING, "there is no attestation")


async def test_a_signature_in_the_older_form_is_found_beside_a_bundle_of_somebody_else(
    cosign: Cosign, signer: Signer, keys: dict[str, KeyPair], pull: Pull
) -> None:
    signer.sign(pull.image, keys["release"], legacy=True)
    signer.sign(pull.image, keys["other"])
    for name in ("release", "other"):
        assert (await cosign.establish(pull, Demand(authority=by_key(keys[name])))).outcome is Proven.VERIFIED


async def test_a_key_can_be_asked_for_an_entry_in_the_log(
    cosign: Cosign, signer: Signer, sigstore: Sigstore, keys: dict[str, KeyPair], pull: Pull
) -> None:
    signer.sign(pull.image, keys["release"])
    logged = Demand(authority=by_key(keys["release"], log=True, trust_root="ours"))
    assert (await cosign.establish(pull, logged)).outcome is Proven.INVALID
    files = ("--signing-config", str(sigstore.signing_config), "--trusted-root", str(sigstore.trust_root))
    signer.cosign("sign", "--key", str(keys["release"].private), *files, "--allow-http-registry", "--yes", pull.image)
    assert (await cosign.establish(pull, logged)).outcome is Proven.VERIFIED


# What is not a signature.


@FORMS
async def test_an_attestation_is_no_signature(
    cosign: Cosign, signer: Signer, keys: dict[str, KeyPair], pull: Pull, *, legacy: bool
) -> None:
    signer.attest(pull.image, keys["release"], type="vuln", predicate=scanned(datetime.now(UTC)), legacy=legacy)
    proof = await cosign.establish(pull, Demand(authority=by_key(keys["release"])))
    assert proof.outcome is Proven.MISSING


@FORMS
async def test_cve_2022_35929_and_35930_an_attestation_of_one_type_is_none_of_another(
    cosign: Cosign, signer: Signer, keys: dict[str, KeyPair], pull: Pull, *, legacy: bool
) -> None:
    signer.attest(pull.image, keys["release"], type=REVIEW, predicate={"approved": True}, legacy=legacy)
    proof = await cosign.establish(pull, Demand(authority=by_key(keys["release"]), predicate_type=VULN))
    assert proof.outcome is Proven.MISSING
    assert REVIEW in proof.reason
    signer.sign(pull.image, keys["release"], legacy=legacy)
    assert (await cosign.establish(pull, Demand(authority=by_key(keys["release"]), predicate_type=VULN))).outcome is Proven.MISSING


@FORMS
async def test_a_signature_of_another_image_is_no_signature_of_this_one(
    cosign: Cosign, cluster: EmbeddedCluster, signer: Signer, keys: dict[str, KeyPair], pull: Pull, *, legacy: bool
) -> None:
    """Copied in the registry to where this image's signatures are."""
    repository = pull.image.partition("@")[0]
    other = Digest(images.vulnerable(cluster.registry, f"{repository.partition('/')[2]}:other"))
    signer.sign(f"{repository}@{other}", keys["release"], legacy=legacy)
    suffix = ".sig" if legacy else ""
    here, there = (f"{repository}:{digest.replace(':', '-')}{suffix}" for digest in (pull.digest, other))
    cluster.run("crane", "copy", "--insecure", there, here)
    proof = await cosign.establish(pull, Demand(authority=by_key(keys["release"])))
    assert proof.outcome is Proven.INVALID, proof


# Attestations.


@FORMS
async def test_an_attestation_is_verified_with_its_date_and_its_condition(
    cosign: Cosign, signer: Signer, keys: dict[str, KeyPair], pull: Pull, *, legacy: bool
) -> None:
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    signer.attest(pull.image, keys["release"], type=VULN, predicate=scanned(at, critical=0), legacy=legacy)
    demand = Demand(authority=by_key(keys["release"]), predicate_type=VULN, condition="predicate.scanner.result.critical == 0")
    proof = await cosign.establish(pull, demand)
    assert (proof.outcome, proof.made_at) == (Proven.VERIFIED, at)
    unmet = Demand(authority=by_key(keys["release"]), predicate_type=VULN, condition="predicate.scanner.result.critical > 0")
    assert (await cosign.establish(pull, unmet)).outcome is Proven.INVALID
    senseless = Demand(authority=by_key(keys["release"]), predicate_type=VULN, condition="predicate.nothing > 0")
    assert "no value" in (await cosign.establish(pull, senseless)).reason
    [found] = (await cosign.attested(pull, demand)).found
    assert (found.predicate["scanner"]["result"], found.made_at, found.signer) == ({"critical": 0}, at, proof.signer)
    stranger = Demand(authority=by_key(keys["other"]), predicate_type=VULN)
    assert (await cosign.establish(pull, stranger)).outcome is Proven.INVALID
    attested = await cosign.attested(pull, stranger)
    assert attested.found == ()
    assert "not by the key" in attested.reason


@FORMS
async def test_the_newest_attestation_decides(
    cosign: Cosign, signer: Signer, keys: dict[str, KeyPair], pull: Pull, *, legacy: bool
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    signer.attest(pull.image, keys["release"], type=VULN, predicate=scanned(now - timedelta(days=1), critical=0), legacy=legacy)
    signer.attest(pull.image, keys["release"], type=VULN, predicate=scanned(now, critical=3), legacy=legacy)
    demand = Demand(authority=by_key(keys["release"]), predicate_type=VULN, condition="predicate.scanner.result.critical == 0")
    assert (await cosign.establish(pull, demand)).outcome is Proven.INVALID
    assert [each.made_at for each in (await cosign.attested(pull, demand)).found] == [now, now - timedelta(days=1)]


@FORMS
async def test_the_newest_attestation_decides_in_whichever_form_it_is_stored(
    cosign: Cosign, signer: Signer, keys: dict[str, KeyPair], pull: Pull, *, legacy: bool
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    signer.attest(pull.image, keys["release"], type=VULN, predicate=scanned(now - timedelta(days=1), critical=0), legacy=legacy)
    demand = Demand(authority=by_key(keys["release"]), predicate_type=VULN, condition="predicate.scanner.result.critical == 0")
    signer.attest(pull.image, keys["other"], type=VULN, predicate=scanned(now, critical=3), legacy=not legacy)
    assert (await cosign.establish(pull, demand)).outcome is Proven.VERIFIED  # what somebody else attests is not asked for
    signer.attest(pull.image, keys["release"], type=VULN, predicate=scanned(now, critical=3), legacy=not legacy)
    assert (await cosign.establish(pull, demand)).outcome is Proven.INVALID
    assert [each.made_at for each in (await cosign.attested(pull, demand)).found] == [now, now - timedelta(days=1)]


async def test_an_attestation_from_the_future_counts_as_of_when_it_was_first_seen(
    cosign: Cosign, signer: Signer, keys: dict[str, KeyPair], pull: Pull
) -> None:
    dated, now = datetime(2999, 1, 1, tzinfo=UTC), datetime.now(UTC)
    demand = Demand(authority=by_key(keys["release"]), predicate_type=VULN, condition="predicate.scanner.result.critical == 0")
    signer.attest(pull.image, keys["release"], type=VULN, predicate=scanned(dated, critical=0))
    first = merged(None, await cosign.establish(pull, demand), now, complete=True)
    assert (first.outcome, first.made_at, first.dated) == (Proven.VERIFIED, now, dated)

    newer = (now + timedelta(seconds=2)).replace(microsecond=0)
    signer.attest(pull.image, keys["release"], type=VULN, predicate=scanned(newer, critical=3))
    second = merged(first, await cosign.establish(pull, demand), now + timedelta(days=1), complete=True)
    assert (second.outcome, second.made_at) == (Proven.INVALID, newer)
    assert [(each.made_at, each.dated) for each in second.others] == [(now, dated)]


# Identities.


async def test_an_identity_is_verified_and_told_exactly_or_by_expression(cosign: Cosign, sigstore: Sigstore, pull: Pull) -> None:
    sigstore.sign(pull.image)
    who = Who(issuer=sigstore.issuer, subject=sigstore.subject("signer"))
    exact = Identity(issuer=sigstore.issuer, subject=sigstore.subject("signer"))
    pattern = Identity(issuer_reg_exp=r"https://127\.0\.0\.1:\d+", subject_reg_exp=r"https://kubernetes\.io/namespaces/default/.+")
    nobody = Identity(issuer=sigstore.issuer, subject=sigstore.subject("nobody"))
    for identities in ((exact,), (pattern,), (nobody, exact), (nobody, pattern)):
        proof = await cosign.establish(pull, keyless(*identities))
        assert (proof.outcome, proof.reason, proof.signer) == (Proven.VERIFIED, "", who)


@pytest.mark.parametrize("field", ["issuer", "issuer_reg_exp", "subject", "subject_reg_exp"])
async def test_cve_2025_29778_each_field_of_an_identity_can_refuse(cosign: Cosign, sigstore: Sigstore, pull: Pull, field: str) -> None:
    sigstore.sign(pull.image)
    kept = {"issuer": sigstore.issuer, "subject": sigstore.subject("signer")}
    wrong = {"issuer": "https://other.example", "subject": sigstore.subject("other")}
    name = field.removesuffix("_reg_exp")
    del kept[name]
    proof = await cosign.establish(
        pull, keyless(Identity(**{field: wrong[name].replace(".", r"\."), **kept} if "_" in field else {field: wrong[name], **kept}))
    )
    assert proof.outcome is Proven.INVALID


@pytest.mark.parametrize("expression", ["serviceaccounts/signer", "https://kubernetes.io/namespaces/default", ".*/signe", ""])
async def test_an_expression_must_match_the_whole_subject(cosign: Cosign, sigstore: Sigstore, pull: Pull, expression: str) -> None:
    sigstore.sign(pull.image)
    identity = Identity(issuer=sigstore.issuer, subject_reg_exp=expression or "(|x)")
    assert (await cosign.establish(pull, keyless(identity))).outcome is Proven.INVALID


async def test_a_keyless_signature_without_a_log_entry_is_refused(cosign: Cosign, sigstore: Sigstore, pull: Pull) -> None:
    sigstore.sign(pull.image, config=sigstore.signing_config_without_log)
    demand = keyless(Identity(issuer=sigstore.issuer, subject=sigstore.subject("signer")))
    proof = await cosign.establish(pull, demand)
    assert proof.outcome is Proven.INVALID
    assert "log" in proof.reason


async def test_an_entry_in_another_log_is_refused(cosign: Cosign, sigstore: Sigstore, elsewhere: Sigstore, pull: Pull) -> None:
    sigstore.sign(pull.image, config=sigstore.signing_config_with(elsewhere), unchecked=True)
    demand = keyless(Identity(issuer=sigstore.issuer, subject=sigstore.subject("signer")))
    proof = await cosign.establish(pull, demand)
    assert proof.outcome is Proven.INVALID
    assert "log" in proof.reason


async def test_a_signature_of_another_sigstore_is_refused(cosign: Cosign, sigstore: Sigstore, elsewhere: Sigstore, pull: Pull) -> None:
    elsewhere.sign(pull.image)
    demand = keyless(Identity(issuer=sigstore.issuer, subject=sigstore.subject("signer")))
    assert (await cosign.establish(pull, demand)).outcome is Proven.INVALID


async def test_a_keyless_signature_in_the_older_form_is_verified_and_told(cosign: Cosign, sigstore: Sigstore, pull: Pull) -> None:
    sigstore.sign_in_the_older_form(pull.image)
    who = Who(issuer=sigstore.issuer, subject=sigstore.subject("signer"))
    for identity in (Identity(issuer=who.issuer, subject=who.subject), Identity(issuer=who.issuer, subject_reg_exp=".*/signer")):
        proof = await cosign.establish(pull, keyless(identity))
        assert (proof.outcome, proof.reason, proof.signer) == (Proven.VERIFIED, "", who)
    for wrong in (Identity(issuer=who.issuer, subject="nobody"), Identity(issuer="https://a.example", subject=who.subject)):
        assert (await cosign.establish(pull, keyless(wrong))).outcome is Proven.INVALID


async def test_a_keyless_signature_in_the_older_form_without_a_log_entry_is_refused(cosign: Cosign, sigstore: Sigstore, pull: Pull) -> None:
    sigstore.sign_in_the_older_form(pull.image, logged=False)
    proof = await cosign.establish(pull, keyless(Identity(issuer=sigstore.issuer, subject=sigstore.subject("signer"))))
    assert proof.outcome is Proven.INVALID


async def test_cve_2026_22703_a_log_entry_of_another_signature_is_refused(
    cosign: Cosign, cluster: EmbeddedCluster, sigstore: Sigstore, pull: Pull
) -> None:
    name = f"cosign/{secrets.token_hex(6)}"
    other = f"{cluster.registry}/{name}@{images.vulnerable(cluster.registry, f'{name}:1')}"
    for image in (pull.image, other):
        sigstore.sign_in_the_older_form(image)
    demand = keyless(Identity(issuer=sigstore.issuer, subject=sigstore.subject("signer")))
    assert (await cosign.establish(pull, demand)).outcome is Proven.VERIFIED
    sigstore.old_log.move(pull.image, other)
    assert (await cosign.establish(pull, demand)).outcome is Proven.INVALID


async def test_a_keyless_attestation_is_verified_with_its_signer(cosign: Cosign, sigstore: Sigstore, pull: Pull) -> None:
    sigstore.attest(pull.image, type=REVIEW, predicate={"approved": True})
    identity = Identity(issuer=sigstore.issuer, subject_reg_exp=".*/signer")
    demand = Demand(authority=keyless(identity).authority, predicate_type=REVIEW, condition="predicate.approved == true")
    proof = await cosign.establish(pull, demand)
    assert (proof.outcome, proof.made_at) == (Proven.VERIFIED, None)
    assert proof.signer == Who(issuer=sigstore.issuer, subject=sigstore.subject("signer"))


async def test_a_trust_root_that_nobody_configured_is_named(cosign: Cosign, pull: Pull) -> None:
    with pytest.raises(DefinitiveError, match="no trust root 'theirs'"):
        await cosign.establish(pull, keyless(Identity(issuer="https://a.example", subject="b"), root="theirs"))


# Certificates of one's own.


@FORMS
async def test_a_certificate_of_ones_own_authority_is_verified_and_told(
    cosign: Cosign, signer: Signer, pull: Pull, *, legacy: bool
) -> None:
    authority = signer.authority()
    signer.sign(pull.image, authority.issue("release@example.com"), legacy=legacy)
    signer.attest(pull.image, authority.issue("release@example.com"), type=REVIEW, predicate={"approved": True}, legacy=legacy)
    who = Who(subject="release@example.com")
    for identity in (
        Identity(issuer_reg_exp=".*", subject="release@example.com"),
        Identity(issuer_reg_exp=".*", subject_reg_exp=r".+@example\.com"),
    ):
        proof = await cosign.establish(pull, own(authority.pem, identity))
        assert (proof.outcome, proof.reason, proof.signer) == (Proven.VERIFIED, "", who)
        demand = Demand(authority=own(authority.pem, identity).authority, predicate_type=REVIEW, condition="predicate.approved == true")
        proof = await cosign.establish(pull, demand)
        assert (proof.outcome, proof.reason, proof.signer) == (Proven.VERIFIED, "", who)
    stranger = Identity(issuer_reg_exp=".*", subject="other@example.com")
    assert (await cosign.establish(pull, own(authority.pem, stranger))).outcome is Proven.INVALID
    another = signer.authority("another")
    mine = Identity(issuer_reg_exp=".*", subject="release@example.com")
    assert (await cosign.establish(pull, own(another.pem, mine))).outcome is Proven.INVALID
    assert (await cosign.establish(pull, own(authority.pem, mine, log=True, trust_root="ours"))).outcome is Proven.INVALID


async def test_a_certificate_of_ones_own_authority_can_be_asked_for_an_entry_in_the_log(
    cosign: Cosign, signer: Signer, sigstore: Sigstore, pull: Pull
) -> None:
    authority = signer.authority()
    key = authority.issue("release@example.com")
    mine = Identity(issuer_reg_exp=".*", subject="release@example.com")
    signer.sign(pull.image, key)
    assert (await cosign.establish(pull, own(authority.pem, mine, log=True, trust_root="ours"))).outcome is Proven.INVALID
    certificate = ("--key", str(key.private), "--certificate", str(key.certificate))
    services = ("--signing-config", str(sigstore.signing_config), "--allow-http-registry", "--yes")
    signer.cosign("sign", *certificate, *services, pull.image)
    proof = await cosign.establish(pull, own(authority.pem, mine, log=True, trust_root="ours"))
    assert (proof.outcome, proof.reason) == (Proven.VERIFIED, "")
    with pytest.raises(DefinitiveError, match="needs a trust root"):
        await cosign.establish(pull, own(authority.pem, mine, log=True))


@FORMS
@pytest.mark.parametrize("expired", ["certificate", "authority"])
async def test_cve_2026_24122_an_expired_certificate_or_issuer_is_refused(
    cosign: Cosign, signer: Signer, pull: Pull, expired: str, *, legacy: bool
) -> None:
    authority = signer.authority(days=-1 if expired == "authority" else 30)
    signer.sign(pull.image, authority.issue("release@example.com", days=-1 if expired == "certificate" else 30), legacy=legacy)
    identity = Identity(issuer_reg_exp=".*", subject="release@example.com")
    assert (await cosign.establish(pull, own(authority.pem, identity))).outcome is Proven.INVALID


# Registries.


async def passed_on(cluster: EmbeddedCluster, request: web.Request) -> web.Response:
    """The real registry's answer."""
    headers = {"Accept": request.headers.get("Accept", "*/*")}
    async with ClientSession() as session, session.get(f"http://{cluster.registry}{request.path}", headers=headers) as answer:
        return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)


async def test_a_registry_that_fails_while_the_signature_is_fetched_is_not_an_image_without_one(
    cosign: Cosign, cluster: EmbeddedCluster, signer: Signer, keys: dict[str, KeyPair], pull: Pull, *, serve: Any
) -> None:
    """cosign alone says "no signatures found" here."""
    signer.sign(pull.image, keys["release"])
    status = 507  # one that cosign does not try again

    async def proxy(request: web.Request) -> web.StreamResponse:
        answer = await passed_on(cluster, request)
        is_signature = isinstance(answer.body, bytes) and b'"subject"' in answer.body and b"dev.sigstore.bundle" in answer.body
        return web.Response(status=status) if is_signature else answer

    address = await serve(proxy)
    through = Pull(image=pull.image.replace(cluster.registry, address), digest=pull.digest, plain_http=True)
    demand = Demand(authority=by_key(keys["release"]))
    with pytest.raises(TransientError, match="507"):
        await cosign.establish(through, demand)
    status = 403
    with pytest.raises(DefinitiveError, match="403"):
        await cosign.establish(through, demand)


async def test_a_registry_with_a_private_authority_and_a_password_is_spoken_to_with_both(
    cluster: EmbeddedCluster, signer: Signer, keys: dict[str, KeyPair], pull: Pull, scratch: Path
) -> None:
    signer.sign(pull.image, keys["release"])
    credential = base64.b64encode(b"robot:secret").decode()

    async def guard(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Basic {credential}":
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="here"'})
        return await passed_on(cluster, request)

    app = web.Application()
    app.router.add_get("/{path:.*}", guard)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cluster.pki.server_certificate, cluster.pki.server_key)
    server = TestServer(app, host="127.0.0.1", scheme="https", shutdown_timeout=0)
    await server.start_server(ssl=context)
    try:
        address = f"127.0.0.1:{server.port}"
        config = json.dumps({"auths": {address: {"auth": credential}}}).encode()
        image, demand = pull.image.replace(cluster.registry, address), Demand(authority=by_key(keys["release"]))
        stranger = Cosign(binary=build.binary("cosign"), scratch=scratch)
        known = Cosign(binary=build.binary("cosign"), scratch=scratch, ca_file=str(cluster.pki.ca))
        proof = await known.establish(Pull(image=image, digest=pull.digest, docker_config=config), demand)
        assert (proof.outcome, proof.reason) == (Proven.VERIFIED, "")
        told = Pull(image=image, digest=pull.digest, docker_config=config, ca=cluster.pki.ca.read_bytes())
        assert (await stranger.establish(told, demand)).outcome is Proven.VERIFIED
        with pytest.raises(DefinitiveError, match="401") as refused:
            await known.establish(Pull(image=image, digest=pull.digest), demand)
        assert "secret" not in refused.value.diagnostics()
        with pytest.raises(TransientError, match="certificate"):
            await stranger.establish(Pull(image=image, digest=pull.digest, docker_config=config), demand)
    finally:
        await server.close()


@pytest.mark.parametrize(("status", "kind"), [(401, DefinitiveError), (403, DefinitiveError), (429, TransientError), (501, TransientError)])
async def test_a_registry_that_answers_nothing_is_not_an_image_without_a_signature(
    cosign: Cosign, keys: dict[str, KeyPair], pull: Pull, serve: Any, *, status: int, kind: type[Exception]
) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=200 if request.path == "/v2/" else status, headers={"Retry-After": "7"})

    address = await serve(refuse)
    through = Pull(image=f"{address}/team/a@{pull.digest}", digest=pull.digest, plain_http=True)
    with pytest.raises(kind) as error:
        await cosign.establish(through, Demand(authority=by_key(keys["release"])))
    assert str(status) in str(error.value)
    if status == 429:
        assert error.value.retry_after == 7  # type: ignore[attr-defined]


async def test_a_registry_that_is_not_there_is_not_an_image_without_a_signature(
    cosign: Cosign, keys: dict[str, KeyPair], pull: Pull
) -> None:
    nowhere = Pull(image=f"127.0.0.1:1/team/a@{pull.digest}", digest=pull.digest, plain_http=True)
    with pytest.raises(TransientError, match="connection refused"):
        await cosign.establish(nowhere, Demand(authority=by_key(keys["release"])))


async def test_only_a_registry_that_the_administrator_listed_is_spoken_to_in_plain_http(
    cosign: Cosign, keys: dict[str, KeyPair], pull: Pull
) -> None:
    strict = Pull(image=pull.image.replace("127.0.0.1", "registry.invalid"), digest=pull.digest)
    with pytest.raises(TransientError):
        await cosign.establish(strict, Demand(authority=by_key(keys["release"])))


async def test_without_the_public_trust_root_nothing_is_said_about_the_image(cosign: Cosign, sigstore: Sigstore, pull: Pull) -> None:
    sigstore.sign(pull.image)
    with pytest.raises(TransientError, match="trust root cannot be fetched"):
        await cosign.establish(pull, keyless(Identity(issuer="https://a.example", subject="b"), root=""))


async def test_nothing_is_left_on_disk(cosign: Cosign, keys: dict[str, KeyPair], pull: Pull, scratch: Path) -> None:
    await cosign.establish(pull, Demand(authority=by_key(keys["release"])))
    assert not list(scratch.iterdir())  # noqa: ASYNC240 -- a test


async def test_the_version_that_is_built_is_accepted(cosign: Cosign) -> None:
    assert f"v{await cosign.version()}" == build.version("cosign")
