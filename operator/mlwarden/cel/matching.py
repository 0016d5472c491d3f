"""`matches()`: does a pattern match anywhere in a text, in bounded time.

Kubernetes uses Go's `regexp`, which is linear. Python's `re` is 30 times faster than anything written in Python and exponential on
patterns like `(a+)+$`, so it gets only patterns that cannot backtrack badly (`_choices`), and only texts short enough for their degree.
Everything else runs on a lazily built automaton: linear, slower, charged per character. Rejected: the `re2` package (a C++ dependency
for one function), and refusing the patterns (people do write `^([a-z0-9]+/)*`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from mlwarden.cel.errors import EvaluationError
from mlwarden.cel.pattern import Anchor, Chars, Either, Parser, Pattern, PatternError, Ranges, Repeat, Sequence
from mlwarden.cel.values import Frame, charge, no_overload, text_cost

_MAX_INSTRUCTIONS: Final = 4000
_MAX_STEPS: Final = 50_000
_MAX_CACHED: Final = 20_000
# Not \B: in Python before 3.14 it does not match the empty text, in Go it does.
_ANCHORS: Final = {
    "begin": r"\A", "end": r"\Z", "line-begin": r"(?m:^)", "line-end": r"(?m:$)", "word": r"(?a:\b)", "no-word": r"(?a:(?!\b))",
}  # fmt: skip


def compile_pattern(text: str) -> Callable[[Frame, Any], bool]:
    """Compiles a pattern to `(frame, text) -> bool`.

    Raises:
        PatternError: not in the subset.
    """
    if len(text) > 1000:
        raise PatternError("a pattern has at most 1000 characters", 0)
    parser = Parser(text=text)
    pattern = parser.parse()
    program = _Program()
    program.emit(pattern)
    program.add("match", None, 0)
    choices = _choices(pattern)
    if choices is None and program.contextual:
        raise PatternError("\\b and (?m) are not in the subset where repetitions nest", 0)
    automaton = None if program.contextual else _Automaton(instructions=program.instructions)
    search = None
    if choices is not None:
        search = re.compile(_written(pattern)).search
    degree, factor = choices or (0, 0)
    degree += not _anchored(pattern)
    folds = parser.folds
    size = len(program.instructions)

    def matches(frame: Frame, value: Any) -> bool:
        if type(value) is not str:
            raise no_overload("matches", value, "")
        if folds and not value.isascii():
            raise EvaluationError("(?i) on text that is not ASCII is not in the subset")
        if search is not None:
            steps = factor * (len(value) + 1) ** degree
            if steps <= _MAX_STEPS or automaton is None:
                charge(frame, text_cost(value) + steps // 100)
                return search(value) is not None
        if automaton is None:
            raise EvaluationError("a pattern too costly for this text")
        charge(frame, len(value) + size)
        return automaton.search(frame, value)

    return matches


def _anchored(pattern: Pattern) -> bool:
    match pattern:
        case Anchor():
            return pattern.place == "begin"
        case Sequence():
            return bool(pattern.parts) and _anchored(pattern.parts[0])
        case Either():
            return all(_anchored(choice) for choice in pattern.choices)
        case _:
            return False


def _fixed(pattern: Pattern) -> bool:
    """Is there exactly one way to walk it?"""
    match pattern:
        case Chars() | Anchor():
            return True
        case Sequence():
            return all(_fixed(part) for part in pattern.parts)
        case Repeat():
            return pattern.least == pattern.most and _fixed(pattern.inner)
        case Either():
            return False


def _choices(pattern: Pattern) -> tuple[int, int] | None:
    """The ways a backtracking engine can walk it: at most factor * length ** degree; None where that cannot be said."""
    match pattern:
        case Chars() | Anchor():
            return 0, 1
        case Sequence():
            degree, factor = 0, 1
            for part in pattern.parts:
                found = _choices(part)
                if found is None:
                    return None
                degree, factor = degree + found[0], factor * found[1]
            return (degree, factor) if factor <= _MAX_STEPS else None
        case Either():
            every = [_choices(choice) for choice in pattern.choices]
            known = [each for each in every if each is not None]
            return (max(each[0] for each in known), sum(each[1] for each in known)) if len(known) == len(every) else None
        case Repeat():
            if _fixed(pattern.inner):
                return (0, 1) if pattern.least == pattern.most else (0, 2) if pattern.most == 1 else (1, 1)
            inner = _choices(pattern.inner)
            if inner is None or pattern.most != 1:
                return None
            return inner[0], inner[1] + 1


def _written(pattern: Pattern) -> str:
    """The same pattern in Python's syntax."""
    match pattern:
        case Chars():
            return _class(pattern.ranges)
        case Anchor():
            return _ANCHORS[pattern.place]
        case Sequence():
            return "".join(map(_written, pattern.parts))
        case Either():
            return f"(?:{'|'.join(map(_written, pattern.choices))})"
        case Repeat():
            most = "" if pattern.most is None else str(pattern.most)
            return f"(?:{_written(pattern.inner)}){{{pattern.least},{most}}}"


