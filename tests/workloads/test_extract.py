"""Whatever an object would run is found, wherever it stands, and no JSON value ends in an exception."""

import copy
import importlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden import workloads
from mlwarden.model.workload import Image, Role
from mlwarden.workloads import KINDS, Kind, Place, Shape

EVIL = "registry.example/evil:1"
CLOSED = {"", "apps", "batch"}
OPEN = [row for row in KINDS if row.group not in CLOSED]
FEW = settings(max_examples=150, deadline=None)


def version(row: Kind) -> str:
    return f"{row.group}/v1" if row.group else "v1"


def by_name(kind: str) -> Kind:
    return next(row for row in KINDS if row.kind == kind)


def at(place: str, value: Any) -> dict[str, Any]:
    """An object with `value` where a path of the table leads."""
    for step in reversed(place.split(".") if place else []):
        name = step.rstrip("[]")
        for _ in range(step.count("[]")):
            value = [value]
        value = {"anything" if name == "*" else name: value}
    result: dict[str, Any] = value
    return result


def shaped(shape: Shape, spec: dict[str, Any]) -> dict[str, Any]:
    match shape:
        case Shape.TEMPLATE:
            return {"metadata": {"labels": {"a": "b"}}, "spec": spec}
        case Shape.SPEC:
            return spec
        case Shape.CONTAINER:
            return {"image": EVIL, "name": "it"}
        case Shape.OBJECT:
            return {"apiVersion": "kubeflow.org/v1", "kind": "Notebook", "spec": {"template": {"spec": spec}}}


def images(obj: Any) -> tuple[Image, ...]:
    return workloads.extract(obj).images


def follow(obj: Any, path: str) -> Any:
    """What a JSON path of ours leads to; proves that the path is right."""
    rest = path
    while rest:
        if rest.startswith("["):
            inside, rest = rest[1:].split("]", 1) if rest[1] != '"' else _quoted(rest)
            obj = obj[json.loads(inside)]
        else:
            rest = rest.removeprefix(".")
            end = min((found for found in (rest.find("."), rest.find("[")) if found >= 0), default=len(rest))
            obj, rest = obj[rest[:end]], rest[end:]
    return obj


def _quoted(rest: str) -> tuple[str, str]:
    key, end = json.JSONDecoder().raw_decode(rest[1:])
    return json.dumps(key), rest[1 + end + 1 :]


@pytest.mark.parametrize("role", ["containers", "initContainers", "ephemeralContainers", "volumes"])
@pytest.mark.parametrize(
    ("row", "place", "shape"),
    [pytest.param(row, place.path, place.shape, id=f"{row.kind}-{place.path}") for row in KINDS for place in row.places],
)
def test_every_row_of_the_table_finds_every_role_in_every_place(row: Kind, place: str, shape: Shape, role: str) -> None:
    spec: dict[str, Any] = {role: [{"name": "it", "image": EVIL}]}
    if role == "volumes":
        spec = {"volumes": [{"name": "it", "image": {"reference": EVIL}}]}
    body = at(place, shaped(shape, spec))
    found = images({"apiVersion": version(row), "kind": row.kind, **body})
    assert [image.reference for image in found] == [EVIL]
    assert follow(body, found[0].path) == EVIL
    assert found[0].owner == "it"


def test_a_pod_tells_its_containers_roles_and_paths() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "team"},
        "spec": {
            "initContainers": [{"name": "init", "image": "i"}],
            "containers": [{"name": "main", "image": "m"}, {"name": "side", "image": "s"}],
            "ephemeralContainers": [{"name": "debug", "image": "d"}],
            "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "weights", "image": {"reference": "w"}}],
        },
    }
    workload = workloads.extract(pod)
    assert workload.is_pod
    assert workload.known
    assert str(workload.resource) == "Pod team/p"
    assert [(image.reference, image.role, image.path, image.owner) for image in workload.images] == [
        ("i", Role.INIT, "spec.initContainers[0].image", "init"),
        ("m", Role.CONTAINER, "spec.containers[0].image", "main"),
        ("s", Role.CONTAINER, "spec.containers[1].image", "side"),
        ("d", Role.EPHEMERAL, "spec.ephemeralContainers[0].image", "debug"),
        ("w", Role.VOLUME, "spec.volumes[1].image.reference", "weights"),
    ]


