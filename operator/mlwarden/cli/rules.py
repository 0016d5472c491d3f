"""The policies that a command judges by: those that are shipped, or those of the given files and folders."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mlwarden import policy
from mlwarden.cli.folders import SUFFIXES, Problem
from mlwarden.errors import Error, InputError, PolicyError
from mlwarden.policy import CompiledPolicy


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    """What compiles, and what does not: name → reason."""

    compiled: tuple[CompiledPolicy, ...]
    broken: dict[str, str]


def shipped(trusted: Sequence[str] = ()) -> Policies:
    """Returns the policies that come with mlwarden, with these registries trusted; every one of them compiles."""
    return Policies(compiled=tuple(map(policy.compile_policy, policy.shipped(tuple(trusted)))), broken={})


def load(paths: Sequence[str], trusted: Sequence[str], problems: list[Problem]) -> Policies:
    """Returns the shipped policies, or those of the given files and folders; one that does not compile is broken, the rest stand."""
    loaded: list[Any] = []
    broken: dict[str, str] = {}
    try:
        for name, content in _files(paths):
            loaded += _parsed(name, content, problems, broken)
        if not paths:
            loaded += policy.shipped(tuple(trusted))
    except (Error, OSError, ValueError) as error:
        problems.append(Problem(source="policies", error=error if isinstance(error, Error) else InputError(str(error))))
    if paths and not loaded and not problems:
        problems.append(Problem(source=", ".join(paths), error=InputError("there are no policies here")))
    compiled = []
    for name, count in Counter(item.name for item in loaded).items():
        if count > 1:
            twice = PolicyError(f"{count} policies have this name", hint="names are unique in a cluster: rename one")
            problems.append(Problem(source=f"policy {name}", error=twice))
    for item in loaded:
        try:
            compiled.append(policy.compile_policy(item))
        except PolicyError as error:
            problems.append(Problem(source=f"policy {item.name}", error=error))
            broken[item.name] = error.message
    return Policies(compiled=tuple(compiled), broken=broken)


def _parsed(source: str, content: str, problems: list[Problem], broken: dict[str, str]) -> list[Any]:
    try:
        return list(policy.load([(source, content)]))
    except Error as error:
        problems.append(Problem(source=source, error=error))
        broken[Path(source).stem] = error.message
        return []


def _files(paths: Sequence[str]) -> Iterable[tuple[str, str]]:
    for named in paths:
        path = Path(named)
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES) if path.is_dir() else [path]
        for file in files:
            yield str(file), file.read_text(encoding="utf-8-sig")
