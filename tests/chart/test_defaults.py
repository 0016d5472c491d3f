"""`helm install` with nothing but defaults: no client certificate, so the webhook cannot know who asks it."""

import copy
import http.client
import json
import ssl
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden import evidence
from mlwarden.embedded import images
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.door import USER, Door
from mlwarden.embedded.installed import NAMESPACE, Installation, install_ml_kinds

from ..admission.crowd import Crowd, bodies, while_they_wait  # type: ignore[import-not-found]  # noqa: TID252 -- the same crowd

if TYPE_CHECKING:
    from conftest import Installed
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.kubelet import HostKubelet

pytestmark = pytest.mark.cluster
EVIDENCE = "/apis/mlwarden.io/v1alpha1/imageevidences"
PASSWORD = "s3cret"
Attack = Callable[[str, str, str], None]


@pytest.fixture(scope="module")
def private(cluster: "EmbeddedCluster") -> "Iterator[str]":
    """The cluster's registry by a host that wants a password."""
    with Door(cluster.registry, password=PASSWORD) as door:
        yield door.host


@pytest.fixture(scope="module")
def plain(cluster: "EmbeddedCluster", kubelet: "HostKubelet", install_on: "type[Installed]", private: str) -> "Iterator[Installed]":
    """mlwarden, installed without `webhook.clientCA`; the scanner has the private registry's password."""
    found = install_on(cluster, kubelet)
    found.release = Installation(
        cluster, kubelet, webhook={"clientCA": ""}, scanner={"pullSecret": "pull", "plainHTTP": [cluster.registry, private]}
    )
    install_ml_kinds(cluster)
    found.push()
    try:
        cluster.create_namespace(NAMESPACE)
        auths = {private: {"username": USER, "password": PASSWORD}}
        secret = {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": json.dumps({"auths": auths})}}
        found.admin.create(f"/api/v1/namespaces/{NAMESPACE}/secrets", {"metadata": {"name": "pull"}, **secret})
        found.release.install()
        yield found
    finally:
        found.clean()


def ask(plain: "Installed", body: dict[str, Any], path: str = "/mutate", **changes: Any) -> dict[str, Any]:
    """Sends a review to the webhook as anybody can, and returns the response."""
    secret = plain.admin.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/mlwarden-webhook-tls")["data"]
    context = ssl.create_default_context(cadata=b64decode(secret["ca.crt"]).decode())
    context.check_hostname = False
    group, _, version = body["apiVersion"].rpartition("/")
    request = {
        "uid": "1-2-3",
        "kind": {"group": group, "version": version, "kind": body["kind"]},
        "resource": {"group": group, "version": version, "resource": f"{body['kind'].lower()}s"},
        "operation": "CREATE",
        "userInfo": {"username": "alice"},
        "object": body,
        **changes,
    }
    connection = http.client.HTTPSConnection("127.0.0.1", plain.kubelet.webhook_port, timeout=20, context=context)
    try:
        sent = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        connection.request("POST", path, json.dumps(sent).encode())
        return dict(json.loads(connection.getresponse().read())["response"])
    finally:
        connection.close()


def known(plain: "Installed", text: str) -> list[dict[str, Any]]:
    return [each for each in plain.admin.get(EVIDENCE)["items"] if any(text in one for one in each["spec"]["references"])]


@pytest.mark.parametrize("kind", ["Deployment", "Notebook", "CronJob"])
def test_evidence_is_there_before_the_first_pod(plain: "Installed", kind: str) -> None:
    namespace, name = plain.namespace(f"defaults-{kind.lower()}"), f"defaults-{kind.lower()}"
    digest = images.push_image(plain.cluster.registry, f"{name}:1.0", alpine={"musl": "1.2.5-r10"}, files={"kind": kind.encode()})
    pod = plain.pod("x", f"{name}:1.0")["spec"]
    template = {"metadata": {"labels": {"app": "w"}}, "spec": pod}
    job = {"spec": {"template": {**template, "spec": {**pod, "restartPolicy": "Never"}}}}
    api_version, spec = {
        "Deployment": ("apps/v1", {"replicas": 0, "selector": {"matchLabels": {"app": "w"}}, "template": template}),
        "Notebook": ("kubeflow.org/v1", {"template": template}),
        "CronJob": ("batch/v1", {"schedule": "0 0 1 1 *", "jobTemplate": job}),
    }[kind]
    body = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "w", "namespace": namespace}, "spec": spec}
    plain.cluster.kubectl("apply", "--filename", "-", user="alice", input=json.dumps(body))
    wanted = evidence.name_for(f"{plain.cluster.registry}/{name}@{digest}")
    plain.until(lambda: any(each["metadata"]["name"] == wanted and "scan" in each.get("status", {}) for each in known(plain, name)))
    assert plain.admin.get(f"/api/v1/namespaces/{namespace}/pods")["items"] == []


