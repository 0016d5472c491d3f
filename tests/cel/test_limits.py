"""What an expression and one evaluation may cost, and that nothing gets out but the two errors."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden import cel

WORDS = st.sampled_from(
    (  # noqa: SIM905 -- one word a line is no better
        "object x . ? [ ] ( ) { } : , 'a' 1 1.5 - ! && || == in has size all map optMap matches '[a-z]+' null true quantity orValue + % // "
        "r' \" ''' 0x é"
    ).split(" ")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcx") | st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | st.lists(WORDS, max_size=25).map(" ".join) | st.lists(WORDS, max_size=25).map("".join), JSON)
def test_random_text_is_refused_or_evaluates_but_never_fails_otherwise(source: str, value: Any) -> None:
    try:
        program = cel.compile(source, variables=["object", "x"], expect=bool)
    except cel.CelError:
        return
    with contextlib.suppress(cel.EvaluationError):
        assert program({"object": value, "x": value}) in {True, False}


@pytest.mark.parametrize(
    "source",
    [
        "(" * 5000 + "true" + ")" * 5000,
        "[" * 5000,
        "!" * 9000 + "true",
        "-" * 9001 + "1 == 1",
        "true" + " && true" * 2000,
        "1" + " + 1" * 3000 + " == 1",
        "object" + ".a" * 4000 + " == 1",
        "object" + "[0]" * 3000 + " == 1",
        "true ? " * 3000 + "true",
        "object.all(a, " * 600 + "true" + ")" * 600,
        "'" + "a" * 20_000 + "' == ''",
        "1" * 10_000 + " == 1",
        "object.matches('" + "(" * 500 + ")" * 500 + "')",
        "object.matches('(((a{1,100}){1,100}){1,100})')",
        "object.matches('" + "[a-z]{1000}" * 20 + "')",
        "object.matches('" + "a?" * 400 + "')",
    ],
)
def test_very_long_and_very_deep_expressions_are_refused_or_work(source: str) -> None:
    with contextlib.suppress(cel.CelError, cel.EvaluationError):
        program = cel.compile(source, variables=["object"], expect=bool)
        assert program({"object": "a" * 30}) in {True, False}


def test_a_loop_over_a_large_list_ends_with_an_error() -> None:
    program = cel.compile("x.all(a, x.all(b, x.all(c, a == b || b == c || true)))", variables=["x"], expect=bool)
    assert program({"x": list(range(20))}) is True
    with pytest.raises(cel.EvaluationError, match="cost more than"):
        program({"x": list(range(1000))})


def test_the_budget_is_not_absorbed_by_a_logical_operator() -> None:
    program = cel.compile("x.all(a, x.all(b, x.all(c, a == b))) || true", variables=["x"], expect=bool)
    with pytest.raises(cel.EvaluationError, match="cost more than"):
        program({"x": [1] * 1000})


def test_strings_and_lists_that_double_are_stopped() -> None:
    text = ".".join(["x"] + ["map(s, s + s + s + s + s + s + s + s)"] * 12) + ".size() > 0"
    with pytest.raises(cel.EvaluationError, match="cost more than"):
        cel.compile(text, variables=["x"], expect=bool)({"x": ["a" * 1000]})
    replaced = "x" + ".replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')" * 12 + ".size() > 0"
    with pytest.raises(cel.EvaluationError, match="cost more than"):
        cel.compile(replaced, variables=["x"], expect=bool)({"x": "aaa"})


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "^(.*a){20}$", "^([a-z]+/)*$", "a.*a.*a.*a.*a.*b"])
def test_patterns_that_backtrack_forever_elsewhere_are_answered(pattern: str) -> None:
    program = cel.compile(f"x.matches('{pattern}')", variables=["x"], expect=bool)
    assert program({"x": "a" * 5000 + "!"}) is False


def test_a_program_is_used_from_many_threads_at_once() -> None:
    program = cel.compile("x.map(i, i + 1).all(i, x.exists(j, j + 1 == i)) && s.matches('^(a+)+$')", variables=["x", "s"], expect=bool)
    answers: list[bool] = []

    def work(offset: int) -> None:
        answers.extend(program({"x": list(range(offset, offset + 10)), "s": "a" * (offset + 1)}) for _ in range(50))

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 200


def test_an_evaluation_deep_in_the_stack_raises_an_evaluation_error() -> None:
    program = cel.compile("!(" * 30 + "x.a" + ")" * 30 + " == true || true", variables=["x"], expect=bool)

    def descend(left: int) -> bool:
        return bool(program({"x": {"a": True}})) if left == 0 else descend(left - 1)

    seen: set[Any] = set()
    for depth in range(800, 1000, 5):
        try:
            seen.add(descend(depth))
        except cel.EvaluationError as error:
            seen.add(error.message.partition(" was too deep")[0])
        except RecursionError:
            break
    assert seen <= {True, "the stack"}


def test_the_budget_is_per_evaluation(value: Callable[..., Any]) -> None:
    program = cel.compile("x.all(a, a > 0)", variables=["x"], expect=bool, budget=100)
    for _ in range(50):
        assert program({"x": [1] * 10}) is True
    with pytest.raises(cel.EvaluationError, match="100 units"):
        program({"x": [1] * 100})


def test_a_metered_program_has_one_budget_for_all_its_evaluations() -> None:
    program = cel.compile("x.all(a, a > 0)", variables=["x"], expect=bool, budget=1000)
    metered = program.metered()
    for _ in range(10):
        assert metered({"x": [1] * 10}) is True
    with pytest.raises(cel.EvaluationError, match="1000 units"):
        metered({"x": [1] * 150})
    with pytest.raises(cel.EvaluationError, match="1000 units"):
        metered({"x": [1] * 10})
    assert program({"x": [1] * 10}) is True
    assert program.metered()({"x": [1] * 10}) is True
