"""Objects whose pods an operator composes: judged as it composes them. Beside each that is refused stands its neighbour that passes."""

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from mlwarden.checks import Answer
from mlwarden.model.finding import Outcome
from mlwarden.policy import CompiledPolicy

Judge = Callable[[CompiledPolicy, Any], Iterable[Answer]]
Failing = Callable[[Mapping[str, Any]], set[tuple[str, str]]]

SECURITY = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
RESOURCES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
CONTAINER = {
    "image": "registry.example.com/train/resnet:4.1",
    "resources": RESOURCES,
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}
HARDENED = {"automountServiceAccountToken": False, "securityContext": SECURITY}
HOST_PATH = {"name": "root", "hostPath": {"path": "/"}}


@pytest.fixture
def failing(shipped: Mapping[str, CompiledPolicy], judge: Judge) -> Failing:
    """Which shipped policies an object fails, and where; what has no answer counts as well, but for the evidence that nobody has here."""

    def found(obj: Mapping[str, Any]) -> set[tuple[str, str]]:
        answers = [(name, answer) for name, compiled in shipped.items() if name != "image-scanned" for answer in judge(compiled, obj)]
        return {(name, answer.path) for name, answer in answers if answer.outcome is not Outcome.PASS}

    return found


def workflow(spec: Mapping[str, Any], *templates: Mapping[str, Any], kind: str = "Workflow") -> dict[str, Any]:
    named = [{"name": f"step-{index}", **template} for index, template in enumerate(templates)]
    body = {"entrypoint": "step-0", **spec, "templates": named}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": "w"},
        "spec": {"schedule": "@daily", "workflowSpec": body} if kind == "CronWorkflow" else body,
    }


def service(predictor: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "s"},
        "spec": {"predictor": predictor},
    }


def runtime(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ServingRuntime", "metadata": {"name": "r"}, "spec": spec}


def trainjob(**spec: Any) -> dict[str, Any]:
    spec = {"runtimeRef": {"name": "torch-distributed"}, **spec}
    return {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": "t"}, "spec": spec}


def patched(patch: Mapping[str, Any]) -> dict[str, Any]:
    pod = {"metadata": {}, "spec": patch}
    job = {"name": "node", "template": {"spec": {"template": pod}}}
    return trainjob(
        runtimePatches=[{"manager": "example.com/me", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}}}]
    )


def ray(head: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    body = {"headGroupSpec": {"template": {"spec": head}}, **spec}
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "r"}, "spec": body}


@pytest.mark.parametrize("kind", ["Workflow", "WorkflowTemplate", "CronWorkflow"])
def test_what_a_workflow_says_for_all_its_templates_is_said_for_each(kind: str, failing: Failing) -> None:
    base = "spec.workflowSpec" if kind == "CronWorkflow" else "spec"
    assert failing(workflow(HARDENED, {"container": CONTAINER}, {"script": {**CONTAINER, "source": "true"}}, kind=kind)) == set()
    assert failing(workflow({}, {"container": CONTAINER}, kind=kind)) == {
        ("run-as-non-root", f"{base}.templates[0].container.securityContext.runAsNonRoot"),
        ("seccomp-profile", f"{base}.templates[0].container.securityContext.seccompProfile.type"),
        ("service-account-token", f"{base}.templates[0].automountServiceAccountToken"),
    }


@pytest.mark.parametrize("step", ["container", "script"])
def test_a_templates_own_word_replaces_the_workflows(step: str, failing: Failing) -> None:
    """Argo takes the one security context or the other, never both; a yes to the token is never written down."""
    root = {"runAsUser": 0, "runAsNonRoot": False}
    assert failing(workflow({**HARDENED, "securityContext": root}, {step: CONTAINER, "securityContext": SECURITY})) == set()
    worse = failing(workflow(HARDENED, {step: CONTAINER, "securityContext": {"runAsUser": 1000}}))
    assert {name for name, _ in worse} == {"run-as-non-root", "seccomp-profile"}
    account = {"automountServiceAccountToken": True, "serviceAccountName": "own"}
    assert {name for name, _ in failing(workflow(HARDENED, {step: CONTAINER, **account}))} == {"service-account-token"}


