"""What the chart has to know and the program says: since when each policy is what it is, what may own pods, what is written.

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


def path(name: str) -> Path:
    """Returns where a file of the chart is."""
    return build.source_tree() / "charts" / "mlwarden" / name


def _read(name: str) -> Mapping[str, Mapping[str, str]]:
    return yaml.safe_load(path(name).read_text(encoding="utf-8")) if path(name).exists() else {}


def main() -> int:
    """Writes the files."""
    for name, text in (("packs.yaml", packs()), ("owners.yaml", owners()), ("names.yaml", written())):
        path(name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
