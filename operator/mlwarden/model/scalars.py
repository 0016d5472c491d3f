"""What an unquoted word in a manifest means, as kubectl reads it.

kubectl, Helm and the API server read YAML through sigs.k8s.io/yaml, that is go.yaml.in/yaml/v2 (`resolve.go`) and then JSON: YAML 1.1
booleans (`y`, `on`, …), octal with a leading zero, underscores in numbers, no dates, no base 60. PyYAML's own rules differ in each of
these; a manifest that means one thing to `mlwarden check` and another to the cluster would be a way around every policy.
"""

import math
import re

from mlwarden.errors import InputError
from mlwarden.model.workload import Json

_WORDS: dict[str, Json] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_NOT_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INTEGER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")
_BETWEEN_DIGITS = re.compile(r"(?<=[0-9])_(?=[0-9])")
"""Go's ParseFloat skips these (strconv, `underscoreOK`); behind a digit yaml takes all underscores out before."""
_LARGEST = 2**64
_DIGITS = 80
"""Of 64 bits in base 2, with sign and prefix: longer numbers fit nowhere."""


def plain(text: str) -> Json:
    """Returns the value of a plain (unquoted, untagged) scalar.

    Raises:
        InputError: for an infinity, a NaN, or a number JSON cannot carry: kubectl refuses them as well.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _NOT_JSON.fullmatch(text):
        raise InputError(f"{text} is not a number in JSON", hint="quote it if it is meant as text")
    if not text.isascii() or text[0] not in "+-.0123456789":
        return text
    if text[0] != ".":
        if _DATE.fullmatch(text):
            return text
        text_, number = text, text.replace("_", "")
        if (found := _integer(number)) is not None:
            return found
        return _float(number, otherwise=text_)
    return _float(_BETWEEN_DIGITS.sub("", text), otherwise=text)


def _integer(number: str) -> int | None:
    if len(number) > _DIGITS or not _INTEGER.fullmatch(number):
        return None
    digits = number.lstrip("+-")
    base = {"x": 16, "b": 2, "o": 8}.get(digits[1:2].lower(), 8 if len(digits) > 1 and digits[0] == "0" else 10)
    value = int(digits[2:] if digits[1:2].lower() in {"x", "b", "o"} else digits, base)
    value = -value if number.startswith("-") else value
    # Go: ParseInt, then ParseUint, which takes no sign
    fits = -(_LARGEST // 2) <= value < (_LARGEST // 2 if number[0] in "+-" else _LARGEST)
    return value if fits else None


def _float(number: str, *, otherwise: str) -> Json:
    if not _FLOAT.fullmatch(number):
        return otherwise
    value = float(number)
    if math.isinf(value):
        return otherwise  # Go's ParseFloat reports a range error, and the word stays a string
    # JSON has one kind of number: a float without a fraction arrives at the API server as an integer
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def key(value: Json) -> str:
    """Returns the string a mapping's key becomes in JSON (sigs.k8s.io/yaml, `convertToJSONableObject`).

    Raises:
        InputError: for null and for a key that is a list or a mapping.
    """
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() if -(_LARGEST // 2) <= value < _LARGEST // 2:
            return str(value)
        case float():
            raise InputError(f"the key {value} is a fraction", hint="quote it")
        case _:
            raise InputError(f"a key must be a word or a number, not {'null' if value is None else type(value).__name__}", hint="quote it")