def test_template_defaults_lie_under_each_template(failing: Failing) -> None:
    defaults = {**HARDENED, "container": {key: value for key, value in CONTAINER.items() if key != "image"}}
    image = {"image": CONTAINER["image"]}
    assert failing(workflow({"templateDefaults": defaults}, {"container": image})) == set()
    worse = copy.deepcopy(defaults)
    worse["container"]["securityContext"]["privileged"] = True
    assert failing(workflow({"templateDefaults": worse}, {"container": image}, {"container": image})) == {
        ("privileged-containers", "spec.templateDefaults.container.securityContext.privileged")
    }
    answer = {**image, "securityContext": {"privileged": False}}
    assert failing(workflow({"templateDefaults": defaults}, {"container": answer}, {"dag": {"tasks": []}})) == set()


def test_volumes_and_namespaces_of_a_workflow_are_found_once_where_they_are_written(failing: Failing) -> None:
    mounting = {"container": {**CONTAINER, "volumeMounts": [{"name": "root", "mountPath": "/host"}]}}
    spec = {**HARDENED, "volumes": [{"name": "scratch", "emptyDir": {}}, HOST_PATH], "hostNetwork": True}
    assert failing(workflow(spec, mounting, mounting)) == {
        ("host-path-volumes", "spec.volumes[1].hostPath"),
        ("volume-types", "spec.volumes[1]"),
        ("host-namespaces", "spec.hostNetwork"),
    }
    assert failing(workflow({**HARDENED, "volumes": [{"name": "root", "emptyDir": {}}]}, mounting)) == set()


@pytest.mark.parametrize("shape", ["json", "yaml"])
@pytest.mark.parametrize("at", ["workflow", "template"])
def test_a_patch_of_the_pod_is_merged_and_then_judged(at: str, shape: str, failing: Failing, attack: Callable[..., None]) -> None:
    def with_patch(patch: Mapping[str, Any]) -> dict[str, Any]:
        text = {"podSpecPatch": json.dumps(patch) if shape == "json" else f"# what is needed\n{flow(patch)}"}
        where = {"container": CONTAINER, **(text if at == "template" else {})}
        return workflow({**HARDENED, **(text if at == "workflow" else {})}, where)

    path = "spec.podSpecPatch" if at == "workflow" else "spec.templates[0].podSpecPatch"
    assert failing(with_patch({"containers": [{"name": "main", "resources": {"limits": {"memory": "8Gi"}}}]})) == set()
    assert failing(with_patch({"containers": [{"name": "wait", "resources": {"limits": {"memory": "8Gi"}}}]})) == set()
    evil = {"hostNetwork": True, "volumes": [HOST_PATH], "containers": [{"name": "main", "securityContext": {"privileged": True}}]}
    assert failing(with_patch(evil)) == {
        ("host-namespaces", f"{path}.hostNetwork"),
        ("host-path-volumes", f"{path}.volumes[0].hostPath"),
        ("volume-types", f"{path}.volumes[0]"),
        ("privileged-containers", f"{path}.containers[0].securityContext.privileged"),
    }
    taken = {"containers": [{"name": "main", "securityContext": {"capabilities": {"$deleteFromPrimitiveList/drop": ["ALL"]}}}]}
    assert {name for name, _ in failing(with_patch(taken))} == {"capabilities-dropped"}
    image = {"containers": [{"name": "main", "image": "docker.io/somebody/miner:1"}]}
    assert failing(with_patch(image)) == {("trusted-registries", f"{path}.containers[0].image")}
    attack(
        f"Argo: a podSpecPatch in {shape} of the {at}, with the node's network and privilege", "admitted", "refused, where it is written"
    )