def test_an_unknown_kind_with_an_embedded_pod_spec_is_found() -> None:
    obj = {"apiVersion": "ml.example/v1", "kind": "Tuner", "spec": {"trials": [{"pod": {"containers": [{"name": "t", "image": EVIL}]}}]}}
    workload = workloads.extract(obj)
    assert not workload.known
    assert [image.path for image in workload.images] == ["spec.trials[0].pod.containers[0].image"]


def test_a_list_is_its_items_known_and_unknown() -> None:
    items = [
        {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"image": "a"}]}},
        {"apiVersion": "x.example/v1", "kind": "Own", "spec": {"template": {"spec": {"containers": [{"image": "b"}]}}}},
        {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"image": "c"}]}}]},
    ]
    workload = workloads.extract({"apiVersion": "v1", "kind": "List", "items": items})
    assert [image.reference for image in workload.images] == ["a", "b", "c"]
    assert not workload.known


@pytest.mark.parametrize("items", [[], [{"a": "b"}], "none", {"a": {}}])
def test_a_kind_that_merely_ends_in_list_is_no_hiding_place(items: Any) -> None:
    spec = {"template": {"spec": {"containers": [{"name": "x", "image": EVIL}]}}}
    found = images({"apiVersion": "x.example/v1", "kind": "AllowList", "items": items, "spec": spec})
    assert [image.path for image in found] == ["spec.template.spec.containers[0].image"]


def test_a_pod_spec_beside_a_container_that_the_table_knows_is_no_hiding_place() -> None:
    model = {"image": "registry.example/good:1", "containers": [{"name": "x", "image": EVIL}]}
    found = images({"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "spec": {"predictor": {"model": model}}})
    assert {image.reference for image in found} == {"registry.example/good:1", EVIL}


def test_argos_pod_spec_patch_is_read_in_json_and_in_yaml_and_an_unknown_image_where_it_is_neither() -> None:
    def workflow(patch: str) -> dict[str, Any]:
        return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": {"podSpecPatch": patch}}

    assert [image.reference for image in images(workflow('{"containers": [{"name": "main", "image": "x"}]}'))] == ["x"]
    assert [image.reference for image in images(workflow("containers:\n- name: main\n  image: x"))] == ["x"]
    assert [image.reference for image in images(workflow("containers: [{name: main, image: x"))] == [""]
    assert images(workflow('{"terminationGracePeriodSeconds": 5}')) == ()


def test_what_is_not_a_string_is_no_reference_and_still_a_container() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": 5, "image": ["x"]}, None, "text"]}}
    workload = workloads.extract(pod)
    assert [(image.reference, image.owner) for image in workload.images] == [("", "")] * 3
    assert len(workload.pods[0].containers) == 3


def test_a_new_kind_is_one_row_of_data(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Kind(group="tuning.example", kind="Sweep", resource="sweeps", places=(Place(path="spec.trial", shape=Shape.CONTAINER),))
    sweep = {"apiVersion": "tuning.example/v1", "kind": "Sweep", "spec": {"trial": {"name": "t", "image": EVIL}}}
    assert images(sweep) == ()
    monkeypatch.setitem(importlib.import_module("mlwarden.workloads.extract")._TABLE, (row.group, row.kind), row)
    assert [image.path for image in images(sweep)] == ["spec.trial.image"]
    assert workloads.extract(sweep).known


def test_an_object_within_an_object_ends_after_one_and_is_looked_through_however_deep() -> None:
    obj: Any = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {"containers": [{"name": "x", "image": EVIL}]}}}}
    for _ in range(3000):
        obj = {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "spec": {"trialTemplate": {"trialSpec": obj}}}
    assert [image.reference for image in images(obj)] == [EVIL]


def test_no_kind_is_in_the_table_twice() -> None:
    assert len({(row.group, row.kind) for row in KINDS}) == len(KINDS)
    assert len({(row.group, row.resource) for row in KINDS}) == len(KINDS)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["spec", "template", "containers", "volumes", "image", "items", "metadata", "kind", "apiVersion", "reference", "predictor"]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@FEW
