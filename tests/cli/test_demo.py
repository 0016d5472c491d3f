"""The demo is a promise of the README: it is run as it stands, and every workload must end as its file says."""

import pytest

from mlwarden import policy
from mlwarden.cli import demo, manifests
from mlwarden.cli.manifests import Manifest


@pytest.mark.cluster
def test_every_workload_of_the_demo_ends_as_it_should(capsys: pytest.CaptureFixture[str]) -> None:
    code = demo.main([])
    said = capsys.readouterr().out
    assert code == 0, said
    every = len(demo.cases())
    assert f"{every} of {every} as they should be" in said
    assert f"mlwarden check examples/ says the same of {every} of {every}" in said
    assert "SchedulingGated" in said
    assert "is held by mlwarden since" in said


def test_every_example_is_in_the_demo_and_says_in_its_first_line_what_becomes_of_it() -> None:
    files = {str(file.relative_to(demo.examples())) for file in demo.examples().rglob("*.yaml")}
    policies = {file for file in files if file.startswith("policies/")}  # for people to edit, each with a key of their own
    assert files - policies == {case.file for case in demo.cases()} | {"namespaces.yaml"}
    for file in files:
        assert (demo.examples() / file).read_text(encoding="utf-8").startswith("# "), file


def test_the_examples_are_manifests_that_check_can_read(capsys: pytest.CaptureFixture[str]) -> None:
    found = list(manifests.read([str(demo.examples())], stdin=None))
    assert all(isinstance(item, Manifest) for item in found)
    assert len(policy.yaml_loads((demo.examples() / "namespaces.yaml").read_text())) == 3
