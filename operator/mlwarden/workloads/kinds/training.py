"""Kinds that train and that compute in batches: Kubeflow, Ray, Spark, Volcano, JobSet and what wraps them."""

from mlwarden.model.workload import Partial
from mlwarden.workloads.kinds.place import JOB, Default, Kind, Place, Shape, below, objects, row, specs, templates


def _replicas(name: str) -> tuple[Place, ...]:
    return templates(f"spec.{name}.*.template")


def _training(name: str) -> tuple[str, ...]:
    return "spec.runPolicy.suspend", f"spec.{name}.*.replicas"


def _volcano(base: str) -> tuple[str, ...]:
    return f"{base}.minAvailable", *below(f"{base}.tasks[]", "replicas", "minAvailable")


def _ray(base: str) -> tuple[str, ...]:
    return f"{base}.suspend", *below(f"{base}.workerGroupSpecs[]", "replicas", "minReplicas", "maxReplicas", "suspend")


_RAY = ("headGroupSpec.template", "workerGroupSpecs[].template")


def _ray_autoscaler(base: str) -> Place:
    """Source: kuberay, ray-operator/controllers/ray/common/pod.go (BuildAutoscalerContainer)."""
    return Place(
        path=f"{base}.autoscalerOptions",
        shape=Shape.CONTAINER,
        flag=f"{base}.enableInTreeAutoscaling",
        main="autoscaler",
        shared=(("image", f"{base}.headGroupSpec.template.spec.containers[].image"),),
        adds={"resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}}},
        inherits=(f"{base}.headGroupSpec.template.spec",),
    )


def _ray_submitter(job: str, cluster: str) -> Place:
    """Source: kuberay, ray-operator/controllers/ray/common/job.go (GetDefaultSubmitterTemplate, GetDefaultSubmitterContainer)."""
    resources = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "200Mi"}}
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "ray-job-submitter", "resources": resources}]}}
    default = Default(
        template=template,
        image=f"{cluster}.headGroupSpec.template.spec.containers[].image",
        mode=f"{job}.submissionMode",
        modes=("", "K8sJobMode"),
    )
    return Place(path=f"{job}.submitterPodTemplate", shape=Shape.TEMPLATE, default=default)


def _ray_cluster(base: str) -> tuple[Place, ...]:
    return *templates(*(f"{base}.{path}" for path in _RAY)), _ray_autoscaler(base)


_SPARK_FIELDS = (
    *("affinity", "dnsConfig", "hostAliases", "hostNetwork", "nodeSelector", "priorityClassName", "schedulerName", "shareProcessNamespace"),
    *("terminationGracePeriodSeconds", "tolerations"),
)


def _spark(spec: str) -> tuple[Place, ...]:
    """Source: kubeflow/spark-operator, api/v1beta2 (SparkPodSpec) and internal/webhook; Spark works resources out of cores and memory."""

    def half(role: str) -> tuple[Place, ...]:
        whole = Place(
            path=f"{spec}.{role}",
            shape=Shape.CONTAINER,
            main=f"spark-kubernetes-{role}",
            fields={
                "securityContext": "podSecurityContext",
                "serviceAccountName": "serviceAccount",
                **{each: each for each in _SPARK_FIELDS},
            },
            lists=((("sidecars",), "containers"),),
            shared=(("image", f"{spec}.image"),),
            images=((f"{spec}.sparkConf", ".container.image"),),
            adds={"resources": {"requests": {"cpu": "1", "memory": "1408Mi"}, "limits": {"memory": "1408Mi"}}},
            inherits=(spec,),
            lacks=("automountServiceAccountToken",),
            metadata=".",
        )
        return whole, *templates(f"{spec}.{role}.template", partial=Partial.POD)

    return *specs(spec, partial=Partial.POD), *half("driver"), *half("executor")


def _spark_images(spec: str) -> Place:
    """Source: apache/spark-kubernetes-operator, SparkClusterResourceSpec.java and SparkAppResourceSpecFactory.java."""
    return Place(path=spec, shape=Shape.SPEC, partial=Partial.POD, main="spark", images=((f"{spec}.sparkConf", ".container.image"),))


def _collector(path: str) -> Place:
    """Source: kubeflow/katib, pkg/webhook/v1beta1/pod (getMetricsCollectorContainer): a container of the trial's pods."""
    return Place(path=path, shape=Shape.CONTAINER, lacks=("automountServiceAccountToken", "securityContext"))


_TRAINER_RUNTIME = "spec.template.spec.replicatedJobs[].template.spec.template"


_TRAINER_PATCH = f"spec.runtimePatches[].trainingRuntimeSpec.{_TRAINER_RUNTIME.removeprefix('spec.')}"


