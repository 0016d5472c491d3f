"""One run of trivy or cosign: in a home of its own that is wiped, with an environment of our making, bounded.

What both have in common stands here once: what they find around them, what their ends mean, which of their releases may be used. What one
is asked, and what its words mean, stands with each.
"""

import asyncio
import contextlib
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from mlwarden.errors import EvidenceError
from mlwarden.evidence import process
from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError, one_line
from mlwarden.evidence.registries import Access
from mlwarden.evidence.relay import PassOn, relayed
from mlwarden.model.digest import Digest

_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})(?:\+[0-9A-Za-z.-]+)?", re.ASCII)
_NONE: Mapping[str, str] = MappingProxyType({})
_NO_FILES: Mapping[str, bytes] = MappingProxyType({})
_NO_PLAIN_HTTP = {"HTTP_PROXY": "http://127.0.0.1:0"}
"""trivy and cosign (go-containerregistry, `name.Registry.Scheme`) try plain HTTP after HTTPS for private addresses and names in `.local`,
without being told to, and send the credential there; and they follow redirects to it, a metadata service's included. A proxy for plain HTTP
that nobody can reach keeps them from both; the loopback is exempt."""
_NOTHING = {**_NO_PLAIN_HTTP, "HTTPS_PROXY": "http://127.0.0.1:0"}
Number = tuple[int, int, int]


class Pull(msgspec.Struct, frozen=True, kw_only=True):
    """What a program that pulls by itself (trivy, cosign) needs for one image.

    Attributes:
        image: `repository@sha256:…`; the repository of a mirror where a mirror had it.
        digest: the one in `image`.
        platform: `os/arch`, empty for an image without one.
        plain_http: the administrator listed the registry.
        size: of its layers in the registry, in bytes; 0 where it is not known.
        docker_config: content of the docker `config.json` it finds: the credential of this registry alone.
        ca: PEM of all that its TLS trusts; empty for what is configured for every registry.
        through: passes its requests on: it then pulls from nowhere itself.
        alone: it reaches nothing but this machine.
    """

    image: str
    digest: Digest
    platform: str = ""
    size: int = 0
    plain_http: bool = False
    docker_config: bytes = b'{"auths":{}}'
    ca: bytes = b""
    through: PassOn | None = None
    alone: bool = False

    @classmethod
    def by(cls, access: Access, digest: Digest, platform: str = "") -> "Pull":
        """Returns what is needed to go the way on which the registry client has found it."""
        image = f"{access.repository}@{digest}"
        return cls(
            image=image,
            digest=digest,
            platform=platform,
            plain_http=access.plain_http,
            docker_config=access.docker_config,
            ca=access.ca,
            through=access.through,
        )

    @contextlib.asynccontextmanager
    async def reachable(self) -> AsyncIterator["Pull"]:
        """The same image where the program finds it while the body runs, and all that it is to reach; a failure there says why."""
        if self.through is None:
            yield self
            return
        async with relayed(self.through) as relay:
            image = f"{relay.repository}@{self.digest}"
            own = Pull(image=image, digest=self.digest, platform=self.platform, size=self.size, plain_http=True, alone=True)
            try:
                yield own
            except GatherError as error:
                if relay.trouble is not None:
                    raise relay.trouble from None
                message = relay.named(error.message, self.image.partition("@")[0])
                raise type(error)(message, hint=error.hint, retry_after=error.retry_after) from None

    def equip(self, home: Path) -> dict[str, str]:
        """Writes what the program reads into a directory of its own; returns the environment variables that name it."""
        (home / "config.json").write_bytes(self.docker_config)
        environment = {"DOCKER_CONFIG": str(home), **(_NOTHING if self.alone else {} if self.plain_http else _NO_PLAIN_HTTP)}
        if self.ca:
            (home / "ca.pem").write_bytes(self.ca)
            environment["SSL_CERT_FILE"] = str(home / "ca.pem")
        return environment

    def __repr__(self) -> str:
        """Never the credential."""
        return f"Pull(image={self.image!r})"


