import json
from typing import Any

from mlwarden.admission.app import App
from mlwarden.admission.review import LARGEST
from mlwarden.cluster import Snapshot

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
    return App(snapshot=lambda: snapshot, want=(wanted if wanted is not None else []).append)


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
    assert wanted == [("registry.example.com/team/app:1.0",)]


async def test_a_body_that_never_ends_is_given_up(snapshot: Snapshot) -> None:
    import asyncio

    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await application(snapshot)({"type": "http", "path": "/mutate", "method": "POST", "query_string": b"timeout=0s"}, receive, send)
    assert sent[0]["status"] == 408
