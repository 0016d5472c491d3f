"""A controller that meets the policies of the version before: what ran runs, what was refused is refused, until somebody accepts."""

import contextlib
import json
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mlwarden import __version__, policy
from mlwarden.controllers.acceptance import KEPT, NEXT, WAITS, as_object
from mlwarden.controllers.generated import owned
from mlwarden.embedded.api import ApiError

if TYPE_CHECKING:
    from conftest import Running
    from mlwarden.embedded.cluster import EmbeddedCluster

pytestmark = pytest.mark.cluster
POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
BINDINGS = f"{ADMISSION}/validatingadmissionpolicybindings"
OLD = "webhook-of-the-version-before"
STRICTER, NEW, EDITED = "host-ports", "host-namespaces", "proc-mount"


def of_the_version_before() -> list[dict[str, Any]]:
    """The shipped policies as an earlier version had them: one less, and one with a port that was nobody's business."""
    found = []
    for each in policy.shipped():
        obj = as_object(each)
        if each.name == STRICTER:
            expression = obj["spec"]["requirement"]["expression"]["expression"]
            obj["spec"]["requirement"]["expression"]["expression"] = f"({expression}) || container.ports.all(port, port.hostPort == 8080)"
        if each.name != NEW:
            found.append(obj)
    return found


