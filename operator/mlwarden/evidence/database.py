"""Where trivy's vulnerability database comes from, and whether what came is one.

Three ways: the registries that trivy knows, a mirror of them, or a file that somebody carried in (air gap): the published `db.tar.gz`, or a
directory with what is in it. What comes is made ready beside the one in use, opened by trivy once, and takes its place by a rename; what
does not open never does. Handing trivy the directory itself was rejected: a scan could meet it half copied.
"""

import shutil
import struct
import tarfile
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec

from mlwarden.evidence.failure import TransientError, one_line

SCHEMA = 2
LARGEST = 8 << 30
"""Bytes of `trivy.db`, which has 1 GB; an archive may say anything."""
_METADATA, _CONTENT = "metadata.json", "trivy.db"
_SMALL = 65536
_MAGIC = 0xED0CDAED
_PIECE = 1 << 20


class Database(msgspec.Struct, frozen=True, rename="pascal"):
    """`db/metadata.json` of trivy's cache: how old the vulnerability database is."""

    version: int
    updated_at: datetime
    next_update: datetime


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where databases come from.

    Attributes:
        repositories: OCI repositories to try in turn, `registry/repository:2`; none: those that trivy knows.
        file: a `db.tar.gz`, or a directory; then nothing is ever downloaded.
        docker_config: content of a docker `config.json` with the credentials of the mirror.
        plain_http: the administrator says that the mirror speaks no TLS.
        every: seconds between downloads where the next database is due and the mirror has none yet.
    """

    repositories: tuple[str, ...] = ()
    file: Path | None = None
    docker_config: bytes = b'{"auths":{}}'
    plain_http: bool = False
    every: float = 3600


def read(directory: Path) -> Database:
    """Returns how old the database in a directory is.

    Raises:
        TransientError: there is none, or one that this trivy cannot use.
    """
    path = directory / _METADATA
    try:
        found = msgspec.json.decode(path.read_bytes()[:_SMALL], type=Database)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TransientError(
            f"trivy has no vulnerability database ({type(error).__name__})", hint=f"one is needed in {directory}"
        ) from None
    if found.version != SCHEMA:
        raise TransientError(f"trivy's vulnerability database is of schema {found.version}, not {SCHEMA}")
    return found


def signature(source: Path) -> tuple[int, ...]:
    """Returns what tells one file, or one content of a directory, from the next.

    Raises:
        TransientError: it cannot be read.
    """
    try:
        found = [(source / _METADATA).stat(), (source / _CONTENT).stat()] if source.is_dir() else [source.stat()]
    except OSError as error:
        raise _unusable(source, type(error).__name__) from None
    return tuple(number for each in found for number in (each.st_ino, each.st_size, each.st_mtime_ns))


def copy(source: Path, target: Path) -> Database:
    """Copies the database of a `db.tar.gz` or a directory into `target`, which is made, and returns how old it is.

    Raises:
        TransientError: it is not a database, not a whole one, or does not fit.
    """
    target.mkdir()
    try:
        if source.is_dir():
            for name in (_METADATA, _CONTENT):
                with (source / name).open("rb") as file:
                    _write(file, target / name)
        else:
            _unpack(source, target)
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise _unusable(source, one_line(str(error), 120) or type(error).__name__) from None
    if not _is_bolt(target / _CONTENT):
        raise _unusable(source, f"its {_CONTENT} is not one")
    return read(target)


def _unusable(source: Path, reason: str) -> TransientError:
    return TransientError(
        f"the vulnerability database {source} cannot be used: {reason}",
        hint="the published db.tar.gz, or a directory with trivy.db and metadata.json",
    )


def _unpack(source: Path, target: Path) -> None:
    """Takes the two files out of an archive and nothing else, whatever else it names."""
    missing = {_METADATA, _CONTENT}
    with tarfile.open(source, "r|*") as archive:
        for member in archive:
            name = member.name.removeprefix("./").removeprefix("db/")
            if name in missing and member.isreg():
                file = archive.extractfile(member)
                if file is not None:
                    _write(file, target / name)
                    missing.discard(name)
            if not missing:
                return
    raise ValueError(f"there is no {min(missing)} in it")


def _write(file: IO[bytes], target: Path) -> None:
    left = LARGEST if target.name == _CONTENT else _SMALL
    with target.open("xb") as out:
        while piece := file.read(_PIECE):
            left -= len(piece)
            if left < 0:
                raise ValueError(f"its {target.name} is too large")
            out.write(piece)


def _is_bolt(path: Path) -> bool:
    """Whether one of the two first pages says that this is a bbolt file (internal/common/{page,meta}.go)."""
    with path.open("rb") as file:
        head = file.read(_PIECE)
    header = 16
    for size in (0, 4096, 8192, 16384, 65536):
        if len(head) >= size + header + 4 and struct.unpack_from("<I", head, size + header)[0] == _MAGIC:
            return True
    return False


def replace(incoming: Path, cache: Path) -> None:
    """Puts `incoming/db` in the place of `cache/db`: two renames; a scan that opens it between them fails once and is tried again."""
    database = cache / "db"
    if database.exists():
        database.rename(incoming / "old")
    (incoming / "db").rename(database)


def discard(incoming: Path) -> None:
    """Removes what was made ready and what was replaced."""
    shutil.rmtree(incoming, ignore_errors=True)
