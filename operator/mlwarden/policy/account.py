"""mlwarden's own service accounts, as CEL in the API server sees them."""

import json
from collections.abc import Iterable

from mlwarden.model.policy import Settings

MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a pod by which a kubelet shows what it runs from a file of its own."""
IS_MIRROR = (
    "(has(request.userInfo.groups) && 'system:nodes' in request.userInfo.groups"
    f" && '{MIRROR}' in object.metadata.?annotations.orValue({{}}))"
)
"""CEL: a kubelet shows what it runs anyway. The API server lets nobody but nodes make such a pod, and to refuse it would only hide it."""


def cel(value: str | Iterable[str]) -> str:
    """Returns a CEL literal of a string or of a list of strings. JSON's escapes are a subset of CEL's."""
    return json.dumps(value if isinstance(value, str) else list(value))


def username(settings: Settings, account: str) -> str:
    """Returns the user name of one of mlwarden's service accounts."""
    return f"system:serviceaccount:{settings.namespace}:{account}"


def is_account(settings: Settings, *accounts: str) -> str:
    """Returns CEL that is true for these service accounts of mlwarden, with a token that a kubelet got for a running pod.

    The name alone is not enough: `edit` in mlwarden's namespace includes `impersonate` on its service accounts. An impersonator would also
    need `impersonate` on `userextras/authentication.kubernetes.io/pod-name`, which no default role has; and a token from
    `kubectl create token` carries no pod either.
    """
    names = cel([username(settings, account) for account in accounts])
    return (
        f"(request.userInfo.username in {names} && has(request.userInfo.extra)"
        " && 'authentication.kubernetes.io/pod-name' in request.userInfo.extra)"
    )
