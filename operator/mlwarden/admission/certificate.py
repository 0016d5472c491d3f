"""The webhook's certificate: from a Secret that the controller writes, into the TLS context that is serving, without a dropped request.

The chain is loaded into the live context from the event loop: new handshakes use it, connections that are open go on. (From a thread,
handshakes in flight failed now and then; a server restart drops requests.) It is tried on another context first: OpenSSL takes the
certificate before it looks at the key, and a pair that does not match would leave the live one with neither.

Python's ssl loads chains from files only, so the bytes pass through an anonymous file in memory: the key never touches a disk, and the root
filesystem may be read-only.
"""

import base64
import binascii
import contextlib
import logging
import os
import ssl
import tempfile
from collections.abc import Iterator
from typing import Any

from cryptography import x509

from mlwarden.admission import metrics
from mlwarden.errors import InputError

LOG = logging.getLogger(__name__)


def server_context(client_ca: str = "") -> ssl.SSLContext:
    """Returns a context without a certificate yet. With `client_ca` (a PEM file) nobody else's client certificates are let in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if client_ca:
        context.load_verify_locations(cafile=client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def load(context: ssl.SSLContext, secret: dict[str, Any]) -> None:
    """Loads `tls.crt` and `tls.key` of a Secret into a live context.

    Raises:
        InputError: the Secret holds no certificate with its key.
    """
    data = secret.get("data") or {}
    try:
        chain, key = (base64.b64decode(data.get(name) or "", validate=True) for name in ("tls.crt", "tls.key"))
        expires = x509.load_pem_x509_certificate(chain).not_valid_after_utc
        with _file(chain + b"\n" + key) as path:
            for each in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):
                each.load_cert_chain(path, password="")  # without one OpenSSL would ask the terminal
    except (binascii.Error, ValueError, TypeError, ssl.SSLError) as error:
        raise InputError(f"the Secret holds no usable certificate: {error}") from error
    metrics.EXPIRES.set(expires.timestamp())
    LOG.info("certificate loaded, valid until %s", expires.isoformat())


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("certificate")
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile() as file:  # not on Linux
        file.write(content)
        file.flush()
        yield file.name
