"""The API server takes the CRD and every shipped policy, and refuses nonsense by itself, exactly where the loader does."""

import copy
import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import msgspec
import pytest

from mlwarden import policy
from mlwarden.embedded.api import ApiError
from mlwarden.errors import PolicyError

pytestmark = pytest.mark.cluster

GOOD = {
    "apiVersion": "mlwarden.io/v1alpha1",
    "kind": "WardenPolicy",
    "metadata": {"name": "sample"},
    "spec": {
        "profiles": {"production": "Deny", "*": "Warn"},
        "match": {
            "resources": [{"apiGroups": ["", "*"], "resources": ["pods"]}],
            "objectSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}], "matchLabels": {"c": "d"}},
            "conditions": [{"name": "one", "expression": "true"}],
        },
        "requirement": {"expression": {"forEach": "container", "expression": "true", "path": "image"}},
        "onUnknown": "Deny",
        "severity": "low",
        "message": "a",
        "why": "b",
        "references": ["c"],
        "fix": {"text": "d", "patch": {"image": "x", "securityContext": {"privileged": False}}},
    },
}
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
URL = "/apis/mlwarden.io/v1alpha1/wardenpolicies"


@pytest.fixture(scope="module")
def api(cluster: Any) -> Iterator[Any]:
    found = cluster.api()
    existed = any(each["metadata"]["name"] == policy.crd()["metadata"]["name"] for each in found.get(DEFINITIONS)["items"])
    path = f"{DEFINITIONS}/{policy.crd()['metadata']['name']}"
    deadline = time.monotonic() + 60
    while not established(found, path) or not served(found):  # one that another folder deleted may still be going
        assert time.monotonic() < deadline
        time.sleep(0.1)
    conditions = {each["type"]: each["status"] for each in found.get(path)["status"]["conditions"]}
    assert conditions.get("NonStructuralSchema", "False") == "False"
    yield found
    if not existed:
        found.delete(path)


def established(api: Any, path: str) -> bool:
    found = api.apply(path, policy.crd())
    conditions = {each["type"]: each["status"] for each in found.get("status", {}).get("conditions") or []}
    return "deletionTimestamp" not in found["metadata"] and conditions.get("Established") == "True"


def served(api: Any) -> bool:
    try:
        api.get(URL)
    except ApiError as error:
        if error.code not in {404, 429, 503}:
            raise
        return False
    return True


def test_every_shipped_policy_is_accepted_strictly(api: Any) -> None:
    for file in sorted((files("mlwarden") / "packs").glob("*/*.yaml")):  # type: ignore[attr-defined]
        for document in policy.yaml_loads(file.read_text()):
            api.create(URL, document, dryRun="All", fieldValidation="Strict")


def test_a_full_policy_survives_the_way_there_and_back(api: Any) -> None:
    stored = api.create(URL, GOOD, fieldValidation="Strict")
    try:
        assert stored["spec"] == GOOD["spec"]
        assert policy.parse(stored) == policy.parse(GOOD)
        condition = {"type": "Ready", "status": "True", "observedGeneration": 1, "reason": "Compiles", "message": "",
                     "lastTransitionTime": "2026-11-24T00:00:00Z"}  # fmt: skip
        status = {"observedGeneration": 1, "requirement": "expression", "conditions": [condition]}
        found = api.patch(f"{URL}/sample/status", {"status": status})
        assert found["status"] == status
        assert msgspec.convert(found["status"], policy.PolicyStatus).conditions[0].reason == "Compiles"
    finally:
        api.delete(f"{URL}/sample")


