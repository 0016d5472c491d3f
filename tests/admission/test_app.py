import asyncio
import json
from typing import Any

import pytest

from mlwarden.admission.app import App
from mlwarden.admission.review import LARGEST
from mlwarden.admission.sender import ANYBODY, API_SERVER, Sender
from mlwarden.cluster import Snapshot
from mlwarden.evidence.store import Requester

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


def application(snapshot: Snapshot | None, wanted: list[Any] | None = None, sender: Sender = ANYBODY) -> App:
    return App(snapshot=lambda: snapshot, want=lambda *asked: (wanted if wanted is not None else []).append(asked), sender=sender)


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
    good["spec"]["nodeName"] = "node-0"
    await call(application(snapshot, wanted, API_SERVER), "/validate", json.dumps(review(good)).encode())
    ((references, requester),) = wanted
    assert references == ("registry.example.com/team/app:1.0",)
    assert requester == Requester(namespace="production")


async def test_a_body_that_never_ends_is_given_up(snapshot: Snapshot) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await application(snapshot)({"type": "http", "path": "/mutate", "method": "POST", "query_string": b"timeout=0s"}, receive, send)
    assert sent[0]["status"] == 408


class Sender:
    """A client that sends a body bit by bit."""

    def __init__(self, app: App, *, path: str = "/mutate", address: str = "10.0.0.1", query: bytes = b"timeout=10s") -> None:
        self._chunks: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()
        self.sent: list[Any] = []
        scope = {"type": "http", "path": path, "method": "POST", "query_string": query, "client": (address, 4711)}
        self.asked = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        body, more = await self._chunks.get()
        return {"type": "http.request", "body": body, "more_body": more}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    async def send(self, body: bytes, *, more: bool = True) -> "Sender":
        """Sends one chunk, and returns when it was read."""
        self._chunks.put_nowait((body, more))
        for _ in range(5):
            await asyncio.sleep(0)
        return self

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        await self.asked
        return self.sent[0]["status"], dict(self.sent[0]["headers"]), self.sent[1]["body"]


def large(good: dict[str, Any], size: int = 200_000) -> bytes:
    good["metadata"]["annotations"] = {"a": "x" * size}
    return json.dumps(review(good)).encode()


async def test_what_finds_no_room_is_an_outage_and_not_a_refusal(snapshot: Snapshot, good: dict[str, Any]) -> None:
    body = large(good)
    for path, repeated in (("/mutate", None), ("/validate", b"1")):
        app = App(snapshot=lambda: snapshot, want=lambda _references, _requester: None, room=300_000)
        first = await Sender(app).send(body[:-10])
        crowded = await Sender(app, path=path).send(body[:9])
        status, headers, said = await (await crowded.send(body[9:], more=False)).answer()
        assert (status, headers.get(b"retry-after"), headers[b"connection"]) == (503, repeated, b"close")
        assert b"try again" in said
        assert (await (await first.send(body[-10:], more=False)).answer())[0] == 200
        alone = await (await Sender(app).send(body[:9])).send(body[9:], more=False)
        assert json.loads((await alone.answer())[2])["response"]["allowed"] is True


