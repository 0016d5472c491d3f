"""`mlwarden check`: what the cluster would say, before it is asked.

The same functions as in the webhook, with what a laptop knows: the manifests, the policies, and no evidence unless it is gathered
(`--online`) or was (`--evidence FILE`). What would wait for evidence is reported as held and is no failure; `--strict` makes it one.
"""

import argparse
import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from mlwarden import engine, policy, workloads
from mlwarden.checks.text import clean
from mlwarden.cli import manifests, online, terminal
from mlwarden.cli.manifests import Manifest, Problem
from mlwarden.cli.online import Collection
from mlwarden.engine import messages
from mlwarden.errors import Error, InputError, PolicyError
from mlwarden.evidence import Known
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Decision, Finding, Outcome, Verdict
from mlwarden.model.policy import PROFILE_LABEL, Settings
from mlwarden.model.workload import Workload
from mlwarden.policy import CompiledPolicy
from mlwarden.policy.images import demanded, excuses
from mlwarden.workloads import limits

DENIED = 1
UNREADABLE = 2

_UNDECIDED = "which registries are trusted is not decided here: --trusted-registry PREFIX, or --policies with those of the cluster"
_RED, _YELLOW, _GREEN, _DIM = "\033[31m", "\033[33m", "\033[32m", "\033[2m"
_WORST = (Decision.ADMIT, Decision.HOLD, Decision.DENY)


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One object, where it stands and what came of it; no verdict where its namespace is never governed."""

    source: str
    workload: Workload
    verdict: Verdict | None


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    """What compiles, and what does not: name → reason."""

    compiled: tuple[CompiledPolicy, ...]
    broken: dict[str, str]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON contract of `--output json`."""

    verdict: Decision
    findings: tuple[Finding, ...]


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit code is 0, 1 (denied) or 2 (input or a policy that cannot be read)."""
    options = _options(argv)
    problems: list[Problem] = []
    found: list[Manifest] = []
    rules = _policies(options.policies, options.trusted_registry, problems)
    for item in manifests.read(options.paths, stdin=sys.stdin, values=options.values):
        (problems if isinstance(item, Problem) else found).append(item)  # type: ignore[arg-type]  # the list fits the item
    judged = asyncio.run(_judged(found, rules, options))
    for problem in problems:
        terminal.complain(clean(problem.source), problem.error)
    if not found and not problems:
        terminal.say(f"nothing to check in {', '.join(options.paths)}", to=sys.stderr)
        return UNREADABLE
    if options.output == "json":
        terminal.say_json(report(judged))
    else:
        if any(each.name == policy.TRUSTED_REGISTRIES and policy.not_compiled(each.policy) for each in rules.compiled):
            terminal.say(_UNDECIDED)
        _print(judged, unread=len(problems))
    if problems or rules.broken:
        return UNREADABLE
    return DENIED if _fails(judged, strict=options.strict) else 0


async def _judged(found: Sequence[Manifest], rules: Policies, options: argparse.Namespace) -> list[Judged]:
    """With evidence as the command was told: none, a file's, or gathered until nothing more is missing."""
    file = Path(options.evidence) if options.evidence else None
    collection = Collection(online.read(file) if file and (not options.online or await asyncio.to_thread(file.exists)) else ())

    def again() -> list[Judged]:
        now = datetime.now(UTC)
        return judge(found, rules, Settings(), profile=options.profile, now=now, known=collection.known(now))

    judged = again()
    if not options.online:
        return judged
    async with online.sources(options, excuses(rules.compiled), online.told) as sources:
        while wanted := collection.missing(want for item in judged if item.verdict for want in item.verdict.wanted):
            await collection.gather(wanted, sources, lambda names: demanded(rules.compiled, names), online.told)
            judged = again()
    if file:
        await asyncio.to_thread(online.write, file, collection.objects.values())
    return judged


