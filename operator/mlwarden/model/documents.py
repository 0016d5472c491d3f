"""YAML and JSON documents, as Kubernetes reads them, from anybody.

Built from the parser's events with a loop and a stack of its own. PyYAML's composer and constructor were rejected: they recurse (a file of
brackets ends the process), they share what an alias stands for (four kilobytes become gigabytes as soon as somebody walks it), they take
the last of two equal keys, and they know tags that make objects. Here nesting and aliases are bounded, equal keys are refused, and a tag
is one of the seven that JSON has.

An error says where: line and column of the place.

A list of objects may be as long as its text: `read` hands over each of its items when it is finished, so that the caller keeps what fits
into memory. One object has a bound.
"""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from mlwarden.errors import InputError
from mlwarden.model import scalars
from mlwarden.model.jsontext import JsonText
from mlwarden.model.workload import Json

DEPTH = 200
"""Levels of nesting; nobody's manifest has thirty."""
ALIASED = 100_000
"""Values that aliases may add to a text."""
VALUES = 2_000_000
"""Values of one object of YAML; the API server takes 3 MiB of one."""
Keep = Callable[[Json, int], Json]
"""What is kept of an item of a list of objects: the item, the line it begins in → what stands in `items` instead."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_MERGE = object()
_NOTATION = re.compile(r"^[-+]?[0-9_.]*[.eE]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def yaml_loads(text: str) -> list[Json]:
    """Returns the documents of a text of YAML (or JSON, which kubectl tells by its first character); empty ones are left out.

    Raises:
        InputError: where kubectl would refuse it, and for equal keys, custom tags, and nesting or aliases out of bounds; with the place.
    """
    return [document for _, document in read(text)]


def read(text: str, *, first: int = 1, keep: Keep | None = None) -> list[tuple[int, Json]]:
    """Returns the documents of a text, each with the line it begins in.

    Args:
        text: as for `yaml_loads`.
        first: the line of the text's first line, where it is a part of something.
        keep: is given each item of a document's own `items` as soon as it is read.

    Raises:
        InputError: as `yaml_loads`.
    """
    if text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        try:
            return list(_json(text, first, keep))
        except json.JSONDecodeError:
            pass  # YAML's flow style: {a: b}
    try:
        return list(_documents(yaml.parse(text, Loader=_LOADER), first, keep))
    except yaml.MarkedYAMLError as error:
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"not YAML: {problem or 'syntax error'}{_at(error.problem_mark or error.context_mark, first)}") from None
    except yaml.YAMLError as error:
        raise InputError(f"not YAML: {' '.join(str(error).split())}") from None


def _json(text: str, first: int, keep: Keep | None) -> Iterator[tuple[int, Json]]:
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant, parse_float=_float, parse_int=_int)
    source = JsonText(text, decoder, first)
    while source.more():
        try:
            line = source.line()
            document = _checked(source.whole(_twice, (lambda item, at: keep(_checked(item), at)) if keep else None))
        except RecursionError:
            raise InputError("nested too deeply to be read") from None
        if document is not None:
            yield line, document


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, value in pairs:
        if name in found:
            raise _twice(name)
        found[name] = value
    return found


def _constant(name: str) -> Json:
    raise InputError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InputError(f"the number {text[:40]} is too large")
    return value


def _int(text: str) -> int:
    if len(text) > 308:
        raise InputError(f"the number {text[:40]}… is too large")
    return int(text)


def _checked(document: Json) -> Json:
    """Returns the document. What reads it afterwards may recurse, and may have to encode it: depth and text are those of JSON.

    Raises:
        InputError: for more levels than `DEPTH`, and for half a surrogate pair, which is not text in any encoding.
    """
    level, depth = [document], 0
    while level:
        depth += 1
        if depth > DEPTH + 1:
            raise InputError(f"nested more than {DEPTH} levels deep")
        following: list[Json] = []
        for value in level:
            if isinstance(value, dict):
                following += value
                following += value.values()
            elif isinstance(value, list):
                following += value
            elif isinstance(value, str) and _SURROGATE.search(value):
                raise InputError("a text has half a surrogate pair (\\ud800 to \\udfff), which is not Unicode")
        level = following
    return document


def _twice(name: str) -> InputError:
    return InputError(f"the key {name[:80]!r} stands twice in one mapping", hint="which one counts depends on who reads it: keep one")


@dataclass(slots=True)
class _Open:
    """A collection that is being read."""

    value: Any
    anchor: str | None
    line: int = 0
    size: int = 1
    key: Any = None
    has_key: bool = False
    merged: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Document:
    """One document that is being read: finished values go to `take`."""

    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Json, int]] = field(default_factory=dict)
    keep: Keep | None = None
    first: int = 1
    aliased: int = 0
    limit: int = 0
    line: int = 0
    root: Json = None

    @property
    def expects_key(self) -> bool:
        """Whether the next value is a key: only there is `<<` more than a word."""
        return bool(self.stack) and not isinstance(self.stack[-1].value, list) and not self.stack[-1].has_key

    def take(self, value: Json, size: int, line: int = 0) -> None:
        """Puts a finished value where it belongs; `line` is that of a collection, from 0."""
        if not self.stack:
            self.root, self.line = value, line
            return
        parent = self.stack[-1]
        parent.size += size
        if isinstance(parent.value, list):
            if self.keep is not None and len(self.stack) == 2 and self.stack[0].key == "items":
                value = self.keep(_checked(value), self.first + line)
                parent.size, self.limit = 1, 0
            parent.value.append(value)
        elif not parent.has_key:
            parent.key = value if value is _MERGE else scalars.key(value)
            parent.has_key = True
        else:
            parent.has_key = False
            if parent.key is _MERGE:
                self._merge(parent, value)
                return
            if parent.key in parent.value and parent.key not in parent.merged:
                raise _twice(parent.key)
            parent.merged.discard(parent.key)
            parent.value[parent.key] = value

    @staticmethod
    def _merge(parent: _Open, value: Json) -> None:
        """`<<`: keys of other mappings, unless given here. Kubernetes takes the last in the text, so a `<<` after them is refused."""
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            raise InputError("<< takes a mapping, or a list of mappings")
        for source in reversed(sources):
            for name, item in source.items():
                if name in parent.value and name not in parent.merged:
                    raise InputError(f"<< comes after the key {name[:80]!r}, which it also has", hint="write << first in its mapping")
                parent.value[name] = item
                parent.merged.add(name)


def _documents(events: Iterator[Any], first: int, keep: Keep | None) -> Iterator[tuple[int, Json]]:
    handlers: dict[type, Callable[[_Document, Any], None]] = {
        yaml.ScalarEvent: _scalar,
        yaml.AliasEvent: _alias,
        yaml.SequenceStartEvent: _start,
        yaml.MappingStartEvent: _start,
        yaml.SequenceEndEvent: _end,
        yaml.MappingEndEvent: _end,
    }
    document = _Document()
    for number, event in enumerate(events):
        handler = handlers.get(type(event))
        if handler is not None:
            if number > document.limit:
                document.limit = _limit(document, number)
            try:
                handler(document, event)
            except InputError as error:
                raise InputError(f"{error.message}{_at(event.start_mark, first)}", hint=error.hint) from None
        elif isinstance(event, yaml.DocumentStartEvent):
            document = _Document(keep=keep, first=first)
        elif isinstance(event, yaml.DocumentEndEvent) and document.root is not None:
            yield first + document.line, _checked(document.root)


def _limit(document: _Document, number: int) -> int:
    """The event after which an object that begins now has too many values: what no API server would take is not built up in memory."""
    if document.limit:
        raise InputError(f"an object of more than {VALUES} values", hint="the API server takes 3 MiB of one object")
    return number + VALUES


def _scalar(document: _Document, event: Any) -> None:
    value: Any
    tag = _tag(event)
    if tag == "str" or (not tag and not event.implicit[0]):
        value = event.value
    elif event.value == "<<" and not tag:
        value = "<<"
    else:
        value = scalars.plain(event.value)
        if tag and _kind(value) not in _SCALARS.get(tag, ()):
            raise InputError(f"{event.value[:80]!r} is not of the type !!{tag}")
    if document.expects_key and isinstance(value, int) and _NOTATION.search(event.value):
        raise InputError(f"the key {event.value[:80]} is a number in another notation", hint="quote it")  # kubectl makes 7e+09 of 700e7
    if event.anchor:
        document.anchors[event.anchor] = (value, 1)
    document.take(
        _MERGE if event.value == "<<" and not tag and event.implicit[0] and document.expects_key else value, 1, event.start_mark.line
    )


_SCALARS = {"int": ("int",), "float": ("int", "float"), "bool": ("bool",), "null": ("NoneType",)}


def _kind(value: Json) -> str:
    return type(value).__name__


def _alias(document: _Document, event: Any) -> None:
    if any(each.anchor == event.anchor for each in document.stack):
        raise InputError(f"the alias *{event.anchor[:80]} contains itself")
    if event.anchor not in document.anchors:
        raise InputError(f"the alias *{event.anchor[:80]} stands for nothing")
    value, size = document.anchors[event.anchor]
    document.aliased += size
    if document.aliased > ALIASED:
        raise InputError(f"aliases add more than {ALIASED} values")
    document.take(_copy(value), size)


def _copy(value: Json) -> Json:
    """Aliases are copied: nobody downstream has to know that two places of an object are one. Depth is that of the text, so bounded."""
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _start(document: _Document, event: Any) -> None:
    mapping = isinstance(event, yaml.MappingStartEvent)
    if _tag(event) not in {"", "map" if mapping else "seq"}:
        raise InputError(f"the tag {event.tag[:80]} is not known")
    if len(document.stack) >= DEPTH:
        raise InputError(f"nested more than {DEPTH} levels deep")
    document.stack.append(_Open(value={} if mapping else [], anchor=event.anchor, line=event.start_mark.line))


def _end(document: _Document, _event: Any) -> None:
    done = document.stack.pop()
    if done.anchor:
        document.anchors[done.anchor] = (done.value, done.size)
    document.take(done.value, done.size, done.line)


def _tag(event: Any) -> str:
    tag: str = event.tag or ""
    if not tag or tag == "!":
        return "str" if tag == "!" and isinstance(event, yaml.ScalarEvent) else ""
    short = tag.removeprefix(_TAG)
    if tag == short or short not in {"str", "int", "float", "bool", "null", "map", "seq"}:
        raise InputError(f"the tag {tag[:80]} is not known", hint="manifests are plain data; remove the tag")
    return short


def _at(mark: Any, first: int) -> str:
    return f" in line {mark.line + first}, column {mark.column + 1}" if mark is not None else ""


def numbered(documents: list[Json]) -> Iterator[tuple[str, Json]]:
    """Yields each document with what to call it where there are several (`document 2`, else `""`)."""
    for index, document in zip(itertools.count(1), documents, strict=False):
        yield (f"document {index}" if len(documents) > 1 else ""), document
