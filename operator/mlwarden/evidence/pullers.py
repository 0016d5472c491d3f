"""On whose behalf an image is pulled: the pull Secrets that a pod, or the pods of a template, would be started with.

Only names travel: whoever asks for evidence has no right to read Secrets, and what is asked for stands in an object that people read. The
scanner reads them when it pulls (`scanner.pull`). A namespace is never taken from the object: it is that of the request.
"""

import re
from typing import Annotated, TypeGuard

import msgspec

from mlwarden.model.workload import Json, Pod, Workload

MAX_PULLERS = 8
_MAX_SECRETS = 8
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]


class Puller(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whose credentials an image is pulled with.

    Attributes:
        namespace: of the pod.
        service_account: whose pull Secrets count where the pod names none.
        secrets: the pull Secrets that the pod names.
    """

    namespace: Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
    service_account: _Name
    secrets: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=_MAX_SECRETS)] = ()


def pullers(workload: Workload, namespace: str) -> tuple[Puller, ...]:
    """Returns who pulls the images of a workload, once each; nobody outside of a namespace."""
    if not _is_name(namespace) or len(namespace) > 63:
        return ()
    return tuple(dict.fromkeys(_puller(pod, namespace) for pod in workload.pods if pod.images))[-MAX_PULLERS:]


def _puller(pod: Pod, namespace: str) -> Puller:
    listed = pod.spec.get("imagePullSecrets")
    names = [each.get("name") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    secrets = tuple(dict.fromkeys(name for name in names if _is_name(name)))
    account = pod.spec.get("serviceAccountName") or pod.spec.get("serviceAccount")
    return Puller(namespace=namespace, service_account=account if _is_name(account) else "default", secrets=secrets[:_MAX_SECRETS])


def _is_name(value: Json) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= 253 and _NAME.fullmatch(value) is not None
