"""Manifests from where people keep them: files, folders, standard input, kustomize folders and Helm charts.

What cannot be read is a problem with a place, never a reason to stop: the rest is judged all the same. Files are read as the cluster would
read them (Kubernetes' YAML, duplicate keys refused). kustomize and Helm are run by their own binaries and never reach the network: a remote
base is refused before kustomize is called, because it would be code of somebody else's choosing in a check that promises to be offline.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import msgspec

from mlwarden.cli import render
from mlwarden.errors import Error, InputError
from mlwarden.model.workload import Json
from mlwarden.policy import yaml_loads

STDIN = "-"
SUFFIXES = frozenset({".yaml", ".yml", ".json"})
LARGEST = 64 * 1024 * 1024
"""Bytes of one file; the API server takes 3 MiB of one object."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One object and where it was read."""

    source: str
    object: dict[str, Json]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What could not be read, and why."""

    source: str
    error: Error


def read(paths: Sequence[str], *, stdin: TextIO, values: Sequence[str] = ()) -> Iterator[Manifest | Problem]:
    """Yields every object of every path, in order, and a `Problem` for what cannot be read.

    Args:
        paths: files, folders, `-`.
        stdin: what `-` stands for.
        values: values files for Helm charts.
    """
    for path in paths:
        if path == STDIN:
            yield from _objects("standard input", lambda: stdin.read(LARGEST + 1))
        else:
            yield from _path(Path(path), values, named=True)


def _path(path: Path, values: Sequence[str], *, named: bool) -> Iterator[Manifest | Problem]:
    if path.is_dir():
        yield from _folder(path, values)
    elif path.is_file() or named:
        yield from _objects(str(path), lambda: _text(path))


def _folder(folder: Path, values: Sequence[str]) -> Iterator[Manifest | Problem]:
    """A folder is what its tool makes of it; without one, its manifests and its folders."""
    if (folder / "Chart.yaml").is_file():
        yield from _objects(str(folder), lambda: render.helm(folder, values))
        return
    if render.kustomization(folder) is not None:
        yield from _objects(str(folder), lambda: render.kustomize(folder))
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        yield _unreadable(folder, error)
        return
    for entry in entries:
        if entry.name.startswith(".") or (entry.is_dir() and entry.is_symlink()):
            continue  # a version control's own, and loops
        if entry.is_dir() or entry.suffix in SUFFIXES:
            yield from _path(entry, values, named=False)


def _objects(source: str, text: Callable[[], str]) -> Iterator[Manifest | Problem]:
    try:
        found = yaml_loads(text())
    except Error as error:
        yield Problem(source=source, error=error)
        return
    except OSError as error:
        yield _unreadable(source, error)
        return
    for index, document in enumerate(found):
        where = source if len(found) == 1 else f"{source} (document {index + 1})"
        yield from _flat(where, document)


def _flat(source: str, document: Json) -> Iterator[Manifest | Problem]:
    """An object, or the items of a list of objects (`kind: List`, or what `kubectl get -o yaml` writes)."""
    if not isinstance(document, dict):
        yield Problem(source=source, error=InputError(f"not a Kubernetes object but a {type(document).__name__}"))
        return
    kind, version = document.get("kind"), document.get("apiVersion")
    if not (isinstance(kind, str) and kind and isinstance(version, str) and version):
        hint = "a manifest has apiVersion and kind; leave other files out, or name the manifests one by one"
        yield Problem(source=source, error=InputError("not a Kubernetes object: apiVersion or kind is missing", hint=hint))
        return
    items = document.get("items")
    if kind.endswith("List") and isinstance(items, list):
        for index, item in enumerate(items):
            if isinstance(item, dict) and kind != "List":  # items of a typed list may leave out what the list says
                item = {"apiVersion": version, "kind": kind.removesuffix("List"), **item}  # noqa: PLW2901 -- the same item, completed
            yield from _flat(f"{source} items[{index}]", item)
        return
    yield Manifest(source=source, object=document)


def _text(path: Path) -> str:
    if path.stat().st_size > LARGEST:
        raise InputError(f"larger than {LARGEST // 1024 // 1024} MiB")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error


def _unreadable(source: str | os.PathLike[str], error: OSError) -> Problem:
    return Problem(source=str(source), error=InputError(f"cannot be read: {error.strerror or error}"))
