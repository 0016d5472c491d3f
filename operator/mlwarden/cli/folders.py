"""What of a folder is read, and how: plain files, kustomize folders, Helm charts; and what is not read, with the reason.

A folder is looked through before anything in it is read, because who uses what decides: a base or a Component is judged through the
overlays that use it, a file that a kustomization uses through that kustomization. What uses each other in a circle is built all the same,
so that kustomize says so, and what is used by nothing but kustomizations that cannot be built is read by itself: nothing drops out because
something claims to use it.
"""

import stat
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from mlwarden.cli import ignore, render
from mlwarden.cli.texts import reason
from mlwarden.errors import Error, InputError

SUFFIXES = frozenset({".yaml", ".yml", ".json"})


class Tool(StrEnum):
    """What makes manifests of a path."""

    NONE = ""
    KUSTOMIZE = "kustomize"
    HELM = "helm"


class Why(StrEnum):
    """Why something was not read although nothing is wrong with it."""

    NO_MANIFEST = "no manifest"
    UNUSED = "beside a kustomization that does not use it"
    COMPONENT = "a Component that nothing here uses"
    LIBRARY = "a library chart: judged through the charts that use it"
    HIDDEN = "hidden"
    IGNORED = "ignored"
    LINK = "a symbolic link out of the folder"
    ALONE = "read by itself, because what uses it cannot be built"

    @property
    def is_strict(self) -> bool:
        """Whether somebody who wants everything read (`--strict-input`) is told by the exit code."""
        return self not in {Why.IGNORED, Why.HIDDEN, Why.LIBRARY, Why.ALONE}

    @property
    def said(self) -> str:
        """The same as a sentence about a path."""
        return self.value if self is Why.ALONE else f"not read, {self.value}"


