"""Registries, as the administrator describes them in one file: mirrors, certificate authorities, plain HTTP, token services elsewhere.

There is no switch that turns the verification of a certificate off: a private authority is one line here. Mirrors are trusted with digests
by what they serve (bytes are believed under their digest alone), and with tags only where the administrator says so: who answers for a tag
decides what runs. containerd's `hosts.toml` was rejected as format: it is one directory per host, and says things (capabilities, headers
with passwords in them) that mean nothing here.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from mlwarden.errors import InputError
from mlwarden.evidence.relay import PassOn
from mlwarden.model import reference as references
from mlwarden.model.reference import Reference
from mlwarden.policy import yaml_loads

HOSTS: Mapping[str, str] = {"docker.io": "registry-1.docker.io"}
"""Registries whose API is on another host than references say."""
_MAX_FILE = 1 << 20
_HINT = "registries: {HOST: {mirrors: [HOST/PREFIX], tags: BOOL, ca: PEM, caFile: FILE, plainHTTP: BOOL, realms: [HOST]}}"


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One registry host.

    Attributes:
        mirrors: `host[:port][/prefix]`, asked in this order before the host itself. A mirror's own settings are those of its own entry.
        tags: the mirrors may also say what a tag points at.
        ca: PEM of certificate authorities that are trusted for this host, beside the system's.
        ca_file: the same in a file.
        plain_http: spoken to in plain HTTP, and may be on loopback.
        realms: hosts of a token service that may be shown this registry's credentials, beside the registry itself.
    """

    mirrors: Annotated[tuple[str, ...], msgspec.Meta(max_length=8)] = ()
    tags: bool = False
    ca: str = ""
    ca_file: str = ""
    plain_http: bool = msgspec.field(name="plainHTTP", default=False)
    realms: Annotated[tuple[str, ...], msgspec.Meta(max_length=8)] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    registries: dict[str, RegistrySettings] = {}


class Registries:
    """Settings by host, as it stands in references. Empty by default.

    Raises:
        InputError: a host, a mirror or a certificate is none.
    """

    def __init__(self, by_host: Mapping[str, RegistrySettings] | None = None, *, plain_http: frozenset[str] = frozenset()) -> None:
        checked = {host: _checked(host, settings) for host, settings in (by_host or {}).items()}
        self._by_host = {references.same_host(host): settings for host, settings in checked.items()}
        if len(self._by_host) != len(checked):
            twice = next(host for host in checked if references.same_host(host) != host)
            same = f"it is the same as {references.same_host(twice)}: one entry for both"
            raise InputError(f"the registry {twice} is there twice", hint=same)
        # To the letter: port 443 of a host in plain HTTP says nothing of its port 80.
        self.plain = plain_http | {host.lower() for host, settings in checked.items() if settings.plain_http}

    @classmethod
    def load(cls, path: Path | str, *, plain_http: frozenset[str] = frozenset()) -> "Registries":
        """Reads the file; without one (`""`) there is nothing to say of any registry.

        Raises:
            InputError: it cannot be read, or says what does not exist.
        """
        if path == "":
            return cls(plain_http=plain_http)
        try:
            text = Path(path).read_text(encoding="utf-8")[:_MAX_FILE]
            documents = yaml_loads(text) or [{}]
            if len(documents) == 1:
                return cls(msgspec.convert(documents[0], _File).registries, plain_http=plain_http)
        except InputError as error:
            raise InputError(f"{path}: {error.message}", hint=error.hint or _HINT) from None
        except (OSError, UnicodeDecodeError, msgspec.ValidationError) as error:
            raise InputError(f"{path} cannot be used: {error}", hint=_HINT) from None
        raise InputError(f"{path}: more than one document", hint=_HINT)

    @property
    def listed(self) -> frozenset[str]:
        """Every host that the administrator named, mirrors included."""
        mirrors = {mirror.partition("/")[0] for settings in self._by_host.values() for mirror in settings.mirrors}
        return frozenset({*self._by_host, *mirrors, *self.plain})

    def realms(self, host: str) -> frozenset[str]:
        """Hosts of token services that may see this registry's credentials."""
        return frozenset(self._of(host).realms)

    @property
    def authorities(self) -> dict[str, str]:
        """Host → PEM, of every host with authorities of its own; one without a port also with the one it has."""
        own = {host: settings.ca for host, settings in self._by_host.items() if settings.ca}
        return {f"{host}:443": pem for host, pem in own.items() if ":" not in host.rpartition("]")[2]} | own

    def places(self, reference: Reference, *, tag: bool) -> tuple[Reference, ...]:
        """Where an image is looked for, in order: its mirrors, then where it says. For a tag only the mirrors that answer for tags."""
        settings = self._of(reference.registry)
        if tag and not settings.tags:
            return (reference,)
        found = []
        for mirror in settings.mirrors:
            registry, _, prefix = mirror.partition("/")
            repository = f"{prefix}/{reference.repository}" if prefix else reference.repository
            found.append(msgspec.structs.replace(reference, registry=registry, repository=repository))
        return (*found, reference)

    def _of(self, host: str) -> RegistrySettings:
        return self._by_host.get(references.same_host(host)) or _NOTHING


