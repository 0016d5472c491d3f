"""What the real API server cannot be made to do: answers that are too old, broken, or unreadable."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mlwarden.cluster import Client, Informer, Kind

from .conftest import Scripted, until  # type: ignore[import-not-found]

CONFIG = Kind(group="", version="v1", plural="configmaps")
GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


def config(name: str, version: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n", "resourceVersion": version}, **more}


def listed(*items: dict[str, Any], version: str = "10", more: str = "") -> tuple[int, Any]:
    return 200, {"metadata": {"resourceVersion": version, "continue": more}, "items": list(items)}


def event(kind: str, obj: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": obj}


def deep(obj: dict[str, Any], levels: int = 3000) -> bytes:
    return json.dumps({**obj, "data": "DEEP"}).replace('"DEEP"', '{"a":' * levels + "1" + "}" * levels).encode()


@contextlib.asynccontextmanager
async def running(client: Client, **options: Any) -> AsyncIterator[tuple[Informer, list[tuple[str, bool]]]]:
    seen: list[tuple[str, bool]] = []
    informer = Informer(client, CONFIG, on_change=lambda key, obj: seen.append((key[1], obj is not None)), **options)
    task = asyncio.create_task(informer.run())
    try:
        yield informer, seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_watch_that_is_too_old_leads_to_a_new_list_and_what_vanished_is_reported(
    scripted: Scripted, scripted_client: Client
) -> None:
    scripted.lists = [listed(config("a", "1"), config("b", "2")), listed(config("b", "2"), config("c", "11"), version="20")]
    scripted.watches = [(200, [event("ERROR", GONE)]), (200, ["hang"])]
    async with running(scripted_client) as (informer, seen):
        await until(lambda: len(scripted.watched) == 2)
        assert seen == [("a", True), ("b", True), ("c", True), ("a", False)]
        assert scripted.watched == ["10", "20"]
        assert {each["metadata"]["name"] for each in informer} == {"b", "c"}


async def test_what_somebody_else_keeps_is_told_of_and_not_kept_a_second_time(scripted: Scripted, scripted_client: Client) -> None:
    scripted.lists = [listed(config("a", "1"), config("b", "2")), listed(config("b", "2"), version="20")]
    scripted.watches = [(200, [event("ERROR", GONE)]), (200, ["hang"])]
    async with running(scripted_client, copy=False) as (informer, seen):
        await until(lambda: len(scripted.watched) == 2)
        assert seen == [("a", True), ("b", True), ("a", False)]
        assert list(informer) == [{}]


async def test_a_watch_refused_as_too_old_leads_to_a_new_list_too(scripted: Scripted, scripted_client: Client) -> None:
    scripted.lists = [listed(version="10"), listed(version="20")]
    scripted.watches = [(410, [GONE]), (200, ["hang"])]
    async with running(scripted_client):
        await until(lambda: scripted.watched == ["10", "20"])


async def test_a_list_whose_continuation_expired_is_begun_again(scripted: Scripted, scripted_client: Client) -> None:
    scripted.lists = [listed(config("a", "1"), more="token"), (410, GONE), listed(config("a", "1"), config("b", "2"))]
    scripted.watches = [(200, ["hang"])]
    async with running(scripted_client) as (informer, _):
        await until(informer.synced.is_set)
        assert len(informer) == 2
        assert [query.get("continue") for query in scripted.asked[:3]] == [None, "token", None]


async def test_a_broken_connection_is_taken_up_where_it_stopped(scripted: Scripted, scripted_client: Client) -> None:
    scripted.lists = [listed(config("a", "1"))]
    half = json.dumps(event("ADDED", config("c", "13"))).encode()[:40]
    scripted.watches = [
        (200, [event("ADDED", config("b", "11")), event("BOOKMARK", {"metadata": {"resourceVersion": "12"}}), half, "cut"]),
        (200, [event("ADDED", config("c", "13")), "hang"]),
    ]
    async with running(scripted_client) as (informer, seen):
        await until(lambda: len(informer) == 3)
        assert scripted.watched == ["10", "12"]
        assert seen == [("a", True), ("b", True), ("c", True)]


async def test_an_unchanged_object_is_not_reported_again(scripted: Scripted, scripted_client: Client) -> None:
    scripted.lists = [listed(config("a", "1")), listed(config("a", "1"), version="20")]
    scripted.watches = [(200, [event("ERROR", GONE)]), (200, [event("MODIFIED", config("a", "21")), "hang"])]
    async with running(scripted_client, keep=lambda obj: {"only": obj["kind"]}) as (informer, seen):
        await until(lambda: len(seen) == 2)
        assert seen == [("a", True), ("a", True)]
        assert informer.get("a", namespace="n") == {"only": "ConfigMap"}


@pytest.mark.parametrize("levels", [1500, 9000])
async def test_an_object_nested_too_deeply_is_named_and_takes_nothing_with_it(
    scripted: Scripted, scripted_client: Client, levels: int
) -> None:
    body = json.dumps(listed(config("a", "1"), {"DEEP": 1}, config("z", "3"))[1]).encode()
    scripted.lists = [(200, body.replace(b'{"DEEP": 1}', deep(config("b", "2"), levels)))]
    added = b'{"type":"ADDED","object":' + deep(config("d", "12"), levels) + b"}\n"
    scripted.watches = [(200, [added, event("MODIFIED", config("b", "13")), "hang"])]
    async with running(scripted_client) as (informer, _):
        await until(lambda: ("n", "d") in informer.unreadable)
        await until(lambda: ("n", "b") not in informer.unreadable)
        assert "too deeply" in informer.unreadable["n", "d"]
        assert informer.get("d", namespace="n") == {key: config("d", "12")[key] for key in ("apiVersion", "kind", "metadata")}
        assert {each["metadata"]["name"] for each in informer} == {"a", "b", "d", "z"}


async def test_what_is_no_json_is_not_fatal(scripted: Scripted, scripted_client: Client) -> None:
    scripted.lists = [(200, b"<html>"), (200, b'{"metadata":{},"items":"many"}'), (503, b"no"), listed(config("a", "1"))]
    scripted.watches = [(200, [b"<html>\n"]), (200, [event("ADDED", config("b", "11")), "hang"])]
    async with running(scripted_client) as (informer, _):
        await until(lambda: len(informer) == 2)


async def test_a_listener_that_fails_does_not_end_the_copy(scripted: Scripted, scripted_client: Client) -> None:
    scripted.lists = [listed(config("a", "1"), config("b", "2"))]
    scripted.watches = [(200, ["hang"])]
    seen: list[str] = []

    def listen(key: tuple[str, str], _: object) -> None:
        seen.append(key[1])
        raise TypeError(key)

    informer = Informer(scripted_client, CONFIG, on_change=listen)
    task = asyncio.create_task(informer.run())
    await until(informer.synced.is_set)
    assert seen == ["a", "b"]
    assert not task.done()
    task.cancel()


async def test_a_server_that_ends_every_watch_at_once_is_not_flooded(
    scripted: Scripted, scripted_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.lists = [listed()]
    scripted.watches = [(200, [])]
    real, pauses = asyncio.sleep, []

    async def sleep(seconds: float) -> None:
        if seconds > 0.1:
            pauses.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    async with running(scripted_client):
        while len(pauses) < 8:
            await real(0.001)
    assert pauses[7] > pauses[0] * 8
    assert max(pauses) < 10


async def test_failed_attempts_are_no_sign_of_life(scripted: Scripted, scripted_client: Client) -> None:
    scripted.lists = [listed()]
    scripted.watches = [(503, [])]
    async with running(scripted_client) as (informer, _):
        await until(informer.synced.is_set)
        scripted.lists = [(503, b"")]
        heard = informer._heard
        before = len(scripted.asked)
        await until(lambda: len(scripted.asked) > before + 2)
        assert informer._heard == heard
