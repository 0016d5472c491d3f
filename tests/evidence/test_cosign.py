"""A cosign that misbehaves, as small scripts. The real one is in test_cosign_real.py."""

import base64
import hashlib
import json
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mlwarden.errors import EvidenceError
from mlwarden.evidence.cosign import Cosign, accepted
from mlwarden.evidence.failure import DefinitiveError, TransientError
from mlwarden.evidence.outcome import Outcome, answers
from mlwarden.evidence.process import Limits
from mlwarden.evidence.tool import Pull
from mlwarden.model.digest import Digest
from mlwarden.model.signing import Authority, Certificate, Demand, Identity, Keyless, Proof, Proven, SecretKey, Signer
from mlwarden.scanner.keys import material

DIGEST = Digest("sha256:" + "a" * 64)
OTHER = "sha256:" + "b" * 64
IMAGE = f"registry.example/team/model@{DIGEST}"
PULL = Pull(image=IMAGE, digest=DIGEST)
VULN = "https://cosign.sigstore.dev/attestation/vuln/v1"
PUBLIC = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
KEY = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*PUBLIC).decode()
ANOTHER = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*PUBLIC).decode()
RELEASE = Authority(name="release", key=KEY)
SIGNATURE = Demand(authority=RELEASE)
ATTESTATION = Demand(authority=RELEASE, predicate_type=VULN)
PATH = "registry.example/v2/team/model"
FALLBACK = f"2026/11/24 10:00:00 <-- 404 https://{PATH}/manifests/sha256-{'a' * 64} (1.2ms)"
ABSENT = [f"2026/11/24 10:00:00 <-- 404 https://{PATH}/manifests/sha256-{'a' * 64}.{form} (1.2ms)" for form in ("sig", "att")]


def entry(kind: str = "https://sigstore.dev/cosign/sign/v1", digest: str = DIGEST) -> dict[str, Any]:
    image = {"docker-manifest-digest": digest}
    return {"critical": {"identity": {"docker-reference": IMAGE}, "image": image, "type": kind}, "optional": {}}


def envelope(**changes: Any) -> dict[str, Any]:
    statement = {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": VULN,
        "subject": [{"name": "model", "digest": {"sha256": "a" * 64}}],
        "predicate": {"metadata": {"scanFinishedOn": "2026-11-20T00:00:00Z"}},
    } | changes
    payload_type = statement.pop("payloadType", "application/vnd.in-toto+json")
    return {"payloadType": payload_type, "payload": base64.b64encode(json.dumps(statement).encode()).decode(), "signatures": []}


def script(directory: Path, body: str, version: str = '{"gitVersion":"v3.1.3"}', **limits: float) -> Cosign:
    """A program that tells a version and, asked for anything else, does `body`; `ERRORS` is a log in which nothing is there."""
    binary = directory / "cosign"
    source = f"#!{sys.executable}\nimport json, os, signal, sys, time\nENTRY = json.loads({json.dumps(entry())!r})\n"
    source += f"ERRORS = {chr(10).join([FALLBACK, *ABSENT]) + chr(10)!r}\n"
    source += (
        "def fail(text, code=1): sys.stderr.write(ERRORS + 'Error: ' + text + '\\nerror during command execution: ' + text); sys.exit(code)"
    )
    source += "\n"
    binary.write_text(source + f"if sys.argv[1] == 'version': print({version!r}); sys.exit()\n{body}\n")
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    scratch = directory / "scratch"
    scratch.mkdir(exist_ok=True)
    return Cosign(binary=binary, scratch=scratch, limits=Limits(**{"seconds": 20, **limits}))


def printing(directory: Path, *lines: Any) -> Cosign:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return script(directory, f"print({text!r})")


async def outcome(cosign: Cosign, demand: Demand = SIGNATURE) -> Proof:
    return await cosign.establish(PULL, demand)


# Signatures.


