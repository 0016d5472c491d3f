"""The real API server evaluates the same expressions on the same pod, in a ValidatingAdmissionPolicy.

One policy refuses everything and says in its message what every expression is worth: a messageExpression is CEL, too. So one refused
dry run answers them all, and applying the policy proves that Kubernetes compiles what we compile.
"""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from mlwarden import cel

pytestmark = pytest.mark.cluster

EXPRESSIONS = [
    "object.spec.containers.all(c, c.image.matches('@sha256:[0-9a-f]{64}$'))",
    "object.spec.containers.all(c, !has(c.securityContext) || !has(c.securityContext.privileged) || c.securityContext.privileged == false)",
    "!object.spec.?hostNetwork.orValue(false)",
    "has(object.spec.hostNetwork)",
    "has(object.metadata.annotations) && 'mlwarden.io/model' in object.metadata.annotations",
    "object.metadata.?annotations[?'mlwarden.io/model'].orValue('').startsWith('hf://')",
    "object.metadata.?labels[?'none'].hasValue()",
    "(object.spec.containers + object.spec.?initContainers.orValue([])).exists(c, c.name == 'two')",
    "object.spec.containers.exists_one(c, c.?resources.?limits[?'nvidia.com/gpu'].hasValue())",
    "object.spec.containers.all(c, !quantity(string(c.?resources.?limits[?'memory'].orValue('0'))).isGreaterThan(quantity('16Gi')))",
    "object.spec.containers.map(c, string(c.name)).join(',') == 'one,two'",
    "object.spec.containers.filter(c, has(c.env)).map(c, c.env.size()) == [2]",
    "object.spec.containers[0].env[?5].hasValue()",
    "object.spec.containers[0].ports[0].containerPort == 8080.0",
    "object.spec.containers[0].ports[0].containerPort / 3 == 2693",
    "object.spec.containers[0].ports[0].containerPort in [80, 8080]",
    "sets.contains(['a', 'b'], ['b']) && object.spec.?nodeSelector.orValue({}) == {}",
    "type(object.spec.containers[0].ports[0].containerPort) == int",
    "object.spec.containers[0].image.split('@')[0].lowerAscii() == 'ghcr.io/acme/one'",
    "object.spec.containers[0].env.exists(e, e.?value.orValue('').matches('(?i)^TOKEN'))",
    "object.spec.?securityContext.?runAsNonRoot.orValue(false) == true",
    "object.spec.?missing.?deeper.orValue(1) == 1",
    "object.spec.containers.all(c, c.nothing == 1) || object.metadata.name == 'pod'",
    "object.spec.?volumes.optMap(v, v.exists(each, has(each.hostPath))).orValue(false)",
]
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "pod", "annotations": {"mlwarden.io/model": "hf://acme/llama"}, "creationTimestamp": None},
    "spec": {
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "one",
                "image": f"ghcr.io/acme/one@sha256:{'a' * 64}",
                "env": [{"name": "A", "value": "token-1"}, {"name": "B"}],
                "ports": [{"containerPort": 8080}],
                "resources": {"limits": {"memory": "16384Mi", "nvidia.com/gpu": "1"}},
                "securityContext": None,
            },
            {"name": "two", "image": "two:latest", "securityContext": {"privileged": True}, "resources": {"limits": {"memory": "20G"}}},
        ],
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
        "hostNetwork": None,
    },
}


def _policy(name: str, namespace: str) -> str:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    answers = " + ".join(f"(({each}) ? '1' : '0')" for each in EXPRESSIONS)
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule], "namespaceSelector": selector},
        "validations": [{"expression": "false", "messageExpression": f"'answers:' + {answers}"}],
    }
    group = "admissionregistration.k8s.io/v1"
    binding = {"policyName": name, "validationActions": ["Deny"]}
    objects = [
        {"apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec},
        {"apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": binding},
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def _answers(kubectl: Callable[..., str], namespace: str) -> str:
    deadline = time.monotonic() + 60
    said = ""
    while time.monotonic() < deadline:
        said = kubectl("create", "-n", namespace, "--dry-run=server", "-f", "-", input=json.dumps(POD), check=False)
        found = re.search(r"answers:([01]+)", said)
        if found:
            return found.group(1)
    raise AssertionError(f"the policy never answered: {said}")


def test_the_api_server_gives_the_same_answers_in_a_validating_admission_policy(kubectl: Callable[..., str], namespace: str) -> None:
    name = f"cel-{namespace}"
    try:
        kubectl("create", "-f", "-", input=_policy(name, namespace))
        theirs = _answers(kubectl, namespace)
    finally:
        kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", name, "--ignore-not-found", check=False)
    pod = cel.strip_nulls(POD)
    programs = [cel.compile(each, variables=["object"], expect=bool) for each in EXPRESSIONS]
    ours = "".join("1" if program({"object": pod}) else "0" for program in programs)
    assert dict(zip(EXPRESSIONS, ours, strict=True)) == dict(zip(EXPRESSIONS, theirs, strict=True))
    assert "1" in ours
    assert "0" in ours
