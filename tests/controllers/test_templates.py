"""What the controller reads of a template, and what it makes of it."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from mlwarden.cluster import Snapshot
from mlwarden.cluster.events import debugged
from mlwarden.cluster.kinds import Kind
from mlwarden.controllers.debugging import DebugContainers
from mlwarden.controllers.templates import Templates, read
from mlwarden.model.policy import Settings
from mlwarden.policy import compile_policy, shipped

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
DEPLOYMENTS = Kind(group="apps", version="v1", plural="deployments")
REPLICA_SETS = Kind(group="apps", version="v1", plural="replicasets")


def raw(obj: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(obj).encode())


def deployment(image: str = "registry.example.com/app:1", *, generation: int = 1, **metadata: Any) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image,
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    meta = {"name": "d", "namespace": "team", "uid": "u-1", "generation": generation, "labels": {"a": "b"}, **metadata}
    return {"metadata": meta, "spec": {"template": {"spec": spec}}, "status": {"replicas": 3}}


def test_neither_managed_fields_nor_status_are_read_and_what_has_another_form_is_read_whole() -> None:
    obj, unreadable = read(raw(deployment(managedFields=[{"manager": "x"}])))
    assert unreadable == ""
    assert set(obj) == {"metadata", "spec"}
    assert set(obj["metadata"]) == {"name", "namespace", "uid", "generation", "labels"}
    strange, _ = read(raw({"metadata": {"name": "d", "generation": "one"}, "spec": {}}))
    assert strange["metadata"]["generation"] == "one"


class Asked:
    """A `Templates` whose requests are noted."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], Any]] = []
        spaces = {"team": {"name": "team", "labels": {"mlwarden.io/profile": "production"}}}
        policies = tuple(compile_policy(each) for each in shipped())
        self.snapshot = Snapshot(revision=1, settings=Settings(), policies=policies, namespaces=spaces)
        source = SimpleNamespace(current=self.snapshot, subscribe=lambda _: None, read_evidence=lambda _: None)
        self.templates = Templates(cast("Any", None), cast("Any", source), now=lambda: NOW)
        cast("Any", self.templates)._requests = self

    async def ensure(self, wanted: Any, _now: datetime, requester: Any) -> tuple[str, ...]:
        self.asked.append((tuple(wanted), requester))
        return ()

    async def look(self, obj: dict[str, Any], kind: Kind = DEPLOYMENTS, name: str = "Deployment") -> int:
        await self.templates._look(kind, name, read(raw(obj))[0])
        return len(self.asked)


async def test_evidence_is_asked_for_once_for_each_generation() -> None:
    asked = Asked()
    assert await asked.look(deployment()) == 1
    assert await asked.look(deployment()) == 1
    assert await asked.look(deployment("registry.example.com/app:2", generation=2)) == 2
    (first, requester), (second, _) = asked.asked
    assert (first, second) == (("registry.example.com/app:1",), ("registry.example.com/app:2",))
    assert (requester.purpose, requester.namespace, requester.pullers[0].namespace) == ("Template", "team", "team")


async def test_what_kubernetes_made_of_a_template_is_not_looked_at_again_and_what_a_person_made_is() -> None:
    owned = deployment(ownerReferences=[{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u", "controller": True}])
    assert await Asked().look(owned, REPLICA_SETS, "ReplicaSet") == 0
    assert await Asked().look(deployment(), REPLICA_SETS, "ReplicaSet") == 1
    assert await Asked().look(owned) == 1  # of an operator's: it may have added images


async def test_what_is_refused_asks_for_nothing_and_neither_does_what_is_never_governed() -> None:
    bad = deployment()
    bad["spec"]["template"]["spec"]["hostPID"] = True
    assert await Asked().look(bad) == 0
    assert await Asked().look(deployment(namespace="kube-system")) == 0


class TestDebugContainers:
    @staticmethod
    def pod(*names: str, started: datetime | None = None) -> dict[str, Any]:
        containers = [{"name": name, "image": "tools:1", "targetContainerName": "main"} for name in names]
        state = {"running": {"startedAt": started.isoformat()}} if started else {}
        statuses = [{"name": name, "state": state} for name in names]
        return {
            "metadata": {"name": "p", "namespace": "team", "uid": "u-1"},
            "spec": {"ephemeralContainers": containers},
            "status": {"ephemeralContainerStatuses": statuses},
        }

    @staticmethod
    def told(noticed: DebugContainers) -> list[str]:
        found = []
        while not noticed._queue.empty():
            found.append(noticed._queue.get_nowait()[1]["message"])
        return found

    async def test_each_is_told_of_once_and_nobody_is_named(self) -> None:
        noticed = DebugContainers(cast("Any", None), now=lambda: NOW)
        noticed.look(self.pod("a"))
        noticed.look(self.pod("a"))
        noticed.look(self.pod("a", "b"))
        said = "a debug container was added: image tools:1, target main, container {}; the API server's audit log says by whom"
        assert self.told(noticed) == [said.format("a"), said.format("b")]

    async def test_what_runs_for_over_an_hour_was_told_before(self) -> None:
        noticed = DebugContainers(cast("Any", None), now=lambda: NOW)
        noticed.look(self.pod("old", started=NOW - timedelta(hours=2)))
        assert self.told(noticed) == []
        noticed.look(self.pod("old", "new", started=NOW - timedelta(minutes=2)))
        assert len(self.told(noticed)) == 1

    def test_two_who_tell_of_the_same_containers_write_the_same_event(self) -> None:
        assert debugged(["b", "a"]) == debugged(["a", "b"])
