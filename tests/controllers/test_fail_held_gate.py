"""Every way to start a pod unjudged that was ever tried on a real server, tried again: it is held, and stays so."""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.controllers.gate import BREAK_GLASS, JUDGED
from mlwarden.embedded.api import ApiError
from mlwarden.workloads import is_gated

if TYPE_CHECKING:
    from .conftest import FailHeld  # type: ignore[import-not-found]
    from .hostile import HostileWebhook  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster

GATE = {"name": "mlwarden.io/evidence"}
DIGEST = "@sha256:" + "a" * 64


@pytest.fixture(scope="module")
def home(held: "FailHeld") -> str:
    """A holding namespace that the tests of this file share; each uses its own names."""
    return held.namespace()


@pytest.fixture(scope="module")
def path(held: "FailHeld", home: str) -> str:
    """The path of a held pod that everybody tries to free. lead is admin of the namespace."""
    held.create(home, a_pod("target"))
    held.cluster.grant("lead", "admin", home)
    held.await_right("lead", verb="delete", resource="pods", namespace=home)
    return f"/api/v1/namespaces/{home}/pods/target"


def refused(call: Callable[[], Any], *texts: str, code: int = 403) -> str:
    with pytest.raises(ApiError) as caught:
        call()
    assert caught.value.code == code, caught.value.message
    for text in texts:
        assert text in caught.value.message
    return caught.value.message


def a_pod(name: str, **changes: Any) -> dict[str, Any]:
    metadata = {"name": name, **changes.pop("metadata", {})}
    containers = [{"name": "main", "image": "registry.example/app:1"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **changes}}


class TestEveryPodIsHeld:
    @pytest.mark.parametrize(
        ("name", "gates"),
        [
            ("plain", None),
            ("empty", []),
            ("null", "null"),
            ("declared", [GATE]),
            ("other", [{"name": "example.com/other"}]),
            ("both", [{"name": "example.com/other"}, GATE]),
            ("renamed", [{"name": "mlwarden.io/evidence2"}]),
            ("case", [{"name": "mlwarden.io/Evidence"}]),
        ],
    )
    def test_whatever_gates_it_brings(self, held: "FailHeld", home: str, name: str, gates: Any) -> None:
        spec = {} if gates is None else {"schedulingGates": None if gates == "null" else gates}
        created = held.create(home, a_pod(f"gates-{name}", **spec))
        assert is_gated(created)
        others = [gate for gate in (gates if isinstance(gates, list) else []) if gate != GATE]
        assert all(gate in created["spec"]["schedulingGates"] for gate in others)

    def test_a_gate_named_twice_is_refused_by_the_api_server(self, held: "FailHeld", home: str) -> None:
        refused(lambda: held.create(home, a_pod("twice", schedulingGates=[GATE, GATE])), "Duplicate value", code=422)

    def test_by_generate_name_and_custom_scheduler(self, held: "FailHeld", home: str) -> None:
        body = a_pod("", metadata={"generateName": "generated-"}, schedulerName="my-own")
        del body["metadata"]["name"]
        assert is_gated(held.create(home, body))

    def test_by_server_side_apply(self, held: "FailHeld", home: str) -> None:
        assert is_gated(held.alice.apply(f"/api/v1/namespaces/{home}/pods/applied", a_pod("applied")))

    def test_by_a_list(self, held: "FailHeld", home: str) -> None:
        import json

        items = {"apiVersion": "v1", "kind": "List", "items": [a_pod("listed-0"), a_pod("listed-1")]}
        held.cluster.kubectl("create", "-n", home, "-f", "-", user="alice", input=json.dumps(items))
        listed = [pod for pod in held.pods(home) if pod["metadata"]["name"].startswith("listed-")]
        assert len(listed) == 2
        assert all(map(is_gated, listed))

    @pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicationController", "CronJob"])
    def test_made_by_a_controller(self, held: "FailHeld", kind: str) -> None:
        namespace = held.namespace()
        group, plural, spec = _workload(kind)
        held.alice.create(f"/{group}/namespaces/{namespace}/{plural}", {"kind": kind, "metadata": {"name": "w"}, "spec": spec})
        if kind == "CronJob":  # its Job now, not in a minute
            held.cluster.kubectl("create", "job", "w-now", "--from=cronjob/w", "-n", namespace, user="alice")
        pods = held.until(lambda: held.pods(namespace))
        assert all(map(is_gated, pods))

    def test_in_a_namespace_labelled_a_moment_ago(self, held: "FailHeld") -> None:
        namespace = held.namespace(profile="")
        assert not is_gated(held.create(namespace, a_pod("before")))
        held.admin.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {"mlwarden.io/profile": "production"}}})
        # Admission reads namespaces from a copy: on a busy machine a moment behind. Who came within that moment is reported as from before.
        held.until(lambda: is_gated(held.create(namespace, a_pod("probe"), dryRun="All")))
        assert all(is_gated(held.create(namespace, a_pod(f"after-{i}"))) for i in range(20))

    def test_whose_profile_nobody_knows(self, held: "FailHeld") -> None:
        """A label that was right once: its profile has been removed from the settings."""
        namespace = held.namespace(profile="")
        name = "mlwarden-namespaces"
        path = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/{name}"
        binding = held.admin.get(path)
        held.admin.delete(path)
        try:

            def labelled() -> bool:
                try:
                    held.admin.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {"mlwarden.io/profile": "gone"}}})
                except ApiError:
                    return False
                return True

            held.until(labelled)
        finally:
            binding["metadata"] = {"name": name}
            held.admin.create(path.rpartition("/")[0], binding)
        assert is_gated(held.create(namespace, a_pod("p")))

    def test_2000_of_them_at_once_and_none_is_bound(self, held: "FailHeld") -> None:
        namespace = held.namespace()
        with ThreadPoolExecutor(8) as threads:
            created = [
                pod for batch in threads.map(lambda part: held.create_many(namespace, range(part, 2000, 8)), range(8)) for pod in batch
            ]
        assert len(created) == 2000
        assert all(map(is_gated, created))
        assert not [pod for pod in held.pods(namespace) if pod["spec"].get("nodeName")]

    def test_not_in_a_namespace_that_does_not_hold(self, held: "FailHeld") -> None:
        for namespace in (held.namespace(profile=""), held.namespace(profile="baseline"), "kube-system", held.settings.namespace):
            assert not is_gated(held.create(namespace, a_pod("free"), user=held.admin, dryRun="All"))


