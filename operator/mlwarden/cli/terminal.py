"""What a command prints: the last lock between other people's text and a terminal.

What is foreign is bounded and stripped of passwords where it is put into a sentence (`checks.text.clean`). Whatever was forgotten there,
here nothing leaves that a terminal would obey: escapes and other controls, changes of direction, invisible characters, lone surrogates.
"""

import os
import sys
from typing import Any, TextIO

import msgspec

from mlwarden.checks.text import printable
from mlwarden.errors import Error


def safe(text: str) -> str:
    """Returns the text, of any number of lines, with nothing in it that cannot be printed."""
    return "\n".join(map(printable, text.split("\n")))


def say(text: str, *, tint: str = "", to: TextIO | None = None) -> None:
    """Prints the text on standard output, or `to`; `tint` is an escape of ours that colours it."""
    reset = "\033[0m" if tint else ""
    print(f"{tint}{safe(text)}{reset}", file=to or sys.stdout, flush=True)


def complain(where: str, error: Error) -> None:
    """Prints an error on standard error: what is quoted in it cannot begin a line as if we had said it."""
    hint = f"\n→ {error.hint}" if error.hint else ""
    say(f"{printable(where)}: {error.message}{hint}".replace("\n", "\n  "), to=sys.stderr)


def say_json(value: Any) -> None:
    """Prints the value as JSON that a terminal shows and a program reads."""
    sys.stdout.write(f"{json_text(value)}\n")


def json_text(value: Any) -> str:
    """Returns the value as JSON of several lines; what is unprintable can only be in strings, and is escaped."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    return "\n".join(line if line.isprintable() else "".join(map(_json_escape, line)) for line in text.split("\n"))


def coloured() -> bool:
    """Whether standard output is a terminal whose user wants colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _json_escape(char: str) -> str:
    if char.isprintable():
        return char
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
