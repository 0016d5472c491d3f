"""cosign as a subprocess: the one place that knows its command line, its versions and what its failures mean.

One process answers one question about one digest: cosign decides by the first image which form of storage it looks at. Its exit code alone
is never believed, neither 0 (attestations count as signatures; see `attestations`) nor anything else (a failing registry looks like an
image without signatures; see `exchanges`). Each run has a home, a configuration and an environment of its own, and no credentials but
those of the one registry.

Both forms of storage are looked at. cosign itself looks at bundles only, as soon as there is one of whatever kind, so a second run asks for
the older form where the first one did not verify anything.

Rejected: verifying in this process (key, certificate, log and timestamp rules are not ours to write a second time), and cosign's own
policies in CUE or Rego (people here write CEL, and one failing document of several fails them all).
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from mlwarden.evidence import candidates, history, process, tool
from mlwarden.evidence.attestations import Attestations
from mlwarden.evidence.authority import Asked, Question, ask, exactly
from mlwarden.evidence.failure import DefinitiveError, TransientError, one_line
from mlwarden.evidence.outcome import Outcome, answers, dated, read
from mlwarden.evidence.tool import Pull, Tool
from mlwarden.model.signing import MAX_ANSWERS, Demand, Proof, Proven, Said, Signer

FLOOR = (3, 1, 2)
_CHAINS = (3, 1, 3)
"""The first version with `--allow-certificate-chain`; the ones before refuse bundles with a chain."""
_LIMITS = process.Limits(seconds=60, errors=1 << 20, cpu_seconds=120, file_bytes=128 << 20, data=384 << 20, heap=256 << 20)
_MORE = 1 << 30
"""Bytes of memory for one run at a time that needs more: cosign holds an attestation ten times over, and one of 50 MB takes 700."""
_MAX_CANDIDATES = 8


class Cosign:
    """Runs one cosign binary.

    Args:
        binary: path of the program.
        scratch: directory in which each run has its own below it, wiped afterwards.
        limits: of one run.
        ca_file: PEM file of certificate authorities of registries, empty for the system's.
        trust_roots: name → `trusted_root.json`; the name "" replaces Sigstore's public trust root.
        tuf: where Sigstore's public trust root is cached between runs, when it is used.
    """

    def __init__(
        self,
        *,
        binary: Path,
        scratch: Path,
        limits: process.Limits | None = None,
        ca_file: str = "",
        trust_roots: Mapping[str, Path] | None = None,
        tuf: Path | None = None,
    ) -> None:
        self._tool, self._tuf = (
            Tool("cosign", binary=binary, scratch=scratch, prefix="cosign-", ca_file=ca_file, below={"TUF_ROOT": "tuf"}),
            tuf,
        )
        self._limits = msgspec.structs.replace(limits, errors=_LIMITS.errors) if limits else _LIMITS
        self._roots = dict(trust_roots or {})
        self._version, self._alone = "", asyncio.Semaphore(1)

    async def version(self) -> str:
        """Returns the version, asked once.

        Raises:
            EvidenceError: if it cannot run, is too old, or is not a release. Not worth a retry.
        """
        if not self._version:
            self._version = ".".join(
                map(str, accepted(await self._tool.version("version", "--json", field="gitVersion", limits=self._limits)))
            )
        return self._version

    async def establish(self, pull: Pull, demand: Demand) -> Proof:
        """Answers one demand about one digest.

        Args:
            pull: the image, by its digest.
            demand: the question; a key that is in a Secret is filled in.

        Raises:
            DefinitiveError, TransientError: why it could not be answered. That a registry did not answer is never an answer.
            EvidenceError: the binary is not one that may be used.
        """
        asked, found = await self._find(pull, demand)
        now, verified = datetime.now(UTC), [each for each in found if each.outcome is Proven.VERIFIED]
        said = answers(verified, demand, now) if demand.predicate_type else tuple(_said(each, now) for each in verified)
        proof = Proof(
            demand=demand.id,
            authority=demand.authority.name,
            outcome=found[0].outcome,
            reason=one_line(found[0].reason),
            signer=found[0].signer,
            material=asked.material,
            at=now,
        )
        return proof.by(*history.newest_first(said)[:MAX_ANSWERS]) if said else proof

    async def attested(self, pull: Pull, demand: Demand) -> Attestations:
        """Returns the verified attestations of the demand's type; its condition is not looked at. Raises as `establish`."""
        _, found = await self._find(pull, demand)
        reason = found[0].reason if found[0].outcome is Proven.INVALID else ""
        return Attestations(found=dated(found, demand.predicate_type), reason=reason)

    # One demand.

    async def _find(self, pull: Pull, demand: Demand) -> tuple[Asked, tuple[Outcome, ...]]:
        if not pull.image.endswith(f"@{pull.digest}"):
            raise DefinitiveError("signatures are looked for under a digest only")
        async with pull.reachable() as own:
            return await self._found(own, demand)

    async def _found(self, pull: Pull, demand: Demand) -> tuple[Asked, tuple[Outcome, ...]]:
        number = accepted(await self.version())
        asked = await asyncio.to_thread(ask, demand.authority, roots=self._roots, chains=number >= _CHAINS)
        verified: list[Outcome] = []
        otherwise: tuple[Outcome, ...] = (Outcome(outcome=Proven.MISSING),)
        for question in asked.questions:
            answered = await self._answer(pull, demand, question)
            if answered[0].outcome is Proven.VERIFIED:
                verified += answered
            elif otherwise[0].outcome is Proven.MISSING:
                otherwise = answered
        return asked, tuple(verified) or otherwise

    async def _answer(self, pull: Pull, demand: Demand, question: Question) -> tuple[Outcome, ...]:
        """Both forms of storage; Missing only where there is nothing in either.

        One signature of somebody is enough. Of attestations the newest decides, and it may be in the other form; and where several could
        have signed, each of them may be revoked one day: those are read in both.
        """
        found, older = await self._ask(pull, demand, question, older=False)
        enough = not demand.predicate_type and question.signer is not None
        if older or (found[0].outcome is Proven.VERIFIED and enough):
            return found
        second, _ = await self._ask(pull, demand, question, older=True)
        verified = tuple(each for each in (*found, *second) if each.outcome is Proven.VERIFIED)
        return verified or (found if second[0].outcome is Proven.MISSING else second)

    async def _ask(self, pull: Pull, demand: Demand, question: Question, *, older: bool) -> tuple[tuple[Outcome, ...], bool]:
        """One question to one form of storage, and whether it was the older one: one outcome, or one for each who signed.

        Where several could have signed, whoever could be it is asked about exactly: cosign does not tell whom it verified.
        """
        done = await self._verify(pull, demand, question, older=older)
        found, was_older = read(done, pull, demand)
        if found.outcome is not Proven.VERIFIED or question.signer is not None:
            return (msgspec.structs.replace(found, signer=question.signer if found.outcome is Proven.VERIFIED else None),), was_older
        who = await self._candidates(pull, demand, question, done, older=was_older)
        if demand.predicate_type and len(who) > _MAX_CANDIDATES:
            raise TransientError(f"more than {_MAX_CANDIDATES} could have attested it", hint="fewer attestations on this image")
        verified = []
        for signer in who[:_MAX_CANDIDATES]:
            again, _ = read(await self._verify(pull, demand, exactly(question, signer), older=was_older), pull, demand)
            if again.outcome is Proven.VERIFIED:
                verified.append(msgspec.structs.replace(again, signer=signer))
        if not verified:
            raise TransientError("cosign verified a certificate, and does not say whose", hint="fewer signatures on this image")
        return tuple(verified), was_older

    async def _verify(self, pull: Pull, demand: Demand, question: Question, *, older: bool) -> process.Completed:
        verb = ["verify-attestation", "--type", demand.predicate_type] if demand.predicate_type else ["verify"]
        form = ["--new-bundle-format=false"] if older else []
        return await self._run([*verb, *form, *question.arguments, "--output=json", *_registry(pull)], pull, question)

    async def _candidates(
        self, pull: Pull, demand: Demand, question: Question, done: process.Completed, *, older: bool
    ) -> Sequence[Signer]:
        """Who may have signed, unverified: see `candidates`."""
        if older:
            found = candidates.named(done)
        elif question.own:
            nobody = exactly(question, Signer(subject="nobody.invalid"))
            found = candidates.refused(await self._verify(pull, demand, nobody, older=False))
        else:
            kind = "attestation" if demand.predicate_type else "signature"
            found = candidates.in_bundles((await self._run(["download", kind, *_registry(pull)], pull, None)).output)
        return list(dict.fromkeys(found))

    # One run.

    async def _run(self, arguments: list[str], pull: Pull, question: Question | None) -> process.Completed:
        timeout = f"--timeout={max(int(self._limits.seconds), 1)}s"
        # Sigstore's own services are elsewhere; nothing that a registry says leads to them, or anywhere.
        more = {"HTTPS_PROXY": ""} if question is not None and question.public else {}
        if more and self._tuf is not None:
            more["TUF_ROOT"] = str(self._tuf)
        command = [*arguments[:-1], "--verbose", timeout, arguments[-1]]
        files = question.files if question else {}
        done = await self._tool.run(command, self._limits, pull=pull, files=files, more=more)
        if done.out_of_memory:
            async with self._alone:
                limits = msgspec.structs.replace(self._limits, data=_MORE)
                done = await self._tool.run(command, limits, pull=pull, files=files, more=more)
        if done.out_of_memory:
            raise DefinitiveError(
                f"what is attached to the image does not fit into cosign's memory ({_MORE >> 20} MiB)", hint="smaller or fewer attestations"
            )
        return done


def accepted(version: str) -> tuple[int, int, int]:
    """Returns the version as numbers.

    Raises:
        EvidenceError: if it is too old, a pre-release, or not a version.
    """
    return tool.release("cosign", version, floor=FLOOR)


def _said(verified: Outcome, now: datetime) -> Said:
    return Said(outcome=verified.outcome, signer=verified.signer, at=now)


def _registry(pull: Pull) -> list[str]:
    return [*(["--allow-http-registry"] if pull.plain_http else []), pull.image]
