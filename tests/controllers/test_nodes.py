"""A held pod is kept to the nodes that its images were judged for, by the controller with the chart's rights, before it is released."""

from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.workloads import is_gated

from .test_controller import CLEAN, events, unique  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from conftest import Running

pytestmark = pytest.mark.cluster
MANY = {**CLEAN, "manifests": ["sha256:" + "1" * 64], "platforms": ["linux/amd64", "linux/arm64"]}
PARTLY = {**MANY, "unjudged": ["windows/amd64", "linux/s390x"]}
KEPT = [
    {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
    {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]},
]
GPU = {"key": "gpu", "operator": "Exists"}
NODE = {"key": "metadata.name", "operator": "In", "values": ["node-0"]}


@pytest.fixture
def space(running: "Running") -> str:
    """A holding namespace."""
    return running.held.namespace()


def affinity(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


def released(running: "Running", space: str, body: dict[str, Any], scan: dict[str, Any], named: tuple[str, str]) -> dict[str, Any]:
    image, digest = named
    running.held.create(space, body)
    running.answer(image, digest=digest)
    running.answer(f"{image.removesuffix(':1')}@{digest}", scan=scan)
    name = body["metadata"]["name"]
    pod: dict[str, Any] = running.held.until(
        lambda: not is_gated(found := running.admin.get(f"/api/v1/namespaces/{space}/pods/{name}")) and found
    )
    assert pod["spec"]["containers"][0]["image"] == f"{image}@{digest}"
    return pod


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        (None, affinity({"matchExpressions": KEPT})),
        (
            {**affinity({"matchExpressions": [GPU]}, {"matchFields": [NODE]}), "podAntiAffinity": {}},
            {**affinity({"matchExpressions": [GPU, *KEPT]}, {"matchFields": [NODE], "matchExpressions": KEPT}), "podAntiAffinity": {}},
        ),
        (affinity({"matchExpressions": [GPU]}, {}), affinity({"matchExpressions": [GPU, *KEPT]}, {})),
    ],
    ids=["nothing of its own", "alternatives, a DaemonSet's among them", "a term that matches nothing"],
)
def test_a_pod_goes_only_where_its_index_was_judged(running: "Running", space: str, good_pod: Any, own: Any, kept: Any) -> None:
    image, digest = unique()
    body = good_pod("p", image, **({"affinity": own} if own else {}))
    assert released(running, space, body, PARTLY, (image, digest))["spec"]["affinity"] == kept


def test_an_image_that_the_webhook_pinned_already_is_kept_there_too(running: "Running", space: str, good_pod: Any) -> None:
    image, digest = unique()
    pinned = f"{image}@{digest}"
    running.held.create(space, good_pod("p", pinned))
    running.answer(pinned, scan=PARTLY)
    pod = running.held.until(lambda: not is_gated(found := running.held.pods(space)[0]) and found)
    assert pod["spec"]["affinity"] == affinity({"matchExpressions": KEPT})


@pytest.mark.parametrize("scan", [CLEAN, MANY], ids=["an image for one platform", "an index of which everything was judged"])
def test_what_was_judged_whole_is_asked_for_nothing(running: "Running", space: str, good_pod: Any, scan: Any) -> None:
    image, digest = unique()
    body = good_pod("p", image, nodeSelector={"kubernetes.io/arch": "s390x"})
    assert "affinity" not in released(running, space, body, scan, (image, digest))["spec"]


def test_a_pod_for_nodes_that_were_not_judged_waits_and_says_so(running: "Running", space: str, good_pod: Any, attack: Any) -> None:
    image, digest = unique()
    running.held.create(space, good_pod("p", f"{image}@{digest}", nodeSelector={"kubernetes.io/os": "windows"}))
    running.answer(f"{image}@{digest}", scan=PARTLY)
    said = running.held.until(lambda: [each for each in events(running, space, "Held") if "only" in each["message"]])
    assert "was scanned for linux/amd64, linux/arm64 only, and its pod asks for other nodes" in said[0]["message"]
    assert is_gated(running.held.pods(space)[0])
    attack("an index clean for linux/amd64, a pod that selects Windows nodes", "released, ran what nobody scanned", "held, and says why")
