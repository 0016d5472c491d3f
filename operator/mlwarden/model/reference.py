"""Image references, read as container engines read them.

The grammar and the defaults (docker.io, library/, latest) are those of github.com/distribution/reference (`regexp.go`, `normalize.go`). A
reference that we read differently from the kubelet would be judged as one image and run as another, so what is not certain is refused.
"""

import contextlib
import functools
import ipaddress
import re

import msgspec

from mlwarden.errors import InputError
from mlwarden.model.digest import Digest, digest

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_ID = re.compile(r"[0-9a-f]{64}")
_LONGEST_NAME = 255
_LONGEST = 1024
DOCKER = "docker.io"
HUB = frozenset({"index.docker.io", "registry-1.docker.io", "registry.docker.io", "registry.hub.docker.com"})
"""Other names of Docker Hub."""
_ZEROS = re.compile(r":0+(?=[0-9]+$)")
"""Before a port, which is the same one with them."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """One image reference, normalised.

    Attributes:
        registry: host, with a port where one was written; `docker.io` where none was.
        repository: the path below it; `library/NAME` for Docker Hub's official images.
        tag: `latest` where neither tag nor digest was written; `""` where only a digest was.
        digest: where one was written, else None.
    """

    registry: str
    repository: str
    tag: str
    digest: Digest | None

    @property
    def name(self) -> str:
        """`registry/repository`."""
        return f"{self.registry}/{self.repository}"

    def pinned(self, to: Digest) -> str:
        """Returns `name:tag@sha256:…`: what a person reads and what runs, in one string."""
        return f"{self.name}:{self.tag}@{to}" if self.tag else f"{self.name}@{to}"

    def at(self, to: Digest) -> str:
        """Returns `name@sha256:…`."""
        return f"{self.name}@{to}"

    def __str__(self) -> str:
        """The canonical form."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


def same_host(registry: str) -> str:
    """Returns a registry's host in the one way that two of them are compared: small letters, no port 443, Docker Hub by its first name."""
    host = _ZEROS.sub(":", registry.lower()).removesuffix(":443")
    if host.startswith("["):
        address, bracket, port = host[1:].partition("]")
        with contextlib.suppress(ValueError):  # a glob's star, or no address at all: compared as it is
            host = f"[{ipaddress.IPv6Address(address).compressed}{bracket}{port}"
    return DOCKER if host in HUB else host


@functools.lru_cache(maxsize=2048)  # every check asks again, and clusters run few images
def parse(text: str) -> Reference:
    """Returns the reference that `text` is.

    Raises:
        InputError: it is not one; the message says why.
    """
    shown = repr(text[:120])
    if not text:
        raise InputError("an image is named by an empty string", hint="registry/repository:tag or registry/repository@sha256:…")
    if len(text) > _LONGEST:
        raise InputError(f"the image reference {shown} is longer than {_LONGEST} characters")
    rest, at, digest_text = text.partition("@")
    pinned = digest(digest_text) if at else None
    head, slash, tail = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head != head.lower()):
        registry, path = head, tail
    else:
        registry, path = DOCKER, rest
    path, colon, tag = path.partition(":")
    if not slash and (_ID.fullmatch(rest) or (path == "sha256" and _ID.fullmatch(tag))):
        raise InputError(f"{shown} does not name an image: it is the id of one on some node", hint="registry/repository@sha256:…")
    if registry in {"docker.io", "index.docker.io"}:
        registry = DOCKER
        path = path if "/" in path else f"library/{path}"
    if not _HOST.fullmatch(registry):
        raise InputError(f"{shown} does not name an image: {registry[:80]!r} is not a registry host")
    if not _PATH.fullmatch(path):
        why = "repository names are lowercase" if path != path.lower() else "not a repository name"
        raise InputError(f"{shown} does not name an image: {why}", hint="registry/repository:tag or registry/repository@sha256:…")
    if len(registry) + 1 + len(path) > _LONGEST_NAME:
        raise InputError(f"{shown} does not name an image: the name is longer than {_LONGEST_NAME} characters")
    if colon and not _TAG.fullmatch(tag):
        raise InputError(f"{shown} does not name an image: {tag[:80]!r} is not a tag")
    return Reference(registry=registry, repository=path, tag=tag or ("" if pinned else "latest"), digest=pinned)
