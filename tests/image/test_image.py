"""mlwarden's own image, as its chart runs it and as its own policies judge it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlwarden.cli import check
from mlwarden.embedded import build, ownimage
from mlwarden.embedded.signer import KeyPair, Signer
from mlwarden.embedded.trivydb import Advisory, make_database

from .container import Container, blob  # type: ignore[import-not-found]

pytestmark = pytest.mark.timeout(3600)

HARMLESS = Advisory(id="CVE-2999-0002", ecosystem="debian 12", package="not-in-it", fixed="2", severity="CRITICAL", title="made up")
OPENSSL = Advisory(id="CVE-2999-0003", ecosystem="debian 12", package="openssl", fixed="9.9.9", severity="CRITICAL", title="made up")
PYTHON = Advisory(id="CVE-2999-0004", ecosystem="debian 12", package="python3.11", fixed="3.11.99", severity="HIGH", title="made up")
AIOHTTP = Advisory(id="CVE-2999-0005", ecosystem="pip", package="aiohttp", fixed="99.0", severity="HIGH", title="made up")
IMPORT_ALL = """
import importlib, mlwarden, os, pkgutil
names = [each.name for each in pkgutil.walk_packages(mlwarden.__path__, "mlwarden.")]
for name in names:
    importlib.import_module(name)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(len(names), os.getuid(), os.getgid(), os.getgroups(), status["CapEff"], status["CapBnd"], status["NoNewPrivs"])
