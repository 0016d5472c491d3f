"""Both engines give the same answer: ours, and the real API server with the same policies compiled.

Every policy is bound with Warn here, so that one dry-run create tells about all of them by its warnings. As a third opinion the API
server's own Pod Security admission judges the same objects.
"""

import copy
import http.client
import json
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from mlwarden import engine, policy, workloads
from mlwarden.checks import Answer
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Outcome
from mlwarden.model.policy import Policy, Settings
from mlwarden.policy import CompiledPolicy

pytestmark = pytest.mark.cluster

Build = Callable[[dict[str, Any]], dict[str, Any]]
Template = Callable[[dict[str, Any], str], dict[str, Any]]
Judge = Callable[[CompiledPolicy, Any], list[Answer]]
Ours = Callable[[dict[str, Any]], frozenset[str]]
Standard = dict[str, set[str]]
Table = list[tuple[str, str, dict[str, Any]]]
SECONDS = 30
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What `kubectl debug --profile=restricted` sets."""
RESOURCES = {
    "Deployment": "apps/v1/{}/deployments",
    "StatefulSet": "apps/v1/{}/statefulsets",
    "Job": "batch/v1/{}/jobs",
    "CronJob": "batch/v1/{}/cronjobs",
}
FAILED = re.compile(r"ValidatingAdmissionPolicy 'mlwarden-policy-([a-z0-9-]+)'")


class Said(NamedTuple):
    """What the API server said about an object."""

    status: int
    message: str
    policies: frozenset[str]
    standard: bool
    warnings: str


class Server:
    """Creates objects with dryRun=All and reads the warnings."""

    def __init__(self, cluster: Any) -> None:
        address = cluster.server.removeprefix("https://").split(":")
        self._connection = http.client.HTTPSConnection(address[0], int(address[1]), context=ssl._create_unverified_context())
        self._headers = {"Authorization": f"Bearer {cluster.token()}", "Content-Type": "application/json"}

    def create(self, obj: dict[str, Any], namespace: str) -> Said:
        obj = copy.deepcopy(obj)
        obj["metadata"]["namespace"] = namespace
        where = "/apis/" + RESOURCES[obj["kind"]] if obj["kind"] in RESOURCES else "/api/v1/{}/pods"
        path = where.format(f"namespaces/{namespace}") + "?dryRun=All"
        self._connection.request("POST", path, json.dumps(obj), self._headers)
        response = self._connection.getresponse()
        body = json.loads(response.read())
        warnings = "\n".join(response.headers.get_all("Warning") or [])
        assert "resulted in error" not in warnings, warnings
        assert "truncated" not in warnings
        return Said(response.status, body.get("message", ""), frozenset(FAILED.findall(warnings)), "PodSecurity" in warnings, warnings)

    def debug(self, old: dict[str, Any], container: dict[str, Any], namespace: str) -> Said:
        """Adds an ephemeral container to a pod that is there, with dryRun=All."""
        path = f"/api/v1/namespaces/{namespace}/pods/{old['metadata']['name']}/ephemeralcontainers?dryRun=All"
        patch = [{"op": "add", "path": "/spec/ephemeralContainers/-", "value": container}]
        self._connection.request("PATCH", path, json.dumps(patch), {**self._headers, "Content-Type": "application/json-patch+json"})
        response = self._connection.getresponse()
        body = json.loads(response.read())
        warnings = "\n".join(response.headers.get_all("Warning") or [])
        assert "resulted in error" not in warnings, warnings
        return Said(response.status, body.get("message", ""), frozenset(FAILED.findall(warnings)), False, warnings)

    def close(self) -> None:
        self._connection.close()


def quiet(objects: list[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    """The same policies for labelled namespaces only, with a short message: an answer carries 4096 characters of warnings."""
    for obj in objects:
        if obj["kind"] == "ValidatingAdmissionPolicy":
            selector = obj["spec"]["matchConstraints"]["namespaceSelector"]
            selector["matchExpressions"].append({"key": label, "operator": "Exists"})
            obj["spec"]["validations"][0]["message"] = "-"
            obj["spec"]["validations"][0].pop("messageExpression", None)
        else:
            obj["spec"]["validationActions"] = ["Warn", "Audit"]
    return objects


def applied(cluster: Any, objects: list[dict[str, Any]]) -> Callable[[], None]:
    """Applies the objects; returns what deletes them again."""
    api = cluster.api()
    base = "/apis/admissionregistration.k8s.io/v1"
    paths = [
        f"{base}/{'validatingadmissionpolic' + ('ies' if obj['kind'].endswith('Policy') else 'ybindings')}/{obj['metadata']['name']}"
        for obj in objects
    ]
    for path, obj in zip(paths, objects, strict=True):
        api.apply(path, obj)

    def remove() -> None:
        for path in reversed(paths):
            api.delete(path)

    return remove


@pytest.fixture(scope="module")
def server(cluster: Any, packs: tuple[Policy, ...]) -> Iterator[Server]:
    remove = applied(cluster, quiet(policy.admission_policies(packs, Settings(rollout="audit")), "mlwarden-agreement"))
    for level in ("baseline", "restricted"):
        labels = {"mlwarden-agreement": "", "mlwarden.io/profile": "production", "pod-security.kubernetes.io/warn": level}
        cluster.create_namespace(f"agreement-{level}", labels=labels)
        cluster.api().create(f"/api/v1/namespaces/agreement-{level}/serviceaccounts", {"metadata": {"name": "trainer"}})
    found = Server(cluster)
    wanted = {each.name for each in packs if not policy.not_compiled(each)}
    worst = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "worst"},
        "spec": {
            "hostPID": True,
            "securityContext": {
                "sysctls": [{"name": "kernel.msgmax", "value": "1"}],
                "appArmorProfile": {"type": "Unconfined"},
                "seccompProfile": {"type": "Unconfined"},
                "seLinuxOptions": {"type": "spc_t"},
            },
            "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
            "containers": [
                {
                    "name": "c",
                    "image": "pyt0rch/pytorch",
                    "env": [{"name": "TOKEN", "value": "abcdef"}],
                    "ports": [{"containerPort": 1, "hostPort": 1}],
                    "livenessProbe": {"tcpSocket": {"host": "a", "port": 1}},
                    "resources": {"limits": {"nvidia.com/gpu": "64"}},
                    "securityContext": {"privileged": True, "runAsUser": 0, "capabilities": {"add": ["SYS_ADMIN"]}},
                }
            ],
        },
    }
    # Windows only, a user namespace only, and `kubectl debug` only: others of the same age are awaited.
    missing = wanted - {"host-process", "proc-mount", "debug-images"}
    deadline = time.monotonic() + SECONDS
    while missing and time.monotonic() < deadline:
        said = found.create(worst, "agreement-restricted")
        assert said.status == 201, said.message
        missing -= said.policies
    assert not missing, missing
    yield found
    found.close()
    remove()
    for level in ("baseline", "restricted"):
        cluster.api().delete(f"/api/v1/namespaces/agreement-{level}")


@pytest.fixture(scope="module")
def ours(shipped: Mapping[str, CompiledPolicy], judge: Judge) -> Ours:
    """Names of the policies that fail, in our own engine; without those that the API server leaves to it in templates: a LimitRange's."""

    def failing(obj: dict[str, Any]) -> frozenset[str]:
        found = set()
        for name, compiled in shipped.items():
            asked = compiled.policy.spec.requirement.expression
            if policy.not_compiled(compiled.policy) or (asked and asked.sees_resources and obj["kind"] != "Pod"):
                continue
            outcomes = {answer.outcome for answer in judge(compiled, obj)}
            assert Outcome.UNKNOWN not in outcomes, name
            if Outcome.FAIL in outcomes:
                found.add(name)
        return frozenset(found)

    return failing


