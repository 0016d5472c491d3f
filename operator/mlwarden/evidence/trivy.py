"""Trivy as a subprocess: the one place that knows its command line, its versions and what its failures mean.

It runs on bytes that anybody may have made. So it has an environment of our making (no credentials but those of the one registry it pulls
from), a scratch directory that is wiped, limits, and nobody believes its exit code: see `report`. Linking it as a library or talking to a
trivy server was rejected: a crash or an exhausted memory must cost one scan, not the scanner.
"""

import asyncio
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from mlwarden.errors import InputError
from mlwarden.evidence import database, log, process, report, tool
from mlwarden.evidence.database import Database, Origin
from mlwarden.evidence.failure import DefinitiveError, TransientError, one_line
from mlwarden.evidence.room import Room
from mlwarden.evidence.tool import Pull, Tool
from mlwarden.model.digest import Digest

FLOOR = (0, 71, 0)
DENIED = dict.fromkeys(((0, 69, 4), (0, 69, 5), (0, 69, 6)), "CVE-2026-33634")
"""GHSA-69fq-xp46-6x23: releases made by an attacker. Below the floor anyway; named so that the refusal says why."""
_FLAGS = (
    *("--format", "json", "--no-progress"),
    *(
        "--skip-db-update",
        "--skip-java-db-update",
        "--skip-vex-repo-update",
        "--skip-version-check",
        "--disable-telemetry",
        "--offline-scan",
    ),
    *("--cache-backend", "memory"),
)
_IMAGE_FLAGS = (
    *("--image-src", "remote", "--parallel", "2"),
    # Trivy itself looks for conda packages below `envs/` only, and so calls an image with a base environment clean.
    *("--file-patterns", r"conda-pkg:conda-meta/.+\.json$"),
)
_DOCUMENT = "packages.cdx.json"
_EMPTY = (
    b'{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"components":[{"type":"library","bom-ref":"0","name":"mlwarden",'
    b'"version":"1","purl":"pkg:pypi/mlwarden@1"}]}'
)
"""A list of one package, for which trivy opens its database."""
SCANNERS = ("vuln", "secret", "misconfig")
"""What can be looked for. `vuln` always is; the others take time (every file is read for secrets) and are asked for."""
_ARCHIVES = ("**/*.jar", "**/*.war", "**/*.ear", "**/*.par")
_JAVA_BLIND = "Java archives were not looked into: there is no Java index database"