async def test_a_signature_of_this_image_is_verified(tmp_path: Path) -> None:
    for kind in ("https://sigstore.dev/cosign/sign/v1", "cosign container image signature"):
        proof = await outcome(printing(tmp_path, [entry(VULN), entry(kind)]))
        assert (proof.outcome, proof.demand, proof.authority, proof.reason) == (Proven.VERIFIED, SIGNATURE.id, "release", "")
        der = serialization.load_pem_public_key(KEY.encode()).public_bytes(serialization.Encoding.DER, PUBLIC[1])
        assert proof.signer == Signer(key=f"sha256:{hashlib.sha256(der).hexdigest()}")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ([entry(digest=OTHER)], Proven.INVALID),
        ([entry("cosign container image signature", OTHER), entry(VULN)], Proven.INVALID),
        ([entry(VULN)], Proven.MISSING),
        ([entry("https://sigstore.dev/cosign/sign/v1 ")], Proven.MISSING),
        ([entry("")], Proven.MISSING),
    ],
)
async def test_exit_0_is_not_believed_alone(tmp_path: Path, printed: Any, expected: Proven) -> None:
    body = f"if '--new-bundle-format=false' in sys.argv: fail('no signatures found', 10)\nprint({json.dumps(printed)!r})"
    assert (await outcome(script(tmp_path, body))).outcome is expected


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("pass", TransientError),
        ("print('not json')", TransientError),
        ("print('{}')", TransientError),
        ("print('[]')", TransientError),
        ("print('null')", TransientError),
        ("print()", TransientError),
        ("print('[' * 100_000)", TransientError),
        ("print('[{}]')", TransientError),
        ("sys.stdout.buffer.write(b'\\xff' * 10)", TransientError),
        ("print(json.dumps([ENTRY])[:-20])", TransientError),
        ("print(json.dumps([ENTRY]), json.dumps([ENTRY]))", TransientError),
        ("print('Error: no signatures found')", TransientError),
        ("print('no signatures found', file=sys.stderr)", TransientError),
        ("print(json.dumps([ENTRY])); sys.exit(1)", TransientError),
        ("print(json.dumps([ENTRY])); sys.stdout.flush(); os.kill(os.getpid(), signal.SIGKILL)", TransientError),
        ("while True: print('x' * 10_000)", DefinitiveError),
        ("sys.exit(10)", TransientError),
        ("print('Error: no signatures found', file=sys.stderr); sys.exit(10)", TransientError),
        ("fail('something that nobody has seen before')", TransientError),
        ("fail('setting trusted material: getting trusted root from TUF: no such host')", TransientError),
        ("fail('setting trusted material: loading trusted root: no')", DefinitiveError),
        ("fail('loading verifier from key opts: loading public key: no')", DefinitiveError),
    ],
)
async def test_whatever_else_cosign_does_is_a_failure_and_says_nothing_about_the_image(
    tmp_path: Path, body: str, kind: type[Exception]
) -> None:
    for demand in (SIGNATURE, ATTESTATION):
        with pytest.raises(kind) as error:
            await outcome(script(tmp_path, body, output=1 << 20), demand)
        assert "\n" not in str(error.value)
        assert not list((tmp_path / "scratch").iterdir())


async def test_a_cosign_that_hangs_is_killed(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="ran for more than 1 s"):
        await outcome(script(tmp_path, "time.sleep(600)", seconds=1))


