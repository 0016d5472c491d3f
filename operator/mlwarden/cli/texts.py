"""Texts of documents, from files and pipes that may be anything: split where YAML says that a document ends, before it is parsed.

So one bad document costs that document alone, and memory holds one of them. A file of a directory, a device, a closed standard input, an
endless stream: each ends in a sentence. What was read before it is judged all the same.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from mlwarden.errors import InputError

LARGEST = 256 * 1024 * 1024
"""Bytes of one file or of standard input."""
LARGEST_DOCUMENT = 64 * 1024 * 1024
"""Bytes of one document; the API server takes 3 MiB of one object, and a list of objects is one document."""

_BLOCK = 256 * 1024
_BOUNDARY = re.compile(rb"^---(?=[ \t\r\n])|^\.\.\.[ \t]*(?:#[^\n]*)?\r?\n", re.MULTILINE)
_BARE = rb"(?:(?:---|\.\.\.)(?=[ \t\r\n]|\Z))?[ \t\r]*(?:#[^\n]*)?"  # ---# is a word
_NOTHING = re.compile(rb"(?:%s\n|%%[^\n]*\n)*%s" % (_BARE, _BARE))
"""Comments, markers and directives, which kubectl does not read either."""
_BOM = b"\xef\xbb\xbf"
_MARKER = 8
"""More than the bytes of a document's marker."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One document as bytes.

    Attributes:
        raw: the document, with the `---` before it.
        start: where it begins in its file, in bytes.
        line: the line that it begins in, from 1.
        error: why there is nothing to read in it.
    """

    raw: bytes
    start: int
    line: int
    error: InputError | None = None

    @property
    def end(self) -> int:
        """Where it ends in its file, in bytes."""
        return self.start + len(self.raw)

    def text(self) -> str:
        """Returns the document as text.

        Raises:
            InputError: it is not UTF-8.
        """
        try:
            return self.raw.decode("utf-8")
        except UnicodeDecodeError as error:
            line = self.line + self.raw.count(b"\n", 0, error.start)
            raise InputError(f"not UTF-8 text: byte {self.start + error.start} (line {line}) is {self.raw[error.start]:#04x}") from None


@contextlib.contextmanager
def opened(path: Path, *, named: bool) -> Iterator[IO[bytes]]:
    """Opens a file to be read.

    Args:
        path: of the file.
        named: somebody asked for this file; then it may be a pipe.

    Raises:
        InputError: it is no file.
        OSError: it cannot be read.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or (named and stat.S_ISFIFO(mode))):
        kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))
        raise InputError(f"not a file but {next((name for is_one, name in kinds if is_one(mode)), 'a device')}")
    with path.open("rb") as file:
        yield file


def parts(stream: IO[bytes]) -> Iterator[Part]:
    """Yields the documents of a stream; those that hold comments alone are left out.

    Raises:
        OSError: it cannot be read on.
        InputError: there is more than `LARGEST`; after what could be read.
    """
    splitter = _Splitter()
    while True:
        block = stream.read(min(_BLOCK, LARGEST + 1 - splitter.taken))
        if not block:
            yield from splitter.rest()
            return
        yield from splitter.feed(block)
        if splitter.taken > LARGEST:
            raise InputError(f"longer than {LARGEST // 1024 // 1024} MiB: what comes after is not read", hint="check it in several parts")


class _Splitter:
    """What was read of a stream and not handed on."""

    def __init__(self) -> None:
        self.taken = 0
        self._buffer = bytearray()
        self._searched = 0
        self._start = 0
        self._line = 1
        self._dropping = False

    def feed(self, block: bytes) -> Iterator[Part]:
        """Takes what was read, and yields the documents that are whole now."""
        first = not self.taken
        self.taken += len(block)
        self._buffer += block
        if first and self._buffer.startswith(_BOM):
            del self._buffer[: len(_BOM)]
            self._start = len(_BOM)
        while (found := self._boundary()) is not None:
            yield from self._cut(found)
        if len(self._buffer) > LARGEST_DOCUMENT:
            self._dropping = True
            self._drop()

    def rest(self) -> Iterator[Part]:
        """Yields what is left when there is no more."""
        yield from self._cut(len(self._buffer))

    def _boundary(self) -> int | None:
        """The end of the first document in the buffer, None where it is not known yet."""
        for found in _BOUNDARY.finditer(self._buffer, self._searched):
            if found[0] != b"---":
                return found.end()
            if found.start() or self._dropping:  # else it is the document's own marker
                return found.start()
        line = self._buffer.rfind(b"\n", max(self._searched - 1, 0)) + 1
        last = self._buffer[line : line + _MARKER] if line else self._buffer[:_MARKER]
        unfinished = len(last) < _MARKER or last.startswith((b"---", b"..."))
        self._searched = line if unfinished else len(self._buffer)
        return None

    def _cut(self, end: int) -> Iterator[Part]:
        raw = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._searched = 0
        part = Part(raw=raw, start=self._start, line=self._line)
        if self._dropping:
            large = InputError(
                f"a document of more than {LARGEST_DOCUMENT // 1024 // 1024} MiB", hint="the API server takes 3 MiB of one object"
            )
            part = Part(raw=b"", start=self._start, line=self._line, error=large)
            self._dropping = False
        self._start += end
        self._line += raw.count(b"\n")
        if part.error is not None or not _NOTHING.fullmatch(raw):
            yield part

    def _drop(self) -> None:
        """Forgets most of a document that is too large; where the next one begins is still looked for."""
        drop = max(len(self._buffer) - _MARKER, 0)
        drop = self._buffer.rfind(b"\n", 0, drop) + 1 or drop
        self._start += drop
        self._line += self._buffer.count(b"\n", 0, drop)
        del self._buffer[:drop]
        self._searched = 0


def readable(stream: IO[bytes] | None) -> IO[bytes]:
    """Returns standard input.

    Raises:
        InputError: it is closed.
    """
    if stream is None or stream.closed:
        raise InputError("is closed", hint="give it something to read: … | mlwarden check -")
    return stream


def reason(error: OSError | ValueError) -> str:
    """Returns why something cannot be read."""
    return (os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "") or str(error)
