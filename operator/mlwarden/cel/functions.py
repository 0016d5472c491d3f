"""Which Python function is which CEL function: (name in `declarations.OVERLOADS`, number of arguments, the target included) → function.

Operators that are not strict (`||`, `?:`, `orValue` …) are compiled in `closures.py` and are not here. A test proves that the two
together cover every overload.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from mlwarden.cel import arithmetic, lists, quantity, strings
from mlwarden.cel.errors import EvaluationError
from mlwarden.cel.quantity import Quantity
from mlwarden.cel.values import NONE, Frame, Optional, TypeValue, no_overload, stored, type_name


def _type(_: Frame, value: Any) -> TypeValue:
    if type(value) is Optional:
        return TypeValue("optional_type")
    return TypeValue(type_name(value))


def _optional_of(_: Frame, value: Any) -> Optional:
    return Optional(stored(value))


def _optional_of_non_zero(_: Frame, value: Any) -> Optional:
    if type(value) in {Quantity, TypeValue}:
        raise no_overload("optional.ofNonZeroValue", value)
    return Optional(stored(value)) if value else NONE


def _optional_none(_: Frame) -> Optional:
    return NONE


def _has_value(_: Frame, value: Any) -> bool:
    if type(value) is not Optional:
        raise no_overload("hasValue", value)
    return value is not NONE


def _value(_: Frame, value: Any) -> Any:
    if type(value) is not Optional:
        raise no_overload("value", value)
    if value is NONE:
        raise EvaluationError("optional.none() dereference")
    return value.value


FUNCTIONS: Final[Mapping[tuple[str, int], Callable[..., Any]]] = {
    ("-_", 1): arithmetic.negate,
    ("_+_", 2): arithmetic.add,
    ("_-_", 2): arithmetic.subtract,
    ("_*_", 2): arithmetic.multiply,
    ("_/_", 2): arithmetic.divide,
    ("_%_", 2): arithmetic.modulo,
    ("type", 1): _type,
    ("int", 1): arithmetic.to_int,
    ("double", 1): arithmetic.to_double,
    ("string", 1): arithmetic.to_string,
    ("bool", 1): arithmetic.to_bool,
    ("size", 1): lists.size,
    ("contains", 2): strings.contains,
    ("startsWith", 2): strings.starts_with,
    ("endsWith", 2): strings.ends_with,
    ("lowerAscii", 1): strings.lower_ascii,
    ("upperAscii", 1): strings.upper_ascii,
    ("trim", 1): strings.trim,
    ("charAt", 2): strings.char_at,
    ("replace", 3): strings.replace,
    ("replace", 4): strings.replace,
    ("split", 2): strings.split,
    ("split", 3): strings.split,
    ("substring", 2): strings.substring,
    ("substring", 3): strings.substring,
    ("join", 1): strings.join,
    ("join", 2): strings.join,
    ("indexOf", 2): lists.index_of,
    ("indexOf", 3): lists.index_of_from,
    ("lastIndexOf", 2): lists.last_index_of,
    ("lastIndexOf", 3): lists.last_index_of_from,
    ("isSorted", 1): lists.is_sorted,
    ("sum", 1): lists.total,
    ("sum(double)", 1): lists.total_double,
    ("min", 1): lists.smallest,
    ("max", 1): lists.largest,
    ("distinct", 1): lists.distinct,
    ("flatten", 1): lists.flatten,
    ("reverse", 1): lists.reverse,
    ("slice", 3): lists.part,
    ("sort", 1): lists.sort,
    ("first", 1): lists.first,
    ("last", 1): lists.last,
    ("sets.contains", 2): lists.sets_contains,
    ("sets.equivalent", 2): lists.sets_equivalent,
    ("sets.intersects", 2): lists.sets_intersects,
    ("optional.of", 1): _optional_of,
    ("optional.ofNonZeroValue", 1): _optional_of_non_zero,
    ("optional.none", 0): _optional_none,
    ("hasValue", 1): _has_value,
    ("value", 1): _value,
    ("quantity", 1): quantity.quantity,
    ("isQuantity", 1): quantity.is_quantity,
    ("sign", 1): quantity.sign,
    ("isGreaterThan", 2): quantity.is_greater,
    ("isLessThan", 2): quantity.is_less,
    ("compareTo", 2): quantity.compare_to,
    ("asApproximateFloat", 1): quantity.as_float,
    ("asInteger", 1): quantity.as_integer,
    ("isInteger", 1): quantity.is_integer,
    ("add", 2): quantity.add,
    ("sub", 2): quantity.subtract,
}
