"""`mlwarden evidence IMAGE`: what is known about an image, how old that is, and who runs it.

Reads what the cluster keeps and asks nobody else: what is shown is what decides. Evidence is for whom the administrator bound
`mlwarden-evidence-reader` to; pods are shown as far as the user may list them.
"""

import argparse
import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from mlwarden import policy
from mlwarden.checks.age import spoken
from mlwarden.checks.text import clean
from mlwarden.cli import terminal
from mlwarden.cluster import IMAGE_EVIDENCE, POD, WARDEN_POLICY, Client, ForbiddenError, NotFoundError, clock
from mlwarden.controllers.imageids import as_running
from mlwarden.errors import Error, InputError
from mlwarden.evidence import store
from mlwarden.evidence.store import Compared, EvidenceStatus, ImageEvidence
from mlwarden.model import reference as references
from mlwarden.model.digest import Digest, digest
from mlwarden.model.evidence import SIGNATURES, Phase, Scan
from mlwarden.model.signing import Proof, Proven
from mlwarden.workloads import extract

NOTHING = 1
_WIDTH = 12
_PODS = 20


class Found(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The JSON form of the answer.

    Attributes:
        image: as asked.
        digest: what it is, empty where nobody knows.
        resolution: of the tag.
        scan: what is in the digest.
        signatures: what could be proven about it.
        policies: demand → policies that ask it.
        runs: `namespace/pod` and where in it.
    """

    image: str
    digest: str = ""
    resolution: ImageEvidence | None = None
    scan: ImageEvidence | None = None
    signatures: ImageEvidence | None = None
    policies: dict[str, list[str]] = {}
    runs: tuple[str, ...] = ()


def main(argv: list[str]) -> int:
    """Prints it; returns 0 if anything is known, 1 if nothing is, 2 if it cannot be read."""
    parser = argparse.ArgumentParser(
        prog="mlwarden evidence",
        description="Says what is known about an image: digest, scan, signatures, how old that is, and who runs it.",
        epilog="example: kubectl mlwarden evidence registry.example.com/team/train:1.0",
    )
    parser.add_argument("image", metavar="IMAGE", help="as a manifest names it, with a tag or a digest")
    parser.add_argument("--output", choices=["text", "json"], default="text")
    parser.add_argument("--kubeconfig", default=None, metavar="FILE")
    parser.add_argument("--context", default=None)
    options = parser.parse_args(argv)
    found = asyncio.run(_look(options))
    if options.output == "json":
        terminal.say_json(found)
    else:
        terminal.say("\n".join(text(found, clock.now())))
    return 0 if found.resolution or found.scan or found.signatures else NOTHING


async def _look(options: argparse.Namespace) -> Found:
    parsed = references.parse(options.image)
    async with await Client.from_kubeconfig(options.kubeconfig, options.context) as client:
        try:
            resolution = None if parsed.digest else await _get(client, options.image)
            of = parsed.digest or _digest(resolution)
            scan = await _get(client, parsed.at(of)) if of else None
            signatures = await _get(client, SIGNATURES + parsed.at(of)) if of else None
        except ForbiddenError as error:
            raise InputError(
                f"you may not read evidence: {error}", hint="an administrator can bind you to the ClusterRole mlwarden-evidence-reader"
            ) from error
        return Found(
            image=options.image,
            digest=of or "",
            resolution=resolution,
            scan=scan,
            signatures=signatures,
            policies=await _policies(client),
            runs=tuple(await _runs(client, options.image, of)),
        )


async def _get(client: Client, wanted: str) -> ImageEvidence | None:
    try:
        return store.read(await client.get(IMAGE_EVIDENCE, store.name_for(wanted)))
    except NotFoundError:
        return None


def _digest(resolution: ImageEvidence | None) -> Digest | None:
    return digest(resolution.status.digest) if resolution is not None and resolution.status.digest else None


async def _policies(client: Client) -> dict[str, list[str]]:
    """Demand → names of the policies that ask it."""
    found: dict[str, list[str]] = {}
    try:
        listed = await client.list(WARDEN_POLICY)
    except ForbiddenError:
        return {}
    for each in listed:
        try:
            compiled = policy.compile_policy(policy.parse(each))
        except Error:
            continue
        for demand in (*compiled.demands, *compiled.vex):
            found.setdefault(demand, []).append(compiled.name)
    return found


async def _runs(client: Client, image: str, of: Digest | None) -> Iterable[str]:
    """Pods whose spec names it, or whose node says that it runs it."""
    try:
        pods = await client.list(POD)
    except ForbiddenError:
        return ["(you may not list pods of all namespaces)"]
    found = []
    for pod in pods:
        shapes = ({**pod, "apiVersion": "v1", "kind": "Pod"}, as_running(pod, (of,) if of else ()))
        where = list(dict.fromkeys(each.owner for shape in shapes for each in extract(shape).images if _is(each.reference, image, of)))
        if where:
            metadata, phase = pod["metadata"], (pod.get("status") or {}).get("phase", "")
            held = ", held" if pod["spec"].get("schedulingGates") else ""
            found.append(f"{metadata['namespace']}/{metadata['name']} ({', '.join(where)}; {phase}{held})")
    return found


def _is(reference: str, image: str, of: Digest | None) -> bool:
    return reference == image or (of is not None and reference.endswith(f"@{of}"))


def text(found: Found, now: datetime) -> list[str]:
    """Returns the answer for a person, line by line."""
    lines = [clean(found.image)]
    if not (found.resolution or found.scan or found.signatures):
        lines += _row("unknown", ["nothing is known about it: evidence is gathered when a workload names the image exactly so"])
        return lines + _row("runs", _shortened(found.runs))
    if found.resolution is not None:
        lines += _row("digest", [_resolved(found.resolution, now)])
    elif found.digest:
        lines += _row("digest", [found.digest])
    if found.digest:
        lines += _row("scan", _scan(found.scan, now))
        said = _spoken(found.scan, found.policies)
        lines += _row("excuses", said) if said else []
        lines += _row("signatures", _signatures(found.signatures, found.policies, now))
        known = found.scan or found.signatures
        lines += _row("pulled from", [clean(each) for each in known.spec.references] if known else [])
    return lines + _row("runs", _shortened(found.runs))


def _row(name: str, values: Sequence[str]) -> list[str]:
    shown = values or ["-"]
    return [f"  {(name if index == 0 else '').ljust(_WIDTH)}{value}" for index, value in enumerate(shown)]


def _shortened(pods: Sequence[str]) -> list[str]:
    rest = len(pods) - _PODS
    return [clean(each) for each in pods[:_PODS]] + ([f"and {rest} more"] if rest > 0 else []) or ["nobody"]


def _resolved(resolution: ImageEvidence, now: datetime) -> str:
    status = resolution.status
    if not status.digest:
        return f"not known: {clean(status.reason) or 'waiting for the scanner'}"
    return f"{clean(status.digest)}, as of {_ago(status.at, now)}"


def _scan(evidence: ImageEvidence | None, now: datetime) -> list[str]:
    if evidence is None:
        return ["not asked for yet"]
    status = evidence.status
    if status.scan is None:
        return [f"{status.phase.value}: {clean(status.reason) or 'waiting for the scanner'}", *_answered(status, now)]
    scan = status.scan
    lines = [
        f"{clean(scan.scanner, 80)}, {_ago(scan.scanned_at, now)}; {clean(scan.os) or 'no operating system'}, {scan.packages} packages"
    ]
    lines += [f"vulnerability database of {_ago(scan.database_at, now)}"] if scan.database_at else []
    lines += [f"the scanner does not see everything: {clean('; '.join(scan.blind))}"] if scan.blind else []
    if scan.unjudged:
        lines.append(f"scanned for {clean(', '.join(scan.platforms))} and kept there; not for {clean(', '.join(scan.unjudged))}")
    lines += _vulnerabilities(scan)
    return [*lines, *([f"the last refresh failed: {clean(status.reason)}"] if status.reason else []), *_answered(status, now)]


def _vulnerabilities(scan: Scan) -> list[str]:
    if not any(scan.counts.values()):
        return ["no known vulnerabilities"]
    counted = ", ".join(f"{count} {clean(severity)}" for severity, count in scan.counts.items() if count)
    named = [
        f"  {clean(each.id, 64)} {clean(each.severity, 16)}: {clean(each.package, 80)} {clean(each.installed, 40)}"
        + (f", fixed in {clean(each.fixed, 60)}" if each.fixed else ", no fix")
        for each in scan.vulnerabilities
    ]
    return [f"with a fix: {counted}".replace(" unfixed", " without a fix"), *named]


def _spoken(evidence: ImageEvidence | None, policies: Mapping[str, Sequence[str]]) -> list[str]:
    """What VEX documents say, and why some do not count."""
    scan = evidence.status.scan if evidence is not None else None
    if scan is None:
        return []
    lines = [
        f"{clean(each.id, 64)} in {clean(each.package, 80)}: {clean(each.status, 32)}, by {clean(str(each.signer or 'somebody'), 200)}"
        f" ({_listening(each.source, policies)})"
        for each in (*scan.suppressed, *scan.affirmed)
    ]
    for each in scan.unheard:
        of = f"{clean(each.id, 64)}: " if each.id else ""
        lines.append(f"found, and does not count: {of}{clean(each.reason)} ({_listening(each.source, policies)})")
    return lines


def _listening(source: str, policies: Mapping[str, Sequence[str]]) -> str:
    names = ", ".join(clean(each, 63) for each in policies.get(source, ()))
    return f"listened to by {names}" if names else "no policy listens to it"


def _signatures(evidence: ImageEvidence | None, policies: Mapping[str, Sequence[str]], now: datetime) -> list[str]:
    if evidence is None:
        return ["no policy asks for them" if not policies else "not asked for yet"]
    status = evidence.status
    if status.phase is not Phase.READY:
        return [f"{status.phase.value}: {clean(status.reason) or 'waiting for the scanner'}", *_answered(status, now)]
    return [*(_proof(proof, policies, now) for proof in status.proofs), *_answered(status, now)] or ["no policy asks for any"]


_COMPARED = {
    Compared.AGREES: "looked again and found nothing worse",
    Compared.WORSE: "looked again and found worse, which stands here now",
    Compared.CORRECTED: "looked again, with a newer database, version or settings, and found worse, which stands here now",
    Compared.FORGED: "did not write what stood here under its name, and took it back",
}


def _answered(status: EvidenceStatus, now: datetime) -> list[str]:
    """Who says so, and what came of a second look."""
    lines = [f"answered by {clean(status.answered_by, 120)}"] if status.answered_by else []
    if (look := status.second_look) is None:
        return lines
    of = f" at the answer of {clean(look.of, 120)}" if look.of and look.of not in {status.answered_by, look.by} else ""
    reason = f": {clean(look.reason)}" if look.reason else ""
    return [*lines, f"{clean(look.by, 120)} {_COMPARED[look.outcome]}{of}, {_ago(look.at, now)}{reason}"]


def _proof(proof: Proof, policies: Mapping[str, Sequence[str]], now: datetime) -> str:
    asked = ", ".join(clean(each, 63) for each in policies.get(proof.demand, ())) or "no policy any more"
    if proof.outcome is Proven.VERIFIED:
        said = f"Verified: {clean(str(proof.signer))}" if proof.signer else "Verified"
    else:
        said = f"{proof.outcome.value}: {clean(proof.reason)}"
    made = f"; attests something of {_ago(proof.made_at, now)}" if proof.made_at else ""
    return f"{clean(proof.authority)}: {said}, {_ago(proof.at, now)}{made} (asked by {asked})"


def _ago(at: datetime | None, now: datetime) -> str:
    return "never" if at is None else f"{spoken(max(now - at, now - now))} ago"
