"""What was already so before an update of a pod: not judged again, or a pod admitted last year could not be debugged today.

A pod's spec hardly changes: an answer that was the same about the same element before the update is not this update's doing. Updates of
anything else are judged as a whole: their pods are created anew.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from mlwarden import workloads
from mlwarden.checks import Answer, View
from mlwarden.model.evidence import Facts
from mlwarden.model.workload import Json, Workload
from mlwarden.policy import CompiledPolicy

Ask = Callable[[CompiledPolicy, Workload, Facts, View], Sequence[Answer]]


class Before:
    """The pod before its update, and what policies would have said about it.

    Args:
        workload: the pod after it.
        facts: with the old object, where there is one.
        ask: gets a policy's answers.
    """

    def __init__(self, workload: Workload, facts: Facts, ask: Ask) -> None:
        self._old = workloads.extract(facts.old) if facts.old is not None and workload.is_pod else None
        self._new = workload
        self._facts = facts
        self._ask = ask
        self._answers: dict[str, frozenset[tuple[str, str, str, str]]] = {}

    @cached_property
    def images(self) -> Mapping[str, str]:
        """JSON path → reference, before the update."""
        return {image.path: image.reference for image in self._old.images} if self._old else {}

    def said(self, compiled: CompiledPolicy, answer: Answer) -> bool:
        """Whether this answer was the same before the update, about an element that the update leaves as it was."""
        if self._old is None:
            return False
        known = self._answers.get(compiled.name)
        if known is None:
            answers = self._ask(compiled, self._old, self._facts, self._view)
            known = self._answers[compiled.name] = frozenset(map(_key, answers))
        return _key(answer) in known and self._unchanged(answer.element)

    def _unchanged(self, path: str) -> bool:
        """Whether the element is what it was; the pod as a whole and its volumes are told by the answer alone."""
        try:
            return path not in self._now or (path in self._then and bool(self._then[path] == self._now[path]))
        except RecursionError:
            return False

    @cached_property
    def _view(self) -> View:
        return View(self._old or self._new, self._facts)

    @cached_property
    def _then(self) -> Mapping[str, Json]:
        return _elements(self._old) if self._old else {}

    @cached_property
    def _now(self) -> Mapping[str, Json]:
        return _elements(self._new)


def _elements(workload: Workload) -> Mapping[str, Json]:
    bodies: dict[str, Json] = {container.path: container.body for pod in workload.pods for container in pod.containers}
    return bodies | {image.path: image.reference for image in workload.images}


def _key(answer: Answer) -> tuple[str, str, str, str]:
    return answer.outcome.value, answer.element, answer.path, answer.message
