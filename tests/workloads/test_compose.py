"""What operators merge: where each field is written, and that no object makes the work grow with its square."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden import workloads
from mlwarden.model.workload import Partial, Pod, Role
from mlwarden.workloads import KINDS, Place, Shape, compose, merge, podspec

IMAGE = "registry.example/train:1"


def pods(spec: dict[str, Any]) -> tuple[Pod, ...]:
    return workloads.extract({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {}, "spec": spec}).pods


def test_each_field_is_where_it_is_written() -> None:
    spec = {
        "serviceAccountName": "all",
        "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}],
        "templateDefaults": {"container": {"env": [{"name": "X", "value": "1"}]}, "sidecars": [{"name": "log", "image": "log:1"}]},
        "templates": [
            {
                "name": "main",
                "volumes": [{"name": "own", "emptyDir": {}}],
                "sidecars": [{"name": "metrics", "image": "metrics:1"}],
                "container": {"image": IMAGE, "volumeMounts": [{"name": "b", "mountPath": "/b"}]},
                "podSpecPatch": "containers: [{name: main, env: [{name: Z, value: '2'}]}]",
            }
        ],
    }
    pod = next(each for each in pods(spec) if each.path == "spec.templates[0]")
    assert pod.where("serviceAccountName") == "spec.serviceAccountName"
    assert pod.where("volumes[0]") == "spec.templates[0].volumes[0]"
    assert pod.where("volumes[1].emptyDir") == "spec.volumes[1].emptyDir"
    assert pod.where("hostNetwork") == "spec.templates[0].hostNetwork"
    assert [volume["name"] for volume in pod.spec["volumes"]] == ["own", "b"]
    main, log, metrics = pod.containers
    assert [variable["name"] for variable in main.body["env"]] == ["X", "Z"]
    assert main.where("env[1].value") == "spec.templates[0].podSpecPatch.containers[0].env[0].value"
    assert main.where("image") == "spec.templates[0].container.image"
    assert (log.path, metrics.path) == ("spec.templateDefaults.sidecars[0]", "spec.templates[0].sidecars[0]")
    assert pod.spec["containers"] == [main.body, log.body, metrics.body]


def test_argo_calls_a_steps_container_main_whatever_it_is_called() -> None:
    """workflowpod.go: only the containers of a container set keep their names, and a patch is merged by these."""
    named = {"name": "t", "container": {"name": "mine", "image": IMAGE}, "podSpecPatch": "containers: [{name: main, tty: true}]"}
    listed = {"name": "s", "containerSet": {"containers": [{"name": "mine", "image": IMAGE}]}}
    one, other = (pod.containers for pod in pods({"templates": [named, listed]}))
    assert [(each.name, each.body) for each in one] == [("main", {"name": "main", "image": IMAGE, "tty": True})]
    assert [each.name for each in other] == ["mine"]


@pytest.mark.parametrize("count", [10, 3000])
def test_what_many_templates_inherit_is_merged_within_a_budget_and_left_to_the_pods_beyond_it(count: int) -> None:
    patch = {"containers": [{"name": f"more-{index}", "image": "docker.io/miner/x:1"} for index in range(100)], "hostPID": True}
    templates = [{"name": f"t-{index}", "container": {"image": IMAGE}} for index in range(count)]
    whole, *each = pods({"podSpecPatch": json.dumps(patch), "templates": templates})
    assert (whole.partial, whole.spec["hostPID"], len(whole.containers)) == (Partial.POD, True, 100)  # found whatever the budget is
    assert len(each) == count
    assert sum(len(pod.containers) for pod in each) == (count * 101 if count == 10 else count)
    assert {pod.partial for pod in each} == {Partial.NOTHING if count == 10 else Partial.POD}


@pytest.mark.parametrize("count", [10, 3000])
def test_what_lies_below_many_steps_is_merged_within_a_budget_and_left_to_the_pod_beyond_it(count: int) -> None:
    below = {"env": [{"name": f"X{index}", "value": "1"} for index in range(100)]}
    steps = [{"name": f"s-{index}", "image": IMAGE, "script": "true"} for index in range(count)]
    obj = {"apiVersion": "tekton.dev/v1", "kind": "Task", "spec": {"stepTemplate": below, "steps": steps}}
    (pod,) = workloads.extract(obj).pods
    assert [container.body["image"] for container in pod.containers] == [IMAGE] * count
    assert {len(container.body.get("env", ())) for container in pod.containers} == {100 if count == 10 else 0}
    assert {container.partial for container in pod.containers} == {count != 10}


def test_a_row_says_what_else_an_operator_calls_things() -> None:
    place = Place(
        path="spec.driver",
        shape=Shape.CONTAINER,
        main="driver",
        fields={"securityContext": "podSecurityContext", "serviceAccountName": "serviceAccount"},
        body={"resources": "amounts"},
        shared=(("image", "spec.image"),),
        inherits=("spec",),
    )
    driver = {"serviceAccount": "own", "podSecurityContext": {"runAsUser": 1}, "securityContext": {"privileged": True}, "amounts": {"a": 1}}
    obj = {"spec": {"image": IMAGE, "hostNetwork": True, "driver": driver}}
    pod = compose.pod("spec.driver", driver, place, compose.given(obj, place, "", 1))
    assert pod is not None
    assert {key: pod.spec[key] for key in ("securityContext", "serviceAccountName", "hostNetwork")} == {
        "securityContext": {"runAsUser": 1},
        "serviceAccountName": "own",
        "hostNetwork": True,
    }
    [container] = pod.containers
    assert (container.name, container.body["securityContext"], container.body["resources"]) == ("driver", {"privileged": True}, {"a": 1})
    assert [(image.reference, image.path, image.role) for image in pod.images] == [(IMAGE, "spec.image", Role.CONTAINER)]
    assert container.where("resources.limits") == "spec.driver.amounts.limits"
    assert pod.where("serviceAccountName") == "spec.driver.serviceAccount"


@pytest.mark.parametrize(
    ("base", "patch", "result"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": None, "d": 3}}, {"a": {"b": 1, "d": 3}}),
        (
            {"containers": [{"name": "x", "image": "1"}]},
            {"containers": [{"name": "x", "tty": True}]},
            {"containers": [{"name": "x", "image": "1", "tty": True}]},
        ),
        ({"volumes": [{"name": "x"}, {"name": "y"}]}, {"volumes": [{"name": "x", "$patch": "delete"}]}, {"volumes": [{"name": "y"}]}),
        ({"a": {"b": 1}}, {"a": {"$patch": "replace", "c": 2}}, {"a": {"c": 2}}),
        ({"drop": ["ALL", "X"]}, {"$deleteFromPrimitiveList/drop": ["ALL"]}, {"drop": ["X"]}),
        ({"tolerations": [1]}, {"tolerations": [2]}, {"tolerations": [2]}),
    ],
)
def test_a_strategic_merge_patch_merges_as_kubernetes_does(base: Any, patch: Any, result: Any) -> None:
    before = json.dumps(base)
    assert merge.merged(base, patch) == result
    assert json.dumps(base) == before


@pytest.mark.parametrize("text", ["[1]", "a: {", "a: 1\n---\nb: 2", "{{inputs.parameters.patch}}", 5, None, "x" * 70_000])
def test_a_patch_that_cannot_be_read_is_nobodys_word(text: Any) -> None:
    assert merge.patch_of(text) is None


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "container",
                    "containers",
                    "volumes",
                    "image",
                    "podSpecPatch",
                    "$patch",
                    "env",
                    "securityContext",
                    "templates",
                    "spec",
                    "model",
                    "steps",
                    "sidecars",
                    "stepTemplate",
                    "tasks",
                    "taskSpec",
                    "pipelineSpec",
                    "podTemplate",
                    "ref",
                ]
            ),
            inner | st.just("replace") | st.just('{"containers": [{"name": "main", "image": "x"}], "volumes": [{"name": "v"}]}'),
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(value=json_values, row=st.sampled_from([row for row in KINDS if any(place.composed for place in row.places)]), under=st.booleans())
def test_no_value_ends_the_composition_in_an_exception(value: Any, row: Any, under: bool) -> None:  # noqa: FBT001 -- generated
    spec = {"templates": [value, value], "templateDefaults": value, "predictor": value, "autoscalerOptions": value} if under else value
    group = f"{row.group}/v1"
    for pod in workloads.extract({"apiVersion": group, "kind": row.kind, "spec": spec}).pods:
        listed = [body for field, _ in podspec.LISTS for body in (pod.spec.get(field) or []) if isinstance(pod.spec.get(field), list)]
        assert len(listed) == len(pod.containers)  # the view walks both side by side


def test_what_stands_in_a_template_is_no_patch_of_its_defaults() -> None:
    hidden = {"name": "x", "$patch": "delete"}
    template = {
        "name": "main",
        "container": {"image": IMAGE, "command": None},
        "initContainers": [{**hidden, "image": "docker.io/miner/x:1"}],
        "sidecars": [{**hidden, "image": "docker.io/miner/y:1"}, {"$patch": "replace"}],
        "volumes": [{**hidden, "hostPath": {"path": "/"}}],
    }
    found = pods({"templateDefaults": {"initContainers": [], "sidecars": [], "volumes": [], "container": {}}, "templates": [template]})
    pod = next(each for each in found if each.path == "spec.templates[0]")
    assert {image.reference for image in pod.images} >= {IMAGE, "docker.io/miner/x:1", "docker.io/miner/y:1"}
    assert pod.spec["volumes"] == [{"name": "x", "hostPath": {"path": "/"}}]


@pytest.mark.parametrize(
    ("patch", "context"),
    [
        ({"securityContext": {"$patch": "delete"}}, {}),
        ({"securityContext": {"$retainKeys": ["runAsUser"], "runAsUser": 0}}, {"runAsUser": 0}),
        ({"SecurityContext": {"RunAsNonRoot": False}}, {"runAsNonRoot": False, "runAsUser": 1}),
        ({"securitycontext": {"RUNASUSER": 0}}, {"runAsNonRoot": True, "runAsUser": 0}),
    ],
)
def test_a_patch_takes_away_and_is_read_as_go_reads_it(patch: dict[str, Any], context: dict[str, Any]) -> None:
    said = {"runAsNonRoot": True, "runAsUser": 1}
    template = {"name": "main", "securityContext": said, "container": {"image": IMAGE}, "podSpecPatch": json.dumps(patch)}
    assert pods({"templates": [template]})[-1].spec["securityContext"] == context
    main = {"containers": [{"name": "main", **patch}]}
    template = {"name": "main", "container": {"image": IMAGE, "securityContext": said}, "podSpecPatch": json.dumps(main)}
    assert pods({"templates": [template]})[-1].containers[0].body["securityContext"] == context


def test_no_field_of_a_patch_hides_an_image_behind_the_path_of_another() -> None:
    volumes = [{"name": name, "image": {"reference": f"registry.example/{name}:1"}} for name in ("good", "hidden")]
    patch = {"volumes[1]": 1, "volumes": [{"name": "other", "emptyDir": {}}, volumes[0]]}
    template = {"name": "main", "container": {"image": IMAGE}, "volumes": volumes, "podSpecPatch": json.dumps(patch)}
    images = pods({"templates": [template]})[-1].images
    assert len({image.path for image in images}) == len(images) == 3


def test_what_a_partial_pod_says_for_all_containers_stands_beside_one_where_it_names_none() -> None:
    override = {"securityContext": {"runAsUser": 0}}
    obj = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "spec": {"podTemplateOverrides": [{"spec": override}]}}
    (pod,) = workloads.extract(obj).pods
    (container,) = pod.containers
    assert (container.partial, container.body, pod.images) == (True, {}, ())
    assert container.where("securityContext.runAsUser") == "spec.podTemplateOverrides[0].spec.securityContext.runAsUser"


@pytest.mark.parametrize("kind", ["Workflow", "WorkflowTemplate"])
def test_what_an_executor_plugin_says_beside_its_container_is_found_where_it_is_written(kind: str) -> None:
    container = {"name": "it", "image": "a:1", "volumes": [{"image": {"reference": "b:1"}}]}
    spec = {"executorPlugins": [{"spec": {"sidecar": {"container": container}}}]}
    found = workloads.extract({"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}).images
    where = "spec.executorPlugins[0].spec.sidecar.container"
    assert {image.reference: image.path for image in found} == {"a:1": f"{where}.image", "b:1": f"{where}.volumes[0].image.reference"}
