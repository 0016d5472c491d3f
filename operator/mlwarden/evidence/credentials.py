"""Registry credentials from a docker configuration file, each bound to the one host it was written for.

Credential helpers and stores (`credsStore`, `credHelpers`) are not run: they are programs, and the process that reads this is the one that
touches hostile bytes. A file with `auths` is what an image pull Secret mounts.
"""

import base64
import binascii
from pathlib import Path

import msgspec

from mlwarden.errors import InputError

HUB = "docker.io"
_HUB_KEYS = frozenset({"index.docker.io", "registry-1.docker.io", "docker.io"})
_MAX_FILE = 1 << 20


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """What a registry host is shown: a name and password, or an identity token (OAuth2 refresh token)."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        """Never the secret."""
        return f"Credential(username={self.username!r})"

    @property
    def basic(self) -> str:
        """The value of an `Authorization: Basic` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class _Auth(msgspec.Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _File(msgspec.Struct, frozen=True):
    auths: dict[str, _Auth] = {}


class Credentials:
    """Registry host → credential. Empty by default: anonymous pulls."""

    def __init__(self, by_host: dict[str, Credential] | None = None) -> None:
        self._by_host = dict(by_host or {})

    @classmethod
    def load(cls, path: Path) -> "Credentials":
        """Reads a docker `config.json`.

        Raises:
            InputError: if it cannot be read or is not such a file. Its content is never quoted.
        """
        try:
            raw = path.read_bytes()[: _MAX_FILE + 1]
            if len(raw) > _MAX_FILE:
                raise InputError(f"{path} is larger than 1 MiB")
            auths = msgspec.json.decode(raw, type=_File).auths
            return cls({_host(key): _credential(auth) for key, auth in auths.items()})
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise InputError(
                f"{path} is not a docker configuration file ({type(error).__name__})", hint="a JSON object with `auths`"
            ) from None

    def of(self, registry: str) -> Credential | None:
        """Returns the credential written for exactly this registry (host or host:port), None where there is none."""
        return self._by_host.get(HUB if registry in _HUB_KEYS else registry)

    def docker_config(self, registry: str) -> bytes:
        """Returns a docker `config.json` with the credential of this registry and no other."""
        credential = self.of(registry)
        if credential is None:
            return b'{"auths":{}}'
        key = "https://index.docker.io/v1/" if registry in _HUB_KEYS else registry
        entry = {"auth": credential.basic.removeprefix("Basic ")}
        if credential.identity_token:
            entry["identitytoken"] = credential.identity_token
        return msgspec.json.encode({"auths": {key: entry}})


def _host(key: str) -> str:
    """The host of a key of `auths`, which may be a host, a host:port or a URL with a path."""
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return HUB if host in _HUB_KEYS else host


def _credential(auth: _Auth) -> Credential:
    username, password = auth.username, auth.password
    if auth.auth:
        try:
            username, _, password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("auth is not base64") from None
    return Credential(username=username, password=password.rstrip("\0"), identity_token=auth.identitytoken)