def judge(
    found: Sequence[Manifest], rules: Policies, settings: Settings, *, profile: str, now: datetime, known: Known | None = None
) -> list[Judged]:
    """Judges every object as its CREATE in the cluster would be.

    Args:
        found: the objects; Namespaces among them say which profile is in force, LimitRanges what is filled into pods.
        rules: the policies.
        settings: of the cluster.
        profile: where no Namespace in the input says it.
        now: the time of the evaluation.
        known: evidence.
    """
    namespaces = {name: item.object for item in found if (name := _namespace_name(item.object))}
    filled = limits.by_namespace(item.object for item in found if limits.is_range(item.object))
    judged = []
    for item in found:
        workload = workloads.extract(item.object)
        namespace = workload.resource.namespace
        if namespace in settings.never_governed:
            judged.append(Judged(source=item.source, workload=workload, verdict=None))
            continue
        facts = _facts(namespaces.get(namespace), namespace, profile, now)
        if namespace in filled:
            facts = msgspec.structs.replace(facts, limits=filled[namespace])
            workload = workloads.extract(limits.stored(item.object, filled[namespace]))
        if known is not None:
            facts = msgspec.structs.replace(facts, images=known.images, resolutions=known.resolutions, proofs=known.proofs)
        verdict = engine.evaluate(workload, rules.compiled, facts, settings, broken=rules.broken)
        judged.append(Judged(source=item.source, workload=workload, verdict=verdict))
    return judged


def shipped(trusted: Sequence[str] = ()) -> Policies:
    """Returns the policies that come with mlwarden, with these registries trusted; every one of them compiles."""
    return Policies(compiled=tuple(map(policy.compile_policy, policy.shipped(tuple(trusted)))), broken={})


def report(judged: Iterable[Judged]) -> Report:
    """Returns the verdict over everything and all findings, in the order of the input, each object's worst first."""
    verdicts = [item.verdict for item in judged if item.verdict is not None]
    worst = max((verdict.decision for verdict in verdicts), key=_WORST.index, default=Decision.ADMIT)
    return Report(verdict=worst, findings=tuple(finding for verdict in verdicts for finding in verdict.findings))


def text(item: Judged) -> str:
    """Returns what the cluster would answer about one object: the refusal, or its warnings as kubectl prints them."""
    if item.verdict is None:
        return f"{messages.named(item.workload.resource)} is not judged: its namespace is never governed"
    if item.verdict.decision is Decision.DENY:
        return engine.refusal(item.verdict, item.workload)
    return "\n".join(f"Warning: {line}" for line in engine.warnings(item.verdict))


def _more(item: Judged) -> list[str]:
    """What the cluster's answer only counts: every finding, where there is more than the one that a refusal shows."""
    lines = messages.every(item.verdict) if item.verdict else []
    refused = item.verdict is not None and item.verdict.decision is Decision.DENY
    if not lines or (refused and sum(not line.startswith(" ") for line in lines) == 1):
        return []
    return ["every finding, and what helps:", *(f"  {line}" for line in lines)]


def _facts(namespace: Mapping[str, Any] | None, name: str, profile: str, now: datetime) -> Facts:
    if namespace is None:
        metadata: dict[str, Any] = {"labels": {PROFILE_LABEL: profile}}
        if name:
            metadata |= {"name": name, "labels": {PROFILE_LABEL: profile, "kubernetes.io/metadata.name": name}}
        return Facts(now=now, namespace={"metadata": metadata}, profile=profile)
    own = namespace["metadata"].get("labels")
    labels = own if isinstance(own, dict) else {}
    labelled = {**namespace, "metadata": {**namespace["metadata"], "labels": {**labels, "kubernetes.io/metadata.name": name}}}
    said = labels.get(PROFILE_LABEL)
    return Facts(now=now, namespace=labelled, profile=said if isinstance(said, str) and said else profile)


def _namespace_name(obj: Mapping[str, Any]) -> str:
    if obj.get("kind") != "Namespace" or obj.get("apiVersion") != "v1":
        return ""
    metadata = obj.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return name if isinstance(name, str) else ""