def _class(ranges: Ranges) -> str:
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return re.escape(chr(ranges[0][0]))
    if not ranges:
        return r"[^\x00-\U0010ffff]"
    return "[" + "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges) + "]"


@dataclass(slots=True)
class _Program:
    """Thompson's construction: (operation, argument, next instruction)."""

    instructions: list[tuple[str, Any, int]] = field(default_factory=list)
    contextual: bool = False

    def add(self, operation: str, argument: Any, follows: int) -> int:
        if len(self.instructions) >= _MAX_INSTRUCTIONS:
            raise PatternError("a pattern this large is not in the subset", 0)
        self.instructions.append((operation, argument, follows))
        return len(self.instructions) - 1

    def here(self) -> int:
        return len(self.instructions)

    def emit(self, pattern: Pattern) -> None:
        """Appends instructions that fall through to the next one."""
        match pattern:
            case Chars():
                self.add("chars", pattern.ranges, self.here() + 1)
            case Anchor():
                self.contextual |= pattern.place not in {"begin", "end"}
                self.add(pattern.place, None, self.here() + 1)
            case Sequence():
                for part in pattern.parts:
                    self.emit(part)
            case Either():
                self.either(pattern)
            case Repeat():
                self.repeat(pattern)

    def either(self, pattern: Either) -> None:
        leaves: list[int] = []
        for choice in pattern.choices[:-1]:
            split = self.add("split", None, self.here() + 1)
            self.emit(choice)
            leaves.append(self.add("jump", None, 0))
            self.instructions[split] = ("split", self.here(), split + 1)
        self.emit(pattern.choices[-1])
        for leave in leaves:
            self.instructions[leave] = ("jump", None, self.here())

    def repeat(self, pattern: Repeat) -> None:
        for _ in range(pattern.least):
            self.emit(pattern.inner)
        if pattern.most is None:
            split = self.add("split", None, self.here() + 1)
            self.emit(pattern.inner)
            self.add("jump", None, split)
            self.instructions[split] = ("split", self.here(), split + 1)
            return
        splits: list[int] = []
        for _ in range(pattern.most - pattern.least):
            splits.append(self.add("split", None, self.here() + 1))
            self.emit(pattern.inner)
        for split in splits:
            self.instructions[split] = ("split", self.here(), split + 1)


@dataclass(slots=True)
class _State:
    """A set of instructions that are waiting for a character."""

    waiting: frozenset[int]
    accepting: bool
    at_end: bool
    following: dict[str, "_State"] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class _Automaton:
    """Built while matching. Threads may build the same state twice; each assignment is atomic and either one is right."""

    instructions: list[tuple[str, Any, int]]
    states: dict[tuple[frozenset[int], bool], _State] = field(default_factory=dict)
    first: _State | None = None
    cached: int = 0

    def search(self, frame: Frame, text: str) -> bool:
        state = self.first
        if state is None:
            state = self.first = self.closure([0], begin=True)
        for char in text:
            if state.accepting:
                return True
            known = state.following.get(char)
            if known is None:
                charge(frame, len(state.waiting) + 1)
                known = self.step(state, char)
            state = known
        return state.accepting or state.at_end

    def step(self, state: _State, char: str) -> _State:
        code = ord(char)
        targets = [0]
        for index in state.waiting:
            _, ranges, follows = self.instructions[index]
            if any(low <= code <= high for low, high in ranges):
                targets.append(follows)
        found = self.closure(targets, begin=False)
        if self.cached >= _MAX_CACHED:
            self.cached, self.states, self.first = 0, {}, None
            return found
        self.cached += 1
        found = self.states.setdefault((found.waiting, found.at_end), found) if not found.accepting else found
        state.following[char] = found
        return found

    def closure(self, targets: list[int], *, begin: bool) -> _State:
        waiting, accepting = self.reach(targets, begin=begin, end=False)
        at_end = accepting or self.reach(targets, begin=begin, end=True)[1]
        return _State(waiting, accepting, at_end)

    def reach(self, targets: list[int], *, begin: bool, end: bool) -> tuple[frozenset[int], bool]:
        seen: set[int] = set()
        waiting: set[int] = set()
        accepting = False
        pending = list(targets)
        while pending:
            index = pending.pop()
            if index in seen:
                continue
            seen.add(index)
            operation, argument, follows = self.instructions[index]
            if operation == "chars":
                waiting.add(index)
            elif operation == "match":
                accepting = True
            elif operation == "split":
                pending.extend((argument, follows))
            elif operation == "jump" or (operation == "begin" and begin) or (operation == "end" and end):
                pending.append(follows)
        return frozenset(waiting), accepting
