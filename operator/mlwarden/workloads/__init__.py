"""What a workload would run: every pod spec in it, with its containers and images, whatever kind it is."""

from mlwarden.workloads.extract import extract, resource_of, scale_of, template_as_pod
from mlwarden.workloads.kinds import KINDS, Kind, Place, Shape
from mlwarden.workloads.pods import is_gated, tagged_volumes

__all__ = ["KINDS", "Kind", "Place", "Shape", "extract", "is_gated", "resource_of", "scale_of", "tagged_volumes", "template_as_pod"]
