"""SARIF 2.1.0 of what `mlwarden check` found, for GitHub's code scanning and whatever else reads it.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/ (sections named below). What was not read is a notification of the run, and the run is then
not successful: a pipeline that shows only results must not take it for a pass.
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from mlwarden import __version__
from mlwarden.checks.text import clean
from mlwarden.cli.folders import Aside, Problem
from mlwarden.cli.judging import Judged
from mlwarden.cli.spill import Spill
from mlwarden.cli.summary import place
from mlwarden.model.finding import Action, Finding, Severity

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Action.DENY.value: "error", Action.WARN.value: "warning"}  # 3.27.10; what is held is a note: nothing is wrong yet
_SCORES = {Severity.CRITICAL: "9.5", Severity.HIGH: "8.0", Severity.MEDIUM: "5.5", Severity.LOW: "2.0"}  # what GitHub sorts by


def sarif(judged: Iterable[Judged], problems: Spill[Problem], asides: Iterable[Aside]) -> dict[str, Any]:
    """Returns the log, its lists as iterators (`jsonstream`).

    Args:
        judged: is read several times.
        problems: what could not be read.
        asides: what was not read although nothing is wrong with it.
    """
    rules: dict[str, Finding] = {}
    for item in judged:
        for finding in item.told:
            rules.setdefault(finding.policy, finding)
    index = {name: number for number, name in enumerate(rules)}
    unread = chain(
        (_notification("error", each.file, each.line, each.error.message) for each in problems),
        (_notification("note", each.file, each.line, each.why.said) for each in asides),
    )
    run = {
        "tool": {"driver": {"name": "mlwarden", "version": __version__, "rules": map(_rule, rules.values())}},
        "columnKind": "unicodeCodePoints",
        "invocations": iter([{"executionSuccessful": not problems, "toolExecutionNotifications": unread}]),
        "results": _results(judged, index),
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": iter([run])}


def _results(judged: Iterable[Judged], rules: dict[str, int]) -> Iterator[dict[str, Any]]:
    for item in judged:
        for finding in item.told:
            yield _result(item, finding, rules[finding.policy])


def _rule(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.policy,
        "shortDescription": {"text": finding.policy},
        "fullDescription": {"text": clean(finding.why) or finding.policy},
        "properties": {"security-severity": _SCORES[finding.severity], "tags": ["security", "kubernetes"]},
    }


def _result(item: Judged, finding: Finding, rule: int) -> dict[str, Any]:
    origin = item.origin
    where = clean(f"{item.resource}{f', {finding.path}' if finding.path else ''}", 400)
    line = 0 if origin.rendered else origin.line  # what was rendered has other lines than the file
    rendered = f" ({place(item)})" if origin.rendered else ""
    fix = f". Fix: {clean(finding.fix)}" if finding.fix else ""
    identity = "\0".join((origin.file, str(item.resource), finding.policy, finding.path, finding.message))
    return {
        "ruleId": finding.policy,
        "ruleIndex": rule,
        "level": _LEVELS.get(finding.action, "note") if item.decision is not None else "note",
        "message": {"text": f"{clean(finding.message)} ({where}){rendered}{fix}"},
        "locations": [{**_location(origin.file, line), "logicalLocations": [{"fullyQualifiedName": where}]}],
        # 3.27.17: the same finding has the same one when lines move above it
        "partialFingerprints": {"mlwarden/v1": hashlib.sha256(identity.encode(errors="replace")).hexdigest()},
    }


def _notification(level: str, source: str, line: int, reason: str) -> dict[str, Any]:
    return {"level": level, "message": {"text": clean(reason) or "not read"}, "locations": [_location(source, line)]}


def _location(file: str, line: int) -> dict[str, Any]:
    region = {"region": {"startLine": line}} if line > 0 else {}  # 3.30.5: lines begin at 1
    return {"physicalLocation": {"artifactLocation": {"uri": _uri(file)}, **region}}


def _uri(file: str) -> str:
    """A relative reference as RFC 3986 has it, or a file's URI."""
    path = PurePath(file)
    return f"{'file://' if path.is_absolute() else ''}{quote(path.as_posix().encode(errors='surrogateescape'))}"
