"""Fixes written into the text of a manifest: comments, quotes, line ends and the other documents stay as they are.

An edit is kept only where the whole object, judged again, is refused for less and for nothing new, and where the text that was written
reads back as exactly the object that was meant: an anchor that two containers share, or a number that two YAML versions read differently,
would otherwise change what nobody asked for. What cannot be written so is left, and said. Rejected: dumping every document again,
which makes a diff of the whole file out of one field.
"""

import difflib
import io
import os
import re
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
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

Judge = Callable[[Mapping[str, Json]], Verdict | None]
"""An object → what the policies say of it; None where nobody judges it."""

_MARK = re.compile(r"^---(?=[ \t\n]|\Z)", re.MULTILINE)  # at the beginning of a line it ends a document, inside a block scalar, too
_OTHER_MARKS = re.compile(r"^(?:%|\.\.\.(?:[ \t\n]|\Z))", re.MULTILINE)
_STEP = re.compile(r"([A-Za-z0-9_-]+)((?:\[\d+\])*)")
_OURS = "mlwarden.io/"
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
    """Returns a unified diff, `""` where nothing changed."""
    lines = difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{name}", f"b/{name}")
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


def _document(text: str, judge: Judge) -> tuple[str, int, str]:
    """The text of one document with its fixes, how many, and why not."""
    try:
        found = yaml_loads(text)
    except (Error, RecursionError):
        return text, 0, ""  # whoever reads the file says so
    if len(found) != 1 or not isinstance(found[0], dict):
        return text, 0, ""
    edits, meant = _edits(found[0], judge)
    if not edits:
        return text, 0, ""
    try:
        written = _written(text, edits)
        read = yaml_loads(written)
    except (Error, YAMLError, RecursionError, ValueError) as error:
        return text, 0, f"its fixes cannot be written: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    if read != [meant]:
        return text, 0, "its fixes would change something else, too (an anchor that is used twice, or YAML that is read in two ways)"
    return written, len(edits), ""


def _edits(document: Mapping[str, Json], judge: Judge) -> tuple[list[Edit], Json]:
    """What to write into a document (of a list: into its items), and what it is then."""
    items = document.get("items")
    if document.get("kind") != "List" or not isinstance(items, list):
        return _helping(document, judge)
    found: list[Edit] = []
    meant = []
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            meant.append(item)
            continue
        edits, better = _edits(item, judge)
        found += [msgspec.structs.replace(edit, path=f"items[{index}]{'.' if edit.path else ''}{edit.path}") for edit in edits]
        meant.append(better)
    return found, {**document, "items": meant}


def _helping(body: Mapping[str, Json], judge: Judge) -> tuple[list[Edit], Json]:
    """Takes one edit after the other that helps, until none does: of many elements a policy tries only the first."""
    kept: list[Edit] = []
    verdict = judge(body)
    progress = True
    while verdict is not None and progress:
        progress = False
        for edit in verdict.edits:
            better = _applied(body, edit)
            if better is None or not _is_ours_to_change(body, better, edit):
                continue
            again = judge(better)
            if again is not None and _is_better(verdict, again):
                body, verdict, progress = better, again, True
                kept.append(edit)
    return kept, body


def _is_better(before: Verdict, after: Verdict) -> bool:
    """Whether it is refused for less, and for nothing that it was not refused, warned or unsure about before."""
    told, now = (Counter(_known(verdict)) for verdict in (before, after))
    return _refusals(after) < _refusals(before) and now <= told


def _known(verdict: Verdict) -> list[tuple[str, str, str]]:
    bad = {Outcome.FAIL, Outcome.UNKNOWN}
    return [(each.policy, each.outcome.value, each.action) for each in verdict.findings if each.outcome in bad]


def _refusals(verdict: Verdict) -> int:
    return sum(each.outcome is Outcome.FAIL and each.action == Action.DENY.value for each in verdict.findings)


def _is_ours_to_change(before: Mapping[str, Json], after: Mapping[str, Json], edit: Edit) -> bool:
    """Never an exception or a profile, an image, or which containers there are, whatever a policy's patch says."""
    if any(_OURS in step for leaf in patch.leaves(edit.patch) for step in leaf):
        return False
    one, other = workloads.extract(before), workloads.extract(after)
    containers = [[(each.path, each.name, each.role) for pod in it.pods for each in pod.containers] for it in (one, other)]
    return one.resource == other.resource and one.images == other.images and containers[0] == containers[1]


def _applied(body: Mapping[str, Json], edit: Edit) -> Mapping[str, Json] | None:
    copy: Mapping[str, Json] = deepcopy(dict(body))
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


def _written(text: str, edits: list[Edit]) -> str:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1 << 20  # lines stay as long as they are
    yaml.indent(**_indents(text))
    marked = text.startswith("---")
    head, body = (text.split("\n", 1) if "\n" in text else (text, "")) if marked else ("", text)
    if marked and head[3:].strip() and not head[3:].lstrip().startswith("#"):
        raise ValueError("it begins on the line of its document mark")
    tree = yaml.load(body)
    for edit in edits:
        holder = _holder(tree, edit.path, dict)
        if holder is None:
            raise ValueError(f"there is no mapping at {edit.path}")
        _merge(holder, edit.patch)
    out = io.StringIO()
    yaml.dump(tree, out)
    return (f"{head}\n" if marked else "") + out.getvalue()


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
