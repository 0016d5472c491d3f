"""The largest pods that etcd takes are judged, or refused with a sentence: on a real API server no policy runs out of its budget."""

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

from mlwarden import engine, policy, workloads
from mlwarden.embedded.api import ApiError
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Outcome
from mlwarden.model.policy import Policy, Settings
from mlwarden.policy import CompiledPolicy
from mlwarden.policy.size import TOO_LONG

pytestmark = pytest.mark.cluster

Build = Callable[[dict[str, Any]], dict[str, Any]]
Attack = Callable[[str, str, str], None]
LABEL = "mlwarden-size"
BASE = "/apis/admissionregistration.k8s.io/v1"
PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
SECONDS = 30
ETCD = 1_500_000
"""Bytes of an object that etcd takes (its `--max-request-bytes` is 1.5 MiB)."""
SAID = re.compile(r"ValidatingAdmissionPolicy 'mlwarden-policy-([a-z0-9-]+)' with binding '[a-z0-9.-]+': ([^\"]*)")
ARGO = '{"name":"main","inputs":{"parameters":[{"name":"x","value":"https://example.com/a:b/c-d_e"}]},"container":{"image":"python"}},'
FULL = {
    "livenessProbe": {"httpGet": {"port": 1}},
    "readinessProbe": {"tcpSocket": {"port": 1}},
    "startupProbe": {"httpGet": {"port": 1}},
    "lifecycle": {"preStop": {"httpGet": {"port": 1}}, "postStart": {"httpGet": {"port": 1}}},
    "securityContext": {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "procMount": "Default",
        "runAsUser": 1,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "Localhost", "localhostProfile": "a"},
        "appArmorProfile": {"type": "Localhost", "localhostProfile": "a"},
        "seLinuxOptions": {"type": "container_engine_t"},
        "windowsOptions": {"hostProcess": False},
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    },
    "resources": {"limits": {"memory": "1Gi", "nvidia.com/gpu": "8"}, "requests": {"cpu": "1"}},
    "env": [{"name": "A_TOKEN", "value": "/a"}],
}
"""Of a container, everything that a policy reads."""


class Said(NamedTuple):
    """What the API server said: status, why not, and policy → text."""

    status: int
    refusal: str
    policies: dict[str, str]


