import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden.cluster import decode
from mlwarden.cluster.errors import ApiError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=30,
)


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_what_is_not_deep_is_not_touched_by_the_cut(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=2)):
        assert json.loads(decode.cut(text.encode())) == value


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_what_is_deep_is_replaced_and_the_rest_stays(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    text = '{"before":"}]\\"","deep":' + opening * 9000 + "1" + closing * 9000 + ',"after":[1]}'
    found = json.loads(decode.cut(text.encode()))
    assert (found["before"], found["after"]) == ('}]"', [1])


def test_whoever_writes_the_mark_of_the_cut_only_marks_his_own() -> None:
    obj, why = decode.item(msgspec.Raw(b'{"metadata":{"name":"x"},"spec":"mlwarden: nested too deeply"}'))
    assert (obj, why) == ({"metadata": {"name": "x"}}, decode.TOO_DEEP)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"a":' * 2000 + b"1" + b"}" * 2000])
def test_an_answer_that_is_no_object_is_an_error_with_words(content: bytes) -> None:
    with pytest.raises(ApiError, match="cannot be read"):
        decode.whole(content)
