"""JUnit's XML of what `mlwarden check` found: a suite per file, a case per object, for GitLab, Jenkins and others.

There is no one schema; this is the part that all of them read (Jenkins' `junit-10.xsd`, GitLab's "Unit test reports"): an object that is
denied has one `failure`, one that waits for evidence or that nobody judges is `skipped`, what was not read is an `error`.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from xml.sax.saxutils import escape, quoteattr

from mlwarden.checks.text import clean
from mlwarden.cli.folders import Problem
from mlwarden.cli.judging import Judged
from mlwarden.cli.spill import Spill
from mlwarden.cli.terminal import safe
from mlwarden.model.finding import Action, Decision
from mlwarden.workloads import Standing

_UNREAD = "what could not be read"
_SKIPPED = {
    Standing.EXEMPT: "its namespace is never governed",
    Standing.CLUSTER: "it has no namespace: its pods are judged where they are made",
    Standing.UNKNOWN: "its kind is not understood",
}


def junit(judged: Iterable[Judged], problems: Spill[Problem]) -> Iterator[str]:
    """Yields the document line by line.

    Args:
        judged: is read twice: a suite says first how many of each kind are in it.
        problems: what could not be read.
    """
    suites = [_counted(items) for _, items in groupby(judged, key=_file)]
    tests, failures = (sum(suite[column] for suite in suites) for column in (0, 1))
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield f'<testsuites name="mlwarden check"{_counts(tests + len(problems), failures, len(problems))}>\n'
    for (tests, failures, skipped), (file, items) in zip(suites, groupby(judged, key=_file), strict=True):
        yield f"  <testsuite name={_quoted(file)}{_counts(tests, failures, 0)} skipped={_quoted(str(skipped))}>\n"
        for item in items:
            yield from _case(item)
        yield "  </testsuite>\n"
    if problems:
        yield f"  <testsuite name={_quoted(_UNREAD)}{_counts(len(problems), 0, len(problems))}>\n"
        for problem in problems:
            yield from _error(problem)
        yield "  </testsuite>\n"
    yield "</testsuites>\n"


def _file(item: Judged) -> str:
    return item.origin.file


def _counted(items: Iterable[Judged]) -> tuple[int, int, int]:
    """How many there are, how many are denied, and how many are neither that nor admitted."""
    tests = failures = skipped = 0
    for item in items:
        tests += 1
        failures += item.decision is Decision.DENY
        skipped += bool(_skipped(item))
    return tests, failures, skipped


def _skipped(item: Judged) -> str:
    """Why an object is no test that passed or failed."""
    if item.decision is Decision.DENY:
        return ""
    return "held until there is evidence" if item.decision is Decision.HOLD else _SKIPPED.get(item.standing, "")


def _counts(tests: int, failures: int, errors: int) -> str:
    return f' tests="{tests}" failures="{failures}" errors="{errors}"'


def _case(item: Judged) -> Iterator[str]:
    where = item.origin.label if item.origin.rendered else f"line {item.origin.line}"
    opening = f"    <testcase classname={_quoted(_file(item))} name={_quoted(f'{item.resource} ({where})')}"
    said = item.told
    text = "\n".join(
        f"{each.action} {each.policy}: {clean(each.message)}{f' ({clean(each.path, 200)})' if each.path else ''}\n  fix: {clean(each.fix)}"
        for each in said
    )
    if item.decision is Decision.DENY:
        worst = next((each for each in said if each.action == Action.DENY.value), None)
        message = f"{worst.policy}: {clean(worst.message)}" if worst else "denied"
        yield f'{opening}>\n      <failure type="Deny" message={_quoted(message)}>{escape(_text(text))}</failure>\n    </testcase>\n'
    elif message := _skipped(item):
        yield f"{opening}>\n      <skipped message={_quoted(message)}/>\n{_said(text)}    </testcase>\n"
    elif text:
        yield f"{opening}>\n{_said(text)}    </testcase>\n"
    else:
        yield f"{opening}/>\n"


def _said(text: str) -> str:
    return f"      <system-out>{escape(_text(text))}</system-out>\n" if text else ""


def _error(problem: Problem) -> Iterator[str]:
    name = f"{problem.source} is read"
    yield f"    <testcase classname={_quoted(problem.file)} name={_quoted(name)}>\n"
    yield f'      <error type="unread" message={_quoted(clean(problem.error.message))}/>\n    </testcase>\n'


def _quoted(text: str) -> str:
    return quoteattr(_text(text))


def _text(text: str) -> str:
    """Only what XML 1.0 has characters for: what a terminal would not show is not in there, either."""
    return "".join(char if ord(char) not in {0xFFFE, 0xFFFF} else "?" for char in safe(text))
