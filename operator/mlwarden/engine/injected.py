"""What is done about a container that the platform puts into a pod: less, where a policy says so, and said to whom it concerns.

It is said when the object is applied whose pods get it: a pod that never starts is no place to tell a person.

Its author wrote none of it and can change none of it. So a finding about it says who adds it and where the platform's administrator puts it
right; what is done about it is `injected` of the policy, where that is less than what the profile says.

While the configuration of an injector was not read, nobody knows whose a container of its name is: a Fail that would be passed over then
is `Unknown`.
"""

from collections.abc import Iterator
from functools import cached_property

import msgspec

from mlwarden import workloads
from mlwarden.checks import Answer
from mlwarden.checks.text import clean
from mlwarden.engine.actions import HOLD, Situation, Waiting, softened, weaker
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Action, OnInjected, Outcome
from mlwarden.model.platform import Injected
from mlwarden.model.policy import Each
from mlwarden.model.workload import Container, Pod, Workload
from mlwarden.policy import CompiledPolicy
from mlwarden.workloads import injectors, recognition


def asks(compiled: CompiledPolicy) -> bool:
    """Whether a policy asks something of containers before there are pods; what they have of resources is the pods' affair."""
    expression = compiled.policy.spec.requirement.expression
    return expression is not None and expression.for_each is Each.CONTAINER and not expression.sees_resources


class Platforms:
    """The containers of a workload that are the platform's.

    Args:
        workload: what is judged.
        facts: with what the platform's configuration says.
    """

    def __init__(self, workload: Workload, facts: Facts) -> None:
        self._workload, self._platform = workload, facts.platform

    def judged(self, compiled: CompiledPolicy, answer: Answer, on_fail: Action, situation: Situation) -> tuple[Answer, str]:
        """Returns an answer that is no Pass as it stands once it is known whose container it is about, and what is done about it.

        Where that is what is done anyway, `""`.
        """
        spec = compiled.policy.spec
        for pod, container in self._named:
            if answer.element != container.path and not answer.element.startswith(f"{container.path}."):
                continue
            injected = recognition.recognised(container, pod, self._platform)
            if injected is not None:
                softer = spec.injected if answer.outcome is Outcome.FAIL else None
                return _told(answer, injected, spec.fix.text), _instead(softer, on_fail, situation) if softer else ""
            row = recognition.unread(container, self._platform) if spec.injected is not None and answer.outcome is Outcome.FAIL else None
            if row is not None:
                message = f"{answer.message}; whether {row.who} added it is not known: its configuration was not read"
                return msgspec.structs.replace(answer, outcome=Outcome.UNKNOWN, message=clean(message)), ""
        return answer, ""

    def predicted(self) -> Iterator[tuple[str, Workload]]:
        """Yields what will be added to the pods of this object: where it asks for that, and a pod with it alone."""
        for path, pod in recognition.predicted(self._workload, self._platform):
            yield path, workloads.extract(pod)

    @cached_property
    def _named(self) -> tuple[tuple[Pod, Container], ...]:
        if not self._platform.injected and not self._platform.unread:
            return ()
        return tuple((pod, container) for pod in self._workload.pods for container in pod.containers if container.name in injectors.NAMES)


def _instead(wanted: OnInjected, on_fail: Action, situation: Situation) -> str:
    """Returns what is done about a Fail of a platform's container: what the policy says of those, never more than of an author's."""
    said = weaker(wanted.value, on_fail.value)
    if said == HOLD and situation.waiting is not Waiting.GATED:
        said = Action.WARN.value if situation.waiting is Waiting.PODS_ARE_JUDGED else Action.DENY.value
    return softened(said, situation)


def _told(answer: Answer, injected: Injected, fix: str) -> Answer:
    row = injectors.row_of(injected)
    message = f"{answer.message}; {row.who} adds this container, as {injected.source} says"
    helps = f"not yours to change: whoever runs the platform does it in {injectors.mended_in(injected)}: {fix}"
    return msgspec.structs.replace(answer, message=clean(message), fix=clean(helps))
