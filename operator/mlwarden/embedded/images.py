"""Tiny images with exactly the packages a test wants, pushed over plain HTTP.

A scanner does not run an image, it reads files: `etc/os-release`, Alpine's list of installed packages, Python's METADATA. An image of one
layer with these and nothing else is, to a scanner, a whole distribution. A few hundred bytes each; the same input gives the same digest.
For a real node each has a program besides (`program`), which stays and says what it sees.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mlwarden.embedded import build
from mlwarden.errors import ClusterError

ALPINE = "3.22.1"
DEBIAN = "12.5"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_PROGRAM = "app/server"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def clean(registry: str, name: str, *, runs: bool = False) -> str:
    """Pushes an image in which `trivydb.ADVISORIES` finds nothing; returns its digest."""
    return push_image(registry, name, alpine={"musl": "1.2.5-r10"}, python={"torch": "2.6.0", "requests": "2.32.4"}, runs=runs)


def vulnerable(registry: str, name: str, *, runs: bool = False) -> str:
    """Pushes an image with one HIGH and one CRITICAL vulnerability, both with a fix; returns its digest."""
    return push_image(registry, name, alpine={"musl": "1.2.5-r9"}, python={"torch": "2.5.1", "requests": "2.32.4"}, runs=runs)


def without_fix(registry: str, name: str) -> str:
    """Pushes an image with one CRITICAL vulnerability that nobody has fixed; returns its digest."""
    return push_image(registry, name, alpine={"musl": "1.2.5-r10", "without-a-fix": "1.0-r0"})


def opaque(registry: str, name: str, *, runs: bool = False) -> str:  # noqa: ARG001 -- whoever saw into it would run it
    """Pushes an image with no operating system and no packages, of which a scanner can say nothing; returns its digest."""
    return push_image(registry, name, files={"app/server": b"\x7fELF and so on"})


def push_image(
    registry: str,
    name: str,
    *,
    alpine: Mapping[str, str] | None = None,
    python: Mapping[str, str] | None = None,
    debian: Mapping[str, str] | None = None,
    node: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
    history: Sequence[str] = (),
    runs: bool = False,
) -> str:
    """Pushes an image of one layer. Different names give different digests, and the same call the same one.

    Args:
        registry: `host:port`, plain HTTP.
        name: `repository:tag`; the tag is `latest` when there is none.
        alpine: installed Alpine packages and their versions; None means that there is no operating system.
        python: installed Python packages and their versions.
        debian: installed Debian packages and their versions, instead of Alpine ones; `name (source)` for one of another source package.
        node: installed packages of Node.js and their versions.
        files: more files.
        history: instructions of the Dockerfile that the image says it was made by.
        runs: whether it has a program that really runs, tools/resident; it is the entry point.

    Returns:
        The manifest's digest, `sha256:…`.

    Raises:
        ClusterError: the registry refused.
    """
    content: dict[str, bytes] = dict(files or {})
    if runs:
        content[_PROGRAM] = build.binary("resident").read_bytes()
    if alpine is not None:
        content["etc/os-release"] = f'NAME="Alpine Linux"\nID=alpine\nVERSION_ID={ALPINE}\n'.encode()
        content["etc/alpine-release"] = f"{ALPINE}\n".encode()
        installed = [
            f"C:Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=\nP:{package}\nV:{version}\nA:x86_64\no:{package}\n" for package, version in alpine.items()
        ]
        content["lib/apk/db/installed"] = "\n".join(installed).encode() + b"\n"
    if debian is not None:
        content["etc/os-release"] = f'NAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="{DEBIAN.partition(".")[0]}"\n'.encode()
        content["etc/debian_version"] = f"{DEBIAN}\n".encode()
        content["var/lib/dpkg/status"] = "\n".join(_dpkg(package, version) for package, version in debian.items()).encode()
    for package, version in (node or {}).items():
        content[f"app/node_modules/{package}/package.json"] = json.dumps({"name": package, "version": version}).encode()
    for package, version in (python or {}).items():
        path = f"usr/lib/python3.12/site-packages/{package}-{version}.dist-info/METADATA"
        content[path] = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode()
    layer = _tar(content)
    packed = gzip.compress(layer, mtime=0)
    repository, _, tag = name.partition(":")
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{_PROGRAM}"], "Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            **({"history": [{"created_by": each} for each in history]} if history else {}),
        }
    ).encode()
    return _push(registry, repository, tag, _MadeOf(config, _CONFIG), _MadeOf(packed, _LAYER))


def push_artifact(registry: str, name: str, *, config_type: str, layer_type: str, layer: bytes, title: str) -> str:
    """Pushes an artifact of one file, as trivy's databases are published, and returns its digest; as `push_image`.

    Args:
        registry: `host:port`, plain HTTP.
        name: `repository:tag`.
        config_type: media type of the configuration, which is empty.
        layer_type: media type of the file.
        layer: the file.
        title: its name.
    """
    repository, _, tag = name.partition(":")
    return _push(registry, repository, tag, _MadeOf(b"{}", config_type), _MadeOf(layer, layer_type, title))


class _MadeOf(NamedTuple):
    """A blob of a manifest."""

    content: bytes
    media_type: str
    title: str = ""

    def descriptor(self) -> dict[str, Any]:
        title = {"annotations": {"org.opencontainers.image.title": self.title}} if self.title else {}
        return {"mediaType": self.media_type, "digest": _digest(self.content), "size": len(self.content), **title}


def _push(registry: str, repository: str, tag: str, config: _MadeOf, layer: _MadeOf) -> str:
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config.descriptor(), "layers": [layer.descriptor()]}
    connection = http.client.HTTPConnection(registry, timeout=30)
    try:
        for blob in (config.content, layer.content):
            _push_blob(connection, repository, blob)
        body = json.dumps(manifest).encode()
        _send(connection, "PUT", f"/v2/{repository}/manifests/{tag or 'latest'}", body, _MANIFEST)
    finally:
        connection.close()
    return _digest(body)


def _dpkg(package: str, version: str) -> str:
    name, _, source = package.partition(" ")
    lines = [f"Package: {name}", "Status: install ok installed", "Architecture: amd64", f"Version: {version}"]
    if source:
        lines.append(f"Source: {source.strip('()')} ({version})")
    return "\n".join([*lines, "Maintainer: Debian <x@debian.org>", "Description: it", ""])


def _push_blob(connection: http.client.HTTPConnection, repository: str, blob: bytes) -> None:
    location = _send(connection, "POST", f"/v2/{repository}/blobs/uploads/", b"", "application/octet-stream")
    separator = "&" if "?" in location else "?"
    _send(connection, "PUT", f"{location}{separator}digest={_digest(blob)}", blob, "application/octet-stream")


def _send(connection: http.client.HTTPConnection, method: str, path: str, body: bytes, content_type: str) -> str:
    """Returns the Location of the answer."""
    connection.request(method, path, body, {"Content-Type": content_type})
    response = connection.getresponse()
    text = response.read()
    if response.status >= 300:
        raise ClusterError(f"{method} {path}: the registry answered {response.status}: {text.decode(errors='replace')[:200]}")
    return response.getheader("Location") or ""


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            entry.mode = 0o755 if content.startswith(b"\x7fELF") else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
