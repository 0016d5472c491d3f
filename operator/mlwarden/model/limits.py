"""What a namespace's LimitRanges fill into containers that say nothing of resources."""

from collections.abc import Mapping

import msgspec

from mlwarden.model.workload import Json


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults of one namespace: resource name → amount."""

    limits: Mapping[str, Json] = {}
    requests: Mapping[str, Json] = {}
