"""Who debugs what with which image: in the audit log, and in an Event on the pod."""

import asyncio
import contextlib
import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.admission.debug import Told
from mlwarden.admission.events import PER_POD, WINDOW, Events
from mlwarden.cluster.events import Subject

from .serving import until_async  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from mlwarden.cluster import Client

D = "sha256:" + "a" * 64
KEYS = ("debug-person", "debug-container", "debug-image", "debug-target")
Ask = Callable[..., Any]


@pytest.fixture
def debug(ask: Ask, good: dict[str, Any]) -> Ask:
    """`debug(container, path, **changes)`: asks about a pod to which an ephemeral container is added."""

    def asked(container: dict[str, Any], path: str = "/validate", **changes: Any) -> Any:
        old = copy.deepcopy(good)
        old["metadata"]["uid"] = "u-1"
        old["spec"]["ephemeralContainers"] = [{"name": "earlier", "image": "other:1"}]
        new = copy.deepcopy(old)
        new["spec"]["ephemeralContainers"].append(container)
        return ask(new, path=path, operation="UPDATE", subResource="ephemeralcontainers", oldObject=old, **changes)

    return asked


def container(**changes: Any) -> dict[str, Any]:
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    fields = {"name": "debugger-x", "image": f"registry.example.com/debug/tools@{D}", "targetContainerName": "main"}
    return {**fields, "securityContext": security, **changes}


@pytest.mark.parametrize("path", ["/mutate", "/validate"])
def test_a_refused_one_is_recorded_with_person_container_image_and_target(debug: Ask, path: str) -> None:
    answer, response = debug(container(securityContext={"privileged": True}), path)
    assert response["allowed"] is False
    found = [response["auditAnnotations"][key] for key in KEYS]
    assert found == ["alice", "debugger-x", f"registry.example.com/debug/tools@{D}", "main"]
    assert answer.told.warning
    assert answer.told.message.startswith(
        f"alice wants a debug container: image registry.example.com/debug/tools@{D}, target main; refused by "
    )
    assert "debugger-x" not in answer.told.message.partition(";")[0]


def test_an_admitted_one_is_recorded_once_by_the_one_who_sees_it_as_stored(debug: Ask) -> None:
    answer, response = debug(container(), "/mutate", namespace="sandbox")
    assert response["allowed"] is True
    assert not set(KEYS) & set(response["auditAnnotations"])
    assert answer.told is None
    answer, response = debug(container(targetContainerName=None), namespace="sandbox")
    assert response["auditAnnotations"]["debug-target"] == "(none)"
    said = f"alice adds a debug container: image registry.example.com/debug/tools@{D}, target (none), container debugger-x; admitted"
    assert (answer.told.message, answer.told.warning) == (said, False)
    assert answer.told.subject == Subject(api_version="v1", kind="Pod", namespace="sandbox", name="good", uid="u-1")


def test_an_unscanned_one_is_refused_told_when_to_come_again_and_scanned_meanwhile(debug: Ask) -> None:
    answer, response = debug(container())
    assert "  try again: in about half a minute: it is being scanned" in response["status"]["message"]
    assert len(response["status"]["message"].splitlines()) <= 7
    assert answer.wanted == (f"registry.example.com/debug/tools@{D}",)
    assert not answer.told.warning  # nobody needs to look: it was only too early


def test_a_dry_run_is_answered_and_leaves_nothing_behind(debug: Ask) -> None:
    answer, response = debug(container(), dryRun=True)
    assert response["allowed"] is False
    assert (answer.told, answer.wanted) == (None, ())


@pytest.mark.parametrize(
    "changes",
    [
        {"image": None},
        {"image": ""},
        {"image": 7, "name": ["x"], "targetContainerName": {}},
        {"image": f"registry.example.com/tools@SHA256:{'A' * 64}"},
        {"image": f"registry.example.com/tools@sha512:{'a' * 128}"},
        {"image": f" registry.example.com/tools@{D}"},
        {"image": f"registry.example.com/tools@{D}\n"},
        {"image": "\x1b[2Kregistry.example.com/tools", "name": "a\nb"},
        {"restartPolicy": "Always"},
    ],
    ids=[
        "none",
        "empty",
        "of other types",
        "another case",
        "another algorithm",
        "with a space",
        "with a line break",
        "terminal escapes",
        "restarting",
    ],
)
def test_what_is_no_scanned_image_is_refused_however_it_is_written(debug: Ask, changes: dict[str, Any]) -> None:
    answer, response = debug(container(**changes))
    assert response["allowed"] is False
    for text in (answer.told.message, *response["auditAnnotations"].values()):
        assert text.isprintable()


def test_the_user_name_is_the_only_thing_that_names_a_person(debug: Ask) -> None:
    answer, _ = debug(container(), userInfo=None)
    assert answer.told.message.startswith("(somebody unknown) wants")


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)


@pytest.mark.cluster
async def test_events_are_written_once_and_not_without_end(client: "Client", cluster: Any, namespace: str) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "m", "image": "a"}]}}
    made = cluster.api().create(f"/api/v1/namespaces/{namespace}/pods", pod)
    subject = Subject.of(made)
    clock = Clock()
    events = Events(client, now=lambda: clock.now)
    running = asyncio.create_task(events.run())

    def stored() -> set[str]:
        listed = cluster.api().get(f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"involvedObject.uid={subject.uid}")["items"]
        return {each["message"] for each in listed if each["reason"] == "DebugContainer"}

    try:
        events.add(Told(subject=subject, message="first", warning=True, refused=True))
        events.add(Told(subject=subject, message="first", warning=True, refused=True))
        for number in range(PER_POD + 5):
            events.add(Told(subject=subject, message=f"try {number}", warning=False, refused=True))
        events.add(Told(subject=subject, message="added", warning=False, refused=False))
        await until_async(lambda: "added" in stored())
        clock.now += WINDOW + timedelta(seconds=1)
        events.add(Told(subject=subject, message="first", warning=True, refused=True))  # it is there already, and that is no error
        events.add(Told(subject=subject, message="later", warning=False, refused=True))
        await until_async(lambda: "later" in stored())
        assert stored() == {"first", "added", "later", *(f"try {number}" for number in range(PER_POD - 1))}
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
