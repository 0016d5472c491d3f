import base64
from pathlib import Path

import msgspec
import pytest

from mlwarden.errors import InputError
from mlwarden.evidence.credentials import Credentials


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
    assert set(msgspec.json.decode(found.docker_config("a.example"))["auths"]) == {"a.example"}
    assert msgspec.json.decode(found.docker_config("c.example")) == {"auths": {}}


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
