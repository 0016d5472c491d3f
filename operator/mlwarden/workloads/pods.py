"""What several layers ask of one pod."""

from collections.abc import Iterator, Mapping

from mlwarden.errors import Error
from mlwarden.model import reference as references
from mlwarden.model.policy import GATE
from mlwarden.model.workload import Image, Json, Role, Workload


def is_gated(pod: Json) -> bool:
    """Whether a pod, as any JSON, carries our gate."""
    spec = pod.get("spec") if isinstance(pod, Mapping) else None
    gates = spec.get("schedulingGates") if isinstance(spec, Mapping) else None
    return isinstance(gates, list) and any(isinstance(gate, Mapping) and gate.get("name") == GATE for gate in gates)


def tagged_volumes(workload: Workload) -> Iterator[Image]:
    """Yields the images of volumes that are named without a digest: no request can change them, from the pod's creation on.

    What is no image reference is not among them: it has a finding of its own.
    """
    for image in workload.images:
        if image.role is not Role.VOLUME:
            continue
        try:
            digest = references.parse(image.reference).digest
        except Error:
            continue
        if digest is None:
            yield image
