"""Keys and certificates of one throwaway cluster: made at its start, gone with it."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


@dataclass(frozen=True, kw_only=True)
class Pki:
    """Paths of the PEM files.

    Attributes:
        ca: the certificate that every client trusts.
        server_certificate: the API server's serving certificate.
        server_key: its key.
        service_accounts: the RSA key (private PEM, which the API server also accepts for verifying) that signs service account tokens.
        webhook_client_ca: signs nothing but the API server's client certificate towards webhooks.
        webhook_client_certificate: that certificate.
        webhook_client_key: its key.
        kubelet_certificate: the real node's serving certificate; of a cluster without one nobody serves it.
        kubelet_key: its key.
        kubelet_client_certificate: what the API server shows to it.
        kubelet_client_key: its key.
    """

    ca: Path
    server_certificate: Path
    server_key: Path
    service_accounts: Path
    webhook_client_ca: Path
    webhook_client_certificate: Path
    webhook_client_key: Path
    kubelet_certificate: Path
    kubelet_key: Path
    kubelet_client_certificate: Path
    kubelet_client_key: Path


def make(directory: Path, *, server_addresses: Sequence[str] = ("127.0.0.1",), kubelet_address: str = "127.0.0.1") -> Pki:
    """Makes everything, in an existing directory that is ours alone.

    Args:
        directory: where.
        server_addresses: where clients find the API server.
        kubelet_address: where the API server finds the kubelet.
    """
    pki = Pki(
        ca=directory / "ca.crt",
        server_certificate=directory / "apiserver.crt",
        server_key=directory / "apiserver.key",
        service_accounts=directory / "service-accounts.key",
        webhook_client_ca=directory / "webhook-client-ca.crt",
        webhook_client_certificate=directory / "webhook-client.crt",
        webhook_client_key=directory / "webhook-client.key",
        kubelet_certificate=directory / "kubelet.crt",
        kubelet_key=directory / "kubelet.key",
        kubelet_client_certificate=directory / "kubelet-client.crt",
        kubelet_client_key=directory / "kubelet-client.key",
    )
    authority = _Authority("mlwarden embedded cluster")
    authority.write(pki.ca)
    authority.issue("kube-apiserver", certificate=pki.server_certificate, key=pki.server_key, addresses=server_addresses)
    authority.issue("kubelet", certificate=pki.kubelet_certificate, key=pki.kubelet_key, addresses=[kubelet_address])
    authority.issue("kube-apiserver", organization="system:masters", certificate=pki.kubelet_client_certificate, key=pki.kubelet_client_key)
    towards_webhooks = _Authority("mlwarden embedded cluster, API server towards webhooks")
    towards_webhooks.write(pki.webhook_client_ca)
    towards_webhooks.issue("kube-apiserver", certificate=pki.webhook_client_certificate, key=pki.webhook_client_key)
    _write_key(pki.service_accounts, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    return pki


class _Authority:
    """A certificate authority that forgets its key with the process."""

    def __init__(self, name: str) -> None:
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(self._name, self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(authority=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        self._certificate = builder.sign(self._key, hashes.SHA256())

    def write(self, path: Path) -> None:
        path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, certificate: Path, key: Path, organization: str = "", addresses: Sequence[str] = ()) -> None:
        """A certificate of a server at these addresses or, without any, of a client."""
        private = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name, organization), self._name, private.public_key())
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if addresses else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        builder = builder.add_extension(_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        if addresses:
            names: list[x509.GeneralName] = [x509.DNSName(host) for host in _SERVER_NAMES]
            names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        _write_key(key, private)


def _name(common_name: str, organization: str = "") -> x509.Name:
    group = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*group, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=30))


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    )
