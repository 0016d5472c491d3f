"""What `mlwarden check` prints about what it judged."""

import sys
from collections.abc import Iterable
from typing import TextIO

from mlwarden import engine
from mlwarden.checks.text import clean
from mlwarden.cli import terminal
from mlwarden.cli.folders import Aside, Problem, Why
from mlwarden.cli.judging import CLUSTER_PROFILE, Judged, Tally
from mlwarden.cli.summary import State, Summary
from mlwarden.engine import messages
from mlwarden.engine.actions import HOLD
from mlwarden.model.finding import Decision, Finding, Verdict
from mlwarden.workloads import Standing

_RED, _YELLOW, _GREEN, _DIM = "\033[31m", "\033[33m", "\033[32m", "\033[2m"
_STATES = {State.DENIED: _RED, State.HELD: _YELLOW, State.UNKNOWN: _YELLOW, State.NOTED: _DIM}
_OF_ITS_PODS = "the cluster judges the pods of this object, not the object; its answer to them:"
_NAMED = 5
"""Paths that are named of those that were left out for one reason."""


def summed_up(summary: Summary) -> None:
    """Prints the summary, and a blank line after it."""
    lines = 0
    for lines, line in enumerate(summary.lines(), 1):  # noqa: B007 -- how many there were
        terminal.say(line.text, tint=_STATES.get(line.state, "") if line.state and terminal.coloured() else "")
    if lines:
        terminal.say("")


def text(item: Judged) -> str:
    """Returns what the cluster would answer about one object: the refusal, or its warnings as kubectl prints them; each finding once."""
    name = messages.named(item.resource)
    if item.standing is Standing.EXEMPT:
        return f"{name} is not judged: its namespace is never governed"
    if item.standing is Standing.CLUSTER:
        lines = messages.every(item.told)
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
            terminal.say(f"{clean(item.origin.label)}: {messages.named(item.resource)}", tint=tint if terminal.coloured() else "")
            terminal.say("\n".join((said, *(f"  {line}" for line in _others(item)), "")))


def totals(tally: Tally, *, to: TextIO | None = None) -> None:
    """Prints one line of numbers, on standard output or `to`."""
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
        (tally.not_understood, "of kinds that are not understood"),
        (tally.problems, "not read"),
    ):
        if count:
            parts.append(f"{count} {what}")
    tint = _RED if denied or tally.problems else _GREEN
    terminal.say(
        f"{tally.total} object{'' if tally.total == 1 else 's'}: {', '.join(parts)}",
        tint=tint if terminal.coloured() and to is None else "",
        to=to,
    )


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
        terminal.say(f"{why.said}: {', '.join(paths)}{more}", to=sys.stderr)


def _answer(item: Judged, verdict: Verdict) -> str:
    if verdict.decision is Decision.DENY:
        return engine.refusal(verdict, item.resource)
    return "\n".join(line for finding in item.told for line in _warning(finding))


def _others(item: Judged) -> list[str]:
    """What a refusal only counts: every finding but the one that it shows."""
    found = item.told[1:] if item.decision is Decision.DENY else []
    return ["all others, and what helps:", *(f"  {line}" for line in messages.every(found))] if found else []


def _warning(finding: Finding) -> list[str]:
    """As kubectl prints it, but whole, and what helps."""
    held = "held, " if finding.action == HOLD else ""
    where = f" ({clean(finding.path, 200)})" if finding.path else ""
    helps = [f"  fix: {clean(finding.fix)}"] if finding.fix else []
    return [f"Warning: {held}{finding.policy}: {clean(finding.message)}{where}", *helps]
