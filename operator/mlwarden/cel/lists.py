"""The list and set functions of Kubernetes (`pkg/cel/library/lists.go`) and cel-go (`ext/lists.go` version 3, `ext/sets.go`).

Where cel-go looks at the first element only and then works by accident on the rest (`[1, 'a'].min()` is 1), this raises.
"""

from functools import cmp_to_key
from itertools import pairwise
from typing import Any, cast

from mlwarden.cel import strings
from mlwarden.cel.errors import EvaluationError
from mlwarden.cel.values import INT_MAX, INT_MIN, NONE, Frame, Optional, charge, compare, contains, equal, no_overload, stored


def size(frame: Frame, value: Any) -> int:
    """Of a string (in code points), list or map."""
    kind = type(value)
    if kind is list or kind is dict:
        return len(value)
    if kind is str:
        charge(frame, len(value) // 10 + 1)
        return len(value)
    raise no_overload("size", value)


def _list(frame: Frame, function: str, value: Any) -> list[Any]:
    if type(value) is not list:
        raise no_overload(function, value)
    charge(frame, len(value) + 1)
    return value


def _comparable(frame: Frame, function: str, value: Any) -> list[Any]:
    """A list whose elements are all bool, all strings, all int or all double."""
    elements = _list(frame, function, value)
    if elements:
        kind = type(elements[0])
        if kind not in {bool, int, float, str} or any(type(each) is not kind for each in elements):
            raise no_overload(function, value)
        if kind is float and any(each != each for each in elements):  # noqa: PLR0124 -- NaN is the number that is not itself
            raise EvaluationError("NaN values cannot be ordered")
        if kind is str:
            charge(frame, sum(map(len, elements)) // 10)
    return elements


def is_sorted(frame: Frame, value: Any) -> bool:
    """value.isSorted()."""
    elements = _comparable(frame, "isSorted", value)
    return all(one <= other for one, other in pairwise(elements))


def total(frame: Frame, value: Any) -> int:
    """value.sum() of ints; of nothing, 0; of doubles where the list says so."""
    elements = _comparable(frame, "sum", value)
    result: Any = 0
    for each in elements:
        if type(each) is int:
            result += each
            if not INT_MIN <= result <= INT_MAX:
                raise EvaluationError("integer overflow")
        elif type(each) is float:
            result = float(result) + each
        else:
            raise no_overload("sum", value)
    return cast("int", result)


def total_double(frame: Frame, value: Any) -> float:
    """value.sum() of a list(double): of nothing, 0.0."""
    return float(total(frame, value))


def smallest(frame: Frame, value: Any) -> Any:
    """value.min()."""
    elements = _comparable(frame, "min", value)
    if not elements:
        raise EvaluationError("min called on empty list")
    return min(elements)


def largest(frame: Frame, value: Any) -> Any:
    """value.max()."""
    elements = _comparable(frame, "max", value)
    if not elements:
        raise EvaluationError("max called on empty list")
    return max(elements)


def sort(frame: Frame, value: Any) -> list[Any]:
    """value.sort()."""
    elements = _comparable(frame, "sort", value)
    charge(frame, len(elements) * len(elements).bit_length())
    return sorted(elements, key=cmp_to_key(compare))


def index_of(frame: Frame, value: Any, element: Any, offset: Any = 0) -> int:
    """indexOf() of a string or a list."""
    if type(value) is str:
        return strings.index_of(frame, value, element, offset)
    for index, each in enumerate(_list(frame, "indexOf", value)):
        if equal(each, element, frame):
            return index
    return -1


def last_index_of(frame: Frame, value: Any, element: Any, offset: Any = None) -> int:
    """lastIndexOf() of a string or a list."""
    if type(value) is str:
        return strings.last_index_of(frame, value, element, offset)
    elements = _list(frame, "lastIndexOf", value)
    for index in range(len(elements) - 1, -1, -1):
        if equal(elements[index], element, frame):
            return index
    return -1


def index_of_from(frame: Frame, value: Any, element: Any, offset: Any) -> int:
    """indexOf() with an offset is for strings only."""
    if type(value) is not str:
        raise no_overload("indexOf", value, element, offset)
    return strings.index_of(frame, value, element, offset)


def last_index_of_from(frame: Frame, value: Any, element: Any, offset: Any) -> int:
    """lastIndexOf() with an offset is for strings only."""
    if type(value) is not str or type(offset) is not int:
        raise no_overload("lastIndexOf", value, element, offset)
    return strings.last_index_of(frame, value, element, offset)


def distinct(frame: Frame, value: Any) -> list[Any]:
    """value.distinct(): the first of each, in order."""
    elements = _list(frame, "distinct", value)
    if all(type(each) is str for each in elements):
        return list(dict.fromkeys(elements))
    found: list[Any] = []
    for each in elements:
        charge(frame, len(found) + 1)
        if not any(equal(each, other, frame) for other in found):
            found.append(each)
    return found


def flatten(frame: Frame, value: Any) -> list[Any]:
    """value.flatten(): one level."""
    found: list[Any] = []
    for each in _list(frame, "flatten", value):
        if type(each) is list:
            charge(frame, len(each) + 1)
            found.extend(each)
        else:
            found.append(each)
    return found


def reverse(frame: Frame, value: Any) -> list[Any]:
    """value.reverse()."""
    return _list(frame, "reverse", value)[::-1]


def part(frame: Frame, value: Any, start: Any, end: Any) -> list[Any]:
    """value.slice(start, end)."""
    elements = _list(frame, "slice", value)
    if type(start) is not int or type(end) is not int:
        raise no_overload("slice", value, start, end)
    if not 0 <= start <= end <= len(elements):
        raise EvaluationError(f"cannot slice({start}, {end}), list is length {len(elements)}")
    return elements[start:end]


def first(frame: Frame, value: Any) -> Optional:
    """value.first(): optional."""
    elements = _list(frame, "first", value)
    return Optional(stored(elements[0])) if elements else NONE


def last(frame: Frame, value: Any) -> Optional:
    """value.last(): optional."""
    elements = _list(frame, "last", value)
    return Optional(stored(elements[-1])) if elements else NONE


def sets_contains(frame: Frame, value: Any, inner: Any) -> bool:
    """sets.contains(value, inner): is every element of inner in value?"""
    elements, wanted = _list(frame, "sets.contains", value), _list(frame, "sets.contains", inner)
    return all(_member(frame, each, elements) for each in wanted)


def sets_equivalent(frame: Frame, value: Any, other: Any) -> bool:
    """sets.equivalent(value, other): contained in each other?"""
    return sets_contains(frame, value, other) and sets_contains(frame, other, value)


def sets_intersects(frame: Frame, value: Any, other: Any) -> bool:
    """sets.intersects(value, other): anything in common?"""
    elements, wanted = _list(frame, "sets.intersects", value), _list(frame, "sets.intersects", other)
    return any(_member(frame, each, wanted) for each in elements)


def _member(frame: Frame, element: Any, elements: list[Any]) -> bool:
    charge(frame, len(elements) + 1)
    return contains(element, elements, frame)
