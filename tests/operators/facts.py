"""What of a pod matters to its security, as facts that can be compared: of a pod that was made, and of one that was predicted.

What the API server adds is no operator's: the default account, its token's volume, the gate and the digest that mlwarden asks for.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mlwarden.model.workload import Pod

Fact = tuple[str, ...]
_FLAGS = (
    "automountServiceAccountToken",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "nodeName",
    "runtimeClassName",
    "shareProcessNamespace",
)
_LISTS = ("initContainers", "containers")
_TOKEN = "kube-api-access-"


def of_pod(spec: Mapping[str, Any], *, scheduled: bool = True) -> frozenset[Fact]:
    """The facts of a pod spec; where it was scheduled its node is the scheduler's."""
    return frozenset(_facts(spec, scheduled=scheduled))


def predicted(pod: Pod) -> frozenset[Fact]:
    """The facts of what extraction says an operator will make: containers as they are composed, not as they are written."""
    spec = dict(pod.spec)
    for field in _LISTS:
        spec[field] = [{**each.body, "name": each.name} for each in pod.containers if f"{each.role}s" == field]
    return of_pod(spec, scheduled=False)


def _facts(spec: Mapping[str, Any], *, scheduled: bool) -> Iterator[Fact]:
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    yield "account", str(account)
    for flag in _FLAGS:
        if spec.get(flag) is not None and not (flag == "nodeName" and scheduled):
            yield "pod", flag, str(spec[flag])
    yield from _leaves(("pod", "securityContext"), spec.get("securityContext") or {})
    for volume in spec.get("volumes") or ():
        if not volume["name"].startswith(_TOKEN):
            yield "volume", volume["name"], *sorted(key for key in volume if key != "name")
            yield from _leaves(("volume", volume["name"]), {key: value for key, value in volume.items() if key in {"hostPath", "image"}})
    for field in _LISTS:
        for container in spec.get(field) or ():
            yield from _container((field, container["name"]), container)


def _container(where: Fact, container: Mapping[str, Any]) -> Iterator[Fact]:
    yield *where, "image", str(container.get("image", "")).partition("@")[0]
    yield from _leaves((*where, "securityContext"), container.get("securityContext") or {})
    for port in container.get("ports") or ():
        if port.get("hostPort"):
            yield *where, "hostPort", str(port["hostPort"])
    for mount in container.get("volumeMounts") or ():
        if not mount["name"].startswith(_TOKEN):
            yield *where, "mount", mount["name"], mount["mountPath"]


def _leaves(where: Fact, value: Any) -> Iterator[Fact]:
    stack: list[tuple[Fact, Any]] = [(where, value)]
    while stack:
        path, each = stack.pop()
        if isinstance(each, Mapping):
            stack.extend(((*path, str(key)), inner) for key, inner in each.items())
        elif isinstance(each, list):
            stack.extend(((*path, "[]"), inner) for inner in each)
        else:
            yield *path, str(each)
