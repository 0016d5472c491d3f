"""Where an image that was judged for some platforms only would run: on nodes of those, or it is not known what that is.

An index has an image for each platform, and the scanner reads those of the cluster's nodes. What it left out must not start anywhere. A pod
that the scheduler places is kept to the other nodes: the answer says which (`Answer.nodes`), and whoever pins the images writes it down.
A pod that names its node is judged by the platform of that node; a container that is added to a pod which nobody placed yet cannot be kept
anywhere, unless the pod is.

Rejected: asking the same of every index. Where everything in it was judged, and of an image for one platform, there is nothing to ask.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta

import msgspec

from mlwarden.checks.answer import Answer
from mlwarden.checks.text import NAME_LENGTH, VALUE_LENGTH, clean
from mlwarden.checks.view import View
from mlwarden.model.evidence import Facts, Scan
from mlwarden.model.finding import Outcome
from mlwarden.model.nodes import Nodes
from mlwarden.model.workload import Image, Pod, Role
from mlwarden.workloads import nodes as places

ASKED_AGAIN = timedelta(minutes=10)
"""Until a scan is asked for again that left out what a pod would run: the scanner may have been told of more platforms."""


def judged_on(scan: Scan) -> Nodes | None:
    """Returns the nodes on which nothing of a digest runs but what was scanned; None for everywhere."""
    if not scan.manifests:
        return None
    if not scan.platforms:  # by a version that did not write it down: of Linux it was, and it is made again soon
        return Nodes()
    if not scan.unjudged:
        return None
    return Nodes(architectures=tuple(each.partition("/")[2] for each in scan.platforms))


def placed(view: View, facts: Facts, answers: Iterable[Answer]) -> Iterator[Answer]:
    """Yields the answers; one that is good for some nodes only is `Unknown` where its pod may run on none of them."""
    at = {image.path: (pod, image) for pod, image in view.references()}
    left: dict[str, Nodes] = {}
    for answer in answers:
        if answer.nodes is None:
            yield answer
            continue
        pod, image = at[answer.path]
        before = left.get(pod.path)
        both = answer.nodes if before is None else before.both(answer.nodes)
        reason = _elsewhere(pod, image, answer.nodes, facts) if both else f"other images of its pod for {before} only"
        if both is not None and not reason:
            left[pod.path] = both
            yield answer
            continue
        yield msgspec.structs.replace(
            answer,
            outcome=Outcome.UNKNOWN,
            message=clean(f"image {clean(image.reference, VALUE_LENGTH)} was scanned for {answer.nodes} only, and {reason}"),
            fix=f"have it run on nodes of {answer.nodes}, or name the other platforms in the chart's scanner.architectures",
            nodes=None,
        )


def _elsewhere(pod: Pod, image: Image, nodes: Nodes, facts: Facts) -> str:
    """Why a pod does not run where an image was judged; `""` where it does, or can be made to."""
    name = places.named_node(pod.spec)
    if name:
        platform = facts.nodes.get(name, "")
        if not platform:
            return f"the platform of the node {clean(name, NAME_LENGTH)} is not known"
        return "" if nodes.has(platform) else f"the node {clean(name, NAME_LENGTH)} is {clean(platform, NAME_LENGTH)}"
    if not places.permits(pod.spec, nodes):
        return "its pod asks for other nodes"
    if image.role is Role.EPHEMERAL and not places.confined(pod.spec, nodes):
        return "its pod has no node yet, and may get any"
    return ""