async def test_missing_is_said_only_where_the_registry_was_heard_to_say_so(tmp_path: Path) -> None:
    proof = await outcome(script(tmp_path, "fail('no signatures found', 10)"))
    assert (proof.outcome, proof.reason, proof.signer) == (Proven.MISSING, "there is no signature", None)
    proof = await outcome(script(tmp_path, "fail('no matching attestations: ')"), ATTESTATION)
    assert (proof.outcome, proof.reason) == (Proven.MISSING, "there is no attestation")
    # The log is longer than what is kept of it: what is cut may be the answer that matters.
    with pytest.raises(TransientError, match="more about this image"):
        await outcome(script(tmp_path, "sys.stderr.write('x' * (2 << 20) + '\\n'); fail('no signatures found', 10)"))


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (
            "503 https://registry.example/v2/x/blobs/sha256:1 (1ms) [body redacted: omitting binary blobs from logs]",
            TransientError,
            "503",
        ),
        ("429 https://registry.example/v2/team/model/referrers/x (1ms)", TransientError, "429"),
        ("401 https://registry.example/v2/team/model/referrers/x (1ms)", DefinitiveError, "401"),
        ("403 https://registry.example/v2/team/model/referrers/x?signature=secret (1ms)", DefinitiveError, "403"),
        ("EOF GET https://registry.example/v2/team/model/referrers/x (1ms)", TransientError, "cannot be reached: EOF"),
        ("dial tcp 10.0.0.1:443: i/o timeout GET https://registry.example/v2/ (30s)", TransientError, "i/o timeout"),
    ],
)
async def test_what_the_registry_did_not_answer_is_never_taken_for_absence(
    tmp_path: Path, answer: str, kind: type[Exception], said: str
) -> None:
    for text in ("no signatures found", "no matching signatures: invalid signature"):
        body = f"sys.stderr.write('2026/11/24 10:00:00 <-- {answer}\\n'); fail({text!r}, 10)"
        with pytest.raises(kind, match=said) as error:
            await outcome(script(tmp_path, body))
        assert "secret" not in str(error.value)


async def test_what_could_not_be_fetched_counts_unless_a_signature_was_verified(tmp_path: Path) -> None:
    log = "sys.stderr.write('2026/11/24 10:00:00 <-- 503 https://registry.example/v2/x/blobs/sha256:1 (1ms)\\n')\n"
    assert (await outcome(script(tmp_path, log + "print(json.dumps([ENTRY]))"))).outcome is Proven.VERIFIED
    with pytest.raises(TransientError, match="503"):
        await outcome(script(tmp_path, log + f"print({json.dumps([entry(VULN)])!r})"))
    with pytest.raises(TransientError, match="503"):  # it could be a newer one
        await outcome(script(tmp_path, log + f"print({json.dumps(envelope())!r})"), ATTESTATION)


async def test_a_challenge_and_a_second_try_that_worked_are_no_trouble(tmp_path: Path) -> None:
    lines = [
        "tls: first record does not look like a TLS handshake GET https://registry.example/v2/ (1ms)",
        "401 http://registry.example/v2/ (1ms)",
        "503 http://registry.example/v2/team/model/referrers/x (1ms)",
        "200 http://registry.example/v2/team/model/referrers/x (1ms)",
    ]
    log = "".join(f"2026/11/24 10:00:00 <-- {line}\n" for line in lines)
    proof = await outcome(script(tmp_path, f"sys.stderr.write({log!r}); fail('no signatures found', 10)"))
    assert proof.outcome is Proven.MISSING


async def test_a_signature_by_somebody_else_is_invalid_and_says_by_whom_it_should_be(tmp_path: Path) -> None:
    proof = await outcome(script(tmp_path, "fail('no matching signatures: invalid signature when validating ASN.1 encoded signature', 12)"))
    assert proof.outcome is Proven.INVALID
    assert proof.reason == "there is one, and not by the key of release"


# Attestations.


async def test_an_attestation_of_this_image_and_type_is_verified_with_its_date(tmp_path: Path) -> None:
    cosign = printing(tmp_path, envelope(), envelope(_type="https://in-toto.io/Statement/v1", predicate={}))
    proof = await outcome(cosign, ATTESTATION)
    assert (proof.outcome, proof.made_at) == (Proven.VERIFIED, datetime(2026, 11, 20, tzinfo=UTC))
    both = [each.made_at for each in (await cosign.attested(PULL, ATTESTATION)).found]  # this one says the same of both forms of storage
    assert list(dict.fromkeys(both)) == [proof.made_at, None]