def flow(value: Any) -> str:
    """A value as YAML that is no JSON."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(flow, value)) + "]"
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def test_a_patch_that_is_a_parameter_leaves_the_rest_to_the_pod(failing: Failing) -> None:
    """Kubeflow Pipelines compiles this into every step: image and resources come in a patch that is a parameter."""
    image = {"image": "gcr.io/ml-pipeline/should-be-overridden-during-runtime"}
    step = {"container": image, "podSpecPatch": "{{inputs.parameters.pod-spec-patch}}"}
    assert failing(workflow({}, step)) == set()
    assert failing(workflow({}, {**step, "container": {**image, "securityContext": {"privileged": True}}})) == {
        ("privileged-containers", "spec.templates[0].container.securityContext.privileged")
    }


def test_inline_templates_and_executor_plugins_are_templates_and_containers(failing: Failing) -> None:
    def inline(container: Mapping[str, Any]) -> dict[str, Any]:
        plugin = {"metadata": {"name": "p"}, "spec": {"sidecar": {"container": {**container, "name": "p"}}}}
        dag = {"dag": {"tasks": [{"name": "a", "inline": {"container": container}}]}}
        steps = {"steps": [[{"name": "b", "inline": {"script": {**container, "source": "true"}}}]]}
        return workflow({**HARDENED, "executorPlugins": [plugin]}, dag, steps)

    assert failing(inline(CONTAINER)) == set()
    alone = {"metadata": {"name": "p"}, "spec": {"sidecar": {"container": {**CONTAINER, "name": "p"}}}}
    assert failing(workflow({"executorPlugins": [alone]}, {"suspend": {}})) == set()  # Argo hardens their pod by itself
    assert failing(inline({**CONTAINER, "securityContext": {**CONTAINER["securityContext"], "privileged": True}})) == {
        ("privileged-containers", f"{path}.securityContext.privileged")
        for path in (
            "spec.executorPlugins[0].spec.sidecar.container",
            "spec.templates[0].dag.tasks[0].inline.container",
            "spec.templates[1].steps[0][0].inline.script",
        )
    }


def test_a_model_is_judged_in_its_predictor_and_what_a_runtime_may_say_is_not_asked_of_it(failing: Failing) -> None:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "pvc://models/scorer"}
    assert failing(service({**HARDENED, "model": model})) == set()
    assert failing(service({**HARDENED, "model": {**model, "image": "registry.example.com/serve:1"}})) == set()
    lone = {"hostNetwork": True, "serviceAccountName": "cluster-admin", "volumes": [HOST_PATH]}
    assert failing(service({**lone, "model": {**model, "securityContext": {"privileged": True}}})) == {
        ("host-namespaces", "spec.predictor.hostNetwork"),
        ("host-path-volumes", "spec.predictor.volumes[0].hostPath"),
        ("volume-types", "spec.predictor.volumes[0]"),
        ("service-account-token", "spec.predictor.automountServiceAccountToken"),  # no runtime has a field for it
        ("privileged-containers", "spec.predictor.model.securityContext.privileged"),
    }
    own = {"containers": [{**CONTAINER, "name": "kserve-container"}]}
    assert failing(service({**HARDENED, **own})) == set()
    bare = failing(service({**HARDENED, "containers": [{"name": "kserve-container", "image": CONTAINER["image"]}]}))
    assert {name for name, _ in bare} == {"capabilities-dropped", "privilege-escalation", "resource-limits"}


@pytest.mark.parametrize("server", ["model", "sklearn", "triton"])
def test_a_model_in_an_image_is_an_image(server: str, failing: Failing, attack: Callable[..., None]) -> None:
    def served(uri: str) -> set[tuple[str, str]]:
        return failing(service({**HARDENED, server: {"storageUri": uri}}))

    assert served("oci://registry.example.com/weights:1") == set()
    for scheme in ("oci", "oci+native"):
        assert served(f"{scheme}://docker.io/somebody-unknown/weights:latest") == {
            ("pinned-images", f"spec.predictor.{server}.storageUri"),
            ("trusted-registries", f"spec.predictor.{server}.storageUri"),
        }
    assert served("s3://bucket/latest") == set()
    own = {**CONTAINER, "name": "kserve-container", "env": [{"name": "STORAGE_URI", "value": "oci://docker.io/somebody-unknown/weights:1"}]}
    assert failing(service({**HARDENED, "containers": [own]})) == {("trusted-registries", "spec.predictor.containers[0].env[0].value")}
    attack(f"KServe: {server} with storageUri oci://docker.io/…:latest", "admitted", "refused: an image of an unknown registry")


def test_of_a_runtime_only_what_it_sets_can_fail(failing: Failing) -> None:
    container = {**CONTAINER, "name": "kserve-container"}
    assert failing(runtime({"containers": [container]})) == set()
    assert failing(runtime({"containers": [{"name": "kserve-container", "image": CONTAINER["image"]}]})) == set()
    assert failing(runtime({"containers": [{**container, "securityContext": {"runAsNonRoot": False}}], "hostIPC": True})) == {
        ("run-as-non-root", "spec.containers[0].securityContext.runAsNonRoot"),
        ("host-namespaces", "spec.hostIPC"),
    }


def test_of_a_training_job_only_what_it_sets_can_fail(failing: Failing) -> None:
    trainer = {"image": "registry.example.com/train/llama:1.2", "numNodes": 2, "resourcesPerNode": RESOURCES}
    variable = {"containers": [{"name": "node", "env": [{"name": "NCCL_DEBUG", "value": "INFO"}]}]}
    assert failing(trainjob(trainer=trainer, podTemplateOverrides=[{"targetJobs": [{"name": "node"}], "spec": variable}])) == set()
    assert failing(patched(variable)) == set()
    assert {name for name, _ in failing(trainjob(trainer={**trainer, "image": "docker.io/miner/llama:latest"}))} == {
        "pinned-images",
        "trusted-registries",
    }
    evil = {
        "volumes": [HOST_PATH],
        "initContainers": [{"name": "i", "image": "docker.io/miner/i:1", "securityContext": {"privileged": True}}],
    }
    expected = {"host-path-volumes", "volume-types", "trusted-registries", "privileged-containers"}
    for obj in (trainjob(podTemplateOverrides=[{"spec": evil}]), trainjob(podSpecOverrides=[evil]), patched(evil)):
        assert {name for name, _ in failing(obj)} == expected
    assert {name for name, _ in failing(trainjob(trainer={"env": [{"name": "HF_TOKEN", "value": "x1y2"}]}))} == {"env-credentials"}


def test_rays_autoscaler_is_a_container_of_the_head(failing: Failing) -> None:
    head = {**HARDENED, "containers": [{**CONTAINER, "name": "head"}]}
    context = CONTAINER["securityContext"]
    assert (
        failing(ray(head, enableInTreeAutoscaling=True, autoscalerOptions={"idleTimeoutSeconds": 60, "securityContext": context})) == set()
    )
    evil = {"image": "docker.io/miner/autoscaler:1", "securityContext": {**context, "privileged": True}}
    assert failing(ray(head, autoscalerOptions=evil)) == {
        ("privileged-containers", "spec.autoscalerOptions.securityContext.privileged"),
        ("trusted-registries", "spec.autoscalerOptions.image"),
    }


@pytest.mark.parametrize("options", [{}, {"autoscalerOptions": {}}, {"autoscalerOptions": {"idleTimeoutSeconds": 60}}])
def test_rays_autoscaler_is_asked_for_what_its_pod_is_asked_for(
    options: Mapping[str, Any], failing: Failing, attack: Callable[..., None]
) -> None:
    """KubeRay adds it where the cluster scales by itself, with the head's image and no security context of its own."""
    head = {**HARDENED, "containers": [{**CONTAINER, "name": "head"}]}
    assert failing(ray(head, enableInTreeAutoscaling=True, **options)) == {
        ("privilege-escalation", "spec.autoscalerOptions.securityContext.allowPrivilegeEscalation"),
        ("capabilities-dropped", "spec.autoscalerOptions.securityContext.capabilities"),
    }
    assert failing(ray(head, enableInTreeAutoscaling=False)) == failing(ray(head)) == set()
    if not options:
        attack(
            "KubeRay: enableInTreeAutoscaling, and nothing said of the autoscaler",
            "the RayCluster admitted, its head pod refused for ever",
            "refused with a fix: autoscalerOptions.securityContext",
        )


