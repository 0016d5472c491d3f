"""What a workload would run: every pod spec in it, with its containers and images, whatever kind it is."""

from mlwarden.workloads.extract import extract, resource_of, scale_of, template_as_pod
from mlwarden.workloads.judged import Standing, is_namespaced, sent, standing
from mlwarden.workloads.kinds import KINDS, Kind, Place, Shape
from mlwarden.workloads.pods import is_gated, tagged_volumes

__all__ = [
    "KINDS",
    "Kind",
    "Place",
    "Shape",
    "Standing",
    "extract",
    "is_gated",
    "is_namespaced",
    "resource_of",
    "scale_of",
    "sent",
    "standing",
    "tagged_volumes",
    "template_as_pod",
]
