"""Who debugs what with which image: `kubectl debug` on a running pod, in words for the audit log and for an Event.

A debug container is the one thing that a person starts inside somebody else's judged pod, so it leaves more behind than a decision. The
person is known in the admission request and nowhere else: whoever watches pods sees that a container was added, and not by whom (the field
manager is `kubectl-debug` for everybody). So the webhook says it, in the audit log always, and in an Event where it knows that the API
server is asking: in anybody's review a person's name is anybody's invention. The controller's own Event (`controllers.debugging`) names
nobody.

- **Audit annotations** `debug-person`, `debug-container`, `debug-image`, `debug-target`, on what is refused and on what is admitted; of
  what is admitted by the validating webhook alone, which sees the image as it is stored.
- **An Event on the pod**, `DebugContainer`. "admitted" means that mlwarden had nothing against it; another webhook may have.

Rejected: the controller as the only one who writes it (it would need the person from somewhere that nobody else can write), and an
annotation on the pod (a webhook cannot write metadata through the subresource, and others could).
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mlwarden.checks.text import NAME_LENGTH, VALUE_LENGTH, clean
from mlwarden.cluster.events import Subject, debugged
from mlwarden.model.finding import Decision, Outcome, Verdict
from mlwarden.model.workload import Json
from mlwarden.workloads.values import as_text

_AUDIT_LENGTH = 1000
_MESSAGE = 400


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """An ephemeral container that an update adds (or changes, which the API server refuses).

    Attributes:
        name: its name.
        image: as it is, or as it will be pinned.
        target: the container whose processes it sees, `""` for none.
    """

    name: str
    image: str
    target: str


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An Event to be written.

    Attributes:
        subject: the pod.
        message: one line.
        warning: somebody should look.
        refused: nothing was added.
        about: what it has in common with whoever else tells of it.
    """

    subject: Subject
    message: str
    warning: bool
    refused: bool
    about: str = ""


def added(pod: Mapping[str, Json], old: Mapping[str, Json] | None, pins: Mapping[str, str]) -> tuple[Added, ...]:
    """Returns what an update of a pod's ephemeral containers adds.

    Args:
        pod: the pod with them.
        old: the pod as stored.
        pins: JSON path of an image → its pinned form, of the verdict.
    """
    before = _containers(old or {})
    return tuple(
        Added(
            name=as_text(container.get("name")),
            image=pins.get(f"spec.ephemeralContainers[{index}].image") or as_text(container.get("image")),
            target=as_text(container.get("targetContainerName")),
        )
        for index, container in enumerate(_containers(pod))
        if container not in before
    )


def annotations(containers: Sequence[Added], person: str) -> dict[str, str]:
    """Returns the audit annotations, keys without prefix; several containers of one request are separated by spaces."""
    return {
        "debug-person": clean(person, _AUDIT_LENGTH),
        "debug-container": _joined(each.name for each in containers),
        "debug-image": _joined(each.image for each in containers),
        "debug-target": _joined(each.target or "(none)" for each in containers),
    }


def told(containers: Sequence[Added], person: str, subject: Subject, verdict: Verdict) -> Told:
    """Returns the Event about a decision. The name of a refused container is left out: kubectl makes a new one for every try."""
    refused = verdict.decision is Decision.DENY
    what = "; ".join(
        f"image {clean(each.image, VALUE_LENGTH * 2)}, target {clean(each.target, NAME_LENGTH) or '(none)'}"
        f"{'' if refused else f', container {clean(each.name, NAME_LENGTH)}'}"
        for each in containers[:4]
    )
    who = clean(person, VALUE_LENGTH) or "(somebody unknown)"
    if not refused:
        return Told(
            subject=subject,
            message=f"{who} adds a debug container: {what}; admitted",
            warning=False,
            refused=False,
            about=debugged(each.name for each in containers),
        )
    worst = verdict.findings[0]
    failed = any(finding.outcome is Outcome.FAIL for finding in verdict.findings)
    message = f"{who} wants a debug container: {what}; refused by {worst.policy}: {clean(worst.message, _MESSAGE)}"
    return Told(subject=subject, message=message, warning=failed, refused=True)


def _containers(pod: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    spec = pod.get("spec")
    listed = spec.get("ephemeralContainers") if isinstance(spec, Mapping) else None
    return [each if isinstance(each, Mapping) else {} for each in listed] if isinstance(listed, list) else []


def _joined(texts: Iterable[str]) -> str:
    return clean(" ".join(texts), _AUDIT_LENGTH)
