"""JSON that may be longer than memory: iterators in it become arrays, one item at a time.

What is unprintable can only be in strings, and is escaped (`terminal`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mlwarden.cli import terminal

_STEP = "  "


def chunks(value: Any, indent: str = "") -> Iterator[str]:
    """Yields the JSON of a value, piece by piece.

    Args:
        value: what msgspec encodes, with mappings that may hold iterators of such.
        indent: what the lines after the first begin with.
    """
    inner = indent + _STEP
    if isinstance(value, Iterator):
        empty = True
        for item in value:
            yield f"{'[' if empty else ','}\n{inner}"
            yield from chunks(item, inner)
            empty = False
        yield "[]" if empty else f"\n{indent}]"
    elif isinstance(value, Mapping) and any(isinstance(each, (Iterator, Mapping)) for each in value.values()):
        for number, (key, item) in enumerate(value.items()):
            yield f"{',' if number else '{'}\n{inner}{terminal.json_text(key)}: "
            yield from chunks(item, inner)
        yield f"\n{indent}}}"
    else:
        yield terminal.json_text(value).replace("\n", f"\n{indent}")
