"""A policy's fix, tried before it is recommended.

The patch of a policy is an RFC 7386 merge patch on the element that was judged. It is shown only where the element, so patched, passes
the same question: a recommendation that does not help is worse than none. And as little of it as helps: who shares the network of the node
need not be told about its processes.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mlwarden.checks.text import clean, flow


def merged(target: Any, patch: Any) -> Any:
    """Returns `target` with the merge patch applied (RFC 7386, section 2); `target` itself is not changed."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def smallest(patch: Mapping[str, Any], helps: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    """Returns as little of a patch as still helps; the patch itself must.

    Args:
        patch: an RFC 7386 merge patch.
        helps: whether the element, so patched, passes.
    """
    for leaf in reversed(leaves(patch)):
        less = _dropped(patch, leaf)
        if less and helps(less):
            patch = less
    return patch


def leaves(patch: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns the paths of everything a patch sets or removes."""
    found: list[tuple[str, ...]] = []
    for key, value in patch.items():
        inner = leaves(value) if isinstance(value, Mapping) else []
        found += [(key, *rest) for rest in inner] or [(key,)]
    return found


def instruction(patch: Mapping[str, Any], where: str) -> str:
    """Returns the patch as a sentence: `set securityContext: {privileged: false} in spec.containers[0]`.

    Args:
        patch: an RFC 7386 merge patch; its nulls are things to remove.
        where: JSON path of the element, `""` for the object itself.
    """
    removed = list(_removed(patch, ""))
    kept = _without_nulls(patch)
    parts = [f"set {flow(kept, outermost=True)}"] if kept else []
    if removed:
        parts.append(f"remove {', '.join(removed)}")
    return clean(f"{' and '.join(parts)} in {where}" if where else " and ".join(parts))


def _dropped(patch: Mapping[str, Any], leaf: tuple[str, ...]) -> dict[str, Any]:
    first, *rest = leaf
    result = dict(patch)
    inner = _dropped(patch[first], tuple(rest)) if rest else {}
    if inner:
        result[first] = inner
    else:
        del result[first]
    return result


def _removed(patch: Mapping[str, Any], prefix: str) -> list[str]:
    found = []
    for key, value in patch.items():
        if value is None:
            found.append(f"{prefix}{key}")
        elif isinstance(value, Mapping):
            found += _removed(value, f"{prefix}{key}.")
    return found


def _without_nulls(patch: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in patch.items():
        if value is None:
            continue
        if isinstance(value, Mapping) and value:
            inner = _without_nulls(value)
            if inner:
                kept[key] = inner
        else:
            kept[key] = value
    return kept
