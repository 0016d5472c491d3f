from pathlib import Path

import pytest

from mlwarden.errors import InputError
from mlwarden.evidence.registries import Access, Registries, RegistrySettings
from mlwarden.evidence.tool import Pull
from mlwarden.model.digest import Digest
from mlwarden.model.reference import parse


def load(directory: Path, text: str) -> Registries:
    path = directory / "registries.yaml"
    path.write_text(text)
    return Registries.load(path, plain_http=frozenset({"given.example"}))


def names(registries: Registries, reference: str, *, tag: bool) -> list[str]:
    return [place.name for place in registries.places(parse(reference), tag=tag)]


def test_mirrors_come_first_in_their_order_and_for_tags_where_it_says_so(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        "registries:\n"
        "  docker.io: {mirrors: [m.example:5000/hub, n.example]}\n"
        "  quay.io: {mirrors: [m.example:5000/quay/io], tags: true}\n"
        "  m.example:5000: {plainHTTP: true, mirrors: [n.example]}\n",
    )
    assert names(found, "nginx:1", tag=False) == ["m.example:5000/hub/library/nginx", "n.example/library/nginx", "docker.io/library/nginx"]
    assert names(found, "nginx:1", tag=True) == ["docker.io/library/nginx"]
    assert names(found, "quay.io/a/b:1", tag=True) == ["m.example:5000/quay/io/a/b", "quay.io/a/b"]
    assert names(found, "ghcr.io/a/b:1", tag=False) == ["ghcr.io/a/b"]
    assert found.plain == {"m.example:5000", "given.example"}


@pytest.mark.parametrize("key", ["a.example", "A.example:443", "a.example:0443"])
@pytest.mark.parametrize("written", ["a.example", "a.EXAMPLE", "a.example:443", "a.example:00443"])
def test_a_host_is_the_same_however_it_is_spelled(tmp_path: Path, key: str, written: str) -> None:
    found = load(tmp_path, f"registries: {{'{key}': {{mirrors: [m.example]}}, 'a.example:5000': {{plainHTTP: true}}}}")
    assert names(found, f"{written}/x:1", tag=False) == ["m.example/x", f"{written}/x"]
    assert names(found, "a.example:5000/x:1", tag=False) == ["a.example:5000/x"]
    assert found.plain == {"a.example:5000", "given.example"}


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert names(load(tmp_path, ""), "nginx", tag=False) == ["docker.io/library/nginx"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("registries: {a.example: {insecure: true}}", "unknown field `insecure`"),
        ("mirrors: {}", "unknown field `mirrors`"),
        ("registries: {a.example: {plainHTTP: 'true'}}", "Expected `bool`"),
        ("registries: {a.example: {mirrors: b.example}}", "Expected `array`"),
        ("registries: {https://a.example: {}}", "not a registry host"),
        ("registries: {a.example/team: {}}", "not a registry host"),
        ("registries: {index.docker.io: {}}", "not a registry host"),
        ("registries: {a: {}}", "not a registry host"),
        ("registries: {a.example: {mirrors: ['b.example/x:1']}}", "not a mirror"),
        ("registries: {a.example: {mirrors: [hub]}}", "not a mirror"),
        ("registries: {a.example: {mirrors: ['b.example/UPPER']}}", "not a mirror"),
        ("registries: {a.example: {mirrors: ['u:p@b.example']}}", "not a mirror"),
        ("registries: {a.example: {realms: ['b.example/token']}}", "not a registry host"),
        ("registries: {a.example: {ca: 'no certificate'}}", "is not PEM"),
        ("registries: {a.example: {caFile: /nowhere}}", "cannot be read"),
        ("registries: {a.example: {caFile: /nowhere, plainHTTP: true}}", "plain HTTP, so it has no certificate"),
        ("registries: {a.example: {}, a.example: {}}", "twice|equal|duplicate"),
        ("registries: {a.example: {}, 'A.example:443': {}}", "there twice"),
        ("registries: [", "not YAML"),
        ("a\n---\nb", "more than one document"),
        ("[]", "Expected `object`"),
    ],
)
def test_what_the_file_may_not_say_is_refused_with_the_reason(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        load(tmp_path, text)
    assert "registries.yaml" in error.value.message


def test_a_file_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        Registries.load(tmp_path / "nothing")


def test_a_program_finds_one_credential_and_all_it_trusts_and_nothing_of_it_is_shown(tmp_path: Path) -> None:
    access = Access(repository="a.example/x", docker_config=b"hunter2", ca=b"authority")
    pull = Pull.by(access, Digest("sha256:" + "a" * 64))
    environment = pull.equip(tmp_path)
    assert Path(environment["DOCKER_CONFIG"], "config.json").read_bytes() == b"hunter2"
    assert Path(environment["SSL_CERT_FILE"]).read_bytes() == b"authority"
    assert "hunter2" not in repr(access) + repr(pull)
    assert set(Pull(image="a.example/x", digest=pull.digest).equip(tmp_path)) == {"DOCKER_CONFIG", "HTTP_PROXY"}


def test_settings_have_no_switch_that_turns_verification_off() -> None:
    assert {field for field in RegistrySettings.__struct_fields__ if "insecure" in field or "verify" in field} == set()
