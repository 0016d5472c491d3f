r"""Text for people, made of what other people wrote.

Names, values and references come from the author of a workload and end in a terminal, an Event and an audit log. So everything that is
filled into a message passes through here: one line, bounded, nothing unprintable (terminal escapes, right-to-left overrides and
zero-width characters are shown as `\x1b`, `\u202e`), and never a value that may be a secret. Placeholders are filled in one pass: a
container called `{value}` stays called that. Rejected: `str.format`, which reaches attributes and fails on a stray brace.
"""

import re
from typing import Any

NAME_LENGTH = 80
VALUE_LENGTH = 120
REASON_LENGTH = 240
"""Of why something is not known: its end is what to do about it."""
LINE_LENGTH = 500

_PLACEHOLDER = re.compile(r"\{(name|value|image)\}")
_PLAIN = re.compile(r"(?:\.{0,2}/|[A-Za-z_])[A-Za-z0-9_./-]*")  # what begins with a dot may be a number: .5, .inf
_AMBIGUOUS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"})
_SEPARATORS = " \t\r\n/(\"'=,;"
_DIGEST = re.compile(r"sha(256|512):[0-9a-f]{6}")  # longer than a port: a host may be called anything
_LONGEST = 65536
_NOT_SHOWN = "(not shown)"
# A place below one of these may hold a password whatever the policy's author had in mind. The last ones are of Secrets and of CSI volumes.
_PRIVATE = frozenset({"env", "args", "command", "data", "stringData", "binaryData", "annotations", "volumeAttributes", "httpHeaders"})
_STEP = re.compile(r"[^.\[\]'\"]+")


def clean(text: str, length: int = LINE_LENGTH) -> str:
    """Returns `text` on one line of at most `length` characters, what cannot be printed escaped and passwords in URLs cut out."""
    if "@" in text:
        text = _without_userinfo(text[:_LONGEST])  # before cutting: half a password is no better
    text = text if len(text) <= length else text[: length - 1] + "…"
    if text.isprintable():
        return text
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def printable(text: str) -> str:
    """Returns `text` with everything escaped that a terminal would obey or not show, line breaks included."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escape(char) for char in text)


def _without_userinfo(text: str) -> str:
    """Cuts `user:password` before an `@`, with a scheme or, as in an image reference, without; what stands before a digest is a tag.

    By hand and in one pass: this text is the author's, and a pattern for it would be quadratic.
    """
    *before, last = text.split("@")
    kept = []
    for part, following in zip(before, [*before[1:], last], strict=True):
        start = max(part.rfind(sign) for sign in _SEPARATORS) + 1
        secret = (":" in part[start:] or part[:start].endswith("://")) and not _DIGEST.match(following)
        kept.append(f"{part[:start]}…" if secret else part)
    return "@".join([*kept, last])


def fill(template: str, *, name: str, value: Any, image: str, path: str) -> str:
    """Returns `template` with `{name}`, `{value}` and `{image}` filled in.

    Args:
        template: a policy's text.
        name: name of the element.
        value: what stands at `path`; shown only where it is small and cannot be a secret.
        image: the image reference as written.
        path: JSON path the value was taken from: decides whether it may be shown.
    """
    if "{" not in template:
        return clean(template)

    def replacement(match: re.Match[str]) -> str:
        match match[1]:
            case "name":
                return clean(name, NAME_LENGTH) or "(unnamed)"
            case "image":
                return clean(image, VALUE_LENGTH) or "(none)"
            case _:
                return shown(value, path)

    return clean(_PLACEHOLDER.sub(replacement, template))


def shown(value: Any, path: str) -> str:
    """Returns a value as it may be shown: scalars and short lists of them, nothing from a place that may hold secrets."""
    if not _PRIVATE.isdisjoint(_STEP.findall(path)):
        return _NOT_SHOWN
    match value:
        case None:
            return "(not set)"
        case bool() | int() | float() | str():
            return clean(_scalar(value, quote=False), VALUE_LENGTH)
        case list() if all(isinstance(item, (str, int, float, bool)) for item in value[:8]):
            items = [clean(_scalar(item, quote=False), NAME_LENGTH) for item in value[:8]]
            return clean(", ".join([*items, "…"] if len(value) > len(items) else items), VALUE_LENGTH)
        case _:
            return _NOT_SHOWN


def flow(value: Any, *, outermost: bool = False) -> str:
    """Returns a JSON value as one line of YAML flow style; the outermost mapping without its braces, as it stands in a manifest."""
    match value:
        case dict():
            body = ", ".join(f"{_scalar(str(key), quote=True)}: {flow(item)}" for key, item in value.items())
            return body if outermost else f"{{{body}}}"
        case list():
            return f"[{', '.join(flow(item) for item in value)}]"
        case _:
            return _scalar(value, quote=True)


def _scalar(value: Any, *, quote: bool) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str() if quote and (not _PLAIN.fullmatch(value) or value.lower() in _AMBIGUOUS):
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case _:
            return str(value)


def _escape(char: str) -> str:
    match char:
        case "\n":
            return "\\n"
        case "\t":
            return "\\t"
        case _ if ord(char) < 0x100:
            return f"\\x{ord(char):02x}"
        case _:
            return f"\\u{ord(char):04x}"
