"""`mlwarden check --fix` and `--diff`: which files fixes are written into, and which are left with a reason.

Plain YAML files below the paths that somebody gave, never what a tool rendered, a symbolic link or standard input. A file is read once
more when it is fixed, and replaced at once: nothing is lost where the program or the machine stops in between.
"""

import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from mlwarden.checks.text import printable
from mlwarden.cli import fixing, texts
from mlwarden.cli.folders import Tool
from mlwarden.cli.judging import Judged
from mlwarden.cli.manifests import STDIN, Origin
from mlwarden.errors import InputError
from mlwarden.model.finding import Decision

LARGEST = 32 * 1024 * 1024
"""Bytes of a file that is fixed."""
_SUFFIXES = frozenset({".yaml", ".yml"})


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """One file with its fixes; `before` and `after` are the same where there are none.

    Attributes:
        file: its path.
        before: what is in it.
        after: what it would be.
        fixes: how many are written.
        left: why something with a fix stays as it is, one sentence each.
    """

    file: str
    before: bytes = b""
    after: bytes = b""
    fixes: int = 0
    left: tuple[str, ...] = ()


def reason(origin: Origin) -> str:
    """Returns why nothing is written where an object stands, `""` where it may be."""
    if origin.named == STDIN:
        return "standard input"
    if origin.rendered is not Tool.NONE:
        return f"rendered by {origin.rendered.value}: change its source"
    return "" if Path(origin.file).suffix in _SUFFIXES else "not a YAML file"


def repaired(judged: Iterable[Judged], judge: fixing.Judge) -> Iterator[Repaired]:
    """Yields every file with something to fix.

    Args:
        judged: what was found.
        judge: as the cluster would.
    """
    files: dict[str, str] = {}
    others: Counter[str] = Counter()
    for item in judged:
        if item.decision is Decision.DENY and item.verdict and item.verdict.edits:
            if why := reason(item.origin):
                others[f"{item.origin.file}\0{why}"] += 1
            else:
                files.setdefault(item.origin.file, item.origin.named)
    for key in others:
        file, _, why = key.partition("\0")
        yield Repaired(file=file, left=(why,))
    for file, named in files.items():
        try:
            before = _read(Path(file), Path(named))
            done = fixing.fixed(before.decode(), judge)
        except UnicodeDecodeError:
            continue  # whoever read the file has said so
        except InputError as error:
            yield Repaired(file=file, left=(error.message,))
        except (OSError, ValueError) as error:
            yield Repaired(file=file, left=(f"cannot be read: {texts.reason(error)}",))
        else:
            yield Repaired(file=file, before=before, after=done.text.encode(), fixes=done.applied, left=done.left)


def write(item: Repaired) -> str:
    """Writes a file, and returns why it could not, or `""`."""
    try:
        fixing.rewrite(Path(item.file), item.before, item.after)
    except InputError as error:
        return error.message
    except OSError as error:
        return f"cannot be written: {texts.reason(error)}"
    return ""


def show(item: Repaired) -> None:
    """Prints what would be written, as `patch -p1` and `git apply` read it; what a terminal would obey is escaped, and does not apply."""
    for line in fixing.diff(printable(item.file), item.before.decode(), item.after.decode()).split("\n")[:-1]:
        end = "\r\n" if line.endswith("\r") else "\n"
        sys.stdout.write(printable(line.removesuffix("\r")) + end)
    sys.stdout.flush()


def _read(path: Path, named: Path) -> bytes:
    """Returns what is in a plain file below a path that was given.

    Raises:
        InputError: it is none, is elsewhere, or is too large.
        OSError: it cannot be read.
    """
    if not path.resolve().is_relative_to(named.resolve()):
        raise InputError("outside of the paths that were given")
    if stat.S_ISLNK(path.lstat().st_mode):
        raise InputError("a symbolic link: name the file that it leads to")
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 -- pathlib has no O_NOFOLLOW
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InputError("not a plain file")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise InputError(f"longer than {LARGEST // 1024 // 1024} MiB")
    return content
