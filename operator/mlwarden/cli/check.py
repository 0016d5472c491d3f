"""`mlwarden check`: what the cluster would say, before it is asked.

The same functions as in the webhook, with what a laptop knows: the manifests, the policies, and no evidence unless it is gathered
(`--online`) or was (`--evidence FILE`). What would wait for evidence is reported as held and is no failure; `--strict` makes it one.

Read (`manifests`), judge (`judging`), print (`printing`): what goes from one to the next may be longer than memory (`spill`).
"""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from mlwarden import policy
from mlwarden.checks.text import clean
from mlwarden.cli import exits, jsonstream, junit, manifests, online, printing, render, repair, report, rules, sarif, terminal
from mlwarden.cli.folders import Problem
from mlwarden.cli.judging import Input, Judge, Judged, Tally
from mlwarden.cli.manifests import Manifest, Origin
from mlwarden.cli.online import Collection
from mlwarden.cli.rules import Policies
from mlwarden.cli.spill import Spill
from mlwarden.cli.summary import Summary
from mlwarden.errors import InputError
from mlwarden.model.finding import Verdict
from mlwarden.model.policy import Settings
from mlwarden.model.workload import Json
from mlwarden.policy.images import demanded, excuses

_VERBOSE = "--verbose says of each where, why and what helps"
_UNDECIDED = "which registries are trusted is not decided here: --trusted-registry PREFIX, or --policies with those of the cluster"


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit code is 0, 1 (denied) or 2 (input or a policy that cannot be read)."""
    options = _options(argv)
    problems: list[Problem] = []
    compiled = rules.load(options.policies, options.trusted_registry, problems)
    file = Path(options.evidence) if options.evidence else None
    collection = Collection(online.read(file) if file and (not options.online or file.exists()) else ())
    with contextlib.closing(_read(problems, options)) as given, contextlib.ExitStack() as kept:
        judged = asyncio.run(_judged(given, compiled, collection, options))
        kept.callback(judged.close)
        if not (options.fix or options.diff):
            return _told(given, judged, compiled, options)
        judge = Judge(compiled, Settings(), profile=options.profile, given=given)
        if not _fixed(judged, judge, collection, write=not options.diff):
            return _told(given, judged, compiled, options)
    with contextlib.closing(_read(problems, options)) as given, contextlib.ExitStack() as kept:  # the state after
        judged = asyncio.run(_judged(given, compiled, collection, options))
        kept.callback(judged.close)
        return _told(given, judged, compiled, options)


def _read(problems: Sequence[Problem], options: argparse.Namespace) -> Input:
    """Everything that the paths lead to."""
    given = Input()
    given.take(problems)
    how = manifests.Options(values=options.values, kube_version=options.kube_version, ignore=options.ignore)
    given.take(manifests.read(options.paths, stdin=sys.stdin.buffer if sys.stdin else None, options=how))
    return given


def _fixed(judged: Spill[Judged], judge: Judge, collection: Collection, *, write: bool) -> bool:
    """Writes the fixes into their files, or prints them; whether anything was written."""
    now = datetime.now(UTC)
    known = collection.known(now)

    def again(body: Mapping[str, Json]) -> Verdict | None:
        item = judge.one(Manifest(origin=Origin(file="", label=""), object=dict(body)), now, known)
        return item.verdict if item.decision is not None else None

    written = False
    for each in repair.repaired(judged, again):
        left = each.left
        if each.fixes and not write:
            repair.show(each)
        elif each.fixes and (why := repair.write(each)):
            left = (*left, why)
        elif each.fixes:
            written = True
            terminal.say(f"fixed: {clean(each.file)}: {each.fixes} {'fix' if each.fixes == 1 else 'fixes'} written", to=sys.stderr)
        for why in left:
            terminal.say(f"not fixed: {clean(each.file)}: {clean(why)}", to=sys.stderr)
    return written


def _told(given: Input, judged: Spill[Judged], compiled: Policies, options: argparse.Namespace) -> int:
    """Prints everything and returns the exit code."""
    if not judged and not given.problems:
        given.take([Problem(source="input", error=InputError(f"nothing to check in {', '.join(options.paths)}"))])
    tally = Tally()
    tally.count_input(given)
    with contextlib.closing(Summary(everything=options.verbose)) as summary, contextlib.ExitStack() as kept:
        for item in judged:
            tally.count(item)
            summary.add(item)
        printing.complaints(given.problems)
        printing.left_out(given.asides)
        unread = kept.enter_context(contextlib.closing(_unread(given, strict=options.strict_input)))
        match options.output:
            case "json":
                _write(jsonstream.chunks(report.report(judged, given.problems, given.asides, tally)))
            case "sarif":
                _write(jsonstream.chunks(sarif.sarif(judged, unread, given.asides)))
            case "junit":
                _write(junit.junit(judged, unread))
            case _ if options.diff:
                printing.totals(tally, to=sys.stderr)  # on standard output is the difference alone
            case _:
                _text(judged, summary, compiled, options)
                printing.totals(tally)
    return exits.code(tally, strict=options.strict, strict_input=options.strict_input)


def _text(judged: Spill[Judged], summary: Summary, compiled: Policies, options: argparse.Namespace) -> None:
    """Prints the summary, and what the cluster would say: of everything, or where that is about one object alone."""
    if any(each.name == policy.TRUSTED_REGISTRIES and policy.not_compiled(each.policy) for each in compiled.compiled):
        terminal.say(_UNDECIDED)
    printing.summed_up(summary)
    if options.verbose:
        printing.told(judged)
    elif summary.only:
        printing.told([summary.only])
    elif summary.told:
        terminal.say(_VERBOSE)
    if summary.edits and not options.fix:
        terminal.say(f"--fix writes {summary.edits} of the fixes into their files, --diff shows them")


def _unread(given: Input, *, strict: bool) -> Spill[Problem]:
    """What a program is told that was not read: with `--strict-input` also what is no manifest, because the exit code says the same."""
    if not strict:
        return given.problems
    unread: Spill[Problem] = Spill()
    for problem in given.problems:
        unread.append(problem)
    for aside in given.asides:
        if aside.why.is_strict:
            unread.append(Problem(source=aside.source, line=aside.line, within=aside.within, error=InputError(aside.why.value)))
    return unread


def _write(chunks: Iterable[str]) -> None:
    sys.stdout.writelines(chunks)
    sys.stdout.flush()


async def _judged(given: Input, compiled: Policies, collection: Collection, options: argparse.Namespace) -> Spill[Judged]:
    """With evidence as the command was told: none, a file's, or gathered until nothing more is missing."""
    judge = Judge(compiled, Settings(), profile=options.profile, given=given)

    def again() -> Spill[Judged]:
        now = datetime.now(UTC)
        known = collection.known(now)
        judged: Spill[Judged] = Spill()
        for item in given.manifests:
            judged.append(judge.one(item, now, known))
        return judged

    judged = again()
    if not options.online:
        return judged
    async with online.sources(options, excuses(compiled.compiled), online.told) as sources:
        while wanted := collection.missing(want for item in judged if item.verdict for want in item.verdict.wanted):
            await collection.gather(wanted, sources, lambda names: demanded(compiled.compiled, names), online.told)
            judged.close()
            judged = again()
    if options.evidence:
        await asyncio.to_thread(online.write, Path(options.evidence), collection.objects.values())
    return judged


