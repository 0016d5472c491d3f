"""Whose pod it is: what was verified for one owner is nobody else's."""

from datetime import UTC, datetime
from typing import Any

from mlwarden.cluster.errors import NotFoundError
from mlwarden.controllers.owners import Owners

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Reader:
    """A client that knows one ReplicaSet. A fake: what is tested is what is remembered, not what the API server says."""

    async def get(self, _kind: Any, name: str, *, namespace: str = "") -> dict[str, Any]:
        if (namespace, name) != ("team", "web"):
            raise NotFoundError("no", code=404)
        return {"metadata": {"namespace": "team", "name": "web", "uid": "u-1"}}


def pod(namespace: str, **owner: str) -> dict[str, Any]:
    reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u-1", "controller": True, **owner}
    return {"metadata": {"namespace": namespace, "name": "p", "uid": "p-1", "ownerReferences": [reference]}}


async def test_a_reference_with_somebody_elses_uid_does_not_find_what_was_verified_for_them() -> None:
    owners = Owners(Reader())  # type: ignore[arg-type]  # only `get` is used
    verified = await owners.root(pod("team"), NOW)
    assert verified is not None
    assert (verified.namespace, verified.name) == ("team", "web")
    assert await owners.root(pod("elsewhere"), NOW) is None
    assert await owners.root(pod("elsewhere", kind="Nope", apiVersion="nope.example/v1", name="x"), NOW) is None
    assert await owners.root(pod("team"), NOW) == verified
