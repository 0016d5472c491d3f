"""The webhook's own certificate authority, and how it changes without a dropped request.

The authority and the webhook's certificate lie in two Secrets: the key of the authority is for the controller alone. A request is dropped
when the API server meets a certificate whose authority is not yet in its `caBundle`, so an authority is announced before it signs: `next`
joins the bundle, a day later it signs, and the one before stays in the bundle until it has run out.

Rejected: cert-manager (one more thing to install and to be down), a self-signed leaf (every renewal changes the bundle), Helm's `genCA`
(renewed by whoever upgrades, or never).
"""

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mlwarden.model.policy import Settings
from mlwarden.model.workload import Json

CA_SECRET = "mlwarden-webhook-ca"  # noqa: S105 -- the name of a Secret
TLS_SECRET = "mlwarden-webhook-tls"  # noqa: S105 -- the name of a Secret
CA_LIFE = timedelta(days=730)
LEAF_LIFE = timedelta(days=30)
ANNOUNCED = timedelta(days=1)
"""How long an authority is in the bundle before it signs."""
_SKEW = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Issued:
    """What the two Secrets should hold now.

    Attributes:
        ca: `tls.crt`, `tls.key` of the authority that signs; `next.*` of the announced one; `previous.crt`: those still valid.
        tls: `tls.crt`, `tls.key` of the webhook, `ca.crt` the authority that signed it.
        bundle: PEM for `caBundle`.
        renew_at: when to look again.
    """

    ca: dict[str, bytes]
    tls: dict[str, bytes]
    bundle: bytes
    renew_at: datetime


def issue(settings: Settings, ca: Mapping[str, bytes], tls: Mapping[str, bytes], *, now: datetime) -> Issued:
    """Returns what the Secrets should hold at `now`, given what they hold: `{}` where they do not exist, rubbish where somebody edited.

    What is still good is returned byte for byte, so that nothing is written that need not be.
    """
    authority = _authority(ca, now)
    leaf = _leaf(authority, tls, _names(settings), now)
    bundle = authority["tls.crt"] + authority.get("next.crt", b"") + authority.get("previous.crt", b"")
    return Issued(ca=authority, tls=leaf, bundle=bundle, renew_at=_next_look(authority, leaf))


def secret(settings: Settings, name: str, data: Mapping[str, bytes], *, kind: str = "kubernetes.io/tls") -> dict[str, Json]:
    """Returns a Secret of mlwarden's namespace that holds `data`."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": settings.namespace, "labels": {"app.kubernetes.io/managed-by": "mlwarden"}},
        "type": kind,
        "data": {key: base64.b64encode(value).decode() for key, value in sorted(data.items())},
    }


def data_of(obj: Json) -> dict[str, bytes]:
    """Returns the data of a Secret as the API server gives it, `{}` for anything else."""
    data = obj.get("data") if isinstance(obj, dict) else None
    found: dict[str, bytes] = {}
    for key, value in (data or {}).items():
        try:
            found[key] = base64.b64decode(value, validate=True)
        except (ValueError, TypeError):
            continue
    return found


def _authority(held: Mapping[str, bytes], now: datetime) -> dict[str, bytes]:
    current, following = _pair(held, "tls"), _pair(held, "next")
    if current is None or not _valid(current[0], now):
        if following is not None and _valid(following[0], now):
            return _promoted(held, now)
        return _keys("tls", *_new_authority(now))
    keep = {key: held[key] for key in ("tls.crt", "tls.key")}
    previous = _still_valid(held.get("previous.crt", b""), now)
    if previous:
        keep["previous.crt"] = previous
    if now < _after(current[0], 2 / 3):
        return keep
    if following is None or not _valid(following[0], now):
        return {**keep, **_keys("next", *_new_authority(now))}
    if now < following[0].not_valid_before_utc + _SKEW + ANNOUNCED:
        return {**keep, "next.crt": held["next.crt"], "next.key": held["next.key"]}
    return _promoted(held, now)


def _promoted(held: Mapping[str, bytes], now: datetime) -> dict[str, bytes]:
    previous = _still_valid(held.get("tls.crt", b"") + held.get("previous.crt", b""), now)
    promoted = {"tls.crt": held["next.crt"], "tls.key": held["next.key"]}
    return {**promoted, "previous.crt": previous} if previous else promoted


def _leaf(authority: Mapping[str, bytes], held: Mapping[str, bytes], names: list[x509.GeneralName], now: datetime) -> dict[str, bytes]:
    signer = x509.load_pem_x509_certificate(authority["tls.crt"])
    pair = _pair(held, "tls")
    if pair is not None and _valid(pair[0], now) and now < _after(pair[0], 2 / 3) and _signed(pair[0], signer) and _named(pair[0], names):
        return {"tls.crt": held["tls.crt"], "tls.key": held["tls.key"], "ca.crt": authority["tls.crt"]}
    key = serialization.load_pem_private_key(authority["tls.key"], password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 -- _pair let nothing else through
    own = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(common_name("mlwarden webhook"))
        .issuer_name(signer.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(min(now + LEAF_LIFE, signer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return {**_keys("tls", certificate, own), "ca.crt": authority["tls.crt"]}


def _new_authority(now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # Two authorities of one name in one bundle: some verifiers try only the first. The serial number keeps the names apart.
    name = common_name(f"mlwarden webhook authority {serial:x}"[:64])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def common_name(name: str) -> x509.Name:
    """Returns the distinguished name of this common name and nothing else."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Returns what the key of an authority may be used for, or of whoever it certifies."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(settings: Settings) -> list[x509.GeneralName]:
    service = f"{settings.webhook}.{settings.namespace}.svc"
    names: list[x509.GeneralName] = [x509.DNSName(service), x509.DNSName(f"{service}.cluster.local")]
    host = urlsplit(settings.webhook_url).hostname if settings.webhook_url else None
    if host:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _pair(held: Mapping[str, bytes], name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    """The certificate and key under `name`, None where they are missing, unreadable, not ours, or do not belong together."""
    try:
        certificate = x509.load_pem_x509_certificate(held[f"{name}.crt"])
        key = serialization.load_pem_private_key(held[f"{name}.key"], password=None)
    except (KeyError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None
    return certificate, key


def _keys(name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> dict[str, bytes]:
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {f"{name}.crt": certificate.public_bytes(serialization.Encoding.PEM), f"{name}.key": private}


def _valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _still_valid(pem: bytes, now: datetime) -> bytes:
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        return b""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates if _valid(one, now))


def _after(certificate: x509.Certificate, share: float) -> datetime:
    return certificate.not_valid_before_utc + (certificate.not_valid_after_utc - certificate.not_valid_before_utc) * share


def _signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _named(certificate: x509.Certificate, names: list[x509.GeneralName]) -> bool:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return False
    return list(extension.value) == names


def _next_look(authority: Mapping[str, bytes], leaf: Mapping[str, bytes]) -> datetime:
    renewals = [_after(x509.load_pem_x509_certificate(leaf["tls.crt"]), 2 / 3)]
    if "next.crt" in authority:
        renewals.append(x509.load_pem_x509_certificate(authority["next.crt"]).not_valid_before_utc + _SKEW + ANNOUNCED)
    else:
        renewals.append(_after(x509.load_pem_x509_certificate(authority["tls.crt"]), 2 / 3))
    return min(renewals)
