import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden.admission import response


def read(answer: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer)["response"]
    return found


@given(st.lists(st.text(max_size=400), max_size=30))
@settings(max_examples=100, deadline=None)
def test_warnings_are_lines_that_the_api_server_passes_on(texts: list[str]) -> None:
    warnings = read(response.allow("u", warnings=texts)).get("warnings", [])
    assert sum(len(each.encode()) for each in warnings) <= 4096
    for each in warnings:
        assert each.isprintable()
        assert len(each.encode()) <= 256


def test_a_refusal_says_whom_it_answers_why_and_with_which_code() -> None:
    found = read(response.deny("u", "first\nsecond", audit={"decision": "Deny"}))
    assert found == {
        "uid": "u",
        "allowed": False,
        "status": {"status": "Failure", "code": 403, "reason": "Forbidden", "message": "first\nsecond"},
        "auditAnnotations": {"decision": "Deny"},
    }


def test_a_pin_is_a_tested_replacement_at_the_place_as_json_patch_writes_it() -> None:
    obj = {"spec": {"a~b/c": [{"image": "x"}], "containers": [{"image": "y"}, {"image": 7}]}}
    changes = {'spec["a~b/c"][0].image': "x@d", "spec.containers[0].image": "y@d", "spec.containers[1].image": "z", "spec.no.where": "z"}
    patch = response.pins(changes, obj)
    assert patch == [
        {"op": "test", "path": "/spec/a~0b~1c/0/image", "value": "x"},
        {"op": "replace", "path": "/spec/a~0b~1c/0/image", "value": "x@d"},
        {"op": "test", "path": "/spec/containers/0/image", "value": "y"},
        {"op": "replace", "path": "/spec/containers/0/image", "value": "y@d"},
    ]
    found = read(response.allow("u", patch=patch))
    assert found["patchType"] == "JSONPatch"
    assert json.loads(base64.b64decode(found["patch"])) == patch


@pytest.mark.parametrize(("code", "reason"), [(400, "BadRequest"), (413, "RequestEntityTooLarge"), (503, "ServiceUnavailable")])
def test_other_refusals_have_their_own_reason(code: int, reason: str) -> None:
    assert read(response.deny("u", "m", code=code))["status"]["reason"] == reason
