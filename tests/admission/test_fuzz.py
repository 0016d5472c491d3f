"""Whatever is posted: never an exception, never a 500, and never an allow that was not judged."""

import copy
import json
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlwarden.admission import handle
from mlwarden.admission.handle import PATHS
from mlwarden.cluster import Snapshot

from .conftest import NOW, review  # type: ignore[import-not-found]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
BOUNDED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def bad(good: dict[str, Any]) -> dict[str, Any]:
    pod = copy.deepcopy(good)
    pod["spec"]["containers"][0]["securityContext"]["privileged"] = True
    return pod


def is_bad(obj: Any) -> bool:
    try:
        return obj["spec"]["containers"][0]["securityContext"]["privileged"] is True
    except (TypeError, KeyError, IndexError):
        return False


def must_be_refused(request: Any, snapshot: Snapshot) -> bool:
    """Independent of how the answer is found: a privileged container, and nothing that says it is none of our business."""
    if request.get("operation") in {"DELETE", "CONNECT"} or request.get("subResource") in {"status", "scale"}:
        return False
    if request.get("namespace") in snapshot.settings.never_governed:
        return False
    old = request.get("oldObject")
    going = isinstance(old, dict) and isinstance(old.get("metadata"), dict) and old["metadata"].get("deletionTimestamp")
    known = request.get("operation") == "UPDATE" and old is not None and (going or is_bad(old))
    return is_bad(request.get("object")) and not known


def judged(body: bytes, snapshot: Snapshot, *, paths: frozenset[str] = PATHS - {"/gate"}) -> None:
    """Asserts what holds of every answer."""
    for path in paths:
        answer = handle(body, path, snapshot, NOW)
        assert answer.status in {200, 400}
        if answer.status == 400:
            continue
        response = json.loads(answer.body)["response"]
        assert response["uid"]
        if response["allowed"]:
            request = json.loads(body)["request"]
            assert response["uid"] == request["uid"]
            assert not must_be_refused(request, snapshot)
        else:
            assert response["status"]["message"]


def changed(data: st.DataObject, whole: Any, *, depth: int = 8) -> None:
    """Replaces or removes something, anywhere."""
    at = whole
    for _ in range(data.draw(st.integers(1, depth))):
        keys = list(at) if isinstance(at, dict) else list(range(len(at))) if isinstance(at, list) else []
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or data.draw(st.integers(0, 3)) == 0:
            if data.draw(st.booleans()):
                at[key] = data.draw(JSON)
            else:
                del at[key]
            return
        at = at[key]


@given(st.binary(max_size=400))
@BOUNDED
def test_random_bytes(snapshot: Snapshot, body: bytes) -> None:
    assert handle(body, "/validate", snapshot, NOW).status == 400


@given(JSON)
@BOUNDED
def test_random_json(snapshot: Snapshot, value: Any) -> None:
    assert handle(json.dumps(value).encode(), "/mutate", snapshot, NOW).status == 400
    judged(json.dumps(review({"apiVersion": "v1", "kind": "Pod", "spec": value})).encode(), snapshot, paths=PATHS)


@given(data=st.data())
@BOUNDED
def test_a_review_with_any_parts_replaced_by_anything(snapshot: Snapshot, good: dict[str, Any], data: st.DataObject) -> None:
    whole: Any = review(bad(good))
    for _ in range(data.draw(st.integers(1, 3))):
        changed(data, whole)
    judged(json.dumps(whole).encode(), snapshot)


@given(data=st.data())
@BOUNDED
def test_an_update_with_any_parts_replaced_by_anything(snapshot: Snapshot, good: dict[str, Any], data: st.DataObject) -> None:
    whole: Any = review(bad(good), operation="UPDATE", oldObject=copy.deepcopy(good))
    for _ in range(data.draw(st.integers(1, 3))):
        changed(data, whole)
    judged(json.dumps(whole).encode(), snapshot)


@given(data=st.data())
@BOUNDED
def test_a_review_with_bytes_replaced(snapshot: Snapshot, good: dict[str, Any], data: st.DataObject) -> None:
    body = json.dumps(review(bad(good))).encode()
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 20)))
    judged(body[:start] + data.draw(st.binary(max_size=20)) + body[end:], snapshot)


@given(data=st.data())
@BOUNDED
def test_a_review_that_breaks_off(snapshot: Snapshot, good: dict[str, Any], data: st.DataObject) -> None:
    body = json.dumps(review(good)).encode()
    answer = handle(body[: data.draw(st.integers(0, len(body) - 1))], "/mutate", snapshot, NOW)
    assert answer.status == 400 or json.loads(answer.body)["response"]["allowed"] is False


@given(data=st.data())
@BOUNDED
def test_a_key_twice_anywhere(snapshot: Snapshot, good: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(review(good))
    places = [index + 1 for index, character in enumerate(text) if character == "{" and text[index + 1] == '"']
    place = data.draw(st.sampled_from(places))
    key, _ = json.JSONDecoder().raw_decode(text[place:])
    assume(isinstance(key, str))
    body = f"{text[:place]}{json.dumps(key)}: {json.dumps(data.draw(JSON))}, {text[place:]}".encode()
    answer = handle(body, "/mutate", snapshot, NOW)
    assert answer.status == 400 or json.loads(answer.body)["response"]["allowed"] is False
