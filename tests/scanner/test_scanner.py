"""The whole scanner: processes, a real API server with RBAC, a real registry, the real trivy."""

import base64
import http.client
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden import evidence
from mlwarden.embedded import images, trivydb
from mlwarden.embedded.build import binary
from mlwarden.embedded.door import Door
from mlwarden.embedded.processes import free_port, wait_until
from mlwarden.evidence.pullers import pullers
from mlwarden.evidence.store import Requester, read
from mlwarden.workloads import extract

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.processes import Process

pytestmark = pytest.mark.cluster
COLLECTION = "/apis/mlwarden.io/v1alpha1/imageevidences"
Ask = Callable[[str], str]
Scanner = Callable[..., "Process"]
Until = Callable[..., dict[str, Any]]


def phase(wanted: str) -> Callable[[dict[str, Any]], bool]:
    return lambda status: status.get("phase") == wanted


def slow_trivy(directory: Path) -> Path:
    """A trivy that scans when there is a file `go`, and until then says in `scans` that it waits."""
    path = directory / "slow-trivy"
    path.write_text(
        f"#!{sys.executable}\nimport os, sys, time\nif sys.argv[1] == 'image' and 'mlwarden-canary' not in sys.argv[-1]:\n"
        f"    with open({str(directory / 'scans')!r}, 'a') as f: f.write(f'{{os.getpid()}}\\n')\n"
        f"    while not os.path.exists({str(directory / 'go')!r}): time.sleep(0.02)\n"
        f"os.execv({str(binary('trivy'))!r}, ['trivy', *sys.argv[1:]])\n"
    )
    path.chmod(0o755)
    return path


def children(pid: int) -> list[int]:
    """All processes below one."""
    found = [int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()]
    return found + [grandchild for child in found for grandchild in children(child)]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_tag_is_resolved_and_what_it_points_at_is_scanned(cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until) -> None:
    digest = images.clean(cluster.registry, "team/clean:1")
    name = ask(f"{cluster.registry}/team/clean:1")
    scanner()
    assert until(name, phase("Ready"))["digest"] == digest
    status = until(evidence.name_for(f"x@{digest}"), phase("Ready"))
    assert status["scan"]["counts"] == {"unfixed": 0}
    assert "claimedBy" not in status
    listed = cluster.kubectl("get", "imgev")
    assert "alpine 3.22.1" in listed
    assert "team/clean" in listed


def test_a_vulnerable_image_and_a_blind_spot_are_written_as_they_are(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until
) -> None:
    bad = images.vulnerable(cluster.registry, "team/bad:1")
    opaque = images.opaque(cluster.registry, "team/opaque:1")
    scanner()
    first, second = ask(f"{cluster.registry}/team/bad@{bad}"), ask(f"{cluster.registry}/team/opaque@{opaque}")
    assert until(first, phase("Ready"))["scan"]["counts"] == {"CRITICAL": 1, "HIGH": 1, "unfixed": 0}
    assert until(second, phase("Ready"))["scan"]["blind"] == ["no operating system and no packages recognised"]


def test_an_image_that_is_not_there_fails_until_it_is_asked_for_again(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until
) -> None:
    reference = f"{cluster.registry}/team/later:1"
    name = ask(reference)
    scanner()
    status = until(name, phase("Failed"))
    assert "no such image" in status["reason"]
    digest = images.clean(cluster.registry, "team/later:1")
    ask_again(cluster, name, reference)
    assert until(name, phase("Ready"))["digest"] == digest


def ask_again(cluster: "EmbeddedCluster", name: str, reference: str) -> None:
    stored = read(cluster.api().get(f"{COLLECTION}/{name}"))
    cluster.api().patch(f"{COLLECTION}/{name}", evidence.request(stored, reference, datetime.now(UTC)))


def test_a_tag_that_moved_is_seen_when_it_is_asked_for_again(cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until) -> None:
    reference = f"{cluster.registry}/team/moving:1"
    old = images.clean(cluster.registry, "team/moving:1")
    name = ask(reference)
    scanner()
    assert until(name, phase("Ready"))["digest"] == old
    new = images.vulnerable(cluster.registry, "team/moving:1")
    ask_again(cluster, name, reference)
    until(name, lambda status: status.get("digest") == new)
    until(evidence.name_for(f"x@{new}"), phase("Ready"))


def test_a_registry_that_is_down_leaves_it_pending_with_the_reason(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until
) -> None:
    name = ask("registry.invalid/team/x:1")
    scanner()
    status = until(name, lambda found: "cannot be reached" in found.get("reason", ""))
    assert status["phase"] == "Pending"
    assert status["retryAt"]


def test_a_host_that_nobody_listed_is_not_spoken_to(cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until) -> None:
    name = ask("127.0.0.1:1/team/x:1")
    scanner()
    assert "no registry may be" in until(name, phase("Failed"))["reason"]


