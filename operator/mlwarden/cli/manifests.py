"""Manifests from where people keep them: files, folders, standard input, kustomize folders and Helm charts.

What cannot be read is a problem with a place, never a reason to stop: the rest is judged all the same. Files are read as the cluster would
read them (Kubernetes' YAML, duplicate keys refused), one document at a time, and a list of objects one object at a time: how much there is
does not matter. kustomize and Helm are run by their own binaries and never reach the network: a remote base is refused before kustomize is
called, because it would be code of somebody else's choosing in a check that promises to be offline.
"""

import pickle
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from mlwarden.cli import folders, ignore, render, texts
from mlwarden.cli.folders import Aside, Item, Problem, Tool, Why
from mlwarden.errors import Error, InputError
from mlwarden.model import documents
from mlwarden.model.outline import may_be_object
from mlwarden.model.workload import Json

STDIN = "-"
_STDIN = "standard input"
_TEMPLATE = re.compile(rb"^[ \t]*(?:-[ \t]+)*(?:\{[{%]|<%)|:[ \t]+\{[{%]|<%", re.MULTILINE)
"""What a template has where YAML cannot; in a text or behind a word it is a word like others, and Argo's own."""
_HALVES = {"apiVersion": re.compile(r"([a-z0-9.-]+/)?v[0-9]\w*"), "kind": re.compile(r"[A-Z][A-Za-z0-9]*")}
"""What they look like in a manifest; `kind: discovery#restDescription` is of something else."""
_CHART_SOURCE = re.compile(rb"^# Source: [^/\n]+/([^\n]+?)\r?$", re.MULTILINE)
"""Helm's comment on each document: the chart's name and the file in it."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where an object was read.

    Attributes:
        file: as somebody would open it; of a kustomize folder its kustomization, of a chart the template.
        label: how it is called where there are several in the file.
        line: of the object in the file, from 1; where it is rendered: in what the tool wrote.
        span: from and to, in bytes, of the document in the file that the object stands in; of something rendered: nothing.
        items: where in lists of objects inside of the document it stands.
        rendered: the tool that made it.
        named: the path that somebody gave and this was found under.
    """

    file: str
    label: str
    line: int = 0
    span: tuple[int, int] = (0, 0)
    items: tuple[int, ...] = ()
    rendered: Tool = Tool.NONE
    named: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One object and where it was read; `size` is about how many bytes its text has."""

    origin: Origin
    object: dict[str, Json]
    size: int = 0

    @property
    def source(self) -> str:
        """Where, for a person."""
        return self.origin.label


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How paths are read.

    Attributes:
        values: values files for Helm charts.
        kube_version: the version of Kubernetes that Helm renders for, its own default where this is `""`.
        ignore: patterns of what is left out of folders.
    """

    values: Sequence[str] = ()
    kube_version: str = ""
    ignore: Sequence[str] = ()


def read(paths: Sequence[str], *, stdin: IO[bytes] | None, options: Options | None = None) -> Iterator[Manifest | Problem | Aside]:
    """Yields every object of every path, in order, a `Problem` for what cannot be read, an `Aside` for what is no manifest.

    Args:
        paths: files, folders, `-`.
        stdin: what `-` stands for; None where it is closed.
        options: how they are read.
    """
    how = options or Options()
    for path in dict.fromkeys(paths):
        if path == STDIN:
            yield from _stdin(stdin)
            continue
        failed: set[Path] = set()
        for found in folders.look(Path(path), [*_here(Path(path)), *ignore.parse(how.ignore, Path(path))], failed):
            yield from _item(found, path, how, failed) if isinstance(found, Item) else [found]


def _here(path: Path) -> Iterator[ignore.Pattern]:
    """What the current folder leaves out of a folder below it; what that folder says itself is read when it is looked through."""
    if path.absolute() != Path.cwd():
        try:
            yield from ignore.of_folder(Path.cwd())
        except (Error, OSError):
            return  # told where it is looked through; what it would have left out is read


