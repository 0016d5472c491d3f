r"""RE2 syntax, as Go's `regexp/syntax` parses it, to a tree of code point sets; anything else is refused.

Python's `re` reads some of the same texts differently (`$` before a final newline, `\\s`, `{,5}`, backreferences, look-around), so no
pattern reaches it as written: this parser keeps the part that both engines have, and `matching.py` writes it out again. Refused here
though Go has it: Unicode classes, `\\Q…\\E`, octal escapes, named groups, `(?U)`.
"""

from dataclasses import dataclass, field
from typing import Final, TypeAlias

MAX_CODE: Final = 0x10FFFF
MAX_REPEAT: Final = 1000
_MAX_GROUPS: Final = 24

Ranges: TypeAlias = tuple[tuple[int, int], ...]


class PatternError(ValueError):
    """Not RE2, or not in the subset. `offset` is where, in the pattern."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Chars:
    """One code point out of a set."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Anchor:
    """Nothing, at a place: `begin`, `end` (of the text), `line-begin`, `line-end`, `word`, `no-word`."""

    place: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    parts: tuple["Pattern", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of them."""

    choices: tuple["Pattern", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Between `least` and `most` times (None: without end)."""

    inner: "Pattern"
    least: int
    most: int | None


Pattern: TypeAlias = Chars | Anchor | Sequence | Either | Repeat

_DIGIT: Final[Ranges] = ((48, 57),)
_SPACE: Final[Ranges] = ((9, 10), (12, 13), (32, 32))
_WORD: Final[Ranges] = ((48, 57), (65, 90), (95, 95), (97, 122))
_NAMED: Final[dict[str, Ranges]] = {
    "alnum": ((48, 57), (65, 90), (97, 122)),
    "alpha": ((65, 90), (97, 122)),
    "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 31), (127, 127)),
    "digit": _DIGIT,
    "graph": ((33, 126),),
    "lower": ((97, 122),),
    "print": ((32, 126),),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)),
    "upper": ((65, 90),),
    "word": _WORD,
    "xdigit": ((48, 57), (65, 70), (97, 102)),
}
_CONTROL: Final = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_CLASSES: Final = {"d": _DIGIT, "s": _SPACE, "w": _WORD}
_HEX: Final = frozenset("0123456789abcdefABCDEF")


