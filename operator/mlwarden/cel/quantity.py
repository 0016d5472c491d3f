"""Kubernetes quantities: `quantity('100m')`, `isQuantity('1Ki')` and arithmetic on them.

A port of `k8s.io/apimachinery/pkg/api/resource/quantity.go` (0.37), including its two forms: an int64 with a decimal scale where that
is enough, and an arbitrary decimal where not. The second form is visible (`isInteger()` is false for it, even for `1.5Gi`), so it is
kept. `==` is not in the subset: in Kubernetes `quantity('2') == quantity('1').add(1)` is an error, and its mirror image is true.
"""

from dataclasses import dataclass
from typing import Any, Final

from mlwarden.cel.errors import EvaluationError
from mlwarden.cel.values import INT_MAX, INT_MIN, Frame, charge, no_overload, text_cost

_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DIGITS: Final = frozenset("0123456789")
_SUFFIX: Final = frozenset("eEinumkKMGTP")
_MAX_LENGTH: Final = 128
_MAX_EXPONENT: Final = 200
_NANO: Final = -9
_EXACT_POWER: Final = 22


@dataclass(frozen=True, slots=True)
class Quantity:
    """`unscaled * 10 ** scale`; `decimal` says it is in the arbitrary-precision form."""

    unscaled: int
    scale: int
    decimal: bool

    def __eq__(self, other: object) -> bool:
        raise EvaluationError("quantities are compared by compareTo")

    def __hash__(self) -> int:
        raise EvaluationError("quantities are compared by compareTo")


class _NotAQuantityError(Exception):
    """The text is no quantity."""


def quantity(frame: Frame, text: Any) -> Quantity:
    """Parses, or raises EvaluationError."""
    if type(text) is not str:
        raise no_overload("quantity", text)
    charge(frame, text_cost(text))
    try:
        return _parse(text)
    except _NotAQuantityError:
        raise EvaluationError(f"{text[:40]!r} is not a quantity") from None


def is_quantity(frame: Frame, text: Any) -> bool:
    """isQuantity(text)."""
    if type(text) is not str:
        raise no_overload("isQuantity", text)
    charge(frame, text_cost(text))
    try:
        _parse(text)
    except _NotAQuantityError:
        return False
    return True


def _run(text: str, start: int, allowed: frozenset[str]) -> int:
    end = start
    while end < len(text) and text[end] in allowed:
        end += 1
    return end


def _scan(text: str) -> tuple[bool, str, str, str]:
    """parseQuantityString: (negative, digits before the point, digits after it, suffix)."""
    at = 1 if text[0] in "+-" else 0
    negative = text[0] == "-"
    while at < len(text) and text[at] == "0":
        at += 1
    end = _run(text, at, _DIGITS)
    number = text[at:end] or "0"
    fraction = ""
    if end < len(text) and text[end] == ".":
        start = end + 1
        end = _run(text, start, _DIGITS)
        fraction = text[start:end]
    suffix = end
    end = _run(text, end, _SUFFIX)
    if end < len(text) and text[end] in "+-":
        end += 1
    end = _run(text, end, _DIGITS)
    if end != len(text):
        raise _NotAQuantityError
    return negative, number, fraction, text[suffix:]


def _interpret(suffix: str) -> tuple[bool, int]:
    """(binary, exponent)."""
    if suffix in _DECIMAL:
        return False, _DECIMAL[suffix]
    if suffix in _BINARY:
        return True, _BINARY[suffix]
    if len(suffix) > 1 and suffix[0] in "eE":
        digits = suffix[1:]
        unsigned = digits[1:] if digits[0] in "+-" else digits
        if unsigned and all(char in _DIGITS for char in unsigned):
            exponent = int(digits)
            if abs(exponent) > _MAX_EXPONENT:
                raise EvaluationError("a quantity with an exponent this large is not in the subset")
            return False, exponent
    raise _NotAQuantityError


