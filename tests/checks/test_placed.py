"""An index that has more than was judged: the pod runs where it was judged, or it is not known what it would run."""

from typing import Any

import pytest

from mlwarden import checks, workloads
from mlwarden.checks.placed import ASKED_AGAIN
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Facts, ImageFacts, Phase
from mlwarden.model.finding import Outcome
from mlwarden.model.nodes import Nodes

from .scans import DIGEST, NOW, PINNED, compiled, ready, scan  # type: ignore[import-not-found]

MANY: dict[str, Any] = {"manifests": ("sha256:" + "1" * 64,), "platforms": ("linux/amd64", "linux/arm64")}
LEFT = {**MANY, "unjudged": ("windows/amd64", "linux/s390x")}
OTHER = Digest("sha256:" + "b" * 64)


def answers(found: dict[str, Any], *, images: tuple[str, ...] = (PINNED,), facts: dict[str, Any] | None = None, **spec: Any) -> Any:
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "train"}, "spec": {"containers": containers, **spec}}
    known = Facts(now=NOW, namespace={}, profile="production", **{"images": ready(scan(**found)), **(facts or {})})
    return checks.judge(compiled(), workloads.extract(pod), known)


def answer(found: dict[str, Any], **more: Any) -> checks.Answer:
    only: checks.Answer
    (only,) = answers(found, **more)
    return only


@pytest.mark.parametrize("found", [{}, MANY], ids=["one image", "an index of which everything was judged"])
@pytest.mark.parametrize("spec", [{}, {"nodeSelector": {"kubernetes.io/arch": "s390x"}}, {"nodeName": "nobody-knows"}])
def test_what_was_judged_whole_runs_anywhere(found: dict[str, Any], spec: dict[str, Any]) -> None:
    said = answer(found, **spec)
    assert (said.outcome, said.nodes) == (Outcome.PASS, None)


def test_what_was_judged_in_part_passes_for_those_nodes() -> None:
    assert answer(LEFT).nodes == Nodes(architectures=("amd64", "arm64"))
    assert answer({**MANY, "platforms": ()}).nodes == Nodes()  # by a version that did not write it down: Linux alone was looked at


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"nodeSelector": {"kubernetes.io/arch": "s390x"}}, "its pod asks for other nodes"),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, "its pod asks for other nodes"),
        ({"nodeName": "w"}, "the node w is windows/amd64"),
        ({"nodeName": "x"}, "the platform of the node x is not known"),
    ],
)
def test_it_is_unknown_elsewhere(spec: dict[str, Any], says: str) -> None:
    said = answer(LEFT, facts={"nodes": {"w": "windows/amd64", "n": "linux/arm64"}}, **spec)
    assert said.outcome is Outcome.UNKNOWN
    assert f"was scanned for linux/amd64, linux/arm64 only, and {says}" in said.message
    assert "scanner.architectures" in said.fix


def test_a_pod_that_names_a_judged_node_passes() -> None:
    assert answer(LEFT, facts={"nodes": {"n": "linux/arm64"}}, nodeName="n").outcome is Outcome.PASS


def test_a_debug_container_is_judged_by_the_node_of_its_pod() -> None:
    debugged = {"ephemeralContainers": [{"name": "d", "image": PINNED}]}
    nodes = {"nodes": {"w": "windows/amd64", "n": "linux/amd64"}}
    assert answer(LEFT, images=(), facts=nodes, nodeName="n", **debugged).outcome is Outcome.PASS
    assert answer(LEFT, images=(), facts=nodes, nodeName="w", **debugged).outcome is Outcome.UNKNOWN
    assert "has no node yet" in answer(LEFT, images=(), **debugged).message
    kept = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    assert answer(LEFT, images=(), nodeSelector=kept, **debugged).outcome is Outcome.PASS


def test_two_images_for_different_nodes_have_no_node_together() -> None:
    second = scan(**{**LEFT, "platforms": ("linux/s390x",)})
    both = {"images": {**ready(scan(**LEFT)), OTHER: ImageFacts(digest=OTHER, phase=Phase.READY, scan=second)}}
    first, last = answers(LEFT, images=(PINNED, PINNED.replace(str(DIGEST), str(OTHER))), facts=both)
    assert first.outcome is Outcome.PASS
    assert (last.outcome, "other images of its pod for linux/amd64, linux/arm64 only" in last.message) == (Outcome.UNKNOWN, True)


def test_a_scan_that_left_something_out_is_asked_for_again_now_and_then() -> None:
    wanted = [
        answer({**LEFT, "scanned_at": NOW - age, "database_at": NOW - age}, nodeSelector={"kubernetes.io/arch": "s390x"}).wanted
        for age in (ASKED_AGAIN / 2, ASKED_AGAIN * 2)
    ]
    assert wanted == ["", PINNED]
