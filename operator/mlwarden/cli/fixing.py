"""Fixes written into the text of a manifest: comments, quotes, line ends and the other documents stay as they are.

An edit is kept only where the whole object, judged again, is refused for less and for nothing new, and where the text that was written
reads back as exactly the object that was meant: an anchor that two containers share, or a number that two YAML versions read differently,
would otherwise change what nobody asked for. What cannot be written so is left, and said. Rejected: writing what the library dumps, which
makes a diff of the whole file out of one field wherever somebody writes YAML in a way of their own.
"""

import difflib
import io
import os
import re
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mlwarden import workloads
from mlwarden.checks import patch
from mlwarden.errors import Error, InputError
from mlwarden.model.documents import yaml_loads
from mlwarden.model.finding import Action, Edit, Outcome, Verdict
from mlwarden.model.workload import Json

LARGEST_DOCUMENT = 1024 * 1024
"""Characters of a document; with everything that has to be kept, each of them takes a hundred bytes."""
Judge = Callable[[Mapping[str, Json]], Verdict | None]
"""An object → what the policies say of it; None where nobody judges it."""

_MARK = re.compile(r"^---(?=[ \t\n]|\Z)", re.MULTILINE)  # at the beginning of a line it ends a document, inside a block scalar, too
_OTHER_MARKS = re.compile(r"^(?:%|\.\.\.(?:[ \t\n]|\Z))", re.MULTILINE)
_STEP = re.compile(r"([A-Za-z0-9_-]+)((?:\[\d+\])*)")
_COMMENT = re.compile(r"(?:^|\s)(#.*)")
_OURS = "mlwarden.io/"
_MANY = 2000
"""Lines from which on two texts are compared less exactly."""
_BOM = "\ufeff"


class Fixed(msgspec.Struct, frozen=True, kw_only=True):
    """A text with its fixes.

    Attributes:
        text: what it is now; the same where nothing could be written.
        applied: how many edits were written.
        left: why a document with something to fix stays as it is, one sentence each.
    """

    text: str
    applied: int
    left: tuple[str, ...]


def fixed(text: str, judge: Judge) -> Fixed:
    """Returns the text of a YAML file with every edit written that makes an object be refused for less.

    Args:
        text: of the file; never what a tool rendered.
        judge: as the cluster would.
    """
    bom, body = (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)
    crlf = "\r\n" in body
    plain = body.replace("\r\n", "\n")
    if "\r" in plain or (crlf and plain.replace("\n", "\r\n") != body):
        return Fixed(text=text, applied=0, left=("its lines end in different ways",))
    if _OTHER_MARKS.search(plain):
        return Fixed(text=text, applied=0, left=("it has YAML directives or document end marks",))
    marks = [0, *(found.start() for found in _MARK.finditer(plain) if found.start()), len(plain)]
    parts, applied, left = [], 0, []
    for number, (start, end) in enumerate(pairwise(marks), 1):
        part, count, why = _document(plain[start:end], judge)
        parts.append(part)
        applied += count
        left += [f"document {number}: {why}"] if why else []
    if not applied:
        return Fixed(text=text, applied=0, left=tuple(left))
    changed = "".join(parts)
    return Fixed(text=bom + (changed.replace("\n", "\r\n") if crlf else changed), applied=applied, left=tuple(left))