class Trivy:
    """Runs one trivy binary.

    Args:
        binary: path of the program.
        cache: its cache directory, with `db/trivy.db` and `db/metadata.json`; never written to by a scan.
        scratch: directory for what scans unpack; each scan has its own below it.
        limits: of one run.
        ca_file: PEM file of certificate authorities of registries, empty for the system's.
        scanners: of `SCANNERS`, beside `vuln`: `secret` looks into files and the image's configuration, `misconfig` at its configuration
            (files inside that look like somebody's Kubernetes manifests are not what the image is).
        origin: where vulnerability databases come from.
        room: on the disk of `scratch`.
    """

    def __init__(
        self,
        *,
        binary: Path,
        cache: Path,
        scratch: Path,
        limits: process.Limits | None = None,
        ca_file: str = "",
        scanners: Sequence[str] = (),
        origin: Origin | None = None,
        room: Room | None = None,
    ) -> None:
        self._cache = cache
        self._tool = Tool(
            "trivy",
            binary=binary,
            scratch=scratch,
            prefix="scan-",
            ca_file=ca_file,
            below=dict.fromkeys(("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), ""),
            # It asks the cloud's metadata service for credentials where a host looks like that cloud's registry (CVE-2024-35192).
            always={"AWS_EC2_METADATA_DISABLED": "true"},
            slow="a larger --scan-timeout, or a smaller image",
        )
        if unknown := set(scanners) - set(SCANNERS):
            raise InputError(f"trivy has no scanner {min(unknown)!r}", hint=f"of {', '.join(SCANNERS)}")
        self.scanners = tuple(name for name in SCANNERS if name == "vuln" or name in scanners)
        self._limits, self._room = limits or process.Limits(), room or Room(scratch)
        self._version = ""
        self._origin = origin or Origin()
        self._imported: tuple[int, ...] = ()
        self._downloaded = -math.inf

    async def version(self) -> str:
        """Returns the version, asked once.

        Raises:
            EvidenceError: if it cannot run, is too old, or is one of the compromised releases. Not worth a retry.
        """
        if not self._version:
            self._version = accepted(await self._tool.version("--version", "--format", "json", field="Version", limits=self._limits))
        return self._version

    def database(self) -> Database:
        """Returns how old the vulnerability database is.

        Raises:
            TransientError: if there is none.
        """
        return database.read(self._cache / "db")

    async def update(self) -> bool:
        """Gets the vulnerability database where there is none, a newer one is due or the file it comes from is another one.

        Scans that run go on with the old one. Call it as often as you like: it knows when there is something to do.

        Returns:
            Whether there is a new one: what is known about every image may have changed.

        Raises:
            TransientError: there is none to be had, or it cannot be used; what was there is still there.
            EvidenceError: the binary is not one that may be used.
        """
        await self.version()
        if self._origin.file is not None:
            return await self._import(self._origin.file)
        try:
            before = self.database()
        except TransientError:
            pass  # there is none: fetch it
        else:
            if before.next_update > datetime.now(UTC) or time.monotonic() - self._downloaded < self._origin.every:
                return False
        return await self._download()

    async def _import(self, source: Path) -> bool:
        found = database.signature(source)
        if found == self._imported and (self._cache / "db" / "metadata.json").is_file():
            return False
        incoming = self._incoming()
        try:
            await asyncio.to_thread(database.copy, source, incoming / "db")
            changed = await self._accept(incoming, f"the vulnerability database {source} cannot be used")
        finally:
            await asyncio.shield(asyncio.to_thread(database.discard, incoming))
        self._imported = found
        return changed

    async def _download(self) -> bool:
        incoming = self._incoming()
        arguments = ["image", "--download-db-only", "--quiet", "--cache-dir", str(incoming)]
        arguments += [part for repository in self._origin.repositories for part in ("--db-repository", repository)]
        if self._origin.plain_http:
            arguments.append("--insecure")
        try:
            # Not an image, but pulled like one.
            pull = Pull(image="", digest=Digest(""), docker_config=self._origin.docker_config, plain_http=self._origin.plain_http)
            done = await self._tool.run(arguments, self._limits, pull=pull)
            if done.code != 0 or not (incoming / "db" / "metadata.json").is_file():
                raise TransientError(f"the vulnerability database cannot be fetched: {failure(done).message}")
            changed = await self._accept(incoming, "the vulnerability database that was fetched cannot be used")
        finally:
            await asyncio.shield(asyncio.to_thread(database.discard, incoming))
        self._downloaded = time.monotonic()
        return changed

    def _incoming(self) -> Path:
        self._cache.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="incoming-", dir=self._cache))

    async def _accept(self, incoming: Path, otherwise: str) -> bool:
        """Puts a database in place once trivy has opened it; returns whether it is another one than before."""
        found = database.read(incoming / "db")
        done = await self._tool.run(["sbom", *self._common(incoming), _DOCUMENT], self._limits, files={_DOCUMENT: _EMPTY})
        if done.code != 0:
            raise TransientError(f"{otherwise}: {failure(done).message}")
        try:
            before = self.database()
        except TransientError:
            before = None
        await asyncio.to_thread(database.replace, incoming, self._cache)
        return found != before

    async def scan(self, pull: Pull) -> report.Findings:
        """Scans one image manifest.

        Raises:
            DefinitiveError, TransientError: why there is no report.
            EvidenceError: the binary is not one that may be used.
        """
        version = await self.version()
        with self._room.held(pull.size):
            async with pull.reachable() as own:
                return await self._scan(own, version)

    async def _scan(self, pull: Pull, version: str) -> report.Findings:
        done = await self._image(pull, skip=())
        lasting: tuple[str, ...] = ()
        if done.code != 0 and "Unable to initialize the Java DB" in done.errors:
            done, lasting = await self._image(pull, skip=_ARCHIVES), (_JAVA_BLIND,)
        if done.code != 0:
            raise failure(done)
        found = report.read(done.output, asked=pull.image, digest=pull.digest, version=version)
        lasting += tuple(log.of_image(done.errors))
        return msgspec.structs.replace(
            found,
            blind=(*found.blind, *log.of_system(done.errors), *lasting),
            lasting=lasting,
            rereadable=log.all_in_report(found, done.errors),
        )

    async def reread(self, document: bytes) -> tuple[report.Reread, tuple[str, ...]]:
        """Looks up a list of packages in the database; returns what it says of each, and what it says of their system as a whole.

        Args:
            document: CycloneDX, as JSON.

        Raises:
            DefinitiveError, TransientError: why there is no report.
            EvidenceError: the binary is not one that may be used.
        """
        version = await self.version()
        done = await self._tool.run(["sbom", *self._common(), _DOCUMENT], self._limits, files={_DOCUMENT: document})
        if done.code != 0:
            raise failure(done)
        return report.reread(done.output, asked=_DOCUMENT, version=version), tuple(log.of_system(done.errors))

    async def _image(self, pull: Pull, *, skip: tuple[str, ...]) -> process.Completed:
        arguments = [*self._common(), *_IMAGE_FLAGS, *_looking(self.scanners)]
        arguments += [part for pattern in skip for part in ("--skip-files", pattern)]
        if pull.platform:
            arguments += ["--platform", pull.platform]
        if pull.plain_http:
            arguments.append("--insecure")
        return await self._tool.run(["image", *arguments, pull.image], self._limits, pull=pull)

    def _common(self, cache: Path | None = None) -> list[str]:
        return [*_FLAGS, "--cache-dir", str((cache or self._cache).resolve()), "--timeout", f"{max(int(self._limits.seconds), 1)}s"]


