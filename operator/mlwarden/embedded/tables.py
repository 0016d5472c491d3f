"""What the chart and the documents have to know and the program says: since when each policy is what it is, what may own pods, which kinds.

`python -m mlwarden.embedded.tables` brings the files up to date after a policy or the table of kinds was changed; a test says where that
was forgotten. Helm's templates can read a file, but not a program.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from mlwarden import __version__, policy, workloads
from mlwarden.controllers import names
from mlwarden.controllers.acceptance import digest
from mlwarden.embedded import build

_HEAD = "# Made by `python -m mlwarden.embedded.tables`: {}.\n"
_PACKS = "what each shipped policy does, as a digest, and since which version"
_NAMES = "plural resource → the names of what the controller may write of it"
_OWNERS = "group → resources of the table of kinds that pods may belong to"


def packs() -> str:
    """Returns `packs.yaml` as it should be: what did not change since it was written keeps its version."""
    before = _read("packs.yaml")
    lines = [_HEAD.format(_PACKS)]
    for each in policy.shipped():
        said, known = digest(each.spec), before.get(each.name, {})
        since = known["since"] if known.get("digest") == said else __version__
        lines.append(f'{each.name}: {{since: {since}, digest: "{said}"}}\n')
    return "".join(lines)


def owners() -> str:
    """Returns `owners.yaml` as it should be."""
    groups: dict[str, list[str]] = {}
    for row in workloads.sent():
        if row.kind not in {"Pod", "PodTemplate"}:
            groups.setdefault(row.group, []).append(row.resource)
    return _HEAD.format(_OWNERS) + "".join(f'"{group}": [{", ".join(sorted(found))}]\n' for group, found in sorted(groups.items()))


def written() -> str:
    """Returns `names.yaml` as it should be."""
    lines = (f"{plural}:\n" + "".join(f"  - {name}\n" for name in found) for plural, found in sorted(names.known().items()))
    return _HEAD.format(_NAMES) + "".join(lines)


_KINDS = """# Kinds that are judged

<!-- Made by `python -m mlwarden.embedded.tables` of the table of kinds (operator/mlwarden/workloads/kinds). -->

Where each kind describes pods, and so where findings and their fixes point. mlwarden judges the pods that the kind's operator makes of it;
a field that the table does not name is no hiding place, and every pod is judged again when it is made.

- *template*, *spec*, *container*: a pod template, a pod spec, a single container, as Kubernetes writes them. *object*: another object, of
  any kind of this table, which the operator makes as it stands there (one within another, not deeper).
- †: the operator, a runtime, a preset or what it is laid over says the rest: only what is set here can fail.
- ‡: the kind has no namespace and so no profile. It is never refused: its pods are judged where they are made, and `mlwarden check` says
  what it finds in them.

| kind | API group | pods are described in |
| --- | --- | --- |
"""


def kinds() -> str:
    """Returns `docs/kinds.md` as it should be."""
    rows = sorted(workloads.KINDS, key=lambda row: (row.group, row.kind))
    return _KINDS + "".join(f"| {row.kind}{'' if row.namespaced else ' ‡'} | {row.group or 'core'} | {_places(row)} |\n" for row in rows)


def _places(row: workloads.Kind) -> str:
    found: dict[str, list[str]] = {}
    for place in row.places:
        at = f"`{place.path}`" if place.path else "itself"
        found.setdefault(place.shape.value, []).append(f"{at}{' †' if place.partial else ''}")
    return "; ".join(f"*{shape}*: {', '.join(dict.fromkeys(paths))}" for shape, paths in found.items())


def document() -> Path:
    """Returns where the table of kinds is for people."""
    return build.source_tree() / "docs" / "kinds.md"


def path(name: str) -> Path:
    """Returns where a file of the chart is."""
    return build.source_tree() / "charts" / "mlwarden" / name


def _read(name: str) -> Mapping[str, Mapping[str, str]]:
    return yaml.safe_load(path(name).read_text(encoding="utf-8")) if path(name).exists() else {}


def main() -> int:
    """Writes the files."""
    for name, text in (("packs.yaml", packs()), ("owners.yaml", owners()), ("names.yaml", written())):
        path(name).write_text(text, encoding="utf-8")
    document().write_text(kinds(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
