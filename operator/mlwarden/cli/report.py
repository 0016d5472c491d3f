"""The JSON contract of `mlwarden check --output json`."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from mlwarden.checks.text import clean
from mlwarden.cli.folders import Aside, Problem
from mlwarden.cli.judging import Judged, Tally
from mlwarden.model.finding import Decision, Finding
from mlwarden.workloads import Standing


def report(judged: Iterable[Judged], problems: Iterable[Problem], asides: Iterable[Aside], tally: Tally) -> dict[str, Any]:
    """Returns the report, its lists as iterators (`jsonstream`).

    Args:
        judged: is read several times.
        problems: what could not be read.
        asides: what was not read although nothing is wrong with it.
        tally: of all of them.
    """
    return {
        "verdict": tally.worst,
        "findings": _findings(judged),
        "notes": (_finding(item, each) for item in judged if item.standing is Standing.CLUSTER for each in item.told),
        "objects": map(_object, judged),
        "unread": ({**_place(each.file, each.line), "reason": clean(each.error.message)} for each in problems),
        "leftOut": ({**_place(each.file, each.line), "reason": each.why.value} for each in asides),
        "totals": _totals(tally),
    }


def _findings(judged: Iterable[Judged]) -> Iterator[dict[str, Any]]:
    """All of what counts, what is only recorded among it, in the order of the input, each object's worst first."""
    for item in judged:
        if item.verdict is not None and item.decision is not None:
            yield from (_finding(item, each) for each in item.verdict.findings)


def _finding(item: Judged, finding: Finding) -> dict[str, Any]:
    return {**msgspec.to_builtins(finding), **_place(item.origin.file, item.origin.line)}


def _object(item: Judged) -> dict[str, Any]:
    place = {**_place(item.origin.file, item.origin.line), "rendered": item.origin.rendered.value}
    return {**place, "resource": item.resource, "standing": item.standing, "verdict": item.decision}


def _place(file: str, line: int) -> dict[str, Any]:
    return {"file": file.encode(errors="backslashreplace").decode(), "line": line}


def _totals(tally: Tally) -> dict[str, Any]:
    left_out: Counter[str] = Counter(tally.asides)
    return {
        "objects": tally.total,
        "denied": tally.decided(Decision.DENY),
        "held": tally.decided(Decision.HOLD),
        "admitted": tally.decided(Decision.ADMIT),
        "warned": tally.warned,
        "judgedByPods": tally.by_pods,
        "withoutNamespace": tally.standing(Standing.CLUSTER),
        "notUnderstood": tally.not_understood,
        "neverGoverned": tally.standing(Standing.EXEMPT),
        "unread": tally.problems,
        "leftOut": left_out.total(),
    }
