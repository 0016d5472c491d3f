"""A pod's volumes as plain directories of the host, and the paths in its arguments rewritten to match.

A container sees a volume at its mount path; a host process sees it where it really is. So each volume is materialised in a directory of
its own, and wherever a mount path stands in an argument or an environment variable, the directory's path takes its place.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlwarden.embedded.api import Api, ApiError
from mlwarden.errors import ClusterError

SERVICE_ACCOUNT_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_MODE = 0o600
_DEFAULT_TOKEN_SECONDS = 3600


class VolumeError(ClusterError):
    """A volume cannot be had: what it names does not exist (yet), or its kind is not supported here."""


def field(pod: Mapping[str, Any], path: str) -> str:
    """Returns what a downward API `fieldRef` names.

    Raises:
        VolumeError: the field is not one that is supported here.
    """
    metadata, spec = pod["metadata"], pod["spec"]
    known: dict[str, Any] = {
        "metadata.name": metadata.get("name"),
        "metadata.namespace": metadata.get("namespace"),
        "metadata.uid": metadata.get("uid"),
        "spec.nodeName": spec.get("nodeName"),
        "spec.serviceAccountName": spec.get("serviceAccountName"),
        "status.podIP": "127.0.0.1",
        "status.hostIP": "127.0.0.1",
    }
    if path in known:
        return str(known[path])
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str(metadata.get(found.group(1), {}).get(found.group(2), ""))
    raise VolumeError(f"the host kubelet does not know the field {path}")


class Volumes:
    """The volumes of one pod.

    Args:
        api: a client with the node's identity: it may read only what pods of this node refer to.
        pod: the pod.
        directory: where the volumes are made; short, because a Unix socket's path may have 104 characters at most.
        fixed: paths that stay as they are even where they lie below a mount path.
    """

    def __init__(self, api: Api, pod: Mapping[str, Any], directory: Path, *, fixed: tuple[Path, ...] = ()) -> None:
        self._api = api
        self._pod = pod
        self._fixed = fixed
        self._renewals: dict[Path, float] = {}
        self._sources: dict[str, Callable[[Path, Any], None]] = {
            "configMap": self._config_map,
            "secret": self._secret,
            "serviceAccountToken": self._token,
            "downwardAPI": self._downward,
        }
        self._directories = {volume["name"]: directory / f"v{index}" for index, volume in enumerate(pod["spec"].get("volumes") or [])}

    def materialise(self) -> None:
        """Makes or refreshes every volume; a file whose content did not change is left alone.

        Raises:
            VolumeError: something it names is not there.
            ApiError: the API server refused or did not answer.
        """
        for volume in self._pod["spec"].get("volumes") or []:
            directory = self._directories[volume["name"]]
            directory.mkdir(parents=True, exist_ok=True)
            if "emptyDir" in volume:
                continue
            sources = volume["projected"].get("sources") or [] if "projected" in volume else [volume]
            for source in sources:
                kind = next((kind for kind in self._sources if kind in source), None)
                if kind is None:
                    raise VolumeError(f"the host kubelet has no volumes of this kind: {volume['name']}")
                self._sources[kind](directory, source[kind])

    def directory(self, container: Mapping[str, Any], mount_path: str) -> Path | None:
        """Returns where the volume that a container mounts at this path really is."""
        return self._mounts(container).get(mount_path)

    def rewrite(self, container: Mapping[str, Any], text: str) -> str:
        """Returns the text with every mount path of the container replaced, the longest that fits."""
        mounts = {**self._mounts(container), **{str(path): path for path in self._fixed}}
        if not mounts:
            return text
        paths = "|".join(re.escape(path.rstrip("/")) for path in sorted(mounts, key=len, reverse=True))
        return re.sub(rf"(?<![\w./-])(?:{paths})(?![\w.-])", lambda found: str(mounts[found.group()]), text)

    def _mounts(self, container: Mapping[str, Any]) -> dict[str, Path]:
        mounts = {}
        for mount in container.get("volumeMounts") or []:
            directory = self._directories[mount["name"]]
            mounts[mount["mountPath"].rstrip("/")] = directory / mount["subPath"] if mount.get("subPath") else directory
        return mounts

    def _config_map(self, directory: Path, source: Mapping[str, Any]) -> None:
        content = self._read("configmaps", source, source.get("name"))
        files = {key: value.encode() for key, value in (content.get("data") or {}).items()}
        files |= {key: base64.b64decode(value) for key, value in (content.get("binaryData") or {}).items()}
        self._place(directory, source, files)

    def _secret(self, directory: Path, source: Mapping[str, Any]) -> None:
        content = self._read("secrets", source, source.get("secretName", source.get("name")))
        self._place(directory, source, {key: base64.b64decode(value) for key, value in (content.get("data") or {}).items()})

    def _token(self, directory: Path, source: Mapping[str, Any]) -> None:
        """A token bound to this pod, asked for as a kubelet asks; renewed after 80 % of its life."""
        path = directory / source["path"]
        if time.monotonic() < self._renewals.get(path, 0):
            return
        metadata = self._pod["metadata"]
        seconds = source.get("expirationSeconds") or _DEFAULT_TOKEN_SECONDS
        bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        spec = {"audiences": [source["audience"]] if source.get("audience") else [], "expirationSeconds": seconds, "boundObjectRef": bound}
        account = self._pod["spec"]["serviceAccountName"]
        answer = self._api.create(f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token", {"spec": spec})
        _write(path, answer["status"]["token"].encode())
        self._renewals[path] = time.monotonic() + 0.8 * seconds

    def _downward(self, directory: Path, source: Mapping[str, Any]) -> None:
        for item in source.get("items") or []:
            _write(directory / item["path"], field(self._pod, item["fieldRef"]["fieldPath"]).encode())

    def _read(self, plural: str, source: Mapping[str, Any], name: Any) -> dict[str, Any]:
        try:
            content: dict[str, Any] = self._api.get(f"/api/v1/namespaces/{self._pod['metadata']['namespace']}/{plural}/{name}")
        except ApiError as error:
            if error.code == 404 and source.get("optional"):
                return {}
            raise
        return content

    def _place(self, directory: Path, source: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        items = source.get("items")
        for key, path in [(item["key"], item["path"]) for item in items] if items else [(key, key) for key in files]:
            if key in files:
                _write(directory / path, files[key])
            elif not source.get("optional"):
                raise VolumeError(f"there is no key {key} for {path}")


def _write(path: Path, content: bytes) -> None:
    """Writes beside and renames, so that nobody reads half a file. The API server has checked that no path leads out of its volume."""
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=_MODE)
    temporary.write_bytes(content)
    temporary.replace(path)
