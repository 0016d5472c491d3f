"""What trivy cannot see in an image: programs of no package, linked statically, and packages whose description is hidden from it.

Trivy takes what it finds in package databases, lock files, Go's build information and Rust's. A C program linked against a vulnerable
OpenSSL is none of these, and a report about an image of nothing else reads like a clean bill. Trivy's own list of executables does not
help: it is for looking up attestations, and is in no report. So the layers are read a second time, once, in order.

A package is what its description says, and trivy reads regular files alone: one that is a link to a file of another name, that a later
layer has deleted, or that names nothing, is a package that is not in its report, and is there for Python all the same. Whoever deletes the
whole description hides a package from everybody; nobody can tell that from code of one's own.

It must not cry wolf, because what it says is `Unknown` and holds a pod. So it speaks of a program only where it has seen the whole image as
it runs (every layer, what later ones delete and replace) and can tell whose the file is: Alpine's and Debian's lists of files, directories
of Python's and Node's packages, the programs in trivy's report. Where it cannot (RPM's lists are in a database of its own), and where an
image is larger than the bounds, it says nothing at all: the bounds are there so that no image costs two pulls of gigabytes. It looks for
programs, not for libraries: an ELF file that the kernel would start without a loader.
"""

import gzip
import io
import posixpath
import re
import struct
import tarfile
import time
from collections.abc import Iterable, Sequence
from typing import IO, Any

import msgspec

LARGEST = 64 << 20
"""Bytes of all layers of an image as they are pulled; a larger one is not looked into."""
_UNPACKED = 1 << 30
_SECONDS = 20
_FILES = 60_000
_HEAD = 1 << 16
_LIST = 16 << 20
_HEADER = 1 << 20
_LAYERS = frozenset({"application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"})
_PACKAGED = ("/site-packages/", "/dist-packages/", "/node_modules/", "/gems/")
"""Directories in which every file is some package's, and advisories about the package are about it."""
_RPM = ("var/lib/rpm/", "usr/lib/sysimage/rpm/", "usr/share/rpm/")
_DESCRIPTION, _PARTS = ".dist-info", frozenset({"METADATA", "RECORD", "WHEEL", "INSTALLER"})
"""Python's folder with the description of a package, and what every installer writes there (PEP 376, PEP 427)."""
_EXECUTABLE, _SHARED = 2, 3
_DYNAMIC, _INTERPRETER = 2, 3
_NEEDED, _FLAGS_1, _PIE = 1, 0x6FFFFFFB, 0x08000000


class _TooMuchError(Exception):
    """The bounds are exceeded: nothing is said of the image."""


def pullable(layers: Sequence[tuple[str, int]]) -> bool:
    """Whether an image of these layers (media type, bytes) is looked into."""
    return all(kind in _LAYERS and size >= 0 for kind, size in layers) and sum(size for _, size in layers) <= LARGEST


class Unseen(msgspec.Struct, frozen=True, kw_only=True):
    """What is not in trivy's report, sorted.

    Attributes:
        programs: paths of programs that nobody can see into.
        packages: paths of what describes a package, and does not to trivy.
    """

    programs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


def unseen(layers: Iterable[bytes], *, seen: frozenset[str], known: frozenset[str] = frozenset()) -> Unseen:
    """Returns what trivy does not see; nothing where that cannot be told.

    Args:
        layers: as pulled, gzipped, the lowest first.
        seen: files that trivy found build information in.
        known: normalised names of the Python packages that it found.
    """
    tree = _Tree()
    try:
        for layer in layers:
            tree.lay(layer)
        return Unseen(programs=tree.opaque(seen), packages=tree.hidden(known))
    except (_TooMuchError, tarfile.TarError, OSError, EOFError, ValueError, RecursionError):
        return Unseen()  # what is wrong with a layer is for trivy to say


