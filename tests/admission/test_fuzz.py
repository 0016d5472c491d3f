"""Whatever is posted: never an exception, never a 500, and never an allow that was not judged."""

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlwarden.admission import handle
from mlwarden.cluster import Snapshot

from .conftest import NOW, review  # type: ignore[import-not-found]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
BOUNDED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.binary(max_size=400))
@BOUNDED
def test_random_bytes(snapshot: Snapshot, body: bytes) -> None:
    assert handle(body, "/validate", snapshot, NOW).status == 400


@given(data=st.data())
@BOUNDED
def test_a_review_with_any_part_replaced_by_anything(snapshot: Snapshot, good: dict[str, Any], data: st.DataObject) -> None:
    bad = copy.deepcopy(good)
    bad["spec"]["containers"][0]["securityContext"]["privileged"] = True
    whole: Any = review(bad)
    at, depth = whole, data.draw(st.integers(0, 7))
    for _ in range(depth):
        keys = list(at) if isinstance(at, dict) else list(range(len(at))) if isinstance(at, list) else []
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or data.draw(st.booleans()):
            at[key] = data.draw(JSON)
            break
        at = at[key]
    body = json.dumps(whole).encode()
    for path in ("/mutate", "/validate"):
        answer = handle(body, path, snapshot, NOW)
        assert answer.status in {200, 400}
        if answer.status != 200:
            continue
        response = json.loads(answer.body)["response"]
        request = whole["request"]
        assert response["uid"] == request["uid"]
        still_bad = (
            json.dumps(request.get("object")).find('"privileged": true') >= 0
            and request["operation"] in {"CREATE", "UPDATE"}
            and request.get("namespace") == "production"
            and isinstance(request["object"].get("spec"), dict)
            and request["object"].get("kind") == "Pod"
            and request["object"].get("apiVersion") == "v1"
            and not request.get("subResource")
            and not (isinstance(request["object"].get("metadata"), dict) and request["object"]["metadata"].get("deletionTimestamp"))
        )
        if still_bad and not request.get("oldObject"):
            assert response["allowed"] is False
