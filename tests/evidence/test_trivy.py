"""Trivy that misbehaves, as small scripts. The real one is in test_trivy_real.py."""

import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from mlwarden.embedded import images
from mlwarden.embedded.build import binary
from mlwarden.errors import EvidenceError
from mlwarden.evidence.failure import DefinitiveError, TransientError
from mlwarden.evidence.process import Completed, Limits
from mlwarden.evidence.report import Findings, Package, System
from mlwarden.evidence.tool import Pull
from mlwarden.evidence.trivy import Trivy, accepted, failure
from mlwarden.model.digest import Digest

DIGEST = Digest("sha256:" + "a" * 64)
IMAGE = f"registry.example/team/model@{DIGEST}"
REPORT = {
    "SchemaVersion": 2,
    "Trivy": {"Version": "0.72.0"},
    "ArtifactName": IMAGE,
    "ArtifactType": "container_image",
    "Metadata": {"OS": {"Family": "alpine", "Name": "3.19.1"}, "RepoDigests": [IMAGE]},
    "Results": [{"Target": "x", "Class": "os-pkgs", "Type": "alpine", "Packages": [{"Name": "busybox", "Version": "1"}]}],
}


def fake(directory: Path, body: str, version: str = '{"Version":"0.72.0"}', **limits: float) -> Trivy:
    """A program that tells a version and, asked to scan, does `body`."""
    binary = directory / "trivy"
    source = f"#!{sys.executable}\nimport json, os, signal, sys, time\nREPORT = json.loads({msgspec.json.encode(REPORT).decode()!r})\n"
    binary.write_text(source + f"if sys.argv[1] == '--version': print({version!r}); sys.exit()\n{body}\n")
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    scratch = directory / "scratch"
    scratch.mkdir(exist_ok=True)
    return Trivy(binary=binary, cache=directory, scratch=scratch, limits=Limits(**{"seconds": 20, **limits}))


async def scan(trivy: Trivy) -> Findings:
    return await trivy.scan(Pull(image=IMAGE, digest=DIGEST))


async def test_a_whole_report_about_what_was_asked_is_believed(tmp_path: Path) -> None:
    found = await scan(fake(tmp_path, "print(json.dumps(REPORT))"))
    package = Package(type="alpine", system=True, name="busybox", version="1")
    assert found == Findings(digest=DIGEST, system=System(family="alpine", version="3.19.1"), packages=(package,), rereadable=False)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("pass", TransientError),
        ("print('not json')", TransientError),
        ("print('[]')", TransientError),
        ("print('null')", TransientError),
        ("print('[' * 100_000)", TransientError),
        ("sys.stdout.buffer.write(b'\\xff' * 10)", TransientError),
        ("print(json.dumps(REPORT)[:-20])", TransientError),
        ("print(json.dumps(REPORT), json.dumps(REPORT))", TransientError),
        ("print(json.dumps(REPORT)); sys.exit(1)", TransientError),
        ("print(json.dumps(REPORT)); sys.stdout.flush(); os.kill(os.getpid(), signal.SIGKILL)", TransientError),
        ("print(json.dumps(REPORT | {'SchemaVersion': 3}))", DefinitiveError),
        ("print(json.dumps(REPORT | {'ArtifactType': 'filesystem'}))", DefinitiveError),
        ("print(json.dumps(REPORT | {'ArtifactName': REPORT['ArtifactName'].replace('model', 'other')}))", DefinitiveError),
        ("print(json.dumps(REPORT | {'Metadata': {}}))", DefinitiveError),
        ("print(json.dumps(REPORT | {'Metadata': {'RepoDigests': ['x@sha256:' + 'b' * 64]}}))", DefinitiveError),
        ("print(json.dumps(REPORT | {'Trivy': {'Version': '0.69.4'}}))", TransientError),
        ("while True: print('x' * 10_000)", DefinitiveError),
        ("print('UNAUTHORIZED: no', file=sys.stderr); sys.exit(1)", DefinitiveError),
        ("print('TOOMANYREQUESTS: slow', file=sys.stderr); sys.exit(1)", TransientError),
        ("print('write /tmp/x: no space left on device', file=sys.stderr); sys.exit(1)", TransientError),
    ],
)
async def test_whatever_else_trivy_does_is_a_failure_and_never_a_clean_scan(tmp_path: Path, body: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as error:
        await scan(fake(tmp_path, body, output=1 << 20))
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "scratch").iterdir())


