"""What only a real node shows: what was admitted really starts and is what was judged; what is held survives the node's accidents."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.embedded import build, images
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.installed import NAMESPACE
from mlwarden.embedded.node import NODE, Node
from mlwarden.embedded.signer import Signer

if TYPE_CHECKING:
    from conftest import Installed

pytestmark = pytest.mark.cluster
POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"
PROD, LATE = "real-production", "real-late"
GATED = [{"name": "mlwarden.io/evidence"}]


@pytest.fixture(scope="module")
def node(installed: "Installed") -> Node:
    assert installed.cluster.node is not None
    return installed.cluster.node


@pytest.fixture(scope="module")
def space(installed: "Installed") -> Iterator[str]:
    """A namespace that holds, and in which alice may debug."""
    installed.namespace(PROD)
    base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{PROD}"
    rules = [{"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["get", "patch", "update"]}]
    installed.admin.create(f"{base}/roles", {"metadata": {"name": "debug"}, "rules": rules})
    installed.cluster.kubectl("create", "rolebinding", "debug", "-n", PROD, "--role=debug", "--user=alice")
    yield PROD
    installed.admin.delete(f"/api/v1/namespaces/{PROD}")


def containers(pod: dict[str, Any], kind: str = "containerStatuses") -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in pod["status"].get(kind) or ()}


def unseen(installed: "Installed", name: str) -> str:
    """Pushes a vulnerable image that nobody has scanned: pods of it are held first, and not refused at once."""
    images.vulnerable(installed.cluster.registry, f"{name}:1", runs=True)
    return f"{name}:1"


def logs(installed: "Installed", space: str, pod: str, container: str = "") -> str:
    return installed.cluster.kubectl("logs", pod, "-n", space, *(["-c", container] if container else []), check=False)


def started(installed: "Installed", space: str, name: str) -> dict[str, Any]:
    """Waits until a pod really runs: its container has an image's digest and a start."""

    def runs() -> dict[str, Any] | None:
        pod = installed.get(space, name)
        return pod if "running" in containers(pod).get("main", {}).get("state", {}) else None

    found: dict[str, Any] = installed.until(runs)
    return found


def test_the_api_server_calls_the_webhook_by_its_service(installed: "Installed") -> None:
    configuration = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    ours = [each for each in installed.admin.get(configuration)["items"] if each["metadata"]["name"].startswith("mlwarden")]
    clients = [webhook["clientConfig"] for each in ours for webhook in each["webhooks"]]
    assert clients
    assert all(client["service"]["name"] == "mlwarden-webhook" and "url" not in client for client in clients)


def test_our_pods_run_as_the_chart_says(installed: "Installed", node: Node) -> None:
    """As the kernel has it: no root, no capabilities, nothing to write to but volumes, seccomp on."""
    ours = {number: line for number, line in node.ground.processes().items() if "/bin/mlwarden " in line}
    assert len(ours) >= 9  # two webhooks, two controllers, two releasers, the scanner's three
    own = {"scanner agent": "65533", "scanner verifier": "65531"}  # these share nothing with who reads layers, nor with each other
    for number, line in ours.items():
        status = dict(each.split(":\t", 1) for each in Path(f"/proc/{number}/status").read_text().splitlines() if ":\t" in each)
        uid = next((uid for words, uid in own.items() if words in line), "65532")
        assert status["Uid"].split() == [uid] * 4, line
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, line
        assert status["NoNewPrivs"] == "1", line
        assert status["Seccomp"] == "2", line
        root = next(each.split() for each in Path(f"/proc/{number}/mountinfo").read_text().splitlines() if each.split()[4] == "/")
        assert root[5].split(",")[0] == "ro", line


def test_the_tag_that_moves_between_judgement_and_start_does_not_matter(installed: "Installed", space: str) -> None:
    registry = installed.cluster.registry
    judged = images.clean(registry, "moving:1", runs=True)
    installed.cluster.kubectl("cordon", NODE)
    try:
        installed.create(space, installed.pod("moved", "moving:1"))
        installed.until(lambda: not installed.get(space, "moved")["spec"].get("schedulingGates"))
        assert images.vulnerable(registry, "moving:1", runs=True) != judged
    finally:
        installed.cluster.kubectl("uncordon", NODE)
    status = containers(started(installed, space, "moved"))["main"]
    assert status["imageID"].endswith(judged)


