"""The main job on an installation by Helm: refused with a reason, held, released, killed and brought back."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.embedded import images
from mlwarden.embedded.api import STRATEGIC_PATCH, ApiError
from mlwarden.embedded.installed import NAMESPACE

if TYPE_CHECKING:
    from conftest import Installed

pytestmark = pytest.mark.cluster
GATE_OFF = {"schedulingGates": [{"name": "mlwarden.io/evidence", "$patch": "delete"}]}


@pytest.fixture(scope="module")
def serving(installed: "Installed") -> str:
    """A namespace that holds."""
    return installed.namespace("chart-serving")


def test_helm_install_is_all_there_is_to_do(installed: "Installed") -> None:
    pods = installed.admin.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
    ready = {pod["metadata"]["name"].rsplit("-", 2)[0] for pod in pods if _is_ready(pod)}
    assert ready == {"mlwarden-webhook", "mlwarden-controller", "mlwarden-releaser", "mlwarden-scanner"}
    policies = installed.admin.get("/apis/mlwarden.io/v1alpha1/wardenpolicies")["items"]
    assert len(policies) >= 17
    installed.until(lambda: all(_condition(policy, "Ready") == "True" for policy in _policies(installed)))
    assert installed.generated()


def test_every_process_has_the_rights_it_needs_and_no_more(installed: "Installed") -> None:
    def may(account: str, verb: str, resource: str, *options: str) -> bool:
        who = f"--as=system:serviceaccount:{NAMESPACE}:mlwarden-{account}"
        return installed.cluster.kubectl("auth", "can-i", verb, resource, who, *options, check=False).strip().splitlines()[-1] == "yes"

    everywhere, own = "--all-namespaces", f"--namespace={NAMESPACE}"
    assert may("webhook", "create", "imageevidences.mlwarden.io", everywhere)
    assert may("webhook", "create", "events", everywhere)
    for verb in ("get", "list", "patch", "delete"):
        assert not may("webhook", verb, "events", everywhere)
    assert may("releaser", "patch", "pods", everywhere)
    assert may("scanner", "update", "imageevidences.mlwarden.io", "--subresource=status", everywhere)
    for account in ("webhook", "controller", "scanner"):
        assert not may(account, "patch", "pods", everywhere)
    for account in ("webhook", "releaser", "scanner"):
        assert not may(account, "get", "secrets", everywhere)
        assert not may(account, "patch", "validatingadmissionpolicies", everywhere)
    for account in ("webhook", "controller", "releaser"):
        for verb in ("patch", "update"):
            assert not may(account, verb, "imageevidences.mlwarden.io", "--subresource=status", everywhere)
    for account in ("webhook", "controller", "releaser", "scanner"):
        for verb, resource in (("create", "pods"), ("delete", "pods"), ("get", "secrets"), ("impersonate", "users"), ("escalate", "roles")):
            stuck = (account, verb) == ("releaser", "delete")  # which pods, an admission policy says: mlwarden-accounts-pods
            assert may(account, verb, resource, everywhere) is stuck, (account, verb, resource)
        assert not may(account, "list", "secrets", own)


def test_a_policy_that_does_not_compile_is_refused_when_it_is_applied(installed: "Installed") -> None:
    spec = {"profiles": {"experiment": "Deny"}, "message": "m", "why": "w", "fix": {"text": "t"}}
    requirement = {"expression": {"forEach": "container", "expression": "container.image.startsWith('x'"}}
    body = {
        "apiVersion": "mlwarden.io/v1alpha1",
        "kind": "WardenPolicy",
        "metadata": {"name": "own"},
        "spec": {**spec, "requirement": requirement},
    }
    said = installed.cluster.kubectl("apply", "--filename", "-", input=json.dumps(body), check=False)
    assert "this policy does not compile: policy own: spec.requirement.expression: CEL: expected ')'" in said


def test_a_notebook_as_root_is_refused_and_told_what_where_why_and_how(installed: "Installed") -> None:
    namespace = installed.namespace("chart-research", "experiment")
    pod = installed.pod("x")["spec"]
    pod["securityContext"] = {"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}
    notebook = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "Notebook",
        "metadata": {"name": "nb", "namespace": namespace},
        "spec": {"template": {"spec": pod}},
    }
    said = installed.cluster.kubectl("apply", "--filename", "-", user="alice", input=json.dumps(notebook), check=False)
    for text in (
        "Notebook chart-research/nb is refused by root-user (high)",
        "where:     spec.template.spec",
        "why: ",
        "fix: ",
        "exception: ",
    ):
        assert text in said


def test_a_good_pod_is_held_released_pinned_sealed_and_runs(installed: "Installed", serving: str) -> None:
    created = installed.create(serving, installed.pod("good"))
    assert created["spec"]["schedulingGates"] == [{"name": "mlwarden.io/evidence"}]
    installed.runs(serving, "good")
    pod = installed.get(serving, "good")
    assert "@sha256:" in pod["spec"]["containers"][0]["image"]
    assert "mlwarden.io/judged" in pod["metadata"]["annotations"]


def test_a_vulnerable_one_stays_held_and_why_says_so_to_whoever_made_it(installed: "Installed", serving: str) -> None:
    installed.create(serving, installed.pod("bad", "vulnerable:1.0"))
    installed.said(serving, "bad", "CVE-2025-32434")
    answer = installed.mlwarden("why", "bad", "-n", serving)
    assert answer.returncode == 1
    for text in ("is held by mlwarden since", "CVE-2025-32434", "why: ", "torch>=2.6.0"):
        assert text in answer.stdout
    assert installed.state(serving, "bad") == "Held"
    by_admin = installed.mlwarden("why", "pod/bad", "-n", serving, user="admin")
    assert "is refused by image-scanned" in by_admin.stdout
    good = installed.mlwarden("why", "good", "-n", serving)
    assert good.returncode == 0
    assert "was released at" in good.stdout
    assert "there is no pod" in installed.mlwarden("why", "nobody", "-n", serving).stderr


@pytest.fixture(scope="module")
def target(installed: "Installed") -> str:
    """A namespace in which alice may debug, and a pod that runs in it."""
    namespace = installed.namespace("chart-debug")
    role = {
        "metadata": {"name": "debug"},
        "rules": [{"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["get", "patch", "update"]}],
    }
    base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    installed.admin.create(f"{base}/roles", role)
    binding = {
        "metadata": {"name": "debug"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "debug"},
    }
    installed.admin.create(f"{base}/rolebindings", binding)
    installed.create(namespace, installed.pod("target"))
    installed.runs(namespace, "target")
    return namespace


class TestBreakGlass:
    def test_is_for_whoever_has_the_verb_and_is_in_the_audit_log(self, installed: "Installed", serving: str) -> None:
        images.vulnerable(installed.cluster.registry, "glass:1.0", runs=installed.real)
        installed.create(serving, installed.pod("glass", "glass:1.0"))
        installed.said(serving, "glass", "CVE-2025-32434")
        path = f"/api/v1/namespaces/{serving}/pods/glass"
        reason = {"metadata": {"annotations": {"mlwarden.io/break-glass": "INC-7: customers wait"}}, "spec": GATE_OFF}
        with pytest.raises(ApiError, match=r"break-glass needs the verb release|only mlwarden releases"):
            installed.cluster.api("alice").patch(path, reason, content_type=STRATEGIC_PATCH)
        with pytest.raises(ApiError, match="only mlwarden releases a held pod"):
            installed.admin.patch(path, {"spec": GATE_OFF}, content_type=STRATEGIC_PATCH)
        installed.admin.patch(path, reason, content_type=STRATEGIC_PATCH)
        installed.runs(serving, "glass")

        def recorded() -> list[tuple[str, int]]:
            return [
                (event["annotations"]["mlwarden-gate/break-glass"], event["responseStatus"]["code"])
                for event in installed.cluster.audit_events()
                if "chart-serving/glass" in event.get("annotations", {}).get("mlwarden-gate/break-glass", "")
            ]

        said = "breaks the glass of chart-serving/glass: INC-7: customers wait"
        installed.until(lambda: recorded() == [(f"alice {said}", 403), (f"admin {said}", 200)])


class TestDebug:
    def debug(self, installed: "Installed", namespace: str, image: str) -> str:
        """`kubectl debug`, with a container that the policies allow apart from its image."""
        custom = installed.cluster.directory / "debug.json"
        container = installed.pod("x")["spec"]["containers"][0]["securityContext"] | {"runAsNonRoot": True, "runAsUser": 1000}
        custom.write_text(json.dumps({"securityContext": container}))
        arguments = ["debug", "target", "-n", namespace, f"--image={installed.cluster.registry}/{image}", f"--custom={custom}"]
        return installed.cluster.kubectl(*arguments, "--profile=restricted", "--attach=false", user="alice", check=False)

    def test_is_refused_until_the_image_was_scanned_and_pinned_when_it_was(self, installed: "Installed", target: str) -> None:
        first = self.debug(installed, target, "debug-tools:1.0")
        assert "try again" in first, first

        def added() -> Any:
            self.debug(installed, target, "debug-tools:1.0")
            return installed.get(target, "target")["spec"].get("ephemeralContainers")

        (container, *_) = installed.until(added)
        assert "@sha256:" in container["image"]

    def test_with_a_vulnerable_image_is_refused(self, installed: "Installed", target: str) -> None:
        images.vulnerable(installed.cluster.registry, "debug-with-a-hole:1.0")
        said = ""

        def told() -> bool:
            nonlocal said
            said = self.debug(installed, target, "debug-with-a-hole:1.0")
            return "CVE-2025-32434" in said

        installed.until(told)
        assert "is refused by image-scanned" in said

    def test_a_node_is_refused_and_told_why(self, installed: "Installed", target: str) -> None:
        arguments = ["debug", f"node/{installed.node}", "-n", target, f"--image={installed.cluster.registry}/clean:1.0", "--attach=false"]
        said = installed.cluster.kubectl(*arguments, user="admin", check=False)
        assert "denied the request" in said
        assert "host-namespaces" in said or "host-path-volumes" in said


class TestKilled:
    def test_nothing_starts_unjudged_and_nothing_is_lost(self, installed: "Installed") -> None:
        namespace = installed.namespace("chart-outage")
        digest = images.clean(installed.cluster.registry, "clean:1.0", runs=installed.real)
        installed.kubelet.kill_all()
        try:
            names = [f"p-{number}" for number in range(30)]
            for name in names:
                installed.create(namespace, installed.pod(name, "vulnerable:1.0" if name.endswith("7") else "clean:1.0"))
            deployment = {
                "metadata": {"name": "web"},
                "spec": {
                    "replicas": 3,
                    "selector": {"matchLabels": {"a": "b"}},
                    "template": {"metadata": {"labels": {"a": "b"}}, "spec": installed.pod("x")["spec"]},
                },
            }
            installed.cluster.api("alice").create(f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment)
            installed.until(lambda: len(self.pods(installed, namespace)) == 33)
            assert {_state(pod) for pod in self.pods(installed, namespace)} == {"Held"}
            with pytest.raises(ApiError, match="ValidatingAdmissionPolicy 'mlwarden-policy-"):
                installed.create(namespace, _privileged(installed.pod("privileged")))
            with pytest.raises(ApiError, match=r"failed calling webhook.*node\.mlwarden\.io"):
                installed.create(namespace, installed.pod("on-a-node", f"clean:1.0@{digest}", nodeName=installed.node))
            with pytest.raises(ApiError, match="names its images by digest"):
                installed.create(namespace, installed.pod("on-a-node", nodeName=installed.node))
        finally:
            installed.kubelet.resume()
        bad = {name for name in names if name.endswith("7")}
        installed.until(lambda: sum(_state(pod) == "Running" for pod in self.pods(installed, namespace)) == 33 - len(bad))
        assert {pod["metadata"]["name"] for pod in self.pods(installed, namespace) if _state(pod) == "Held"} == bad
        for name in bad:
            installed.said(namespace, name, "CVE-2025-32434")

    def test_the_api_server_restarting_lets_nothing_through(self, installed: "Installed", serving: str) -> None:
        installed.cluster.restart_apiserver(kill=True)
        created = installed.until(lambda: _try(lambda: installed.create(serving, installed.pod("after"))))
        assert created["spec"]["schedulingGates"] == [{"name": "mlwarden.io/evidence"}]
        installed.runs(serving, "after")

    def pods(self, installed: "Installed", namespace: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = installed.admin.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
        return found


def _is_ready(pod: dict[str, Any]) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))


def _policies(installed: "Installed") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = installed.admin.get("/apis/mlwarden.io/v1alpha1/wardenpolicies")["items"]
    return found


def _condition(policy: dict[str, Any], kind: str) -> str:
    return next((each["status"] for each in policy.get("status", {}).get("conditions", []) if each["type"] == kind), "")


def _state(pod: dict[str, Any]) -> str:
    return "Held" if pod["spec"].get("schedulingGates") else str(pod["status"].get("phase"))


def _privileged(pod: dict[str, Any]) -> dict[str, Any]:
    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    return pod


def _try(call: Any) -> Any:
    try:
        return call()
    except ApiError:
        return None


def test_what_is_in_an_image_that_anybody_can_pull_is_told_to_anybody(installed: "Installed") -> None:
    own, other = installed.namespace("told-own"), installed.namespace("told-other")
    digest = images.vulnerable(installed.cluster.registry, "told/app:1")
    image = f"told/app@{digest}"
    installed.create(own, installed.pod("first", image))
    installed.said(own, "first", "CVE-2025-32434")
    for query in ({}, {"dryRun": "All"}):
        with pytest.raises(ApiError, match="CVE-2025-32434"):
            installed.create(other, installed.pod("again", image), **query)
