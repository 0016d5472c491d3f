"""The string functions, as cel-go's `ext/strings.go` (version 2, as Kubernetes pins it) has them: by code point, ASCII case only.

Each takes the frame first and charges for what it walks over and for what it makes, before making it.
"""

from typing import Any, Final

from mlwarden.cel.errors import EvaluationError
from mlwarden.cel.values import Frame, charge, no_overload, text_cost

# unicode.IsSpace, which Go's TrimSpace uses; Python's own strip() also takes U+001C to U+001F.
_SPACE: Final = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_UPPER: Final = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}


def contains(frame: Frame, text: Any, part: Any) -> bool:
    """text.contains(part)."""
    if type(text) is str and type(part) is str:
        charge(frame, text_cost(text))
        return part in text
    raise no_overload("contains", text, part)


def starts_with(_: Frame, text: Any, part: Any) -> bool:
    """text.startsWith(part)."""
    if type(text) is str and type(part) is str:
        return text.startswith(part)
    raise no_overload("startsWith", text, part)


def ends_with(_: Frame, text: Any, part: Any) -> bool:
    """text.endsWith(part)."""
    if type(text) is str and type(part) is str:
        return text.endswith(part)
    raise no_overload("endsWith", text, part)


def _text(frame: Frame, function: str, text: Any) -> str:
    if type(text) is not str:
        raise no_overload(function, text)
    charge(frame, text_cost(text))
    return text


def lower_ascii(frame: Frame, text: Any) -> str:
    """text.lowerAscii()."""
    return _text(frame, "lowerAscii", text).translate(_LOWER)


def upper_ascii(frame: Frame, text: Any) -> str:
    """text.upperAscii()."""
    return _text(frame, "upperAscii", text).translate(_UPPER)


def trim(frame: Frame, text: Any) -> str:
    """text.trim(): Unicode white space."""
    return _text(frame, "trim", text).strip(_SPACE)


def char_at(frame: Frame, text: Any, index: Any) -> str:
    """text.charAt(index): empty at the very end."""
    if type(text) is not str or type(index) is not int:
        raise no_overload("charAt", text, index)
    charge(frame, 1)
    if not 0 <= index <= len(text):
        raise EvaluationError(f"index out of range: {index}")
    return text[index : index + 1]


def replace(frame: Frame, text: Any, old: Any, new: Any, limit: Any = -1) -> str:
    """text.replace(old, new[, limit]): a negative limit is none."""
    if type(text) is not str or type(old) is not str or type(new) is not str or type(limit) is not int:
        raise no_overload("replace", text, old, new, limit)
    charge(frame, text_cost(text))
    found = text.count(old)
    found = found if limit < 0 else min(found, limit)
    charge(frame, max(0, found * (len(new) - len(old))) // 10)
    return text.replace(old, new, found)


def split(frame: Frame, text: Any, separator: Any, limit: Any = -1) -> list[str]:
    """text.split(separator[, limit]): limit 0 is the empty list, a negative one is none."""
    if type(text) is not str or type(separator) is not str or type(limit) is not int:
        raise no_overload("split", text, separator, limit)
    charge(frame, text_cost(text))
    if limit == 0:
        return []
    if not separator:
        charge(frame, len(text))
        if limit < 0 or limit >= len(text):
            return list(text)
        return [*text[: limit - 1], text[limit - 1 :]]
    parts = text.split(separator) if limit < 0 else text.split(separator, limit - 1)
    charge(frame, len(parts))
    return parts


def substring(frame: Frame, text: Any, start: Any, end: Any = None) -> str:
    """text.substring(start[, end])."""
    if end is None and type(text) is str:
        end = len(text)
    if type(text) is not str or type(start) is not int or type(end) is not int:
        raise no_overload("substring", text, start, end)
    charge(frame, text_cost(text))
    if not 0 <= start <= end <= len(text):
        raise EvaluationError(f"substring range out of bounds: {start}, {end}")
    return text[start:end]


def index_of(frame: Frame, text: str, part: Any, offset: Any = 0) -> int:
    """text.indexOf(part[, offset])."""
    if type(part) is not str or type(offset) is not int:
        raise no_overload("indexOf", text, part, offset)
    charge(frame, text_cost(text))
    if offset < 0:
        raise EvaluationError(f"index out of range: {offset}")
    if not part:
        return min(offset, len(text))
    return text.find(part, offset)


def last_index_of(frame: Frame, text: str, part: Any, offset: Any = None) -> int:
    """text.lastIndexOf(part[, offset])."""
    if type(part) is not str or (offset is not None and type(offset) is not int):
        raise no_overload("lastIndexOf", text, part, offset)
    charge(frame, text_cost(text))
    if offset is None:
        return len(text) if not part else text.rfind(part)
    if offset < 0:
        raise EvaluationError(f"index out of range: {offset}")
    if not part:
        return min(offset, len(text))
    if offset >= len(text):
        return -1
    return text.rfind(part, 0, min(len(text), offset + len(part)))


def join(frame: Frame, parts: Any, separator: Any = "") -> str:
    """parts.join([separator])."""
    if type(parts) is not list or type(separator) is not str:
        raise no_overload("join", parts, separator)
    charge(frame, len(parts) + 1)
    size = 0
    for part in parts:
        if type(part) is not str:
            raise no_overload("join", parts, separator)
        size += len(part) + len(separator)
    charge(frame, size // 10)
    return separator.join(parts)