def _stdin(stdin: IO[bytes] | None) -> Iterator[Manifest | Problem | Aside]:
    try:
        stream = texts.readable(stdin)
    except InputError as error:
        yield Problem(source=_STDIN, error=error)
        return
    yield from _Reader(file=_STDIN, named=STDIN, explicit=True).objects(stream)


def _item(item: Item, named: str, how: Options, failed: set[Path]) -> Iterator[Manifest | Problem | Aside]:
    """What is in a file, or in what its tool renders; a kustomize folder that cannot be built is added to `failed`."""
    source = str(item.path)
    try:
        if item.tool is Tool.HELM:
            with render.helm(item.path, how.values, how.kube_version) as stream:
                yield from _Reader(file=source, named=named, tool=item.tool, explicit=True).objects(stream)
        elif item.tool is Tool.KUSTOMIZE:
            file = str(render.kustomization(item.path) or item.path)
            failed.add(item.path)
            with render.kustomize(item.path) as stream:
                failed.remove(item.path)
                yield from _Reader(file=file, label=source, named=named, tool=item.tool, explicit=True).objects(stream)
        else:
            explicit = source == str(Path(named))
            with texts.opened(item.path, named=explicit) as stream:
                yield from _Reader(file=source, named=named, explicit=explicit).objects(stream)
    except Error as error:
        yield Problem(source=source, error=error)
    except (OSError, ValueError) as error:
        yield folders.unreadable(source, error)


class _Packed(msgspec.Struct, frozen=True):
    """An item of a list of objects, as small as it can be kept, and its line."""

    line: int
    value: bytes


def _packed(value: Json, line: int) -> Json:
    return _Packed(line, pickle.dumps(value, protocol=5))


def _unpacked(value: Json) -> Json:
    return pickle.loads(value.value) if isinstance(value, _Packed) else value  # noqa: S301 -- packed above


