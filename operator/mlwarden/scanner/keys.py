"""Public keys that policies keep in Secrets, read by the side that has the token.

A key is no secret, but a Secret is where people keep what cosign made, and where a rotation happens without touching the policy. So a key
is read again every half minute, and what it is goes into each proof: a proof by a key that is not there any more is made again. So is one
by a trust root that was exchanged, which is how one gets rid of a certificate authority.
"""

import base64
import binascii
import hashlib
import time
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

import msgspec

from mlwarden.cluster import SECRET, ApiError, Client
from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError
from mlwarden.model.signing import Demand, SecretKey

GONE = "gone"
"""Stands for a key that is not there any more."""
_NO_ROOTS: Mapping[str, str] = MappingProxyType({})
_FRESH_SECONDS = 30.0
_LONGEST = 16384
_BEGIN = "-----BEGIN PUBLIC KEY-----"


class Keys:
    """Reads keys, and remembers them for a moment.

    Args:
        client: may get the Secrets that the chart names.
        namespace: mlwarden's own, where they are.
    """

    def __init__(self, client: Client, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._known: dict[SecretKey, tuple[float, str]] = {}

    async def filled(self, demands: Mapping[str, Demand]) -> tuple[dict[str, Demand], dict[str, GatherError]]:
        """Returns the demands with every key in them, and, by demand, why its key cannot be had."""
        found: dict[str, Demand] = {}
        failed: dict[str, GatherError] = {}
        for name, demand in demands.items():
            authority = demand.authority
            if authority.key_secret is None:
                found[name] = demand
                continue
            try:
                pem = await self._pem(authority.key_secret)
            except GatherError as error:
                failed[name] = error
            else:
                inline = msgspec.structs.replace(authority, key=pem, key_secret=None)
                found[name] = msgspec.structs.replace(demand, authority=inline)
        return found, failed

    async def materials(self, demands: Mapping[str, Demand], roots: Mapping[str, str] = _NO_ROOTS) -> dict[str, str]:
        """Returns, by demand, what its key and trust root are now, `GONE` where its key is no more; keys that cannot be read are left out.

        Args:
            demands: by id.
            roots: see `material`.
        """
        found, failed = await self.filled(demands)
        gone = {name: GONE for name, error in failed.items() if isinstance(error, DefinitiveError)}
        return {name: material(demand, roots) for name, demand in found.items()} | gone

    async def _pem(self, where: SecretKey) -> str:
        at, pem = self._known.get(where, (0.0, ""))
        if pem and time.monotonic() - at < _FRESH_SECONDS:
            return pem
        try:
            secret = await self._client.get(SECRET, where.name, namespace=self._namespace)
            pem = base64.b64decode((secret.get("data") or {}).get(where.key) or "", validate=True).decode()
        except ApiError as error:
            kind = DefinitiveError if error.code == HTTPStatus.NOT_FOUND else TransientError
            raise kind(f"the key in Secret {where.name} cannot be read ({error.code})") from None
        except (binascii.Error, UnicodeDecodeError, AttributeError):
            pem = ""
        if _BEGIN not in pem or len(pem) > _LONGEST:
            raise DefinitiveError(f"Secret {where.name} has no public key under {where.key}")
        self._known[where] = (time.monotonic(), pem)
        return pem


def material(demand: Demand, roots: Mapping[str, str] = _NO_ROOTS) -> str:
    """Returns what stands in a proof for what it was made with, beside what the demand itself says; empty where there is nothing.

    Args:
        demand: its key filled in.
        roots: name → sha256 of the worker's trust roots.
    """
    authority = demand.authority
    key = hashlib.sha256(authority.key.strip().encode()).hexdigest()[:16] if authority.key else ""
    root = "" if authority.key and not authority.log else roots.get(authority.trust_root, "")
    return hashlib.sha256(f"{key} {root}".encode()).hexdigest()[:16] if root else key