class Tool:
    """Runs one program.

    Args:
        name: what people call it.
        binary: its path.
        scratch: directory in which each run has its own below it, wiped afterwards.
        prefix: of that directory's name.
        ca_file: PEM file of certificate authorities of registries, empty for the system's.
        below: variable → a directory below the home that it names; `""` is the home itself.
        always: more of its environment, in every run.
        slow: what helps where it takes too long, for people.
    """

    def __init__(
        self,
        name: str,
        *,
        binary: Path,
        scratch: Path,
        prefix: str,
        ca_file: str,
        below: Mapping[str, str] = _NONE,
        always: Mapping[str, str] = _NONE,
        slow: str = "",
    ) -> None:
        self._name, self._binary, self._scratch, self._prefix = name, binary, scratch, prefix
        self._ca_file, self._below, self._always, self._slow = ca_file, below, always, slow

    async def version(self, *arguments: str, field: str, limits: process.Limits) -> str:
        """Returns what it says of itself, in a field of a JSON object.

        Raises:
            EvidenceError: it does not say.
        """
        limits = msgspec.structs.replace(limits, seconds=min(30.0, limits.seconds), output=1 << 16)
        try:
            done = await self.run([*arguments], limits)
            return str(msgspec.json.decode(done.output, type=dict[str, object])[field])
        except (TransientError, msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
            raise EvidenceError(f"{self._binary} does not tell {self._name}'s version ({one_line(str(error), 120)})") from None

    async def run(
        self,
        arguments: list[str],
        limits: process.Limits,
        *,
        pull: Pull | None = None,
        files: Mapping[str, bytes] = _NO_FILES,
        more: Mapping[str, str] = _NONE,
    ) -> process.Completed:
        """One run, in a fresh directory that is its home and temporary directory, and that is wiped afterwards.

        Args:
            arguments: after the program's name.
            limits: of this run.
            pull: what it pulls, for the credential and the authorities of that registry.
            files: name → content, in its working directory, which is below its home.
            more: of its environment.

        Raises:
            DefinitiveError, TransientError: it did not end by itself, or did not begin.
        """
        home = self._make_home(files)  # not in a thread: a cancellation would leave behind what the thread had made
        environment = {name: str(home / below) for name, below in {"HOME": "", "TMPDIR": "", "DOCKER_CONFIG": "", **self._below}.items()}
        environment |= {"PATH": "", **self._always}
        if self._ca_file:
            environment["SSL_CERT_FILE"] = self._ca_file
        try:
            if pull is not None:
                environment |= pull.equip(home)
            environment |= more
            return await process.run([str(self._binary), *arguments], environment=environment, directory=home / "work", limits=limits)
        except process.TimedOutError as error:
            raise TransientError(str(error), hint=self._slow) from None
        except process.StalledError as error:
            raise TransientError(str(error), hint="the registry sends next to nothing") from None
        except process.DiskError as error:
            raise TransientError(str(error), hint="more ephemeral storage for the scanner") from None
        except process.OutputTooLargeError as error:
            raise DefinitiveError(f"{self._name} was killed: {error}") from None
        except OSError as error:
            raise TransientError(f"{self._binary} cannot be run ({type(error).__name__})") from None
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, home, ignore_errors=True))

    def _make_home(self, files: Mapping[str, bytes]) -> Path:
        home = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self._scratch))
        (home / "work").mkdir()
        for name, content in files.items():
            (home / "work" / name).write_bytes(content)
        return home


def on_path(program: str) -> Path | None:
    """Returns the path of a program, by its name or as one; None where there is none."""
    found = shutil.which(program)
    return Path(found).resolve() if found else None


def release(name: str, version: str, *, floor: Number, compromised: Mapping[Number, str] = MappingProxyType({})) -> Number:
    """Returns a version as numbers.

    Args:
        name: of the program.
        version: as it tells it.
        floor: the first one that may be used.
        compromised: releases made by an attacker → where that is told.

    Raises:
        EvidenceError: it is too old, compromised, a pre-release, or not a version.
    """
    least = ".".join(map(str, floor))
    match = _VERSION.fullmatch(version)
    if match is None:
        raise EvidenceError(f"{name}'s version {one_line(version, 40)!r} is not a release", hint=f"use a released {name}, {least} or later")
    number = (int(match[1]), int(match[2]), int(match[3]))
    if number in compromised:
        raise EvidenceError(
            f"{name} {version} is a compromised release ({compromised[number]})", hint="remove it, and rotate what it could read"
        )
    if number < floor:
        raise EvidenceError(f"{name} {version} is too old", hint=f"use {name} {least} or later")
    return number
