"""Our evaluator against Google's C++ one (cel-expr-python), over generated expressions and objects of the part both have.

The other engine returns errors as values and raises RuntimeError beyond its limits; both count as no answer here. Where it has an answer
and we have one, they are the same; where it has none, we have none. It is not Kubernetes' engine: what the two differ in is left out of
the generator and pinned down by tests/cel/recorded.jsonl instead.
"""

from functools import cache
from typing import Any

from cel_expr_python import cel as oracle
from cel_expr_python.ext import ext_optional, ext_strings
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden import cel

_NOTHING = object()


@cache
def _environment() -> Any:
    variables = dict.fromkeys(("object", "x"), oracle.Type.DYN)
    return oracle.NewEnv(variables=variables, extensions=[ext_optional.ExtOptional(), ext_strings.ExtStrings()])


def _theirs(source: str, variables: dict[str, Any]) -> Any:
    """Their answer; `_NOTHING` for an error; None where it does not compile."""
    environment = _environment()
    try:
        program = environment.compile(source)
    except (RuntimeError, ValueError):
        return None
    try:
        value = program.eval(environment.Activation(variables))
    except RuntimeError:
        return _NOTHING
    return value.value() if value.type().name() == "BOOL" else _NOTHING


SCALARS = st.sampled_from([0, 1, 2, -1, 7, 1.0, 0.5, True, False, "", "a", "b", "ab", "é😀", "1"])
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "a": JSON,
        "b": JSON,
        "flag": st.booleans(),
        "number": st.integers(-5, 5),
        "text": st.sampled_from(["", "a", "ab", "aXb", " a "]),
        "list": st.lists(st.integers(-2, 2), max_size=3),
        "texts": st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3),
        "map": st.dictionaries(st.sampled_from(["a", "b"]), SCALARS, max_size=2),
    },
)
PATHS = st.sampled_from(
    [
        "object.a", "object.b", "object.flag", "object.number", "object.text", "object.list", "object.texts", "object.map", "object.a.b",
        "object.map['a']", "object.list[0]", "x", "object.?a.orValue(1)", "object.?map[?'a'].orValue('a')", "object.?map.?b.orValue(true)",
    ]
)  # fmt: skip
LITERALS = st.sampled_from(
    ["0", "1", "-1", "1.0", "0.5", "'a'", "'ab'", "''", "true", "false", "dyn([1, 2])", "dyn(['a'])", "dyn({'a': 1})"]
)
VALUES = st.one_of(PATHS, PATHS, LITERALS)


def _form(template: str, **parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.fixed_dictionaries(parts).map(lambda found: template.format(**found))


def _boolean(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        _form("({a} && {b})", a=inner, b=inner),
        _form("({a} || {b})", a=inner, b=inner),
        _form("!({a})", a=inner),
        _form("({a} ? {b} : {c})", a=inner, b=inner, c=inner),
        _form("dyn({v}).{m}(i, {a})", v=VALUES, a=inner, m=st.sampled_from(["all", "exists", "exists_one"])),
        _form("dyn({v}).exists(x, {a} && x == {w})", v=VALUES, a=inner, w=PATHS),
        _form("dyn({v}).filter(x, {a}).size() == {n}", v=VALUES, a=inner, n=st.sampled_from(["0", "1", "2"])),
        _form("dyn({v}).map(x, dyn({a})) == dyn({w})", v=VALUES, a=inner, w=VALUES),
    )


LEAVES = st.one_of(
    _form("dyn({a}) {o} dyn({b})", a=VALUES, b=VALUES, o=st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in"])),
    _form("dyn({a}) {o} dyn({b}) == dyn({c})", a=VALUES, b=VALUES, c=VALUES, o=st.sampled_from(["+", "-", "*", "/", "%"])),
    _form("has({p})", p=st.sampled_from(["object.a", "object.map.a", "object.map.zz", "object.nothing.a"])),
    _form(
        "dyn({a}).{f}({b})",
        a=VALUES,
        b=st.sampled_from(["'a'", "''", "object.text"]),
        f=st.sampled_from(["contains", "startsWith", "endsWith"]),
    ),
    _form("dyn({a}).matches('{p}')", a=VALUES, p=st.sampled_from(["^a", "b$", "^[a-z]+$", "a|b", "^(a|ab)*$", ".", "^$", "a{2,}"])),
    _form("size(dyn({a})) == {n}", a=VALUES, n=st.sampled_from(["0", "1", "2"])),
    _form("dyn({a}).{f}() == dyn({b})", a=VALUES, b=VALUES, f=st.sampled_from(["lowerAscii", "upperAscii", "trim", "join"])),
    _form("dyn({a}).{f}('a') == dyn({b})", a=VALUES, b=VALUES, f=st.just("split")),
    _form("object.text.{f}('a') == {n}", f=st.sampled_from(["indexOf", "lastIndexOf"]), n=st.sampled_from(["0", "1", "-1"])),
    _form("dyn({a}).replace('a', {b}) == dyn({c})", a=VALUES, b=st.sampled_from(["''", "'xy'"]), c=VALUES),
    _form("dyn({a}).substring({n}) == dyn({b})", a=VALUES, b=VALUES, n=st.sampled_from(["0", "1", "2", "-1"])),
    _form("object.?{f}.hasValue()", f=st.sampled_from(["a", "map", "nothing"])),
    _form("object.?{f}.optMap(v, v == {a}).orValue(false)", f=st.sampled_from(["a", "map", "nothing"]), a=VALUES),
)
EXPRESSIONS = st.recursive(LEAVES, _boolean, max_leaves=5)


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS, OBJECTS, SCALARS)
def test_both_engines_give_the_same_answer_or_none(source: str, obj: dict[str, Any], scalar: Any) -> None:
    variables = {"object": obj, "x": scalar}
    theirs = _theirs(source, variables)
    try:
        program = cel.compile(source, variables=["object", "x"], expect=bool)
    except cel.CelError:
        return
    try:
        ours = program(variables)
    except cel.EvaluationError:
        ours = _NOTHING
    if theirs is not None:
        assert ours is theirs
