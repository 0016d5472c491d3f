"""Which images a policy is about: anchored, segment by segment, under every name a registry is written by."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlwarden.errors import PolicyError
from mlwarden.model.glob import _matches
from mlwarden.policy import accepted, parse
from mlwarden.policy.images import about

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
        # written as images are
        ("python", "python:3.12"),
        ("python", "docker.io/library/python"),
        ("pytorch/pytorch", "docker.io/pytorch/pytorch:2"),
        ("pytorch/**", "registry-1.docker.io/pytorch/pytorch:2"),
        ("py*", "python"),
        ("team*/*", "teams/x"),
        ("team*/*", "team.example.com/x"),
        ("docker.io/*", "python"),
        ("docker.io/python", "index.docker.io/library/python"),
        ("index.docker.io/**", "python"),
        ("registry-1.docker.io/library/*", "python"),
        ("*.docker.io/**", "python"),
        ("Index.Docker.io:0443/**", "pytorch/pytorch"),
        ("registry.example.com:443/**", "registry.example.com/x"),
        ("registry.example.com:0443/**", "registry.example.com:443/x"),
        ("registry.example.com:*/**", "registry.example.com/x"),
        ("registry.example.com:05000/**", "registry.example.com:5000/x"),
        ("Registry/**", "REGISTRY/team/x"),
        ("[2001:db8::5]:5000/**", "[2001:DB8:0::5]:05000/team/x"),
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
        ("python", "evil.org/library/python"),
        ("python", "pythons"),
        ("pytorch/**", "evil.org/pytorch/pytorch"),
        ("registry.example.com:443/**", "registry.example.com:5000/x"),
        ("registry.example.com:05000/**", "registry.example.com:50000/x"),
        ("docker.io/*", "pytorch/pytorch"),
    ],
)
def test_it_is_not_about_a_lookalike(glob: str, reference: str) -> None:
    assert not about([glob], reference)


def signed(glob: str) -> dict[str, Any]:
    authority = {"name": "a", "key": "-----BEGIN PUBLIC KEY-----"}
    return {
        "apiVersion": "mlwarden.io/v1alpha1",
        "kind": "WardenPolicy",
        "metadata": {"name": "signed"},
        "spec": {
            "profiles": {"*": "Deny"},
            "requirement": {"imageSignature": {"images": [glob], "authorities": [authority]}},
            "message": "m",
            "why": "w",
            "fix": {"text": "f"},
        },
    }


@pytest.mark.parametrize(
    ("glob", "instead"),
    [
        ("*", "write \\*\\* for every image"),
        ("https://registry.example.com/**", "without a scheme"),
        ("registry.example.com", "write registry.example.com/\\*\\*"),
        ("registry.example.com:5000", "write registry.example.com:5000/"),
        ("localhost", "write localhost/"),
        ("python:3.12", "a tag or a digest"),
        ("registry.example.com/x:*", "a tag or a digest|not a repository"),
        (f"registry.example.com/x@{DIGEST}", "a tag or a digest"),
        ("registry.example.com/Team/**", "lowercase"),
        ("registry.example.com//x", "not a repository name"),
        ("registry.example.com/", "not a repository name"),
        ("/x", "not a repository name"),
        ("registry.example.com/-*", "not a repository name"),
        ("registry.example.com:99999/**", "no such port"),
        ("registry.example.com./**", "not a registry host"),
        ("a b", "not a repository name"),
    ],
)
def test_a_glob_that_can_match_nothing_is_refused_with_what_to_write(glob: str, instead: str) -> None:
    with pytest.raises(PolicyError, match=instead):
        parse(signed(glob))


def test_a_useless_glob_beside_others_is_refused_where_it_is_written_and_harmless_where_it_is_stored() -> None:
    policy = signed("registry.example.com/**")
    policy["spec"]["requirement"]["imageSignature"]["images"].append("registry.example.com")
    stored = parse(policy)
    assert about(stored.spec.requirement.image_signature.images, "registry.example.com/x")
    with pytest.raises(PolicyError, match=r"write registry\.example\.com/"):
        accepted(stored)


@pytest.mark.parametrize("glob", ["**", "*/x", "python", "registry.example.com/**", "[::1]:5000/**", "localhost:5000/a/*"])
def test_a_glob_that_can_match_is_accepted(glob: str) -> None:
    assert accepted(parse(signed(glob))).spec.requirement.image_signature.images == (glob,)


def test_what_cannot_be_read_is_every_policys_business() -> None:
    assert about(["registry.example.com/*"], "")
    assert about(["registry.example.com/*"], "Not An Image")


@given(st.text(alphabet="ab/*", max_size=8), st.text(alphabet="ab/", max_size=10))
def test_it_means_what_the_regular_expression_means(glob: str, name: str) -> None:
    pattern = "".join(
        ".*" if part.startswith("**") else "[^/]*" if part == "*" else re.escape(part) for part in re.findall(r"\*+|[^*]+", glob)
    )
    assert _matches(glob, name) == bool(re.fullmatch(pattern, name))