def test_a_scanner_killed_in_the_middle_loses_nothing_and_leaves_nothing(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, tmp_path: Path
) -> None:
    digest = images.clean(cluster.registry, "team/killed:1")
    name = ask(f"{cluster.registry}/team/killed@{digest}")
    first = scanner(trivy=slow_trivy(tmp_path), name="first")
    until(name, lambda status: status.get("claimedBy") == "first")
    assert wait_until((tmp_path / "scans").exists, seconds=60)
    below = children(first.pid)
    assert len(below) >= 2
    os.kill(first.pid, signal.SIGKILL)
    assert wait_until(lambda: not any(runs(pid) for pid in below), seconds=30)
    scanner(name="first")
    assert until(name, phase("Ready"))["scan"]["counts"] == {"unfixed": 0}


def test_what_a_killed_scanner_had_claimed_another_one_finishes_when_the_lease_is_over(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, tmp_path: Path
) -> None:
    digest = images.clean(cluster.registry, "team/lease:1")
    name = ask(f"{cluster.registry}/team/lease@{digest}")
    first = scanner("--lease=3", trivy=slow_trivy(tmp_path), name="first")
    until(name, lambda status: status.get("claimedBy") == "first")
    first.kill()
    scanner("--lease=3", name="second")
    until(name, phase("Ready"))


def test_a_claim_is_renewed_while_the_scan_goes_on_and_two_scanners_scan_once(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, tmp_path: Path
) -> None:
    digest = images.clean(cluster.registry, "team/once:1")
    slow = slow_trivy(tmp_path)
    scanner("--lease=3", trivy=slow, name="first")
    scanner("--lease=3", trivy=slow, name="second")
    name = ask(f"{cluster.registry}/team/once@{digest}")
    ends = {until(name, lambda status: "claimedUntil" in status)["claimedUntil"]}
    until(name, lambda status: bool(ends.add(status["claimedUntil"])) or len(ends) > 4)
    (tmp_path / "go").touch()
    until(name, phase("Ready"))
    assert len((tmp_path / "scans").read_text().split()) == 1


def test_two_scanners_that_claim_ahead_work_off_one_queue_and_scan_nothing_twice(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, tmp_path: Path
) -> None:
    names = []
    for number in range(24):
        digest = images.clean(cluster.registry, f"team/queue-{number}:1")
        names.append(ask(f"{cluster.registry}/team/queue-{number}@{digest}"))
    (tmp_path / "go").touch()
    slow = slow_trivy(tmp_path)
    scanner(trivy=slow, name="first")
    scanner(trivy=slow, name="second")
    for name in names:
        assert "claimedBy" not in until(name, phase("Ready"))
    assert len((tmp_path / "scans").read_text().split()) == len(names)


def test_a_worker_that_is_killed_is_replaced_and_the_scan_is_made(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, tmp_path: Path
) -> None:
    digest = images.clean(cluster.registry, "team/worker:1")
    process = scanner(trivy=slow_trivy(tmp_path))
    name = ask(f"{cluster.registry}/team/worker@{digest}")
    assert wait_until((tmp_path / "scans").exists, seconds=60)
    worker = next(pid for pid in children(process.pid) if "worker" in Path(f"/proc/{pid}/cmdline").read_text().split("\0"))
    (tmp_path / "go").touch()
    os.kill(worker, signal.SIGKILL)
    until(name, phase("Ready"))
    assert process.alive


