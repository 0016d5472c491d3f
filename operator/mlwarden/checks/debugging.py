"""What helps somebody whose `kubectl debug` was refused.

Nobody edits the manifest of a debug container: there is none, kubectl makes it of its flags. So the fix is a command, and it is shown only
where what that command sets was evaluated and passes. What needs more privilege than that is done by an administrator in a namespace that
is not governed, kube-system, where creating pods is a cluster administrator's right and the API server's audit log has every request.

Source: k8s.io/kubectl/pkg/cmd/debug/profiles.go.
"""

from collections.abc import Callable, Mapping

from mlwarden.checks.text import NAME_LENGTH, VALUE_LENGTH, clean
from mlwarden.checks.view import Element
from mlwarden.model.finding import Severity
from mlwarden.model.workload import Json, Role, Workload

RESTRICTED: Mapping[str, Json] = {
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
}
"""What `--profile=restricted` sets."""
_NUMBER = (
    "; the profile sets runAsNonRoot and no number: where the image runs as root or as a user by name, add --custom=FILE with"
    ' {"securityContext": {"runAsUser": 1000}} in it'
)
"""A kubelet does not start what may be root and names no number (kuberuntime, verifyRunAsNonRoot)."""
_LABEL, _KUBECTL = "app.kubernetes.io/managed-by", "kubectl-debug"


def fix(element: Element, workload: Workload, severity: Severity, passes: Callable[[Mapping[str, Json]], bool]) -> str:
    """Returns the command that helps, `""` where this is no debug container or pod, or where no command does.

    Args:
        element: what failed.
        workload: the pod it is in.
        severity: of the policy: what is critical is what some need nevertheless.
        passes: whether the element passes with this merge patch.
    """
    if not workload.is_pod:
        return ""
    spec, metadata = (workload.object.get(field) for field in ("spec", "metadata"))
    node = spec.get("nodeName") if isinstance(spec, Mapping) else None
    node = clean(node, NAME_LENGTH) if isinstance(node, str) and node else "NODE"
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    if isinstance(labels, Mapping) and labels.get(_LABEL) == _KUBECTL:
        return f"a node is debugged by an administrator, where it is not governed but audited: kubectl debug node/{node} -n kube-system"
    if element.env.get("role") != Role.EPHEMERAL.value or not passes(RESTRICTED):
        return ""
    pod = workload.resource
    image = clean(element.image, VALUE_LENGTH) or "IMAGE"
    command = f"kubectl debug {clean(pod.name, NAME_LENGTH)} -n {clean(pod.namespace, NAME_LENGTH)} --image={image} --profile=restricted"
    command += "" if _has_number(spec) else _NUMBER
    if severity is not Severity.CRITICAL:
        return command
    return f"{command}; what needs more, an administrator does from the node: kubectl debug node/{node} -n kube-system --profile=sysadmin"


def _has_number(spec: Json) -> bool:
    """Whether the pod says for all its containers as which user they run."""
    security = spec.get("securityContext") if isinstance(spec, Mapping) else None
    user = security.get("runAsUser") if isinstance(security, Mapping) else None
    return isinstance(user, int) and user > 0
