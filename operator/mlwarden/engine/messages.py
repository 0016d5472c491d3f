"""What a person reads: the refusal, the warnings, the line on an Event, the audit annotations.

kubectl prints a refusal after "admission webhook … denied the request: " and a warning after "Warning: "; the API server drops a warning
with a line break and cuts what is longer than 256 bytes (net/http/headers, `NewWarningHeader`; admission/plugin/webhook). So a refusal
teaches about its worst finding in at most six lines and counts the rest, and a warning is one short line.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from mlwarden.checks.text import clean
from mlwarden.engine.actions import HOLD
from mlwarden.model.finding import Action, Decision, Finding, Outcome, Verdict
from mlwarden.model.workload import Resource

WARNINGS = 5
"""How many lines of warning there are at most, the counting one included."""
_WARNING_LENGTH = 240
_EVENT_LENGTH = 900  # an Event's message holds 1024 bytes
_AUDIT_LENGTH = 1000
_NAMED = 8

_DONE = {Decision.DENY: "refused", Decision.HOLD: "held", Decision.ADMIT: "warned about"}
_WHAT = {Action.DENY.value: "refused by", HOLD: "held by", Action.WARN.value: "warning of"}
_TOLD = frozenset({Action.DENY.value, HOLD, Action.WARN.value})
_GOOD = frozenset({Outcome.PASS, Outcome.EXCEPTED})


def told(verdict: Verdict) -> list[Finding]:
    """Returns what a person should know: not what is good, nor what is only recorded."""
    return [finding for finding in verdict.findings if finding.action in _TOLD and finding.outcome not in _GOOD]


def refusal(verdict: Verdict, resource: Resource, *, again: str = "") -> str:
    """Returns the teaching text: the worst finding in at most six lines, then one line that counts the rest.

    Args:
        verdict: of a request that is refused (or held: then the text says so).
        resource: what was judged.
        again: when it is worth trying again, where it is.
    """
    found = told(verdict)
    if not found:
        return f"{named(resource)} is admitted"
    worst, *rest = found
    lines = [
        f"{named(resource)} is {_DONE[verdict.decision]} by {worst.policy} ({worst.severity.value}): {clean(worst.message)}",
        f"  where:     {clean(worst.path, 300) or 'the object as a whole'}",
        f"  why:       {clean(worst.why)}",
        f"  fix:       {clean(worst.fix)}",
        f"  exception: {clean(worst.exception)}",
    ]
    if again:
        lines.append(f"  try again: {clean(again)}")
    if rest:
        lines.append(_counted(rest))
    return "\n".join(lines)


def warnings(verdict: Verdict) -> list[str]:
    """Returns what the person is told although nothing is refused: one line each, the worst first, at most `WARNINGS` of them."""
    places: dict[str, list[str]] = {}
    for finding in told(verdict):
        if finding.action != Action.DENY.value:
            line = f"{'held, ' if finding.action == HOLD else ''}{finding.policy}: {clean(finding.message)}"
            places.setdefault(line, []).append(clean(finding.path, 100))
    shown = [_warning(line, *paths) for line, paths in places.items()]
    if len(shown) > WARNINGS:
        kept = WARNINGS - 1
        shown = [*shown[:kept], f"and {len(shown) - kept} more: mlwarden check shows all of them"]
    return shown


def every(findings: Iterable[Finding]) -> list[str]:
    """Returns two lines for every finding: what and where, and what helps. For a reader with a screen, not for a refusal."""
    lines = []
    for finding in findings:
        where = f" ({clean(finding.path, 200)})" if finding.path else ""
        lines.append(f"{_WHAT[finding.action]} {finding.policy}: {clean(finding.message)}{where}")
        if finding.fix:
            lines.append(f"  fix: {clean(finding.fix)}")
    return lines


def held(verdict: Verdict, *, refused: str = "Not released") -> str:
    """Returns one line for an Event: why a pod waits, or why it will not be released (or what is said of it instead)."""
    found = [finding for finding in told(verdict) if finding.action in (Action.DENY.value, HOLD)]
    if not found:
        return "nothing holds it"
    worst, *rest = found
    what = refused if worst.action == Action.DENY.value else "Held"
    where = f" ({clean(worst.path, 200)})" if worst.path else ""
    more = f"; {_counted(rest)}" if rest else ""
    fix = f"; fix: {clean(worst.fix, 200)}" if worst.fix else ""
    return _bytes(f"{what} by {worst.policy}: {clean(worst.message, 400)}{where}{fix}{more}", _EVENT_LENGTH)


def audit(verdict: Verdict) -> dict[str, str]:
    """Returns the audit annotations of a request: keys without prefix, values bounded."""
    said = {"decision": verdict.decision.value}
    for key, wanted in (("denied", Action.DENY.value), ("held", HOLD), ("warned", Action.WARN.value), ("recorded", Action.AUDIT.value)):
        names = sorted({finding.policy for finding in verdict.findings if finding.action == wanted and finding.outcome not in _GOOD})
        if names:
            said[key] = clean(",".join(names), _AUDIT_LENGTH)
    unknown = sorted({finding.policy for finding in verdict.findings if finding.outcome is Outcome.UNKNOWN})
    if unknown:
        said["unknown"] = clean(",".join(unknown), _AUDIT_LENGTH)
    if verdict.pins:
        said["pinned"] = clean(" ".join(f"{path}={image}" for path, image in sorted(verdict.pins.items())), _AUDIT_LENGTH)
    return said


def named(resource: Resource) -> str:
    """Returns `Pod team/trainer`, safe to print."""
    return clean(str(resource), 400)


def _counted(rest: Sequence[Finding]) -> str:
    """`and 3 more: 2 refused (a, b), 1 warning (c)`."""
    groups = (
        _group(rest, Action.DENY.value, "refused", "refused"),
        _group(rest, HOLD, "held", "held"),
        _group(rest, Action.WARN.value, "warning", "warnings"),
    )
    return f"and {len(rest)} more: {', '.join(group for group in groups if group)}"


def _group(rest: Iterable[Finding], wanted: str, one: str, many: str) -> str:
    names = Counter(finding.policy for finding in rest if finding.action == wanted)
    if not names:
        return ""
    shown = [f"{name} {count} times" if count > 1 else name for name, count in list(names.items())[:_NAMED]]
    if len(names) > _NAMED:
        shown.append("…")
    total = names.total()
    return f"{total} {one if total == 1 else many} ({', '.join(shown)})"


def _warning(line: str, path: str, *others: str) -> str:
    where = f" ({path}{f' and {len(others)} more' if others else ''})" if path else ""
    return f"{_bytes(line, _WARNING_LENGTH - len(where.encode()))}{where}"


def _bytes(text: str, length: int) -> str:
    """Returns at most `length` bytes of UTF-8: limits of the API server are in bytes."""
    encoded = text.encode()
    return text if len(encoded) <= length else encoded[: length - 3].decode(errors="ignore") + "…"