@pytest.fixture(scope="module")
def standard() -> Standard:
    """Names of the policies that are controls of the Pod Security Standards, per level."""
    found: dict[str, set[str]] = {"baseline": set(), "restricted": set()}
    for each in policy.pod_security(policy.shipped()):
        found["restricted"].add(each.name)
        if any("baseline" in text for text in each.spec.references):
            found["baseline"].add(each.name)
    return found


def agree(obj: dict[str, Any], server: Server, ours: Ours, standard: Standard, *, beyond: bool = False) -> bool:
    """Compares; returns False where the API server says that the object is not a valid one. `beyond`: we ask for more than Pod Security."""
    expected = ours(obj)
    for level in ("baseline", "restricted"):
        said = server.create(obj, f"agreement-{level}")
        if said.status == 422:
            return False
        assert said.status == 201, said.message
        assert said.policies == expected, said.warnings
        if obj["kind"] != "CronJob" and not beyond:
            assert said.standard == bool(expected & standard[level]), (level, said.warnings)
    return True


def test_both_engines_and_pod_security_agree_on_every_sample(
    *, server: Server, ours: Ours, standard: Standard, table: Table, build: Build, template: Template
) -> None:
    compared = 0
    for name, kind, sample in table:
        if sample.get("offline"):
            continue
        pod, beyond = build(sample), bool(sample.get("beyond"))
        assert agree(pod, server, ours, standard, beyond=beyond), f"{name}: {kind}: {sample['about']} is not a valid pod"
        for workload in ("Deployment", "StatefulSet", "Job", "CronJob"):
            compared += agree(template(pod, workload), server, ours, standard, beyond=beyond)
    assert compared > 400