def test_the_worker_sees_nothing_of_the_cluster(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("MLWARDEN_SECRET", "hunter2")
    digest = images.clean(cluster.registry, "team/environment:1")
    process = scanner(trivy=slow_trivy(tmp_path))
    ask(f"{cluster.registry}/team/environment@{digest}")
    assert wait_until((tmp_path / "scans").exists, seconds=60)
    for pid in children(process.pid):
        for where in ("environ", "cmdline"):
            seen = Path(f"/proc/{pid}/{where}").read_text()
            assert not any(word in seen for word in ("KUBE", "hunter2", "kubeconfig", cluster.token()))
    (tmp_path / "go").touch()


def test_agent_worker_and_verifier_apart_do_the_same(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, tmp_path: Path
) -> None:
    images.clean(cluster.registry, "team/apart:1")
    name = ask(f"{cluster.registry}/team/apart:1")
    scanner(f"--socket={tmp_path}/s", f"--verifier-socket={tmp_path}/v", mode="agent", name="agent")
    scanner(f"--socket={tmp_path}/s", mode="worker", name="worker")
    scanner(f"--socket={tmp_path}/v", mode="verifier", name="verifier")
    digest = until(name, phase("Ready"))["digest"]
    until(evidence.name_for(f"x@{digest}"), phase("Ready"))


def test_the_api_server_may_restart_in_the_middle(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, tmp_path: Path
) -> None:
    digest = images.clean(cluster.registry, "team/restart:1")
    process = scanner(trivy=slow_trivy(tmp_path))
    name = ask(f"{cluster.registry}/team/restart@{digest}")
    assert wait_until((tmp_path / "scans").exists, seconds=60)
    cluster.stop_apiserver(kill=True)
    (tmp_path / "go").touch()
    cluster.start_apiserver()
    until(name, phase("Ready"))
    assert process.alive


def test_a_scanner_killed_in_the_middle_of_a_hundred_images_leaves_none_without_evidence_and_nothing_on_disk(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, tmp_path: Path
) -> None:
    """Agent, worker and what they started, with SIGKILL; what had been claimed is free when its lease is over."""
    names = []
    for number in range(100):
        images.clean(cluster.registry, f"team/many-{number}:1")
        names.append(ask(f"{cluster.registry}/team/many-{number}:1"))
    first = scanner("--lease=3", name="first")

    def scanned() -> int:
        return sum("scan" in obj.get("status", {}) for obj in cluster.api().get(COLLECTION)["items"])

    assert wait_until(lambda: scanned() >= 10, seconds=60)
    below = children(first.pid)
    for pid in (first.pid, *below):
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not any(runs(pid) for pid in below), seconds=30)
    assert scanned() < 100, "it was killed in the middle"
    scanner("--lease=3", name="second")
    for name in names:
        digest = until(name, phase("Ready"), seconds=90)["digest"]
        assert until(evidence.name_for(f"x@{digest}"), phase("Ready"), seconds=90)["scan"]["counts"] == {"unfixed": 0}
    assert wait_until(lambda: not list((tmp_path / "scratch").glob("mlwarden-worker-*/scan-*")), seconds=30)
    assert len(list((tmp_path / "scratch").glob("mlwarden-worker-*"))) == 2, "of the worker and the verifier that live"


def test_a_compromised_trivy_is_never_started(cluster: "EmbeddedCluster", evidence_crd: None, scanner: Scanner, tmp_path: Path) -> None:
    trivy = tmp_path / "trivy"
    trivy.write_text(f'#!{sys.executable}\nprint(\'{{"Version": "0.69.5"}}\')\n')
    trivy.chmod(0o755)
    worker = scanner(f"--socket={tmp_path}/s", mode="worker", trivy=trivy, name="worker")
    assert wait_until(lambda: not worker.alive, seconds=30)
    assert worker.returncode == 2
    assert "CVE-2026-33634" in worker.tail()


def said(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def test_a_scanner_whose_database_was_emptied_takes_back_what_it_said_and_says_so(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, tmp_path: Path
) -> None:
    """And is fit again with a whole one."""
    port = free_port()
    first = images.clean(cluster.registry, "team/before:1")
    name = ask(f"{cluster.registry}/team/before@{first}")
    scanner(probes=port)
    until(name, phase("Ready"))
    assert wait_until(lambda: "mlwarden_scanner_canary_ok 1.0" in said(port, "/metrics"), seconds=30)
    assert said(port, "/readyz") == "ok\n"
    trivydb.make_database(tmp_path / "trivy-cache", trivydb.ADVISORIES[1:], updated=datetime.now(UTC) + timedelta(seconds=1))
    second = ask(f"{cluster.registry}/team/after@{images.clean(cluster.registry, 'team/after:1')}")
    status = until(name, phase("Pending"))
    assert "not fit for use: trivy did not find CVE-2025-32434" in status["reason"]
    assert "scan" not in status
    assert wait_until(lambda: "mlwarden_scanner_canary_ok 0.0" in said(port, "/metrics"), seconds=30)
    assert "not fit for use" in said(port, "/readyz")
    trivydb.make_database(tmp_path / "trivy-cache", updated=datetime.now(UTC) + timedelta(seconds=2))
    for each in (name, second):
        assert until(each, phase("Ready"))["scan"]["counts"] == {"unfixed": 0}
    assert said(port, "/readyz") == "ok\n"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"references": []}, "at least 1"),
        ({"references": ["a:1", "b:1"]}, "about what the name says"),
        ({"references": [f"x@sha256:{'b' * 64}"]}, "about what the name says"),
        ({"references": ["x" * 600]}, "512"),
    ],
)
def test_the_api_server_refuses_evidence_that_is_not_about_its_name(
    cluster: "EmbeddedCluster", evidence_crd: None, spec: dict[str, Any], words: str
) -> None:
    from mlwarden.embedded.api import ApiError

    name = f"sha256-{'a' * 64}" if "@" in str(spec) else "tag-" + "a" * 40
    with pytest.raises(ApiError, match=words):
        cluster.api().create(COLLECTION, {**evidence.pending("x:1"), "metadata": {"name": name}, "spec": spec})


