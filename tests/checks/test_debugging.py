"""What helps somebody whose `kubectl debug` was refused: a command, where one was found to help."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mlwarden import checks, policy, workloads
from mlwarden.model.evidence import Facts

POLICIES = {each.name: policy.compile_policy(each) for each in policy.shipped()}
COMMAND = "kubectl debug p -n team --image=registry.example.com/debug/tools:1 --profile=restricted"
ADMIN = "; what needs more, an administrator does from the node: kubectl debug node/node-7 -n kube-system --profile=sysadmin"


def pod(security: dict[str, Any], **changes: Any) -> dict[str, Any]:
    debugger = {"name": "debugger", "image": "registry.example.com/debug/tools:1", "securityContext": security}
    spec = {"nodeName": "node-7", "containers": [{"name": "main", "image": "a:1"}], "ephemeralContainers": [debugger]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "team"}, "spec": spec | changes}


def fix(name: str, obj: dict[str, Any], path: str = "spec.ephemeralContainers[0]") -> str:
    facts = Facts(now=datetime(2026, 11, 24, tzinfo=UTC), namespace={}, profile="production")
    answers = checks.judge(POLICIES[name], workloads.extract(obj), facts)
    return next(answer.fix for answer in answers if answer.element == path)


@pytest.mark.parametrize(
    ("name", "security", "expected"),
    [
        ("privileged-containers", {"privileged": True}, COMMAND + ADMIN),
        ("dangerous-capabilities", {"capabilities": {"add": ["SYS_PTRACE"]}}, COMMAND + ADMIN),
        ("privilege-escalation", {}, COMMAND),
        ("root-user", {"runAsUser": 0}, COMMAND),
    ],
)
def test_a_debug_container_is_told_the_profile_that_passes(name: str, security: dict[str, Any], expected: str) -> None:
    assert fix(name, pod(security, securityContext={"runAsUser": 1000})) == expected


@pytest.mark.parametrize("of_the_pod", [{}, {"securityContext": {"runAsNonRoot": True}}, {"securityContext": {"runAsUser": "1000"}}])
def test_where_the_pod_names_no_number_the_profile_needs_one(of_the_pod: dict[str, Any]) -> None:
    """It sets runAsNonRoot, and a kubelet does not start an image that runs as root by it."""
    said = fix("privileged-containers", pod({"privileged": True}, **of_the_pod))
    assert said.startswith(COMMAND)
    assert '--custom=FILE with {"securityContext": {"runAsUser": 1000}} in it' in said
    assert said.endswith(ADMIN)


def test_a_profile_that_would_not_pass_is_not_recommended() -> None:
    assert "--profile" not in fix("root-user", pod({"runAsUser": 0}, securityContext={"runAsUser": 0}))
    assert "--profile" not in fix("debug-images", pod({}, ephemeralContainers=[{"name": "d", "image": "quay.io/anybody/shell:1"}]))


def test_an_ordinary_container_is_told_what_to_write() -> None:
    obj = pod({}, containers=[{"name": "main", "image": "a:1", "securityContext": {"privileged": True}}])
    assert fix("privileged-containers", obj, "spec.containers[0]").startswith("set securityContext")


def test_a_node_is_debugged_where_nothing_is_governed() -> None:
    obj = pod({}, hostPID=True)
    obj["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "kubectl-debug"}
    where = "where it is not governed but audited: kubectl debug node/node-7 -n kube-system"
    assert fix("host-namespaces", obj, "").endswith(where)