@given(obj=json_values, row=st.sampled_from(KINDS))
def test_no_json_value_ends_in_an_exception(obj: Any, row: Kind) -> None:
    workloads.extract(obj)
    if isinstance(obj, dict):
        workloads.extract({**obj, "apiVersion": version(row), "kind": row.kind})


def maps(value: Any) -> Iterator[dict[str, Any]]:
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, dict):
            yield top
            stack.extend(top.values())
        elif isinstance(top, list):
            stack.extend(top)


@FEW
@given(data=st.data(), row=st.sampled_from(OPEN), body=st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_a_container_hidden_anywhere_in_an_object_of_a_known_kind_is_found(data: st.DataObject, row: Kind, body: dict[str, Any]) -> None:
    place = data.draw(st.sampled_from(row.places))
    obj: dict[str, Any] = {
        **copy.deepcopy(body),
        **at(place.path, shaped(place.shape, {"containers": [{"name": "good", "image": "good"}]})),
    }
    where = data.draw(st.sampled_from(list(maps(obj))))
    hidden = data.draw(
        st.sampled_from(
            [
                {"containers": [{"name": "x", "image": EVIL}]},
                {"initContainers": [None, {"image": EVIL}]},
                {"ephemeralContainers": [{"image": EVIL}]},
                {"volumes": [{"image": {"reference": EVIL}}]},
            ]
        )
    )
    if data.draw(st.booleans()):
        hidden = {data.draw(st.text(max_size=5).filter(lambda key: key not in {"kind", "apiVersion"})): [hidden]}
    where.update(copy.deepcopy(hidden))
    obj |= {"apiVersion": version(row), "kind": row.kind}
    found = [image for image in images(obj) if image.reference == EVIL]
    assert found
    assert all(follow(obj, image.path) == EVIL for image in found)


@pytest.mark.parametrize("kind", ["Pod", "Notebook", "Unknown"])
def test_depth_is_no_hiding_place_and_no_end(kind: str) -> None:
    deep: Any = {"containers": [{"name": "x", "image": EVIL}]}
    for _ in range(5000):
        deep = {"a": deep}
    obj = {"apiVersion": version(by_name(kind)) if kind != "Unknown" else "x/v1", "kind": kind, "spec": deep}
    found = images(obj)
    assert len(found) == (0 if kind == "Pod" else 1)  # the API server prunes a Pod to its schema


@pytest.mark.parametrize(("version", "kind"), [("ray.io/v1", "RayCluster"), ("example.org/v1", "UnheardOf")])
def test_what_looks_like_a_container_is_none_inside_of_one(version: str, kind: str) -> None:
    inside = {"name": "main", "image": "a:1", "resources": {"image": "b:1", "env": []}}
    spec = {"workerGroupSpecs": [{"template": {"spec": {"containers": [inside]}}}], "beside": {"image": "c:1", "env": []}}
    workload = workloads.extract({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec})
    assert sorted(image.reference for image in workload.images) == ["a:1", "c:1"]


@pytest.mark.parametrize("field", ["securityContext", "affinity", "volumes", "tolerations"])
@pytest.mark.parametrize("shape", [{"image": "b:1", "securityContext": None}, {"containers": [{"name": "b", "image": "b:1"}]}])
def test_what_looks_like_a_container_is_none_in_the_settings_of_a_pod_spec(field: str, shape: dict[str, Any]) -> None:
    spec = {
        "containers": [{"name": "a", "image": "a:1"}],
        field: [shape] if field in {"volumes", "tolerations"} else shape,
        "beside": shape,
    }
    for version, kind, whole in (
        ("serving.kserve.io/v1beta1", "InferenceService", {"predictor": spec}),
        ("example.org/v1", "UnheardOf", {"template": {"spec": spec}, field: {"image": "c:1", "env": []}}),
    ):
        workload = workloads.extract({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": whole})
        found = [image.reference for image in workload.images]
        assert sorted(found) == ["a:1", "b:1", *(["c:1"] if kind == "UnheardOf" else [])]
