"""Where kinds live in the API."""

import msgspec


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind, as a path: group, version, plural name, and whether it is namespaced."""

    group: str
    version: str
    plural: str
    namespaced: bool = True

    def path(self, *, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Returns the URL path of a collection, an object or a subresource."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{base}{scope}/{self.plural}" + (f"/{name}" if name else "") + (f"/{subresource}" if subresource else "")

    @property
    def api_version(self) -> str:
        """`group/version`, or `version` in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


def _kind(group: str, version: str, plural: str, *, namespaced: bool = True) -> Kind:
    return Kind(group=group, version=version, plural=plural, namespaced=namespaced)


POD = _kind("", "v1", "pods")
NAMESPACE = _kind("", "v1", "namespaces", namespaced=False)
NODE = _kind("", "v1", "nodes", namespaced=False)
SECRET = _kind("", "v1", "secrets")
CONFIG_MAP = _kind("", "v1", "configmaps")
SERVICE_ACCOUNT = _kind("", "v1", "serviceaccounts")
LIMIT_RANGE = _kind("", "v1", "limitranges")
DEPLOYMENT = _kind("apps", "v1", "deployments")
EVENT = _kind("", "v1", "events")
LEASE = _kind("coordination.k8s.io", "v1", "leases")
CRD = _kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)
CLUSTER_ROLE = _kind("rbac.authorization.k8s.io", "v1", "clusterroles", namespaced=False)
WARDEN_POLICY = _kind("mlwarden.io", "v1alpha1", "wardenpolicies", namespaced=False)
REVOKED_ARTIFACT = _kind("mlwarden.io", "v1alpha1", "revokedartifacts", namespaced=False)
IMAGE_EVIDENCE = _kind("mlwarden.io", "v1alpha1", "imageevidences", namespaced=False)
STORAGE_CONTAINER = _kind("serving.kserve.io", "v1alpha1", "clusterstoragecontainers", namespaced=False)
