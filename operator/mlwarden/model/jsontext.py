"""A text of JSON documents, read so that a list of objects need not fit into memory.

A document that is an object is taken apart at its first level; the items of its `items` are handed over one by one. Values are decoded out
of a window of the text, because a value's memory is many times its text's: one that does not fit is no object that an API server takes.
"""

import json
import re
from collections.abc import Callable

from mlwarden.errors import Error, InputError
from mlwarden.model.workload import Json

WINDOW = 8 * 1024 * 1024
"""Characters of one value below the first level; the API server takes 3 MiB of one object."""
_UNFINISHED = 3
"""Characters that a number may have before its next digit (`e-`), and one more."""
_SPACE = re.compile(r"[ \t\r\n]*")


class JsonText:
    """The documents of a text, and how far it has been read.

    Args:
        text: JSON documents, one after the other.
        decoder: of a single value.
        first: the number of the text's first line.
    """

    def __init__(self, text: str, decoder: json.JSONDecoder, first: int) -> None:
        self._text = text
        self._decoder = decoder
        self._at = len(text) - len(text.lstrip("\ufeff"))
        self._window = (0, "")
        self._counted = (0, first)

    def more(self) -> bool:
        """Goes to what comes next, and returns whether anything does."""
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._at < len(self._text)

    def line(self) -> int:
        """Returns the line of what comes next."""
        position, line = self._counted
        line += self._text.count("\n", position, self._at)
        self._counted = (self._at, line)
        return line

    def whole(self, twice: Callable[[str], Error], keep: Callable[[Json, int], Json] | None) -> Json:
        """Returns the document that comes next.

        Args:
            twice: makes the error for a key that stands twice.
            keep: is given each item of the document's `items`, and its line; what it returns stands there instead.

        Raises:
            json.JSONDecodeError: it is not JSON.
            InputError: it is too large.
        """
        if keep is None or self._text[self._at] != "{":
            return self._value()
        self._at += 1
        found: dict[str, Json] = {}
        while not self._takes("}"):
            if found:
                self._expect(",")
            self._space()
            if self._text[self._at : self._at + 1] != '"':
                raise self._error("Expecting property name enclosed in double quotes")
            name = self._value()
            self._expect(":")
            if name in found:
                raise twice(name)
            found[name] = self._items(keep) if name == "items" else self._value()
        return found

    def _items(self, keep: Callable[[Json, int], Json]) -> Json:
        self._space()
        if self._text[self._at : self._at + 1] != "[":
            return self._value()
        self._at += 1
        found: list[Json] = []
        while not self._takes("]"):
            if found:
                self._expect(",")
            self._space()
            line = self.line()
            found.append(keep(self._value(), line))
        return found

    def _value(self) -> Json:
        self._space()
        start, window = self._window
        if not start <= self._at < start + len(window):
            start, window = self._refill()
        try:
            value, end = self._decoder.raw_decode(window, self._at - start)
        except json.JSONDecodeError:
            if start + len(window) >= len(self._text):
                raise
            start, window = self._refill()
            try:
                value, end = self._decoder.raw_decode(window, self._at - start)
            except json.JSONDecodeError as error:
                if start + len(window) >= len(self._text) or error.pos < len(window) // 2:
                    raise
                raise InputError(
                    f"a value of more than {WINDOW // 1024 // 1024} MiB", hint="the API server takes 3 MiB of one object"
                ) from None
        if end + _UNFINISHED >= len(window) and start + end < len(self._text) and not isinstance(value, dict | list | str):
            start, window = self._refill()  # a number may go on behind the window
            value, end = self._decoder.raw_decode(window, self._at - start)
        self._at = start + end
        return value

    def _refill(self) -> tuple[int, str]:
        self._window = (self._at, self._text[self._at : self._at + WINDOW])
        return self._window

    def _space(self) -> None:
        if (found := _SPACE.match(self._text, self._at)) is not None:
            self._at = found.end()

    def _takes(self, sign: str) -> bool:
        self._space()
        if self._text[self._at : self._at + 1] != sign:
            return False
        self._at += 1
        return True

    def _expect(self, sign: str) -> None:
        if not self._takes(sign):
            raise self._error(f"Expecting {sign!r} delimiter")

    def _error(self, message: str) -> json.JSONDecodeError:
        return json.JSONDecodeError(message, self._text[max(self._at - 1, 0) : self._at + 1], 0)