def test_an_image_volume_is_mounted_as_it_was_judged_and_by_a_tag_not_at_all(installed: "Installed", space: str) -> None:
    """A held pod's volumes cannot be changed, so a tag in one cannot be pinned: whoever wants it is told the digest."""
    registry = installed.cluster.registry
    clean = {"alpine": {"musl": "1.2.5-r10"}}
    judged = images.push_image(registry, "weights-moving:1", files={"w": b"judged\n"}, **clean)

    def reads(name: str, reference: str) -> dict[str, Any]:
        pod = installed.pod(name)
        pod["spec"] |= {"restartPolicy": "Never", "volumes": [{"name": "w", "image": {"reference": reference}}]}
        pod["spec"]["containers"][0] |= {"args": ["cat", "/w/w"], "volumeMounts": [{"name": "w", "mountPath": "/w"}]}
        return pod

    installed.create(space, reads("by-tag", f"{registry}/weights-moving:1"))
    installed.said(space, "by-tag", f"create the pod again with {registry}/weights-moving:1@{judged}")
    installed.create(space, reads("by-digest", f"{registry}/weights-moving:1@{judged}"))
    images.push_image(registry, "weights-moving:1", files={"w": b"exchanged\n"}, **clean)
    installed.until(lambda: installed.state(space, "by-digest") == "Succeeded")
    assert logs(installed, space, "by-digest") == "judged\n"
    assert installed.state(space, "by-tag") == "Held"


