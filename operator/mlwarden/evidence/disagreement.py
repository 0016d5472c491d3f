"""Where a second answer about the same digest is worse than the first: pure.

The same bytes and the same database give the same answer, so a first answer that was better was not made from them: somebody wrote it with
a scanner's token, or the tools that made it were not what they should be. A first answer that was worse is none of that; it stays.

A newer database or another version may find more honestly, and a signature may be taken out of a registry. What is worse is believed in any
case: only what is said about it differs.
"""

from collections.abc import Iterable, Mapping, Sequence

from mlwarden.model.evidence import Scan
from mlwarden.model.signing import Proof, Proven

_SHOWN = 3


def is_comparable(first: Scan, second: Scan) -> bool:
    """Whether the second scan was made by the same version of the scanner, and by the same database as the first or an older one."""
    newer = first.database_at is not None and (second.database_at is None or second.database_at > first.database_at)
    return first.scanner == second.scanner and not newer


def worse(first: Scan, second: Scan) -> str:
    """Returns what is worse in the second scan, one line, `""` where nothing is."""
    found = [
        *_more("with a fix", _fixable(first.counts), _fixable(second.counts)),
        *_more("without a fix", _all_unfixed(first), _all_unfixed(second)),
    ]
    both = {*first.scanners} & {*second.scanners}
    if "secret" in both:
        found += _more("secrets", first.secret_counts, second.secret_counts)
    if "misconfig" in both:
        found += _more("misconfigurations", first.misconfiguration_counts, second.misconfiguration_counts)
    if second.eol and not first.eol and "vuln" in first.scanners:
        found.append("its operating system gets no more updates")
    if second.packages <= 0 < first.packages:
        found.append("no packages recognised")
    blind = [each for each in second.blind if each not in first.blind]
    if blind:
        found.append(f"the scanner does not see everything in it: {blind[0]}")
    return "; ".join(found)


def unscanned(first: Scan, second: Scan) -> str:
    """Returns for which platforms the first scan speaks and the second does not, one line, `""` where there are none.

    The scanner's settings say which are scanned, so this alone is no lie.
    """
    unseen = [each for each in first.platforms if each not in second.platforms]
    unseen += [each for each in second.unjudged if each not in (*first.unjudged, *unseen)]
    return f"not scanned for {', '.join(unseen[:_SHOWN])}" if unseen else ""


def unexcused(first: Scan, second: Scan) -> str:
    """Returns what the first scan says that somebody excuses and the second does not, one line, `""` where there is nothing."""
    now = {(each.id, each.package, each.signer) for each in second.suppressed}
    gone = [each for each in first.suppressed if (each.id, each.package, each.signer) not in now]
    return f"nobody excuses {', '.join(dict.fromkeys(each.id for each in gone[:_SHOWN]))}" if gone else ""


def is_open(first: Iterable[Proof], second: Sequence[Proof]) -> bool:
    """Whether something that the first look proved could not be found out by the second one."""
    unknown = {proof.demand for proof in second if proof.outcome is Proven.UNKNOWN}
    return any(proof.outcome is Proven.VERIFIED and proof.demand in unknown for proof in first)


def unproven(first: Iterable[Proof], second: Sequence[Proof]) -> str:
    """Returns what the first look proved and the second one denies, one line, `""` where there is nothing.

    What could not be found out denies nothing, nor does what was asked with another key or trust root.
    """
    now = {proof.demand: proof for proof in second}
    found = [denied(proof, now[proof.demand]) for proof in first if proof.outcome is Proven.VERIFIED and proof.demand in now]
    return "; ".join(filter(None, found))


def denied(first: Proof, second: Proof) -> str:
    """Returns what of one proof a second look denies, `""` where nothing. Several may have signed: the one who did is looked for."""
    name = first.authority or first.demand
    if second.outcome is Proven.UNKNOWN or second.material != first.material:
        return ""
    if second.outcome is not Proven.VERIFIED:
        return f"{name}: {second.outcome.value} ({second.reason})"
    same = [answer for answer in second.answers if answer.signer == first.signer and answer.outcome is Proven.VERIFIED]
    if not same:
        return f"{name}: signed by {second.signer}, not by {first.signer}"
    made_at = same[0].made_at
    if first.made_at is not None and made_at is not None and made_at < first.made_at:
        return f"{name}: attests something of {made_at:%Y-%m-%d %H:%M}, not of {first.made_at:%Y-%m-%d %H:%M}"
    return ""


def _more(what: str, first: Mapping[str, int], second: Mapping[str, int]) -> Iterable[str]:
    more = [
        f"{count} {severity} instead of {first.get(severity, 0)}" for severity, count in second.items() if count > first.get(severity, 0)
    ]
    if more:
        yield f"{what} {', '.join(sorted(more))}"


def _fixable(counts: Mapping[str, int]) -> dict[str, int]:
    return {severity: count for severity, count in counts.items() if severity != "unfixed"}


def _all_unfixed(scan: Scan) -> dict[str, int]:
    return {**scan.unfixed, "in all": scan.counts.get("unfixed", 0)}