class Server:
    """Creates pods with dryRun=All and reads the warnings."""

    def __init__(self, cluster: Any) -> None:
        address = cluster.server.removeprefix("https://").split(":")
        self._connection = http.client.HTTPSConnection(address[0], int(address[1]), context=ssl._create_unverified_context())
        self._headers = {"Authorization": f"Bearer {cluster.token()}", "Content-Type": "application/json"}

    def create(self, pod: dict[str, Any], namespace: str = "size-held") -> Said:
        pod = copy.deepcopy(pod)
        pod["metadata"]["namespace"] = namespace
        body = json.dumps(pod, separators=(",", ":"))
        assert len(body) < 3_000_000
        self._connection.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", body, self._headers)
        response = self._connection.getresponse()
        answer, warnings = response.read().decode(), "\n".join(response.headers.get_all("Warning") or [])
        for told in (warnings, answer if response.status >= 400 else ""):
            assert "resulted in error" not in told, told[:2000]
            assert "budget" not in told, told[:2000]
        return Said(response.status, answer[:300] if response.status >= 400 else "", dict(SAID.findall(warnings)))

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def server(cluster: Any, packs: tuple[Policy, ...]) -> Iterator[Server]:
    """The shipped policies, each of which warns with what it finds too large; two namespaces, one of which holds its pods."""
    api, objects = cluster.api(), policy.admission_policies(packs, Settings())
    for obj in objects:
        if obj["kind"] == "ValidatingAdmissionPolicy":
            obj["spec"]["matchConstraints"]["namespaceSelector"]["matchExpressions"].append({"key": LABEL, "operator": "Exists"})
            large = any(each["name"] == "large" for each in obj["spec"].get("variables", []))
            obj["spec"]["validations"][0] |= {"message": "-", "messageExpression": "variables.large" if large else "'-'"}
        else:
            obj["spec"]["validationActions"] = ["Warn"]
    paths = [f"{BASE}/{PLURALS[obj['kind']]}/{obj['metadata']['name']}" for obj in objects]
    for path, obj in zip(paths, objects, strict=True):
        api.apply(path, obj)
    for name, labels in (("held", {"mlwarden.io/profile": "production"}), ("free", {})):
        cluster.create_namespace(f"size-{name}", labels={LABEL: name, **labels})
    found, deadline = Server(cluster), time.monotonic() + SECONDS
    bad: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bad"},
        "spec": {"containers": [{"name": "c", "image": "a"}]},
    }
    bad["spec"] |= {"hostPID": True, "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}
    while not {"host-namespaces", "host-path-volumes", "run-as-non-root", "volume-types"} <= set(found.create(bad).policies):
        assert time.monotonic() < deadline
    yield found
    found.close()
    for path in reversed(paths):
        api.delete(path)
    for name in ("held", "free"):
        api.delete(f"/api/v1/namespaces/size-{name}")


def failing(pod: dict[str, Any], shipped: Mapping[str, CompiledPolicy]) -> set[str] | str:
    """Names of the policies that fail in our own engine, or what it finds too large."""
    compiled = [each for each in shipped.values() if not policy.not_compiled(each.policy)]
    facts = Facts(now=datetime(2026, 11, 24, tzinfo=UTC), namespace={"metadata": {"name": "x"}}, profile="production")
    findings = engine.evaluate(workloads.extract(pod), compiled, facts, Settings()).findings
    if [finding.policy for finding in findings] == ["mlwarden-size"]:
        return findings[0].message
    assert {finding.outcome for finding in findings} <= {Outcome.FAIL}, findings[:3]
    return {finding.policy for finding in findings}


def some(one: Callable[[int], dict[str, Any]], *, room: int = ETCD) -> list[dict[str, Any]]:
    """As many as fit."""
    found: list[dict[str, Any]] = []
    while room > 0:
        found.append(one(len(found)))
        room -= len(json.dumps(found[-1], separators=(",", ":")))
    return found


def containers(count: int, image: str = "registry.example.com/a:1") -> list[dict[str, Any]]:
    return [{"name": f"{'c' * 50}{index}", "image": image, **copy.deepcopy(FULL)} for index in range(count)]


def with_containers(pod: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, Any]:
    return {**pod, "spec": {**pod["spec"], "containers": found}}


LARGEST_JUDGED: dict[str, Callable[[], dict[str, Any]]] = {
    "497 full containers": lambda: {"spec": {"containers": containers(497)}},
    "497 long images": lambda: {"spec": {"containers": containers(497, f"registry.example.com/{'a' * 230}:{'b' * 120}@sha256:{'c' * 64}")}},
    "990 volumes": lambda: {"spec": {"volumes": [{"name": f"v{index}", "emptyDir": {}} for index in range(990)]}},
    "10,000 ports": lambda: {"container": {"ports": [{"containerPort": 1 + index, "name": f"p{index}"} for index in range(10_000)]}},
    "5,000 capabilities": lambda: {"container": {"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_CHROOT"] * 4_999}}}},
    "5,000 sources": lambda: {
        "volume": {"projected": {"sources": [{"configMap": {"name": f"c{index}", "optional": True}} for index in range(5_000)]}}
    },
    "1,000 sysctls": lambda: {
        "spec": {"securityContext": {"sysctls": [{"name": f"net.a{index}", "value": "1"} for index in range(1_000)]}}
    },
    "4,996 amounts": lambda: {
        "container": {
            "resources": {"limits": {"memory": "1Gi", **{f"example.com/long-name-of-a-device-{index}": "1" for index in range(2_497)}}}
        }
    },
    "500 variables": lambda: {"container": {"env": [{"name": f"A{index}_TOKEN", "value": "/aaaaaaaaaaaaaa"} for index in range(500)]}},
    "32,000 characters": lambda: {"container": {"env": [{"name": "A_TOKEN", "value": "/a" * 15_990}]}},
    "one long image": lambda: {"container": {"image": f"registry.example.com/{'a' * 1_400_000}"}},
    "one long annotation": lambda: {
        "metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/main": "localhost/" + "a" * 200_000}}
    },
}
"""At the bounds, and what needs none."""


@pytest.mark.parametrize("what", LARGEST_JUDGED)
def test_the_largest_pod_that_is_judged_gets_the_same_answer_from_both(
    what: str, server: Server, build: Build, shipped: Mapping[str, CompiledPolicy]
) -> None:
    pod = build(LARGEST_JUDGED[what]())
    if "containers" in LARGEST_JUDGED[what]().get("spec", {}):
        pod = with_containers(pod, LARGEST_JUDGED[what]()["spec"]["containers"])
    expected = failing(pod, shipped)
    assert isinstance(expected, set), expected
    for namespace in ("size-held", "size-free"):
        said = server.create(pod, namespace)
        assert said.status == 201, said
        assert set(said.policies) == expected, said


