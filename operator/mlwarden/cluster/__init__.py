"""The API server: a client, local copies of what is needed of it, leadership, and the snapshot that requests are judged by."""

from mlwarden.cluster.client import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Client
from mlwarden.cluster.errors import (
    ApiError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    UnreachableError,
)
from mlwarden.cluster.informer import Informer
from mlwarden.cluster.kinds import (
    CLUSTER_ROLE,
    CONFIG_MAP,
    CRD,
    EVENT,
    IMAGE_EVIDENCE,
    LEASE,
    NAMESPACE,
    POD,
    REVOKED_ARTIFACT,
    SECRET,
    SERVICE_ACCOUNT,
    WARDEN_POLICY,
    Kind,
)
from mlwarden.cluster.lease import Lease
from mlwarden.cluster.snapshot import POLICIES, REVOKED, SIGNERS, Snapshot, SnapshotSource

__all__ = [
    "APPLY_PATCH",
    "CLUSTER_ROLE",
    "CONFIG_MAP",
    "CRD",
    "EVENT",
    "IMAGE_EVIDENCE",
    "JSON_PATCH",
    "LEASE",
    "MERGE_PATCH",
    "NAMESPACE",
    "POD",
    "POLICIES",
    "REVOKED",
    "REVOKED_ARTIFACT",
    "SECRET",
    "SERVICE_ACCOUNT",
    "SIGNERS",
    "STRATEGIC_PATCH",
    "WARDEN_POLICY",
    "ApiError",
    "Client",
    "ConflictError",
    "ForbiddenError",
    "GoneError",
    "Informer",
    "InvalidError",
    "Kind",
    "Lease",
    "NotFoundError",
    "Snapshot",
    "SnapshotSource",
    "UnreachableError",
]
