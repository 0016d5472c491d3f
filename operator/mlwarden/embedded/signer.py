"""People who sign images: with the real cosign, in both forms that signatures are stored in, by key or by certificate.

Everything is pushed over plain HTTP to a registry of one's own. cosign's own names for what it does here change from release to release
(flags deprecated, hidden, replaced by files), so they stand in this file and in `sigstore.py` only.

The two forms: since cosign 3 a signature is an attestation in a bundle, stored as an OCI referrer of the image (in the index tag
`sha256-<hex>` where the registry has no referrers API); before, it was a layer of an image called `sha256-<hex>.sig` or `.att`.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from mlwarden.controllers.certificates import common_name, key_usage
from mlwarden.embedded import build
from mlwarden.errors import ClusterError

_WITHOUT_SERVICES = ("--use-signing-config=false", "--tlog-upload=false")
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """A key that signs, as cosign keeps it (encrypted with an empty password), and maybe the certificate that says whose it is.

    Attributes:
        private: path for cosign.
        public: path of the public key, PEM.
        certificate: path of the certificate, PEM.
        chain: path of the certificates of those who issued it, PEM.
    """

    private: Path
    public: Path
    certificate: Path | None = None
    chain: Path | None = None

    @property
    def pem(self) -> str:
        """The public key."""
        return self.public.read_text(encoding="ascii")


class Signer:
    """Keys and signatures, below one directory that the caller removes.

    Args:
        directory: exists.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def key_pair(self, name: str = "cosign") -> KeyPair:
        """Makes a key pair."""
        self.cosign("generate-key-pair", "--output-key-prefix", name)
        return KeyPair(private=self.directory / f"{name}.key", public=self.directory / f"{name}.pub")

    def authority(self, name: str = "authority", *, days: float = 30) -> CertificateAuthority:
        """Makes a certificate authority of one's own, whose certificate ends in so many days (or ended, where negative)."""
        return CertificateAuthority(self, name, days=days)

    def sign(self, image: str, key: KeyPair, *, legacy: bool = False) -> None:
        """Signs `repository@sha256:…`, without any service.

        Args:
            image: with its digest.
            key: its certificate goes into the signature where it has one.
            legacy: as a `.sig` tag, not as a referrer.
        """
        self.cosign("sign", *_key(key), *_WITHOUT_SERVICES, *_form(legacy=legacy), image)

    def attest(self, image: str, key: KeyPair, *, type: str, predicate: Mapping[str, Any], legacy: bool = False) -> None:  # noqa: A002 -- cosign's word
        """Attests something of `repository@sha256:…`, without any service.

        Args:
            image: with its digest.
            key: its certificate goes into the attestation where it has one.
            type: URI of the predicate, or one of cosign's short names.
            predicate: what is attested.
            legacy: as an `.att` tag, not as a referrer.
        """
        path = self.predicate(predicate)
        self.cosign("attest", *_key(key), *_WITHOUT_SERVICES, *_form(legacy=legacy), "--type", type, "--predicate", str(path), image)

    def predicate(self, content: Mapping[str, Any]) -> Path:
        """Writes a predicate to a file for cosign."""
        path = self.directory / "predicate.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def cosign(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Runs cosign with its home below the directory; returns standard output.

        Raises:
            ClusterError: it exited with something other than 0.
        """
        own = {"HOME": str(self.directory), "COSIGN_PASSWORD": "", "PATH": os.defpath, **(environment or {})}
        answer = subprocess.run(
            [build.binary("cosign"), *arguments], env=own, cwd=self.directory, capture_output=True, text=True, check=False
        )
        if answer.returncode != 0:
            raise ClusterError(f"cosign {arguments[0]} exited with {answer.returncode}: {answer.stderr.strip()[-600:]}")
        return answer.stdout


class CertificateAuthority:
    """Issues certificates for signing, and forgets its key with the process.

    Args:
        signer: whose directory the files are in.
        name: of the authority; two of the same name are two authorities with one file name.
        days: until its certificate ends.

    Attributes:
        path: its certificate, PEM.
    """

    def __init__(self, signer: Signer, name: str, *, days: float) -> None:
        self._signer, self._name = signer, common_name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(self._name, self._name, self._key.public_key(), days=days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(key_usage(signs_certificates=True), critical=True)
        self.path = signer.directory / f"{name}.pem"
        self.path.write_bytes(self._sign(builder))

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self.path.read_text(encoding="ascii")

    def issue(self, email: str, *, days: float = 30) -> KeyPair:
        """Makes a key pair with a certificate for an e-mail address, that ends in so many days (or ended, where negative)."""
        private = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(common_name(email), self._name, private.public_key(), days=days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(email)]), critical=True)
        builder = builder.add_extension(key_usage(signs_certificates=False), critical=True)
        stem = f"{self.path.stem}-{email.partition('@')[0]}"
        certificate, plain = self._signer.directory / f"{stem}.crt", self._signer.directory / f"{stem}.plain"
        certificate.write_bytes(self._sign(builder))
        plain.touch(mode=0o600)
        plain.write_bytes(private.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        self._signer.cosign("import-key-pair", "--key", str(plain), "--output-key-prefix", stem, "--yes")
        plain.unlink()
        files = (self._signer.directory / f"{stem}.key", self._signer.directory / f"{stem}.pub")
        return KeyPair(private=files[0], public=files[1], certificate=certificate, chain=self.path)

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(identifier, critical=False).sign(self._key, hashes.SHA256()).public_bytes(_PEM)


def openvex(digest: str, vulnerability: str, status: str, *, at: str = "2026-11-01T00:00:00Z") -> dict[str, Any]:
    """Returns a document of OpenVEX with one statement about an image, to be attested.

    Args:
        digest: of the image, `sha256:…`.
        vulnerability: its id.
        status: as `not_affected`.
        at: when it was made, RFC 3339.
    """
    statement = {
        "vulnerability": {"name": vulnerability},
        "products": [{"@id": f"pkg:oci/excused@{digest.replace(':', '%3A')}"}],
        "status": status,
        "justification": "vulnerable_code_not_in_execute_path",
    }
    whole = {"@context": "https://openvex.dev/ns/v0.2.0", "@id": "https://example.com/vex/1", "author": "somebody", "version": 1}
    return {**whole, "timestamp": at, "statements": [statement]}


def _key(key: KeyPair) -> list[str]:
    certificate = ["--certificate", str(key.certificate), "--certificate-chain", str(key.chain)] if key.certificate else []
    return ["--key", str(key.private), *certificate]


def _form(*, legacy: bool) -> list[str]:
    return ["--allow-http-registry", "--yes", *(["--new-bundle-format=false"] if legacy else [])]


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, *, days: float) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    start = now - dt.timedelta(days=365)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(now + dt.timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