KINDS: tuple[Kind, ...] = (
    row("kubeflow.org", "PyTorchJob", "pytorchjobs", *_replicas("pytorchReplicaSpecs"), scale=_training("pytorchReplicaSpecs")),
    row("kubeflow.org", "TFJob", "tfjobs", *_replicas("tfReplicaSpecs"), scale=_training("tfReplicaSpecs")),
    row("kubeflow.org", "MPIJob", "mpijobs", *_replicas("mpiReplicaSpecs"), scale=_training("mpiReplicaSpecs")),
    row("kubeflow.org", "XGBoostJob", "xgboostjobs", *_replicas("xgbReplicaSpecs"), scale=_training("xgbReplicaSpecs")),
    row("kubeflow.org", "PaddleJob", "paddlejobs", *_replicas("paddleReplicaSpecs"), scale=_training("paddleReplicaSpecs")),
    row("kubeflow.org", "JAXJob", "jaxjobs", *_replicas("jaxReplicaSpecs"), scale=_training("jaxReplicaSpecs")),
    row(
        "kubeflow.org",
        "Experiment",
        "experiments",
        *objects("spec.trialTemplate.trialSpec"),
        _collector("spec.metricsCollectorSpec.collector.customCollector"),
        scale=below("spec", "parallelTrialCount", "maxTrialCount", "maxFailedTrialCount"),
    ),
    row("kubeflow.org", "Trial", "trials", *objects("spec.runSpec"), _collector("spec.metricsCollector.collector.customCollector")),
    row("trainer.kubeflow.org", "TrainingRuntime", "trainingruntimes", *templates(_TRAINER_RUNTIME, partial=Partial.POD)),
    row(
        "trainer.kubeflow.org",
        "ClusterTrainingRuntime",
        "clustertrainingruntimes",
        *templates(_TRAINER_RUNTIME, partial=Partial.POD),
        namespaced=False,
    ),
    row(
        "trainer.kubeflow.org",
        "TrainJob",
        "trainjobs",
        Place(path="spec.trainer", shape=Shape.CONTAINER, partial=Partial.POD, body={"resources": "resourcesPerNode"}),
        *specs("spec.podSpecOverrides[]", "spec.podSpecOverrides[].spec", partial=Partial.POD),
        *templates("spec.podTemplateOverrides[]", _TRAINER_PATCH, partial=Partial.POD),
        scale=("spec.suspend", "spec.trainer.numNodes"),
    ),
    row("batch.volcano.sh", "Job", "jobs", *templates("spec.tasks[].template"), scale=_volcano("spec")),
    row(
        "batch.volcano.sh",
        "CronJob",
        "cronjobs",
        *templates("spec.jobTemplate.spec.tasks[].template"),
        scale=("spec.suspend", *_volcano("spec.jobTemplate.spec")),
    ),
    row("flow.volcano.sh", "JobTemplate", "jobtemplates", *templates("spec.tasks[].template"), scale=_volcano("spec")),
    row(
        "sparkoperator.k8s.io", "SparkApplication", "sparkapplications", *_spark("spec"), scale=("spec.suspend", "spec.executor.instances")
    ),
    row(
        "sparkoperator.k8s.io",
        "ScheduledSparkApplication",
        "scheduledsparkapplications",
        *_spark("spec.template"),
        scale=("spec.suspend", "spec.template.executor.instances"),
    ),
    row(
        "spark.apache.org",
        "SparkApplication",
        "sparkapplications",
        *templates("spec.driverSpec.podTemplateSpec", "spec.executorSpec.podTemplateSpec", partial=Partial.POD),
        _spark_images("spec"),
    ),
    row(
        "spark.apache.org",
        "SparkCluster",
        "sparkclusters",
        *templates(*(f"spec.{role}Spec.statefulSetSpec.template" for role in ("master", "worker")), partial=Partial.CONTAINERS),
        _spark_images("spec"),
        scale=below("spec.clusterTolerations.instanceConfig", "initWorkers", "minWorkers", "maxWorkers"),
    ),
    row("ray.io", "RayCluster", "rayclusters", *_ray_cluster("spec"), scale=_ray("spec")),
    row(
        "ray.io",
        "RayJob",
        "rayjobs",
        *_ray_cluster("spec.rayClusterSpec"),
        _ray_submitter("spec", "spec.rayClusterSpec"),
        scale=("spec.suspend", *_ray("spec.rayClusterSpec")),
    ),
    row(
        "ray.io",
        "RayCronJob",
        "raycronjobs",
        *_ray_cluster("spec.jobTemplate.rayClusterSpec"),
        _ray_submitter("spec.jobTemplate", "spec.jobTemplate.rayClusterSpec"),
        scale=("spec.suspend", "spec.jobTemplate.suspend", *_ray("spec.jobTemplate.rayClusterSpec")),
    ),
    row(
        "ray.io",
        "RayService",
        "rayservices",
        *_ray_cluster("spec.rayClusterConfig"),
        *_ray_cluster("spec.rayClusterSpec"),
        scale=("spec.suspend", *_ray("spec.rayClusterConfig"), *_ray("spec.rayClusterSpec")),
    ),
    *(
        row(
            "orchestration.aibrix.ai",
            f"RayCluster{kind}",
            f"raycluster{kind.lower()}s",
            *_ray_cluster("spec.template.spec"),
            scale=("spec.replicas", "spec.paused"),
        )
        for kind in ("Fleet", "ReplicaSet")
    ),
    row(
        "jobset.x-k8s.io",
        "JobSet",
        "jobsets",
        *templates("spec.replicatedJobs[].template.spec.template"),
        scale=("spec.suspend", "spec.replicatedJobs[].replicas", *below("spec.replicatedJobs[].template.spec", *JOB)),
    ),
    row("workload.codeflare.dev", "AppWrapper", "appwrappers", *objects("spec.components[].template"), scale=("spec.suspend",)),
)
