"""Values at run time: plain decoded JSON, plus the three that JSON does not have. Equality, and the budget.

Python's own `==` is wrong for CEL (`True == 1`), and recursive; `equal` is strict about types and iterative. Everything here works on
exact types (`type(x) is int`): a bool is no int, and nothing else may come in.
"""

from typing import Any, Final, TypeAlias

from mlwarden.cel.errors import BudgetExceeded, EvaluationError

Frame: TypeAlias = list[Any]
"""One evaluation: [budget left, the variables, slot of a macro variable, …]."""

BUDGET: Final = 5_000_000
"""Of one evaluation: enough to read everything in the largest pod that etcd takes, some half a second at worst."""
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
_DOUBLE_MAX: Final = 2**1023


class Optional:
    """CEL's optional_type: a value, or none (`NONE`)."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


NONE: Final = Optional(None)
"""optional.none(); compared by identity."""


class TypeValue:
    """What `type(x)` returns."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


_TYPE_NAMES: Final[dict[type, str]] = {
    bool: "bool",
    int: "int",
    float: "double",
    str: "string",
    list: "list",
    dict: "map",
    type(None): "null_type",
    TypeValue: "type",
}


def type_name(value: Any) -> str:
    """The CEL name of a value's type, for `type()` and for messages."""
    return _TYPE_NAMES.get(type(value), type(value).__name__.lower())


def no_overload(function: str, *values: Any) -> EvaluationError:
    """The error for arguments of types a function does not take."""
    return EvaluationError(f"no such overload: {function}({', '.join(type_name(value) for value in values)})")


def charge(frame: Frame, cost: int) -> None:
    """Takes from the budget.

    Raises:
        BudgetExceeded: nothing is left.
    """
    left = frame[0] = frame[0] - cost
    if left < 0:
        raise BudgetExceeded


def text_cost(text: str) -> int:
    """What walking over a string costs; Kubernetes charges a tenth per character, too."""
    return len(text) // 10 + 1


def equal(one: Any, other: Any, frame: Frame) -> bool:
    """CEL's `==`: numbers by value across int and double, everything else equal only to its own type."""
    kind = type(one)
    if kind is type(other):
        if kind is str or kind is bool or one is None:
            return bool(one == other)
        if kind is list or kind is dict:
            return _deep(one, other, frame)
    return _shallow(one, other, frame)


def _shallow(one: Any, other: Any, frame: Frame) -> bool:
    kind, other_kind = type(one), type(other)
    if kind is int or kind is float:
        if other_kind is not int and other_kind is not float:
            return _known(other)
        if kind is other_kind:
            return bool((_int64(one) if kind is int else one) == (_int64(other) if kind is int else other))
        # Go compares as doubles, so does this: 2**53 + 1 equals 2.0**53.
        return float(_int64(one) if kind is int else one) == float(_int64(other) if other_kind is int else other)
    if kind is Optional and other_kind is Optional:
        if one is NONE or other is NONE:
            return one is other
        return equal(one.value, other.value, frame)
    if kind is TypeValue and other_kind is TypeValue:
        return bool(one.name == other.name)
    if not _known(one) and not _known(other) and kind is other_kind:
        return bool(one == other)
    return False


def _known(value: Any) -> bool:
    """Always False; raises for what equality is not defined on here."""
    if type(value) in _TYPE_NAMES or type(value) is Optional:
        return False
    raise EvaluationError(f"a {type_name(value)} is not compared by ==")


def _int64(value: int) -> int:
    if INT_MIN <= value <= INT_MAX:
        return value
    raise EvaluationError("an integer that does not fit in 64 bits")


def _deep(one: Any, other: Any, frame: Frame) -> bool:
    pending = [(one, other)]
    while pending:
        left, right = pending.pop()
        kind = type(left)
        if kind is not type(right) or (kind is not list and kind is not dict):
            charge(frame, 1)
            if not (equal(left, right, frame) if kind is not Optional else _shallow(left, right, frame)):
                return False
            continue
        if len(left) != len(right):
            return False
        charge(frame, len(left) + 1)
        if kind is list:
            pending.extend(zip(left, right, strict=True))
            continue
        for key, value in left.items():
            if key not in right:
                return False
            pending.append((value, right[key]))
    return True


def contains(element: Any, container: Any, frame: Frame) -> bool:
    """CEL's `in`: an element of a list, or a key of a map."""
    if type(container) is dict:
        if type(element) is str:
            return element in container
        if element is None or type(element) in {bool, int, float}:
            return False
        raise no_overload("@in", element, container)
    if type(container) is not list:
        raise no_overload("@in", element, container)
    charge(frame, len(container) // 10 + 1)
    if type(element) is str:
        return element in container
    return any(equal(element, each, frame) for each in container)


def compare(one: Any, other: Any) -> int:
    """Orders two values of one comparable type (numbers across int and double): -1, 0 or 1."""
    kind, other_kind = type(one), type(other)
    if kind is not other_kind or kind not in {str, int, bool}:
        if {kind, other_kind} <= {int, float}:
            one = float(_int64(one)) if kind is int else one
            other = float(_int64(other)) if other_kind is int else other
            if one != one or other != other:  # noqa: PLR0124 -- NaN is the number that is not itself
                raise EvaluationError("NaN values cannot be ordered")
        else:
            raise no_overload("_<_", one, other)
    elif kind is int:
        _int64(one)
        _int64(other)
    return -1 if one < other else int(one > other)


def stored(value: Any) -> Any:
    """A value about to be put into a list, map or optional: optionals are refused there (the checker says so where it can)."""
    if type(value) is Optional:
        raise EvaluationError("an optional in a list, map or optional is not in the subset")
    return value


def strip_nulls(value: Any) -> Any:
    """The object as a ValidatingAdmissionPolicy sees it: members that are null are gone, integers beyond 64 bits are doubles.

    The API server decodes built-in types into structs, which drops explicit nulls, and its JSON decoder reads an integer that does not
    fit as a double. Elements of lists that are null stay. Not recursive; the input is returned as it is where there is nothing to do,
    and never changed.
    """
    if _clean(value):
        return value
    root: list[Any] = []
    pending: list[tuple[Any, Any]] = [([value], root)]
    while pending:
        source, copy = pending.pop()
        if type(source) is list:
            for each in source:
                copy.append(_begun(each, pending))
        else:
            for key, each in source.items():
                if each is not None:
                    copy[key] = _begun(each, pending)
    return root[0]


def _begun(value: Any, pending: list[tuple[Any, Any]]) -> Any:
    """A scalar as it is; an empty container that is going to be filled."""
    kind = type(value)
    if kind is dict or kind is list:
        copy: Any = kind()
        pending.append((value, copy))
        return copy
    if kind is int and not INT_MIN <= value <= INT_MAX:
        return float(value) if abs(value) < _DOUBLE_MAX else value
    return value


def _clean(value: Any) -> bool:
    pending = [value]
    while pending:
        each = pending.pop()
        members: Any = ()
        if type(each) is dict:
            members = each.values()
            if None in members:
                return False
        elif type(each) is list:
            members = each
        elif type(each) is int and not INT_MIN <= each <= INT_MAX:
            return False
        for member in members:
            kind = type(member)
            if kind is dict or kind is list or (kind is int and not INT_MIN <= member <= INT_MAX):
                pending.append(member)
    return True
