"""Text to tokens, as the lexer rules of cel-go's `parser/gen/CEL.g4` (0.29.2, Kubernetes 1.37) have them.

One compiled regular expression, alternatives in the order that gives ANTLR's longest match. Unsigned integers, bytes and escaped
identifiers are recognised only to be refused by name: nothing in a Kubernetes object is of these types.
"""

import re
from dataclasses import dataclass
from typing import Final

from mlwarden.cel.errors import CelError

MAX_SOURCE: Final = 16_384
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1

_ESCAPE: Final = r"""\\(?:[abfnrtv"'\\?`]|[0-3][0-7][0-7]|[xX][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"""
_TOKEN: Final = re.compile(
    rf"""
    (?P<space>[\t\ \r\n\f]+|//[^\n]*)
  | (?P<raw>[rR](?:\"\"\"(?s:.*?)\"\"\"|'''(?s:.*?)'''|"[^"\n\r]*"|'[^'\n\r]*'))
  | (?P<bytes>[bB][rR]?["'])
  | (?P<string>\"\"\"(?:{_ESCAPE}|[^\\])*?\"\"\"|'''(?:{_ESCAPE}|[^\\])*?'''|"(?:{_ESCAPE}|[^\\"\n\r])*"|'(?:{_ESCAPE}|[^\\'\n\r])*')
  | (?P<float>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
  | (?P<uint>(?:0x[0-9a-fA-F]+|[0-9]+)[uU])
  | (?P<int>0x[0-9a-fA-F]+|[0-9]+)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<op>==|!=|<=|>=|&&|\|\||[<>\[\]{{}}().,\-!?:+*/%])
    """,
    re.VERBOSE | re.ASCII,
)
_SIMPLE: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "'": "'", "\\": "\\", "?": "?", "`": "`",
}  # fmt: skip
_ESCAPES: Final = re.compile(r"\\(?:([xX][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|([0-3][0-7][0-7])|(.))", re.ASCII)
_DIGITS: Final = frozenset("0123456789")


@dataclass(frozen=True, slots=True)
class Token:
    """One token.

    Attributes:
        kind: `string`, `float`, `int`, `name`, `end`, or the operator itself.
        text: as written.
        position: offset in code points.
        value: of a literal.
    """

    kind: str
    text: str
    position: int
    value: str | int | float | None = None


def tokens(source: str) -> list[Token]:
    """Splits an expression into tokens, the last one of kind `end`.

    Raises:
        CelError: a character or literal that is not in the subset, or too long a text.
    """
    if len(source) > MAX_SOURCE:
        raise CelError(f"the expression has {len(source)} characters, at most {MAX_SOURCE} are allowed", source=source, position=MAX_SOURCE)
    found: list[Token] = []
    position = 0
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            raise _unrecognised(source, position)
        kind = str(match.lastgroup)
        text = match.group()
        if kind not in {"space", "bytes", "uint"}:
            found.append(_token(kind, text, position, source))
        elif kind != "space":
            wanted = "an int or a string"
            raise CelError(f"{kind} literals are not in the subset", source=source, position=position, hint=f"write {wanted}")
        position = match.end()
    found.append(Token("end", "", len(source)))
    return found


def _unrecognised(source: str, position: int) -> CelError:
    char = source[position]
    if char in "\"'" or (char in "rR" and source[position + 1 : position + 2] in {'"', "'"}):
        return CelError("a string that does not end, or an escape that does not exist", source=source, position=position)
    if char == "`":
        return CelError("escaped identifiers are not in the subset", source=source, position=position, hint="write object['some-key']")
    return CelError(f"unexpected character {char!r}", source=source, position=position)


def _token(kind: str, text: str, position: int, source: str) -> Token:
    match kind:
        case "op":
            return Token(text, text, position)
        case "name":
            return Token(kind, text, position)
        case "int":
            # Four thousand digits are refused by Python itself; no int64 has more than twenty.
            value = int(text, 16) if text.startswith("0x") else int(text.lstrip("0")[:21] or "0")
            if value > INT_MAX + 1:
                raise CelError("an integer that does not fit in 64 bits", source=source, position=position)
            return Token(kind, text, position, value)
        case "float":
            number = float(text)
            if number == float("inf"):
                raise CelError("a number that does not fit in a double", source=source, position=position)
            return Token(kind, text, position, number)
        case _:
            return Token("string", text, position, _unescape(text, kind == "raw", position, source))


def _unescape(text: str, raw: bool, position: int, source: str) -> str:  # noqa: FBT001 -- private, called once
    body = text[1:] if raw else text
    quotes = 3 if len(body) >= 6 and body[:3] in {'"""', "'''"} else 1
    body = body[quotes:-quotes].replace("\r\n", "\n").replace("\r", "\n")
    if any("\ud800" <= char <= "\udfff" for char in body):
        raise CelError("a surrogate is not a character", source=source, position=position)
    if raw or "\\" not in body:
        return body

    def decode(match: re.Match[str]) -> str:
        code, octal, simple = match.groups()
        if simple is not None:
            return _SIMPLE[simple]
        point = int(octal, 8) if octal is not None else int(code[1:], 16)
        if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            raise CelError("an escape that is not a Unicode character", source=source, position=position)
        return chr(point)

    return _ESCAPES.sub(decode, body)