def diff(name: str, before: str, after: str) -> str:
    """Returns a unified diff, `""` where nothing changed. Only a line feed ends a line, as for `patch` and git."""
    lines = difflib.unified_diff(_lines(before), _lines(after), f"a/{name}", f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def rewrite(path: Path, before: bytes, after: bytes) -> None:
    """Replaces a file at once, with its mode and owner; nothing is written where it is no longer what was read.

    Raises:
        InputError: for a symbolic link, something that is no file, and a file that changed meanwhile.
        OSError: where the folder cannot be written.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a plain file: --fix does not follow symbolic links")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(after)
            file.flush()
            os.fsync(file.fileno())
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
        if path.is_symlink() or path.read_bytes() != before:
            raise InputError("it changed while it was judged: nothing was written")
        Path(name).replace(path)
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()


def _lines(text: str) -> list[str]:
    *whole, rest = text.split("\n")
    return [*(f"{line}\n" for line in whole), *([rest] if rest else [])]


def _document(text: str, judge: Judge) -> tuple[str, int, str]:
    """The text of one document with its fixes, how many, and why not."""
    if len(text) > LARGEST_DOCUMENT:
        return text, 0, f"longer than {LARGEST_DOCUMENT // 1024} KiB"
    try:
        found = yaml_loads(text)
    except (Error, RecursionError):
        return text, 0, ""  # whoever reads the file says so
    if len(found) != 1 or not isinstance(found[0], dict):
        return text, 0, ""
    edits, meant = _edits(found[0], judge)
    if not edits:
        return text, 0, ""
    if text.removeprefix("---").lstrip().startswith("{"):
        return text, 0, "it is written as JSON, or in braces as a whole"
    try:
        for written in _written(text, edits):
            if _reads_as(written, meant) and _comments(text) <= _comments(written):
                return written, len(edits), ""
    except (YAMLError, RecursionError, ValueError) as error:
        return text, 0, f"its fixes cannot be written: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return text, 0, "its fixes would change something else, too (an anchor that is used twice, a comment, YAML that is read in two ways)"


def _reads_as(text: str, meant: Json) -> bool:
    try:
        return yaml_loads(text) == [meant]
    except (Error, RecursionError):
        return False


def _edits(document: Mapping[str, Json], judge: Judge) -> tuple[list[Edit], Json]:
    """What to write into a document (of a list: into its items), and what it is then."""
    items, kind = document.get("items"), document.get("kind")
    if not isinstance(kind, str) or not kind.endswith("List") or not isinstance(items, list):
        return _helping(document, judge)
    said = {"apiVersion": document.get("apiVersion"), "kind": kind.removesuffix("List")} if kind != "List" else {}
    found: list[Edit] = []
    meant: list[Json] = []
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            meant.append(item)
            continue
        edits, better = _edits({**said, **item}, judge)  # items of a typed list may leave out what the list says
        found += [msgspec.structs.replace(edit, path=f"items[{index}]{'.' if edit.path else ''}{edit.path}") for edit in edits]
        meant.append({key: value for key, value in better.items() if key in item or key not in said})
    return found, {**document, "items": meant}


def _helping(body: Mapping[str, Json], judge: Judge) -> tuple[list[Edit], Json]:
    """Takes the edits that help, all at once where each does and else one by one, until none does: a policy tries only some elements."""
    kept: list[Edit] = []
    verdict = judge(body)
    progress = True
    while verdict is not None and progress:
        progress = False
        for edits in ((verdict.edits,) if len(verdict.edits) > 1 else ()) + tuple((edit,) for edit in verdict.edits):
            better = _applied(body, edits)
            if better is None or not _is_ours_to_change(body, better, edits):
                continue
            again = judge(better)
            if again is not None and _is_better(verdict, again, len(edits)):
                body, verdict, progress = better, again, True
                kept += edits
                if len(edits) > 1:
                    break
    return kept, body


def _is_better(before: Verdict, after: Verdict, least: int) -> bool:
    """Whether it is refused for so much less, and for nothing that it was not refused, warned or unsure about before."""
    told, now = (Counter(_known(verdict)) for verdict in (before, after))
    return _refusals(after) <= _refusals(before) - least and now <= told


def _known(verdict: Verdict) -> list[tuple[str, str, str]]:
    bad = {Outcome.FAIL, Outcome.UNKNOWN}
    return [(each.policy, each.outcome.value, each.action) for each in verdict.findings if each.outcome in bad]


def _refusals(verdict: Verdict) -> int:
    return sum(each.outcome is Outcome.FAIL and each.action == Action.DENY.value for each in verdict.findings)


def _is_ours_to_change(before: Mapping[str, Json], after: Mapping[str, Json], edits: Sequence[Edit]) -> bool:
    """Never an exception or a profile, an image, or which containers there are, whatever a policy's patch says."""
    if any(_OURS in step for edit in edits for leaf in patch.leaves(edit.patch) for step in leaf):
        return False
    one, other = workloads.extract(before), workloads.extract(after)
    containers = [[(each.path, each.name, each.role) for pod in it.pods for each in pod.containers] for it in (one, other)]
    return one.resource == other.resource and one.images == other.images and containers[0] == containers[1]


def _applied(body: Mapping[str, Json], edits: Sequence[Edit]) -> Mapping[str, Json] | None:
    copy: Mapping[str, Json] = deepcopy(dict(body))
    for edit in edits:
        holder = _holder(copy, edit.path, dict)
        if holder is None:
            return None
        better = patch.merged(holder, edit.patch)
        holder.clear()
        holder.update(better)
    return copy


def _holder(body: Any, path: str, empty: Callable[[], Any]) -> Any:
    """The mapping at a JSON path, made where it is missing; None where something else is in its place."""
    for step in path.split(".") if path else ():
        found = _STEP.fullmatch(step)
        if found is None or not isinstance(body, dict):
            return None
        name, indexes = found.groups()
        if not indexes and body.get(name) is None:
            body[name] = empty()
        body = body.get(name)
        for index in map(int, re.findall(r"\d+", indexes)):
            if not isinstance(body, list) or index >= len(body):
                return None
            body = body[index]
    return body if isinstance(body, dict) else None


def _written(text: str, edits: list[Edit]) -> Iterator[str]:
    """Yields the text with the edits: first with every other line as it was, then as a whole the way that ruamel.yaml writes it."""
    marked = text.startswith("---")
    head, body = (text.split("\n", 1) if "\n" in text else (text, "")) if marked else ("", text)
    if marked and head[3:].strip() and not head[3:].lstrip().startswith("#"):
        raise ValueError("it begins on the line of its document mark")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1 << 20  # lines stay as long as they are
    yaml.indent(**_indents(text))
    tree = yaml.load(body)
    same = _dumped(yaml, tree)
    for edit in edits:
        holder = _holder(tree, edit.path, dict)
        if holder is None:
            raise ValueError(f"there is no mapping at {edit.path}")
        _merge(holder, edit.patch)
    changed = _dumped(yaml, tree)
    start = f"{head}\n" if marked else ""
    yield start + _kept(body, same, changed)
    yield start + changed


def _dumped(yaml: YAML, tree: Any) -> str:
    out = io.StringIO()
    yaml.dump(tree, out)
    return out.getvalue()


def _kept(ours: str, same: str, changed: str) -> str:
    """Returns what changed from `same` to `changed` in our own text, line by line (diff3); where both differ, as it was changed.

    The comment of a line that goes stays in a line of its own.
    """
    base, mine, theirs = same.split("\n"), ours.split("\n"), changed.split("\n")
    here, there = _matches(base, mine), _matches(base, theirs)
    merged: list[str] = []
    last = [-1, -1, -1]
    for at in (*(line for line in range(len(base)) if line in here and line in there), len(base)):
        now = [at, here.get(at, len(mine)), there.get(at, len(theirs))]
        old, my, their = (lines[start + 1 : end] for lines, start, end in zip((base, mine, theirs), last, now, strict=True))
        if their and not my and not old:
            place = _end_of_block(merged, their)
            merged[place:place] = their
        else:
            merged += my if their == old else [*_orphaned(my, their), *their]
        merged += [base[at]] if at < len(base) else []
        last = now
    return "\n".join(merged)


def _end_of_block(before: list[str], new: list[str]) -> int:
    """Where lines belong that are new after others: before comments and blank lines that are about what follows further out."""
    depth = _indent(new[0])
    at = len(before)
    while at and (not before[at - 1].strip() or (before[at - 1].lstrip().startswith("#") and _indent(before[at - 1]) < depth)):
        at -= 1
    return at


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _orphaned(before: list[str], after: list[str]) -> Iterator[str]:
    """Yields comments of lines that are not in others, indented as those lines."""
    known = _comments("\n".join(after))
    for line in before:
        for comment in _comments(line):
            if known[comment] <= 0:
                yield f"{' ' * _indent(line)}{comment}"
            known[comment] -= 1


def _matches(base: list[str], other: list[str]) -> dict[int, int]:
    """Line of `base` → the same line of the other text."""
    blocks = difflib.SequenceMatcher(None, base, other, autojunk=len(base) > _MANY).get_matching_blocks()
    return {block.a + step: block.b + step for block in blocks for step in range(block.size)}


def _comments(text: str) -> Counter[str]:
    """What may be comments, of each line, in a text."""
    return Counter(found[1].rstrip() for line in text.split("\n") if (found := _COMMENT.search(line)))


def _merge(target: Any, change: Mapping[str, Any]) -> None:
    """As `patch.merged`, in place: what is not changed keeps its comments."""
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            _merge(target[key], value)
        else:
            target[key] = deepcopy(value)


def _indents(text: str) -> dict[str, int]:
    """How the document indents mappings and the dashes of lists, by the first of each; what mixes them is written in one way."""
    lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    mapping, offset = 2, 0
    for above, line in pairwise(lines):
        if above.rstrip().endswith(":") and line.lstrip().startswith("- "):
            column = len(above) - len(above.lstrip(" -"))
            offset = max(len(line) - len(line.lstrip()) - column, 0)
            break
    for above, line in pairwise(lines):
        deeper = len(line) - len(line.lstrip()) - (len(above) - len(above.lstrip()))
        if above.rstrip().endswith(":") and not above.lstrip().startswith("-") and not line.lstrip().startswith("-") and deeper > 0:
            mapping = deeper
            break
    return {"mapping": mapping, "sequence": offset + 2, "offset": offset}