async def test_a_body_that_comes_for_long_makes_room_for_one_that_comes_now(
    snapshot: Snapshot, good: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlwarden.admission.room._AT_ONCE", 0.0)
    app = App(snapshot=lambda: snapshot, want=lambda _references, _requester: None, room=300_000)
    body = large(good)
    slow = [await Sender(app, address=f"10.0.0.{number}").send(b"x" * 90_000) for number in range(3)]
    honest = await Sender(app, address="10.0.1.1").send(body[:9])
    status, _, said = await (await honest.send(body[9:], more=False)).answer()
    assert (status, json.loads(said)["response"]["allowed"]) == (200, True)
    answers = [await each.answer() for each in slow]
    assert [status for status, _, _ in answers] == [503, 503, 408]  # as many as were needed; the last one was only too slow


async def test_of_one_address_eight_unfinished_bodies_are_waited_for_and_of_another_as_many(
    snapshot: Snapshot, good: dict[str, Any]
) -> None:
    app, body = application(snapshot), json.dumps(review(good)).encode()
    slow = [await Sender(app, address="10.0.0.1").send(body[:9]) for _ in range(20)]
    other = [await Sender(app, address="10.0.0.2").send(body[:9]) for _ in range(8)]
    honest = await (await Sender(app, address="10.0.0.1").send(body[:9])).send(body[9:], more=False)
    assert (await honest.answer())[0] == 200
    for each in other:
        await each.send(body[9:], more=False)
    assert [(await each.answer())[0] for each in other] == [200] * 8
    answers = [await each.answer() for each in slow]
    assert [status for status, _, _ in answers] == [503] * 13 + [408] * 7  # the honest one took a place of the eight
    assert all(headers[b"connection"] == b"close" for _, headers, _ in answers)


async def test_who_shows_a_certificate_has_room_of_its_own(snapshot: Snapshot, good: dict[str, Any]) -> None:
    app = App(snapshot=lambda: snapshot, want=lambda _references, _requester: None, sender=API_SERVER)
    body = json.dumps(review(good)).encode()
    many = [await Sender(app).send(body[:9]) for _ in range(50)]
    for each in many:
        await each.send(body[9:], more=False)
    assert [(await each.answer())[0] for each in many] == [200] * 50


async def test_a_body_of_16_kib_a_second_is_too_slow_once_two_seconds_are_over_and_a_slower_one_before(snapshot: Snapshot) -> None:
    app = application(snapshot)
    slower, slow = await Sender(app).send(b"x"), await Sender(app).send(b"x" * 64 * 1024)
    assert (await slower.answer())[0] == 408
    assert not slow.asked.done()
    assert (await slow.answer())[0] == 408


async def test_what_arrived_while_this_process_was_busy_is_read_before_it_is_too_late(snapshot: Snapshot, good: dict[str, Any]) -> None:
    body = json.dumps(review(good)).encode()
    late = await Sender(application(snapshot), query=b"timeout=0.1s").send(body[:9])
    busy = asyncio.get_running_loop().time() + 0.4
    while asyncio.get_running_loop().time() < busy:
        pass
    assert (await (await late.send(body[9:], more=False)).answer())[0] == 200


async def test_every_way_out_gives_the_room_back(snapshot: Snapshot, good: dict[str, Any]) -> None:
    app = App(snapshot=lambda: snapshot, want=lambda _references, _requester: None)
    free = app._anybody.free
    good["metadata"]["annotations"] = {"a": "x" * (LARGEST + 1)}
    for body in (b"", b"{", json.dumps(review(good)).encode(), b"x" * (LARGEST + 1)):
        await call(app, "/validate", body)
        assert app._anybody.free == free
    await (await Sender(app, query=b"timeout=0s").send(b"x" * 100_000)).answer()
    assert app._anybody.free == free
    assert not app._anybody._oldest
    assert not app._anybody._by_address


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


async def test_a_snapshot_that_is_silent_for_ten_seconds_judges_nobody(snapshot: Snapshot, good: dict[str, Any]) -> None:
    def app(silence: float) -> App:
        return App(snapshot=lambda: snapshot, want=lambda _references, _requester: None, silence=lambda: silence)

    body = json.dumps(review(good)).encode()
    assert (await call(app(9.9), "/mutate", body))[0] == 200
    assert (await call(app(10.1), "/mutate", body))[0] == 503
    status, answer = await call(app(10.1), "/validate", body)
    refused = json.loads(answer)["response"]
    assert (status, refused["allowed"], refused["status"]["code"]) == (200, False, 503)
    assert "heard nothing from the API server for 10 s" in refused["status"]["message"]
    lenient = json.dumps(review(good, namespace="sandbox", subResource="ephemeralcontainers")).encode()
    assert (await call(app(10.1), "/validate", lenient))[0] == 503
    assert (await call(app(10.1), "/gate", body))[0] == 200
