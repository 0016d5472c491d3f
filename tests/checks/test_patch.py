"""RFC 7386, and how a patch is told to a person."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden.checks.patch import instruction, leaves, merged, smallest

# RFC 7386, appendix A, all of it.
APPENDIX_A = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), APPENDIX_A)
def test_the_examples_of_the_rfc_hold(target: object, patch: object, result: object) -> None:
    assert merged(target, patch) == result


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


@given(_JSON, _JSON)
@settings(max_examples=200, deadline=None)
def test_merging_never_changes_its_arguments(target: object, patch: object) -> None:
    before = copy.deepcopy((target, patch))
    merged(target, patch)
    assert (target, patch) == before


def test_what_is_set_and_what_is_removed_are_told_apart() -> None:
    patch = {"securityContext": {"privileged": False, "capabilities": {"add": None}}}
    assert (
        instruction(patch, "spec.containers[0]")
        == "set securityContext: {privileged: false} and remove securityContext.capabilities.add in spec.containers[0]"
    )


def test_a_patch_that_only_removes_says_so() -> None:
    assert instruction({"hostPath": None}, "spec.volumes[1]") == "remove hostPath in spec.volumes[1]"


def test_a_patch_is_cut_down_to_what_helps() -> None:
    patch = {"a": {"b": 1, "c": 2}, "d": None, "e": {}}
    assert leaves(patch) == [("a", "b"), ("a", "c"), ("d",), ("e",)]
    assert smallest(patch, lambda less: less.get("a", {}).get("c") == 2) == {"a": {"c": 2}}
    assert smallest(patch, lambda _: True) == {"a": {"b": 1}}
