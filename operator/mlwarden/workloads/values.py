"""Values of any JSON, taken for what they should be: what is of another type counts as empty. Objects come from anybody."""

from collections.abc import Mapping

from mlwarden.model.workload import Json

EMPTY: Mapping[str, Json] = {}


def as_text(value: Json) -> str:
    """Returns a string as it is and anything else as `""`."""
    return value if isinstance(value, str) else ""


def as_map(value: Json) -> Mapping[str, Json]:
    """Returns a map as it is and anything else as an empty one."""
    return value if isinstance(value, dict) else EMPTY


def as_list(value: Mapping[str, Json], field: str) -> list[Json]:
    """Returns the list in a field, an empty one where there is none."""
    found = value.get(field)
    return found if isinstance(found, list) else []
