import base64
from pathlib import Path

import msgspec
import pytest

from mlwarden.errors import InputError
from mlwarden.evidence.credentials import Credential, Credentials, docker_config


def load(path: Path, auths: object) -> Credentials:
    path.write_bytes(msgspec.json.encode({"auths": auths, "credsStore": "desktop"}))
    return Credentials.load(path)


def test_credentials_belong_to_one_host_and_its_spellings(tmp_path: Path) -> None:
    auth = base64.b64encode(b"ana:s3cret:x").decode()
    found = load(tmp_path / "c.json", {"https://index.docker.io/v1/": {"auth": auth}, "ghcr.io": {"username": "b", "password": "p"}})
    hub = found.of("docker.io")
    assert hub is not None
    assert (hub.username, hub.password) == ("ana", "s3cret:x")
    assert found.of("ghcr.io:5000") is None
    assert found.of("evil.ghcr.io") is None


def test_a_tool_gets_the_credential_of_its_registry_and_no_other(tmp_path: Path) -> None:
    found = load(tmp_path / "c.json", {"a.example": {"username": "a", "password": "p"}, "b.example": {"username": "b", "password": "q"}})
    assert set(msgspec.json.decode(docker_config("a.example", found.of("a.example")))["auths"]) == {"a.example"}
    assert msgspec.json.decode(docker_config("c.example", found.of("c.example"))) == {"auths": {}}


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    found = load(tmp_path / "c.json", {"a.example": {"username": "a", "password": "hunter2"}})
    assert "hunter2" not in repr(found.of("a.example"))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"auths": {"x": {"auth": "hunter2!"}}}', b'{"auths": {"x": null}}', b"\xff", b"[" * 100_000]
)
def test_a_broken_file_is_refused_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(InputError) as error:
        Credentials.load(tmp_path / "c.json")
    assert "hunter2" not in error.value.diagnostics()


def keys(*entries: str) -> Credentials:
    """Each key with itself as user name, so that an answer says which one it was."""
    return Credentials([(key, Credential(username=key, password="p")) for key in entries])


def found(keys: Credentials, name: str) -> list[str]:
    return [credential.username for credential in keys.all(name)]


@pytest.mark.parametrize(
    ("key", "name", "matches"),
    [
        # Cases of Kubernetes' keyring_test.go, and their neighbours.
        ("*.docker.io", "prefix.docker.io/x", True),
        ("*.docker.io", "notright.io/x", False),
        ("*.docker.io", "docker.io/library/x", False),
        ("*.*.docker.io", "a.b.docker.io/x", True),
        ("*.docker.io", "a.b.docker.io/x", False),
        ("prefix.*.io", "prefix.docker.io/x", True),
        ("*-prefix.docker.io", "prefix.docker.io/x", False),
        ("pre*.docker.io", "prefix.docker.io/x", True),
        ("*.kubernetes.io/a/b", "prefix.kubernetes.io/a/b/c", True),
        ("*.kubernetes.io/a/b", "prefix.kubernetes.io/a/x/b", False),
        ("kubernetes.io/team", "kubernetes.io/teammate/x", True),  # a prefix of characters: the kubelet's own rule
        ("*.kubernetes.io:5000", "prefix.kubernetes.io:5000/x", True),
        ("*.kubernetes.io:5000", "prefix.kubernetes.io/x", False),
        ("kubernetes.io", "kubernetes.io:5000/x", False),
        ("https://kubernetes.io", "kubernetes.io/x", True),
        ("http://kubernetes.io:5000/", "kubernetes.io:5000/x", True),
        ("https://kubernetes.io/v1/", "kubernetes.io/x", True),
        ("https://kubernetes.io/v2/team", "kubernetes.io/team/x", True),
        ("https://kubernetes.io/v2/team", "kubernetes.io/other/x", False),
        ("https://index.docker.io/v1/", "docker.io/library/x", True),
        ("index.docker.io", "docker.io/library/x", True),
        ("docker.io", "docker.io/library/x", True),
        ("https://index.docker.io/v1/", "quay.io/x", False),
        ("https://index.docker.io/v1/", "localhost/x", False),
        ("[::1]:5000", "[::1]:5000/x", True),
        ("user@kubernetes.io", "kubernetes.io/x", False),
        ("kubernetes.io?x", "kubernetes.io/x", False),
        ("*", "kubernetes.io/x", False),
        ("", "kubernetes.io/x", False),
        ("ftp://kubernetes.io", "kubernetes.io/x", False),
        ("k[a-z]bernetes.io", "kubernetes.io/x", False),
    ],
)
def test_a_key_is_for_what_the_kubelet_takes_it_for(key: str, name: str, *, matches: bool) -> None:
    assert found(keys(key), name) == ([key] if matches else [])


def test_the_more_specific_key_comes_first_and_all_of_them_are_tried() -> None:
    several = keys("quay.io", "quay.io/team/deep", "*.io", "quay.io/team", "ghcr.io", "quay.io/other")
    assert found(several, "quay.io/team/deep/x") == ["quay.io/team/deep", "quay.io/team", "quay.io", "*.io"]
    twice = Credentials([("quay.io", Credential(username="old")), ("quay.io", Credential(username="new"))])
    assert found(twice, "quay.io/x") == ["old", "new"]


@pytest.mark.parametrize(
    "name",
    [
        "team.azurecr.io.evil.example/x",
        "evil.example/team.azurecr.io/x",
        "evil.example:443/team.azurecr.io",
        "team.azurecr.io:444/x",
        "xteam.azurecr.io.example/x",
        "azurecr.io/team",
    ],
)
def test_cve_2025_27403_a_host_that_only_looks_like_the_registry_is_not_the_registry(name: str) -> None:
    assert not keys("team.azurecr.io", "*.azurecr.io", "https://team.azurecr.io/v2/").all(name)


def test_a_glob_of_many_stars_takes_no_time() -> None:
    assert not keys("*a" * 31 + ".example").all("a" * 62 + "b.example/x")


def test_secrets_of_both_types_are_read_with_and_without_padding() -> None:
    auth = base64.b64encode(b"ana:s3cret").decode()
    wrapped, bare = {"auths": {"a.example": {"auth": auth.rstrip("=")}}}, {"a.example": {"auth": auth}}
    for raw, legacy in ((wrapped, False), (bare, True)):
        credential = Credentials.read(msgspec.json.encode(raw), legacy=legacy).of("a.example/x")
        assert credential == Credential(username="ana", password="s3cret")