class TestNobodyElseTakesTheGateOff:
    @pytest.mark.parametrize("user", ["alice", "lead", "admin"])
    @pytest.mark.parametrize("how", ["json", "merge", "strategic", "put", "renamed", "replaced"])
    def test_by_any_verb(self, held: "FailHeld", path: str, user: str, how: str) -> None:
        api = held.cluster.api(user)
        refused(lambda: _ungate(api, path, how), code=422 if how in {"renamed", "replaced"} else 403)
        assert is_gated(held.admin.get(path))

    def test_by_the_syncer_of_a_vcluster_which_is_told_what_happens(self, held: "FailHeld", home: str) -> None:
        held.create(home, a_pod("synced", metadata={"annotations": {"vcluster.loft.sh/object-name": "p"}}))
        path = f"/api/v1/namespaces/{home}/pods/synced"
        said = refused(lambda: held.alice.patch(path, {"spec": {"schedulingGates": None}}), "only mlwarden releases a held pod")
        assert "vCluster writes its own scheduling gates over those of the host" in said
        assert is_gated(held.admin.get(path))

    @pytest.mark.parametrize("second", ["other-manager", "same-manager"])
    def test_by_owning_it_and_dropping_it(self, held: "FailHeld", home: str, second: str) -> None:
        body = a_pod(f"owned-{second}")
        path = f"/api/v1/namespaces/{home}/pods/owned-{second}"
        held.alice.apply(path, {**body, "spec": {**body["spec"], "schedulingGates": [GATE]}}, manager="thief")
        if second == "same-manager":
            refused(lambda: held.alice.apply(path, body, manager="thief"), "only mlwarden releases")
        else:  # takes nothing that the first still owns
            held.alice.apply(path, body, manager="accomplice")
        assert is_gated(held.admin.get(path))

    def test_through_status_or_resize(self, held: "FailHeld", path: str) -> None:
        body = held.admin.get(path)
        body["spec"].pop("schedulingGates")
        for subresource in ("status", "resize"):  # accepted or not: what counts is what is stored
            with contextlib.suppress(ApiError):
                held.admin.request("PUT", f"{path}/{subresource}", body)
            assert is_gated(held.admin.get(path))

    def test_by_the_same_account_name_elsewhere(self, held: "FailHeld", home: str) -> None:
        from mlwarden.embedded.api import Api

        other = held.namespace(profile="")
        name = held.settings.releaser
        held.admin.create(f"/api/v1/namespaces/{other}/serviceaccounts", {"metadata": {"name": name}})
        held.admin.create(f"/api/v1/namespaces/{other}/pods", a_pod("mlwarden-releaser-0", serviceAccountName=name))
        request = {"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "mlwarden-releaser-0"}}}
        token = held.admin.create(f"/api/v1/namespaces/{other}/serviceaccounts/{name}/token", request)["status"]["token"]
        held.bind_account(name, other, "cluster-admin")
        thief = Api(server=held.cluster.server, ca=str(held.cluster.pki.ca), token=token)
        held.create(home, a_pod("same-name"))
        # cluster-admin may break the glass, but only by saying why
        refused(lambda: held.release(home, "same-name", user=thief), "only mlwarden releases")
        thief.close()
        held.admin.delete(f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{other}-{name}")

    def test_by_impersonating_the_releaser(self, held: "FailHeld", home: str) -> None:
        """`edit` includes `impersonate` on the service accounts of its namespace; the pod in the token is what it cannot bring."""
        own = held.settings.namespace
        held.cluster.grant("gitops", "edit", own)
        held.create(home, a_pod("impersonated"))
        answer = held.cluster.kubectl(
            *("patch", "pod", "impersonated", "-n", home, f"--as=system:serviceaccount:{own}:{held.settings.releaser}"),
            *("--type=json", "-p", '[{"op":"remove","path":"/spec/schedulingGates"}]'),
            user="gitops",
            check=False,
        )
        assert "only mlwarden releases a held pod" in answer
        answer = held.cluster.kubectl(
            *("patch", "pod", "impersonated", "-n", home, f"--as=system:serviceaccount:{own}:{held.settings.releaser}"),
            *("--as-user-extra=authentication.kubernetes.io/pod-name=x",),
            *("--type=json", "-p", '[{"op":"remove","path":"/spec/schedulingGates"}]'),
            user="gitops",
            check=False,
        )
        assert "cannot impersonate" in answer
        assert is_gated(held.admin.get(f"/api/v1/namespaces/{home}/pods/impersonated"))

    def test_by_binding_it_to_a_node(self, held: "FailHeld", path: str, home: str) -> None:
        binding = {"metadata": {"name": "target"}, "target": {"apiVersion": "v1", "kind": "Node", "name": "node-0"}}
        message = refused(lambda: held.admin.create(f"{path}/binding", {"kind": "Binding", "apiVersion": "v1", **binding}), code=409)
        assert "schedulingGates" in message
        bindings = f"/api/v1/namespaces/{home}/bindings"
        refused(lambda: held.admin.create(bindings, {"kind": "Binding", "apiVersion": "v1", **binding}), code=409)

    def test_by_naming_a_node_later(self, held: "FailHeld", path: str) -> None:
        refused(lambda: held.admin.patch(path, {"spec": {"nodeName": "node-0"}}), code=422)

    def test_by_eviction_which_only_deletes(self, held: "FailHeld", home: str) -> None:
        held.create(home, a_pod("evicted"))
        path = f"/api/v1/namespaces/{home}/pods/evicted"
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted"}}
        held.admin.create(f"{path}/eviction", body)
        assert all(is_gated(pod) for pod in held.pods(home) if pod["metadata"]["name"] == "evicted")

    def test_while_what_cannot_run_code_may_change(self, held: "FailHeld", path: str) -> None:
        held.alice.patch(path, {"spec": {"nodeSelector": {"disk": "ssd"}, "activeDeadlineSeconds": 60}})
        refused(
            lambda: held.alice.patch(
                path, [{"op": "add", "path": "/spec/containers/0/command", "value": ["sh"]}], content_type="application/json-patch+json"
            ),
            code=422,
        )


class TestNothingIsReleasedInsideCreate:
    def test_a_webhook_that_strips_the_gate_gets_the_pod_refused(
        self, held: "FailHeld", hostile: "Callable[[str], HostileWebhook]"
    ) -> None:
        namespace = held.namespace()
        webhook = hostile(namespace)
        webhook.patch = [{"op": "remove", "path": "/spec/schedulingGates"}]
        refused(lambda: held.create(namespace, a_pod("stripped")), "something took mlwarden's gate off")
        assert held.pods(namespace) == []

    def test_a_mutating_policy_that_strips_the_gate_gets_the_pod_refused(self, held: "FailHeld") -> None:
        namespace = held.namespace()
        expression = 'has(object.spec.schedulingGates) ? [JSONPatch{op: "remove", path: "/spec/schedulingGates"}] : []'
        policy = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": "z-strips"},
            "spec": {
                "matchConstraints": {
                    "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                },
                "failurePolicy": "Fail",
                "reinvocationPolicy": "IfNeeded",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
            },
        }
        binding = {
            "apiVersion": policy["apiVersion"],
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": "z-strips"},
            "spec": {"policyName": "z-strips"},
        }

        def stripped() -> bool:
            try:
                created = held.create(namespace, a_pod("stripped"), dryRun="All")
            except ApiError as error:
                return "something took mlwarden's gate off" in error.message
            assert is_gated(created)
            return False

        for obj in (policy, binding):
            held.admin.apply(held.admission_path(obj), obj)
        try:
            held.until(stripped)
        finally:
            for obj in (policy, binding):
                held.admin.delete(held.admission_path(obj))

    def test_a_webhook_that_rewrites_the_image_changes_what_is_stored_and_judged(
        self, held: "FailHeld", hostile: "Callable[[str], HostileWebhook]"
    ) -> None:
        namespace = held.namespace()
        webhook = hostile(namespace)
        webhook.patch = [{"op": "replace", "path": "/spec/containers/0/image", "value": "evil.example/x:1"}]
        created = held.create(namespace, a_pod("rewritten"))
        assert is_gated(created)
        assert created["spec"]["containers"][0]["image"] == "evil.example/x:1"

    def test_a_webhook_cannot_name_the_node_of_a_gated_pod(self, held: "FailHeld", hostile: "Callable[[str], HostileWebhook]") -> None:
        namespace = held.namespace()
        webhook = hostile(namespace)
        webhook.patch = [{"op": "add", "path": "/spec/nodeName", "value": "node-0"}]
        refused(lambda: held.create(namespace, a_pod("placed")), "schedulingGates", code=422)

    def test_a_webhook_cannot_bring_the_seal(self, held: "FailHeld", hostile: "Callable[[str], HostileWebhook]") -> None:
        namespace = held.namespace()
        webhook = hostile(namespace)
        webhook.patch = [{"op": "add", "path": "/metadata/annotations", "value": {JUDGED: "forged"}}]
        refused(lambda: held.create(namespace, a_pod("sealed")), JUDGED)


class TestTheImagesOfAJudgedPodDoNotChange:
    @pytest.mark.parametrize("state", ["running", "released", "other-gate"])
    @pytest.mark.parametrize("which", ["containers", "initContainers"])
    def test_not_even_by_an_administrator(self, held: "FailHeld", home: str, state: str, which: str) -> None:
        name = f"judged-{state}-{which}".lower()
        init = {"initContainers": [{"name": "init", "image": "registry.example/init:1"}]}
        more: dict[str, Any] = {
            "other-gate": {"schedulingGates": [{"name": "example.com/other"}]},
            "released": {"nodeSelector": {"no": ""}},
        }
        held.create(home, a_pod(name, **init, **more.get(state, {})))
        released = held.release(home, name)
        assert not is_gated(released)
        path = f"/api/v1/namespaces/{home}/pods/{name}"
        if state == "running":
            held.until(lambda: held.admin.get(path)["spec"].get("nodeName"))
        if state == "other-gate":
            assert released["spec"]["schedulingGates"] == [{"name": "example.com/other"}]
        patch = [{"op": "replace", "path": f"/spec/{which}/0/image", "value": "evil.example/x:1"}]
        for user in (held.alice, held.admin):
            refused(lambda user=user: user.patch(path, patch, content_type="application/json-patch+json"), "images of a judged pod")

    def test_in_the_release_itself_either_so_they_are_pinned_before(self, held: "FailHeld", home: str) -> None:
        held.create(home, a_pod("pinned"))
        path = f"/api/v1/namespaces/{home}/pods/pinned"
        pin = [{"op": "replace", "path": "/spec/containers/0/image", "value": f"registry.example/app:1{DIGEST}"}]
        off = [{"op": "remove", "path": "/spec/schedulingGates/0"}]
        refused(lambda: held.releaser.patch(path, pin + off, content_type="application/json-patch+json"), "images of a judged pod")
        assert is_gated(held.releaser.patch(path, pin, content_type="application/json-patch+json"))
        assert not is_gated(held.releaser.patch(path, off, content_type="application/json-patch+json"))

    def test_by_a_webhook_that_meets_the_release(self, held: "FailHeld", hostile: "Callable[[str], HostileWebhook]") -> None:
        namespace = held.namespace()
        webhook = hostile(namespace)
        held.create(namespace, a_pod("exchanged"))
        webhook.patch = [{"op": "replace", "path": "/spec/containers/0/image", "value": "evil.example/x:1"}]
        refused(lambda: held.release(namespace, "exchanged"), "images of a judged pod")
        (pod,) = [pod for pod in held.pods(namespace) if pod["metadata"]["name"] == "exchanged"]
        assert is_gated(pod)

    def test_and_a_change_while_it_is_held_makes_the_release_fail(self, held: "FailHeld", home: str) -> None:
        judged = held.create(home, a_pod("changed"))
        path = f"/api/v1/namespaces/{home}/pods/changed"
        change = [{"op": "replace", "path": "/spec/containers/0/image", "value": "evil.example/x:1"}]
        held.alice.patch(path, change, content_type="application/json-patch+json")
        release = {
            "metadata": {"resourceVersion": judged["metadata"]["resourceVersion"]},
            "spec": {"schedulingGates": [{"name": "mlwarden.io/evidence", "$patch": "delete"}]},
        }
        refused(lambda: held.releaser.patch(path, release, content_type="application/strategic-merge-patch+json"), code=409)
        assert is_gated(held.admin.get(path))

    def test_and_an_image_volume_cannot_even_be_pinned_later(self, held: "FailHeld", home: str) -> None:
        volumes = [{"name": "model", "image": {"reference": "registry.example/model:1"}}]
        held.create(home, a_pod("volume", volumes=volumes))
        path = f"/api/v1/namespaces/{home}/pods/volume"
        patch = [{"op": "replace", "path": "/spec/volumes/0/image/reference", "value": f"registry.example/model:1{DIGEST}"}]
        refused(lambda: held.releaser.patch(path, patch, content_type="application/json-patch+json"), code=422)


class TestBreakGlass:
    def test_somebody_with_the_verb_releases_by_saying_why_in_the_same_patch(self, held: "FailHeld", home: str) -> None:
        held.create(home, a_pod("glass"))
        path = f"/api/v1/namespaces/{home}/pods/glass"
        body = {"metadata": {"annotations": {BREAK_GLASS: "INC-42 scanner down"}}, "spec": {"schedulingGates": None}}
        assert not is_gated(held.admin.patch(path, body))

        def audited() -> list[str]:
            events = [event for event in held.cluster.audit_events() if event.get("objectRef", {}).get("namespace") == home]
            return [value for event in events for key, value in event.get("annotations", {}).items() if key.endswith("/break-glass")]

        assert held.until(audited) == [f"admin breaks the glass of {home}/glass: INC-42 scanner down"]

    def test_an_older_reason_does_not_count(self, held: "FailHeld", home: str) -> None:
        held.create(home, a_pod("stale-glass"))
        path = f"/api/v1/namespaces/{home}/pods/stale-glass"
        held.admin.patch(path, {"metadata": {"annotations": {BREAK_GLASS: "yesterday"}}})
        refused(lambda: held.admin.patch(path, {"spec": {"schedulingGates": None}}), "only mlwarden releases")

    def test_who_lacks_the_verb_can_neither_release_nor_leave_a_reason(self, held: "FailHeld", home: str) -> None:
        created = held.create(home, a_pod("no-verb", metadata={"annotations": {BREAK_GLASS: "please"}}))
        assert BREAK_GLASS not in created["metadata"].get("annotations", {})
        path = f"/api/v1/namespaces/{home}/pods/no-verb"
        reason = {"metadata": {"annotations": {BREAK_GLASS: "because"}}}
        refused(lambda: held.alice.patch(path, reason), "needs the verb release")
        refused(lambda: held.alice.patch(path, {**reason, "spec": {"schedulingGates": None}}), "only mlwarden releases")

    def test_the_image_stays_what_it_was(self, held: "FailHeld", home: str) -> None:
        held.create(home, a_pod("glass-image"))
        path = f"/api/v1/namespaces/{home}/pods/glass-image"
        body = {
            "metadata": {"annotations": {BREAK_GLASS: "INC-43"}},
            "spec": {"schedulingGates": None, "containers": [{"name": "main", "image": "evil.example/x:1"}]},
        }
        refused(lambda: held.admin.patch(path, body, content_type="application/strategic-merge-patch+json"), "images of a judged pod")


class TestTheSeal:
    def test_nobody_brings_one_or_writes_one(self, held: "FailHeld", home: str) -> None:
        created = held.create(home, a_pod("seal", metadata={"annotations": {JUDGED: "forged", "kept": "yes"}}))
        assert created["metadata"]["annotations"] == {"kept": "yes"}
        path = f"/api/v1/namespaces/{home}/pods/seal"
        forged = {"metadata": {"annotations": {JUDGED: "forged"}}}
        refused(lambda: held.admin.patch(path, forged), JUDGED)
        refused(lambda: held.admin.patch(f"{path}/status", forged), JUDGED)
        assert held.releaser.patch(path, forged)["metadata"]["annotations"][JUDGED] == "forged"


def _ungate(api: Any, path: str, how: str) -> None:
    match how:
        case "json":
            api.patch(path, [{"op": "remove", "path": "/spec/schedulingGates"}], content_type="application/json-patch+json")
        case "merge":
            api.patch(path, {"spec": {"schedulingGates": None}})
        case "strategic":
            body = {"spec": {"schedulingGates": [{"name": GATE["name"], "$patch": "delete"}]}}
            api.patch(path, body, content_type="application/strategic-merge-patch+json")
        case "put":
            body = api.get(path)
            body["spec"].pop("schedulingGates")
            api.request("PUT", path, body)
        case "renamed":
            api.patch(
                path,
                [{"op": "replace", "path": "/spec/schedulingGates/0/name", "value": "example.com/mine"}],
                content_type="application/json-patch+json",
            )
        case "replaced":
            api.patch(path, {"spec": {"schedulingGates": [{"name": "example.com/mine"}]}})


def _workload(kind: str) -> tuple[str, str, dict[str, Any]]:
    labels = {"app": "w"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "registry.example/app:1"}]}}
    selector = {"matchLabels": labels}
    once = {"metadata": {"labels": labels}, "spec": {**template["spec"], "restartPolicy": "Never"}}
    table: dict[str, tuple[str, str, dict[str, Any]]] = {
        "Deployment": ("apis/apps/v1", "deployments", {"replicas": 2, "selector": selector, "template": template}),
        "StatefulSet": ("apis/apps/v1", "statefulsets", {"serviceName": "w", "selector": selector, "template": template}),
        "DaemonSet": ("apis/apps/v1", "daemonsets", {"selector": selector, "template": template}),
        "Job": ("apis/batch/v1", "jobs", {"template": once}),
        "CronJob": ("apis/batch/v1", "cronjobs", {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": once}}}),
        "ReplicationController": ("api/v1", "replicationcontrollers", {"replicas": 1, "selector": labels, "template": template}),
    }
    return table[kind]
