"""What waiting does to a workload, said before it waits: warnings, where nothing is wrong but the hold has consequences.

- A deadline of a Job, a JobSet, a Workflow counts from its own start, also while its pods are held. The deadline of a pod's own spec counts
  from the pod's start (`status.startTime`, which the kubelet writes), and is not spoken of.
- An image volume cannot be pinned after a pod's creation. Where nobody makes another pod, one that came by a tag which was not resolved at
  that moment is never released.
"""

from collections.abc import Iterator, Mapping

from mlwarden.checks.text import VALUE_LENGTH, clean
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Action, Finding, Outcome, Severity
from mlwarden.model.policy import Settings
from mlwarden.model.workload import Image, Json, Partial, Workload
from mlwarden.workloads import tagged_volumes

HOLD = "mlwarden-hold"
"""Name under which this is reported; no policy."""
_DEADLINE = "activeDeadlineSeconds"
_MADE_ANEW = frozenset(
    {
        ("", "PodTemplate"),
        ("", "ReplicationController"),
        ("apps", "DaemonSet"),
        ("apps", "Deployment"),
        ("apps", "ReplicaSet"),
        ("apps", "StatefulSet"),
        ("kubeflow.org", "Notebook"),
        ("leaderworkerset.x-k8s.io", "LeaderWorkerSet"),
        ("serving.knative.dev", "Configuration"),
        ("serving.knative.dev", "Revision"),
        ("serving.knative.dev", "Service"),
        ("serving.kserve.io", "InferenceService"),
        ("serving.kserve.io", "ServingRuntime"),
    }
)
"""Kinds whose pods come from a ReplicaSet, a StatefulSet or their like: a stuck one is made anew (ADR 17)."""


def waits(workload: Workload, facts: Facts, settings: Settings, pins: Mapping[str, str]) -> list[Finding]:
    """Returns the warnings about a request whose pods may be held.

    Args:
        workload: what is created or changed.
        facts: with the profile.
        settings: which profiles hold, and the roll-out.
        pins: JSON path → what this very request pins.
    """
    if not workload.pods or not settings.holds(facts.profile) or settings.rollout == "audit":
        return []
    findings = [] if workload.is_pod else [_deadline(workload, path) for path in _deadlines(workload)]
    if facts.old is None or not workload.is_pod:
        findings += [_volume(workload, image) for image in _fixed(workload) if image.path not in pins]
    return findings


def _deadlines(workload: Workload) -> Iterator[str]:
    """Where a deadline stands that is not a pod's own."""
    pods = {pod.spec_path for pod in workload.pods if pod.partial is Partial.NOTHING}
    stack: list[tuple[str, Json]] = [("spec", workload.object.get("spec"))]
    while stack:
        path, value = stack.pop()
        if path in pods:
            continue
        if isinstance(value, list):
            stack.extend((f"{path}[{index}]", each) for index, each in enumerate(value) if isinstance(each, dict))
        elif isinstance(value, dict):
            if isinstance(value.get(_DEADLINE), int):
                yield f"{path}.{_DEADLINE}"
            stack.extend((f"{path}.{key}", each) for key, each in value.items() if isinstance(each, dict | list))


def _deadline(workload: Workload, path: str) -> Finding:
    return _finding(
        workload,
        path=path,
        message=f"{_DEADLINE} runs while its pods are held: what waits longer for evidence about its images ends before it has started",
        why="a deadline counts from the start of the whole; a hold lasts for a scan, and for as long as an outage of mlwarden",
        fix=f"leave room for both, or set {_DEADLINE} in the pod's own spec, where it counts from the start of the pod",
    )


def _fixed(workload: Workload) -> Iterator[Image]:
    """The images of volumes that a tag names, of what nobody makes anew."""
    if (workload.resource.group, workload.resource.kind) not in _MADE_ANEW and not (workload.is_pod and _is_owned(workload)):
        yield from tagged_volumes(workload)


def _is_owned(workload: Workload) -> bool:
    """Whether somebody else than a person made it, who reads no warnings."""
    metadata = workload.object.get("metadata")
    return isinstance(metadata, Mapping) and bool(metadata.get("ownerReferences"))


def _volume(workload: Workload, image: Image) -> Finding:
    shown = clean(image.reference, VALUE_LENGTH)
    which = "this pod is never released" if workload.is_pod else "a pod whose tag was not resolved in the minute before is never released"
    return _finding(
        workload,
        path=image.path,
        message=f"the image volume names {shown} by its tag, which cannot be pinned after a pod's creation: {which}",
        why="a tag may move between the judgement and the start, an image volume is immutable, and nobody makes another pod in its place",
        fix=f"name it by its digest: {shown}@sha256:… (kubectl mlwarden evidence {shown})"
        + ("; or delete the pod and create it again in half a minute" if workload.is_pod else ""),
    )


def _finding(workload: Workload, *, path: str, message: str, why: str, fix: str) -> Finding:
    return Finding(
        policy=HOLD,
        outcome=Outcome.FAIL,
        action=Action.WARN.value,
        severity=Severity.LOW,
        resource=workload.resource,
        path=path,
        message=clean(message),
        why=why,
        fix=clean(fix),
        exception="none: it is a warning",
    )
