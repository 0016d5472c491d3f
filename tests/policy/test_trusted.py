"""Whose images are trusted is a list of the administrator's, written as images are; an empty one is said to be undecided."""

from collections.abc import Callable
from typing import Any

import pytest

from mlwarden import policy
from mlwarden.checks import Answer
from mlwarden.errors import InputError
from mlwarden.model.finding import Action, Outcome
from mlwarden.policy import CompiledPolicy
from mlwarden.policy.trusted import starts

Build = Callable[[dict[str, Any]], dict[str, Any]]
Judge = Callable[[CompiledPolicy, Any], list[Answer]]


def compiled(*trusted: str) -> CompiledPolicy:
    (found,) = (each for each in policy.shipped(trusted) if each.name == policy.TRUSTED_REGISTRIES)
    return policy.compile_policy(found)


@pytest.mark.parametrize(
    ("trusted", "image"),
    [
        ("registry.example.com", "registry.example.com/x"),
        ("Registry.Example.com:0443/", "registry.example.com/x:1"),
        ("registry.example.com/team", "registry.example.com:443/team/x:1"),
        ("registry.example.com/team/**", "registry.example.com/team/x:1"),
        ("python", "python:3.12"),
        ("docker.io/python", "index.docker.io/library/python"),
        ("index.docker.io/pytorch", "pytorch/pytorch:2"),
        ("docker.io", "anybody/x"),
        ("registry:05000", "registry:5000/x"),
        ("localhost", "localhost/x"),
    ],
)
def test_an_entry_is_written_as_images_are(trusted: str, image: str, build: Build, judge: Judge) -> None:
    pod = build({"container": {"image": image}})
    assert {answer.outcome for answer in judge(compiled(trusted), pod)} == {Outcome.PASS}
    assert {answer.outcome for answer in judge(compiled("somewhere.example.com"), pod)} == {Outcome.FAIL}


@pytest.mark.parametrize(
    "trusted",
    ["", "*", "https://registry.example.com", "r*.example.com", "registry.example.com/X", "registry.example.com/x:1", "a b", "r.io//x"],
)
def test_what_is_no_registry_is_refused_by_name(trusted: str) -> None:
    with pytest.raises(InputError, match=r"is not a registry|no part of it"):
        starts(trusted)


def test_an_empty_list_warns_in_every_profile_with_the_line_to_set(build: Build, judge: Judge) -> None:
    found = compiled()
    assert set(found.policy.spec.profiles.values()) == {Action.WARN}
    (answer,) = judge(found, build({"volume": {"image": {"reference": "a:1"}}}))
    assert answer.outcome is Outcome.FAIL
    assert "--set 'trustedRegistries={registry.example.com}'" in answer.message
    assert "--trusted-registry" in answer.fix


def test_a_list_denies_the_rest_in_production_alone() -> None:
    profiles = compiled("registry.example.com").policy.spec.profiles
    assert {name for name, action in profiles.items() if action is Action.DENY} == {"production", "*"}
    assert compiled("registry.example.com").policy.spec.message != compiled().policy.spec.message


def test_more_than_can_be_judged_in_the_api_server_is_refused() -> None:
    with pytest.raises(InputError, match="more than 64"):
        policy.shipped(tuple(f"registry{index}.example.com/a" for index in range(200)))