def merged(ranges: list[tuple[int, int]] | Ranges) -> Ranges:
    """Sorted, without overlaps."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return tuple(found)


def negated(ranges: Ranges) -> Ranges:
    """Every other code point."""
    found: list[tuple[int, int]] = []
    start = 0
    for low, high in merged(ranges):
        if start < low:
            found.append((start, low - 1))
        start = high + 1
    if start <= MAX_CODE:
        found.append((start, MAX_CODE))
    return tuple(found)


def folded(ranges: Ranges) -> Ranges:
    """With the other case of every ASCII letter."""
    found = list(ranges)
    for low, high in ranges:
        for first, last, shift in ((65, 90, 32), (97, 122, -32)):
            start, end = max(low, first), min(high, last)
            if start <= end:
                found.append((start + shift, end + shift))
    return merged(found)


@dataclass(frozen=True, slots=True)
class _Flags:
    fold: bool = False
    lines: bool = False
    dot_all: bool = False


@dataclass(kw_only=True, slots=True)
class Parser:
    """Reads one pattern. `folds` says whether `(?i)` was used anywhere."""

    text: str
    at: int = 0
    depth: int = 0
    folds: bool = False
    flags: _Flags = field(default_factory=_Flags)

    def parse(self) -> Pattern:
        """Raises PatternError."""
        pattern = self.either()
        if self.at < len(self.text):
            raise PatternError("unexpected )", self.at)
        return pattern

    def peek(self, ahead: int = 0) -> str:
        """The character at the cursor, or nothing."""
        return self.text[self.at + ahead : self.at + ahead + 1]

    def either(self) -> Pattern:
        """Choices, up to a closing parenthesis; flags set inside end with it."""
        self.depth += 1
        if self.depth > _MAX_GROUPS:
            raise PatternError("too many nested groups", self.at)
        outer = self.flags
        choices = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            choices.append(self.sequence())
        self.flags = outer
        self.depth -= 1
        return choices[0] if len(choices) == 1 else Either(tuple(choices))

    def sequence(self) -> Pattern:
        """Up to the next `|` or `)`."""
        parts: list[Pattern] = []
        while (char := self.peek()) and char not in "|)":
            part = self.atom()
            if part is not None:
                parts.append(self.repeated(part))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def repeated(self, part: Pattern) -> Pattern:
        """A part with the repetition that follows it, greedy or not: for a match they are the same."""
        bounds = self.bounds()
        if bounds is None:
            return part
        least, most = bounds
        if isinstance(part, Anchor):
            raise PatternError("an anchor is not repeated", self.at)
        if (most is not None and least > most) or max(least, most or 0) > MAX_REPEAT:
            raise PatternError(f"a repetition is at most {MAX_REPEAT} and its bounds are in order", self.at)
        if self.peek() == "?":
            self.at += 1
        if self.bounds() is not None:
            raise PatternError("a repetition of a repetition", self.at)
        repeat = Repeat(part, least, most)
        if _product(repeat) > MAX_REPEAT:
            raise PatternError(f"nested repetitions are at most {MAX_REPEAT} together", self.at)
        return repeat

    def bounds(self) -> tuple[int, int | None] | None:
        """The repetition at the cursor, if there is one; a brace that is none is a character."""
        char = self.peek()
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if char in simple:
            self.at += 1
            return simple[char]
        if char != "{":
            return None
        end = self.text.find("}", self.at)
        least, comma, most = self.text[self.at + 1 : end].partition(",") if end > 0 else ("", "", "")
        digits = all("0" <= each <= "9" for each in least + most) and max(len(least), len(most)) <= 5
        if not least or not digits or any(len(each) > 1 and each[0] == "0" for each in (least, most)):
            if digits and least:
                raise PatternError("a repetition count with leading zeros", self.at)
            if self.text[self.at + 1 : self.at + 2].isdigit():
                raise PatternError("a repetition that is not {n}, {n,} or {n,m}; write \\{ for the character", self.at)
            return None
        self.at = end + 1
        return int(least), (int(most) if most else None) if comma else int(least)

    def atom(self) -> Pattern | None:
        """One thing that can be repeated; None for `(?i)`."""
        char = self.peek()
        if char in "*+?" or (char == "{" and self.text[self.at + 1 : self.at + 2].isdigit()):
            raise PatternError("nothing to repeat", self.at)
        if char == "(":
            return self.group()
        if char == "[":
            return Chars(self.char_class())
        if char == "\\":
            return self.escaped()
        self.at += 1
        if char == ".":
            return Chars(((0, MAX_CODE),) if self.flags.dot_all else negated(((10, 10),)))
        if char == "^":
            return Anchor("line-begin" if self.flags.lines else "begin")
        if char == "$":
            return Anchor("line-end" if self.flags.lines else "end")
        return self.chars(((ord(char), ord(char)),))

    def chars(self, ranges: Ranges) -> Chars:
        """A set, folded where `(?i)` holds."""
        return Chars(folded(ranges) if self.flags.fold else ranges)

    def group(self) -> Pattern | None:
        """`(…)`, `(?:…)`, `(?i:…)` or `(?i)`."""
        start = self.at
        self.at += 1
        if self.peek() == "?":
            self.at += 1
            inner = self.group_flags(start)
            if inner is None:
                return None
            outer, self.flags = self.flags, inner
            pattern = self.either()
            self.flags = outer
        else:
            pattern = self.either()
        if self.peek() != ")":
            raise PatternError("a group that does not end", start)
        self.at += 1
        # Wrapped, so that a repetition after it is of the group and not a repetition of a repetition.
        return pattern if isinstance(pattern, Chars | Either) else Sequence((pattern,))

    def group_flags(self, start: int) -> _Flags | None:
        """After `(?`: the flags of a group that follows, or None where they were set for the rest of this one."""
        values = {"i": self.flags.fold, "m": self.flags.lines, "s": self.flags.dot_all}
        on, seen = True, False
        while True:
            char = self.peek()
            self.at += 1
            if char in values:
                values[char] = on
                seen = True
                self.folds |= char == "i"
            elif char == "-" and on:
                on, seen = False, False
            elif char in {":", ")"} and char and (seen or (on and char == ":")):
                flags = _Flags(values["i"], values["m"], values["s"])
                if char == ":":
                    return flags
                self.flags = flags
                return None
            else:
                raise PatternError("look-around, named groups and other (?…) are not in the subset; groups are (…) or (?:…)", start)

    def escaped(self) -> Pattern:
        """A backslash outside a class."""
        start = self.at
        char = self.peek(1)
        if char in {"z", "A"}:
            self.at += 2
            return Anchor("end" if char == "z" else "begin")
        if char in {"b", "B"}:
            self.at += 2
            return Anchor("word" if char == "b" else "no-word")
        ranges = self.class_escape()
        if ranges is not None:
            return Chars(ranges)
        code = self.code(start)
        return self.chars(((code, code),))

    def class_escape(self) -> Ranges | None:
        """One of the Perl classes, d, s, w and their complements, if it stands here."""
        char = self.peek(1)
        if self.peek() != "\\" or not char or char.lower() not in _CLASSES:
            return None
        self.at += 2
        ranges = _CLASSES[char.lower()]
        ranges = folded(ranges) if self.flags.fold else ranges
        return negated(ranges) if char.isupper() else ranges

    def code(self, start: int) -> int:
        """One character of a class, or an escape that stands for one."""
        char = self.peek()
        if not char:
            raise PatternError("the pattern ends in the middle", start)
        self.at += 1
        if char != "\\":
            return ord(char)
        char = self.peek()
        self.at += 1
        if char in _CONTROL:
            return _CONTROL[char]
        if char == "x":
            braced = self.peek() == "{"
            end = self.text.find("}", self.at) if braced else self.at + 2
            digits = self.text[self.at + braced : end] if end > 0 else ""
            if 0 < len(digits) <= 8 and (braced or len(digits) == 2) and all(each in _HEX for each in digits):
                self.at = end + braced
                code = int(digits, 16)
                if code <= MAX_CODE:
                    return code
        elif char and ord(char) < 128 and not char.isalnum():
            return ord(char)
        raise PatternError("an escape that is not in the subset", start)

    def char_class(self) -> Ranges:
        """`[…]`."""
        start = self.at
        self.at += 1
        negate = self.peek() == "^"
        self.at += negate
        found: list[tuple[int, int]] = []
        first = True
        while self.peek() != "]" or first:
            first = False
            if self.peek() == "[" and self.peek(1) == ":":
                end = self.text.find(":]", self.at + 2)
                name = self.text[self.at + 2 : end] if end > 0 else ""
                ranges = _NAMED.get(name.removeprefix("^"))
                if ranges is None:
                    raise PatternError("a class that does not exist", self.at)
                self.at = end + 2
                ranges = folded(ranges) if self.flags.fold else ranges
                found.extend(negated(ranges) if name.startswith("^") else ranges)
                continue
            ranges = self.class_escape()
            if ranges is not None:
                found.extend(ranges)
                continue
            low = high = self.code(start)
            if self.peek() == "-" and self.peek(1) not in {"]", ""}:
                self.at += 1
                high = self.code(start)
                if high < low:
                    raise PatternError("a range in the wrong order", self.at)
            found.append((low, high))
        self.at += 1
        ranges = merged(found)
        ranges = folded(ranges) if self.flags.fold else ranges
        return negated(ranges) if negate else ranges


def _product(pattern: Pattern) -> int:
    """How many times the innermost repetition is written out, as Go's repeatIsValid counts."""
    match pattern:
        case Repeat():
            times = max(pattern.least, pattern.most or 0, 1)
            return times * _product(pattern.inner)
        case Sequence():
            return max((_product(part) for part in pattern.parts), default=1)
        case Either():
            return max(_product(choice) for choice in pattern.choices)
        case _:
            return 1