class _Header(tarfile.TarInfo):
    """A tar header whose extensions (long names, attributes) are bounded: the module reads them into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        """Raises _TooMuchError for an extension larger than any name."""
        found: _Header = super().frombuf(buf, encoding, errors)
        if found.type in {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}:
            _bounded(found.size, _HEADER)
        return found


def _bounded(number: int, limit: int) -> None:
    if number > limit:
        raise _TooMuchError


class _Bounded(io.RawIOBase):
    """Counts what comes out of the layers of one image, and how long it takes."""

    def __init__(self, tree: "_Tree", inner: gzip.GzipFile) -> None:
        self._tree, self._inner = tree, inner

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises _TooMuchError where it was too much, or too long."""
        piece = self._inner.read(len(buffer))
        self._tree.unpacked += len(piece)
        _bounded(self._tree.unpacked, _UNPACKED)
        if time.monotonic() > self._tree.deadline:
            raise _TooMuchError
        buffer[: len(piece)] = piece
        return len(piece)


class _File(msgspec.Struct, frozen=True):
    """What matters of a file.

    Attributes:
        static: it is a program that the kernel starts without a loader.
        owns: files that it lists as a package's.
        target: where a link with the name of a description leads.
        part: of the folder that describes a Python package.
    """

    static: bool = False
    owns: tuple[str, ...] = ()
    target: str = ""
    part: bool = False


class _Tree:
    """The files of an image that matter, as the layers so far make them."""

    def __init__(self) -> None:
        self.unpacked, self.deadline = 0, time.monotonic() + _SECONDS
        self._files: dict[str, _File] = {}
        self._rpm = False

    def lay(self, layer: bytes) -> None:
        """Puts one layer on top."""
        hidden, new = [], dict[str, _File]()
        with gzip.GzipFile(fileobj=io.BytesIO(layer)) as inner:
            stream = io.BufferedReader(_Bounded(self, inner), 1 << 16)
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive:
                for number, member in enumerate(archive):
                    _bounded(number, _FILES)
                    path = posixpath.normpath("/" + member.name).lstrip("/")
                    folder, name = posixpath.split(path)
                    if name == ".wh..wh..opq":
                        hidden.append(f"{folder}/")
                    elif name.startswith(".wh."):
                        hidden.append(posixpath.join(folder, name.removeprefix(".wh.")))
                    else:
                        new[path] = _file(path, member, archive)
                        self._rpm |= path.startswith(_RPM)
        for path in hidden:
            for known in [known for known in self._files if known == path or known.startswith(f"{path.rstrip('/')}/")]:
                del self._files[known]
        for path, file in new.items():
            if file == _File():
                self._files.pop(path, None)
            else:
                self._files[path] = file

    def opaque(self, seen: frozenset[str]) -> tuple[str, ...]:
        """Returns programs that are nobody's."""
        if self._rpm:
            return ()
        owned = {_usr(path) for file in self._files.values() for path in file.owns} | {_usr(path) for path in seen}
        found = (path for path, file in self._files.items() if file.static and _usr(path) not in owned)
        return tuple(sorted(path for path in found if not any(part in f"/{path}" for part in _PACKAGED)))

    def hidden(self, known: frozenset[str]) -> tuple[str, ...]:
        """Returns what describes packages, and not to who reads regular files by their names. `known`: Python's that trivy found."""
        found = self._unowned(path for path, file in self._files.items() if file.target and _kind(file.target) != _kind(path))
        if not self._rpm:  # those of the system's own packages are not in its report
            parts = self._unowned(path for path, file in self._files.items() if file.part)
            found |= {folder for folder in map(posixpath.dirname, parts) if _package(folder) not in known}
        return tuple(sorted(found))

    def _unowned(self, paths: Iterable[str]) -> set[str]:
        owned = {_usr(path) for file in self._files.values() for path in file.owns}
        return {path for path in paths if _usr(path) not in owned}


