"""`RevokedArtifact`: its CustomResourceDefinition and how it is read.

Who may write one is RBAC's business (the chart's ClusterRole `mlwarden-revoker`); everybody may read what is revoked.
"""

import re
from collections.abc import Callable, Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from mlwarden.errors import PolicyError
from mlwarden.model import schema
from mlwarden.model.digest import Digest
from mlwarden.model.revocation import Revocation, RevocationSpec, Revoked
from mlwarden.model.schema import Column, Schema
from mlwarden.model.workload import Json

REVOKED_KIND = "RevokedArtifact"
REVOKED_PLURAL = "revokedartifacts"
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")


class RevokedStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What the controller sees of it.

    Attributes:
        running_pods: how many pods run this digest now; of a key or signer it is not counted.
    """

    running_pods: Annotated[int, Meta(ge=0)] = 0


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Metadata
    spec: RevocationSpec


def read_revocation(obj: Json) -> Revocation:
    """Returns what a decoded `RevokedArtifact` says.

    Raises:
        PolicyError: where the API server would refuse it.
    """
    try:
        found = msgspec.convert(obj, _Manifest)
    except (msgspec.ValidationError, RecursionError) as error:
        raise PolicyError(str(error)) from None
    spec = found.spec
    if sum((bool(spec.digest), bool(spec.key), spec.signer is not None)) != 1:
        raise PolicyError("a revocation names exactly one of digest, key and signer")
    if spec.signer is None and not _FINGERPRINT.fullmatch(spec.digest or spec.key):
        raise PolicyError("a digest, and the fingerprint of a key, is sha256: and 64 hexadecimal digits")
    return Revocation(name=found.metadata.name, spec=spec)


def revoked(objects: Iterable[Json], related: Callable[[Digest], Iterable[Digest]] = lambda _digest: ()) -> Revoked:
    """Returns what a list of `RevokedArtifact`s revokes, and with each digest what is `related` to it."""
    found, unreadable = [], {}
    for obj in objects:
        try:
            found.append(read_revocation(obj))
        except PolicyError as error:
            unreadable[obj["metadata"]["name"]] = error.message
    return Revoked.of(found, unreadable, related)


def revocation_crd() -> Schema:
    """Returns the CustomResourceDefinition, as applied to the cluster."""
    return schema.definition(
        kind=REVOKED_KIND,
        plural=REVOKED_PLURAL,
        short_names=["revoked"],
        spec=RevocationSpec,
        status=RevokedStatus,
        columns=[
            Column("Digest", ".spec.digest"),
            Column("Running", ".status.runningPods", "integer"),
            Column("Reason", ".spec.reason"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Key", ".spec.key", wide=True),
            Column("Signer", ".spec.signer.subject", wide=True),
            Column("Reference", ".spec.reference", wide=True),
        ],
    )
