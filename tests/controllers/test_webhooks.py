"""Which requests the API server sends to the webhook, and what becomes of them where nobody answers."""

import itertools
import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.controllers.webhooks import webhook_configurations
from mlwarden.embedded.api import STRATEGIC_PATCH, ApiError
from mlwarden.embedded.processes import free_port
from mlwarden.model.policy import Settings

if TYPE_CHECKING:
    from .conftest import FailHeld  # type: ignore[import-not-found]
    from .hostile import HostileWebhook  # type: ignore[import-not-found]

KINDS = [("", "pods"), ("apps", "deployments"), ("apps", "replicasets"), ("batch", "jobs"), ("ray.io", "rayclusters")]
DIGEST = "registry.example/debug:1@sha256:" + "a" * 64


def webhooks(settings: Settings, *, gate: bool = False) -> dict[str, dict[str, Any]]:
    found = webhook_configurations(settings, b"PEM", kinds=KINDS, gate=gate)
    return {f"{configuration['kind'][:1]}:{webhook['name']}": webhook for configuration in found for webhook in configuration["webhooks"]}


def a_pod(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": f"a:1@sha256:{'c' * 64}"}], **spec},
    }


class TestWhatFailsClosed:
    def test_is_what_cannot_be_held_and_nothing_else(self) -> None:
        found = webhooks(Settings())
        closed = {name for name, webhook in found.items() if webhook["failurePolicy"] == "Fail"}
        assert closed == {"M:ephemeral.mlwarden.io", "V:ephemeral.mlwarden.io", "V:node.mlwarden.io"}
        for name in closed:
            assert {"key": "mlwarden.io/profile", "operator": "Exists"} in found[name]["namespaceSelector"]["matchExpressions"]

    def test_includes_the_gate_where_the_api_server_cannot_add_it(self) -> None:
        gate = webhooks(Settings(), gate=True)["M:gate.mlwarden.io"]
        assert gate["failurePolicy"] == "Fail"
        assert gate["reinvocationPolicy"] == "IfNeeded"
        assert gate["clientConfig"]["service"]["path"] == "/gate"

    def test_is_nothing_while_the_rollout_is_an_audit(self) -> None:
        found = webhooks(Settings(rollout="audit"), gate=True)
        assert {webhook["failurePolicy"] for webhook in found.values()} == {"Ignore"}

    def test_never_reaches_an_exempt_namespace(self) -> None:
        for default, gate in itertools.product(("baseline", "production"), (True, False)):
            for name, webhook in webhooks(Settings(default_profile=default), gate=gate).items():
                if name in {"M:gate-probe.mlwarden.io", "V:policies.mlwarden.io"}:  # one label of one namespace; nothing of a namespace
                    continue
                exempt = next(e for e in webhook["namespaceSelector"]["matchExpressions"] if e["key"] == "kubernetes.io/metadata.name")
                assert exempt["operator"] == "NotIn"
                assert set(exempt["values"]) == set(Settings().never_governed)

    def test_reaches_unlabelled_namespaces_where_the_default_holds(self) -> None:
        node = webhooks(Settings(default_profile="production"))["V:node.mlwarden.io"]
        keys = [(e["key"], e["operator"]) for e in node["namespaceSelector"]["matchExpressions"]]
        assert ("mlwarden.io/profile", "Exists") not in keys
        assert ("mlwarden.io/profile", "NotIn") in keys


class TestTheAddress:
    def test_is_the_service(self) -> None:
        config = webhooks(Settings())["M:workloads.mlwarden.io"]["clientConfig"]
        assert config["service"] == {"name": "mlwarden-webhook", "namespace": "mlwarden-system", "path": "/mutate", "port": 443}

    def test_or_the_url_that_the_settings_name(self) -> None:
        config = webhooks(Settings(webhook_url="https://127.0.0.1:9443/"))["V:node.mlwarden.io"]["clientConfig"]
        assert config["url"] == "https://127.0.0.1:9443/validate"
        assert "service" not in config


