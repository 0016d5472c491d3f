"""Kinds of Kubernetes itself that run nothing: the API server closes their schemas, so no pod can hide in them.

What is neither here nor in the table of kinds, and in which no pod is found, is not understood.
Source: the API server's own discovery (k8s.io/api v0.36 and the groups that it serves beside); a test compares them.
"""

from collections.abc import Mapping

RUNS_NOTHING: Mapping[str, frozenset[str]] = {
    "": frozenset(
        {
            *("Binding", "ComponentStatus", "ConfigMap", "Endpoints", "Event", "LimitRange", "Namespace", "Node", "PersistentVolume"),
            *("PersistentVolumeClaim", "ResourceQuota", "Secret", "Service", "ServiceAccount"),
        }
    ),
    "admissionregistration.k8s.io": frozenset(
        {
            *("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "MutatingWebhookConfiguration", "ValidatingAdmissionPolicy"),
            *("ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration"),
        }
    ),
    "apiextensions.k8s.io": frozenset({"CustomResourceDefinition"}),
    "apiregistration.k8s.io": frozenset({"APIService"}),
    "apps": frozenset({"ControllerRevision"}),
    "authentication.k8s.io": frozenset({"SelfSubjectReview", "TokenRequest", "TokenReview"}),
    "authorization.k8s.io": frozenset(
        {"LocalSubjectAccessReview", "SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview"}
    ),
    "autoscaling": frozenset({"HorizontalPodAutoscaler", "Scale"}),
    "batch": frozenset(),
    "certificates.k8s.io": frozenset({"CertificateSigningRequest", "ClusterTrustBundle", "PodCertificateRequest"}),
    "coordination.k8s.io": frozenset({"Lease", "LeaseCandidate"}),
    "discovery.k8s.io": frozenset({"EndpointSlice"}),
    "events.k8s.io": frozenset({"Event"}),
    "flowcontrol.apiserver.k8s.io": frozenset({"FlowSchema", "PriorityLevelConfiguration"}),
    "internal.apiserver.k8s.io": frozenset({"StorageVersion"}),
    "networking.k8s.io": frozenset({"IPAddress", "Ingress", "IngressClass", "NetworkPolicy", "ServiceCIDR"}),
    "node.k8s.io": frozenset({"RuntimeClass"}),
    "policy": frozenset({"Eviction", "PodDisruptionBudget"}),
    "rbac.authorization.k8s.io": frozenset({"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}),
    "resource.k8s.io": frozenset({"DeviceClass", "DeviceTaintRule", "ResourceClaim", "ResourceClaimTemplate", "ResourceSlice"}),
    "scheduling.k8s.io": frozenset({"PriorityClass"}),
    "storage.k8s.io": frozenset(
        {"CSIDriver", "CSINode", "CSIStorageCapacity", "StorageClass", "VolumeAttributesClass", "VolumeAttachment"}
    ),
    "storagemigration.k8s.io": frozenset({"StorageVersionMigration"}),
    "mlwarden.io": frozenset({"ImageEvidence", "RevokedArtifact", "WardenPolicy"}),
}
"""API group → its kinds, in every version."""

OF_OPERATORS: Mapping[str, frozenset[str]] = {
    "autoscaling.aibrix.ai": frozenset({"PodAutoscaler"}),
    "kubeflow.org": frozenset({"Workspace"}),
    "mlops.seldon.io": frozenset({"Experiment", "Model", "Pipeline"}),
    "model.aibrix.ai": frozenset({"ModelAdapter", "ModelClaim"}),
}
"""Kinds of operators that have no field for a pod or an image: what they name runs in pods that others say."""

CLUSTER_SCOPED: Mapping[str, frozenset[str]] = {
    **{
        group: RUNS_NOTHING[group]
        for group in (
            *("admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "certificates.k8s.io"),
            *("flowcontrol.apiserver.k8s.io", "internal.apiserver.k8s.io", "mlwarden.io", "node.k8s.io", "scheduling.k8s.io"),
            *("storagemigration.k8s.io",),
        )
    },
    "": frozenset({"ComponentStatus", "Namespace", "Node", "PersistentVolume"}),
    "authentication.k8s.io": frozenset({"SelfSubjectReview", "TokenReview"}),
    "authorization.k8s.io": frozenset({"SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview"}),
    "certificates.k8s.io": frozenset({"CertificateSigningRequest", "ClusterTrustBundle"}),
    "networking.k8s.io": frozenset({"IPAddress", "IngressClass", "ServiceCIDR"}),
    "rbac.authorization.k8s.io": frozenset({"ClusterRole", "ClusterRoleBinding"}),
    "resource.k8s.io": frozenset({"DeviceClass", "DeviceTaintRule", "ResourceSlice"}),
    "storage.k8s.io": frozenset({"CSIDriver", "CSINode", "StorageClass", "VolumeAttributesClass", "VolumeAttachment"}),
}
"""Those of them that belong to no namespace: nobody is asked about them."""
