"""Registry credentials, each bound to the one host it was written for: a docker configuration file, or what a pod's pull Secrets hold.

Which entry is for which image is decided as the kubelet decides it (Kubernetes, pkg/credentialprovider/keyring.go): the most specific key
first, a star for one label of a host, a port that must be the same, a path as a prefix. What the kubelet would not show to a registry is
not shown to it here. One of its rules is left out: it takes a host without a dot (`localhost/x`) for Docker Hub.

Credential helpers and stores (`credsStore`, `credHelpers`) are not run: they are programs, and the process that reads this is the one that
touches hostile bytes. A file with `auths` is what an image pull Secret mounts.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from mlwarden.errors import InputError

HUB = "docker.io"
_HUB_KEY = "index.docker.io"
_MAX_FILE = 1 << 20
_KEY = re.compile(r"(?:https?://)?(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9*_.-]+)(?::([0-9]*))?(/[^?#]*)?")


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
    """Keys of `auths` with their credentials. Empty by default: anonymous pulls.

    Args:
        entries: key → credential; or pairs, where a key may be there several times: all of them are tried.
    """

    def __init__(self, entries: Mapping[str, Credential] | Iterable[tuple[str, Credential]] = ()) -> None:
        pairs = entries.items() if isinstance(entries, Mapping) else entries
        keyed = [(key, credential) for text, credential in pairs if (key := _normal(text))]
        self._entries = sorted(keyed, key=lambda pair: pair[0], reverse=True)  # the more specific path comes first, as the kubelet has it

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._entries)

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
            return cls.read(raw)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} is not a docker configuration file ({type(error).__name__})", hint="a JSON object with `auths`"
            ) from None

    @classmethod
    def read(cls, raw: bytes, *, legacy: bool = False) -> "Credentials":
        """Reads the content of a `config.json` or, `legacy`, of a `.dockercfg`, which has no `auths` around its entries.

        Raises:
            ValueError: if it is not that. The content is never quoted.
        """
        try:
            auths = msgspec.json.decode(raw, type=dict[str, _Auth]) if legacy else msgspec.json.decode(raw, type=_File).auths
            return cls([(key, _credential(auth)) for key, auth in auths.items()])
        except (ValueError, RecursionError):
            raise ValueError("not a docker configuration") from None

    def all(self, name: str) -> tuple[Credential, ...]:
        """Returns what may be shown for an image, the most specific first.

        Args:
            name: `registry/repository`, or a registry alone.
        """
        registry, _, path = name.partition("/")
        found = [credential for key, credential in self._entries if _matches(key, registry, "/" + path)]
        if not found and registry == HUB:
            found = [credential for key, credential in self._entries if key == _HUB_KEY]
        return tuple(dict.fromkeys(found))

    def of(self, name: str) -> Credential | None:
        """Returns the first of `all`, None where there is none."""
        return next(iter(self.all(name)), None)


def docker_config(registry: str, credential: Credential | None) -> bytes:
    """Returns a docker `config.json` with this credential for this registry, and nothing else."""
    if credential is None:
        return b'{"auths":{}}'
    entry = {"auth": credential.basic.removeprefix("Basic ")}
    if credential.identity_token:
        entry["identitytoken"] = credential.identity_token
    return msgspec.json.encode({"auths": {"https://index.docker.io/v1/" if registry == HUB else registry: entry}})


def _normal(key: str) -> str:
    """A key of `auths` (a host, a host with a path, a URL) as `host[:port][/path]`; `""` for what matches nothing."""
    match = _KEY.fullmatch(key)
    if match is None:
        return ""
    host, port, path = match[1], match[2], match[3] or ""
    if path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    return (f"{host}:{port}" if port else host) + (path if path != "/" else "")


def _matches(key: str, registry: str, path: str) -> bool:
    """Whether an entry is for an image. The path is a prefix of characters, not of segments: that is the kubelet's rule."""
    host, _, prefix = key.partition("/")
    (own_host, own_port), (host, port) = _split(registry), _split(host)
    labels, globs = own_host.split("."), host.split(".")
    if own_port != port or len(labels) != len(globs) or (prefix and not path.startswith("/" + prefix)):
        return False
    return all(label == glob or ("*" in glob and fnmatchcase(label, glob)) for label, glob in zip(labels, globs, strict=True))


def _split(authority: str) -> tuple[str, str]:
    head, colon, port = authority.rpartition(":")
    return (head, port) if colon and not port.endswith("]") else (authority, "")


def _credential(auth: _Auth) -> Credential:
    username, password = auth.username, auth.password
    if auth.auth:
        try:
            padded = auth.auth.strip() + "=" * (-len(auth.auth.strip()) % 4)  # the kubelet takes it without padding, too
            username, _, password = base64.b64decode(padded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("auth is not base64") from None
    return Credential(username=username, password=password.rstrip("\0"), identity_token=auth.identitytoken)
