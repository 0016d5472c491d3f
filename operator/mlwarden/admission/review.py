"""An AdmissionReview as it comes, decoded as far as it is needed.

The envelope is typed and strict about what we use, the objects are other people's JSON. Explicit nulls are accepted where the API server
may
send them. A key that occurs twice is read as the API server reads it: the last one counts (Go's encoding/json); the API server encodes
objects
anew before it sends them, so none comes from there.

Source: k8s.io/api/admission/v1/types.go.
"""

import re
from typing import Any

import msgspec

from mlwarden.errors import InputError

LARGEST = 8 * 1024 * 1024
"""Bytes of a review. The API server accepts objects of up to 3 MiB, and an update carries two."""
_API_VERSION = "admission.k8s.io/v1"
_UID = re.compile(rb'"request"\s*:\s*\{[^{}]{0,200}?"uid"\s*:\s*"([0-9a-zA-Z-]{1,64})"')


class Resource(msgspec.Struct, frozen=True):
    """A GroupVersionResource."""

    group: str = ""
    version: str = ""
    resource: str = ""


class Request(msgspec.Struct, frozen=True, rename="camel"):
    """What is asked. `object` and `old_object` are still bytes."""

    uid: str
    operation: str
    resource: Resource
    sub_resource: str | None = None
    name: str | None = None
    namespace: str | None = None
    user_info: dict[str, Any] | None = None
    object: msgspec.Raw = msgspec.Raw(b"null")
    old_object: msgspec.Raw = msgspec.Raw(b"null")
    dry_run: bool | None = None


class _Review(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    request: Request


_DECODER = msgspec.json.Decoder(_Review)
_OBJECT = msgspec.json.Decoder()


def read(body: bytes) -> Request:
    """Returns the request of a review.

    Raises:
        InputError: it is no `admission.k8s.io/v1` AdmissionReview with a uid.
    """
    try:
        review = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"this is no AdmissionReview: {error}") from None
    if review.api_version != _API_VERSION or review.kind != "AdmissionReview":
        raise InputError(f"this is {review.kind[:60]!r} of {review.api_version[:60]!r}, not an AdmissionReview of {_API_VERSION}")
    if not review.request.uid or len(review.request.uid) > 128:
        raise InputError("the review has no uid to answer to")
    return review.request


def decode(raw: msgspec.Raw) -> dict[str, Any] | None:
    """Returns an object of a review, None where it is null.

    Raises:
        InputError: it cannot be decoded, or is no JSON object.
    """
    try:
        value = _OBJECT.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"the object cannot be read: {error}") from None
    if value is None or isinstance(value, dict):
        return value
    raise InputError(f"the object is a JSON {type(value).__name__}, not an object")


def uid_of(beginning: bytes) -> str:
    """Returns the uid in the first bytes of a review that is not read to its end, `""` where there is none."""
    found = _UID.search(beginning[:4096])
    return found[1].decode("ascii") if found else ""
