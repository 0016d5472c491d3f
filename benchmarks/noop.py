"""A webhook that allows everything and looks at nothing, on the same server as mlwarden's: the floor of what a webhook costs."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.processes import free_port

_SERVER = """
import json, re, sys
import uvicorn
UID = re.compile(rb'"uid":"([^"]+)"')
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive(); body += message.get("body", b""); more = message.get("more_body", False)
    answer = b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"%s","allowed":true}}' % UID.search(body)[1]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": answer})
port, cert, key = int(sys.argv[1]), sys.argv[2], sys.argv[3]
uvicorn.run(app, host="127.0.0.1", port=port, ssl_certfile=cert, ssl_keyfile=key, loop="uvloop", http="httptools", lifespan="off",
            access_log=False, log_level="error", timeout_keep_alive=120)
"""


@contextlib.contextmanager
def serve(cluster: EmbeddedCluster, directory: Path) -> Iterator[None]:
    """Starts it, registers it for pods, and takes both away again."""
    certificate, key = _certificate(directory)
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", _SERVER, str(port), str(certificate), str(key)])
    name = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    body = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "noop"},
        "webhooks": [
            {
                "name": "noop.example.com",
                "clientConfig": {"url": f"https://127.0.0.1:{port}/", "caBundle": base64.b64encode(certificate.read_bytes()).decode()},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
            }
        ],
    }
    try:
        time.sleep(2)
        cluster.kubectl("apply", "--server-side", "--filename", "-", input=json.dumps(body))
        yield
    finally:
        cluster.api().delete(f"{name}/noop")
        process.kill()
        process.wait()


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "noop")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = directory / "noop.crt", directory / "noop.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return files
