"""What the subset promises beyond the recorded table: messages with places, static types, limits of form, nulls."""

from collections.abc import Callable
from typing import Any

import pytest

from mlwarden import cel
from mlwarden.cel.closures import Compiler
from mlwarden.cel.declarations import OVERLOADS
from mlwarden.cel.functions import FUNCTIONS
from mlwarden.cel.operators import LAZY
from mlwarden.cel.values import strip_nulls
from mlwarden.errors import PolicyError


def compiled(source: str, expect: type = bool) -> cel.Program:
    return cel.compile(source, variables=["object", "container"], expect=expect)


def test_a_program_keeps_its_source_and_returns_a_bool() -> None:
    program = compiled("object.spec.hostNetwork == false")
    assert program.source == "object.spec.hostNetwork == false"
    assert program({"object": {"spec": {"hostNetwork": False}}}) is True


def test_a_program_may_return_a_string() -> None:
    assert compiled("'image ' + object.image", str)({"object": {"image": "a"}}) == "image a"


@pytest.mark.parametrize(
    ("source", "expect", "message"),
    [
        ("object.spec.hostNetwork", bool, "must be bool but is dyn"),
        ("1", bool, "must be bool but is int"),
        ("object.a == 1", str, "must be string but is bool"),
        ("pod.spec == 1", bool, "there is no variable 'pod' here (line 1, column 1)"),
        ("object.a ==\n  now()", bool, "now() is not in the subset (line 2, column 3)"),
        ("math.least(1, 2) == 1", bool, "there is no variable 'math' here"),
        ("sets.union([1], [2]) == [1]", bool, "sets.union() is not in the subset"),
        ("1 == 'a'", bool, "_==_ does not take (int, string)"),
        ("[1, 'a'] == []", bool, "expected int as before, found string"),
        ("['a', object.a] == []", bool, "a list or map of string cannot hold dyn"),
        ("{1: 2} == {}", bool, "keys of maps are strings"),
        ("object.a.matches(object.b)", bool, "is a string literal"),
        ("object.a.matches('a(?=b)')", bool, "the pattern is refused"),
        ("object.a.matches('(a')", bool, "a group that does not end"),
        ("object.a == 1u", bool, "uint literals are not in the subset"),
        ("object.a == b'x'", bool, "bytes literals are not in the subset"),
        ("object.`a` == 1", bool, "escaped identifiers are not in the subset"),
        ("object.a == 9223372036854775808", bool, "does not fit in 64 bits"),
        ("has(object)", bool, "has() takes a field selection"),
        ("cel.bind(a, 1, a == 1)", bool, "'bind' is not in the subset"),
        ("object.a.all(1, true)", bool, "the first argument of a macro is a simple name"),
        ("object.a == 'x", bool, "a string that does not end"),
        ("object.a == '\\q'", bool, "an escape that does not exist"),
        ("", bool, "expected a value, found the end"),
        ("object.a == 1 1", bool, "expected the end of the expression"),
        ("object.in == 1", bool, "cannot be a field name here"),
        ("if == 1", bool, "'if' is a reserved word"),
        ("quantity('1') == quantity('1')", bool, "compareTo"),
        ("dyn(quantity('1')) == 1", bool, "compareTo"),
        ("[object.?a] == []", bool, "an optional in a list or map"),
        ("int('x') == 1", bool, "int(): type conversion error"),
    ],
)
def test_what_is_outside_the_subset_is_refused_with_a_reason_and_a_place(source: str, expect: type, message: str) -> None:
    with pytest.raises(cel.CelError) as caught:
        compiled(source, expect)
    assert message in caught.value.message
    assert "line" in caught.value.message


def test_a_cel_error_is_a_policy_error_with_a_position() -> None:
    with pytest.raises(PolicyError) as caught:
        compiled("true &&\n foo")
    assert isinstance(caught.value, cel.CelError)
    assert (caught.value.line, caught.value.column, caught.value.position) == (2, 2, 9)
    assert "container, object" in caught.value.diagnostics()