@pytest.mark.parametrize(
    "changes",
    [
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"predicateType": VULN + "/"},
        {"predicateType": VULN.upper()},
        {"_type": "https://in-toto.io/Statement/v9"},
        {"subject": []},
        {"subject": [{"digest": {"sha256": "b" * 64}}]},
        {"subject": [{"digest": {"sha512": "a" * 64}}]},
        {"subject": [{"digest": {"sha256": DIGEST}}]},
        {"payloadType": "text/plain"},
    ],
)
async def test_cve_2022_35930_what_cosign_calls_verified_is_compared_by_us(tmp_path: Path, changes: dict[str, Any]) -> None:
    cosign = printing(tmp_path, envelope(**changes))
    assert (await outcome(cosign, ATTESTATION)).outcome is Proven.INVALID
    attested = await cosign.attested(PULL, ATTESTATION)
    assert attested.found == ()
    assert attested.reason, "there is something, and it does not count"


@pytest.mark.parametrize(
    "line",
    [
        json.dumps(envelope())[:-30],
        json.dumps(envelope() | {"payload": "!"}),
        json.dumps(envelope() | {"payload": base64.b64encode(b"{").decode()}),
        json.dumps(envelope() | {"payload": base64.b64encode(b"[" * 100_000).decode()}),
        json.dumps(envelope(subject="all")),
        "null",
        "[]",
    ],
)
async def test_an_answer_that_cannot_be_read_is_no_attestation(tmp_path: Path, line: str) -> None:
    with pytest.raises(TransientError, match="not whole"):
        await outcome(printing(tmp_path, envelope(), line), ATTESTATION)


def found(*predicates: Any) -> Outcome:
    return Outcome(outcome=Proven.VERIFIED, signer=Signer(key="k"), predicates=predicates)


def scan(at: str, **result: Any) -> dict[str, Any]:
    return {"metadata": {"scanFinishedOn": at}, "scanner": {"result": result}}


NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
CLEAN = Demand(authority=RELEASE, predicate_type=VULN, condition="predicate.scanner.result.critical == 0")


@pytest.mark.parametrize(
    ("predicates", "expected"),
    [
        ([scan("2026-11-24T10:00:00Z", critical=0)], Proven.VERIFIED),
        ([scan("2026-11-24T10:00:00Z", critical=1)], Proven.INVALID),
        ([scan("2026-11-23T10:00:00Z", critical=0), scan("2026-11-24T10:00:00Z", critical=1)], Proven.INVALID),
        ([scan("2026-11-23T10:00:00Z", critical=1), scan("2026-11-24T10:00:00Z", critical=0)], Proven.VERIFIED),
        ([scan("2026-11-24T10:00:00Z", critical=0), scan("2026-11-24T11:00:00+01:00", critical=1)], Proven.INVALID),
        ([scan("", critical=0), scan("", critical=1)], Proven.INVALID),
        ([scan("2026-11-24T10:00:00Z", critical=None)], Proven.INVALID),
        ([scan("2026-11-24T10:00:00Z", critical="0")], Proven.INVALID),
        (["text"], Proven.INVALID),
        ([None], Proven.INVALID),
    ],
)
def test_the_newest_attestation_decides_and_must_satisfy_the_condition(predicates: list[Any], expected: Proven) -> None:
    (said,) = answers([found(*predicates)], CLEAN, NOW)
    assert said.outcome is expected
    assert said.signer == Signer(key="k")


def test_each_signer_has_an_answer_and_what_is_dated_in_the_future_stands_beside_it() -> None:
    before, now, later = (scan(f"2026-11-{day}T10:00:00Z", critical=critical) for day, critical in (("23", 0), ("24", 1), ("25", 0)))
    other = Outcome(outcome=Proven.VERIFIED, signer=Signer(key="other"), predicates=(before,))
    said = answers([found(before, now, later), other], CLEAN, NOW)
    assert [(each.signer and each.signer.key, each.made_at and each.made_at.day, each.outcome) for each in said] == [
        ("k", 25, Proven.VERIFIED),
        ("k", 24, Proven.INVALID),
        ("other", 23, Proven.VERIFIED),
    ]


def test_a_condition_that_does_not_compile_is_said_and_never_met() -> None:
    with pytest.raises(DefinitiveError, match="does not compile"):
        answers([found({})], Demand(authority=RELEASE, predicate_type=VULN, condition="predicate ="), NOW)


# What cosign is asked.