async def test_an_error_beside_a_report_is_a_blind_spot(tmp_path: Path) -> None:
    line = "2026-11-24T00:00:00Z\\tERROR\\t[rpm] Failed to read\\terr=x"
    found = await scan(fake(tmp_path, f"print('{line}', file=sys.stderr); print(json.dumps(REPORT))"))
    assert found.blind == ("trivy had trouble with it: Failed to read err=x",)
    assert found.lasting == found.blind


async def test_an_error_without_a_report_is_a_failure_whatever_the_exit_code(tmp_path: Path) -> None:
    with pytest.raises(TransientError):
        await scan(fake(tmp_path, "print('2026\\tFATAL\\tFatal error', file=sys.stderr)"))


async def test_a_trivy_that_hangs_is_killed(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="ran for more than 1 s"):
        await scan(fake(tmp_path, "time.sleep(600)", seconds=1))


async def test_trivy_sees_no_environment_no_configuration_and_one_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVY_INSECURE", "true")
    monkeypatch.setenv("KUBECONFIG", "/home/somebody/.kube/config")
    body = (
        "print(sorted(os.environ), os.listdir(), open(os.environ['DOCKER_CONFIG'] + '/config.json').read(), file=sys.stderr); sys.exit(1)"
    )
    trivy = fake(tmp_path, body)
    with pytest.raises(TransientError) as error:
        await trivy.scan(Pull(image=IMAGE, digest=DIGEST, docker_config=b'{"auths":{"one":{}}}'))
    assert "HOME" in str(error.value)
    assert "TRIVY" not in str(error.value)
    assert "KUBE" not in str(error.value)
    assert '[] {"auths":{"one":{}}}' in str(error.value)


async def test_plain_http_is_spoken_only_where_it_was_said(tmp_path: Path) -> None:
    """Unasked, trivy tries it with registries at private addresses, and shows them the credential."""
    body = "print(os.environ.get('HTTP_PROXY', 'none'), '--insecure' in sys.argv, file=sys.stderr); sys.exit(1)"
    with pytest.raises(TransientError, match=r"http://127\.0\.0\.1:0 False"):
        await scan(fake(tmp_path, body))
    with pytest.raises(TransientError, match="none True"):
        await fake(tmp_path, body).scan(Pull(image=IMAGE, digest=DIGEST, plain_http=True))


def test_a_pull_that_failed_is_told_by_what_the_registry_did() -> None:
    """As trivy 0.72 prints it; the second address is the one it was kept from."""
    said = (
        f'2026-11-25T00:40:49Z\tFATAL\tFatal error\trun error: unable to find the specified image "{IMAGE}" in ["remote"]: '
        '1 error occurred:\n\t* remote error: Get "https://10.0.0.1/v2/": dial tcp 10.0.0.1:443: connect: connection refused; '
        'Get "http://10.0.0.1/v2/": proxyconnect tcp: dial tcp 127.0.0.1:0: connect: connection refused\n\n'
    )
    found = failure(Completed(code=1, output=b"", errors=said))
    assert found.message == 'trivy failed (1): Get "https://10.0.0.1/v2/": dial tcp 10.0.0.1:443: connect: connection refused'


async def test_trivy_ends_in_front_of_the_memory_it_may_have(tmp_path: Path, registry: str, database: Path) -> None:
    """The real one, and an image with more packages than people have."""
    digest = images.push_image(registry, "memory/much:1", alpine={f"package-{number}": "1-r1" for number in range(150_000)})
    (tmp_path / "scratch").mkdir()
    limits = Limits(seconds=100, data=384 << 20, heap=128 << 20)
    trivy = Trivy(binary=binary("trivy"), cache=database, scratch=tmp_path / "scratch", limits=limits)
    await trivy.scan(
        Pull(image=f"{registry}/memory/little@{(few := images.clean(registry, 'memory/little:1'))}", digest=few, plain_http=True)
    )
    with pytest.raises(TransientError, match="needs more memory"):
        await trivy.scan(Pull(image=f"{registry}/memory/much@{digest}", digest=Digest(digest), plain_http=True))


async def test_what_trivy_leaves_on_disk_is_wiped(tmp_path: Path) -> None:
    await scan(fake(tmp_path, "open(os.environ['TMPDIR'] + '/layer', 'w').write('x'); print(json.dumps(REPORT))"))
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("version", ["0.71.0", "0.72.0", "0.74.3", "1.0.0", "0.72.0+build.5"])
def test_a_release_from_the_floor_on_is_accepted(version: str) -> None:
    assert accepted(version) == version


