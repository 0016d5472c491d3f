"""A pod that every shipped policy is content with, the samples that change it, and our own answer about an object."""

import copy
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlwarden import checks, policy, workloads
from mlwarden.checks.answer import Answer
from mlwarden.model.evidence import Facts
from mlwarden.model.policy import Policy
from mlwarden.policy import CompiledPolicy

SAMPLES = Path(__file__).parent / "samples"
TRUSTED = ("registry.example.com", "localhost:5000/team", "docker.io/pytorch", "docker.io/library", "quay.io/jupyter/")
TEMPLATES = {
    "Deployment": ("apps/v1", "deployments", ("template",)),
    "StatefulSet": ("apps/v1", "statefulsets", ("template",)),
    "Job": ("batch/v1", "jobs", ("template",)),
    "CronJob": ("batch/v1", "cronjobs", ("jobTemplate", "spec", "template")),
}


def good_pod() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "sample", "namespace": "default"},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container("main")],
        },
    }


def container(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": "registry.example.com/train:1.0",
        "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def built(sample: dict[str, Any]) -> dict[str, Any]:
    """The good pod with a sample's changes."""
    pod = good_pod()
    pod["metadata"] = merged(pod["metadata"], sample.get("metadata", {}))
    spec = pod["spec"] = merged(pod["spec"], sample.get("spec", {}))
    spec["containers"] = [merged(spec["containers"][0], sample.get("container", {}))]
    if "init" in sample:
        spec["initContainers"] = [merged(container("initial"), sample["init"])]
    if "ephemeral" in sample:
        spec["ephemeralContainers"] = [merged(container("debug"), sample["ephemeral"])]
    if "volume" in sample:
        spec["volumes"] = [{"name": "extra", **sample["volume"]}]
    return pod


def templated(pod: dict[str, Any], kind: str) -> dict[str, Any]:
    """A workload object of `kind` around a pod."""
    version, _, path = TEMPLATES[kind]
    spec = {**pod["spec"], **({"restartPolicy": "Never"} if version == "batch/v1" else {})}
    metadata = {key: value for key, value in pod["metadata"].items() if key in {"annotations", "labels"}}
    metadata["labels"] = {**metadata.get("labels", {}), "app": "sample"}
    inner: dict[str, Any] = {"metadata": metadata, "spec": spec}
    for step in reversed(path):
        inner = {step: inner}
    if kind in {"Deployment", "StatefulSet"}:
        inner["selector"] = {"matchLabels": {"app": "sample"}}
    if kind == "CronJob":
        inner["schedule"] = "0 0 * * *"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "sample", "namespace": "default"}, "spec": inner}


def samples() -> list[tuple[str, str, dict[str, Any]]]:
    """Policy, `good` or `bad`, sample."""
    found = []
    for file in sorted(SAMPLES.glob("*.yaml")):
        (document,) = policy.yaml_loads(file.read_text())
        found += [(file.stem, kind, sample) for kind in ("good", "bad") for sample in document[kind]]
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"name", "kind", "sample"} <= set(metafunc.fixturenames):
        table = samples()
        metafunc.parametrize(("name", "kind", "sample"), table, ids=[f"{name}: {kind}: {sample['about']}" for name, kind, sample in table])


@pytest.fixture(scope="session")
def shipped() -> dict[str, CompiledPolicy]:
    return {each.name: policy.compile_policy(each) for each in policy.shipped(TRUSTED)}


@pytest.fixture(scope="session")
def packs() -> tuple[Policy, ...]:
    """The shipped policies, where it was decided which registries are trusted."""
    return policy.shipped(TRUSTED)


@pytest.fixture(scope="session")
def table() -> list[tuple[str, str, dict[str, Any]]]:
    return samples()


@pytest.fixture(scope="session")
def build() -> Callable[[dict[str, Any]], dict[str, Any]]:
    return built


@pytest.fixture(scope="session")
def template() -> Callable[[dict[str, Any], str], dict[str, Any]]:
    return templated


@pytest.fixture(scope="session")
def judge() -> Callable[[CompiledPolicy, Any], Iterable[Answer]]:
    """Our own answers of one policy about an object."""
    facts = Facts(now=datetime(2026, 11, 24, tzinfo=UTC), namespace={"metadata": {"name": "default", "labels": {}}}, profile="production")

    def answers(compiled: CompiledPolicy, obj: Any) -> list[Answer]:
        workload = workloads.extract(obj)
        found = policy.matches(compiled, workload, facts)
        assert isinstance(found, bool), found
        return list(checks.judge(compiled, workload, facts)) if found else []

    return answers
