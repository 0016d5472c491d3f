"""What `mlwarden check` prints about what it judged."""

import os
import sys
from collections.abc import Iterable

import msgspec

from mlwarden import engine
from mlwarden.checks.text import clean
from mlwarden.cli import terminal
from mlwarden.cli.folders import Aside, Problem, Why
from mlwarden.cli.judging import CLUSTER_PROFILE, Judged, Tally
from mlwarden.engine import messages
from mlwarden.model.finding import Decision, Finding, Verdict
from mlwarden.workloads import Standing

_RED, _YELLOW, _GREEN, _DIM = "\033[31m", "\033[33m", "\033[32m", "\033[2m"
_WORST = (Decision.ADMIT, Decision.HOLD, Decision.DENY)
_OF_ITS_PODS = "the cluster judges the pods of this object, not the object; its answer to them:"
_NAMED = 5
"""Paths that are named of those that were left out for one reason."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON contract of `--output json`."""

    verdict: Decision
    findings: tuple[Finding, ...]


def report(judged: Iterable[Judged]) -> Report:
    """Returns the verdict over everything and all findings, in the order of the input, each object's worst first."""
    worst = Decision.ADMIT
    findings: list[Finding] = []
    for item in judged:
        if item.verdict is not None and item.decision is not None:
            worst = max(worst, item.decision, key=_WORST.index)
            findings += item.verdict.findings
    return Report(verdict=worst, findings=tuple(findings))


def text(item: Judged) -> str:
    """Returns what the cluster would answer about one object: the refusal, or its warnings as kubectl prints them."""
    name = messages.named(item.resource)
    if item.standing is Standing.EXEMPT:
        return f"{name} is not judged: its namespace is never governed"
    if item.standing is Standing.CLUSTER:
        lines = messages.every(item.verdict) if item.verdict else []
        found = f"; {CLUSTER_PROFILE} finds in them:" if lines else ""
        return "\n".join(
            [f"{name} has no namespace and is not judged: its pods are, where they are made{found}", *(f"  {line}" for line in lines)]
        )
    if item.standing is Standing.UNKNOWN and not (item.verdict and item.verdict.findings):
        return f"{name} is of a kind that is not understood: what it runs, if anything, is not known here"
    said = _answer(item, item.verdict) if item.verdict else ""
    return f"{_OF_ITS_PODS}\n{said}" if said and item.standing is Standing.PODS else said


def told(judged: Iterable[Judged]) -> None:
    """Prints every object about which there is something to say."""
    for item in judged:
        if said := text(item):
            tint = {Decision.DENY: _RED, Decision.HOLD: _YELLOW}.get(item.decision, _DIM) if item.decision else _DIM
            terminal.say(f"{clean(item.origin.label)}: {messages.named(item.resource)}", tint=tint if _colour() else "")
            terminal.say("\n".join((said, *(f"  {line}" for line in _more(item)), "")))


def totals(tally: Tally) -> None:
    """Prints one line of numbers."""
    denied, admitted = tally.decided(Decision.DENY), tally.decided(Decision.ADMIT)
    parts = [
        f"{denied} denied",
        f"{tally.decided(Decision.HOLD)} held until there is evidence",
        f"{admitted} admitted{f' ({tally.warned} with warnings)' if tally.warned else ''}",
    ]
    for count, what in (
        (tally.standing(Standing.EXEMPT), "in namespaces that are never governed"),
        (tally.by_pods, "judged by their pods alone"),
        (tally.standing(Standing.CLUSTER), "without a namespace, judged where their pods are made"),
        (tally.objects[Standing.UNKNOWN, None] + tally.objects[Standing.UNKNOWN, Decision.ADMIT], "of kinds that are not understood"),
        (tally.problems, "not read"),
    ):
        if count:
            parts.append(f"{count} {what}")
    tint = _RED if denied or tally.problems else _GREEN
    terminal.say(f"{tally.total} object{'' if tally.total == 1 else 's'}: {', '.join(parts)}", tint=tint if _colour() else "")


def complaints(problems: Iterable[Problem]) -> None:
    """Prints on standard error what could not be read."""
    for problem in problems:
        terminal.complain(clean(problem.source), problem.error)


def left_out(asides: Iterable[Aside]) -> None:
    """Prints on standard error what was not read although nothing is wrong with it: one line for each reason."""
    named: dict[Why, list[str]] = {}
    counts: dict[Why, int] = {}
    for aside in asides:
        counts[aside.why] = counts.get(aside.why, 0) + 1
        if counts[aside.why] <= _NAMED:
            named.setdefault(aside.why, []).append(clean(aside.source, 200))
    for why, paths in named.items():
        more = f" and {counts[why] - len(paths)} more" if counts[why] > len(paths) else ""
        said = why.value if why is Why.ALONE else f"not read, {why.value}"
        terminal.say(f"{said}: {', '.join(paths)}{more}", to=sys.stderr)


def _answer(item: Judged, verdict: Verdict) -> str:
    if verdict.decision is Decision.DENY:
        return engine.refusal(verdict, item.resource)
    return "\n".join(f"Warning: {line}" for line in engine.warnings(verdict))


def _more(item: Judged) -> list[str]:
    """What the cluster's answer only counts: every finding, where there is more than the one that a refusal shows."""
    lines = messages.every(item.verdict) if item.verdict and item.decision is not None else []
    refused = item.decision is Decision.DENY
    if not lines or (refused and sum(not line.startswith(" ") for line in lines) == 1):
        return []
    return ["every finding, and what helps:", *(f"  {line}" for line in lines)]


def _colour() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