def test_exec_and_attach_reach_what_was_released_and_nothing_that_is_held(installed: "Installed", space: str) -> None:
    pod = installed.pod("open")
    pod["spec"]["containers"][0] |= {"args": ["echo"], "stdin": True}
    installed.create(space, pod)
    started(installed, space, "open")
    kubectl = installed.cluster.kubectl
    assert kubectl("exec", "open", "-n", space, "--", "/app/server", "id", user="alice") == "1000 0\n"
    command = [build.binary("kubectl"), "attach", "open", "-n", space, "--stdin", "--quiet"]
    with subprocess.Popen(
        command, env=installed.cluster.environment("alice"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as attached:
        timer = threading.Timer(60, attached.kill)
        timer.start()
        assert attached.stdin is not None
        assert attached.stdout is not None
        attached.stdin.write("hello in there\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == "hello in there\n"
        timer.cancel()
        attached.kill()
    installed.create(space, installed.pod("shut", "vulnerable:1.0"))
    installed.said(space, "shut", "CVE-2025-32434")
    for verb in (("exec", "shut", "-n", space, "--", "/app/server"), ("attach", "shut", "-n", space)):
        assert "does not have a host assigned" in kubectl(*verb, user="alice", check=False)


@pytest.fixture(scope="module")
def signed(installed: "Installed", space: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Images of the list of debug images, by what is wrong with them; a policy that wants signatures on them."""
    directory = tmp_path_factory.mktemp("signer")
    signer = Signer(directory)
    key = signer.key_pair("release")
    registry = installed.cluster.registry
    found = {}
    for name in ("unsigned", "unscanned", "good"):
        found[name] = f"{registry}/debug/{name}@{images.clean(registry, f'debug/{name}:1', runs=True)}"
        if name != "unsigned":
            signer.sign(found[name], key)
    spec = {
        "profiles": {"production": "Deny"},
        "match": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space}}},
        "requirement": {"imageSignature": {"images": [f"{registry}/debug/**"], "authorities": [{"name": "release", "key": key.pem}]}},
        "message": "image {image} is not signed by the release key",
        "why": "a debug container sees everything that its pod sees",
        "fix": {"text": "sign it"},
    }
    body = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": "signed-debug"}, "spec": spec}
    installed.admin.apply(f"{POLICIES}/signed-debug", body)
    yield found
    installed.admin.delete(f"{POLICIES}/signed-debug")


@pytest.fixture(scope="module")
def target(installed: "Installed", space: str) -> str:
    installed.create(space, installed.pod("target"))
    started(installed, space, "target")
    return "target"


class TestDebug:
    """Containers that really start, in a pod that really runs."""

    def debug(self, installed: "Installed", space: str, what: str, image: str, *more: str, user: str = "alice") -> str:
        command = ("debug", what, "-n", space, f"--image={image}", "--attach=false", *more)
        return installed.cluster.kubectl(*command, user=user, check=False)

    def test_of_a_pod_unscanned_is_told_to_try_again_and_then_really_starts(
        self, installed: "Installed", space: str, signed: dict[str, str], target: str
    ) -> None:
        image, profile = signed["unscanned"], "--profile=restricted"
        assert "try again" in self.debug(installed, space, target, image, profile)

        def runs() -> Any:
            pod = installed.get(space, target)
            if not pod["spec"].get("ephemeralContainers"):
                self.debug(installed, space, target, image, profile)
            return [each for each in containers(pod, "ephemeralContainerStatuses").values() if "running" in each["state"]]

        (container,) = installed.until(runs)
        assert container["imageID"].endswith(image.rpartition("@")[2])
        installed.until(lambda: "started on target" in logs(installed, space, target, container["name"]))

    def test_of_a_pod_unsigned_is_refused(self, installed: "Installed", space: str, signed: dict[str, str], target: str) -> None:
        def said() -> str:
            text = self.debug(installed, space, target, signed["unsigned"], "--profile=restricted")
            return text if "is not signed by the release key" in text else ""

        text = installed.until(said)
        assert "is refused by signed-debug" in text
        assert "ask for mlwarden-evidence-reader" in text  # where signatures were looked for: no stored pod here names the image
        pod = installed.get(space, target)
        assert not [each for each in pod["spec"].get("ephemeralContainers") or () if "unsigned" in each["image"]]

    def test_by_copy_good_runs_and_unsigned_does_not(self, installed: "Installed", space: str, signed: dict[str, str], target: str) -> None:
        for name in ("good", "unsigned"):
            arguments = ("debug", target, "-n", space, f"--copy-to=copy-{name}", f"--set-image=main={signed[name]}")
            installed.cluster.kubectl(*arguments, user="alice", check=False)
        assert containers(started(installed, space, "copy-good"))["main"]["imageID"].endswith(signed["good"].rpartition("@")[2])
        with contextlib.suppress(ApiError):  # refused at once where it is known already
            assert installed.get(space, "copy-unsigned")["spec"]["schedulingGates"] == GATED

    def test_of_a_node_is_refused_where_pods_are_held_and_really_runs_where_nothing_is_governed(
        self, installed: "Installed", space: str, signed: dict[str, str]
    ) -> None:
        for profile in ("general", "sysadmin"):
            said = self.debug(installed, space, f"node/{NODE}", signed["good"], f"--profile={profile}", user="admin")
            assert "denied the request" in said
        self.debug(installed, "kube-system", f"node/{NODE}", signed["good"], "--profile=sysadmin", user="admin")
        pods = "/api/v1/namespaces/kube-system/pods"

        def runs() -> list[str]:
            return [
                pod["metadata"]["name"]
                for pod in installed.admin.get(pods)["items"]
                if pod["metadata"]["name"].startswith("node-debugger") and pod["status"].get("phase") == "Running"
            ]

        (name,) = installed.until(runs)
        installed.admin.delete(f"{pods}/{name}", gracePeriodSeconds="0")


class TestHeld:
    """Pods of every kind of controller: held until their image was scanned, and then they run."""

    KINDS = ("Deployment", "StatefulSet", "DaemonSet", "Job")

    def workload(self, installed: "Installed", kind: str, image: str) -> dict[str, Any]:
        name = kind.lower()
        labels = {"app": name}
        spec = installed.pod("x", image)["spec"]
        job = kind == "Job"
        if job:
            spec |= {"restartPolicy": "Never"}
            spec["containers"][0]["args"] = ["say", "done"]
        template = {"metadata": {"labels": labels}, "spec": spec}
        selector = {} if job else {"selector": {"matchLabels": labels}}
        service = {"serviceName": "none"} if kind == "StatefulSet" else {}
        group = "batch/v1" if job else "apps/v1"
        return {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": {**selector, **service, "template": template}}

    def pods(self, installed: "Installed", space: str, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = installed.admin.get(f"/api/v1/namespaces/{space}/pods", labelSelector=f"app={kind.lower()}")["items"]
        return found

    def scale(self, installed: "Installed", replicas: int) -> None:
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/mlwarden-scanner"
        installed.admin.patch(f"{path}/scale", {"spec": {"replicas": replicas}})
        installed.until(lambda: (installed.admin.get(path).get("status") or {}).get("readyReplicas", 0) == replicas)

    def test_until_scanned_through_eviction_drain_and_a_power_cut(self, installed: "Installed", space: str, node: Node) -> None:
        registry = installed.cluster.registry
        digest = images.clean(registry, "controllers:1", runs=True)
        self.scale(installed, 0)
        for kind in self.KINDS:
            body = self.workload(installed, kind, f"controllers:1@{digest}")
            installed.cluster.kubectl("apply", "-n", space, "-f", "-", user="alice", input=json.dumps(body))
        for kind in self.KINDS:
            (pod,) = installed.until(lambda kind=kind: self.pods(installed, space, kind))
            assert pod["spec"]["schedulingGates"] == GATED, kind

        # Evicted, it is made anew by its controller, and held again.
        (pod,) = self.pods(installed, space, "Deployment")
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["metadata"]["name"]}}
        installed.admin.create(f"/api/v1/namespaces/{space}/pods/{pod['metadata']['name']}/eviction", eviction)

        def replaced() -> bool:
            found = self.pods(installed, space, "Deployment")
            return (
                len(found) == 1
                and found[0]["metadata"]["uid"] != pod["metadata"]["uid"]
                and found[0]["spec"].get("schedulingGates") == GATED
            )

        installed.until(replaced)

        # A drain has nothing to do with what is on no node.
        before = {each["metadata"]["uid"] for kind in self.KINDS for each in self.pods(installed, space, kind)}
        drain = ("drain", NODE, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--pod-selector=app", "--timeout=60s")
        installed.cluster.kubectl(*drain)
        installed.cluster.kubectl("uncordon", NODE)
        assert before == {each["metadata"]["uid"] for kind in self.KINDS for each in self.pods(installed, space, kind)}

        node.restart()
        assert all(each["spec"].get("schedulingGates") == GATED for kind in self.KINDS for each in self.pods(installed, space, kind))
        self.scale(installed, 1)
        for kind in self.KINDS:
            wanted = "Succeeded" if kind == "Job" else "Running"
            installed.until(
                lambda kind=kind, wanted=wanted: [each["status"].get("phase") for each in self.pods(installed, space, kind)] == [wanted],
                seconds=120,
            )


class TestAccidents:
    def test_a_power_cut_starts_what_was_judged_again_and_nothing_else(self, installed: "Installed", space: str, node: Node) -> None:
        installed.create(space, installed.pod("survivor"))
        started(installed, space, "survivor")
        installed.create(space, installed.pod("bad-before", unseen(installed, "bad-before")))
        node.restart()
        pods = installed.kubelet
        created = installed.until(
            lambda: _try(lambda: installed.create(space, installed.pod("bad-during", unseen(installed, "bad-during"))))
        )
        assert created["spec"]["schedulingGates"] == GATED
        installed.until(lambda: containers(installed.get(space, "survivor")).get("main", {}).get("restartCount", 0) >= 1, seconds=120)
        pods.await_ready()
        installed.said(space, "bad-during", "CVE-2025-32434")
        for name in ("bad-before", "bad-during"):
            assert installed.state(space, name) == "Held"

    def test_without_a_kubelet_pods_are_still_held_and_released_and_start_when_it_is_back(
        self, installed: "Installed", space: str, node: Node
    ) -> None:
        node.stop_kubelet()
        try:
            installed.create(space, installed.pod("patient"))
            installed.create(space, installed.pod("impatient", unseen(installed, "impatient")))
            installed.until(lambda: not installed.get(space, "patient")["spec"].get("schedulingGates"))
            installed.said(space, "impatient", "CVE-2025-32434")
        finally:
            node.start_kubelet()
        started(installed, space, "patient")
        assert installed.state(space, "impatient") == "Held"


def test_pods_from_before_the_label_go_on_and_are_reported_and_their_like_is_held(installed: "Installed") -> None:
    """Whoever labels a namespace does not stop what runs there, not even when it is started again by its node."""
    for name in ("from-before", "after"):
        unseen(installed, name)
    installed.namespace(LATE, profile="")
    installed.create(LATE, installed.pod("old", "from-before:1"))
    started(installed, LATE, "old")
    installed.cluster.kubectl("label", "namespace", LATE, "mlwarden.io/profile=production")
    installed.until(lambda: "WouldBeRefusedNow" in reasons(installed, "old"))
    installed.cluster.kubectl("exec", "old", "-n", LATE, "--", "/app/server", "say", "still here")
    created = installed.until(lambda: _held(installed, "new"))
    assert created["spec"]["schedulingGates"] == GATED
    installed.said(LATE, "new", "CVE-2025-32434")
    assert installed.state(LATE, "old") == "Running"


def reasons(installed: "Installed", name: str) -> set[str]:
    events = installed.admin.get(f"/api/v1/namespaces/{LATE}/events", fieldSelector=f"involvedObject.name={name}")["items"]
    return {event["reason"] for event in events}


def _held(installed: "Installed", name: str) -> Any:
    """Creates a pod, again until the label is in force."""
    created = installed.create(LATE, installed.pod(name, "after:1"))
    if created["spec"].get("schedulingGates"):
        return created
    installed.admin.delete(f"/api/v1/namespaces/{LATE}/pods/{name}", gracePeriodSeconds="0")
    return None


def _try(call: Any) -> Any:
    try:
        return call()
    except ApiError:
        return None
