"""What is left out of a folder: `--ignore GLOB` and `.mlwardenignore`, written as `.gitignore` is.

A pattern without a slash is a name anywhere below; one with a slash begins at the folder that says it; `**` is any number of folders, a
slash at the end means folders alone, `!` takes back what an earlier line left out. What a command names itself is never left out.
"""

import fnmatch
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from mlwarden.errors import InputError

FILE = ".mlwardenignore"
_LARGEST = 1024 * 1024


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """One line, and the folder that it is about."""

    folder: str
    steps: tuple[str, ...]
    folders_only: bool
    back: bool

    def matches(self, path: str, *, is_folder: bool) -> bool:
        """Whether the pattern is about an absolute path."""
        if self.folders_only and not is_folder:
            return False
        above, names = Path(self.folder).parts, Path(path).parts
        return names[: len(above)] == above and _match(self.steps, names[len(above) :])


def parse(lines: Iterable[str], folder: Path) -> tuple[Pattern, ...]:
    """Returns the patterns of some lines; empty ones and those that begin with `#` are none."""
    found = []
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        back, text = text.startswith("!"), text.removeprefix("!")
        text = text[1:] if text.startswith(("\\#", "\\!")) else text
        bare = text.strip("/").removeprefix("./")
        anchored = text.startswith(("/", "./")) or "/" in bare
        steps = tuple(step for step in bare.split("/") if step)
        if steps:
            whole = steps if anchored else ("**", *steps)
            found.append(Pattern(folder=str(folder.absolute()), steps=whole, folders_only=text.endswith("/"), back=back))
    return tuple(found)


def of_folder(folder: Path) -> tuple[Pattern, ...]:
    """Returns what the folder's own `.mlwardenignore` says, nothing where it has none.

    Raises:
        InputError: it is not text, or too large.
        OSError: it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return ()
    with path.open("rb") as file:
        raw = file.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise InputError("larger than 1 MiB")
    try:
        return parse(raw.decode("utf-8-sig").splitlines(), folder)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: byte {error.start} is {raw[error.start]:#04x}") from None


def ignored(path: Path, patterns: Sequence[Pattern], *, is_folder: bool) -> bool:
    """Whether the patterns leave a path out; the last one that is about it counts."""
    if not patterns:
        return False
    whole = str(path.absolute())
    return next((not each.back for each in reversed(patterns) if each.matches(whole, is_folder=is_folder)), False)


def _match(steps: Sequence[str], names: Sequence[str]) -> bool:
    """One pass over the pattern with every number of names that it may have matched."""
    reached = {0}
    for step in steps:
        if step == "**":
            reached = set(range(min(reached), len(names) + 1)) if reached else reached
        else:
            reached = {at + 1 for at in reached if at < len(names) and fnmatch.fnmatchcase(names[at], step)}
    return len(names) in reached
