"""A workload as the checks look at it: element by element, each with what an expression may see.

Made once per evaluation and shared by all policies, because the same pod, container and image are asked about by twenty policies, and
shaping them costs more than the questions do. Everything in it is lazy: a workload that no policy is about costs nothing. Nulls are gone,
as the API server would drop them: `has()` must mean the same in both places.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import msgspec

from mlwarden import cel, workloads
from mlwarden.checks.answer import Answer
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Outcome
from mlwarden.model.limits import Defaults
from mlwarden.model.policy import Each
from mlwarden.model.workload import Container, Image, Json, Pod, Role, Workload
from mlwarden.workloads import limits
from mlwarden.workloads.placeholders import is_placeholder
from mlwarden.workloads.values import as_list

LISTS = {Role.INIT: "initContainers", Role.CONTAINER: "containers", Role.EPHEMERAL: "ephemeralContainers"}
"""Role → the list of a pod spec it stands for."""


_NO_LIMITS = Defaults()


class Element(msgspec.Struct, frozen=True, kw_only=True):
    """One thing an expression is evaluated over.

    Attributes:
        each: which kind of thing.
        path: its JSON path, `""` for the object itself.
        name: what a person would call it.
        body: the thing itself, without nulls.
        image: the reference as written, `""` where the element has none.
        pod: the pod it belongs to; None for the whole object.
        env: the variables of the expression.
        passed: the answer where all is well; made once, because it usually is.
        container: the container that this is, or that a variable is in.
    """

    each: Each
    path: str
    name: str
    body: Json
    image: str
    pod: Pod | None
    env: dict[str, Json]
    passed: Answer
    container: Container | None = None

    def place(self, field: str) -> str:
        """Returns the JSON path of `field` below this element, as it stands in the object (bare pod specs have no `spec.`)."""
        if self.each is Each.POD and self.pod is not None and self.pod.bare:
            if field == "metadata" or field.startswith("metadata.") or self.is_container:
                return self.path
            field = "" if field == "spec" else field.removeprefix("spec.")
            return self.pod.where(field) if field else self.path
        if not field:
            return self.path
        if self.each is Each.CONTAINER and self.container is not None:
            return self.container.where(field)
        return f"{self.path}.{field}" if self.path and not field.startswith("[") else f"{self.path}{field}"

    @property
    def is_container(self) -> bool:
        """The pod is a lone container of its workload (`container: {image: …}`): there is no pod spec to point at."""
        return self.pod is not None and not self.pod.holder and any(container.path == self.pod.path for container in self.pod.containers)


class View:
    """The elements of one workload.

    Args:
        workload: what is judged.
        facts: gives `namespaceObject`.
    """

    def __init__(self, workload: Workload, facts: Facts) -> None:
        self.workload = workload
        self._namespace = cel.strip_nulls(dict(facts.namespace))
        self._limits = facts.limits
        self.is_unlimited = facts.limits is None and not workload.is_pod
        """What LimitRanges fill into these pods is not known: what they have of resources is not known."""

    def elements(self, each: Each) -> tuple[Element, ...]:
        """Returns every element of that kind, in the order of the object."""
        match each:
            case Each.POD:
                return self.pods
            case Each.CONTAINER:
                return self.containers
            case Each.VARIABLE:
                return self.variables
            case Each.VOLUME:
                return self.volumes
            case Each.IMAGE:
                return self.images
            case Each.OBJECT:
                return self.whole

    @cached_property
    def pods(self) -> tuple[Element, ...]:
        """Each pod, shaped as a Pod whatever the workload's kind."""
        return tuple(self._pods())

    @cached_property
    def containers(self) -> tuple[Element, ...]:
        """Each container of every role."""
        return tuple(self._containers())

    @cached_property
    def variables(self) -> tuple[Element, ...]:
        """Each environment variable of every container."""
        return tuple(
            Element(
                each=Each.VARIABLE,
                path=container.place(f"env[{index}]")
                if container.container and container.container.origins
                else f"{container.path}.env[{index}]",
                passed=container.passed,  # there are many, and nobody asks which of them are good
                name=text(variable.get("name")) if isinstance(variable, Mapping) else "",
                body=variable,
                image="",
                pod=container.pod,
                container=container.container,
                env={**container.env, "variable": variable},
            )
            for container in self.containers
            for index, variable in enumerate(as_list(container.body, "env"))
        )

    @cached_property
    def volumes(self) -> tuple[Element, ...]:
        """Each volume of every pod."""
        return tuple(
            Element(
                each=Each.VOLUME,
                path=(path := pod.where(f"volumes[{index}]")),
                passed=_passed(path),
                name=text(volume.get("name")) if isinstance(volume, Mapping) else "",
                body=volume,
                image="",
                pod=pod,
                env={**shaped.env, "volume": volume},
            )
            for pod, shaped in self._shaped()
            for index, volume in enumerate(as_list(shaped.body["spec"], "volumes"))
        )

    @cached_property
    def images(self) -> tuple[Element, ...]:
        """Each image reference, image volumes included."""
        return tuple(
            Element(
                each=Each.IMAGE,
                path=image.path,
                passed=_passed(image.path),
                name=image.owner,
                body=image.reference,
                image=image.reference,
                pod=pod,
                env={**shaped.env, "image": "" if self.is_filled_in_later(image.reference) else image.reference},
            )
            for pod, shaped in self._shaped()
            for image in pod.images
        )

    @cached_property
    def whole(self) -> tuple[Element, ...]:
        """The object as it is."""
        body = self.pods[0].body if self.workload.is_pod and self.pods else cel.strip_nulls(dict(self.workload.object))
        return (
            Element(
                each=Each.OBJECT,
                path="",
                passed=_passed(""),
                name=self.workload.resource.name,
                body=body,
                image="",
                pod=None,
                env={"object": body, "namespaceObject": self._namespace},
            ),
        )

    def references(self) -> Iterator[tuple[Pod, Image]]:
        """Yields every image reference with its pod, for checks that look at evidence and not at the manifest."""
        seen: set[tuple[str, str]] = set()  # what is inherited stands in several pods and at one place
        for pod in self.workload.pods:
            for image in pod.images:
                if (image.path, image.reference) not in seen:
                    seen.add((image.path, image.reference))
                    yield pod, image

    def is_filled_in_later(self, reference: str) -> bool:
        """Whether this is no image yet (`{{inputs.parameters.image}}`, `auto`): the pod that the template becomes is judged."""
        return not self.workload.is_pod and is_placeholder(reference)

    def _pods(self) -> Iterator[Element]:
        for pod in self.workload.pods:
            shaped = cel.strip_nulls(workloads.template_as_pod(self.workload, pod))
            if not self.workload.is_pod and self._limits is not None and self._limits != _NO_LIMITS:
                shaped["spec"] = limits.defaulted(shaped["spec"], self._limits)
            yield Element(
                each=Each.POD,
                path=pod.path,
                passed=_passed(pod.path),
                name=text(pod.metadata.get("name")) or self.workload.resource.name,
                body=shaped,
                image="",
                pod=pod,
                env={"object": shaped, "namespaceObject": self._namespace},
            )

    def _containers(self) -> Iterator[Element]:
        for pod, shaped in self._shaped():
            bodies = {role: iter(as_list(shaped.body["spec"], field)) for role, field in LISTS.items()}
            for container in pod.containers:
                body = next(bodies[container.role], None)
                body = body if isinstance(body, dict) else {}
                yield Element(
                    each=Each.CONTAINER,
                    path=container.path,
                    passed=_passed(container.path),
                    name=container.name,
                    body=body,
                    image=text(body.get("image")),
                    pod=pod,
                    container=container,
                    env={**shaped.env, "container": body, "role": container.role.value},
                )

    def _shaped(self) -> Iterator[tuple[Pod, Element]]:
        return zip(self.workload.pods, self.pods, strict=True)


def text(value: Any) -> str:
    """Returns a string as it is and anything else as `""`: names of other people's objects may be anything."""
    return value if isinstance(value, str) else ""


def _passed(path: str) -> Answer:
    return Answer(outcome=Outcome.PASS, element=path, path=path)
