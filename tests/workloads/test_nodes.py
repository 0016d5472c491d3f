"""What a pod says of platforms, and how it is kept from those that were not judged."""

from typing import Any

import pytest

from mlwarden.model.nodes import Nodes
from mlwarden.workloads.nodes import confined, permits, required

OURS = Nodes(architectures=("amd64", "arm64"))
OS, ARCH = "kubernetes.io/os", "kubernetes.io/arch"


def asks(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def terms(*of: dict[str, Any]) -> dict[str, Any]:
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(of)}}}}


LINUX = asks(OS, "In", "linux")


@pytest.mark.parametrize(
    ("spec", "permitted", "already"),
    [
        ({}, True, False),
        ({"nodeSelector": {"disk": "fast"}}, True, False),
        ({"nodeSelector": {OS: "linux"}}, True, False),
        ({"nodeSelector": {OS: "linux", ARCH: "amd64"}}, True, True),
        ({"nodeSelector": {ARCH: "s390x"}}, False, False),
        ({"nodeSelector": {OS: "windows"}}, False, False),
        (terms({"matchExpressions": [LINUX, asks(ARCH, "In", "arm64", "s390x")]}), True, False),
        (terms({"matchExpressions": [LINUX, asks(ARCH, "In", "arm64")]}), True, True),
        (terms({"matchExpressions": [asks(ARCH, "NotIn", "amd64", "arm64")]}), False, False),
        (terms({"matchExpressions": [asks(ARCH, "NotIn", "amd64")]}), True, False),
        (terms({"matchExpressions": [asks(ARCH, "DoesNotExist")]}), False, False),
        (terms({"matchExpressions": [asks(ARCH, "Exists")]}), True, False),
        (terms({"matchExpressions": [LINUX, asks(ARCH, "In", "amd64")]}, {"matchExpressions": [asks(ARCH, "In", "s390x")]}), True, False),
        (terms({"matchFields": [asks("metadata.name", "In", "node-3")]}), True, False),
        (terms({}), False, True),
    ],
)
def test_whether_a_pod_may_go_where_it_was_judged_and_nowhere_else(spec: dict[str, Any], *, permitted: bool, already: bool) -> None:
    assert (permits(spec, OURS), confined(spec, OURS)) == (permitted, already)


def test_a_pod_that_is_kept_is_confined_and_keeps_what_it_asked_for() -> None:
    own = {"matchExpressions": [asks("gpu", "Exists")], "matchFields": [asks("metadata.name", "In", "node-3")]}
    spec = terms(own, {}, {"matchFields": [asks("metadata.name", "In", "node-4")]})
    first, empty, last = required(spec, OURS)["nodeSelectorTerms"]
    assert first["matchExpressions"][0] == own["matchExpressions"][0]  # the API server compares what stood there, in order
    assert first["matchFields"] == own["matchFields"]
    assert empty == {}  # matches nothing; with a requirement it would match something
    assert last["matchExpressions"] == first["matchExpressions"][1:]
    assert confined(terms(first, empty, last), OURS)


def test_nodes_of_two_images_are_those_that_suit_both() -> None:
    assert OURS.both(Nodes()) == OURS == Nodes().both(OURS)
    assert OURS.both(Nodes(architectures=("arm64", "s390x"))) == Nodes(architectures=("arm64",))
    assert OURS.both(Nodes(architectures=("s390x",))) is None
    assert [OURS.has(platform) for platform in ("linux/amd64", "linux/s390x", "windows/amd64", "linux", "")] == [True, *[False] * 4]
    assert Nodes().has("linux/s390x")
