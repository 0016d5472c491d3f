"""An AdmissionReview as it comes: the envelope typed and strict about what we use, the objects other people's JSON.

Explicit nulls are accepted where the API server may send them. A key that occurs twice is refused: decoders disagree about which of the two
counts, and what we judge must be what the API server stores. (It encodes objects anew before it sends them, so none comes from there.)

Rejected: decoding the envelope with the objects left as bytes (a second pass over most of the body, and no sight of double keys), and
Python's own decoder for all of it (it can see them, at three times the cost; it is asked only where the cheap comparison cannot tell).

Source: k8s.io/api/admission/v1/types.go.
"""

import json
import re
from collections import Counter
from typing import Any

import msgspec

from mlwarden.errors import InputError

LARGEST = 8 * 1024 * 1024
"""Bytes of a review. The API server accepts objects of up to 3 MiB, and an update carries two."""
MOST = 100_000
"""Objects and lists in a review. Decoded, an empty one of two bytes takes sixty: three megabytes of them would end the process."""
_API_VERSION = "admission.k8s.io/v1"
_HEAD = 4096
_OURS = (b'"AdmissionReview"', b'"admission.k8s.io/v1"')
_UID = re.compile(rb'"request"\s*:\s*\{[^{}]{0,200}?"uid"\s*:\s*"([0-9a-zA-Z-]{1,64})"')
_NO_REVIEW = (ValueError, RecursionError)  # every error of msgspec and of json is a ValueError, bad UTF-8 too


class Kind(msgspec.Struct, frozen=True):
    """A GroupVersionKind."""

    group: str = ""
    version: str = ""
    kind: str = ""

    @property
    def api_version(self) -> str:
        """`group/version`, or `version` in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


class Resource(msgspec.Struct, frozen=True):
    """A GroupVersionResource."""

    group: str = ""
    version: str = ""
    resource: str = ""


class Request(msgspec.Struct, frozen=True, rename="camel"):
    """What is asked."""

    uid: str
    operation: str
    resource: Resource
    kind: Kind = Kind()
    sub_resource: str | None = None
    name: str | None = None
    namespace: str | None = None
    user_info: dict[str, Any] | None = None
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = None
    dry_run: bool | None = None


class _Review(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    request: Request


_DECODER = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()


def read(body: bytes) -> Request:
    """Returns the request of a review.

    Raises:
        InputError: it is no `admission.k8s.io/v1` AdmissionReview with a uid, or has keys that occur twice.
    """
    if len(body) > MOST and body.count(b"{") + body.count(b"[") > MOST:
        raise InputError(f"it has more than {MOST:,} objects and lists")
    try:
        decoded = _DECODER.decode(body)
        # Equal bytes prove that no key was lost. They differ where Go escapes (`<`, `>`, `&`) or the sender indents, and where one was.
        if _ENCODER.encode(decoded) != body.rstrip():
            json.loads(body, object_pairs_hook=_unique)
        review = msgspec.convert(decoded, _Review)
    except _NO_REVIEW as error:
        raise InputError(f"this is no AdmissionReview: {error}") from None
    if review.api_version != _API_VERSION or review.kind != "AdmissionReview":
        raise InputError(f"this is {review.kind[:60]!r} of {review.api_version[:60]!r}, not an AdmissionReview of {_API_VERSION}")
    if not review.request.uid or len(review.request.uid) > 128:
        raise InputError("the review has no uid to answer to")
    return review.request


def uid_of(body: bytes) -> str:
    """Returns the uid of a review that cannot be read as a whole, `""` where it is none or has none."""
    head = body[:_HEAD]
    found = _UID.search(head)
    return found[1].decode("ascii") if found and all(part in head for part in _OURS) else ""


def _unique(pairs: list[tuple[str, Any]]) -> None:
    """Looks at the keys of one object, and keeps nothing."""
    if len(dict(pairs)) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise InputError(f"the key {twice[:60]!r} occurs twice in one object")