_NOTHING = RegistrySettings()


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How a program that pulls by itself (trivy, cosign) gets at an image: the way on which it was found.

    Attributes:
        repository: `registry/path` to name on its command line; the mirror's where a mirror had it.
        plain_http: the administrator listed that registry.
        docker_config: content of the docker `config.json` it is to find: the credential that registry accepted, and no other.
        ca: PEM of all it is to trust; empty for the system's own.
        through: passes requests on to that repository: see `relay`.
    """

    repository: str
    through: PassOn | None = None
    plain_http: bool = False
    docker_config: bytes = b'{"auths":{}}'
    ca: bytes = b""

    def __repr__(self) -> str:
        """Never the credential."""
        return f"Access(repository={self.repository!r}, plain_http={self.plain_http})"


def system_authorities() -> bytes:
    """PEM of the system's authorities (or those that SSL_CERT_FILE names). Directories of them a Go program reads by itself."""
    file = ssl.get_default_verify_paths().cafile
    try:
        return Path(file).read_bytes() if file else b""
    except OSError:
        return b""


def _checked(host: str, settings: RegistrySettings) -> RegistrySettings:
    """The same, with the authorities of `caFile` in `ca`."""
    for name in (host, *settings.mirrors, *settings.realms):
        _check_host(name, path=name in settings.mirrors)
    if settings.plain_http and (settings.ca or settings.ca_file):
        raise InputError(
            f"the registry {host} is spoken to in plain HTTP, so it has no certificate authority", hint="leave one of them out"
        )
    pem = settings.ca
    if settings.ca_file:
        try:
            pem = "\n".join(filter(None, (pem, Path(settings.ca_file).read_text(encoding="ascii")[:_MAX_FILE])))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the certificate authority of {host} cannot be read ({type(error).__name__}): {settings.ca_file}") from None
    if pem:
        try:
            ssl.create_default_context().load_verify_locations(cadata=pem)
        except (ssl.SSLError, ValueError):
            raise InputError(f"the certificate authority of {host} is not PEM", hint="-----BEGIN CERTIFICATE-----") from None
    return msgspec.structs.replace(settings, ca=pem, ca_file="")


def _check_host(name: str, *, path: bool) -> None:
    try:
        parsed = references.parse(f"{name}/x")
    except InputError:
        parsed = None
    written = name.partition("/")
    if parsed is None or parsed.registry != written[0] or parsed.tag != "latest" or (written[1] and not path):
        kind = "a mirror" if path else "a registry host"
        hint = "host or host:port as in references (docker.io for Docker Hub), behind it a path where it is a mirror"
        raise InputError(f"{name[:120]!r} is not {kind}", hint=hint)
