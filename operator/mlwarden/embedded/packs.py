"""The chart's table of shipped policies: with which version each became what it is. The notes of an upgrade name by it those that warn.

`python -m mlwarden.embedded.packs` brings it up to date after a policy was changed; a test says where that was forgotten.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from mlwarden import __version__, policy
from mlwarden.controllers.acceptance import digest
from mlwarden.embedded import build

_HEAD = "# Made by `python -m mlwarden.embedded.packs`: what each shipped policy does, as a digest, and since which version.\n"

Table = Mapping[str, Mapping[str, str]]


def file() -> Path:
    """Returns where the table is."""
    return build.source_tree() / "charts" / "mlwarden" / "packs.yaml"


def read() -> Table:
    """Returns the table as it stands; empty where there is none."""
    return yaml.safe_load(file().read_text(encoding="utf-8")) if file().exists() else {}


def current(before: Table) -> dict[str, dict[str, str]]:
    """Returns the table as it should be: what did not change keeps its version."""
    found = {}
    for each in policy.shipped():
        said, known = digest(each.spec), before.get(each.name, {})
        found[each.name] = {"since": known["since"] if known.get("digest") == said else __version__, "digest": said}
    return found


def main() -> int:
    """Writes the table."""
    lines = [f'{name}: {{since: {row["since"]}, digest: "{row["digest"]}"}}\n' for name, row in sorted(current(read()).items())]
    file().write_text(_HEAD + "".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
