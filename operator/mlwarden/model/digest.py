"""An immutable name for immutable bytes."""

import re
from typing import NewType

from mlwarden.errors import InputError

Digest = NewType("Digest", str)
"""`sha256:` and 64 lowercase hexadecimal digits. Made by `digest` only, so nobody checks it later."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest(text: str) -> Digest:
    """Returns `text` as a `Digest`.

    Raises:
        InputError: if it is not an OCI sha256 digest (image-spec, descriptor.md, "Digests"). Other algorithms are refused: nothing in the
            field emits them and a weaker one would be a way in.
    """
    if not _DIGEST.fullmatch(text):
        raise InputError(f"{text[:80]!r} is not a sha256 digest", hint="sha256: followed by 64 lowercase hexadecimal digits")
    return Digest(text)
