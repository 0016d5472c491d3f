import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from mlwarden.evidence.challenge import Challenge, may_show_credentials, parse


def test_the_challenges_of_real_registries_are_read() -> None:
    header = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull,push"'
    assert parse(header) == (
        Challenge(
            scheme="bearer",
            parameters={
                "realm": "https://auth.docker.io/token",
                "service": "registry.docker.io",
                "scope": "repository:library/x:pull,push",
            },
        ),
    )
    assert parse('Basic realm="Registry, \\"x\\"", Bearer realm=https://a/t') == (
        Challenge(scheme="basic", parameters={"realm": 'Registry, "x"'}),
        Challenge(scheme="bearer", parameters={"realm": "https://a/t"}),
    )


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='BearBasic realm="\\,=: \t', max_size=80) | st.text(max_size=40))
def test_no_header_breaks_the_parser(header: str) -> None:
    parse(header)


@pytest.mark.parametrize(
    ("registry", "realm", "allowed"),
    [
        ("docker.io", "https://auth.docker.io/token", True),
        ("ghcr.io", "https://ghcr.io/token", True),
        ("r.example:5000", "https://r.example:5000/token", True),
        ("r.example:5000", "https://r.example/token", False),
        ("ghcr.io", "https://evil.example/token", False),
        ("ghcr.io", "https://ghcr.io.evil.example/token", False),
        ("ghcr.io", "https://auth.docker.io/token", False),
    ],
)
def test_credentials_are_shown_to_their_own_registry_and_its_token_service_only(registry: str, realm: str, allowed: bool) -> None:  # noqa: FBT001 -- a table
    assert may_show_credentials(registry, URL(realm)) is allowed
