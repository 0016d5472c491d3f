"""Which images a policy is about: anchored, segment by segment, under every name a registry is written by."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlwarden.policy.images import _matches, about

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("glob", "reference"),
    [
        ("**", "python"),
        ("docker.io/library/python", "python"),
        ("docker.io/library/*", "python:3.12"),
        ("docker.io/**", "registry-1.docker.io/library/python"),
        ("registry.example.com/*", f"registry.example.com/train@{DIGEST}"),
        ("registry.example.com/**", "registry.example.com/team/a/b:1"),
        ("registry.example.com/**", "REGISTRY.example.com/team/a:1"),
        ("REGISTRY.example.com/**", "registry.example.com/team/a:1"),
        ("registry.example.com/**", "registry.example.com:443/team/a:1"),
        ("registry.example.com/**", "registry.example.com:0443/team/a:1"),
        ("registry.example.com:5000/**", "registry.example.com:05000/team/a:1"),
        ("docker.io/library/*", "registry-1.docker.io:00443/library/python"),
        ("*.example.com/**/base", "eu.example.com/team/a/base"),
        ("registry.example.com/team-*/*", "registry.example.com/team-vision/train"),
    ],
)
def test_it_is_about_what_it_names(glob: str, reference: str) -> None:
    assert about([glob], reference)


@pytest.mark.parametrize(
    ("glob", "reference"),
    [
        ("registry.example.com/*", "registry.example.com.evil.org/x:1"),
        ("registry.example.com/*", "evil.org/registry.example.com/x"),
        ("registry.example.com/*", "registry.example.com/team/x"),
        ("registry.example.com/team*", "registry.example.com/teams/x"),
        ("*/x", "registry.example.com/team/x"),
        ("registry.example.com/**", "registry.example.com:5000/x"),
        ("*.example.com/**", "evil.org/a.example.com/b"),
    ],
)
def test_it_is_not_about_a_lookalike(glob: str, reference: str) -> None:
    assert not about([glob], reference)


def test_what_cannot_be_read_is_every_policys_business() -> None:
    assert about(["registry.example.com/*"], "")
    assert about(["registry.example.com/*"], "Not An Image")


@given(st.text(alphabet="ab/*", max_size=8), st.text(alphabet="ab/", max_size=10))
def test_it_means_what_the_regular_expression_means(glob: str, name: str) -> None:
    pattern = "".join(
        ".*" if part.startswith("**") else "[^/]*" if part == "*" else re.escape(part) for part in re.findall(r"\*+|[^*]+", glob)
    )
    assert _matches(glob, name) == bool(re.fullmatch(pattern, name))