def _policies(paths: Sequence[str], trusted: Sequence[str], problems: list[Problem]) -> Policies:
    """The shipped policies, or those of the given files and folders; one that does not compile is broken, the rest stand."""
    loaded: list[Any] = []
    broken: dict[str, str] = {}
    try:
        for name, content in _policy_files(paths):
            loaded += _parsed(name, content, problems, broken)
        if not paths:
            loaded += policy.shipped(tuple(trusted))
    except (Error, OSError) as error:
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


def _policy_files(paths: Sequence[str]) -> Iterable[tuple[str, str]]:
    for named in paths:
        path = Path(named)
        files = sorted(file for file in path.rglob("*") if file.suffix in manifests.SUFFIXES) if path.is_dir() else [path]
        for file in files:
            yield str(file), file.read_text(encoding="utf-8-sig")


def _print(judged: Sequence[Judged], *, unread: int) -> None:
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    counts: Counter[str] = Counter()
    warned = 0
    for item in judged:
        decision = item.verdict.decision if item.verdict else None
        counts[decision.value if decision else "never governed"] += 1
        said = text(item)
        warned += decision is Decision.ADMIT and bool(said)
        if said:
            tint = {Decision.DENY: _RED, Decision.HOLD: _YELLOW}.get(decision, _DIM) if decision else _DIM
            terminal.say(f"{clean(item.source)}: {messages.named(item.workload.resource)}", tint=tint if colour else "")
            terminal.say("\n".join((said, *(f"  {line}" for line in _more(item)), "")))
    parts = [
        f"{counts['Deny']} denied",
        f"{counts['Hold']} held until there is evidence",
        f"{counts['Admit']} admitted{f' ({warned} with warnings)' if warned else ''}",
    ]
    if counts["never governed"]:
        parts.append(f"{counts['never governed']} in namespaces that are never governed")
    if unread:
        parts.append(f"{unread} not read")
    tint = _RED if counts["Deny"] or unread else _GREEN
    terminal.say(f"{len(judged)} object{'' if len(judged) == 1 else 's'}: {', '.join(parts)}", tint=tint if colour else "")


def _fails(judged: Iterable[Judged], *, strict: bool) -> bool:
    return any(
        item.verdict.decision is Decision.DENY or (strict and any(finding.outcome is Outcome.UNKNOWN for finding in item.verdict.findings))
        for item in judged
        if item.verdict is not None
    )


def _options(argv: Sequence[str]) -> argparse.Namespace:
    from mlwarden.cli.main import program  # noqa: PLC0415 -- main imports this module by its name, when it is called

    parser = argparse.ArgumentParser(
        prog=f"{program()} check",
        description="Judges manifests as the cluster would: the same policies, the same words. Offline unless told otherwise; missing\n"
        "evidence is then a note.",
        epilog=f"examples:\n  kubectl kustomize overlays/prod | {program()} check - --profile production\n"
        f"  {program()} check deploy/ --online --evidence evidence.json   # and later, without a network: --evidence evidence.json\n\n"
        "exit code:\n  0  nothing is denied\n  1  something is denied (with --strict: or not known)\n"
        "  2  input cannot be read, or a policy does not compile",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", help="manifest, folder, kustomize folder, Helm chart, or - for standard input")
    parser.add_argument(
        "--profile",
        default=Settings().default_profile,
        metavar="NAME",
        help="profile where no Namespace in the input says it (default: %(default)s)",
    )
    parser.add_argument(
        "--policies", action="append", default=[], metavar="PATH", help="policies to judge by instead of the shipped ones; may be repeated"
    )
    parser.add_argument("--values", action="append", default=[], metavar="FILE", help="values file for Helm charts; may be repeated")
    parser.add_argument("--output", choices=["text", "json"], default="text", help="text (default) or json, a stable contract")
    online.add_options(parser)
    parser.add_argument(
        "--trusted-registry",
        action="append",
        default=[],
        metavar="PREFIX",
        help="a registry, or a folder of one, whose images are trusted, as trustedRegistries of the chart; may be repeated",
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 also where something is not known")
    options = parser.parse_args(argv)
    if options.policies and options.trusted_registry:
        parser.error("--trusted-registry is for the shipped policies: those of --policies say themselves what is trusted")
    return options
