"""The operators and macros as closures: what a node of each kind does when it is evaluated.

The semantics of errors are here: `||`, `&&`, `all` and `exists` absorb an `EvaluationError` where another term decides (CEL's commutative
logic); everything else passes it on. Fields and indices follow cel-go's `interpreter/attributes.go`: after `.?` or `[?` every further
selection is optional, too.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from mlwarden.cel.errors import EvaluationError
from mlwarden.cel.nodes import Literal, Node
from mlwarden.cel.values import NONE, Frame, Optional, charge, compare, contains, equal, no_overload, stored, type_name

Closure: TypeAlias = Callable[[Frame], Any]


def constant(value: Any) -> Closure:
    """The same value always."""
    return lambda _: value


def variable(name: str) -> Closure:
    """A variable of the environment."""

    def read(frame: Frame) -> Any:
        try:
            return frame[1][name]
        except KeyError:
            raise EvaluationError(f"the variable {name} is not given") from None

    return read


def select(operand: Closure, field: str) -> Closure:
    """`operand.field`."""

    def selected(frame: Frame) -> Any:
        value = operand(frame)
        try:
            return value[field]
        except (KeyError, TypeError):
            return _selected(value, field)

    return selected


def _selected(value: Any, field: str) -> Any:
    if type(value) is Optional:
        return value if value is NONE else _present(value.value, field)
    if type(value) is dict:
        raise EvaluationError(f"no such key: {field}")
    raise EvaluationError(f"no such key: {field}, in a value of type {type_name(value)}")


def _present(value: Any, field: str) -> Optional:
    """What `.?` and everything after it does: none where the field is not there; only lists take no field at all."""
    if type(value) is dict:
        return Optional(value[field]) if field in value else NONE
    if type(value) is list:
        raise EvaluationError("unsupported index type 'string' in list")
    if value is None or type(value) in {bool, int, float, str}:
        return NONE
    raise no_overload("_.?_", value)


def optional_select(operand: Closure, field: str) -> Closure:
    """`operand.?field`."""

    def selected(frame: Frame) -> Any:
        value = operand(frame)
        if type(value) is dict:
            return Optional(value[field]) if field in value else NONE
        if type(value) is Optional:
            return value if value is NONE else _present(value.value, field)
        return _present(value, field)

    return selected


def has(operand: Closure, field: str) -> Closure:
    """`has(operand.field)`: of a map, is the key there; of anything but a list, no."""

    def present(frame: Frame) -> bool:
        value: object = operand(frame)
        if type(value) is dict:
            return field in value
        if type(value) is Optional:
            return value is not NONE and _present(value.value, field) is not NONE
        return _present(value, field) is not NONE

    return present


def index(operand: Closure, at: Closure, *, optional: bool) -> Closure:
    """`operand[index]` and `operand[?index]`."""

    def indexed(frame: Frame) -> Any:
        value = operand(frame)
        if type(value) is Optional:
            if value is NONE:
                return NONE
            found = _element(value.value, at(frame))
            return NONE if found is _MISSING else Optional(found)
        key = at(frame)
        if type(value) is dict and type(key) is str and key in value:
            return Optional(value[key]) if optional else value[key]
        found = _element(value, key)
        if optional:
            return NONE if found is _MISSING else Optional(found)
        if found is _MISSING:
            raise EvaluationError(f"no such key or index: {str(key)[:80]}")
        return found

    return indexed


_MISSING: Final = object()


def _element(value: Any, key: Any) -> Any:
    """What stands at a key or index, or `_MISSING`."""
    kind = type(key)
    if type(value) is list:
        if kind is float and key.is_integer() and abs(key) < 2**53:
            key = int(key)
        elif kind is not int:
            raise EvaluationError(f"unsupported index type '{type_name(key)}' in list")
        return value[key] if 0 <= key < len(value) else _MISSING
    if kind not in {bool, int, float, str}:
        raise no_overload("_[_]", value, key)
    if type(value) is dict:
        return value.get(key, _MISSING) if kind is str else _MISSING
    if value is None or type(value) in {bool, int, float, str}:
        return _MISSING
    raise no_overload("_[_]", value, key)


def logic(terms: list[Closure], *, decisive: bool) -> Closure:
    """`||` (decisive True) and `&&` (False): any decisive term decides, whatever the others raise."""
    undecided = not decisive

    def decided(frame: Frame) -> bool:
        error: EvaluationError | None = None
        for term in terms:
            try:
                value = term(frame)
            except EvaluationError as raised:
                error = error or raised
                continue
            if value is decisive:
                return not undecided
            if value is undecided:
                continue
            error = error or no_overload("_||_" if decisive else "_&&_", value)
        if error is not None:
            raise error
        return undecided

    return decided


def _conditional(condition: Closure, chosen: Closure, other: Closure) -> Closure:
    def conditional(frame: Frame) -> Any:
        value = condition(frame)
        if value is True:
            return chosen(frame)
        if value is False:
            return other(frame)
        raise no_overload("_?_:_", value)

    return conditional


def _not(operand: Closure) -> Closure:
    def negation(frame: Frame) -> bool:
        value = operand(frame)
        if value is True:
            return False
        if value is False:
            return True
        raise no_overload("!_", value)

    return negation


def equality(parts: tuple[Node, ...], arguments: list[Closure], *, wanted: bool) -> Closure:
    """`==` and `!=`, with shortcuts for literals: `x == 'text'`, `x == true`, `x == null`."""
    one, other = arguments
    for literal, operand in ((parts[1], one), (parts[0], other)):
        if isinstance(literal, Literal) and (literal.value is None or type(literal.value) in {str, bool}):
            return _equals_literal(operand, literal.value, wanted=wanted)

    def compared(frame: Frame) -> bool:
        return equal(one(frame), other(frame), frame) is wanted

    return compared


def _equals_literal(operand: Closure, value: Any, *, wanted: bool) -> Closure:
    if type(value) is str:
        return (lambda frame: operand(frame) == value) if wanted else (lambda frame: operand(frame) != value)
    return (lambda frame: operand(frame) is value) if wanted else (lambda frame: operand(frame) is not value)


def _in(element: Closure, container: Closure) -> Closure:
    return lambda frame: contains(element(frame), container(frame), frame)


def _order(check: Callable[[int], bool]) -> Callable[[Closure, Closure], Closure]:
    return lambda one, other: lambda frame: check(compare(one(frame), other(frame)))


def _or_value(target: Closure, alternative: Closure) -> Closure:
    def or_value(frame: Frame) -> Any:
        value = target(frame)
        if type(value) is not Optional:
            raise no_overload("orValue", value)
        return alternative(frame) if value is NONE else value.value

    return or_value


def _or(target: Closure, alternative: Closure) -> Closure:
    def either(frame: Frame) -> Any:
        value = target(frame)
        if type(value) is not Optional:
            raise no_overload("or", value)
        if value is not NONE:
            return value
        value = alternative(frame)
        if type(value) is not Optional:
            raise no_overload("or", value)
        return value

    return either


LAZY: Final[Mapping[str, Callable[..., Closure]]] = {
    "_?_:_": _conditional,
    "!_": _not,
    "@in": _in,
    "_<_": _order(lambda sign: sign < 0),
    "_<=_": _order(lambda sign: sign <= 0),
    "_>_": _order(lambda sign: sign > 0),
    "_>=_": _order(lambda sign: sign >= 0),
    "dyn": lambda operand: operand,
    "or": _or,
    "orValue": _or_value,
}


def apply(function: Callable[..., Any], arguments: list[Closure]) -> Closure:
    """A strict function: every argument is evaluated, in order."""
    match arguments:
        case []:
            return function
        case [one]:
            return lambda frame: function(frame, one(frame))
        case [one, two]:
            return lambda frame: function(frame, one(frame), two(frame))
        case _:
            return lambda frame: function(frame, *[argument(frame) for argument in arguments])


def list_literal(elements: tuple[Closure, ...], optional: frozenset[int]) -> Closure:
    """`[a, ?b]`."""

    def make(frame: Frame) -> list[Any]:
        charge(frame, len(elements) // 10 + 1)
        found: list[Any] = []
        for index, element in enumerate(elements):
            value = element(frame)
            if index not in optional:
                found.append(stored(value))
            elif type(value) is not Optional:
                raise no_overload("[?_]", value)
            elif value is not NONE:
                found.append(value.value)
        return found

    return make


def map_literal(keys: tuple[Closure, ...], values: tuple[Closure, ...], optional: frozenset[int]) -> Closure:
    """`{key: value, ?key: value}`."""

    def make(frame: Frame) -> dict[str, Any]:
        charge(frame, len(keys) + 1)
        found: dict[str, Any] = {}
        for index, (key, each) in enumerate(zip(keys, values, strict=True)):
            name, value = key(frame), each(frame)
            if type(name) is not str:
                raise EvaluationError(f"keys of maps are strings, this is {type_name(name)}")
            if index in optional:
                if type(value) is not Optional:
                    raise no_overload("{?_: _}", value)
                if value is NONE:
                    continue
                value = value.value
            if name in found:
                raise EvaluationError("a map with one key twice is not in the subset")
            found[name] = stored(value)
        return found

    return make


def _range(frame: Frame, value: Any, weight: int) -> Any:
    if type(value) is not list and type(value) is not dict:
        raise EvaluationError(f"a {type_name(value)} cannot be iterated")
    charge(frame, len(value) * weight + 1)
    return value


def quantifier(over: Closure, slot: int, predicate: Closure, weight: int, *, decisive: bool) -> Closure:
    """`exists` (decisive True) and `all` (False): one decisive element decides, whatever the others raise."""
    undecided = not decisive

    def decided(frame: Frame) -> bool:
        error: EvaluationError | None = None
        for each in _range(frame, over(frame), weight):
            frame[slot] = each
            try:
                value = predicate(frame)
            except EvaluationError as raised:
                error = error or raised
                continue
            if value is decisive:
                return not undecided
            if value is undecided:
                continue
            error = error or no_overload("exists" if decisive else "all", value)
        if error is not None:
            raise error
        return undecided

    return decided


def exists_one(over: Closure, slot: int, predicate: Closure, weight: int) -> Closure:
    """`exists_one`: absorbs no errors."""

    def counted(frame: Frame) -> bool:
        count = 0
        for each in _range(frame, over(frame), weight):
            frame[slot] = each
            value = predicate(frame)
            if value is True:
                count += 1
            elif value is not False:
                raise no_overload("exists_one", value)
        return count == 1

    return counted


def keep(over: Closure, slot: int, predicate: Closure, weight: int) -> Closure:
    """`filter`."""

    def kept(frame: Frame) -> list[Any]:
        found: list[Any] = []
        for each in _range(frame, over(frame), weight):
            frame[slot] = each
            value = predicate(frame)
            if value is True:
                found.append(stored(each))
            elif value is not False:
                raise no_overload("filter", value)
        return found

    return kept


def transform(over: Closure, slot: int, predicate: Closure | None, body: Closure, weight: int) -> Closure:
    """`map`, with or without a predicate."""

    def transformed(frame: Frame) -> list[Any]:
        found: list[Any] = []
        for each in _range(frame, over(frame), weight):
            frame[slot] = each
            if predicate is not None:
                value = predicate(frame)
                if value is False:
                    continue
                if value is not True:
                    raise no_overload("map", value)
            found.append(stored(body(frame)))
        return found

    return transformed