LONG = {
    "a workflow in one variable": lambda: [{"name": "ARGO_TEMPLATE", "value": ARGO * (ETCD // len(ARGO))}],
    "100,000 characters": lambda: [{"name": "ARGO_TEMPLATE", "value": ARGO * (100_000 // len(ARGO))}],
    "3,000 variables": lambda: [{"name": f"A{index}", "value": "b"} for index in range(3_000)],
    "9,999 variables": lambda: [{"name": f"A{index}_TOKEN", "value": "/b"} for index in range(9_999)],
    "one name": lambda: [{"name": "A" * ETCD, "value": "b"}],
    "a token at its end": lambda: [{"name": "A", "value": "a " * 700_000 + "hf_abcdefghijklmnopqrstuvwxyz0123456789"}],
}


@pytest.mark.parametrize("what", LONG)
def test_a_long_environment_is_judged_by_the_webhook_where_pods_wait_and_refused_with_a_sentence_elsewhere(
    what: str, server: Server, build: Build, shipped: Mapping[str, CompiledPolicy], attack: Attack
) -> None:
    pod = build({"container": {"env": LONG[what]()}})
    expected = failing(pod, shipped)
    assert expected == ({"env-credentials"} if "token" in what else set())
    held, free = server.create(pod), server.create(pod, "size-free")
    assert (held.status, held.policies) == (201, {})
    assert (free.status, free.policies) == (201, {"env-credentials": TOO_LONG})
    attack(
        f"A pod with a long environment: {what}",
        "refused with a page of CEL",
        "judged by the webhook; the API server's answer is a sentence",
    )


TOO_LARGE: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "containers": (lambda: {"spec": {"containers": some(lambda index: {"name": f"c{index}", "image": "a"})}}, "1000 containers"),
    "volumes": (lambda: {"spec": {"volumes": some(lambda index: {"name": f"v{index}", "emptyDir": {}})}}, "1000 containers"),
    "ports": (lambda: {"container": {"ports": some(lambda index: {"containerPort": 1 + index}, room=1_400_000)}}, "10000 ports"),
    "capabilities": (lambda: {"container": {"securityContext": {"capabilities": {"add": ["CHOWN"] * 180_000}}}}, "5000 capabilities"),
    "variables": (lambda: {"container": {"env": some(lambda index: {"name": f"A{index}", "value": ""})}}, "10000 environment variables"),
    "sources": (
        lambda: {"volume": {"projected": {"sources": some(lambda index: {"secret": {"name": f"s{index}"}})}}},
        "5000 sources of projected volumes",
    ),
    "sysctls": (
        lambda: {"spec": {"securityContext": {"sysctls": some(lambda index: {"name": f"net.a{index}", "value": "1"})}}},
        "1000 sysctls",
    ),
    "amounts": (
        lambda: {"container": {"resources": {"limits": {f"example.com/a{index}": "1" for index in range(50_000)}}}},
        "5000 amounts of resources",
    ),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_what_is_larger_is_refused_by_both_with_a_sentence(
    what: str, server: Server, build: Build, shipped: Mapping[str, CompiledPolicy], attack: Attack
) -> None:
    make, words = TOO_LARGE[what]
    sample = make()
    pod = build(sample)
    if "containers" in sample.get("spec", {}):
        pod = with_containers(pod, sample["spec"]["containers"])
    ours = failing(pod, shipped)
    assert isinstance(ours, str)
    number, _, things = words.partition(" ")
    assert things in ours
    assert f"more than {number} are not judged" in ours
    for namespace in ("size-held", "size-free"):
        said = server.create(pod, namespace)
        assert said.status == 201, said
        sentences = {text for text in said.policies.values() if text != "-"}
        assert any(f"has more than {words}" in text for text in sentences), said
    attack(f"A pod with as many {what} as fit", "refused with a page of CEL", f"refused: has more than {words}")


def test_a_policy_without_a_value_is_refused_with_a_sentence(cluster: Any, build: Build, namespace: str) -> None:
    manifest = {
        "apiVersion": "mlwarden.io/v1alpha1",
        "kind": "WardenPolicy",
        "metadata": {"name": "team-label"},
        "spec": {
            "profiles": {"*": "Deny"},
            "match": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
            "requirement": {"expression": {"forEach": "pod", "expression": "object.metadata.labels.team == 'x'"}},
            "message": "pod {name} has no team",
            "why": "w",
            "fix": {"text": "f"},
        },
    }
    api, objects = cluster.api(), policy.admission_policies([policy.parse(manifest)], Settings())
    paths = [f"{BASE}/{PLURALS[obj['kind']]}/{obj['metadata']['name']}" for obj in objects]
    for path, obj in zip(paths, objects, strict=True):
        api.apply(path, obj)

    def said(labels: dict[str, str] | None) -> str:
        pod = build({"metadata": {"namespace": namespace, **({"labels": labels} if labels else {})}})
        try:
            api.create(f"/api/v1/namespaces/{namespace}/pods", pod, dryRun="All")
        except ApiError as error:
            return error.message
        return ""

    try:
        deadline = time.monotonic() + SECONDS
        while not said({"team": "y"}):
            assert time.monotonic() < deadline
        assert said({"team": "x"}) == ""
        assert "pod sample has no team (team-label)" in said({"team": "y"})
        unevaluated = said(None)
        assert "The policy team-label could not be evaluated on this object" in unevaluated
        assert "no such key: labels" in unevaluated
        assert "object.metadata" not in unevaluated
        assert len(unevaluated) < 700
    finally:
        for path in reversed(paths):
            api.delete(path)