def old_webhook(kind: str) -> dict[str, Any]:
    """Refuses, as a webhook of the version before would, what it cannot read: the policy that is new."""
    rule = {"apiGroups": ["mlwarden.io"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["wardenpolicies"]}
    expression = f"object.metadata.name != '{NEW}' || object.spec.requirement.?expression.?expression.orValue('') == 'true'"
    spec: dict[str, Any] = {"policyName": OLD, "validationActions": ["Deny"]}
    if kind == "ValidatingAdmissionPolicy":
        message = "this policy does not compile"
        spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": expression, "message": message}]}
    return {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": OLD}, "spec": spec}


@pytest.fixture(scope="module")
def upgraded(cluster: "EmbeddedCluster", running_type: "type[Running]", tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Running]":
    """A controller of this version, started for the first time where one of the version before had applied its policies."""
    controller = running_type(cluster, tmp_path_factory.mktemp("upgraded"))
    try:
        controller.install()
        anchor = controller.admin.get(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{controller.settings.anchor}")
        for obj in of_the_version_before():
            controller.admin.apply(f"{POLICIES}/{obj['metadata']['name']}", owned(obj, anchor), manager="mlwarden")
        patch = [{"op": "replace", "path": "/spec/profiles", "value": {"experiment": "Warn"}}]
        controller.admin.patch(f"{POLICIES}/{EDITED}", patch, content_type="application/json-patch+json", fieldManager="kubectl-edit")
        own = as_object(msgspec.structs.replace(policy.shipped()[0], name="of-our-own", pack=""))
        controller.admin.apply(f"{POLICIES}/of-our-own", {**own, "metadata": {"name": "of-our-own"}}, manager="kubectl")
        controller.admin.apply(f"{ADMISSION}/validatingadmissionpolicies/{OLD}", old_webhook("ValidatingAdmissionPolicy"))
        controller.admin.apply(f"{ADMISSION}/validatingadmissionpolicybindings/{OLD}", old_webhook("ValidatingAdmissionPolicyBinding"))
        controller.start()
        yield controller
    finally:
        for plural in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
            with contextlib.suppress(ApiError):
                controller.admin.delete(f"{ADMISSION}/{plural}/{OLD}")
        controller.close()


@pytest.fixture(scope="module")
def space(upgraded: "Running") -> str:
    return upgraded.held.namespace()


def stored(running: "Running", name: str) -> dict[str, Any]:
    found: dict[str, Any] = running.admin.get(f"{POLICIES}/{name}")
    return found


def condition(running: "Running", name: str) -> dict[str, Any]:
    def find() -> dict[str, Any] | None:
        conditions = (stored(running, name).get("status") or {}).get("conditions") or ()
        return next((each for each in conditions if each["type"] == "Accepted"), None)

    found: dict[str, Any] = running.held.until(find)
    return found


def opens(pod: dict[str, Any], port: int) -> dict[str, Any]:
    pod["spec"]["containers"][0]["ports"] = [{"containerPort": port, "hostPort": port}]
    return pod


def refused(running: "Running", space: str, pod: dict[str, Any]) -> str:
    """Why the API server, which no webhook helps here, refuses the pod; empty where it does not."""
    try:
        running.held.create(space, {**pod, "metadata": {"name": f"p-{secrets.token_hex(3)}"}}, dryRun="All")
    except ApiError as error:
        return error.message
    return ""


def settled(running: "Running", *names: str) -> None:
    """The bindings of these policies are as they will be: the API server acts by them a moment later."""
    for name in names:
        running.held.until(lambda name=name: f"mlwarden-policy-{name}" in bindings(running))


def bindings(running: "Running") -> dict[str, set[str]]:
    """Compiled policy → what it does anywhere."""
    found: dict[str, set[str]] = {}
    for obj in running.admin.get(BINDINGS)["items"]:
        found.setdefault(obj["spec"]["policyName"], set()).update(obj["spec"]["validationActions"])
    return found


class TestUpgraded:
    """One story, in this order."""

    def test_a_policy_that_the_version_before_cannot_read_waits_for_its_end_and_holds_nothing_else_up(
        self, upgraded: "Running", space: str, good_pod: Any
    ) -> None:
        upgraded.held.until(lambda: _named(upgraded.admin.get(POLICIES)["items"], NEW), seconds=60)
        assert stored(upgraded, NEW)["spec"]["requirement"] == {"expression": {"expression": "true"}}
        upgraded.held.until(lambda: "mlwarden-identity" in bindings(upgraded))
        settled(upgraded, STRICTER, STRICTER + NEXT)
        assert refused(upgraded, space, good_pod("p", hostPID=True)) == ""
        assert "not everything" in upgraded.probe()
        for plural in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
            upgraded.admin.delete(f"{ADMISSION}/{plural}/{OLD}")
        upgraded.await_ready()
        assert "hostPID" in json.dumps(stored(upgraded, NEW)["spec"])

    def test_what_ran_before_is_admitted_and_what_was_refused_is_refused(self, upgraded: "Running", space: str, good_pod: Any) -> None:
        settled(upgraded, STRICTER, STRICTER + NEXT, NEW)
        upgraded.held.until(lambda: "host-ports" in refused(upgraded, space, opens(good_pod("p"), 9090)))
        assert refused(upgraded, space, opens(good_pod("p"), 8080)) == ""
        assert refused(upgraded, space, good_pod("p", hostPID=True)) == ""

    def test_in_the_api_server_what_is_new_or_stricter_denies_nothing(self, upgraded: "Running") -> None:
        found = bindings(upgraded)
        assert found[f"mlwarden-policy-{STRICTER}"] == {"Deny", "Audit"}
        assert found[f"mlwarden-policy-{STRICTER}{NEXT}"] == {"Audit"}
        assert found[f"mlwarden-policy-{NEW}"] == {"Audit"}
        assert f"mlwarden-policy-{EDITED}{NEXT}" not in found

    def test_the_policies_say_so_themselves(self, upgraded: "Running") -> None:
        assert stored(upgraded, NEW)["metadata"]["annotations"] == {WAITS: __version__}
        assert stored(upgraded, STRICTER)["metadata"]["annotations"] == {KEPT: __version__}
        assert (condition(upgraded, NEW)["status"], condition(upgraded, NEW)["reason"]) == ("False", "Waits")
        assert f"packs.accept is {__version__}" in condition(upgraded, STRICTER + NEXT)["message"]
        assert condition(upgraded, STRICTER)["reason"] == "AsBefore"

    def test_what_the_administrator_wrote_or_edited_is_left_alone(self, upgraded: "Running") -> None:
        assert stored(upgraded, EDITED)["spec"]["profiles"] == {"experiment": "Warn"}
        assert not stored(upgraded, "of-our-own")["metadata"].get("annotations")
        assert "Deny" in stored(upgraded, "of-our-own")["spec"]["profiles"].values()

    def test_another_start_and_a_lost_record_accept_nothing(self, upgraded: "Running") -> None:
        upgraded.stop()
        upgraded.admin.delete(f"/api/v1/namespaces/{upgraded.settings.namespace}/secrets/mlwarden-accepted")
        upgraded.start()
        upgraded.await_ready()
        assert stored(upgraded, NEW)["metadata"]["annotations"] == {WAITS: __version__}
        assert "8080" in json.dumps(stored(upgraded, STRICTER)["spec"])
        assert stored(upgraded, STRICTER + NEXT)["metadata"]["annotations"] == {WAITS: __version__}

    def test_a_policy_that_somebody_deletes_comes_back_as_it_was_in_force(self, upgraded: "Running") -> None:
        upgraded.admin.delete(f"{POLICIES}/{STRICTER}")
        again = upgraded.held.until(lambda: (found := upgraded.admin.get(POLICIES)["items"]) and _named(found, STRICTER))
        assert "8080" in json.dumps(again["spec"])

    def test_nobody_else_writes_what_was_accepted(self, upgraded: "Running") -> None:
        path = f"/api/v1/namespaces/{upgraded.settings.namespace}/secrets/mlwarden-accepted"
        upgraded.cluster.grant("alice", "admin", upgraded.settings.namespace)
        upgraded.held.await_right("alice", verb="patch", resource="secrets", namespace=upgraded.settings.namespace)
        with pytest.raises(ApiError, match=r"profiles\.mlwarden\.io"):
            upgraded.cluster.api("alice").patch(path, {"data": {"record.json": "e30="}})

    def test_accepted_it_is_all_enforced_and_nothing_waits(self, upgraded: "Running", space: str, good_pod: Any) -> None:
        upgraded.stop()
        settings = msgspec.structs.replace(upgraded.settings, packs_accept=__version__)
        (upgraded.directory / "settings.yaml").write_text(json.dumps(msgspec.to_builtins(settings)))
        upgraded.start()
        upgraded.await_ready()
        upgraded.held.until(lambda: "host-ports" in refused(upgraded, space, opens(good_pod("p"), 8080)))
        upgraded.held.until(lambda: NEW in refused(upgraded, space, good_pod("p", hostPID=True)))
        upgraded.held.until(lambda: not _named(upgraded.admin.get(POLICIES)["items"], STRICTER + NEXT))
        assert not stored(upgraded, STRICTER)["metadata"].get("annotations")
        assert stored(upgraded, EDITED)["spec"]["profiles"] == {"experiment": "Warn"}
        upgraded.held.until(lambda: condition(upgraded, NEW)["reason"] == "Current")


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    return next((each for each in items if each["metadata"]["name"] == name), None)
