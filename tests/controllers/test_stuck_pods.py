"""Held pods that can never be released, and the condition that says so: the releaser as a process, with the chart's rights."""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.embedded.api import ApiError
from mlwarden.model.policy import HELD_CONDITION
from mlwarden.workloads import is_gated

if TYPE_CHECKING:
    from .conftest import Running  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster

CLEAN: dict[str, Any] = {"counts": {}}


def unique() -> tuple[str, str]:
    """An image by tag that nobody has asked for yet, and its digest."""
    token = secrets.token_hex(4)
    return f"registry.example/app-{token}:1", "sha256:" + token * 8


@pytest.fixture
def space(running: "Running") -> str:
    return str(running.held.namespace())


def events(running: "Running", namespace: str, reason: str) -> list[str]:
    found = running.admin.get(f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"reason={reason}")["items"]
    return [each["message"] for each in found if each["involvedObject"]["kind"] == "Pod"]


class TestTheReleaser:
    """As a process, with the chart's rights; no webhook answers, so what is made anew comes by its tag again."""

    def test_has_another_made_by_the_controller(
        self, running: "Running", space: str, good_pod: Any, attack: Callable[[str, str, str], None]
    ) -> None:
        (image, digest), (model, model_digest) = unique(), unique()
        template = good_pod("x", f"{image}@{digest}", volumes=[{"name": "weights", "image": {"reference": model}}])
        labels = {"app": "w"}
        spec = {"replicas": 2, "selector": {"matchLabels": labels}}
        spec["template"] = {"metadata": {"labels": labels}, "spec": template["spec"]}
        running.alice.create(f"/apis/apps/v1/namespaces/{space}/deployments", {"metadata": {"name": "w"}, "spec": spec})
        first = running.held.until(lambda: len(pods := running.held.pods(space)) == 2 and {pod["metadata"]["uid"] for pod in pods})
        running.answer(f"{image}@{digest}", scan=CLEAN)
        running.answer(model, digest=model_digest)
        running.answer(f"{model.removesuffix(':1')}@{model_digest}", scan=CLEAN)

        def those() -> set[str]:
            return {pod["metadata"]["uid"] for pod in running.held.pods(space)}

        running.held.until(lambda: len(those()) == 2 and len(those() & first) == 1)
        says = "its controller makes another, which is pinned at its creation"
        running.held.until(lambda: any(says in each for each in events(running, space, "Held")))  # the other is left: none came back pinned
        assert len(those() & first) == 1
        assert all(map(is_gated, running.held.pods(space)))
        path = f"/api/v1/namespaces/{space}/events"
        told = [each for each in running.admin.get(path)["items"] if each["reason"] == "MadeAnew"]
        assert [(each["involvedObject"]["kind"], each["count"]) for each in told] == [("ReplicaSet", 1)]
        attack("an image volume by a tag that was not resolved lately", "held for ever", "made anew, one of its owner's first")

    @pytest.mark.parametrize("bare", [True, False])
    def test_says_at_once_of_one_that_nobody_would_make_anew_that_it_never_starts(
        self, running: "Running", space: str, good_pod: Any, *, bare: bool
    ) -> None:
        """Before anything is known about its images; then with the digest to write."""
        (image, digest), (model, model_digest) = unique(), unique()
        body = good_pod("p", f"{image}@{digest}", volumes=[{"name": "weights", "image": {"reference": model}}])
        if bare:
            running.held.create(space, body)
        else:
            spec = {"template": {"spec": {**body["spec"], "restartPolicy": "Never"}}, "activeDeadlineSeconds": 3600}
            running.alice.create(f"/apis/batch/v1/namespaces/{space}/jobs", {"metadata": {"name": "j"}, "spec": spec})
        says = "no controller owns it" if bare else "against its backoffLimit"
        said = running.held.until(lambda: events(running, space, "NotReleased"))
        assert says in said[0]
        assert f"create the pod again with {model}@sha256:…" in said[0]
        running.answer(model, digest=model_digest)
        running.held.until(lambda: any(f"{model}@{model_digest}" in each for each in events(running, space, "NotReleased")))
        assert all(map(is_gated, running.held.pods(space)))

    def test_says_what_refuses_the_release_and_releases_when_it_does_not_any_more(
        self, running: "Running", space: str, good_pod: Any, attack: Callable[[str, str, str], None]
    ) -> None:
        image, digest = unique()
        base = "/apis/admissionregistration.k8s.io/v1"
        name = f"scc-{secrets.token_hex(3)}"
        spec = {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space}},
            },
            "validations": [{"expression": "false", "message": "unable to validate against any security context constraint"}],
        }
        running.admin.create(f"{base}/validatingadmissionpolicies", {"metadata": {"name": name}, "spec": spec})
        binding = {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}
        running.admin.create(f"{base}/validatingadmissionpolicybindings", binding)
        try:
            running.held.create(space, good_pod("p", f"{image}@{digest}"))
            path = f"/api/v1/namespaces/{space}/pods/p"

            def refuses() -> bool:
                try:
                    running.alice.patch(path, {"metadata": {"labels": {"a": secrets.token_hex(3)}}})
                except ApiError:
                    return True
                return False

            running.held.until(refuses)
            running.answer(f"{image}@{digest}", scan=CLEAN)
            said = running.held.until(lambda: events(running, space, "NotReleased"))
            assert "unable to validate against any security context constraint" in said[0]
            assert is_gated(running.admin.get(path))
        finally:
            running.admin.delete(f"{base}/validatingadmissionpolicybindings/{name}")
            running.admin.delete(f"{base}/validatingadmissionpolicies/{name}")
        running.held.until(lambda: not is_gated(running.admin.get(path)), seconds=60)
        attack("another plugin refuses the release", "tried again for ever, said nowhere", "said with its reason; tried ever more seldom")


class TestTheCondition:
    def held(self, running: "Running", space: str, name: str) -> dict[str, Any]:
        status = running.admin.get(f"/api/v1/namespaces/{space}/pods/{name}").get("status", {})
        return next((each for each in status.get("conditions", ()) if each["type"] == HELD_CONDITION), {})

    def test_says_that_a_pod_waits_and_that_it_was_released(self, running: "Running", space: str, good_pod: Any) -> None:
        image, digest = unique()
        running.held.create(space, good_pod("p", f"{image}@{digest}"))
        waits = running.held.until(lambda: self.held(running, space, "p"))
        assert (waits["status"], waits["reason"]) == ("True", "WaitsForEvidence")
        assert "image-scanned" in waits["message"]
        running.answer(f"{image}@{digest}", scan=CLEAN)
        running.held.until(lambda: self.held(running, space, "p")["status"] == "False")
        assert self.held(running, space, "p")["reason"] == "Released"