def test_a_person_who_is_refused_at_first_reads_why_on_the_pod_and_nobody_reads_it_from_the_webhook(
    plain: "Installed", private: str, attack: Attack
) -> None:
    own, other = plain.namespace("defaults-own"), plain.namespace("defaults-other")
    forged = plain.pod("x")
    forged["spec"]["containers"][0]["image"] = f"{private}/vulnerable:1.0"
    plain.create(own, {**forged, "metadata": {"name": "first"}})
    assert "CVE-2025-32434" in plain.said(own, "first", "CVE-")
    for namespace in (own, other):
        for dry in (False, True):
            answer = ask(plain, forged, namespace=namespace, dryRun=dry)
            told = json.dumps(answer)
            assert answer["allowed"] is False
            assert "was judged and refused; ask for mlwarden-evidence-reader" in answer["status"]["message"]
            assert "CVE-" not in told
    attack(
        "forged review, dry run included: what is in another team's private image",
        "CVE numbers, packages and versions",
        "it was judged and refused; the Events of a pod of one's own say why",
    )


def test_forged_reviews_make_no_events_and_ten_requests(plain: "Installed", attack: Attack) -> None:
    namespace = plain.namespace("defaults-forged")
    plain.create(namespace, plain.pod("victim"))
    plain.runs(namespace, "victim")
    stored = {**plain.get(namespace, "victim"), "apiVersion": "v1", "kind": "Pod"}
    changed = copy.deepcopy(stored)
    changed["spec"]["ephemeralContainers"] = [{"name": "x", "image": "busybox", "securityContext": {"privileged": True}}]
    update = {"operation": "UPDATE", "subResource": "ephemeralcontainers", "oldObject": stored, "name": "victim", "namespace": namespace}
    for path in ("/mutate", "/validate"):
        assert ask(plain, changed, path, **update)["allowed"] is False
    for number in range(100):
        ask(plain, plain.pod("x", f"forged-defaults-{number}:1", nodeName="node-0"), "/validate", namespace=namespace)
    replicas = 2
    plain.until(lambda: len(known(plain, "forged-defaults-")) >= 10)
    plain.create(namespace, plain.pod("honest", "clean:1.0"))
    plain.runs(namespace, "honest")
    made = len(known(plain, "forged-defaults-"))
    assert made <= 10 * replicas
    events = plain.admin.get(f"/api/v1/namespaces/{namespace}/events", fieldSelector="reason=DebugContainer")["items"]
    assert events == []
    attack("a hundred forged reviews, with the chart's defaults", "a hundred evidence objects, Events in a person's name", f"{made}, none")


def test_a_debug_container_is_scanned_added_and_told_of_by_who_sees_it_stored(plain: "Installed") -> None:
    namespace = plain.namespace("defaults-debug")
    plain.create(namespace, plain.pod("target"))
    plain.runs(namespace, "target")
    base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rules = [{"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["get", "patch", "update"]}]
    plain.admin.create(f"{base}/roles", {"metadata": {"name": "debug"}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "debug"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}
    plain.admin.create(f"{base}/rolebindings", {"metadata": {"name": "debug"}, "subjects": [subject], "roleRef": reference})
    images.clean(plain.cluster.registry, "debug/defaults:1")
    image = f"{plain.cluster.registry}/debug/defaults:1"
    command = ["debug", "target", "-n", namespace, f"--image={image}", "--profile=restricted", "--attach=false", "--target=main"]

    def added() -> list[dict[str, Any]]:
        plain.cluster.kubectl(*command, user="alice", check=False)
        return plain.get(namespace, "target")["spec"].get("ephemeralContainers", [])

    (container, *_) = plain.until(added)
    said = plain.said(namespace, "target", "a debug container was added: ")
    assert said.startswith(f"a debug container was added: image {container['image']}, target main, container {container['name']}")
    assert "alice" not in said


def test_bodies_that_do_not_end_have_nobody_refused(plain: "Installed", attack: Attack) -> None:
    spaces = plain.namespace("defaults-crowd"), plain.namespace("defaults-crowd-baseline", "")

    def create(number: int) -> str:
        body = plain.pod(f"p{number}")
        body["metadata"]["annotations"] = {"large": "x" * 200_000} if number % 4 > 1 else {}
        try:
            plain.create(spaces[number % 2], body, dryRun="All")
        except ApiError as error:
            return str(error.message)
        return ""

    for large in (True, False):
        with Crowd(plain.kubelet.webhook_port, 48, bodies(large=large)) as crowd:
            assert [answer for answer in while_they_wait(crowd, create, 36) if answer] == []
    attack("48 slow bodies, with the chart's defaults", "14 of 36 honest objects refused", "0 of 36, large bodies and small ones")
