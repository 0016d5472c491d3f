import asyncio
import json
from typing import Any

import pytest

from mlwarden.admission.app import App
from mlwarden.admission.review import LARGEST
from mlwarden.cluster import Snapshot
from mlwarden.evidence.pullers import Puller

from .conftest import review  # type: ignore[import-not-found]


async def call(app: App, path: str, body: bytes, *, method: str = "POST", query: bytes = b"timeout=10s") -> tuple[int, bytes]:
    sent: list[Any] = []
    chunks = [body[start : start + 65536] for start in range(0, len(body), 65536)] or [b""]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "path": path, "method": method, "query_string": query}, receive, send)
    return sent[0]["status"], sent[1]["body"]


def application(snapshot: Snapshot | None, wanted: list[Any] | None = None) -> App:
    return App(snapshot=lambda: snapshot, want=lambda *asked: (wanted if wanted is not None else []).append(asked))


async def test_an_unknown_path_is_a_404_and_never_an_allow(snapshot: Snapshot, good: dict[str, Any]) -> None:
    body = json.dumps(review(good)).encode()
    for path in ("/", "/typo", "/mutate/", "/Mutate", "/validate/x", "//mutate"):
        assert (await call(application(snapshot), path, body))[0] == 404


async def test_only_posts_are_answered(snapshot: Snapshot) -> None:
    assert (await call(application(snapshot), "/mutate", b"", method="GET"))[0] == 405


async def test_before_the_first_snapshot_nothing_is_allowed(good: dict[str, Any]) -> None:
    assert (await call(application(None), "/mutate", json.dumps(review(good)).encode()))[0] == 503


async def test_a_review_of_more_than_8_mib_is_answered_with_a_refusal(snapshot: Snapshot, good: dict[str, Any]) -> None:
    good["metadata"]["annotations"] = {"a": "x" * (LARGEST + 1)}
    status, body = await call(application(snapshot), "/mutate", json.dumps(review(good)).encode())
    answer = json.loads(body)["response"]
    assert (status, answer["allowed"], answer["uid"], answer["status"]["code"]) == (200, False, "1-2-3", 413)
    assert (await call(application(snapshot), "/mutate", b"x" * (LARGEST + 1)))[0] == 413


async def test_what_is_wanted_is_handed_on(snapshot: Snapshot, good: dict[str, Any]) -> None:
    wanted: list[Any] = []
    await call(application(snapshot, wanted), "/mutate", json.dumps(review(good)).encode())
    ((references, requester),) = wanted
    assert references == ("registry.example.com/team/app:1.0",)
    assert requester.pullers == (Puller(namespace="production", service_account="default"),)


async def test_a_body_that_never_ends_is_given_up(snapshot: Snapshot) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await application(snapshot)({"type": "http", "path": "/mutate", "method": "POST", "query_string": b"timeout=0s"}, receive, send)
    assert sent[0]["status"] == 408


async def test_what_finds_no_room_is_refused_and_the_room_is_given_back(snapshot: Snapshot, good: dict[str, Any]) -> None:
    app = App(snapshot=lambda: snapshot, want=lambda _references, _requester: None, room=300_000)
    good["metadata"]["annotations"] = {"a": "x" * 200_000}
    body = json.dumps(review(good)).encode()
    arrived, go_on = asyncio.Event(), asyncio.Event()
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if not arrived.is_set():
            arrived.set()
            return {"type": "http.request", "body": body, "more_body": True}
        await go_on.wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/mutate", "method": "POST", "query_string": b""}
    first = asyncio.create_task(app(scope, receive, send))
    await arrived.wait()
    _, crowded = await call(app, "/mutate", body)
    go_on.set()
    await first
    _, alone = await call(app, "/mutate", body)
    answers = [json.loads(each)["response"] for each in (crowded, sent[1]["body"], alone)]
    assert [(each["uid"], each["allowed"]) for each in answers] == [("1-2-3", False), ("1-2-3", True), ("1-2-3", True)]
    assert "try again" in answers[0]["status"]["message"]


async def test_every_way_out_gives_the_room_back(snapshot: Snapshot, good: dict[str, Any]) -> None:
    app = App(snapshot=lambda: snapshot, want=lambda _references, _requester: None)
    free = app._room.free
    good["metadata"]["annotations"] = {"a": "x" * (LARGEST + 1)}
    for body in (b"", b"{", json.dumps(review(good)).encode(), b"x" * (LARGEST + 1)):
        await call(app, "/validate", body)
        assert app._room.free == free


@pytest.mark.parametrize("path", ["/mutate", "/elsewhere"])
@pytest.mark.parametrize("leaving", [False, True])
async def test_a_process_that_leaves_sends_its_clients_elsewhere(
    snapshot: Snapshot, good: dict[str, Any], *, leaving: bool, path: str
) -> None:
    app = App(snapshot=lambda: snapshot, want=lambda _references, _requester: None, leaving=lambda: leaving)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(review(good)).encode(), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "path": path, "method": "POST", "query_string": b""}, receive, send)
    assert ((b"connection", b"close") in sent[0]["headers"]) is leaving


@pytest.mark.parametrize(
    "query", [b"", b"timeout=", b"timeout=x", b"timeout=nan", b"timeout=inf", b"timeout=-1s", b"timeout=1e999s", b"%ff"]
)
async def test_a_deadline_that_makes_no_sense_is_no_500(snapshot: Snapshot, good: dict[str, Any], query: bytes) -> None:
    assert (await call(application(snapshot), "/mutate", json.dumps(review(good)).encode(), query=query))[0] == 200


async def test_a_client_that_goes_away_harms_nothing(snapshot: Snapshot) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await application(snapshot)({"type": "http", "path": "/mutate", "method": "POST", "query_string": b""}, receive, send)
    assert sent[0]["status"] == 400