@pytest.mark.parametrize("version", ["0.70.0", "0.9.0", "dev", "", "0.71", "0.71.0-rc.1", "0.72.0\nx", "\u0660.\u0667\u0662.\u0660"])
def test_anything_older_or_odd_is_refused(version: str) -> None:
    with pytest.raises(EvidenceError):
        accepted(version)


@pytest.mark.parametrize("version", ["0.69.4", "0.69.5", "0.69.6", "v0.69.4"])
def test_cve_2026_33634_the_compromised_releases_are_refused_by_name(version: str) -> None:
    with pytest.raises(EvidenceError, match="CVE-2026-33634"):
        accepted(version)


@pytest.mark.parametrize("version", ["", "Version: 0.72.0", '{"Version":"0.69.4"}', '{"Version":7}', '{"V":1}', "[]", "null"])
async def test_a_trivy_that_does_not_tell_a_fit_version_never_scans(tmp_path: Path, version: str) -> None:
    trivy = fake(tmp_path, "print(json.dumps(REPORT))", version=version)
    with pytest.raises(EvidenceError) as error:
        await scan(trivy)
    assert not isinstance(error.value, TransientError | DefinitiveError)


async def test_a_trivy_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    with pytest.raises(EvidenceError, match="does not tell"):
        await Trivy(binary=tmp_path / "nothing", cache=tmp_path, scratch=tmp_path / "scratch").version()


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b'{"Version":1,"UpdatedAt":"2026-01-01T00:00:00Z","NextUpdate":"2026-01-01T00:00:00Z"}', b"\xff"]
)
def test_a_database_that_is_missing_or_of_another_schema_is_a_failure(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "db").mkdir()
    if content is not None:
        (tmp_path / "db" / "metadata.json").write_bytes(content)
    with pytest.raises(TransientError):
        Trivy(binary=tmp_path / "x", cache=tmp_path, scratch=tmp_path).database()


def test_the_age_of_the_database_is_read_from_its_metadata(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    times = '"NextUpdate":"2099-01-01T00:00:00Z","UpdatedAt":"2026-11-20T06:12:13.123456789Z","DownloadedAt":"2026-11-20T07:00:00Z"'
    (tmp_path / "db" / "metadata.json").write_text(f'{{"Version":2,{times}}}')
    found = Trivy(binary=tmp_path / "x", cache=tmp_path, scratch=tmp_path).database()
    assert found.updated_at.replace(microsecond=0) == datetime(2026, 11, 20, 6, 12, 13, tzinfo=UTC)


def updating(directory: Path, body: str) -> Trivy:
    """A trivy whose download does `body` with `new`, the directory of the new database."""
    target = "new = sys.argv[sys.argv.index('--cache-dir') + 1] + '/db'; os.makedirs(new)"
    opened = "if sys.argv[1] == 'sbom': sys.exit()"  # the new database, to see whether it opens
    return fake(directory, f"{opened}\nassert '--download-db-only' in sys.argv; {target}\n{body}")


def metadata(updated: str, following: str) -> str:
    return f'{{"Version":2,"UpdatedAt":"{updated}","NextUpdate":"{following}"}}'


NEW = metadata("2026-11-24T00:00:00Z", "2999-01-01T00:00:00Z")


async def test_a_missing_database_is_fetched(tmp_path: Path) -> None:
    trivy = updating(tmp_path, f"open(new + '/metadata.json', 'w').write({NEW!r})")
    await trivy.update()
    assert trivy.database().updated_at == datetime(2026, 11, 24, tzinfo=UTC)


async def test_a_database_whose_next_one_is_due_is_replaced_and_nothing_is_left_over(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "metadata.json").write_text(metadata("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"))
    trivy = updating(tmp_path, f"open(new + '/metadata.json', 'w').write({NEW!r})")
    await trivy.update()
    assert trivy.database().updated_at == datetime(2026, 11, 24, tzinfo=UTC)
    assert not list(tmp_path.glob("incoming-*"))  # noqa: ASYNC240 -- a test


async def test_a_current_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "metadata.json").write_text(NEW)
    await updating(tmp_path, "sys.exit(1)").update()


@pytest.mark.parametrize("body", ["sys.exit(1)", "pass", "print('no space left on device', file=sys.stderr); sys.exit(1)"])
async def test_a_download_that_fails_leaves_the_old_database(tmp_path: Path, body: str) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "metadata.json").write_text(metadata("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"))
    trivy = updating(tmp_path, body)
    with pytest.raises(TransientError, match="cannot be fetched"):
        await trivy.update()
    assert trivy.database().updated_at == datetime(2020, 1, 1, tzinfo=UTC)
    assert not list(tmp_path.glob("incoming-*"))  # noqa: ASYNC240 -- a test