async def arguments(directory: Path, demand: Demand) -> list[str]:
    told = directory / "told"
    cosign = script(directory, f"open({str(told)!r}, 'w').write(json.dumps(sys.argv[1:])); sys.exit(1)")
    cosign._roots = {"r": directory / "root.json"}
    with pytest.raises(TransientError):
        await cosign.establish(PULL, demand)
    return list(json.loads(told.read_text(encoding="utf-8")))


async def test_cosign_is_asked_about_a_digest_only(tmp_path: Path) -> None:
    assert (await arguments(tmp_path, SIGNATURE))[-1] == IMAGE
    for image in ("registry.example/team/model:1", f"registry.example/team/model@{OTHER}"):
        with pytest.raises(DefinitiveError, match="digest"):
            await printing(tmp_path, [entry()]).establish(Pull(image=image, digest=DIGEST), SIGNATURE)


async def test_plain_http_is_spoken_only_where_it_was_said(tmp_path: Path) -> None:
    """Unasked, cosign tries it with registries at private addresses: the proxy, which is nowhere, prevents that."""
    body = "fail(os.environ.get('HTTP_PROXY', 'none') + ' ' + str([each for each in sys.argv if each.startswith('--allow')]))"
    with pytest.raises(TransientError, match=r"http://127.0.0.1:0 \[\]"):
        await outcome(script(tmp_path, body))
    with pytest.raises(TransientError, match=r"none \['--allow-http-registry'\]"):
        await script(tmp_path, body).establish(Pull(image=IMAGE, digest=DIGEST, plain_http=True), SIGNATURE)


async def test_what_does_not_fit_into_memory_has_more_once_and_is_then_said_to_be_too_large(tmp_path: Path) -> None:
    body = (
        f"import resource; print({json.dumps([entry()])!r}) if resource.getrlimit(resource.RLIMIT_DATA)[0] >= ENOUGH else "
        "(sys.stderr.write('fatal error: runtime: out of memory\\n'), sys.exit(2))"
    )
    for enough, directory in ((1 << 30, tmp_path / "enough"), (1 << 40, tmp_path / "never")):
        directory.mkdir()
        cosign = script(directory, body.replace("ENOUGH", str(enough)), data=64 << 20)
        if enough == 1 << 30:
            assert (await cosign.establish(PULL, SIGNATURE)).outcome is Proven.VERIFIED
            continue
        with pytest.raises(DefinitiveError, match="does not fit into cosign's memory"):
            await cosign.establish(PULL, SIGNATURE)


async def test_cosign_sees_no_environment_and_one_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSIGN_REPOSITORY", "evil.example/signatures")
    monkeypatch.setenv("SIGSTORE_ROOT_FILE", "/evil")
    monkeypatch.setenv("KUBECONFIG", "/home/somebody/.kube/config")
    body = "fail(str(sorted(os.environ)) + open(os.environ['DOCKER_CONFIG'] + '/config.json').read())"
    with pytest.raises(TransientError) as error:
        await script(tmp_path, body).establish(Pull(image=IMAGE, digest=DIGEST, docker_config=b'{"auths":{"one":{}}}'), SIGNATURE)
    assert '{"auths":{"one":{}}}' in str(error.value)
    assert not any(name in str(error.value) for name in ("COSIGN", "SIGSTORE", "KUBE"))


async def test_a_key_that_is_not_one_is_said(tmp_path: Path) -> None:
    cosign = printing(tmp_path, [entry()])
    for key in (
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "k8s://kube-system/secret",
        "/etc/passwd",
        "https://a.example/k",
    ):
        with pytest.raises(DefinitiveError, match="public key"):
            await outcome(cosign, Demand(authority=Authority(name="release", key=key)))
    with pytest.raises(DefinitiveError, match="Secret signing was not read"):
        await outcome(cosign, Demand(authority=Authority(name="release", key_secret=SecretKey(name="signing"))))


async def test_a_proof_tells_the_key_it_was_made_with(tmp_path: Path) -> None:
    """As `scanner.keys.material` does: a key that was exchanged is noticed by comparing the two."""
    proof = await outcome(printing(tmp_path, [entry()]))
    assert proof.material == material(SIGNATURE)
    other = Demand(authority=Authority(name="release", key=ANOTHER))
    assert (await outcome(printing(tmp_path, [entry()]), other)).material == material(other) != proof.material


