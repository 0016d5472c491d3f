"""Arithmetic and conversions: int64 with overflow errors, IEEE doubles, Go's text forms.

Sources: cel-go `common/types/{int,double,string}.go`, Go's `strconv`. Where Go's parser takes more than a plain decimal number
(hexadecimal floats, `inf`), this raises: an error can never turn a wrong answer into a right one.
"""

import math
import re
from decimal import Decimal
from typing import Any, Final

from mlwarden.cel.errors import EvaluationError
from mlwarden.cel.values import INT_MAX, INT_MIN, Frame, charge, no_overload, text_cost

_INT: Final = re.compile(r"[+-]?[0-9]{1,40}", re.ASCII)
_DOUBLE: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?", re.ASCII)
_TRUE: Final = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "false", "FALSE", "False"))


def _int64(value: int) -> int:
    if INT_MIN <= value <= INT_MAX:
        return value
    raise EvaluationError("integer overflow")


def _ints(one: Any, other: Any) -> bool:
    return type(one) is int and type(other) is int and INT_MIN <= one <= INT_MAX and INT_MIN <= other <= INT_MAX


def add(frame: Frame, one: Any, other: Any) -> Any:
    """`+` of numbers, strings and lists."""
    kind = type(one)
    if kind is type(other):
        if kind is str:
            charge(frame, (len(one) + len(other)) // 10 + 1)
            return one + other
        if kind is int and _ints(one, other):
            return _int64(one + other)
        if kind is float:
            return one + other
        if kind is list:
            charge(frame, len(one) + len(other) + 1)
            return one + other
    raise no_overload("_+_", one, other)


def subtract(_: Frame, one: Any, other: Any) -> Any:
    """`-` of numbers of one type."""
    if _ints(one, other):
        return _int64(one - other)
    if type(one) is float and type(other) is float:
        return one - other
    raise no_overload("_-_", one, other)


def multiply(_: Frame, one: Any, other: Any) -> Any:
    """`*` of numbers of one type."""
    if _ints(one, other):
        return _int64(one * other)
    if type(one) is float and type(other) is float:
        return one * other
    raise no_overload("_*_", one, other)


def divide(_: Frame, one: Any, other: Any) -> Any:
    """`/`: integers towards zero; doubles as IEEE has it."""
    if _ints(one, other):
        if other == 0:
            raise EvaluationError("division by zero")
        quotient = abs(one) // abs(other)
        return _int64(quotient if (one < 0) == (other < 0) else -quotient)
    if type(one) is float and type(other) is float:
        if other != 0:
            return one / other
        if one == 0 or math.isnan(one) or math.isnan(other):
            return math.nan
        return math.copysign(math.inf, one) * math.copysign(1.0, other)
    raise no_overload("_/_", one, other)


def modulo(_: Frame, one: Any, other: Any) -> Any:
    """`%` of integers; the sign is the dividend's."""
    if not _ints(one, other):
        raise no_overload("_%_", one, other)
    if other == 0:
        raise EvaluationError("modulus by zero")
    if one == INT_MIN and other == -1:
        raise EvaluationError("integer overflow")
    remainder = abs(one) % abs(other)
    return -remainder if one < 0 else remainder


def negate(_: Frame, value: Any) -> Any:
    """Unary `-`."""
    if type(value) is int and INT_MIN <= value <= INT_MAX:
        return _int64(-value)
    if type(value) is float:
        return -value
    raise no_overload("-_", value)


def to_int(_: Frame, value: Any) -> int:
    """int(): of a number (towards zero) or decimal text."""
    if type(value) is int:
        return _int64(value)
    if type(value) is float:
        # cel-go refuses both limits themselves.
        if -(2.0**63) < value < 2.0**63:
            return int(value)
        raise EvaluationError("integer overflow")
    if type(value) is str:
        if _INT.fullmatch(value):
            return _int64(int(value))
        raise EvaluationError("type conversion error from 'string' to 'int'")
    raise no_overload("int", value)


def to_double(_: Frame, value: Any) -> float:
    """double(): of a number or decimal text."""
    if type(value) is float:
        return value
    if type(value) is int:
        return float(_int64(value))
    if type(value) is str:
        if len(value) <= 400 and _DOUBLE.fullmatch(value):
            number = float(value)
            if math.isfinite(number):
                return number
        raise EvaluationError("type conversion error from 'string' to 'double'")
    raise no_overload("double", value)


def to_bool(_: Frame, value: Any) -> bool:
    """bool(): of the texts that Go's ParseBool takes."""
    if type(value) is bool:
        return value
    if type(value) is str:
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
        raise EvaluationError("type conversion error from 'string' to 'bool'")
    raise no_overload("bool", value)


def to_string(frame: Frame, value: Any) -> str:
    """string(): of a bool, number or string; doubles as Go's `%g` writes them."""
    if type(value) is str:
        charge(frame, text_cost(value))
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        return str(_int64(value))
    if type(value) is float:
        return _shortest(value)
    raise no_overload("string", value)


def _shortest(value: float) -> str:
    """Go's `%g`: the shortest digits that read back, with an exponent below 1e-4 and from 1e6."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    negative, parts, power = Decimal(repr(value)).as_tuple()
    sign = "-" if negative else ""
    digits = "".join(map(str, parts)).lstrip("0")
    if not digits:
        return f"{sign}0"
    exponent = len(digits) + int(power) - 1
    digits = digits.rstrip("0")
    if not -4 <= exponent < 6:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    if len(digits) <= exponent + 1:
        return f"{sign}{digits}{'0' * (exponent + 1 - len(digits))}"
    return f"{sign}{digits[: exponent + 1]}.{digits[exponent + 1 :]}"