def refused(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(ApiError) as caught:
        call()
    assert text in caught.value.message


def apply(held: "FailHeld", settings: Settings, bundle: bytes, **options: Any) -> list[str]:
    paths = []
    for configuration in webhook_configurations(settings, bundle, kinds=KINDS, **options):
        paths.append(held.admission_path(configuration))
        held.admin.apply(paths[-1], configuration, manager="mlwarden")
    return paths


@pytest.mark.cluster
class TestDuringAnOutage:
    """Nobody listens at the webhook's address."""

    @pytest.fixture(scope="class")
    @classmethod
    def outage(cls, held: "FailHeld") -> Iterator["FailHeld"]:
        settings = Settings(
            namespace=held.settings.namespace,
            exempt_namespaces=held.settings.exempt_namespaces,
            webhook_url=f"https://127.0.0.1:{free_port()}",
        )
        paths = apply(held, settings, held.cluster.pki.ca.read_bytes())
        namespace = held.namespace()

        def refuses() -> bool:
            try:
                held.create(namespace, a_pod("x", nodeName="node-0"), dryRun="All")
            except ApiError as error:
                return "node.mlwarden.io" in error.message
            return False

        held.until(refuses)
        yield held
        for path in paths:
            held.admin.delete(path)
        held.until(lambda: not refuses())

    @pytest.mark.parametrize("profile", ["", "baseline", "experiment", "production"])
    def test_every_pod_is_created_and_held_where_pods_are_held(self, outage: "FailHeld", profile: str) -> None:
        namespace = outage.namespace(profile)
        created = outage.create(namespace, a_pod("p"))
        assert bool(created["spec"].get("schedulingGates")) == (profile in {"experiment", "production"})

    def test_a_pod_that_names_its_node_is_refused_where_pods_are_held(self, outage: "FailHeld") -> None:
        refused(lambda: outage.create(outage.namespace(), a_pod("p", nodeName="node-0")), "node.mlwarden.io")
        outage.create(outage.namespace("baseline"), a_pod("p", nodeName="node-0"))
        outage.create("kube-system", a_pod(f"p-{secrets.token_hex(3)}", nodeName="node-0"), user=outage.admin)

    def test_a_mirror_pod_of_a_kubelet_is_not(self, outage: "FailHeld") -> None:
        node = outage.cluster.api("kubelet").get("/api/v1/nodes/mlwarden-host") if _has_host(outage) else None
        uid = (
            node["metadata"]["uid"]
            if node
            else outage.admin.create("/api/v1/nodes", {"metadata": {"name": "mlwarden-host"}})["metadata"]["uid"]
        )
        body = a_pod("static-mlwarden-host", nodeName="mlwarden-host")
        owner = {"apiVersion": "v1", "kind": "Node", "name": "mlwarden-host", "uid": uid, "controller": True}
        body["metadata"] |= {"annotations": {"kubernetes.io/config.mirror": "abc"}, "ownerReferences": [owner]}
        namespace = outage.namespace()
        try:
            outage.create(namespace, body, user=outage.cluster.api("kubelet"))
            refused(lambda: outage.create(namespace, {**body, "metadata": {**body["metadata"], "name": "fake"}}), "node.mlwarden.io")
        finally:
            if node is None:
                outage.admin.delete("/api/v1/nodes/mlwarden-host")

    def test_an_ephemeral_container_is_refused_where_pods_are_held(self, outage: "FailHeld") -> None:
        for profile, answers in (("experiment", False), ("baseline", True)):
            namespace = outage.namespace(profile)
            outage.create(namespace, a_pod("p"))
            if profile == "experiment":
                outage.release(namespace, "p")
            patch = {"spec": {"ephemeralContainers": [{"name": "debug", "image": DIGEST}]}}
            path = f"/api/v1/namespaces/{namespace}/pods/p/ephemeralcontainers"
            if answers:
                outage.admin.patch(path, patch, content_type=STRATEGIC_PATCH)
            else:
                refused(
                    lambda path=path, patch=patch: outage.admin.patch(path, patch, content_type=STRATEGIC_PATCH), "ephemeral.mlwarden.io"
                )

    def test_workloads_are_created_and_scaled(self, outage: "FailHeld") -> None:
        namespace = outage.namespace()
        template = {"metadata": {"labels": {"a": "b"}}, "spec": a_pod("x")["spec"]}
        spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        outage.alice.create(path, {"metadata": {"name": "w"}, "spec": spec})
        outage.alice.patch(f"{path}/w", {"spec": {"replicas": 3}})
        assert len(outage.until(lambda: len(pods := outage.pods(namespace)) == 3 and pods)) == 3


@pytest.mark.cluster
class TestWhatIsAsked:
    @pytest.fixture
    def asked(self, held: "FailHeld", hostile: "Callable[[str], HostileWebhook]") -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """A holding namespace, and the requests that the webhook got for it."""
        namespace = held.namespace()
        webhook = hostile(namespace)
        settings = Settings(namespace=held.settings.namespace, webhook_url=webhook.url.removesuffix("/mutate"))
        held.admin.delete(f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/hostile-{namespace}")
        paths = apply(held, settings, webhook.authority.encode())

        def only_ours() -> bool:
            webhook.reviews.clear()
            held.create(namespace, a_pod("probe", nodeName="node-0"), dryRun="All")
            return len(webhook.reviews) == 2

        held.until(only_ours)
        webhook.reviews.clear()
        yield namespace, webhook.reviews
        for path in paths:
            held.admin.delete(path)
        held.admin.apply(
            f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/hostile-{namespace}", webhook.configuration(namespace)
        )

    def test_is_what_changes_something_to_judge(self, held: "FailHeld", asked: tuple[str, list[dict[str, Any]]]) -> None:
        namespace, reviews = asked
        path = f"/api/v1/namespaces/{namespace}/pods"
        held.create(namespace, a_pod("p"))
        assert [review["request"]["operation"] for review in reviews] == ["CREATE"]
        reviews.clear()
        held.alice.patch(f"{path}/p", {"metadata": {"labels": {"a": "b"}, "finalizers": ["example.com/x"]}})
        held.admin.patch(f"{path}/p/status", {"status": {"message": "x"}})
        held.release(namespace, "p")
        held.alice.patch(f"{path}/p", {"metadata": {"finalizers": None}})
        assert reviews == []
        held.alice.patch(f"{path}/p", {"metadata": {"annotations": {"a": "b"}}})
        assert {review["request"]["operation"] for review in reviews} == {"UPDATE"}  # once more where the API server met a conflict

    def test_is_the_person_and_not_the_controllers_after_them(self, held: "FailHeld", asked: tuple[str, list[dict[str, Any]]]) -> None:
        namespace, reviews = asked
        template = {"metadata": {"labels": {"a": "b"}}, "spec": a_pod("x")["spec"]}
        spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
        held.alice.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", {"metadata": {"name": "w"}, "spec": spec})
        held.until(lambda: held.pods(namespace))
        assert [review["request"]["resource"]["resource"] for review in reviews] == ["deployments", "pods"]


def _has_host(held: "FailHeld") -> bool:
    return any(node["metadata"]["name"] == "mlwarden-host" for node in held.admin.get("/api/v1/nodes")["items"])
