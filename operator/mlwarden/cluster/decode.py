"""Objects as the API server sends them, some of which nobody can decode.

The API server takes JSON of 10,000 levels; msgspec recurses and ends, with Python, at about 1,000. One custom resource with a deep field
must not take away everything that stands beside it in the list, nor vanish itself: a policy that cannot be read is reported, never skipped.
So what is too deep is cut, and an object with a cut in it is delivered as its metadata alone, with the reason.

Rejected: a higher recursion limit (C recurses too, and ends the process), counting what failed (nobody learns what it was).
"""

import re
from typing import Any, TypeVar

import msgspec

from mlwarden.cluster.errors import ApiError

T = TypeVar("T")
TOO_DEEP = "it is nested too deeply to be read"
_CUT = b'"mlwarden: nested too deeply"'
_DEEPEST = 200
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]|[^\s"{}\[\],:]++')
_OBJECT = msgspec.json.Decoder(dict[str, Any])


class ListMeta(msgspec.Struct, rename={"resource_version": "resourceVersion", "continue_": "continue"}):
    """Where a list stands, and how to go on."""

    resource_version: str | None = None
    continue_: str | None = None


class RawPage(msgspec.Struct):
    """A page of a list, its objects still bytes."""

    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


class RawEvent(msgspec.Struct):
    """A line of a watch, its object still bytes."""

    type: str
    object: msgspec.Raw


class _Named(msgspec.Struct, rename="camel"):
    """Of an object's metadata, which it is and in which version."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Partial(msgspec.Struct):
    """PartialObjectMetadata."""

    metadata: _Named


class _PartialList(msgspec.Struct):
    """PartialObjectMetadataList."""

    metadata: ListMeta
    items: list[_Partial] | None = None


_PARTIAL, _PARTIAL_LIST = msgspec.json.Decoder(_Partial), msgspec.json.Decoder(_PartialList)
_PAGE = msgspec.json.Decoder(RawPage)
_EVENT = msgspec.json.Decoder(RawEvent)


def page(content: bytes) -> RawPage:
    """Returns a page of a list.

    Raises:
        ApiError: it is none.
    """
    return _outer(_PAGE, content, "list")


def version(content: bytes) -> str:
    """Returns the resource version of a PartialObjectMetadata.

    Raises:
        ApiError: it is none.
    """
    return _outer(_PARTIAL, content, "metadata").metadata.resource_version


def versions(content: bytes) -> tuple[dict[tuple[str, str], str], str]:
    """Returns namespace and name → resource version of a PartialObjectMetadataList, and the list's own.

    Raises:
        ApiError: it is none.
    """
    found = _outer(_PARTIAL_LIST, content, "list of metadata")
    listed = {(each.metadata.namespace, each.metadata.name): each.metadata.resource_version for each in found.items or ()}
    return listed, found.metadata.resource_version or ""


def event(line: bytes) -> RawEvent:
    """Returns an event of a watch.

    Raises:
        ApiError: it is none.
    """
    return _outer(_EVENT, line, "watch event")


def whole(content: bytes) -> dict[str, Any]:
    """Returns an object that the caller goes on to use.

    Raises:
        ApiError: it cannot be read, or only in part.
    """
    try:
        return _OBJECT.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(f"the API server's answer cannot be read: {error}") from error


def item(raw: msgspec.Raw) -> tuple[dict[str, Any], str]:
    """Returns one object of a page or an event, and why it cannot be read; its metadata is then all there is of it, if anything."""
    content = bytes(raw)
    try:
        if _CUT not in content:
            return _OBJECT.decode(content), ""
        obj = _OBJECT.decode(content)
    except RecursionError:
        obj = _OBJECT.decode(cut(content))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return {}, f"it cannot be read: {error}"
    return {key: obj[key] for key in ("apiVersion", "kind", "metadata") if key in obj}, TOO_DEEP


def cut(content: bytes) -> bytes:
    """Returns the JSON with a string in place of whatever is nested too deeply."""
    kept: list[bytes] = []
    depth = 0
    for token in _TOKEN.findall(content):
        if token in {b"{", b"["}:
            depth += 1
            if depth == _DEEPEST + 1:
                kept.append(_CUT)
        if depth <= _DEEPEST:
            kept.append(token)
        if token in {b"}", b"]"}:
            depth -= 1
    return b"".join(kept)


def _outer(decoder: msgspec.json.Decoder[T], content: bytes, what: str) -> T:
    try:
        return decoder.decode(content)
    except RecursionError:
        return decoder.decode(cut(content))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(f"the API server's answer is no {what}: {error}") from error
