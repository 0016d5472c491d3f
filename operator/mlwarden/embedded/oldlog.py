"""A transparency log of the first kind, which signatures in the older form need: a key, and the promises it signs.

Signatures before cosign 3 carry a promise of Rekor v1 that there is an entry (a "signed entry timestamp"); offline, that promise is all
that anybody looks at. So a key that signs such promises is, to a verifier, the whole log.

Rejected: Rekor v1 itself (it needs a database server and two more services).
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mlwarden.errors import ClusterError

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_BUNDLE = "dev.sigstore.cosign/bundle"


class OldLog:
    """Makes its key at once, and forgets it with the process.

    Args:
        public: where its public key is written, PEM.
    """

    def __init__(self, public: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        made = self._key.public_key()
        public.write_bytes(made.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
        der = made.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self._id = hashlib.sha256(der).hexdigest()
        self._index = 0

    def enter(self, image: str) -> None:
        """Adds a promise to the newest signature in the older form.

        Args:
            image: `host:port/repository@sha256:…`, signed by certificate; plain HTTP.

        Raises:
            ClusterError: the registry refused.
        """
        manifest = self._manifest(image)
        layer = manifest["layers"][-1]
        annotations = layer["annotations"]
        body = {
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": layer["digest"].removeprefix("sha256:")}},
                "signature": {
                    "content": annotations[_SIGNATURE],
                    "publicKey": {"content": base64.b64encode(annotations[_CERTIFICATE].encode()).decode()},
                },
            },
        }
        annotations[_BUNDLE] = json.dumps(self._promise(json.dumps(body).encode()))
        self._put(image, manifest)

    def move(self, image: str, other: str) -> None:
        """Gives one image's signature the promise that was made for another's."""
        manifest = self._manifest(image)
        manifest["layers"][-1]["annotations"][_BUNDLE] = self._manifest(other)["layers"][-1]["annotations"][_BUNDLE]
        self._put(image, manifest)

    def _promise(self, body: bytes) -> dict[str, Any]:
        self._index += 1
        entry = {"body": base64.b64encode(body).decode(), "integratedTime": int(time.time()), "logID": self._id, "logIndex": self._index}
        canonical = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
        signed = self._key.sign(canonical, ec.ECDSA(hashes.SHA256()))
        return {"SignedEntryTimestamp": base64.b64encode(signed).decode(), "Payload": entry}

    def _manifest(self, image: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(_request("GET", image, None))
        return found

    def _put(self, image: str, manifest: dict[str, Any]) -> None:
        _request("PUT", image, json.dumps(manifest).encode())


def _request(method: str, image: str, body: bytes | None) -> bytes:
    registry, _, rest = image.partition("/")
    repository, _, digest = rest.partition("@")
    connection = http.client.HTTPConnection(registry, timeout=30)
    try:
        path = f"/v2/{repository}/manifests/{digest.replace(':', '-')}.sig"
        connection.request(method, path, body, {"Accept": _MANIFEST, "Content-Type": _MANIFEST})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status >= 300:
        raise ClusterError(f"{method} {path}: the registry answered {response.status}")
    return content
