"""JSON paths as people read them in findings: `spec.templates[0].container`, `metadata.labels["a/b"]`."""

import json
import re

from mlwarden.model.workload import Json

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def join(path: str, key: str) -> str:
    """Returns the path of a field rooted `path`."""
    if _PLAIN.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{json.dumps(key)}]"


def rooted(base: str, path: str) -> str:
    """Returns a path of the table as it is from the root, where its object stands at `base`."""
    return f"{base}.{path}" if base else path


def expand(obj: Json, place: str, base: str) -> list[tuple[str, Json]]:
    """Returns every value that a path of the table leads to, with its full JSON path: `[]` goes through a list, `*` through all values."""
    reached: list[tuple[str, Json]] = [(base, obj)]
    for step in place.split(".") if place else ():
        name = step.rstrip("[]")
        lists = (len(step) - len(name)) // 2
        following: list[tuple[str, Json]] = []
        for path, value in reached:
            if not isinstance(value, dict):
                continue
            keys = list(value) if name == "*" else [name] if name in value else []
            following.extend((join(path, key), value[key]) for key in keys)
        for _ in range(lists):
            following = [
                (f"{path}[{index}]", element) for path, value in following if isinstance(value, list) for index, element in enumerate(value)
            ]
        reached = following
    return reached