def maybe(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in fields.items()})


PROFILES = [{"type": "RuntimeDefault"}, {"type": "Unconfined"}, {"type": "Localhost", "localhostProfile": "a"}]
SELINUX = [{}, {"type": "container_t"}, {"type": "spc_t"}, {"user": "u"}, {"role": "r"}, {"level": "s0"}]
CAPABILITIES = [[], ["ALL"], ["CHOWN"], ["NET_BIND_SERVICE"], ["SYS_ADMIN", "CHOWN"], ["NET_RAW"]]
CONTAINER_SECURITY = st.builds(
    lambda plain, capabilities: {**plain, **({"capabilities": capabilities} if capabilities is not None else {})},
    maybe(
        privileged=[False],
        allowPrivilegeEscalation=[True, False],
        runAsNonRoot=[True, False],
        runAsUser=[0, 1000],
        procMount=["Default"],
        seccompProfile=PROFILES,
        appArmorProfile=PROFILES,
        seLinuxOptions=SELINUX,
        readOnlyRootFilesystem=[True],
    ),
    st.none() | maybe(add=CAPABILITIES, drop=CAPABILITIES),
)
CONTAINER = st.fixed_dictionaries(
    {"image": st.sampled_from(["a", "a:1", "b/a:latest", "quay.io/b/a:1", "r.example.com/a:1", "localhost:5000/a", "pytorch/pytorch:2"])},
    optional={
        "securityContext": CONTAINER_SECURITY,
        "resources": maybe(
            limits=[{}, {"memory": "1Gi"}, {"cpu": "1"}, {"nvidia.com/gpu": 9}, {"amd.com/gpu": "1k"}, {"memory": "1G", "cpu": 1}],
            requests=[{}, {"cpu": "1"}],
        ),
        "env": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["A", "HF_TOKEN", "EOS_TOKEN", "my.password", "URL"])},
                optional={
                    "value": st.sampled_from(["", "x", "<s>", "$(A)", "AKIAABCDEFGHIJKLMNOP", "http://a:b@c", "http://c", "7", "a\nb"])
                },
            ),
            max_size=3,
        ),
        "ports": st.sampled_from(
            [[], [{"containerPort": 80}], [{"containerPort": 80, "hostPort": 80}], [{"containerPort": 81, "hostPort": 0}]]
        ),
        "startupProbe": st.sampled_from(
            [{"httpGet": {"port": 80}}, {"httpGet": {"port": 80, "host": "a"}}, {"tcpSocket": {"port": 1, "host": "b"}}]
        ),
        "lifecycle": st.sampled_from(
            [{}, {"preStop": {"httpGet": {"port": 80, "host": "a"}}}, {"postStart": {"exec": {"command": ["a"]}}}]
        ),
    },
)
VOLUME = st.sampled_from(
    [
        {},
        {"emptyDir": {}},
        {"hostPath": {"path": "/"}},
        {"nfs": {"server": "a", "path": "/"}},
        {"image": {"reference": "ttl.sh/a"}},
        {"secret": {"secretName": "s"}},
        {"csi": {"driver": "csi.spiffe.io"}},
        {"csi": {"driver": "image.csi.k8s.io", "volumeAttributes": {"image": "ttl.sh/a"}}},
        {"csi": {"driver": "csi-image.warm-metal.tech", "volumeAttributes": {"image": "python:3"}}},
        {"csi": {"driver": "image.csi.k8s.io"}},
    ]
)
POD = st.fixed_dictionaries(
    {"containers": st.lists(CONTAINER, min_size=1, max_size=2)},
    optional={
        "initContainers": st.lists(CONTAINER, max_size=1),
        "volumes": st.lists(VOLUME, max_size=2),
        "hostNetwork": st.booleans(),
        "hostPID": st.booleans(),
        "hostIPC": st.just(False),
        "automountServiceAccountToken": st.booleans(),
        "serviceAccountName": st.sampled_from(["default", "trainer"]),
        "securityContext": maybe(
            runAsNonRoot=[True, False],
            runAsUser=[0, 1],
            seccompProfile=PROFILES,
            appArmorProfile=PROFILES,
            seLinuxOptions=SELINUX,
            sysctls=[[], [{"name": "kernel.msgmax", "value": "1"}], [{"name": "net.ipv4.tcp_rmem", "value": "1"}]],
        ),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=POD, kind=st.sampled_from(["Pod", "Pod", "Deployment", "CronJob"]))
@example(spec={"containers": [{"image": "a", "securityContext": {}, "resources": {}}], "securityContext": {}}, kind="Pod")
def test_both_engines_and_pod_security_agree_on_generated_pods(
    *, spec: dict[str, Any], kind: str, server: Server, ours: Ours, standard: Standard, template: Template
) -> None:
    for index, container in enumerate([*spec["containers"], *spec.get("initContainers", [])]):
        container["name"] = f"c{index}"
    for index, volume in enumerate(spec.get("volumes", [])):
        volume["name"] = f"v{index}"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sample", "namespace": "default"}, "spec": copy.deepcopy(spec)}
    event("valid" if agree(pod if kind == "Pod" else template(pod, kind), server, ours, standard) else "not valid")


EPHEMERAL = st.fixed_dictionaries(
    {"image": st.sampled_from(["a", "a:1", "b/a:latest", "quay.io/b/a:1", "r.example.com/debug/a:1"])},
    optional={
        "securityContext": CONTAINER_SECURITY,
        "env": st.sampled_from([[], [{"name": "HF_TOKEN", "value": "x"}], [{"name": "A", "value": "http://a:b@c"}]]),
        "targetContainerName": st.sampled_from(["main", ""]),
    },
)


@pytest.fixture(scope="module")
def debugged(cluster: Any, server: Server, build: Build) -> list[dict[str, Any]]:
    """Two pods that are there, each with an ephemeral container: one that every policy is content with, and one that none is."""
    assert server.create(build({}), "agreement-baseline").status == 201
    bad = {
        "spec": {"automountServiceAccountToken": True, "securityContext": {"runAsNonRoot": None, "seccompProfile": None}},
        "container": {"image": "quay.io/b/a", "securityContext": None, "resources": None},
    }
    pods = "/api/v1/namespaces/agreement-baseline/pods"
    found = []
    for name, sample, first in (
        ("content", {}, build({})["spec"]["containers"][0]),
        ("old", bad, {"image": "quay.io/b/a", "securityContext": {"privileged": True}}),
    ):
        api, pod = cluster.api(), build(sample)
        pod["metadata"] = {"name": name, "namespace": "agreement-baseline"}
        api.create(pods, pod)
        container = {key: value for key, value in first.items() if key != "resources"} | {"name": "first"}
        patch = {"spec": {"ephemeralContainers": [container]}}
        api.patch(f"{pods}/{name}/ephemeralcontainers", patch, content_type="application/strategic-merge-patch+json")
        found.append(api.get(f"{pods}/{name}"))
    return found


def update(old: dict[str, Any], container: dict[str, Any], shipped: Mapping[str, CompiledPolicy]) -> frozenset[str]:
    """Names of the policies that fail for what the update adds, in our own engine."""
    new = copy.deepcopy(old)
    new["spec"]["ephemeralContainers"].append(container)
    facts = Facts(
        now=datetime(2026, 11, 24, tzinfo=UTC), namespace={"metadata": {"name": "x"}}, profile="production", operation="UPDATE", old=old
    )
    compiled = [each for each in shipped.values() if not policy.not_compiled(each.policy)]
    verdict = engine.evaluate(workloads.extract(new), compiled, facts, Settings())
    assert {finding.outcome for finding in verdict.findings} <= {Outcome.FAIL}
    return frozenset(finding.policy for finding in verdict.findings)


@pytest.mark.parametrize("which", [0, 1], ids=["a good pod", "a pod from before"])
def test_both_engines_agree_on_what_kubectl_debug_adds(
    *, which: int, server: Server, debugged: list[dict[str, Any]], shipped: Mapping[str, CompiledPolicy]
) -> None:
    seen: set[str] = set()

    @settings(max_examples=60, deadline=None)
    @given(container=EPHEMERAL)
    @example(
        container={"image": "quay.io/b/a", "securityContext": {"privileged": True, "runAsUser": 0, "capabilities": {"add": ["NET_ADMIN"]}}}
    )
    @example(container={"image": "r.example.com/debug/a:1", "securityContext": RESTRICTED})
    def compared(container: dict[str, Any]) -> None:
        container = {"name": "added", "terminationMessagePolicy": "File", **container}
        said = server.debug(debugged[which], container, "agreement-baseline")
        if said.status == 422:
            return
        assert said.status == 200, said.message
        assert said.policies == update(debugged[which], container, shipped), said.warnings
        seen.update(said.policies)

    compared()
    assert {"privileged-containers", "dangerous-capabilities", "root-user", "pinned-images", "trusted-registries", "debug-images"} <= seen
