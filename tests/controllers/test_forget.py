"""Evidence ends when nobody asks for it any more."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden import evidence
from mlwarden.cluster import Client
from mlwarden.controllers import forget as module
from mlwarden.controllers.forget import Piece, beyond, forget

if TYPE_CHECKING:
    from conftest import Running

PATH = "/apis/mlwarden.io/v1alpha1/imageevidences"
TAG, DIGEST = "registry.example/forget:1", "registry.example/forget@sha256:" + "f" * 64


@pytest.mark.cluster
async def test_a_tag_is_forgotten_after_a_day_a_scan_after_a_month_and_what_was_asked_for_stays(running: "Running", client: Client) -> None:
    webhook = running.held.account(running.settings.webhook)
    now = datetime.now(UTC)

    def names() -> set[str]:
        return {obj["metadata"]["name"] for obj in running.admin.get(PATH)["items"]}

    for reference in (TAG, DIGEST):
        webhook.create(PATH, evidence.pending(reference))
    tag, digest = evidence.name_for(TAG), evidence.name_for(DIGEST)
    await forget(client, now=now + timedelta(hours=23))
    assert {tag, digest} <= names()
    await forget(client, now=now + timedelta(days=2))
    assert digest in names()
    assert tag not in names()
    asked: dict[str, Any] = {"spec": {"requestedAt": (now + timedelta(days=29)).strftime("%Y-%m-%dT%H:%M:%SZ")}}
    webhook.patch(f"{PATH}/{digest}", asked)
    await forget(client, now=now + timedelta(days=31))
    assert digest in names()
    await forget(client, now=now + timedelta(days=60))
    assert digest not in names()


@pytest.mark.cluster
async def test_of_too_many_those_go_that_were_not_asked_for_longest(
    running: "Running", client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = running.held.account(running.settings.webhook)
    now = datetime.now(UTC)
    names = []
    for number in range(4):
        reference = f"registry.example/many@sha256:{number:064x}"
        webhook.create(PATH, evidence.pending(reference))
        names.append(evidence.name_for(reference))
        asked = (now - timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        webhook.patch(f"{PATH}/{names[-1]}", {"spec": {"requestedAt": asked}})
    others = len(running.admin.get(PATH)["items"]) - len(names)
    monkeypatch.setattr(module, "MOST", others + 2)
    await forget(client, now=now)
    left = {obj["metadata"]["name"] for obj in running.admin.get(PATH)["items"]}
    assert set(names) & left == set(names[:2])


def test_of_too_many_the_namespace_with_the_most_gives_them_up() -> None:
    now = datetime.now(UTC)

    def pieces(namespace: str, count: int, *, age: int) -> list[Piece]:
        ages = [now - timedelta(hours=age, seconds=number) for number in range(count)]
        return [Piece(name=f"{namespace}-{number}", version="1", asked=asked, namespace=namespace) for number, asked in enumerate(ages)]

    greedy, modest = pieces("greedy", 12, age=0), pieces("modest", 3, age=20)
    gone = beyond([*greedy, *modest], 10)
    assert [piece.name for piece in gone] == [f"greedy-{number}" for number in range(11, 6, -1)]
    assert beyond(modest, 10) == []


@pytest.mark.cluster
async def test_a_date_of_next_year_does_not_keep_evidence_until_then(running: "Running", client: Client) -> None:
    webhook = running.held.account(running.settings.webhook)
    now = datetime.now(UTC)
    webhook.create(PATH, evidence.pending(TAG))
    name = evidence.name_for(TAG)
    webhook.patch(f"{PATH}/{name}", {"spec": {"requestedAt": (now + timedelta(days=365)).strftime("%Y-%m-%dT%H:%M:%SZ")}})
    await forget(client, now=now + timedelta(days=2))
    assert name not in {obj["metadata"]["name"] for obj in running.admin.get(PATH)["items"]}
