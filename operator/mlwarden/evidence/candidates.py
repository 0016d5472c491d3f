"""Who may have signed: read from certificates that nobody has verified yet.

cosign verifies that one of several identities signed, and does not say which. So whoever could be it is collected here, and cosign is asked
once more about each of them exactly: what stands in an unverified certificate is a question, never an answer.

Three places: what cosign says of certificates in the older form, the certificates in bundles, and, as it downloads no bundle with a chain,
the names it mentions when it is asked about somebody who is nobody.
"""

import json
import re

import msgspec
from cryptography import x509
from cryptography.x509 import ObjectIdentifier

from mlwarden.evidence import attestations, process
from mlwarden.model.signing import Signer

_ISSUERS = (ObjectIdentifier("1.3.6.1.4.1.57264.1.8"), ObjectIdentifier("1.3.6.1.4.1.57264.1.1"))
"""Fulcio's extensions for the issuer (fulcio, docs/oid-info.md): DER, and before that raw."""
_GOT = re.compile(r'expected SAN value "nobody\.invalid", got ("(?:[^"\\]|\\.)*")')


class _Raw(msgspec.Struct, frozen=True, rename="camel"):
    raw_bytes: bytes


class _Material(msgspec.Struct, frozen=True):
    certificate: _Raw | None = None


class _Bundle(msgspec.Struct, frozen=True, rename="camel"):
    verification_material: _Material


def named(done: process.Completed) -> list[Signer]:
    """Whose certificates cosign says that it verified, in the older form."""
    found: list[Signer] = []
    try:
        printed = msgspec.json.decode(done.output, type=list[attestations.Signature])
        found += [
            Signer(issuer=str(each.optional.get("Issuer", "")), subject=str(each.optional["Subject"]))
            for each in printed
            if each.optional and each.optional.get("Subject")
        ]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    lines = done.errors.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("Certificate subject: "):
            issuer = following.removeprefix("Certificate issuer URL: ") if following.startswith("Certificate issuer URL: ") else ""
            found.append(Signer(issuer=issuer, subject=line.removeprefix("Certificate subject: ")))
    return found


def refused(done: process.Completed) -> list[Signer]:
    """Whose certificates cosign refused because they are not nobody's."""
    found = []
    for quoted in _GOT.findall(done.errors):
        try:
            found.append(Signer(subject=json.loads(quoted)))
        except ValueError:
            continue
    return found


def in_bundles(output: bytes) -> list[Signer]:
    """Whose certificates are in bundles, verified or not."""
    found: list[Signer] = []
    for line in output.splitlines():
        try:
            material = msgspec.json.decode(line, type=_Bundle).verification_material
            if material.certificate is None:
                continue
            certificate = x509.load_der_x509_certificate(material.certificate.raw_bytes)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (msgspec.MsgspecError, ValueError, x509.ExtensionNotFound):
            continue
        issuer = _issuer(certificate)
        found += [Signer(issuer=issuer, subject=str(name.value)) for name in names if isinstance(name.value, str)]
    return found


def _issuer(certificate: x509.Certificate) -> str:
    for identifier in _ISSUERS:
        try:
            value = certificate.extensions.get_extension_for_oid(identifier).value
        except x509.ExtensionNotFound:
            continue
        raw = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
        der = identifier is _ISSUERS[0] and raw[:1] == b"\x0c"
        return (raw[2:] if der and raw[1:2] < b"\x80" else raw[3:] if der else raw).decode(errors="replace")
    return ""
