"""A manifest that names a tag is applied again to a pod that was pinned: by the API server alone, while no webhook answers."""

import copy
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.controllers.release import disowned, pin_patch, release_patch
from mlwarden.controllers.restoring import restoring_objects
from mlwarden.embedded.api import APPLY_PATCH, STRATEGIC_PATCH, ApiError
from mlwarden.engine.restored import is_tag_of
from mlwarden.model.finding import Decision, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import FailHeld  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster

DIGEST = "sha256:" + "d" * 64


def a_pod(name: str, image: str, *, model: str = "") -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"name": "main", "image": image}], "initContainers": [{"name": "first", "image": image}]}
    if model:
        spec["volumes"] = [{"name": "empty", "emptyDir": {}}, {"name": "model", "image": {"reference": model}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def home(held: "FailHeld") -> Iterator[str]:
    namespace = held.namespace()
    objects = restoring_objects(held.settings)
    for obj in objects:
        held.admin.apply(held.admission_path(obj), obj, manager="mlwarden")
    path = f"/api/v1/namespaces/{namespace}/pods/probe"
    held.create(namespace, a_pod("probe", f"registry.example/app:1@{DIGEST}"))
    held.release(namespace, "probe")

    def in_force() -> bool:
        try:
            held.alice.patch(path, a_pod("probe", "registry.example/app:1"), content_type=STRATEGIC_PATCH)
        except ApiError:
            return False
        return True

    held.until(in_force)
    yield namespace
    for obj in reversed(objects):
        held.admin.delete(held.admission_path(obj))


def images(pod: dict[str, Any]) -> list[str]:
    spec = pod["spec"]
    volumes = [each["image"]["reference"] for each in spec.get("volumes", ()) if "image" in each]
    return [each["image"] for each in (*spec["initContainers"], *spec["containers"])] + volumes


def applied(held: "FailHeld", path: str, body: dict[str, Any], manager: str = "gitops") -> dict[str, Any]:
    """Server-side apply that takes nothing over."""
    answer: dict[str, Any] = held.alice.request("PATCH", path, body, query={"fieldManager": manager}, content_type=APPLY_PATCH)
    return answer


def pinned_by_mlwarden(held: "FailHeld", home: str, body: dict[str, Any], pinned: str) -> str:
    """Applied server side, pinned and released as the releaser does it; returns its path."""
    path = f"/api/v1/namespaces/{home}/pods/{body['metadata']['name']}"
    stored = applied(held, path, body)
    pins = {"spec.containers[0].image": pinned, "spec.initContainers[0].image": pinned}
    verdict = Verdict(decision=Decision.ADMIT, findings=(), pins=pins)
    patch = {"content_type": STRATEGIC_PATCH, "fieldManager": "mlwarden"}
    stored = held.account(held.settings.releaser).patch(path, pin_patch(stored, verdict), **patch)
    assert disowned(stored) is not None
    stored = held.account(held.settings.releaser).patch(path, release_patch(stored, seal="{}"), **patch)
    assert images(stored)[:2] == [pinned, pinned]
    assert disowned(stored) is None
    return path


@pytest.mark.parametrize("named", ["registry.example/app:1", "registry.example:5000/team/app", "python", "docker.io/team/app:2"])
def test_applied_again_on_the_client_side_it_passes_and_keeps_its_digest(held: "FailHeld", home: str, named: str) -> None:
    from mlwarden.model.reference import parse

    pinned = parse(named).pinned(DIGEST)  # type: ignore[arg-type]
    name = "client-" + re.sub("[^a-z0-9]+", "-", named)
    held.create(home, a_pod(name, pinned, model=pinned))
    held.release(home, name)
    path = f"/api/v1/namespaces/{home}/pods/{name}"
    body = a_pod(name, named, model=named)
    for kind in (STRATEGIC_PATCH, "application/merge-patch+json"):
        merged = body if kind == STRATEGIC_PATCH else whole(held.admin.get(path), named)
        assert images(held.alice.patch(path, merged, content_type=kind)) == [pinned] * 3
    assert images(held.alice.request("PUT", path, whole(held.admin.get(path), named))) == [pinned] * 3


def whole(pod: dict[str, Any], named: str) -> dict[str, Any]:
    changed = copy.deepcopy(pod)
    del changed["metadata"]["resourceVersion"]  # the scheduler writes meanwhile
    for each in (*changed["spec"]["containers"], *changed["spec"]["initContainers"]):
        each["image"] = named
    for volume in changed["spec"]["volumes"]:
        if "image" in volume:
            volume["image"]["reference"] = named
    return changed


def test_applied_again_on_the_server_side_it_meets_no_conflict_over_what_was_pinned(
    held: "FailHeld", home: str, attack: "Callable[[str, str, str], None]"
) -> None:
    body = a_pod("server", "registry.example/app:1")
    path = pinned_by_mlwarden(held, home, body, f"registry.example/app:1@{DIGEST}")
    for _ in range(2):
        assert images(applied(held, path, body)) == [f"registry.example/app:1@{DIGEST}"] * 2
    with pytest.raises(ApiError) as caught:
        applied(held, path, a_pod("server", "registry.example/app:2"))
    assert "the images of a judged pod do not change" in caught.value.message
    attack("the same manifest is applied again, server side", "409 conflict with mlwarden, or 403", "passes; the digest stays")


@pytest.mark.parametrize(
    "named",
    ["registry.example/app:2", "registry.example/app", "registry.example/other:1", f"registry.example/app:1@sha256:{'e' * 64}", "app:1"],
)
def test_another_image_is_refused_as_before(held: "FailHeld", home: str, named: str) -> None:
    name = "other-" + named.replace("/", "-").replace(":", "-").replace("@", "-")[:40]
    held.create(home, a_pod(name, f"registry.example/app:1@{DIGEST}"))
    held.release(home, name)
    with pytest.raises(ApiError) as caught:
        held.alice.patch(f"/api/v1/namespaces/{home}/pods/{name}", a_pod(name, named), content_type=STRATEGIC_PATCH)
    assert "the images of a judged pod do not change" in caught.value.message


def test_a_pod_that_was_released_with_other_peoples_gates_keeps_its_digest_too(held: "FailHeld", home: str) -> None:
    pinned = f"registry.example/app:1@{DIGEST}"
    body = a_pod("gated", pinned)
    body["spec"]["schedulingGates"] = [{"name": "example.com/other"}]
    held.create(home, body)
    held.release(home, "gated")
    path = f"/api/v1/namespaces/{home}/pods/gated"
    assert images(held.alice.patch(path, a_pod("gated", "registry.example/app:1"), content_type=STRATEGIC_PATCH)) == [pinned] * 2


def test_while_a_pod_is_held_a_container_may_name_its_tag_again_and_a_volume_keeps_its_digest(held: "FailHeld", home: str) -> None:
    pinned = f"registry.example/app:1@{DIGEST}"
    held.create(home, a_pod("held", pinned, model=pinned))
    path = f"/api/v1/namespaces/{home}/pods/held"
    again = held.alice.patch(path, whole(held.admin.get(path), "registry.example/app:1"))
    assert images(again) == ["registry.example/app:1", "registry.example/app:1", pinned]


def test_the_api_server_and_the_webhook_agree_on_what_one_image_is(held: "FailHeld", home: str) -> None:
    """Every spelling against every pin, by the CEL in the API server and by `is_tag_of`."""
    spellings = [
        "python",
        "python:3",
        "library/python:3",
        "docker.io/python:3",
        "docker.io/library/python:latest",
        "index.docker.io/python",
    ]
    spellings += ["localhost/python:3", "localhost:5000/python", "quay.io/python:3", "team/python:3", "index.docker.io/team/python:3"]
    pins = ["docker.io/library/python:3", "docker.io/library/python:latest", "localhost/python:3", "localhost:5000/python:latest"]
    pins += ["quay.io/python:3", "docker.io/team/python:3", "docker.io/quay.io/python:3"]
    for number, pin in enumerate(pins):
        pinned = f"{pin}@{DIGEST}"
        name = f"agree-{number}"
        held.create(home, a_pod(name, pinned))
        held.release(home, name)
        path = f"/api/v1/namespaces/{home}/pods/{name}"
        for spelling in spellings:
            kept = True
            try:
                held.alice.patch(path, a_pod(name, spelling), content_type=STRATEGIC_PATCH, dryRun="All")
            except ApiError as error:
                kept = error.code != 403
            assert kept == is_tag_of(spelling, pinned), (spelling, pinned)


def test_elsewhere_than_where_pods_are_held_it_is_the_same(held: "FailHeld", home: str) -> None:
    """Nothing refuses there: the containers of a pod would start anew at every apply."""
    namespace = held.namespace("baseline")
    pinned = f"registry.example/app:1@{DIGEST}"
    held.create(namespace, a_pod("free", pinned))
    path = f"/api/v1/namespaces/{namespace}/pods/free"
    assert images(held.alice.patch(path, a_pod("free", "registry.example/app:1"), content_type=STRATEGIC_PATCH)) == [pinned] * 2
    assert (
        images(held.alice.patch(path, a_pod("free", "registry.example/app:2"), content_type=STRATEGIC_PATCH))[0] == "registry.example/app:2"
    )


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
OURS = [
    {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
    {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
]
ZONE = {"key": "zone", "operator": "In", "values": ["a"]}
SPREAD = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {"matchExpressions": [ZONE]}}]}


def affine(*terms: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    required = {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": list(each)} for each in terms]}} if terms else {}
    return {"nodeAffinity": {**required, **more}}


@pytest.mark.parametrize("is_held", [True, False])
def test_a_manifest_with_node_affinity_keeps_the_platforms_that_its_pod_was_kept_to(held: "FailHeld", home: str, *, is_held: bool) -> None:
    from mlwarden.controllers.release import pin_patch
    from mlwarden.model.nodes import Nodes

    name = f"affine-{str(is_held).lower()}"
    body = a_pod(name, f"registry.example/app:1@{DIGEST}")
    body["spec"]["affinity"] = affine([ZONE], **SPREAD)
    path = f"/api/v1/namespaces/{home}/pods/{name}"
    stored = applied(held, path, body)
    verdict = Verdict(decision=Decision.ADMIT, findings=(), pins={}, nodes=Nodes(architectures=("amd64",)))
    patch = {"content_type": STRATEGIC_PATCH, "fieldManager": "mlwarden"}
    stored = held.account(held.settings.releaser).patch(path, pin_patch(stored, verdict), **patch)
    kept = affine([ZONE, *OURS], **SPREAD)
    assert stored["spec"]["affinity"] == kept
    if not is_held:
        stored = held.account(held.settings.releaser).patch(path, release_patch(stored, seal="{}"), **patch)
        assert applied(held, path, body)["spec"]["affinity"] == kept
    assert held.alice.patch(path, body, content_type=STRATEGIC_PATCH)["spec"]["affinity"] == kept
    other = copy.deepcopy(body)
    other["spec"]["affinity"] = affine([{**ZONE, "values": ["b"]}], **SPREAD)
    with pytest.raises(ApiError) as caught:
        held.alice.patch(path, other, content_type=STRATEGIC_PATCH)
    assert caught.value.code == 422


@pytest.mark.parametrize(
    ("stored", "named", "same"),
    [
        (affine(OURS), {}, True),
        (affine(OURS), None, True),
        (affine([ZONE, *OURS]), affine([ZONE]), True),
        (affine([ZONE, *OURS], [*OURS]), affine([ZONE], []), True),
        (affine([ZONE]), None, False),
        (affine([ZONE, *OURS]), None, False),
        (affine([ZONE, *OURS]), affine([{**ZONE, "values": ["b"]}]), False),
        (affine([ZONE, *OURS]), affine([ZONE], [ZONE]), False),
        (affine([*OURS, ZONE]), affine(OURS), False),
        (affine([ZONE, *OURS]), affine([ZONE], **SPREAD), False),
    ],
)
def test_the_webhook_knows_what_was_put_there(stored: Any, named: Any, *, same: bool) -> None:
    from mlwarden.workloads import nodes

    new = {} if named is None else {"affinity": named}
    assert nodes.named_again({"affinity": stored}, new) == (stored if same else None)