def _options(argv: Sequence[str]) -> argparse.Namespace:
    from mlwarden.cli.main import program  # noqa: PLC0415 -- main imports this module by its name, when it is called

    parser = argparse.ArgumentParser(
        prog=f"{program()} check",
        description="Judges manifests as the cluster would: the same policies, the same words. Offline unless told otherwise; missing\n"
        "evidence is then a note.",
        epilog=f"examples:\n  kubectl kustomize overlays/prod | {program()} check - --profile production\n"
        f"  {program()} check deploy/ --online --evidence evidence.json   # and later, without a network: --evidence evidence.json\n\n"
        "exit code:\n  0  nothing is denied\n  1  something is denied (with --strict: or not known, or of a kind that is not understood)\n"
        "  2  something cannot be read, or a policy does not compile (with --strict-input: or something is no manifest)",
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
    parser.add_argument(
        "--kube-version",
        default="",
        metavar="VERSION",
        help="version of Kubernetes that Helm charts are rendered for (default: Helm's own)",
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="GLOB",
        help="leave this out of folders, written as in .gitignore and as the lines of .mlwardenignore; may be repeated",
    )
    parser.add_argument(
        "--output",
        choices=["text", "json", "sarif", "junit"],
        default="text",
        help="text (default), json (a stable contract), sarif (2.1.0) or junit (XML)",
    )
    parser.add_argument("--verbose", action="store_true", help="after the summary, all that the cluster would say of each object")
    online.add_options(parser)
    parser.add_argument(
        "--trusted-registry",
        action="append",
        default=[],
        metavar="PREFIX",
        help="a registry, or a folder of one, whose images are trusted, as trustedRegistries of the chart; may be repeated",
    )
    parser.add_argument("--fix", action="store_true", help="write the fixes that can be written into YAML files; then says what is left")
    parser.add_argument("--diff", action="store_true", help="print what --fix would write, and write nothing")
    parser.add_argument("--strict", action="store_true", help="exit 1 also where something is not known, or a kind is not understood")
    parser.add_argument("--strict-input", action="store_true", help="exit 2 also where a file is no manifest, or was not read")
    options = parser.parse_args(argv)
    if options.policies and options.trusted_registry:
        parser.error("--trusted-registry is for the shipped policies: those of --policies say themselves what is trusted")
    if options.fix and manifests.STDIN in options.paths:
        parser.error("--fix writes into files: standard input is none")
    if options.diff and options.output != "text":
        parser.error(f"--diff is text: leave out --output {options.output}")
    if options.kube_version and not render.KUBE_VERSION.fullmatch(options.kube_version):
        parser.error(f"--kube-version is a version as v1.34.0, not {options.kube_version!r}")
    return options