class Aside(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was not read, or not as manifests, and is no error: counted and said."""

    source: str
    why: Why
    line: int = 0
    within: str = ""

    @property
    def file(self) -> str:
        """The file, as somebody would open it."""
        return self.within or self.source


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What could not be read, and why.

    Attributes:
        source: where, as it is shown.
        error: why.
        line: the line of the document in its file, from 1; 0 for the whole.
        within: the file, where `source` is a part of one.
    """

    source: str
    error: Error
    line: int = 0
    within: str = ""

    @property
    def file(self) -> str:
        """The file, as somebody would open it."""
        return self.within or self.source


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """Something to read: a file as it is, or a folder as its tool renders it."""

    path: Path
    tool: Tool


@dataclass
class _Found:
    """What a walk brings together, in the order of the names."""

    entries: list[Item | Aside | Problem] = field(default_factory=list)
    kustomizations: dict[Path, Path] = field(default_factory=dict)
    """Without links → as it is called here."""


def look(path: Path, patterns: Sequence[ignore.Pattern] = (), failed: AbstractSet[Path] = frozenset()) -> Iterator[Item | Aside | Problem]:
    """Yields what is to be read of a path that somebody named, what is not, and what cannot be.

    Args:
        path: a file or a folder.
        patterns: what is left out of folders.
        failed: the kustomize folders that could not be built, as far as the caller knows by the time the last item was read: what only
            they use comes after everything else.
    """
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:
        yield unreadable(path, error)
        return
    if not is_folder:
        yield Item(path=path, tool=Tool.NONE)
        return
    found = _Found()
    _walk(path, path, [*patterns], found)
    graph = _uses(found, path)
    reached = graph.reached()
    used = reached - graph.roots
    unused = {folder for folder in graph.components - reached if found.kustomizations[folder] != path}
    done: set[Path] = set()
    for entry in found.entries:
        for settled in _settled(entry, path, found, used, unused):
            if isinstance(settled, Item):
                done.add(settled.path.resolve())
            yield settled
    places = {entry.path.resolve(): entry for entry in found.entries if isinstance(entry, Item)}
    while fallen := graph.fallen({folder.resolve() for folder in failed}) & places.keys() - done:
        done |= fallen
        graph.roots |= fallen & graph.uses.keys()
        for place in sorted(fallen):
            yield Aside(source=str(places[place].path), why=Why.ALONE)
            yield places[place]


def unreadable(source: Path | str, error: OSError | ValueError) -> Problem:
    """Returns the problem of something that the system will not read."""
    return Problem(source=str(source), error=InputError(f"cannot be read: {reason(error)}"))


def _walk(folder: Path, top: Path, patterns: list[ignore.Pattern], found: _Found) -> None:
    """Looks through a folder and everything below it, with a stack of its own: folders may be nested as deep as the disk allows."""
    stack: list[tuple[Path, list[ignore.Pattern]] | Item | Aside | Problem] = [(folder, patterns)]
    while stack:
        each = stack.pop()
        if not isinstance(each, tuple):
            found.entries.append(each)
            continue
        here, known = each
        try:
            known = [*known, *ignore.of_folder(here)]
        except (Error, OSError) as error:
            what = error if isinstance(error, Error) else InputError(f"cannot be read: {reason(error)}")
            found.entries.append(Problem(source=str(here / ignore.FILE), error=what))
        try:
            stack += reversed(list(_folder(here, top, known, found)))
        except (OSError, ValueError) as error:
            found.entries.append(unreadable(here, error))


def _folder(
    folder: Path, top: Path, patterns: list[ignore.Pattern], found: _Found
) -> Iterator[tuple[Path, list[ignore.Pattern]] | Item | Aside | Problem]:
    """One folder's own: what its tool makes of it, then its files and folders."""
    if (folder / "Chart.yaml").is_file():
        if folder != top and render.is_library(folder):
            yield Aside(source=str(folder), why=Why.LIBRARY)
        else:
            yield Item(path=folder, tool=Tool.HELM)
        return
    own = render.kustomization(folder)
    if own is not None:
        found.kustomizations[folder.resolve()] = folder
        yield Item(path=folder, tool=Tool.KUSTOMIZE)
    for entry in sorted(folder.iterdir()):
        if entry == own:
            continue
        try:
            yield from _entry(entry, top, patterns)
        except (OSError, ValueError) as error:
            yield unreadable(entry, error)


def _entry(entry: Path, top: Path, patterns: list[ignore.Pattern]) -> Iterator[tuple[Path, list[ignore.Pattern]] | Item | Aside | Problem]:
    mode = entry.lstat().st_mode
    is_link = stat.S_ISLNK(mode)
    is_manifest = entry.suffix in SUFFIXES
    if is_link and not entry.is_dir():
        if is_manifest:
            mode = entry.stat().st_mode  # of what it leads to, and an error where it leads nowhere
    elif is_link:
        if not entry.resolve().is_relative_to(top.resolve()):
            yield Aside(source=str(entry), why=Why.LINK)
        return  # what it leads to is read at its place
    is_folder = stat.S_ISDIR(mode)
    if not (is_folder or is_manifest):
        return
    if entry.name.startswith("."):
        yield Aside(source=str(entry), why=Why.HIDDEN)
    elif ignore.ignored(entry, patterns, is_folder=is_folder):
        yield Aside(source=str(entry), why=Why.IGNORED)
    elif is_folder:
        yield entry, patterns
    else:
        yield Item(path=entry, tool=Tool.NONE)


@dataclass
class _Uses:
    """Which kustomization uses what: all of it as absolute paths without links.

    Attributes:
        uses: kustomize folder → the files and folders that it names.
        components: those that are no deployment by themselves.
        roots: what is built.
    """

    uses: dict[Path, set[Path]]
    components: set[Path]
    roots: set[Path]

    def reached(self, failed: AbstractSet[Path] = frozenset()) -> set[Path]:
        """Returns every file and folder that is judged through a root, the roots among them, without those that failed."""
        folders = self._folders(self.roots - failed)
        return folders.union(*(self.uses[folder] for folder in folders))

    def fallen(self, failed: AbstractSet[Path]) -> set[Path]:
        """Returns the resources of what failed that are judged through nothing else."""
        resources = {place for folder in failed for place in render.resources(folder)}
        return resources - self.reached(failed) - self.components

    def close(self) -> None:
        """Makes roots of what uses each other in a circle: whoever comes first is built, and kustomize says what is wrong."""
        reached = self._folders(self.roots)
        for folder in sorted(self.uses.keys() - self.components):
            if folder not in reached:
                self.roots.add(folder)
                reached |= self._folders({folder})

    def _folders(self, roots: AbstractSet[Path]) -> set[Path]:
        reached: set[Path] = set()
        stack = list(roots)
        while stack:
            folder = stack.pop()
            if folder not in reached and folder in self.uses:
                reached.add(folder)
                stack += self.uses[folder]
        return reached


def _uses(found: _Found, top: Path) -> _Uses:
    """What kustomizations use; what nobody uses is a root, and so is what was named."""
    uses = {folder: set(render.uses(folder)) for folder in found.kustomizations}
    components = {folder for folder in uses if render.is_component(folder)}
    referred = set().union(*(others - {folder} for folder, others in uses.items())) if uses else set()
    roots = {folder for folder in uses if folder not in components and (folder not in referred or found.kustomizations[folder] == top)}
    graph = _Uses(uses=uses, components=components, roots=roots)
    graph.close()
    return graph


def _settled(
    entry: Item | Aside | Problem, top: Path, found: _Found, used: set[Path], unused: set[Path]
) -> Iterator[Item | Aside | Problem]:
    """An entry, unless it is judged through something else."""
    if not isinstance(entry, Item):
        yield entry
        return
    place = entry.path.resolve()
    if entry.tool is Tool.KUSTOMIZE:
        if place in unused:
            yield Aside(source=str(entry.path), why=Why.COMPONENT)
        elif place not in used:
            yield entry
    elif place in used:
        return
    elif entry.tool is Tool.NONE and place.parent in found.kustomizations and entry.path != top:
        yield Aside(source=str(entry.path), why=Why.UNUSED)
    else:
        yield entry
