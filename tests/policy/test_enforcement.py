"""The compiled policies at work on a real API server: what a person sees, and what always passes."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mlwarden import policy
from mlwarden.embedded.api import ApiError
from mlwarden.model.policy import GATE, Policy, Settings

pytestmark = pytest.mark.cluster

LABEL = "mlwarden-enforcement"
BASE = "/apis/admissionregistration.k8s.io/v1"
PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
SECONDS = 30
Build = Callable[[dict[str, Any]], dict[str, Any]]
Template = Callable[[dict[str, Any], str], dict[str, Any]]


def own(name: str, **spec: Any) -> Policy:
    manifest = {
        "apiVersion": "mlwarden.io/v1alpha1",
        "kind": "WardenPolicy",
        "metadata": {"name": name},
        "spec": {"profiles": {"*": "Deny"}, "message": f"{name}: {{name}}", "why": "w", "fix": {"text": "f"}, **spec},
    }
    found = policy.parse(manifest)
    policy.compile_policy(found)
    return found


OWN = [
    own(
        "conditional",
        match={
            "conditions": [
                {"name": "asked", "expression": "object.metadata.?annotations[?'asked'].orValue('') == namespaceObject.metadata.name"},
                {"name": "made", "expression": "request.operation == 'CREATE'"},
            ]
        },
        requirement={"expression": {"forEach": "pod", "expression": "object.spec.?priorityClassName.hasValue()"}},
    ),
    own(
        "roles",
        match={"objectSelector": {"matchLabels": {"roles": "yes"}}},
        requirement={
            "expression": {"forEach": "container", "expression": "role == 'initContainer' ? container.name.startsWith('i') : true"}
        },
    ),
    own(
        "few",
        requirement={"expression": {"forEach": "pod", "expression": "object.spec.?ephemeralContainers.orValue([]).size() < 2"}},
    ),
    own(
        "softer",
        injected="Warn",
        match={"objectSelector": {"matchLabels": {"softer": "yes"}}},
        requirement={"expression": {"forEach": "container", "expression": "container.?workingDir.hasValue()"}},
    ),
    own("shape", requirement={"expression": {"expression": "object.kind == 'Pod' && object.apiVersion == 'v1' && has(object.metadata)"}}),
    own(
        "objects",
        match={
            "resources": [{"apiGroups": [""], "resources": ["configmaps"]}],
            "namespaceSelector": {"matchLabels": {LABEL: "production"}},
        },
        requirement={"expression": {"forEach": "object", "expression": "!('password' in object.?data.orValue({}))"}},
    ),
]


@pytest.fixture(scope="module")
def api(cluster: Any, packs: tuple[Policy, ...]) -> Iterator[Any]:
    """Three labelled namespaces under the shipped policies and a few of our own, as an administrator has them."""
    found = cluster.api()
    objects = policy.admission_policies([*packs, *OWN], Settings(exempt_namespaces=("enforced-exempt",)))
    for obj in objects:
        if obj["kind"] == "ValidatingAdmissionPolicy":  # for these namespaces only: the cluster is shared
            obj["spec"]["matchConstraints"]["namespaceSelector"]["matchExpressions"].append({"key": LABEL, "operator": "Exists"})
    paths = [f"{BASE}/{PLURALS[obj['kind']]}/{obj['metadata']['name']}" for obj in objects]
    for path, obj in zip(paths, objects, strict=True):
        found.apply(path, obj)
    for name, profile in (("production", "production"), ("none", ""), ("exempt", "production"), ("mistyped", "prodution")):
        cluster.create_namespace(f"enforced-{name}", labels={LABEL: name, **({"mlwarden.io/profile": profile} if profile else {})})
    deadline = time.monotonic() + SECONDS
    probes = [{"containers": [{"name": "c", "image": "a:1"}]}, {"hostIPC": True, "containers": [{"name": "c", "image": "a:1"}]}]
    for namespace, probe in (("production", probes[0]), ("none", probes[1]), ("mistyped", probes[0])):
        while refused(found, pod(probe), f"enforced-{namespace}") == "":
            assert time.monotonic() < deadline
    secret = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"password": "b"}}
    while refused(found, secret, "enforced-production") == "":
        assert time.monotonic() < deadline
    yield found
    for path in reversed(paths):
        found.delete(path)
    for name in ("production", "none", "exempt", "mistyped"):
        found.delete(f"/api/v1/namespaces/enforced-{name}")


def pod(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": spec}


def collection(obj: dict[str, Any], namespace: str) -> str:
    root = "/api/v1" if "/" not in obj["apiVersion"] else f"/apis/{obj['apiVersion']}"
    return f"{root}/namespaces/{namespace}/{obj['kind'].lower()}s"


def refused(api: Any, obj: dict[str, Any], namespace: str = "enforced-production", **query: str) -> str:
    """Returns what a create is refused with, `""` where it is not."""
    obj = {**obj, "metadata": {**obj["metadata"], "namespace": namespace}}
    try:
        api.create(collection(obj, namespace), obj, **{"dryRun": "All", **query})
    except ApiError as error:
        if error.code not in {403, 422}:
            raise
        return error.message
    return ""


def test_the_api_server_accepts_and_type_checks_every_policy(api: Any) -> None:
    deadline = time.monotonic() + SECONDS
    pending = {f"mlwarden-policy-{each.name}" for each in policy.shipped() if not policy.not_compiled(each)}
    while pending:
        assert time.monotonic() < deadline, pending
        for name in sorted(pending):
            found = api.get(f"{BASE}/validatingadmissionpolicies/{name}")
            status = found.get("status", {})
            if status.get("observedGeneration") == found["metadata"]["generation"]:
                assert not status.get("typeChecking", {}).get("expressionWarnings"), (name, status)
                pending.discard(name)


def test_a_good_pod_and_its_templates_pass(api: Any, build: Build, template: Template) -> None:
    good = build({})
    assert refused(api, good) == ""
    for kind in ("Deployment", "StatefulSet", "Job", "CronJob"):
        assert refused(api, template(good, kind)) == ""


@pytest.mark.parametrize("image", ["auto", " ", "{{image}}", "registry.example.com/{{name}}:latest", "${IMAGE}:${TAG}", "$(params.image)"])
def test_a_placeholder_is_no_image_in_a_template_and_one_in_a_pod(image: str, api: Any, build: Build, template: Template) -> None:
    named = build({"container": {"image": image}})
    for kind in ("Deployment", "StatefulSet", "Job", "CronJob"):
        assert refused(api, template(named, kind)) == ""
    assert refused(api, named) != ""  # by a policy, or as no image at all
    for other in ("automatic", "docker.io/somebody/auto", "docker.io/somebody/x:1"):
        assert f"image {other} " in refused(api, template(build({"container": {"image": other}}), "Deployment"))


def test_a_refusal_says_what_where_and_what_helps_in_one_line(api: Any, build: Build) -> None:
    bad = build(
        {
            "container": {"securityContext": {"allowPrivilegeEscalation": True}},
            "init": {"securityContext": {"allowPrivilegeEscalation": True}},
        }
    )
    said = refused(api, bad)
    assert "container main, initial may gain privileges it was not started with (privilege-escalation); fix: set securityContext" in said
    assert "mlwarden check FILE" in said
    assert "\n" not in said


def test_a_refusal_names_the_image_and_never_the_credential(api: Any, build: Build) -> None:
    assert "image registry.example.com/train names no version" in refused(
        api, build({"container": {"image": "registry.example.com/train"}})
    )
    said = refused(api, build({"container": {"env": [{"name": "TOKEN", "value": "hunter2hunter2"}]}}))
    assert "variable TOKEN has a credential" in said
    assert "hunter2" not in said


def test_namespaces_without_a_label_have_the_default_profile(api: Any, build: Build) -> None:
    assert refused(api, build({"container": {"securityContext": {"allowPrivilegeEscalation": True}}}), "enforced-none") == ""
    assert "host-namespaces" in refused(api, build({"spec": {"hostPID": True}}), "enforced-none")


def test_a_mistyped_profile_is_no_way_out(api: Any, build: Build) -> None:
    assert "privilege-escalation" in refused(
        api, build({"container": {"securityContext": {"allowPrivilegeEscalation": True}}}), "enforced-mistyped"
    )


def test_exempt_namespaces_are_left_alone(api: Any, build: Build) -> None:
    assert refused(api, build({"spec": {"hostPID": True}}), "enforced-exempt") == ""


def test_conditions_see_the_namespace_and_the_request(api: Any, build: Build) -> None:
    assert "conditional: sample" in refused(api, build({"metadata": {"annotations": {"asked": "enforced-production"}}}))
    assert refused(api, build({"metadata": {"annotations": {"asked": "somewhere else"}}})) == ""


def test_an_expression_may_ask_for_the_role(api: Any, build: Build) -> None:
    bad = build({"metadata": {"labels": {"roles": "yes"}}, "init": {"name": "x"}})
    assert "roles: x" in refused(api, bad)
    assert refused(api, build({"metadata": {"labels": {"roles": "yes"}}, "init": {}})) == ""


def test_whole_objects_are_judged_where_they_change(api: Any) -> None:
    path = "/api/v1/namespaces/enforced-production/configmaps"
    bad = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "objects"}, "data": {"password": "b"}}
    assert "objects: objects" in refused(api, bad)
    api.create(path, {**bad, "data": {"user": "a"}})
    with pytest.raises(ApiError, match="objects: objects"):
        api.patch(f"{path}/objects", {"data": {"password": "b"}})
    api.patch(f"{path}/objects", {"metadata": {"labels": {"a": "b"}}})
    api.delete(f"{path}/objects")


def test_what_did_not_change_always_passes(api: Any, build: Build, template: Template) -> None:
    """Made while nothing was enforced: scaling down, labels and finalizers pass, whatever policies say; a new image does not."""
    path = "/apis/apps/v1/namespaces/enforced-none/deployments"
    bad = template(
        build({"container": {"image": "registry.example.com/train:1"}, "spec": {"securityContext": {"runAsNonRoot": None}}}), "Deployment"
    )
    bad["metadata"] = {"name": "old", "finalizers": ["example.com/hold"]}
    bad["spec"]["replicas"] = 0
    api.create(path, bad)
    namespace = "/api/v1/namespaces/enforced-none"
    api.patch(namespace, {"metadata": {"labels": {"mlwarden.io/profile": "production"}}})
    deadline = time.monotonic() + SECONDS
    while refused(api, {**bad, "metadata": {"name": "new"}}, "enforced-none") == "":
        assert time.monotonic() < deadline
    try:
        one = f"{path}/old"
        api.patch(one, {"spec": {"replicas": 1}})
        api.patch(f"{one}/scale", {"spec": {"replicas": 0}})
        api.patch(one, {"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}}})
        api.patch(one, {"spec": {"template": {"metadata": {"labels": {"app": "sample", "more": "x"}}}}})
        with pytest.raises(ApiError, match="run-as-non-root"):
            api.patch(one, {"spec": {"template": {"spec": {"priorityClassName": "", "terminationGracePeriodSeconds": 7}}}})
        with pytest.raises(ApiError, match="run-as-non-root"):
            api.patch(one, {"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}})
        api.delete(one)
        api.patch(one, {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 8}}}})  # nothing starts from what is being deleted
        api.patch(one, {"metadata": {"finalizers": None}})
    finally:
        api.patch(namespace, {"metadata": {"labels": {"mlwarden.io/profile": None}}})


def test_a_pod_is_judged_again_when_its_image_changes_and_only_then(api: Any, build: Build) -> None:
    path = "/api/v1/namespaces/enforced-production/pods"
    good = build({"spec": {"schedulingGates": [{"name": "example.com/wait"}]}})
    good["metadata"] = {"name": "gated"}
    api.create(path, good)
    try:
        containers = [{"name": "main", "image": "registry.example.com/train"}]
        with pytest.raises(ApiError, match="pinned-images"):
            api.patch(f"{path}/gated", {"spec": {"containers": containers}}, content_type="application/strategic-merge-patch+json")
        api.patch(f"{path}/gated", {"metadata": {"labels": {"a": "b"}}})
        api.patch(f"{path}/gated", {"spec": {"schedulingGates": None}})
    finally:
        api.delete(f"{path}/gated", {"gracePeriodSeconds": 0})


def test_what_may_be_the_platforms_is_left_to_the_gate_where_there_is_one_and_to_nobody_elsewhere(
    api: Any, build: Build, template: Template
) -> None:
    path = "/api/v1/namespaces/enforced-production/pods"
    named = {"name": "storage-initializer", "image": "registry.example.com/storage-initializer:1"}
    gate = {"schedulingGates": [{"name": GATE}]}
    plain, held = (build({"spec": {"initContainers": [named], **more}}) for more in ({}, gate))
    assert "storage-initializer" in refused(api, plain)
    assert refused(api, held) == ""
    assert "storage-initialiser" in refused(api, build({"spec": {"initContainers": [{**named, "name": "storage-initialiser"}], **gate}}))
    softer = build({"spec": {"initContainers": [named], **gate}, "container": {"workingDir": "/"}})
    softer["metadata"] = {"name": "softer", "labels": {"softer": "yes"}}
    assert refused(api, softer) == ""
    assert "softer: storage-initializer" in refused(api, softer, "enforced-none")  # nobody guards the gate there
    dangerous = {**named, "securityContext": {"privileged": True}}
    assert "privileged-containers" in refused(api, build({"spec": {"initContainers": [dangerous], **gate}}))
    assert refused(api, template(plain, "Deployment")) == ""  # its pods are asked
    bare = build({"spec": gate})
    for name, body in (("injected", held), ("debugged", bare)):
        api.create(path, {**body, "metadata": {"name": name}})
    merge = {"content_type": "application/strategic-merge-patch+json"}
    try:
        api.patch(f"{path}/injected", {"spec": {"schedulingGates": None}})
        api.patch(f"{path}/injected", {"spec": {"containers": [{"name": "main", "image": "registry.example.com/train:2"}]}}, **merge)
        with pytest.raises(ApiError, match="storage-initializer"):
            api.patch(f"{path}/injected", {"spec": {"initContainers": [{**named, "image": "registry.example.com/other:1"}]}}, **merge)
        debugging = {"spec": {"ephemeralContainers": [{**named, "image": "registry.example.com/debug/tools:1.0"}]}}
        with pytest.raises(ApiError, match="container storage-initializer"):
            api.patch(f"{path}/debugged/ephemeralcontainers", debugging, **merge)
    finally:
        for name in ("injected", "debugged"):
            api.delete(f"{path}/{name}", {"gracePeriodSeconds": 0})


@pytest.fixture(scope="module")
def debug(api: Any, cluster: Any, build: Build) -> Iterator[Callable[..., str]]:
    """`debug(namespace, profile)`: what the real kubectl says. The pods are from before: they break the policies of production."""
    old = build({"container": {"securityContext": {"privileged": True, "allowPrivilegeEscalation": True}}})
    paths = [f"/api/v1/namespaces/enforced-{name}/pods" for name in ("none", "production")]
    # What is enforced refuses such a pod; an exempt moment is what "before" was.
    label = {"metadata": {"labels": {LABEL: None}}}
    for name, path in zip(("none", "production"), paths, strict=True):
        space = api.get(f"/api/v1/namespaces/enforced-{name}")["metadata"]["labels"][LABEL]
        api.patch(f"/api/v1/namespaces/enforced-{name}", label)
        deadline = time.monotonic() + SECONDS
        while refused(api, old, f"enforced-{name}"):
            assert time.monotonic() < deadline
        api.create(path, {**old, "metadata": {"name": "old"}})
        api.patch(f"/api/v1/namespaces/enforced-{name}", {"metadata": {"labels": {LABEL: space}}})
        while not refused(api, old, f"enforced-{name}"):
            assert time.monotonic() < deadline

    def said(namespace: str, profile: str, *arguments: str) -> str:
        image = "--image=registry.example.com/debug/tools:1.0"
        command = ["debug", "old", "-n", f"enforced-{namespace}", image, f"--profile={profile}", "--attach=false", *arguments]
        return str(cluster.kubectl(*command, check=False))

    yield said
    for path in paths:
        api.delete(f"{path}/old", {"gracePeriodSeconds": 0})


class TestDebug:
    """`kubectl debug` where no webhook answers: what is dangerous is refused by the API server itself."""

    @pytest.mark.parametrize(
        ("profile", "policy_"),
        [
            ("sysadmin", "privileged-containers"),
            ("netadmin", "dangerous-capabilities"),
            ("general", "dangerous-capabilities"),
        ],
    )
    def test_a_privileged_profile_is_refused_in_every_namespace(self, debug: Callable[..., str], profile: str, policy_: str) -> None:
        said = debug("none", profile)
        assert f"ValidatingAdmissionPolicy 'mlwarden-policy-{policy_}'" in said, said
        assert "denied request" in said
        assert "denied request" in debug("production", profile)  # several policies refuse it there, and the API server names one

    def test_what_the_pod_was_before_is_in_nobodys_way_and_whole_pods_count_once(self, api: Any, debug: Callable[..., str]) -> None:
        path = "/api/v1/namespaces/enforced-production/pods/old"
        assert "denied" not in debug("production", "restricted", "--container=one")
        assert "few: old" in debug("production", "restricted", "--container=two")
        assert [each["name"] for each in api.get(path)["spec"]["ephemeralContainers"]] == ["one"]
