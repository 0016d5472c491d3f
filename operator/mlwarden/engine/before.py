"""What was already so before an update of a pod: not judged again, or a pod admitted last year could not be debugged today.

A pod's spec hardly changes: an answer that was the same about the same element before the update is not this update's doing. Updates of
anything else are judged as a whole: their pods are created anew.

A container is the one of the same name and role before, wherever it stood: the API server lets an update put ephemeral containers in
another order, and a strategic merge patch puts what it adds first. Compared by position, the old ones would be judged again and their tags
pinned, which the API server refuses as a change of an existing ephemeral container: the pod could not be debugged any more.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from mlwarden import workloads
from mlwarden.checks import Answer, View
from mlwarden.model.evidence import Facts
from mlwarden.model.workload import Json, Role, Workload
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

    def image(self, path: str) -> str | None:
        """Returns the reference that stood before the update where this one stands now; None where there was none."""
        return self._images.get(self._origin(path)) if self._old else None

    def said(self, compiled: CompiledPolicy, answer: Answer) -> bool:
        """Whether this answer was the same before the update, about an element that the update leaves as it was."""
        if self._old is None:
            return False
        known = self._answers.get(compiled.name)
        if known is None:
            answers = self._ask(compiled, self._old, self._facts, self._view)
            known = self._answers[compiled.name] = frozenset(map(_key, answers))
        key = answer.outcome.value, self._origin(answer.element), self._origin(answer.path), answer.message
        return key in known and self._unchanged(answer.element)

    def _unchanged(self, path: str) -> bool:
        """Whether the element is what it was; the pod as a whole and its volumes are told by the answer alone."""
        origin = self._origin(path)
        try:
            return path not in self._now or (origin in self._then and bool(self._then[origin] == self._now[path]))
        except RecursionError:
            return False

    def _origin(self, path: str) -> str:
        """The path before the update, of what is at `path` now."""
        head, bracket, rest = path.partition("]")
        then = self._moved.get(head + bracket)
        return path if then is None else then + rest

    @cached_property
    def _moved(self) -> Mapping[str, str]:
        """Containers that stand elsewhere: path now → path before, `""` for one that was not there."""
        before = _places(self._old) if self._old else {}
        moved = {path: before.get(who, "") for who, path in _places(self._new).items()}
        return {now: then for now, then in moved.items() if now != then}

    @cached_property
    def _images(self) -> Mapping[str, str]:
        return {image.path: image.reference for image in self._old.images} if self._old else {}

    @cached_property
    def _view(self) -> View:
        return View(self._old or self._new, self._facts)

    @cached_property
    def _then(self) -> Mapping[str, Json]:
        return _elements(self._old) if self._old else {}

    @cached_property
    def _now(self) -> Mapping[str, Json]:
        return _elements(self._new)


def _places(workload: Workload) -> Mapping[tuple[Role, str], str]:
    """Role and name → path. Of two containers of one name, which the API server refuses, the last."""
    return {(container.role, container.name): container.path for pod in workload.pods for container in pod.containers}


def _elements(workload: Workload) -> Mapping[str, Json]:
    bodies: dict[str, Json] = {container.path: container.body for pod in workload.pods for container in pod.containers}
    return bodies | {image.path: image.reference for image in workload.images}


def _key(answer: Answer) -> tuple[str, str, str, str]:
    return answer.outcome.value, answer.element, answer.path, answer.message
