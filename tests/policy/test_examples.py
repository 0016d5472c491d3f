"""The policies of `examples/` are policies, and the API server takes them."""

from pathlib import Path

import pytest

from mlwarden import policy

FILES = sorted((Path(__file__).parents[2] / "examples" / "policies").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_example_compiles(file: Path) -> None:
    loaded = list(policy.load([(file.name, file.read_text(encoding="utf-8"))]))
    assert loaded
    assert all(policy.compile_policy(each).demands for each in loaded)
