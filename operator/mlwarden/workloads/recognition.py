"""Which containers are the platform's: how one of an injector's is told from an impostor, and what is going to be added to pods.

A container is the platform's if it is what the injector's configuration in the cluster describes: name, image, command, security, and
whatever else it says. Beside that there may be what its row in the table (`workloads.injectors`) leaves free; anything else makes it the
author's, whatever it is called. So who writes the very same container gains nothing: it does what the platform would have had done. In a
pod that shares its processes another container could reach into this one, so there it is nobody's but the author's.

Rejected: recognising by name (anybody can write it), by the pod's owner or labels (the same), by who sent the request (a webhook has no
name there).
"""

import re
from collections.abc import Iterator, Mapping

from mlwarden.model.platform import Injected, Platform
from mlwarden.model.workload import Container, Json, Pod, Workload
from mlwarden.workloads.injectors import INJECTORS, NAMES, Injector, row_of
from mlwarden.workloads.values import as_list, as_map

_FREE = frozenset({"resources", "imagePullPolicy", "terminationMessagePath", "terminationMessagePolicy"})
"""Fields that the API server or anybody may fill in: they start nothing, and policies judge them like any other container's."""
_TOKENS = (r"/var/run/secrets/[a-z0-9./-]+",)
"""Where webhooks of cloud providers, and the API server, mount tokens into every container."""
_ABSENT: tuple[Json, ...] = (None, "", [], {}, False)


def predicted(workload: Workload, platform: Platform) -> Iterator[tuple[str, dict[str, Json]]]:
    """Yields what an object's pods will have added to them, before there are pods: where that is asked for, and a pod with it alone.

    Of KServe's storage initializer, whose pods would otherwise be the first to say so.
    """
    if (workload.resource.group, workload.resource.kind) != ("serving.kserve.io", "InferenceService"):
        return
    predictor = as_map(as_map(workload.object.get("spec")).get("predictor"))
    beside = {field: predictor[field] for field in ("securityContext", "hostUsers", "os") if field in predictor}
    asked = [(f"{field}.storageUri", as_map(server).get("storageUri")) for field, server in predictor.items()]
    for at, container in enumerate(as_list(predictor, "containers")):
        variables = enumerate(as_list(as_map(container), "env"))
        asked += [
            (f"containers[{at}].env[{n}]", as_map(each).get("value")) for n, each in variables if as_map(each).get("name") == "STORAGE_URI"
        ]
    for where, address in asked:
        found = _for_model(address, platform) if isinstance(address, str) else None
        if found is not None:
            container = {**found.body, "name": "storage-initializer", "args": [address, "/mnt/models"]}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {**beside, "initContainers": [container]}}
            yield f"spec.predictor.{where}", pod


def _for_model(address: str, platform: Platform) -> Injected | None:
    """The container that is added for a model: one that says so, else the one for any."""
    if address.startswith(("pvc://", "oci://", "oci+native://")) or "://" not in address:
        return None
    ours = [each for each in platform.injected if each.injector == "kserve-storage-initializer"]
    return next(
        (each for each in ours if any(_fits(model, address) for model in each.models)), next((e for e in ours if not e.models), None)
    )


def _fits(pattern: str, address: str) -> bool:
    try:
        return re.match(pattern, address[:2000]) is not None
    except (re.error, RecursionError):
        return False


def recognised(container: Container, pod: Pod, platform: Platform) -> Injected | None:
    """Returns what of the platform's a container is, None for an author's."""
    if container.name not in NAMES or pod.spec.get("shareProcessNamespace"):
        return None
    return next((each for each in platform.injected if _is(container, each)), None)


def unread(container: Container, platform: Platform) -> Injector | None:
    """Returns the injector that a container may be from, where its configuration was not read."""
    rows = (row for row in INJECTORS if row.name in platform.unread)
    return next((row for row in rows if row.container == container.name and container.role in row.roles), None)


def _is(container: Container, injected: Injected) -> bool:
    row, body, wanted = row_of(injected), container.body, injected.body
    if container.name != row.container or container.role not in row.roles:
        return False
    if not _is_image(body.get("image"), wanted["image"]):
        return False
    for field in (body.keys() | wanted.keys()) - _FREE - {"name", "image"}:
        given, said = body.get(field), wanted.get(field)
        match field:
            case "args" if row.arguments is not None and not said:
                fits = isinstance(given, list) and row.arguments(given)
            case _ if field in row.fields and not said:
                fits = given is None or row.fields[field](given)
            case "env":
                fits = all(each in _list(said) or as_map(each).get("name") in row.variables for each in _list(given))
            case "volumeMounts":
                fits = all(each in _list(said) or _is_mount(each, row) for each in _list(given))
            case "securityContext":
                fits = _is_as_secure(as_map(given), as_map(said)) and isinstance(given, dict | None)
            case _:
                fits = given == said or (given in _ABSENT and said in _ABSENT)
        if not fits:
            return False
    return True


def _is_image(given: Json, said: Json) -> bool:
    """The same, or pinned to a digest."""
    return isinstance(given, str) and (given == said or re.fullmatch(re.escape(said) + r"@sha256:[0-9a-f]{64}", given) is not None)


def _is_as_secure(given: Mapping[str, Json], said: Mapping[str, Json]) -> bool:
    """What is described, and nothing beside it but what only takes away (KServe writes the user of a mesh's proxy into its own)."""
    kept = all(given.get(key) == value for key, value in said.items())
    return kept and all(key in said or _takes_away(key, value) for key, value in given.items())


def _takes_away(key: str, value: Json) -> bool:
    match key:
        case "runAsUser" | "runAsGroup":
            return isinstance(value, int) and value > 0
        case "runAsNonRoot" | "readOnlyRootFilesystem":
            return value is True
        case "allowPrivilegeEscalation" | "privileged":
            return value is False
        case "capabilities":
            return isinstance(value, dict) and value.keys() <= {"drop"}
        case "seccompProfile":
            return bool(value == {"type": "RuntimeDefault"})
        case _:
            return False


def _is_mount(mount: Json, row: Injector) -> bool:
    path = as_map(mount).get("mountPath")
    fits = isinstance(path, str) and ".." not in path and any(re.fullmatch(each, path) for each in (*row.mounts, *_TOKENS))
    return fits and not as_map(mount).get("mountPropagation")


def _list(value: Json) -> list[Json]:
    """A list as it is; of anything else but null, a list of something that fits nowhere."""
    if isinstance(value, list):
        return value
    return [] if value is None else [None]
