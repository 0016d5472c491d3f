"""The base of everything that is part of a custom resource's spec."""

from typing import Annotated

import msgspec
from msgspec import Meta

Code = Annotated[str, Meta(min_length=1, max_length=16384)]
"""A CEL expression."""


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Base of a spec's types: camelCase, and what nobody knows is refused (CVE-2025-29778: a field that was ignored let any signer in)."""
