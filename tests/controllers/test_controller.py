"""The controller as a process, with the chart's own rights: what it makes, what it releases, and what becomes of both when it is killed."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.controllers.gate import JUDGED
from mlwarden.workloads import is_gated

if TYPE_CHECKING:
    from conftest import Running

pytestmark = pytest.mark.cluster

DIGEST = "sha256:" + "c" * 64
CLEAN: dict[str, Any] = {"counts": {}}
VULNERABLE: dict[str, Any] = {
    "counts": {"CRITICAL": 1},
    "vulnerabilities": [{"id": "CVE-2026-1", "package": "openssl", "installed": "1", "fixed": "2", "severity": "CRITICAL"}],
}


@pytest.fixture
def space(running: "Running") -> str:
    """A holding namespace."""
    return running.held.namespace()


def events(running: "Running", namespace: str, reason: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = running.admin.get(f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"reason={reason}")["items"]
    return found


def unique() -> tuple[str, str]:
    """An image by tag that nobody has asked for yet, and its digest."""
    token = secrets.token_hex(4)
    return f"registry.example/app-{token}:1", "sha256:" + token * 8


class TestRelease:
    def test_a_pod_waits_for_its_evidence_and_is_released_pinned(self, running: "Running", space: str, good_pod: Any) -> None:
        image, digest = unique()
        created = running.held.create(space, good_pod("p", image))
        assert is_gated(created)
        running.answer(image, digest=digest)
        running.answer(f"{image.removesuffix(':1')}@{digest}", scan=CLEAN)
        path = f"/api/v1/namespaces/{space}/pods/p"
        released = running.held.until(lambda: not is_gated(pod := running.admin.get(path)) and pod)
        assert released["spec"]["containers"][0]["image"] == f"{image}@{digest}"
        assert JUDGED in released["metadata"]["annotations"]
        running.held.until(lambda: running.admin.get(path)["status"]["phase"] == "Running")

    def test_a_vulnerable_one_stays_held_with_the_reason_on_it_and_on_its_root(self, running: "Running", space: str, good_pod: Any) -> None:
        image, digest = unique()
        template = good_pod("x", image)
        labels = {"app": "w"}
        spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": template["spec"]}}
        running.alice.create(f"/apis/apps/v1/namespaces/{space}/deployments", {"metadata": {"name": "w"}, "spec": spec})
        running.answer(image, digest=digest)
        running.answer(f"{image.removesuffix(':1')}@{digest}", scan=VULNERABLE)
        told = running.held.until(
            lambda: {e["involvedObject"]["kind"] for e in events(running, space, "NotReleased")} >= {"Pod", "Deployment"}
        )
        assert told
        said = events(running, space, "NotReleased")
        assert len([e for e in said if e["involvedObject"]["kind"] == "Deployment"]) == 1
        assert all("image-scanned" in e["message"] and "CVE-2026-1" in e["message"] for e in said)
        assert all(map(is_gated, running.held.pods(space)))
        assert len(running.held.pods(space)) == 2  # never deleted

    def test_and_is_released_when_the_evidence_changes(self, running: "Running", space: str, good_pod: Any) -> None:
        image, digest = unique()
        by_digest = f"{image.removesuffix(':1')}@{digest}"
        running.held.create(space, good_pod("p", by_digest))
        running.answer(by_digest, scan=VULNERABLE)
        running.held.until(lambda: events(running, space, "NotReleased"))
        running.answer(by_digest, scan=CLEAN)
        running.held.until(lambda: not is_gated(running.held.pods(space)[0]))

    def test_or_when_the_pod_itself_is_put_right(self, running: "Running", space: str, good_pod: Any) -> None:
        (bad, bad_digest), (good, good_digest) = unique(), unique()
        running.held.create(space, good_pod("p", f"{bad}@{bad_digest}"))
        running.answer(f"{bad}@{bad_digest}", scan=VULNERABLE)
        running.held.until(lambda: events(running, space, "NotReleased"))
        patch = [{"op": "replace", "path": "/spec/containers/0/image", "value": f"{good}@{good_digest}"}]
        running.alice.patch(f"/api/v1/namespaces/{space}/pods/p", patch, content_type="application/json-patch+json")
        running.answer(f"{good}@{good_digest}", scan=CLEAN)
        running.held.until(lambda: not is_gated(running.held.pods(space)[0]))

    def test_a_pod_that_waits_for_long_says_so(self, running: "Running", space: str, good_pod: Any) -> None:
        image, _ = unique()
        running.held.create(space, good_pod("p", image))
        said = running.held.until(lambda: events(running, space, "Held"))
        assert "image-scanned" in said[0]["message"]
        assert said[0]["type"] == "Normal"

    def test_an_image_volume_by_tag_cannot_be_released_and_says_what_to_do(self, running: "Running", space: str, good_pod: Any) -> None:
        (image, digest), (model, model_digest) = unique(), unique()
        volumes = [{"name": "model", "image": {"reference": model}}]
        running.held.create(space, good_pod("p", f"{image}@{digest}", volumes=volumes))
        running.answer(f"{image}@{digest}", scan=CLEAN)
        running.answer(model, digest=model_digest)
        running.answer(f"{model.removesuffix(':1')}@{model_digest}", scan=CLEAN)
        says = f"create the pod again with {model}@{model_digest}"  # said before, too, without the digest
        running.held.until(lambda: any(says in each["message"] for each in events(running, space, "NotReleased")))

    def test_other_peoples_gates_stay(self, running: "Running", space: str, good_pod: Any) -> None:
        image, digest = unique()
        running.held.create(space, good_pod("p", f"{image}@{digest}", schedulingGates=[{"name": "example.com/other"}]))
        running.answer(f"{image}@{digest}", scan=CLEAN)
        pod = running.held.until(lambda: not is_gated(found := running.held.pods(space)[0]) and found)
        assert pod["spec"]["schedulingGates"] == [{"name": "example.com/other"}]

    def test_a_namespace_that_stops_to_hold_lets_its_pods_go(self, running: "Running", space: str, good_pod: Any) -> None:
        image, _ = unique()
        running.held.create(space, good_pod("p", image))
        running.admin.patch(f"/api/v1/namespaces/{space}", {"metadata": {"labels": {"mlwarden.io/profile": "baseline"}}})
        running.held.until(lambda: not is_gated(running.held.pods(space)[0]))

    def test_pods_from_before_are_reported_and_left_alone(self, running: "Running", good_pod: Any) -> None:
        space = running.held.namespace("")
        image, _ = unique()
        for number in range(3):
            running.held.create(space, good_pod(f"p-{number}", image))
        running.admin.patch(f"/api/v1/namespaces/{space}", {"metadata": {"labels": {"mlwarden.io/profile": "production"}}})
        told = running.held.until(
            lambda: [e for e in running.admin.get("/api/v1/namespaces/default/events")["items"] if e["involvedObject"]["name"] == space]
        )
        assert "3 pods ran here before profile production held them" in told[0]["message"]
        assert len(running.held.pods(space)) == 3


class TestKilled:
    def test_pods_are_created_held_and_none_is_lost(self, running: "Running", space: str, good_pod: Any) -> None:
        """kill -9, 300 pods, start: all of them are judged, the good ones run, the bad ones say why."""
        (good, good_digest), (bad, bad_digest) = unique(), unique()
        running.held.create(space, good_pod("first", f"{good}@{good_digest}"))
        running.held.create(space, good_pod("second", f"{bad}@{bad_digest}"))
        running.answer(f"{good}@{good_digest}", scan=CLEAN)
        running.answer(f"{bad}@{bad_digest}", scan=VULNERABLE)
        running.held.until(lambda: events(running, space, "NotReleased"))
        running.kill()

        def create(part: int) -> None:
            try:
                for number in range(part, 300, 4):
                    image = f"{bad}@{bad_digest}" if number % 10 == 0 else f"{good}@{good_digest}"
                    running.held.create(space, good_pod(f"p-{number}", image))
            finally:
                running.alice.close()

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(create, range(4)))
        during = [pod for pod in running.held.pods(space) if pod["metadata"]["name"].startswith("p-")]
        assert len(during) == 300
        assert all(map(is_gated, during))
        assert not [pod for pod in during if pod["spec"].get("nodeName")]
        running.start()
        running.held.until(lambda: sum(map(is_gated, running.held.pods(space))) == 31)
        assert {pod["metadata"]["name"] for pod in running.held.pods(space) if is_gated(pod)} == {
            "second",
            *(f"p-{number}" for number in range(0, 300, 10)),
        }
        running.await_ready()

    def test_a_follower_takes_over(self, running: "Running", space: str, good_pod: Any) -> None:
        running.start("b")
        running.await_ready("b")
        running.kill("a")
        image, digest = unique()
        running.held.create(space, good_pod("p", f"{image}@{digest}"))
        running.answer(f"{image}@{digest}", scan=CLEAN)  # asked for by the new leader
        running.held.until(lambda: not is_gated(running.held.pods(space)[0]))
        assert running.stop("b") == 0
        running.start("a")
        running.await_ready("a")


class TestGenerated:
    def test_what_is_changed_is_put_back(self, running: "Running") -> None:
        base = "/apis/admissionregistration.k8s.io/v1"
        running.admin.delete(f"{base}/validatingadmissionpolicybindings/mlwarden-gate")
        running.held.until(lambda: _exists(running, f"{base}/validatingadmissionpolicybindings/mlwarden-gate"))
        path = f"{base}/mutatingwebhookconfigurations/mlwarden"
        before = running.admin.get(path)["webhooks"][0]["clientConfig"]["caBundle"]
        patch = [{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]
        running.admin.patch(path, patch, content_type="application/json-patch+json")
        running.held.until(lambda: running.admin.get(path)["webhooks"][0]["clientConfig"].get("caBundle") == before)

    def test_all_of_it_is_owned_by_the_anchor(self, running: "Running") -> None:
        uid = running.admin.get(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{running.settings.anchor}")["metadata"]["uid"]
        for plural in ("validatingadmissionpolicies", "mutatingadmissionpolicies", "validatingwebhookconfigurations"):
            found = running.admin.get(
                f"/apis/admissionregistration.k8s.io/v1/{plural}", labelSelector="app.kubernetes.io/managed-by=mlwarden"
            )
            assert found["items"]
            assert all(obj["metadata"]["ownerReferences"][0]["uid"] == uid for obj in found["items"])

    def test_what_is_not_wanted_any_more_goes_and_other_peoples_things_stay(self, running: "Running") -> None:
        base = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
        labels = {"app.kubernetes.io/managed-by": "mlwarden"}
        spec = {
            "matchConstraints": {
                "resourceRules": [{"apiGroups": ["x.example"], "apiVersions": ["*"], "operations": ["*"], "resources": ["xs"]}]
            },
            "validations": [{"expression": "true"}],
        }
        for name, manager in (("mlwarden-own-99", "mlwarden"), ("theirs", "somebody")):
            body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "spec": spec}
            running.admin.apply(f"{base}/{name}", {**body, "metadata": {"name": name, "labels": labels}}, manager=manager)
        running.held.until(lambda: not _exists(running, f"{base}/mlwarden-own-99"))
        assert _exists(running, f"{base}/theirs")
        running.admin.delete(f"{base}/theirs")

    def test_the_webhooks_certificate_is_issued_and_comes_back(self, running: "Running") -> None:
        path = f"/api/v1/namespaces/{running.settings.namespace}/secrets/mlwarden-webhook-tls"
        secret = running.admin.get(path)
        assert secret["type"] == "kubernetes.io/tls"
        assert "tls.key" in secret["data"]
        assert "next.key" not in secret["data"]


class TestPolicies:
    PATH = "/apis/mlwarden.io/v1alpha1/wardenpolicies"

    def places(self, running: "Running", name: str) -> list[str]:
        """Where a policy of the cluster's own is compiled to."""
        stored = running.admin.get("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies")["items"]
        return [each["metadata"]["name"] for each in stored if each["metadata"].get("annotations", {}).get("mlwarden.io/policy") == name]

    def refusal(self, running: "Running", space: str, pod: dict[str, Any]) -> str:
        """What the API server says to a pod, `""` where it takes it."""
        from mlwarden.embedded.api import ApiError

        try:
            running.held.create(space, pod, dryRun="All")
        except ApiError as error:
            return error.message
        return ""

    def conditions(self, running: "Running", name: str) -> dict[str, dict[str, Any]]:
        policy = running.admin.get(f"{self.PATH}/{name}")
        found = policy.get("status", {}).get("conditions", [])
        current = [c for c in found if c["observedGeneration"] == policy["metadata"]["generation"]]
        return {condition["type"]: condition for condition in current}

    def test_the_shipped_ones_say_what_became_of_them(self, running: "Running") -> None:
        found = running.held.until(lambda: self.conditions(running, "image-scanned"))
        assert found["Ready"]["status"] == "True"
        assert (found["Compiled"]["status"], found["Compiled"]["reason"]) == ("False", "NotPossible")
        assert found["Shipped"]["status"] == "True"
        assert running.held.until(lambda: self.conditions(running, "host-namespaces"))["Compiled"]["status"] == "True"

    def test_an_edited_one_stays_edited_and_says_so_until_it_is_deleted(self, running: "Running") -> None:
        path = f"{self.PATH}/gpu-limits"
        shipped = running.admin.get(path)["spec"]
        running.admin.patch(path, {"spec": {"severity": "low"}}, fieldManager="kubectl-edit")
        running.held.until(lambda: self.conditions(running, "gpu-limits").get("Shipped", {}).get("reason") == "Edited")
        assert running.admin.get(path)["spec"]["severity"] == "low"
        running.admin.delete(path)
        running.held.until(lambda: _exists(running, path) and running.admin.get(path)["spec"] == shipped)

    def test_what_somebody_took_out_of_one_stays_out(self, running: "Running") -> None:
        path = f"{self.PATH}/gpu-limits"
        shipped = running.admin.get(path)["spec"]
        profile = next(iter(shipped["profiles"]))
        running.admin.patch(path, {"spec": {"profiles": {profile: None, "own": "Deny"}}}, fieldManager="kubectl-edit")
        running.held.until(lambda: self.conditions(running, "gpu-limits").get("Shipped", {}).get("reason") == "Edited")
        running.admin.patch(path, {"spec": {"fix": {"text": "ask for fewer"}}}, fieldManager="kubectl-edit")
        generation = running.admin.get(path)["metadata"]["generation"]
        running.held.until(lambda: running.admin.get(path)["status"]["conditions"][0]["observedGeneration"] == generation)
        stored = running.admin.get(path)
        assert profile not in stored["spec"]["profiles"]
        assert stored["metadata"]["generation"] == generation
        running.admin.delete(path)
        running.held.until(lambda: _exists(running, path) and running.admin.get(path)["spec"] == shipped)

    def test_a_new_one_is_compiled_and_taken_away_with_its_policy(self, running: "Running", space: str, good_pod: Any) -> None:
        name = f"no-{secrets.token_hex(3)}"
        running.admin.create(self.PATH, a_policy(name, "object.metadata.?labels.?team.orValue('') != ''"))
        assert running.held.until(lambda: self.conditions(running, name))["Compiled"]["status"] == "True"
        running.held.until(lambda: self.places(running, name))
        (place,) = self.places(running, name)
        unlabelled = good_pod("p")
        unlabelled["metadata"]["labels"] = {"judged-by": name}
        assert f"'{place}'" in running.held.until(lambda: self.refusal(running, space, unlabelled))
        running.admin.patch(f"{self.PATH}/{name}", {"spec": {"message": "no team at all"}})
        running.held.until(lambda: "no team at all" in self.refusal(running, space, unlabelled))
        assert self.places(running, name) == [place]
        running.admin.delete(f"{self.PATH}/{name}")
        running.held.until(lambda: not self.places(running, name))
        bindings = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
        running.held.until(lambda: not [each for each in running.admin.get(bindings)["items"] if each["spec"]["policyName"] == place])

    def test_what_an_earlier_version_compiled_goes_when_its_policy_has_a_place(self, running: "Running") -> None:
        name, base = f"kept-{secrets.token_hex(3)}", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
        running.admin.create(self.PATH, a_policy(name, "object.metadata.?labels.?team.orValue('') != ''"))
        (place,) = running.held.until(lambda: self.places(running, name))
        stored = running.admin.get(f"{base}/{place}")
        for left in (name, "gone"):
            metadata = {"name": f"mlwarden-policy-{left}", "labels": {"app.kubernetes.io/managed-by": "mlwarden"}}
            body = {key: stored[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": metadata}
            running.admin.apply(f"{base}/mlwarden-policy-{left}", body, manager="mlwarden")
        running.await_ready()  # what the controller may not remove does not stop it
        assert "removed" in running.call("prune", account="mlwarden-prune")
        assert not _exists(running, f"{base}/mlwarden-policy-gone")
        assert not _exists(running, f"{base}/mlwarden-policy-{name}")
        assert self.places(running, name) == [place]
        assert _exists(running, f"{base}/mlwarden-policy-host-namespaces")
        running.admin.delete(f"{self.PATH}/{name}")

    def test_one_that_does_not_compile_is_unknown_and_holds_until_it_goes(self, running: "Running", space: str, good_pod: Any) -> None:
        name = f"broken-{secrets.token_hex(3)}"
        running.admin.create(self.PATH, a_policy(name, "object.spec.nonsense("))
        found = running.held.until(lambda: self.conditions(running, name))
        assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "DoesNotCompile")
        image, digest = unique()
        running.held.create(space, good_pod("p", f"{image}@{digest}"))
        running.answer(f"{image}@{digest}", scan=CLEAN)
        running.held.until(lambda: [e for e in events(running, space, "Held") if name in e["message"]])
        assert is_gated(running.held.pods(space)[0])
        running.admin.delete(f"{self.PATH}/{name}")
        running.held.until(lambda: not is_gated(running.held.pods(space)[0]))


class TestUninstall:
    def test_free_leaves_nothing_held_and_nothing_generated_although_the_controller_runs(
        self, running: "Running", space: str, good_pod: Any
    ) -> None:
        image, _ = unique()
        for number in range(20):
            running.held.create(space, good_pod(f"p-{number}", image))
        out = running.call("free")
        assert "nothing is held any more" in out
        assert not any(map(is_gated, running.held.pods(space)))
        assert len(running.held.pods(space)) == 20
        found = running.admin.get("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies")["items"]
        assert not [name for obj in found if "mlwarden-accounts-" not in (name := obj["metadata"]["name"]) and name.startswith("mlwarden")]
        assert "schedulingGates" not in running.held.create(space, good_pod("after", image))["spec"]


def a_policy(name: str, expression: str) -> dict[str, Any]:
    spec = {
        "profiles": {"experiment": "Deny"},
        "requirement": {"expression": {"forEach": "pod", "expression": expression}},
        "message": "no team",
        "why": "because",
        "fix": {"text": "add it"},
        "match": {"objectSelector": {"matchLabels": {"judged-by": name}}} if "team" in expression else {},
    }
    return {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": name}, "spec": spec}


def _exists(running: "Running", path: str) -> bool:
    from mlwarden.embedded.api import ApiError

    try:
        running.admin.get(path)
    except ApiError as error:
        if error.code == 404:
            return False
        raise
    return True
