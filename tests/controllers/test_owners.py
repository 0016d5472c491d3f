"""Whose pod it is: what was verified for one owner is nobody else's."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mlwarden.cluster.errors import ApiError, ForbiddenError, NotFoundError, UnreachableError
from mlwarden.controllers.owners import Owners, Root

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
    assert verified.subject is not None
    assert (verified.subject.namespace, verified.subject.name) == ("team", "web")
    assert await owners.root(pod("elsewhere"), NOW) == Root()
    assert await owners.root(pod("elsewhere", kind="Nope", apiVersion="nope.example/v1", name="x"), NOW) == Root()
    assert await owners.root(pod("team"), NOW) == verified


class Stumbling(Reader):
    """A client that at first is refused, or not answered."""

    def __init__(self, *errors: ApiError) -> None:
        self._errors = list(errors)
        self.asked = 0

    async def get(self, kind: Any, name: str, *, namespace: str = "") -> dict[str, Any]:
        self.asked += 1
        if self._errors:
            raise self._errors.pop(0)
        return await super().get(kind, name, namespace=namespace)


@pytest.mark.parametrize("error", [ForbiddenError("no", code=403), UnreachableError("nothing"), ApiError("busy", code=429)])
async def test_what_was_refused_or_not_answered_is_asked_again_and_not_remembered_as_no_owner(error: ApiError) -> None:
    reader = Stumbling(error)
    owners = Owners(reader)  # type: ignore[arg-type]
    assert await owners.root(pod("team"), NOW) == Root(unread=error)
    found = await owners.root(pod("team"), NOW)
    assert found.subject is not None
    assert found.subject.name == "web"
    assert await owners.root(pod("team"), NOW) == found
    assert reader.asked == 2


async def test_that_there_is_no_owner_is_remembered_where_the_api_server_said_so() -> None:
    reader = Stumbling()
    owners = Owners(reader)  # type: ignore[arg-type]
    assert await owners.root(pod("elsewhere"), NOW) == await owners.root(pod("elsewhere"), NOW) == Root()
    assert reader.asked == 1
