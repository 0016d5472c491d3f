"""What is listed as an operator's own is that of the version which runs here."""

from mlwarden.embedded import build, operators

from . import added  # type: ignore[import-not-found]


def test_what_is_listed_is_of_the_versions_that_are_built() -> None:
    assert {name: build.version(name) for name in operators.OPERATORS} == added.VERSIONS
    assert set(added.ADDED) == set(added.COPIES) == set(operators.OPERATORS)


def test_an_operator_that_is_not_built_is_said_to_be_so(monkeypatch) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    monkeypatch.setattr(build, "is_built", lambda _name: False)
    assert operators.obstacle("jobset") == f"jobset {build.version('jobset')} is not built here: `make operators` builds it"
