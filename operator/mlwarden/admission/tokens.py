"""Tokens by which an API server proves to a webhook that it is one (KEP-6060, `APIServerWebhookAuthenticationToken`).

A service account's token that is bound to our webhook configuration, whose only audience is the address that is called, and in which the
API server attests of which API groups the bearer may speak: it signs that for nobody without the right `attest`. Anybody who may create a
pod gets tokens for any audience; without the attestation they are worth nothing here.

Verified without asking anybody, by the keys that the API server publishes (every service account may read them), so that a review costs no
request and a flood of tokens costs the API server nothing. Such a token lives ten minutes at most, which is how long one stays good whose
configuration is gone. Rejected: TokenReview, a right that says of every token in the cluster whose it is.

Source: kubernetes 1.37, pkg/registry/core/serviceaccount/storage/token.go (audience, authorization), pkg/serviceaccount/claims.go (claims).
"""

import asyncio
import base64
import binascii
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from mlwarden.admission.sender import ANYBODY, Sender
from mlwarden.cluster import Client, clock
from mlwarden.cluster.errors import ApiError
from mlwarden.model.policy import Settings

LOG = logging.getLogger(__name__)
CONFIGURATION = "mlwarden"
"""Name of our webhook configurations, to one of which a token is bound."""
_LARGEST = 8 * 1024
_LEEWAY = 10.0
_AGAIN = 10.0
"""Seconds until the keys are read again for a token that none of them fits."""
_REMEMBERED = 256
_CURVES = {"ES256": ("P-256", 32, ec.SECP256R1, hashes.SHA256), "ES384": ("P-384", 48, ec.SECP384R1, hashes.SHA384)}
Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str = ""


class _Bound(msgspec.Struct, frozen=True):
    name: str = ""


class _Attested(msgspec.Struct, frozen=True, rename={"groups": "admissionReviewAPIGroups"}):
    groups: tuple[str, ...] = ()


class _Kubernetes(msgspec.Struct, frozen=True, rename="lower"):
    validating_webhook_configuration: _Bound = msgspec.field(default=_Bound(), name="validatingwebhookconfiguration")
    mutating_webhook_configuration: _Bound = msgspec.field(default=_Bound(), name="mutatingwebhookconfiguration")
    attestations: _Attested = _Attested()


class _Claims(msgspec.Struct, frozen=True):
    iss: str
    exp: float
    nbf: float = 0.0
    aud: str | tuple[str, ...] = ()
    kubernetes: _Kubernetes = msgspec.field(default=_Kubernetes(), name="kubernetes.io")


class Tokens:
    """Says who a bearer is.

    Args:
        client: of the API server whose keys count.
        settings: say under which address this webhook is called.
        now: the clock.
    """

    def __init__(self, client: Client, settings: Settings, *, now: Callable[[], datetime] = clock.now) -> None:
        self._client, self._now = client, now
        self._base = settings.webhook_url.rstrip("/") or f"https://{settings.webhook}.{settings.namespace}.svc:443"
        self._issuer = ""
        self._keys: dict[str, Key] = {}
        self._missed = asyncio.Event()
        self._known: OrderedDict[tuple[str, str], tuple[float, Sender]] = OrderedDict()

    def sender(self, token: str, path: str) -> Sender:
        """Returns who shows this token, calling this path. Never raises, never waits: with keys that are not known yet it is anybody."""
        if len(token) > _LARGEST:
            return ANYBODY
        known = self._known.get((token, path))
        if known is None:
            known = self._verified(token, path)
            if known is None:
                return ANYBODY
            self._known[token, path] = known
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        until, sender = known
        return sender if self._now().timestamp() < until + _LEEWAY else ANYBODY

    async def run(self) -> None:
        """Reads the keys when a token comes that none of them fits, until cancelled."""
        while True:
            await self._missed.wait()
            try:
                await self._read()
            except ApiError as error:
                LOG.warning("the API server's keys could not be read, so no token counts that is signed by a new one: %s", error)
            await asyncio.sleep(_AGAIN)
            self._missed.clear()

    async def _read(self) -> None:
        discovery = msgspec.json.decode(await self._client.request("GET", "/.well-known/openid-configuration"), type=dict[str, Any])
        content = await self._client.request("GET", "/openid/v1/jwks", accept="application/jwk-set+json")
        published = msgspec.json.decode(content, type=dict[str, Any])
        keys = {str(each.get("kid", "")): key for each in published.get("keys", ()) if (key := _key(each)) is not None}
        self._issuer, self._keys = str(discovery.get("issuer", "")), keys

    def _verified(self, token: str, path: str) -> tuple[float, Sender] | None:
        """Until when it is who; None where that cannot be told yet."""
        nobody = (self._now().timestamp() + _AGAIN, ANYBODY)
        if token.count(".") != 2:
            return nobody
        signed, _, signature = token.rpartition(".")
        head, _, body = signed.partition(".")
        try:
            header = msgspec.json.decode(_bytes(head), type=_Header)
            key = self._keys.get(header.kid)
            if key is None:
                self._missed.set()
                return None
            _check(key, header.alg, signed.encode(), _bytes(signature))
            claims = msgspec.json.decode(_bytes(body), type=_Claims)
        except (ValueError, InvalidSignature, RecursionError):
            return nobody
        bound = {claims.kubernetes.validating_webhook_configuration.name, claims.kubernetes.mutating_webhook_configuration.name}
        audiences = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
        now, groups = self._now().timestamp(), frozenset(claims.kubernetes.attestations.groups)
        in_time = claims.nbf - _LEEWAY <= now < claims.exp + _LEEWAY
        if claims.iss != self._issuer or audiences != (self._base + path,) or CONFIGURATION not in bound or not in_time or not groups:
            return nobody
        return claims.exp, Sender(groups=groups)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _number(text: object) -> int:
    return int.from_bytes(_bytes(str(text)))


def _key(published: Mapping[str, Any]) -> Key | None:
    """A key of a JSON Web Key Set (RFC 7517), None where it is of a sort that no API server signs with."""
    try:
        if published.get("kty") == "RSA":
            return rsa.RSAPublicNumbers(_number(published["e"]), _number(published["n"])).public_key()
        for curve, _, make, _ in _CURVES.values():
            if published.get("kty") == "EC" and published.get("crv") == curve:
                return ec.EllipticCurvePublicNumbers(_number(published["x"]), _number(published["y"]), make()).public_key()
    except (KeyError, ValueError) as error:
        LOG.warning("a key that the API server publishes cannot be used: %s", error)
    return None


def _check(key: Key, algorithm: str, signed: bytes, signature: bytes) -> None:
    """Raises InvalidSignature or ValueError unless it is signed so. The sort of key decides, never the header alone."""
    if isinstance(key, rsa.RSAPublicKey):
        if algorithm != "RS256":
            raise ValueError(algorithm)
        key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        return
    if algorithm not in _CURVES:
        raise ValueError(algorithm)
    _, size, curve, digest = _CURVES[algorithm]
    if not isinstance(key.curve, curve) or len(signature) != 2 * size:
        raise ValueError(algorithm)
    pair = encode_dss_signature(int.from_bytes(signature[:size]), int.from_bytes(signature[size:]))
    key.verify(pair, signed, ec.ECDSA(digest()))