def rayjob(**spec: Any) -> dict[str, Any]:
    head = {"template": {"spec": {**HARDENED, "containers": [{**CONTAINER, "name": "head"}]}}}
    body = {"entrypoint": "python train.py", "rayClusterSpec": {"headGroupSpec": head}, **spec}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "r"}, "spec": body}


@pytest.mark.parametrize("mode", [{}, {"submissionMode": "K8sJobMode"}])
def test_a_rayjobs_submitter_is_a_pod_where_nobody_describes_it(
    mode: Mapping[str, Any], failing: Failing, attack: Callable[..., None]
) -> None:
    """KubeRay makes it of the head's image and gives it no security context."""
    assert {path.partition(".spec.")[0] for _, path in failing(rayjob(**mode))} == {"spec.submitterPodTemplate"}
    assert failing(rayjob(submissionMode="HTTPMode")) == set()
    assert failing(rayjob(**mode, submitterPodTemplate={"spec": {**HARDENED, "containers": [{**CONTAINER, "name": "submit"}]}})) == set()
    if not mode:
        attack(
            "KubeRay: a RayJob that says nothing of its submitter",
            "admitted, its cluster runs, and the submitter is refused for ever",
            "refused with the whole template that passes",
        )


@pytest.mark.parametrize("body", [None, {}, {"rayClusterSpec": {"headGroupSpec": []}}, {"submissionMode": 7}, {"submissionMode": {}}])
def test_a_rayjob_of_which_nobody_knows_the_submitter_is_left_to_its_pods(body: Any, failing: Failing) -> None:
    assert failing({"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "r"}, "spec": body}) == set()


@pytest.mark.parametrize("kind", ["SparkApplication", "ScheduledSparkApplication"])
def test_a_spark_applications_driver_and_executors_are_pods(kind: str, failing: Failing, attack: Callable[..., None]) -> None:
    """The kind has no field for the token, and says resources in words of its own: neither is asked for."""

    def spark(driver: Mapping[str, Any], executor: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
        body = {"image": "registry.example.com/spark:1", "driver": driver, "executor": executor, **spec}
        outer = {"schedule": "@daily", "template": body} if kind == "ScheduledSparkApplication" else body
        return {"apiVersion": "sparkoperator.k8s.io/v1beta2", "kind": kind, "metadata": {"name": "s"}, "spec": outer}

    base = "spec.template" if kind == "ScheduledSparkApplication" else "spec"
    good = {"cores": 1, "serviceAccount": "spark", "podSecurityContext": SECURITY, "securityContext": CONTAINER["securityContext"]}
    assert failing(spark(good, good)) == set()
    bad = {**good, "securityContext": {**CONTAINER["securityContext"], "privileged": True}, "hostNetwork": True}
    conf = {"spark.kubernetes.executor.container.image": "docker.io/miner/spark:1", "spark.executor.memory": "1g"}
    assert failing(spark(good, {**bad, "image": "docker.io/miner/x:1"}, volumes=[HOST_PATH], sparkConf=conf)) == {
        ("privileged-containers", f"{base}.executor.securityContext.privileged"),
        ("host-namespaces", f"{base}.executor.hostNetwork"),
        ("host-path-volumes", f"{base}.volumes[0].hostPath"),
        ("volume-types", f"{base}.volumes[0]"),
        ("trusted-registries", f"{base}.executor.image"),
        ("trusted-registries", f'{base}.sparkConf["spark.kubernetes.executor.container.image"]'),
    }
    assert ("run-as-non-root", f"{base}.driver.securityContext.runAsNonRoot") in failing(spark({**good, "podSecurityContext": {}}, good))
    attack(f"{kind}: privilege, the node's network and an image in sparkConf", "admitted", "refused")


@pytest.mark.parametrize("kind", ["LLMInferenceService", "LLMInferenceServiceConfig"])
def test_presets_say_the_rest_of_a_language_models_pods(kind: str, failing: Failing) -> None:
    def llm(**spec: Any) -> dict[str, Any]:
        return {"apiVersion": "serving.kserve.io/v1alpha1", "kind": kind, "metadata": {"name": "l"}, "spec": {"replicas": 2, **spec}}

    main = {"containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}
    assert failing(llm(model={"uri": "hf://facebook/opt-125m"}, template=main, prefill={"template": main, "worker": main})) == set()
    assert failing(llm(model={"uri": "oci://docker.io/miner/model:latest"})) == {
        ("pinned-images", "spec.model.uri"),
        ("trusted-registries", "spec.model.uri"),
    }
    evil = {"hostNetwork": True, "containers": [{"name": "main", "image": "docker.io/miner/x:1", "securityContext": {"privileged": True}}]}
    for at, spec in {"worker": {"worker": evil}, "router.scheduler.template": {"router": {"scheduler": {"template": evil}}}}.items():
        assert failing(llm(**spec)) == {
            ("host-namespaces", f"spec.{at}.hostNetwork"),
            ("trusted-registries", f"spec.{at}.containers[0].image"),
            ("privileged-containers", f"spec.{at}.containers[0].securityContext.privileged"),
        }


def test_seldons_containers_lie_over_those_of_packaged_servers_and_the_pod_is_the_authors(failing: Failing) -> None:
    def deployment(spec: Mapping[str, Any]) -> dict[str, Any]:
        predictor = {"name": "p", "graph": {"name": "c", "implementation": "SKLEARN_SERVER"}, "componentSpecs": [{"spec": spec}]}
        body = {"predictors": [predictor]}
        return {"apiVersion": "machinelearning.seldon.io/v1", "kind": "SeldonDeployment", "metadata": {"name": "s"}, "spec": body}

    path = "spec.predictors[0].componentSpecs[0].spec"
    assert failing(deployment({**HARDENED, "containers": [{"name": "c", "resources": RESOURCES}]})) == set()
    assert failing(deployment({"containers": [{"name": "c", "securityContext": {"privileged": True}}]})) == {
        ("service-account-token", f"{path}.automountServiceAccountToken"),
        ("privileged-containers", f"{path}.containers[0].securityContext.privileged"),
    }


@pytest.mark.parametrize("kind", ["TrainingRuntime", "ClusterTrainingRuntime"])
def test_of_a_training_runtime_only_what_it_sets_can_fail(kind: str, failing: Failing) -> None:
    def training(spec: Mapping[str, Any]) -> dict[str, Any]:
        job = {"name": "node", "template": {"spec": {"template": {"spec": spec}}}}
        return {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": kind,
            "metadata": {"name": "r"},
            "spec": {"template": {"spec": {"replicatedJobs": [job]}}},
        }

    path = "spec.template.spec.replicatedJobs[0].template.spec.template.spec"
    assert failing(training({"containers": [{"name": "node", "image": "registry.example.com/torch:2"}]})) == set()
    assert failing(training({"containers": [{"name": "node"}], "hostPID": True, "volumes": [HOST_PATH]})) == {
        ("host-namespaces", f"{path}.hostPID"),
        ("host-path-volumes", f"{path}.volumes[0].hostPath"),
        ("volume-types", f"{path}.volumes[0]"),
    }


def test_an_override_that_is_silent_passes_and_one_that_undoes_does_not(failing: Failing) -> None:
    """Of something partial what is set is judged as it is set: half a list, a no, and a value beside one that is missing."""
    assert failing(patched({"containers": [{"name": "node", "securityContext": {"readOnlyRootFilesystem": True}}]})) == set()
    for context, policy in (
        ({"allowPrivilegeEscalation": True}, "privilege-escalation"),
        ({"capabilities": {"drop": ["NET_RAW"]}}, "capabilities-dropped"),
        ({"capabilities": {"add": ["SYS_ADMIN"]}}, "dangerous-capabilities"),
        ({"runAsUser": 0}, "root-user"),
        ({"seccompProfile": {"type": "Unconfined"}}, "seccomp-profile"),
        ({"runAsNonRoot": False}, "run-as-non-root"),
    ):
        assert policy in {name for name, _ in failing(patched({"containers": [{"name": "node", "securityContext": context}]}))}
    assert failing(patched({"serviceAccountName": "own"})) == set()
    assert {name for name, _ in failing(patched({"automountServiceAccountToken": True}))} == {"service-account-token"}


def test_a_container_of_a_kind_that_nobody_knows_is_judged_by_what_it_sets(failing: Failing) -> None:
    def kind(spec: Mapping[str, Any]) -> dict[str, Any]:
        return {"apiVersion": "ml.example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec, "status": spec}

    container = {"image": "registry.example.com/x:1", "env": []}
    for good in (container, {"image": {"repository": "registry.example.com/nim", "tag": "1"}}, {"image": "docker.io/miner/text"}):
        assert failing(kind({"a": [{"udf": {"container": good}}]})) == set()
    evil = {"image": "docker.io/miner/x:1", "securityContext": {"privileged": True}}
    assert failing(kind({"services": {"Worker": {"mainContainer": evil}}})) == {
        ("privileged-containers", "spec.services.Worker.mainContainer.securityContext.privileged"),
        ("trusted-registries", "spec.services.Worker.mainContainer.image"),
    }
    assert failing(kind({"image": {"repository": "docker.io/miner/nim", "tag": "1"}})) == {("trusted-registries", "spec.image")}