def normalised(name: str) -> str:
    """Returns the name of a Python package as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _package(folder: str) -> str:
    """Of `torch-2.5.1.dist-info`, the name."""
    whole = posixpath.basename(folder).removesuffix(_DESCRIPTION)
    return normalised(whole.rpartition("-")[0] or whole)


def _kind(path: str) -> str:
    """By which name trivy takes a file for the description of a package, `""` for any other."""
    name = posixpath.basename(path)
    if name in {"METADATA", "PKG-INFO"} or (name == "package.json" and "node_modules/" in path):
        return name
    return next((suffix for suffix in (".jar", ".war", ".gemspec") if name.endswith(suffix)), "")


def _led(path: str, member: tarfile.TarInfo) -> str:
    """Where a link leads, as a path of the image: a hard link's is one, a symbolic link's is relative to it."""
    start = "/" if member.islnk() else posixpath.join("/", posixpath.dirname(path))
    return posixpath.normpath(posixpath.join(start, member.linkname)).lstrip("/")


def _file(path: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> _File:
    """What matters of a file: nothing, for most."""
    folder, name = posixpath.split(path)
    part = folder.endswith(_DESCRIPTION) and name in _PARTS
    if member.islnk() or member.issym():
        return _File(target=_led(path, member) if _kind(path) else "", part=part)
    if part or not member.isreg():
        return _File(part=part and member.isreg())
    listing = path in {"lib/apk/db/installed", "usr/lib/apk/db/installed"} or (folder == "var/lib/dpkg/info" and name.endswith(".list"))
    sums = folder == "var/lib/dpkg/status.d" and name.endswith(".md5sums")
    if not listing and not sums and not member.mode & 0o111:
        return _File()
    content = archive.extractfile(member)
    if content is None:
        return _File()
    if listing or sums:
        _bounded(member.size, _LIST)
        lines = content.read().decode(errors="replace").splitlines()
        if sums:
            return _File(owns=tuple(line.partition("  ")[2] for line in lines))
        return _File(owns=tuple(_apk(lines) if "apk" in folder else (line.lstrip("/") for line in lines)))
    return _File(static=_static(content))


def _apk(lines: Iterable[str]) -> Iterable[str]:
    """The files in Alpine's list: a folder (`F:`), then what is in it (`R:`)."""
    folder = ""
    for line in lines:
        if line.startswith("F:"):
            folder = line[2:]
        elif line.startswith("R:"):
            yield posixpath.join(folder, line[2:])


def _usr(path: str) -> str:
    """One spelling for both sides of merged directories: `/sbin/ldconfig` is `/usr/sbin/ldconfig`."""
    path = posixpath.normpath("/" + path).lstrip("/")
    return path.removeprefix("usr/") if path.startswith(("usr/bin/", "usr/sbin/", "usr/lib")) else path


def _static(content: IO[bytes]) -> bool:
    """Whether a file is a program that the kernel starts without a loader (System V ABI, chapters 4 and 5)."""
    head = content.read(_HEAD)
    if len(head) < 64 or head[:4] != b"\x7fELF" or head[4] not in {1, 2} or head[5] not in {1, 2}:
        return False
    order, wide = "<" if head[5] == 1 else ">", head[4] == 2
    kind = struct.unpack_from(f"{order}H", head, 16)[0]
    start = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)[0]
    size, number = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
    if kind not in {_EXECUTABLE, _SHARED} or size < (56 if wide else 32) or start + size * number > len(head):
        return False
    dynamic = (0, 0)
    for at in range(start, start + size * number, size):
        segment = struct.unpack_from(f"{order}I", head, at)[0]
        if segment == _INTERPRETER:
            return False
        if segment == _DYNAMIC:
            dynamic = struct.unpack_from(f"{order}QxxxxxxxxxxxxxxxxQ" if wide else f"{order}IxxxxxxxxI", head, at + (8 if wide else 4))
    if kind == _EXECUTABLE:
        return bool(number)
    return _position_independent(_at(content, head, *dynamic), order, wide=wide)


def _at(content: IO[bytes], head: bytes, offset: int, size: int) -> bytes:
    """A part of a file of which the head was read already."""
    size = min(size, _HEAD)
    if offset + size <= len(head):
        return head[offset : offset + size]
    position = len(head)
    while position < offset:
        piece = content.read(min(offset - position, 1 << 20))
        if not piece:
            return b""
        position += len(piece)
    return (head[offset:] if offset < len(head) else b"") + content.read(size)


def _position_independent(dynamic: bytes, order: str, *, wide: bool) -> bool:
    """Whether a shared object says that it is a program, and needs no other: `-static-pie`."""
    row = struct.Struct(f"{order}{'QQ' if wide else 'II'}")
    entries = [row.unpack_from(dynamic, at) for at in range(0, len(dynamic) - row.size + 1, row.size)]
    return any(tag == _FLAGS_1 and value & _PIE for tag, value in entries) and not any(tag == _NEEDED for tag, _ in entries)