def _looking(scanners: tuple[str, ...]) -> Iterator[str]:
    """The flags for what is looked for. Trivy's embedded checks of configurations are used: no others are fetched."""
    files = [name for name in scanners if name != "misconfig"]
    configuration = [name for name in scanners if name != "vuln"]
    yield from ("--scanners", ",".join(files))
    if configuration:
        yield from ("--image-config-scanners", ",".join(configuration), "--skip-check-update")


def accepted(version: str) -> str:
    """Returns the version as `major.minor.patch`.

    Raises:
        EvidenceError: if it is too old, compromised, a pre-release, or not a version.
    """
    tool.release("trivy", version, floor=FLOOR, compromised=DENIED)
    return version


def failure(done: process.Completed) -> DefinitiveError | TransientError:
    """What a failed run means. The manifest was fetched before, so what is left is trouble with layers, disk, memory and trivy itself."""
    if done.code < 0:
        return TransientError(
            f"trivy was killed by signal {-done.code}", hint="more memory for the scanner, where that is the kernel's doing"
        )
    if done.out_of_memory:
        return TransientError("trivy needs more memory for this image than it may have", hint="a larger --scan-memory")
    lines = [line for line in done.errors.splitlines() if line.strip()]
    fatal = next((line for line in lines if "FATAL" in line), lines[-1] if lines else "it did not say why").rpartition("\t")[2]
    # Below a long list of what it had in mind to do stands what went wrong.
    remote = next((line for line in lines if line.strip().startswith("* remote error: ")), "").partition("error: ")[2]
    said = one_line(remote.partition('; Get "http://')[0] or fatal)
    if "no space left on device" in done.errors or "file too large" in done.errors:
        return TransientError("the image does not fit on the scanner's scratch disk", hint="more ephemeral storage for the scanner")
    if "TOOMANYREQUESTS" in done.errors or "429 Too Many Requests" in done.errors:
        return TransientError("the registry's rate limit is reached (429)", retry_after=60)
    if any(sign in done.errors for sign in ("UNAUTHORIZED", "DENIED", "MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN")):
        return DefinitiveError(f"trivy cannot pull the image: {said}")
    return TransientError(f"trivy failed ({done.code}): {said}")


def program(name: str) -> Path:
    """Returns the path of a trivy, by its name or as one.

    Raises:
        InputError: there is none.
    """
    found = tool.on_path(name)
    if found is None:
        raise InputError(f"there is no program {name}", hint="install trivy 0.71 or later, or name it with --trivy")
    return found
