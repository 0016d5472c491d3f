"""Nothing is called good by a replica that has not seen every policy that comes with mlwarden: just installed, or a slow watch."""

from typing import Any

from mlwarden.cluster import Snapshot
from mlwarden.controllers import releaser as releasers
from mlwarden.controllers.releaser import Releaser
from mlwarden.model.policy import Settings

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "team", "uid": "1", "resourceVersion": "1"},
    "spec": {"schedulingGates": [{"name": "mlwarden.io/evidence"}], "containers": [{"name": "c", "image": "python:3.12"}]},
}


class Source:
    """A snapshot without a single policy, as a replica has it that was faster than the leader."""

    def __init__(self, missing: tuple[str, ...]) -> None:
        namespaces = {"team": {"name": "team", "labels": {"mlwarden.io/profile": "production"}}}
        self.current = Snapshot(revision=1, settings=Settings(), missing=missing, namespaces=namespaces)

    def subscribe(self, _: Any) -> None:
        """Nothing changes."""

    def read_evidence(self, _: Any) -> None:
        """There is none."""


class Client:
    """Notes what is patched."""

    def __init__(self) -> None:
        self.patched: list[Any] = []

    async def patch(self, kind: Any, name: str, body: Any, **_: Any) -> Any:
        self.patched.append(body)
        return POD


def _as_it_is(missing: tuple[str, ...]) -> Any:
    async def snapshot(*_: Any, **__: Any) -> Snapshot:
        return Source(missing).current

    return snapshot


async def released(missing: tuple[str, ...]) -> bool:
    client = Client()
    made = Releaser(client, Source(missing), None, is_leader=lambda: True)  # type: ignore[arg-type]  # neither is asked for more
    made.pods = type("Pods", (), {"get": lambda _, name, namespace: releasers._pack(POD)})()  # type: ignore[assignment]
    made._fresh.snapshot = _as_it_is(missing)  # type: ignore[method-assign]  # nothing is stored that it could be compared with
    await made._look(("team", "p"))
    made._queue.close()
    return bool(client.patched)


async def test_a_pod_stays_held_while_policies_are_missing() -> None:
    assert not await released(("image-scanned",))


async def test_and_is_released_by_the_same_snapshot_when_none_is() -> None:
    """The control: here the missing policies are all that keeps it."""
    assert await released(())