"""


def pod(image: str) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "mlwarden", "namespace": "team"},
            "spec": {"containers": [{"name": "mlwarden", "image": image}]},
        }
    )


def policies(image: str, key: KeyPair) -> str:
    """Scanned, signed by the key, and with a bill of materials by the same key that names the interpreter."""
    named = [image.partition("@")[0]]
    authorities = [{"name": "release", "key": key.pem}]
    condition = "predicate.components.exists(c, c.name == 'python3.11-minimal') && predicate.components.exists(c, c.name == 'kopf')"
    requirements = {
        "scanned": {"imageScan": {"severity": "HIGH", "fixable": True}},
        "signed": {"imageSignature": {"images": named, "authorities": authorities}},
        "listed": {
            "imageAttestation": {"images": named, "authorities": authorities, "predicateType": "cyclonedx", "condition": condition},
        },
    }
    return "\n---\n".join(
        json.dumps(
            {
                "apiVersion": "mlwarden.io/v1alpha1",
                "kind": "WardenPolicy",
                "metadata": {"name": name},
                "spec": {"profiles": {"*": "Deny"}, "requirement": each, "message": f"not {name}", "why": "w", "fix": {"text": "f"}},
            }
        )
        for name, each in requirements.items()
    )


Judge = Callable[..., tuple[int, str]]


@pytest.fixture
def judge(
    tmp_path: Path,
    registry: str,
    key: tuple[Signer, KeyPair],
    published: str,
    capsys: pytest.CaptureFixture[str],
) -> Judge:
    """`judge(*advisories, image=…)`: exit code and output of `mlwarden check --online --strict` by a database with these advisories."""

    def judged(*advisories: Advisory, image: str = published) -> tuple[int, str]:
        database = make_database(tmp_path / "trivy", advisories)
        (tmp_path / "pod.json").write_text(pod(image))
        (tmp_path / "policies.yaml").write_text(policies(image, key[1]))
        tools = [f"--trivy={build.binary('trivy')}", f"--cosign={build.binary('cosign')}", f"--trivy-cache={database}"]
        code = check.main(
            [
                str(tmp_path / "pod.json"),
                f"--policies={tmp_path / 'policies.yaml'}",
                "--online",
                "--strict",
                f"--plain-http={registry}",
                *tools,
            ]
        )
        return code, capsys.readouterr().out

    return judged


def test_it_is_scanned_signed_and_listed_and_our_own_policies_admit_it(judge: Judge) -> None:
    assert judge(HARMLESS) == (0, "1 object: 0 denied, 0 held until there is evidence, 1 admitted\n")


@pytest.mark.parametrize(
    ("advisory", "where"),
    [(OPENSSL, "CVE-2999-0003 (CRITICAL) in libssl3"), (PYTHON, "CVE-2999-0004 (HIGH) in "), (AIOHTTP, "CVE-2999-0005 (HIGH) in aiohttp")],
)
def test_a_hole_in_any_of_its_parts_is_seen_and_refused(judge: Judge, advisory: Advisory, where: str) -> None:
    code, said = judge(HARMLESS, advisory)
    assert code == 1
    assert where in said


def test_without_our_signature_it_is_refused(judge: Judge, image: ownimage.Image, registry: str) -> None:
    code, said = judge(HARMLESS, image=ownimage.push(image, registry, "unsigned:1"))
    assert code == 1
    assert "not signed" in said
    assert "not listed" in said


def test_every_module_runs_as_65532_on_a_read_only_root_without_capabilities(container: Container) -> None:
    done = container.run(program=["/opt/mlwarden/bin/python3", "-c", IMPORT_ALL])
    assert done.returncode == 0, done.stderr
    number, rest = done.stdout.strip().split(" ", 1)
    assert int(number) > 150
    assert rest == "65532 65532 [] 0000000000000000 0000000000000000 1"
    refused = container.run(program=["/opt/mlwarden/bin/python3", "-c", "open('/opt/mlwarden/x', 'w')"])
    assert "Read-only file system" in refused.stderr


@pytest.mark.parametrize("command", [["--help"], ["webhook", "--help"], ["controller", "--help"], ["scanner", "worker", "--help"]])
def test_its_commands_explain_themselves(container: Container, command: list[str]) -> None:
    done = container.run(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mlwarden" in done.stdout


def test_the_shipped_policies_are_in_it(container: Container) -> None:
    """The package links to their folder, and a link that is not followed would leave an image that judges nothing."""
    done = container.run("check", "-", "--profile=experiment", input=pod("registry.example.com/any:1"))
    assert done.returncode == 1, done.stderr
    assert "run-as-non-root" in done.stdout


def test_trivy_and_cosign_are_the_pinned_ones_and_need_no_libraries(container: Container) -> None:
    trivy = container.run(program=["/usr/local/bin/trivy", "--version"])
    assert trivy.stdout.splitlines()[0] == f"Version: {build.version('trivy').removeprefix('v')}"
    cosign = container.run(program=["/usr/local/bin/cosign", "version"])
    assert build.version("cosign") in cosign.stdout.split()


def test_the_scanner_in_it_scans_and_verifies_it(container: Container, published: str, registry: str, key: tuple[Signer, KeyPair]) -> None:
    database = make_database(container.root / "opt" / "database", [HARMLESS])
    (container.root / "opt" / "policies.yaml").write_text(policies(published, key[1]))
    arguments = ["check", "-", "--policies=/opt/policies.yaml", "--online", "--strict", f"--plain-http={registry}"]
    done = container.run(*arguments, f"--trivy-cache=/{database.relative_to(container.root)}", input=pod(published))
    assert (done.returncode, done.stdout) == (0, "1 object: 0 denied, 0 held until there is evidence, 1 admitted\n"), done.stderr


def test_there_is_no_shell_no_package_manager_and_nothing_that_changes_its_user(container: Container) -> None:
    programs = {path.rpartition("/")[2] for path, entry in container.files.items() if entry.mode & 0o111 and not entry.isdir()}
    assert {"python3.11", "mlwarden", "trivy", "cosign"} <= programs
    assert not programs & {"sh", "bash", "dash", "busybox", "perl", "apt", "apt-get", "dpkg", "pip", "pip3", "su", "mount"}
    assert not [path for path, entry in container.files.items() if entry.mode & 0o6000 and not entry.isdir()]


def test_nothing_in_it_is_writable_for_its_user_but_what_is_for_everybody(container: Container) -> None:
    loose = {path for path, entry in container.files.items() if not entry.issym() and entry.mode & 0o002}
    assert {path.rstrip("/") for path in loose} <= {"tmp", "var/tmp", "var/lock"}
    assert {(entry.uid, entry.gid) for entry in container.files.values() if entry.isfile()} == {(0, 0)}


def test_every_link_in_it_leads_somewhere(container: Container) -> None:
    """Except into what only a node has, /proc and /run."""
    broken = []
    for path, entry in container.files.items():
        if entry.issym():
            target = (
                container.root / entry.linkname.lstrip("/")
                if entry.linkname.startswith("/")
                else (container.root / path).parent / entry.linkname
            )
            if not target.exists() and not entry.linkname.startswith(("/proc", "/run")):
                broken.append((path, entry.linkname))
    assert broken == []


def test_nothing_of_the_machine_that_built_it_is_in_it(container: Container, image: ownimage.Image) -> None:
    """Neither its certificate authorities, nor its mirrors, nor the folders it was built in."""
    authorities = (container.root / "etc/ssl/certs/ca-certificates.crt").read_text()
    shipped = sorted((container.root / "usr/share/ca-certificates").rglob("*.crt"))
    assert authorities == "".join(path.read_text() for path in shipped)
    assert not (container.root / "etc/apt/sources.list").exists()
    assert not [path for path in container.files if path.startswith(("src", "root/.", "builder", "etc/pip.conf", "etc/resolv.conf"))]
    assert "volume" not in json.dumps(blob(image, blob(image, image.digest)["config"]["digest"])).lower()


def test_it_is_what_the_chart_asks_of_it(container: Container) -> None:
    assert container.config["User"] == "65532:65532"
    assert container.config["Entrypoint"] == ["/opt/mlwarden/bin/mlwarden"]
