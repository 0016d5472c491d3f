"""Whether a finding about a partial pod is about what is set, or about what is left out and somebody else may still say.

The question is asked twice more. First of a pod of which the object says nothing and which is hardened in every way: a policy that this one
fails asks for something that only the whole pod can answer. Then of what the object says, with the hardening where it says nothing: what
passes now had only left something out. What is left is wrong by what is set, whatever else will be said: it fails. The pod itself is judged
when it is made.

Nothing is asked twice of a pod that is not partial, and nothing of what passes. Rejected: a list of fields per policy, which the cluster's
own policies would not have, and a trace of the fields that an expression reads: `orValue` reads what is not there.
"""

import re
from collections.abc import Mapping

from mlwarden import cel
from mlwarden.checks import patch
from mlwarden.checks.view import LISTS, Element
from mlwarden.model.policy import Each
from mlwarden.model.workload import Json, Partial, Pod, Role
from mlwarden.workloads.values import as_list

_SECURITY = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER: Mapping[str, Json] = {
    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
    "securityContext": {
        **_SECURITY,
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
    **{probe: {"tcpSocket": {"port": 8080}} for probe in ("livenessProbe", "readinessProbe", "startupProbe")},
}
"""A container that says everything a policy may ask for."""
POD: Mapping[str, Json] = {"automountServiceAccountToken": False, "securityContext": {**_SECURITY, "runAsGroup": 1000, "fsGroup": 1000}}
"""A pod spec of the same kind."""


_SHOWN: Mapping[str, Json] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def hardened(spec: Mapping[str, Json]) -> dict[str, Json]:
    """Returns a pod spec with what Pod Security's `restricted` asks for beneath what it says, and no token, as a person would write it."""
    containers = [
        {**each, "securityContext": patch.merged(_SHOWN, each.get("securityContext", {}))} for each in as_list(spec, "containers")
    ]
    return {"automountServiceAccountToken": False, "securityContext": dict(_SECURITY), **spec, "containers": containers}


_IMAGE = re.compile(r"\bimage\b")


class Absence:
    """One policy's question about what partial pods leave out.

    Args:
        program: the question, with what is left of the budget for the whole object.
        fresh: the same with a budget of its own, for a pod of which nothing is the object's: never out of budget, which would be no answer.
        change: the policy's own patch: what helps may be nothing that everybody says.
    """

    def __init__(self, program: cel.Program, fresh: cel.Program, change: Mapping[str, Json]) -> None:
        self._program, self._fresh, self._change = program, fresh, change
        self._specs: dict[int, Mapping[str, Json]] = {}
        self._answerable: dict[tuple[str, str], bool] = {}

    def explains(self, element: Element) -> bool:
        """Whether an element that did not pass is partial, or of a kind without pod metadata, and only silent about what was asked."""
        pod = element.pod
        if pod is None:
            return False
        containers = bool(pod.partial or (element.container is not None and element.container.partial))
        if not (containers or pod.lacks) and (pod.has_metadata or "metadata" not in self._program.source):
            return False
        match element.each:
            case Each.POD:
                return self._pod(element, pod)
            case Each.CONTAINER:
                return self._container(element, pod, open_=containers)
            case _:
                return False

    def _pod(self, element: Element, pod: Pod) -> bool:
        wanted = self._change.get("spec")
        change = wanted if isinstance(wanted, Mapping) else {}
        hardened = patch.merged({**POD, "containers": [CONTAINER]}, change)
        listed = [each for field in LISTS.values() for each in as_list(element.body["spec"], field)]
        if not self._is_about_image(listed) and not self._can_be_answered(element, pod, "", {"object": _nobodys(element.body, hardened)}):
            return True
        spec = self._silent(element, pod)
        if pod.partial is Partial.POD:
            spec = patch.merged(change, spec)
        said: dict[str, Json] = {}
        if pod.partial:
            beneath = _beneath(CONTAINER, element.body)
            lists = {field: spec[field] for field in LISTS.values() if isinstance(spec.get(field), list)}
            for field, found in lists.items():
                said[field] = [patch.merged(beneath, each) if isinstance(each, dict) else each for each in found]
        return asked(self._program, {**element.env, "object": {**element.body, "spec": {**spec, **said}}})

    def _container(self, element: Element, pod: Pod, *, open_: bool) -> bool:
        role, whole = LISTS[Role(element.env["role"])], element.env["object"]
        hardened = patch.merged(CONTAINER, self._change)
        bare = {"container": hardened, "object": _nobodys(whole, {**POD, role: [hardened]})}
        asks_for_more = open_ or not pod.lacks or not pod.has_metadata  # else the pod lacks a field, and of the container all is known
        if asks_for_more and not self._is_about_image([element.body]) and not self._can_be_answered(element, pod, role, bare):
            return True
        container = patch.merged(_beneath(hardened, whole), element.body) if open_ else element.body
        silent = {"container": container, "object": {**whole, "spec": {**self._silent(element, pod), role: [container]}}}
        return asked(self._program, {**element.env, **silent})

    def _is_about_image(self, containers: list[Json]) -> bool:
        """Whether an image is asked about and said: nobody's pod has none, so what it would answer says nothing."""
        asks = _IMAGE.search(self._program.source) is not None
        return asks and any(isinstance(each, Mapping) and each.get("image") for each in containers)

    def _can_be_answered(self, element: Element, pod: Pod, role: str, hardened: Mapping[str, Json]) -> bool:
        """Whether a pod passes that is hardened in every way; the same for all containers of one pod."""
        if (pod.path, role) not in self._answerable:
            self._answerable[pod.path, role] = asked(self._fresh, {**element.env, **hardened})
        return self._answerable[pod.path, role]

    def _silent(self, element: Element, pod: Pod) -> Mapping[str, Json]:
        """The pod spec with the hardening where it says nothing and others may; made once for all containers of a pod."""
        if id(pod) not in self._specs:  # a place may be two pods
            spec = element.env["object"].get("spec", {})
            said_elsewhere = POD if pod.partial is Partial.POD else {field: POD[field] for field in pod.lacks if field in POD}
            self._specs[id(pod)] = patch.merged(said_elsewhere, spec)
        return self._specs[id(pod)]


def _beneath(hardened: Mapping[str, Json], pod: Mapping[str, Json]) -> Mapping[str, Json]:
    """A hardened container in a pod that says something for all of its containers: that counts, not the hardening."""
    spec = pod.get("spec")
    said = spec.get("securityContext") if isinstance(spec, Mapping) else None
    known = {field: said[field] for field in _SECURITY if field in said} if isinstance(said, Mapping) else {}
    return patch.merged(hardened, {"securityContext": known}) if known else hardened


def _nobodys(pod: Mapping[str, Json], spec: Mapping[str, Json]) -> dict[str, Json]:
    """A pod with another spec, of whose metadata only the name is left: labels and annotations are what an object sets, too."""
    metadata = pod.get("metadata")
    known = metadata if isinstance(metadata, Mapping) else {}
    return {**pod, "metadata": {key: known[key] for key in ("name", "namespace", "generateName") if key in known}, "spec": spec}


def asked(program: cel.Program, env: Mapping[str, Json]) -> bool:
    """Returns whether all is well with these variables; what cannot be evaluated is not."""
    try:
        return program(dict(env)) is True
    except (cel.EvaluationError, RecursionError):
        return False
