"""Documents: what they link to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")


def documents() -> list[Path]:
    """The README, the changelog and everything below docs and of folders that have a README."""
    return sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")})


@pytest.mark.parametrize("document", [pytest.param(each, id=str(each.relative_to(ROOT))) for each in documents()])
def test_every_link_to_a_file_leads_to_one(document: Path) -> None:
    targets = [document.parent / link for link in _LINK.findall(document.read_text())]
    assert [str(target) for target in targets if not target.exists()] == []