def test_every_overload_has_an_implementation() -> None:
    implemented = {name for name, _ in FUNCTIONS} | LAZY.keys() | {"_==_", "_!=_", "matches", "_[_]", "_[?_]"}
    assert OVERLOADS.keys() == implemented - {"sum(double)"}
    for name, overloads in OVERLOADS.items():
        for overload in overloads:
            assert (name, len(overload.parameters)) in FUNCTIONS or name in LAZY or name.startswith("_") or name == "matches"


def test_one_key_twice_is_an_error_in_a_map_literal(value: Callable[..., Any]) -> None:
    with pytest.raises(cel.EvaluationError):
        value("{'a': 1, 'a': 2}")


def test_true_is_not_one_anywhere(value: Callable[..., Any]) -> None:
    for source in ("x == 1", "1 == x", "x in [1]", "[x] == [dyn(1)]", "{'a': x} == {'a': dyn(1)}", "[x].distinct().size() == 2"):
        assert value(source, x=True) is False, source
        assert value(source, x=1) is (source != "[x].distinct().size() == 2"), source
    assert value("x == false", x=0) is False
    assert value("x == true", x=1) is False
    assert value("[x, dyn(true)].distinct().size()", x=1) == 2


def test_a_missing_variable_is_an_error_only_where_it_is_used() -> None:
    program = compiled("object.a == 1 || container.b == 2")
    assert program({"object": {"a": 1}}) is True
    with pytest.raises(cel.EvaluationError, match="container"):
        program({"object": {"a": 2}})


def test_a_value_that_is_not_json_is_an_error_and_not_an_answer(value: Callable[..., Any]) -> None:
    for source in ("x == 1", "x < 1", "x + 1", "size(x)", "x.all(y, true)"):
        with pytest.raises(cel.EvaluationError):
            value(source, x=object())


def test_integers_beyond_64_bits_are_errors_unless_stripped(value: Callable[..., Any]) -> None:
    for source in ("x + 1", "x == 1", "x < 1", "string(x)", "-x"):
        with pytest.raises(cel.EvaluationError):
            value(source, x=2**70)
    assert strip_nulls({"x": [2**70]}) == {"x": [float(2**70)]}


def test_null_members_are_stripped_and_null_elements_stay() -> None:
    given = {"metadata": {"creationTimestamp": None, "labels": {"a": "b"}}, "list": [None, {"x": None}], "s": ""}
    kept = {"metadata": {"labels": {"a": "b"}}, "list": [None, {}], "s": ""}
    assert cel.strip_nulls(given) == kept
    assert given["metadata"]["creationTimestamp"] is None  # type: ignore[index]
    assert cel.strip_nulls(kept) is kept
    assert [cel.strip_nulls(scalar) for scalar in (None, 1, "a", True, 1.5)] == [None, 1, "a", True, 1.5]


def test_deep_objects_are_stripped_and_compared_without_recursion(value: Callable[..., Any]) -> None:
    deep: Any = {"n": None}
    other: Any = {}
    for _ in range(50_000):
        deep, other = {"a": deep}, {"a": other}
    deep = cel.strip_nulls(deep)
    assert value("x == y", x=deep, y=other) is True


def test_the_macro_variable_shadows_and_the_outer_one_comes_back(value: Callable[..., Any]) -> None:
    assert value("x.map(i, y.map(i, i + 1).size() + i)", x=[10, 20], y=[1, 2]) == [12, 22]
    assert value("x.map(object, object.a)", x=[{"a": 1}], object={"a": 9}) == [1]
    assert value("x.all(i, y.exists(i, i == 2) && i < 3)", x=[1, 2], y=[2]) is True
    assert value("[1].map(x, [x].map(x, x + 1) + [x])") == [[2, 1]]


def test_slots_are_as_many_as_loops_nest() -> None:
    def slots(source: str) -> int:
        from mlwarden.cel.checker import check
        from mlwarden.cel.parser import parse

        node = parse(source)
        compiler = Compiler(source=source, checked=check(node, source=source, variables=["x"], expect=None))
        compiler.compile(node, {})
        return compiler.slots

    assert slots("x == 1") == 0
    assert slots("x.all(a, true) && x.all(b, true)") == 1
    assert slots("x.all(a, x.all(a, x.all(a, true)))") == 3