def test_kubectl_get_shows_the_columns(api: Any, cluster: Any) -> None:
    api.create(URL, GOOD)
    try:
        header, row = cluster.kubectl("get", "wp", "sample", "-o", "wide").splitlines()
        assert header.split() == ["NAME", "SEVERITY", "REQUIREMENT", "READY", "COMPILED", "ACCEPTED", "AGE", "REASON", "MESSAGE"]
        assert row.split()[:2] == ["sample", "low"]
    finally:
        api.delete(f"{URL}/sample")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("metadata.name", "a.b", "DNS label"),
        ("metadata.name", "a" * 64, "DNS label"),
        ("spec.profiles", {}, "at least 1"),
        ("spec.profiles", {"a b": "Deny"}, "a profile is a label value"),
        ("spec.profiles", {"production": "Refuse"}, "supported values"),
        ("spec.profiles", {str(index): "Deny" for index in range(17)}, "at most 16"),
        ("spec.requirement", {}, "exactly one requirement"),
        ("spec.requirement", {"expression": {"expression": "true"}, "imageScan": {}}, "exactly one requirement"),
        ("spec.requirement", {"expression": {"expression": ""}}, "at least 1"),
        ("spec.requirement", {"expression": {"expression": "x" * 16385}}, "16384"),
        ("spec.requirement", {"expression": {"expression": "true", "forEach": "objects"}}, "supported values"),
        ("spec.requirement", {"imageScan": {"maxAge": "7"}}, "maxAge"),
        ("spec.requirement", {"imageScan": {"maxAge": "7d\n"}}, "maxAge"),
        ("spec.requirement", {"imageScan": {"maxAge": "0d"}}, "maxAge"),
        ("spec.requirement", {"imageScan": {"severity": "high"}}, "supported values"),
        ("spec.requirement", {"imageScan": {"maximum": {"high": 1}}}, "severities are CRITICAL"),
        ("spec.requirement", {"imageScan": {"maximum": {"HIGH": -1}}}, "maximum"),
        ("spec.requirement", {"imageScan": {"databaseMaxAge": "3"}}, "databaseMaxAge"),
        ("spec.requirement", {"unheard": {}}, "unknown field"),
        ("spec.unheard", 1, "unknown field"),
        ("spec.severity", "fatal", "supported values"),
        ("spec.onUnknown", "Pass", "supported values"),
        ("spec.exceptions", "no", "boolean"),
        ("spec.exceptions", True, "there are no exceptions yet"),
        *(
            ("spec.requirement", {"imageSignature": {"images": [glob], "authorities": [{"name": "a", "key": "k"}]}}, says)
            for glob, says in (
                ("*", "matches no image"),
                ("https://registry.example.com/**", "without a scheme"),
                ("registry.example.com", "a registry has a repository behind it"),
                ("localhost", "a registry has a repository behind it"),
                ("python:3.12", "tags and digests are no part"),
                ("registry.example.com/Team/*", "lowercase"),
                ("registry.example.com/team/x:1", "tags are no part"),
            )
        ),
        ("spec.message", "a\nb", "one line"),
        ("spec.message", "a\n", "one line"),
        ("spec.message", "x" * 301, "300"),
        ("spec.message", "", "at least 1"),
        ("spec.why", "a\rb", "one line"),
        ("spec.references", ["a\nb"], "one line"),
        ("spec.fix", {"text": "a\n"}, "one line"),
        ("spec.fix", {"patch": {}}, "text"),
        ("spec.match.conditions", [{"name": "a", "expression": "true"}] * 2, "Duplicate value"),
        ("spec.match.resources", [{"apiGroups": [], "resources": ["pods"]}], "at least 1"),
        ("spec.match.resources", [{"apiGroups": [""], "resources": ["pods/exec"]}], "resources"),
        ("spec.match.objectSelector", {"matchExpressions": [{"key": "a", "operator": "In"}]}, "need values"),
        ("spec.match.objectSelector", {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}, "take none"),
        ("spec.match.objectSelector", {"matchExpressions": [{"key": "a", "operator": "Is"}]}, "supported values"),
    ],
)
def test_nonsense_is_refused(api: Any, path: str, value: Any, says: str) -> None:
    bad = changed(path, value)
    with pytest.raises(ApiError) as caught:
        api.create(URL, bad, dryRun="All", fieldValidation="Strict")
    assert caught.value.code in {400, 422}
    assert says in caught.value.message
    with pytest.raises(PolicyError):  # and here as well: the two never disagree
        policy.accepted(policy.parse(bad))


@pytest.mark.parametrize("glob", ["**", "python", "*/x", "Registry.example.com:05000/**", "[::1]:5000/**", "localhost/x"])
def test_a_glob_that_can_match_is_stored(api: Any, glob: str) -> None:
    good = changed("spec.requirement", {"imageSignature": {"images": [glob], "authorities": [{"name": "a", "key": "k"}]}})
    api.create(URL, good, dryRun="All", fieldValidation="Strict")
    policy.accepted(policy.parse(good))


def test_for_each_object_needs_resources(api: Any) -> None:
    bad = changed("spec.match", {})
    bad["spec"]["requirement"]["expression"]["forEach"] = "object"
    with pytest.raises(ApiError, match=r"needs match\.resources"):
        api.create(URL, bad, dryRun="All")
    del bad["spec"]["match"]
    with pytest.raises(ApiError, match=r"needs match\.resources"):
        api.create(URL, bad, dryRun="All")


def changed(path: str, value: Any) -> dict[str, Any]:
    found: dict[str, Any] = copy.deepcopy(GOOD)
    *steps, last = path.split(".")
    inner = found
    for step in steps:
        inner = inner[step]
    inner[last] = value
    return found
