"""Globs over images, written as images are: `python` is `docker.io/library/python` here, too.

A glob that can match nothing is a policy that is never asked, so it is refused when it is written: one with a scheme, a tag, a capital
letter in its repository, a registry without a repository. What could be a host or a folder of Docker Hub (`team*/x`) is both.

Anchored at both ends and segment by segment: `*` never crosses a `/`, so `registry.example.com/*` is no way to mean
`registry.example.com.evil.org/x` (Portieris 0.14.2 had it otherwise). What is compared is the name that an image has in full, under every
name its registry goes by: in whatever case and with whatever default port its host is written, and by every alias of Docker Hub.

By hand and not by a regular expression: the name is the workload's author's, and several stars would backtrack.
"""

import functools
import re

from mlwarden.errors import InputError
from mlwarden.model import reference as references

_TOKENS = re.compile(r"\*+|[^*]+")
_STARS = re.compile(r"\*+")
_PORTS = 65535
_HINT = "registry/repository as in an image, without tag and digest; * for part of one segment, ** for any number of segments"


def useless(glob: str) -> str:
    """Returns why no image could ever match the glob, with what to write instead; `""` where one could."""
    shown = repr(glob[:120])
    if "://" in glob:
        return f"{shown} matches no image: images are named without a scheme, {glob.partition('://')[2][:100]!r}"
    host, slash, rest = glob.partition("/")
    if not slash and "**" not in glob and ("." in host or ":" in host or host in {"localhost", "*"} or "@" in host):
        return _whole(host, shown)
    try:
        # A star that nothing could stand for does not help: `-*` and `*:x` match no name.
        parsed = references.parse(_STARS.sub("1", glob))
    except InputError as error:
        why = error.message.partition(" does not name an image: ")[2] or "not a name"
        return f"{shown} matches no image: {why}; {_HINT}"
    if ":" in (rest if slash else host) or "@" in glob:
        return f"{shown} matches no image: a tag or a digest is no part of the name; {_HINT}"
    if int(parsed.registry.rpartition("]")[2].partition(":")[2] or 0) > _PORTS:
        return f"{shown} matches no image: there is no such port"
    return ""


def matches(glob: str, reference: references.Reference) -> bool:
    """Whether the glob matches the image, by any name that the image goes by."""
    return any(_matches(each, name) for each in _meant(glob) for name in _names(reference.registry, reference.repository))


def _whole(host: str, shown: str) -> str:
    if host == "*":
        return f"{shown} matches no image: write ** for every image, docker.io/library/* for the official ones of Docker Hub"
    head, colon, _ = host.partition(":")
    if "@" in host or (colon and not ("." in head or head == "localhost")):
        return f"{shown} matches no image: a tag or a digest is no part of the name; {_HINT}"
    return f"{shown} matches no image: it is a registry without a repository, write {host}/**"


@functools.lru_cache(maxsize=1024)
def _meant(glob: str) -> tuple[str, ...]:
    """The glob with its host in the one way hosts are compared; and as one of Docker Hub, where it names no host for certain."""
    host, slash, rest = glob.partition("/")
    full = f"{references.same_host(host)}/{rest}" if slash else glob
    certain = slash and ("." in host or ":" in host or host == "localhost")
    return (full,) if certain else (full, f"docker.io/{glob}")


@functools.lru_cache(maxsize=4096)
def _names(registry: str, repository: str) -> tuple[str, ...]:
    """`registry/repository`, under every name it may be written by."""
    host = references.same_host(registry)
    if host != references.DOCKER:
        return (f"{host}/{repository}", f"{host}:443/{repository}") if ":" not in host.rpartition("]")[2] else (f"{host}/{repository}",)
    official = repository.removeprefix("library/")
    paths = {repository, official, f"library/{official}"} if "/" not in official else {repository}
    return tuple(f"{alias}/{path}" for alias in sorted({references.DOCKER, *references.HUB}) for path in sorted(paths))


@functools.lru_cache(maxsize=16384)
def _matches(glob: str, name: str) -> bool:
    """One pass over the glob with every position of the name it may have reached."""
    reached = {0}
    for token in _TOKENS.findall(glob):
        if token[0] != "*":
            reached = {position + len(token) for position in reached if name.startswith(token, position)}
        elif reached:
            ends = {min(reached): len(name)} if len(token) > 1 else {position: _segment_end(name, position) for position in reached}
            reached = {end for position, last in ends.items() for end in range(position, last + 1)}
    return len(name) in reached


def _segment_end(name: str, position: int) -> int:
    end = name.find("/", position)
    return len(name) if end < 0 else end