def test_references_are_appended_to_and_never_changed(cluster: "EmbeddedCluster", ask: Ask) -> None:
    from mlwarden.embedded.api import ApiError

    digest = f"sha256:{'a' * 64}"
    name = ask(f"one.example/x@{digest}")
    api = cluster.api()
    api.patch(f"{COLLECTION}/{name}", {"spec": {"references": [f"one.example/x@{digest}", f"two.example/x@{digest}"]}})
    with pytest.raises(ApiError, match="appended to"):
        api.patch(f"{COLLECTION}/{name}", {"spec": {"references": [f"two.example/x@{digest}"]}})


@pytest.fixture
def door(cluster: "EmbeddedCluster") -> "Iterator[Door]":
    """The registry, with a token service before it."""
    with Door(cluster.registry, password="s3cret", tokens=True) as opened:
        yield opened


def pod(namespace: str, *images: str, secret: str = "") -> dict[str, Any]:
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    spec = {"containers": containers, **({"imagePullSecrets": [{"name": secret}]} if secret else {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": namespace}, "spec": spec}


def who(obj: dict[str, Any]) -> Requester:
    return Requester(pullers=pullers(extract(obj), obj["metadata"]["namespace"]))


def test_a_private_image_is_scanned_with_the_secret_of_the_pod_that_wants_it(
    *,
    cluster: "EmbeddedCluster",
    namespace: str,
    door: Door,
    pull_secret: Callable[..., None],
    may_read: None,
    evidence_crd: None,
    scanner: Scanner,
    until: Until,
) -> None:
    digest = images.vulnerable(cluster.registry, "team/secret:1")
    reference = f"{door.host}/team/secret:1"
    api = cluster.api()
    name = api.create(COLLECTION, evidence.pending(reference, who(pod(namespace, reference))))["metadata"]["name"]
    process = scanner(f"--plain-http={door.host}", "--pod-pull-secrets")
    assert "denies access (401)" in until(name, phase("Failed"))["reason"]
    pull_secret("regcred", {door.host: "ana", "other.example": "eve"})
    requester = who(pod(namespace, reference, secret="regcred"))
    api.patch(f"{COLLECTION}/{name}", evidence.request(read(api.get(f"{COLLECTION}/{name}")), reference, datetime.now(UTC), requester))
    assert until(name, phase("Ready"))["digest"] == digest
    status = until(evidence.name_for(f"x@{digest}"), phase("Ready"))
    assert status["scan"]["counts"]["CRITICAL"] == 1
    assert "s3cret" not in json.dumps(api.get(COLLECTION)) + process.tail(10_000)
    basic = {shown for _, path, shown in door.seen if shown.startswith("Basic")}
    assert basic == {"Basic " + base64.b64encode(b"ana:s3cret").decode()}
    assert all("/token" in path for _, path, shown in door.seen if shown.startswith("Basic"))


def test_a_private_image_without_the_right_to_read_its_secret_says_so(
    *,
    cluster: "EmbeddedCluster",
    namespace: str,
    door: Door,
    pull_secret: Callable[..., None],
    evidence_crd: None,
    scanner: Scanner,
    until: Until,
) -> None:
    images.clean(cluster.registry, "team/secret:2")
    pull_secret("regcred", {door.host: "ana"})
    reference = f"{door.host}/team/secret:2"
    requester = who(pod(namespace, reference, secret="regcred"))
    name = cluster.api().create(COLLECTION, evidence.pending(reference, requester))["metadata"]["name"]
    scanner(f"--plain-http={door.host}", "--pod-pull-secrets")
    reason = until(name, phase("Failed"))["reason"]
    assert reason.endswith(f"the registry denies access (401); mlwarden may not read the Secret {namespace}/regcred")


def test_eight_containers_of_one_image_are_one_resolution_and_one_manifest(
    *, cluster: "EmbeddedCluster", namespace: str, evidence_crd: None, ask: Ask, scanner: Scanner, until: Until
) -> None:
    """One resolution serves all: what the tag pointed at is what is scanned, and it is fetched once by us and once by trivy."""
    images.clean(cluster.registry, "team/shared:1")
    with Door(cluster.registry) as opened:
        reference = f"{opened.host}/team/shared:1"
        wanted = {image.reference for image in extract(pod(namespace, *[reference] * 8)).images}
        (name,) = [ask(each) for each in wanted]
        scanner(f"--plain-http={opened.host}")
        digest = until(name, phase("Ready"))["digest"]
        until(evidence.name_for(f"x@{digest}"), phase("Ready"))
        assert opened.asked("/manifests/1") == ["/v2/team/shared/manifests/1"]
        assert len(opened.asked(f"/manifests/{digest}", "GET")) == 2
        assert set(opened.asked("/manifests/")) == {"/v2/team/shared/manifests/1", f"/v2/team/shared/manifests/{digest}"}
