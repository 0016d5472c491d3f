"""Who asks for evidence while others write the same object: what was not taken is asked for again."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.cluster import Client
from mlwarden.evidence.requests import Requests
from mlwarden.evidence.store import Requester, name_for, pending

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster

pytestmark = pytest.mark.cluster
COLLECTION = "/apis/mlwarden.io/v1alpha1/imageevidences"
DIGEST = "sha256:" + "5" * 64
MINE = f"registry.example/mine@{DIGEST}"


@pytest.mark.parametrize("others", [2, 3])
@pytest.mark.usefixtures("ask")
async def test_what_others_wrote_over_is_asked_for_at_the_next_turn(
    others: int, client: Client, cluster: "EmbeddedCluster", monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{COLLECTION}/{name_for(MINE)}"
    api, written, patch = cluster.api(), 0, client.patch
    api.create(COLLECTION, pending(f"registry.example/other@{DIGEST}"))

    async def behind_another(*arguments: Any, **how: Any) -> Any:
        nonlocal written
        if written < others:
            written += 1
            api.patch(path, {"metadata": {"labels": {"written": str(written)}}})
        return await patch(*arguments, **how)

    monkeypatch.setattr(client, "patch", behind_another)
    requests, now = Requests(client), datetime.now(UTC)
    asked = [MINE], now, Requester(namespace="team")

    def is_named() -> bool:
        return MINE in api.get(path)["spec"]["references"]

    await requests.ensure(*asked)
    assert is_named() is (others < 3)  # it tries three times in a row
    await requests.ensure(*asked)
    assert is_named()