async def test_expressions_are_anchored_and_an_authority_with_one_issuer_is_one_run(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_text("{}")
    identities = (
        Identity(issuer="https://a.example", subject="x.y@example.com"),
        Identity(issuer="https://a.example", subject_reg_exp="a|b"),
    )
    told = await arguments(tmp_path, Demand(authority=Authority(name="ci", keyless=Keyless(identities=identities), trust_root="r")))
    assert r"--certificate-identity-regexp=^(?:(?:x\.y@example\.com)|(?:a|b))$" in told
    assert "--certificate-oidc-issuer=https://a.example" in told


@pytest.mark.parametrize("expression", ["a)|(?:b", "(", "[", r"a\Qb", "(?=a)", r"\1"])
async def test_what_is_no_expression_by_itself_is_refused(tmp_path: Path, expression: str) -> None:
    for identity in (Identity(issuer_reg_exp=expression, subject="a"), Identity(issuer="a", subject_reg_exp=expression)):
        with pytest.raises(DefinitiveError, match="RE2"):
            await outcome(printing(tmp_path, [entry()]), Demand(authority=Authority(name="ci", keyless=Keyless(identities=(identity,)))))


async def test_keyless_signatures_always_need_a_log_entry_and_nothing_is_looked_up_online(tmp_path: Path) -> None:
    identity = Identity(issuer="https://a.example", subject="b")
    told = await arguments(tmp_path, Demand(authority=Authority(name="ci", keyless=Keyless(identities=(identity,)))))
    assert "--insecure-ignore-tlog" not in told
    assert "--insecure-ignore-sct" not in told
    assert "--offline" in told


async def test_a_chain_that_is_none_is_refused(tmp_path: Path) -> None:
    identity = Identity(issuer_reg_exp=".*", subject="b")
    demand = Demand(authority=Authority(name="own", certificate=Certificate(chain="nothing", identities=(identity,))))
    with pytest.raises(DefinitiveError, match="not PEM"):
        await outcome(printing(tmp_path, [entry()]), demand)


# Versions.


@pytest.mark.parametrize("version", ["3.1.2", "v3.1.3", "v3.2.0", "v4.0.0", "v3.1.3+dirty"])
def test_a_release_from_the_floor_on_is_accepted(version: str) -> None:
    assert accepted(version) >= (3, 1, 2)


@pytest.mark.parametrize("version", ["v2.6.5", "v3.0.4", "v3.1.1", "devel", "", "v3.1", "v3.1.2-rc.1", "v3.1.3\nx", "\u0663.1.3"])
def test_anything_older_or_odd_is_refused(version: str) -> None:
    with pytest.raises(EvidenceError):
        accepted(version)


@pytest.mark.parametrize("version", ["", "v3.1.3", '{"gitVersion":"v3.0.0"}', '{"gitVersion":7}', '{"V":1}', "[]", "null"])
async def test_a_cosign_that_does_not_tell_a_fit_version_verifies_nothing(tmp_path: Path, version: str) -> None:
    with pytest.raises(EvidenceError) as error:
        await outcome(script(tmp_path, "print(json.dumps([ENTRY]))", version))
    assert not isinstance(error.value, TransientError | DefinitiveError)


@pytest.mark.parametrize(
    ("advisory", "version"),
    [
        ("CVE-2024-29902", "2.2.3"),
        ("CVE-2024-29903", "2.2.3"),
        ("CVE-2026-22703", "3.0.3"),
        ("CVE-2026-24122", "3.0.4"),
        ("CVE-2026-39395", "3.0.5"),
    ],
)
def test_a_cosign_with_a_known_hole_is_refused(advisory: str, version: str) -> None:
    """Payloads that exhaust memory, any entry of a log, expired authorities, payloads that cannot be read: fixed in later releases."""
    with pytest.raises(EvidenceError, match="too old"):
        accepted(version)
