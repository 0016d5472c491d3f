"""What a registry asks for in `WWW-Authenticate`, and where our credentials may go because of it.

The header is written by the registry, so by whoever runs the host a manifest names. Its `realm` decides where the token request goes: that
is how a hostile registry turns a scanner into its errand boy (towards metadata addresses) or has it hand over the credentials of somebody
else. So a realm is one of a few hosts, and the scope is ours, not the header's.
"""

import re
from collections.abc import Collection, Mapping

import msgspec
from yarl import URL

_REALMS: Mapping[str, frozenset[str]] = {
    "docker.io": frozenset({"auth.docker.io"}),
    "registry.gitlab.com": frozenset({"gitlab.com"}),
    "registry.access.redhat.com": frozenset({"sso.redhat.com"}),
    "registry.redhat.io": frozenset({"sso.redhat.com"}),
}
"""Registries whose token service is on another host, by their documentation."""
_MAX_HEADER = 8192
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z]+)(?:\s+|$)(?!=)")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """One challenge of RFC 9110 11.6.1, its scheme in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse(header: str) -> tuple[Challenge, ...]:
    """Returns the challenges of a `WWW-Authenticate` header; what cannot be read ends the list."""
    text, position, found = header[:_MAX_HEADER], 0, []
    while match := _SCHEME.match(text, position):
        scheme, position, parameters = match[1].lower(), match.end(), {}
        while parameter := _PARAMETER.match(text, position):
            quoted = parameter[2]
            parameters[parameter[1].lower()] = parameter[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            position = parameter.end()
        found.append(Challenge(scheme=scheme, parameters=parameters))
    return tuple(found)


def may_show_credentials(registry: str, realm: URL, listed: Collection[str] = ()) -> bool:
    """Whether credentials written for `registry` may be shown to the token service at `realm`.

    It must be the same host, its documented one, or one that the administrator `listed` for this registry.
    """
    host = realm.authority if realm.explicit_port else (realm.host or "")
    return host == registry or host in _REALMS.get(registry, frozenset()) or host in listed
