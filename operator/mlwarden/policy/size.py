"""How large a workload may be to be judged: here, and in the API server, which gives one expression a million units of cost.

What the author of a workload can make longer at will stands in a table of one row each: where it is in a pod, how many of it are judged,
and by which word in an expression one sees that the expression walks over it. In the API server a policy asks first whether what it walks
over is larger than its row, and answers with a sentence; the policy's own question is never cut off half way, with a page of CEL as the
reason. The bounds are far above what people write, and what is larger is refused by the webhook with the same words. The exception is the
environment, where whole workflows are kept: a long one is left to the webhook and to the release, wherever pods wait for the release.

Rejected: to let a policy that runs out of budget pass (`failurePolicy: Ignore`), and to have the text of the API server stand.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mlwarden.model.workload import Json, Pod, Workload

LARGEST = 1000
"""How many containers, images and volumes an object may have together. The largest pipelines have a few hundred."""
ADDED = 20
"""How many ephemeral containers one update may add; `kubectl debug` adds one."""
_EPHEMERAL = 500
ALL = "mlwarden_all"
"""The containers, in the CEL of a row."""
TOO_LONG = "the environment is too long to be judged inside the API server, and pods of this namespace do not wait to be judged elsewhere"
_VARIABLES, _CHARACTERS = 500, 32_000
"""What env-credentials costs: some 300 units for a variable and 20 for a character, of a million."""


class Bound(NamedTuple):
    """One thing that can be made longer at will.

    Attributes:
        what: what it is, in the plural.
        most: how many of it a workload may have.
        words: an expression with one of these names walks over it.
        cel: how many there are, over `mlwarden_all` or `variables.pod`.
        count: the same of a pod in Python.
    """

    what: str
    most: int
    words: tuple[str, ...]
    cel: str
    count: Callable[[Pod], int]


def _each(field: str) -> str:
    return f"{ALL}.map(each, each{field}.size()).sum()"


def _of_containers(*paths: str) -> Callable[[Pod], int]:
    return lambda pod: sum(_length(container.body, path) for container in pod.containers for path in paths)


def _of_volumes(pod: Pod) -> int:
    volumes = pod.spec.get("volumes")
    return sum(_length(volume, "projected.sources") for volume in volumes) if isinstance(volumes, list) else 0


def _length(value: Json, path: str) -> int:
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return len(value) if isinstance(value, list | dict) else 0


_CAPABILITIES = ".?securityContext.?capabilities.?"
_ENVIRONMENT = Bound("environment variables", 10_000, ("env", "variable"), _each(".?env.orValue([])"), _of_containers("env"))
BOUNDS = (
    Bound("ports", 10_000, ("ports",), _each(".?ports.orValue([])"), _of_containers("ports")),
    Bound(
        "capabilities",
        5_000,
        ("capabilities",),
        f"({_each(f'{_CAPABILITIES}add.orValue([])')} + {_each(f'{_CAPABILITIES}drop.orValue([])')})",
        _of_containers("securityContext.capabilities.add", "securityContext.capabilities.drop"),
    ),
    Bound(
        "amounts of resources",
        5_000,
        ("limits", "requests"),
        f"({_each('.?resources.?limits.orValue({})')} + {_each('.?resources.?requests.orValue({})')})",
        _of_containers("resources.limits", "resources.requests"),
    ),
    _ENVIRONMENT,
    Bound(
        "sysctls",
        1_000,
        ("sysctls",),
        "variables.pod.spec.?securityContext.?sysctls.orValue([]).size()",
        lambda pod: _length(pod.spec, "securityContext.sysctls"),
    ),
    Bound(
        "sources of projected volumes",
        5_000,
        ("sources",),
        "variables.pod.spec.?volumes.orValue([]).map(each, each.?projected.?sources.orValue([]).size()).sum()",
        _of_volumes,
    ),
)
LONG_ENVIRONMENT = (
    f"({_each('.?env.orValue([])')} > {_VARIABLES} || {ALL}.map(each, each.?env.orValue([])"
    f".map(variable, variable.?name.orValue('').size() + (has(variable.value) ? variable.value.size() : 0)).sum()).sum() > {_CHARACTERS})"
)
"""CEL: the environment is longer than what the API server can judge within its budget."""
_MANY = (
    "(request.?subResource.orValue('') == 'ephemeralcontainers'"
    " ? variables.pod.spec.?ephemeralContainers.orValue([]).size() - dyn(oldObject).?spec.?ephemeralContainers.orValue([]).size() > "
    f"{ADDED} || variables.pod.spec.?ephemeralContainers.orValue([]).size() > {_EPHEMERAL}"
    " : 2 * (variables.pod.spec.?containers.orValue([]).size() + variables.pod.spec.?initContainers.orValue([]).size()"
    " + variables.pod.spec.?ephemeralContainers.orValue([]).size()) + variables.pod.spec.?volumes.orValue([]).size() > "
    f"{LARGEST})"
)
_LISTS = frozenset({"containers", "initContainers", "ephemeralContainers", "volumes"})


def too_large(workload: Workload) -> str:
    """Returns what a workload has too many of, `""` where it can be judged."""
    elements = _elements(workload)
    if elements > LARGEST:
        return f"it has {elements} containers, images and volumes, and more than {LARGEST} are not judged"
    for bound in BOUNDS:
        found = sum(map(bound.count, workload.pods))
        if found > bound.most:
            return f"it has {found} {bound.what}, and more than {bound.most} are not judged"
    return ""


def cel(names: frozenset[str], containers: str, *, elements: bool) -> str:
    """Returns CEL for what is too large for an expression: a text, `''` where nothing is; `""` where nothing can be.

    Args:
        names: every name in the expression.
        containers: CEL for the containers that are judged, `""` for an expression that is not about containers.
        elements: whether the expression is asked of every container, image, variable or volume.
    """
    rows = [bound for bound in BOUNDS if not names.isdisjoint(bound.words)]
    over = [bound for bound in rows if ALL in bound.cel and containers]
    alone = [bound for bound in rows if ALL not in bound.cel]
    found = "''"
    if over:
        # How many variables there are is part of how long they are: counted again only where they are long.
        inner = f"{LONG_ENVIRONMENT} ? ({_chain([_ENVIRONMENT], _text(TOO_LONG))}) : ''" if _ENVIRONMENT in over else "''"
        found = f"[{containers}].map({ALL}, {_chain([bound for bound in over if bound is not _ENVIRONMENT], inner)})[0]"
    found = _chain(alone, found)
    if elements or not names.isdisjoint(_LISTS):
        found = f"{_MANY} ? {_text(f'has more than {LARGEST} containers, images and volumes, or adds more than {ADDED} at once')} : {found}"
    return "" if found == "''" else found


def _chain(rows: list[Bound], last: str) -> str:
    for bound in reversed(rows):
        last = f"{bound.cel} > {bound.most} ? {_text(f'has more than {bound.most} {bound.what}')} : {last}"
    return last


def _text(text: str) -> str:
    return f"'{text}'"


def _elements(workload: Workload) -> int:
    volumes = (pod.spec.get("volumes") for pod in workload.pods)
    listed = sum(len(found) for found in volumes if isinstance(found, list))
    return listed + sum(len(pod.containers) + len(pod.images) for pod in workload.pods)