def _parse(text: str) -> Quantity:
    if not text:
        raise _NotAQuantityError
    if len(text) > _MAX_LENGTH:
        raise EvaluationError("a quantity this long is not in the subset")
    negative, number, fraction, suffix = _scan(text)
    binary, exponent = _interpret(suffix)
    sign = -1 if negative else 1
    unscaled = int(number + fraction) * (1 << exponent if binary else 1)
    scale = (0 if binary else exponent) - len(fraction)
    if _precision(number, fraction, exponent if binary else None) >= 0 and scale >= _NANO and unscaled <= INT_MAX:
        return Quantity(sign * unscaled, scale, decimal=False)
    if not any(char in _DIGITS for char in text[: len(text) - len(suffix)]):
        raise _NotAQuantityError
    if scale < _NANO:
        # Away from zero, to nano units.
        unscaled = -(-unscaled // 10 ** (_NANO - scale))
    else:
        unscaled *= 10 ** (scale - _NANO)
    if binary:
        unscaled = min(unscaled, INT_MAX * 10**9)
    return Quantity(sign * unscaled, _NANO, decimal=True)


def _precision(number: str, fraction: str, power_of_two: int | None) -> int:
    """Digits to spare in an int64, as ParseQuantity reckons; negative: the decimal form."""
    if power_of_two is None:
        return 18 - len(number) - len(fraction)
    # Go computes int32(float32(exponent) * 3 / 10); the exponents are multiples of ten.
    return -1 if fraction else 15 - len(number) - power_of_two * 3 // 10 - 1


def _quantity(function: str, *values: Any) -> None:
    if any(type(value) is not Quantity for value in values):
        raise no_overload(function, *values)


def _aligned(one: Quantity, other: Quantity) -> tuple[int, int, int]:
    scale = min(one.scale, other.scale)
    return one.unscaled * 10 ** (one.scale - scale), other.unscaled * 10 ** (other.scale - scale), scale


def compare_to(_: Frame, one: Any, other: Any) -> int:
    """one.compareTo(other): -1, 0 or 1."""
    _quantity("compareTo", one, other)
    left, right, _scale = _aligned(one, other)
    return (left > right) - (left < right)


def is_greater(frame: Frame, one: Any, other: Any) -> bool:
    """one.isGreaterThan(other)."""
    return compare_to(frame, one, other) > 0


def is_less(frame: Frame, one: Any, other: Any) -> bool:
    """one.isLessThan(other)."""
    return compare_to(frame, one, other) < 0


def sign(_: Frame, value: Any) -> int:
    """Of a quantity: -1, 0 or 1."""
    _quantity("sign", value)
    return int(value.unscaled > 0) - int(value.unscaled < 0)


def _int64(value: Quantity) -> int | None:
    """AsInt64: None for the decimal form, fractions of a unit, and what does not fit."""
    if value.decimal or value.scale < 0:
        return None
    whole = value.unscaled * 10**value.scale
    return int(whole) if INT_MIN <= whole <= INT_MAX else None


def is_integer(_: Frame, value: Any) -> bool:
    """value.isInteger(): is asInteger() possible?"""
    _quantity("isInteger", value)
    return _int64(value) is not None


def as_integer(_: Frame, value: Any) -> int:
    """value.asInteger()."""
    _quantity("asInteger", value)
    whole = _int64(value)
    if whole is None:
        raise EvaluationError("cannot convert value to integer")
    return whole


def as_float(_: Frame, value: Any) -> float:
    """value.asApproximateFloat(): `float(unscaled) * 10 ** scale`, rounded as Go does it."""
    _quantity("asApproximateFloat", value)
    if value.decimal or abs(value.scale) > _EXACT_POWER:
        # Go's scale of a decimal depends on how it was written, and its larger powers of ten are not exact.
        raise EvaluationError("asApproximateFloat() of a quantity this long is not in the subset")
    return float(value.unscaled) if value.scale == 0 else float(value.unscaled) * float(f"1e{value.scale}")


def add(_: Frame, one: Any, other: Any) -> Quantity:
    """one.add(quantity or int)."""
    return _add("add", one, other, 1)


def subtract(_: Frame, one: Any, other: Any) -> Quantity:
    """one.sub(quantity or int)."""
    return _add("sub", one, other, -1)


def _add(function: str, one: Any, other: Any, factor: int) -> Quantity:
    if type(other) is int and INT_MIN <= other <= INT_MAX:
        other = Quantity(other, 0, decimal=False)
    _quantity(function, one, other)
    addend = Quantity(factor * other.unscaled, other.scale, decimal=other.decimal)
    left, right, scale = _aligned(one, addend)
    if not one.decimal and not other.decimal:
        if addend.unscaled == 0:
            return Quantity(one.unscaled, one.scale, decimal=False)
        if one.unscaled == 0:
            return addend
        if all(INT_MIN < each <= INT_MAX for each in (left, right, left + right)):
            return Quantity(left + right, scale, decimal=False)
    return Quantity(left + right, scale, decimal=True)
