"""A list of objects in JSON is read item by item, and says what the whole would."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlwarden.errors import InputError
from mlwarden.model import documents, jsontext

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8)
LISTS = st.fixed_dictionaries({"kind": TEXTS, "items": VALUES | st.lists(VALUES, max_size=5)}, optional={"z": VALUES})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(found=st.lists(LISTS, min_size=1, max_size=3), indent=st.sampled_from([None, 1]), window=st.sampled_from([40, 64, 10_000]))
def test_what_is_read_by_items_is_what_is_read_whole(
    found: list[Any], indent: int | None, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsontext, "WINDOW", window)
    text = "\n".join(json.dumps(document, indent=indent) for document in found)
    lines: list[int] = []

    def keep(item: Any, line: int) -> Any:
        lines.append(line)
        return item

    try:
        read = [document for _, document in documents.read(text, keep=keep)]
    except InputError as error:
        assert "more than" in error.message or "not YAML" in error.message  # noqa: PT017 -- a value larger than the window
        assert window < 10_000
        return
    assert read == found
    assert lines == sorted(lines)


def test_an_item_s_line_is_that_of_its_first_sign() -> None:
    for text in ('{"kind": "List",\n"items": [\n\n  {"a":\n 1},\n2]}', "kind: List\nitems:\n\n- a:\n    1\n- {b: 2}\n"):
        lines: list[int] = []
        documents.read(text, first=10, keep=lambda _, line, lines=lines: lines.append(line))
        assert lines[0] == 13
        assert len(lines) == 2


@pytest.mark.parametrize("text", ['{"items": [], "items": []}', '{"a": {"b": 1, "b": 2}, "items": []}', "items: []\nitems: []\n"])
def test_a_key_that_stands_twice_is_found_at_every_level(text: str) -> None:
    with pytest.raises(InputError, match="twice"):
        documents.read(text, keep=lambda item, _: item)


@pytest.mark.parametrize("head", ["items:\n- ", "other:\n- "])
def test_one_object_of_more_values_than_anybody_takes_is_refused(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "VALUES", 100)
    with pytest.raises(InputError, match="more than 100 values"):
        documents.read(head + "[" + "1," * 200 + "]", keep=lambda item, _: item)


def test_a_list_of_more_values_than_one_object_may_have_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "VALUES", 100)
    ((_, found),) = documents.read("items:\n" + "- [1, 2, 3]\n" * 200, keep=lambda item, _: len(item))
    assert found == {"items": [3] * 200}