class _Reader:
    """The documents of one text.

    Args:
        file: where it comes from.
        named: the path that somebody gave.
        label: how it is called where that is not `file`.
        tool: what rendered it.
        explicit: everything in it has to be a manifest.
    """

    def __init__(self, *, file: str, named: str, label: str = "", tool: Tool = Tool.NONE, explicit: bool) -> None:
        self._file = file
        self._named = named
        self._label = label or file
        self._tool = tool
        self._explicit = explicit

    def objects(self, stream: IO[bytes]) -> Iterator[Manifest | Problem | Aside]:
        """Yields what stands in the text. One document stays behind, because only the last one can know that it is alone."""
        number = 0
        before: texts.Part | None = None
        failed: Problem | None = None
        try:
            for part in texts.parts(stream):
                if before is not None:
                    number += 1
                    yield from self._part(before, number)
                before = part
        except InputError as error:
            failed = Problem(source=self._label, error=error)
        except (OSError, ValueError) as error:
            failed = folders.unreadable(self._label, error)
        if before is not None:
            yield from self._part(before, number + 1 if number else 0)
        if failed is not None:
            yield failed

    def _part(self, part: texts.Part, number: int) -> Iterator[Manifest | Problem | Aside]:
        """One document; `number` counts from 1, and is 0 for one that is alone."""
        label = f"{self._label} (document {number})" if number else self._label
        text = ""
        try:
            if part.error is not None:
                raise part.error
            text = part.text()
            found = documents.read(text, first=part.line, keep=_packed)
        except InputError as error:
            if text and not self._explicit and not may_be_object(text):
                yield Aside(source=label, why=Why.NO_MANIFEST, line=part.line, within=self._file)
            else:
                yield Problem(source=self._where(part, label, part.line), error=_template(part, error), line=part.line, within=self._file)
            return
        span = (0, 0) if self._tool else (part.start, part.end)
        for index, (line, document) in enumerate(found, 1):
            where = label if len(found) == 1 else f"{self._label} (document {index})" if not number else f"{label}[{index}]"
            origin = Origin(
                file=self._template_of(part) or self._file,
                label=self._where(part, where, line),
                line=line,
                span=span,
                rendered=self._tool,
                named=self._named,
            )
            yield from self._flat(origin, document, len(part.raw))

    def _where(self, part: texts.Part, label: str, line: int) -> str:
        """The label; of a chart's document the template's file, because nobody can open what was rendered."""
        return f"{file} (rendered, line {line})" if (file := self._template_of(part)) else label

    def _template_of(self, part: texts.Part) -> str:
        found = _CHART_SOURCE.search(part.raw) if self._tool is Tool.HELM else None
        return f"{self._file}/{found[1].decode(errors='replace')}" if found else ""

    def _flat(self, origin: Origin, document: Json, size: int) -> Iterator[Manifest | Problem | Aside]:
        """An object, or the items of a list of objects (`kind: List`, or what `kubectl get -o yaml` writes)."""
        said = document if isinstance(document, dict) else {}
        kind, version = said.get("kind"), said.get("apiVersion")
        if not (isinstance(kind, str) and kind and isinstance(version, str) and version):
            yield self._no_manifest(origin, document)
            return
        items = document.get("items")
        if not isinstance(items, list):
            if kind == "List" and items is not None:
                yield Problem(source=origin.label, error=InputError("items of a List is not a list"), line=origin.line, within=origin.file)
            elif kind != "List" or version != "v1":
                yield Manifest(origin=origin, object=document, size=size)
            return
        if not kind.endswith("List"):
            yield Manifest(origin=origin, object={**document, "items": [_unpacked(item) for item in items]}, size=size)
            return
        for index, packed in enumerate(items):
            item = _unpacked(packed)
            if isinstance(item, dict) and kind != "List":  # items of a typed list may leave out what the list says
                item = {"apiVersion": version, "kind": kind.removesuffix("List"), **item}
            line = packed.line if isinstance(packed, _Packed) else origin.line
            inside = msgspec.structs.replace(origin, label=f"{origin.label} items[{index}]", line=line, items=(*origin.items, index))
            yield from self._inside(inside, item, len(packed.value) if isinstance(packed, _Packed) else size)

    def _inside(self, origin: Origin, item: Json, size: int) -> Iterator[Manifest | Problem | Aside]:
        """What stands in a list of objects has to be an object."""
        for found in self._flat(origin, item, size):
            if isinstance(found, Aside):
                yield Problem(source=origin.label, error=_not_an_object(item), line=origin.line, within=origin.file)
            else:
                yield found

    def _no_manifest(self, origin: Origin, document: Json) -> Problem | Aside:
        """Something that no cluster would take: an error where a manifest was to be, or where it half is one."""
        said = [isinstance(document, dict) and _says(document.get(field), how) for field, how in _HALVES.items()]
        if self._explicit or any(said):
            return Problem(source=origin.label, error=_not_an_object(document), line=origin.line, within=origin.file)
        return Aside(source=origin.label, why=Why.NO_MANIFEST, line=origin.line, within=origin.file)


def _says(value: Json, how: re.Pattern[str]) -> bool:
    return isinstance(value, str) and bool(how.fullmatch(value))


def _not_an_object(document: Json) -> InputError:
    if not isinstance(document, dict):
        return InputError(f"not a Kubernetes object but a {type(document).__name__}")
    hint = "a manifest has apiVersion and kind; leave other files out with --ignore, or name the manifests one by one"
    return InputError("not a Kubernetes object: apiVersion or kind is missing", hint=hint)


def _template(part: texts.Part, error: InputError) -> InputError:
    """What is said of a text that nobody has rendered yet: what is wrong with it as YAML helps nobody."""
    if not _TEMPLATE.search(part.raw):
        return error
    return InputError(f"this is a template: render it (helm template …) and check what comes out; as it is, {error.message}")
