"""The table of pinned tools: what each is built from. Pure data; the versions stand in the `go.mod` files under `tools/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One program.

    Args:
        module: the folder under `tools/`.
        package: the Go package to build.
        source: the Go module whose version is the tool's version; none for a program of our own.
        stamp: the linker variable that tells the program its version; `v` is stripped when it ends in `ver`.
        minutes: what a cold build takes on two cores, for the estimate that is printed.
        tags: build tags.
        environment: extra environment of the compiler.
        node: whether only a real node needs it; `make setup` builds these where a node can run.
        carries: files and folders of the source module that are kept beside the program: definitions of its kinds, its rights.
    """

    module: str
    package: str
    source: str
    stamp: str = ""
    minutes: float = 1.0
    tags: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    node: bool = False
    carries: tuple[str, ...] = ()


_KUBERNETES_STAMP = "k8s.io/component-base/version.gitVersion"
_CONTAINERD = "github.com/containerd/containerd/v2"
_PLUGINS = "github.com/containernetworking/plugins"
_NO_C = {"CGO_ENABLED": "0"}

TOOLS: Mapping[str, Tool] = {
    "etcd": Tool(module="kubernetes", package="go.etcd.io/etcd/server/v3", source="go.etcd.io/etcd/server/v3"),
    "kube-apiserver": Tool(
        module="kubernetes", package="k8s.io/kubernetes/cmd/kube-apiserver", source="k8s.io/kubernetes", stamp=_KUBERNETES_STAMP, minutes=3
    ),
    "kube-controller-manager": Tool(
        module="kubernetes", package="k8s.io/kubernetes/cmd/kube-controller-manager", source="k8s.io/kubernetes", stamp=_KUBERNETES_STAMP
    ),
    "kube-scheduler": Tool(
        module="kubernetes",
        package="k8s.io/kubernetes/cmd/kube-scheduler",
        source="k8s.io/kubernetes",
        stamp=_KUBERNETES_STAMP,
        minutes=0.5,
    ),
    "kubectl": Tool(
        module="kubernetes", package="k8s.io/kubernetes/cmd/kubectl", source="k8s.io/kubernetes", stamp=_KUBERNETES_STAMP, minutes=0.5
    ),
    "kwok": Tool(module="kwok", package="sigs.k8s.io/kwok/cmd/kwok", source="sigs.k8s.io/kwok"),
    "helm": Tool(module="client", package="helm.sh/helm/v4/cmd/helm", source="helm.sh/helm/v4"),
    "crane": Tool(
        module="client",
        package="github.com/google/go-containerregistry/cmd/crane",
        source="github.com/google/go-containerregistry",
        minutes=0.5,
    ),
    "trivy": Tool(
        module="trivy",
        package="github.com/aquasecurity/trivy/cmd/trivy",
        source="github.com/aquasecurity/trivy",
        stamp="github.com/aquasecurity/trivy/pkg/version/app.ver",
        minutes=5,
        environment={"GOEXPERIMENT": "jsonv2"},
    ),
    "cosign": Tool(
        module="cosign",
        package="github.com/sigstore/cosign/v3/cmd/cosign",
        source="github.com/sigstore/cosign/v3",
        stamp="sigs.k8s.io/release-utils/version.gitVersion",
        minutes=2,
    ),
    "fulcio": Tool(module="fulcio", package="github.com/sigstore/fulcio", source="github.com/sigstore/fulcio"),
    "rekor": Tool(
        module="rekor",
        package="github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix",
        source="github.com/sigstore/rekor-tiles/v2",
        minutes=0.5,
    ),
    "timestamp-server": Tool(
        module="tsa",
        package="mlwarden.io/tools/tsa",
        source="github.com/sigstore/timestamp-authority/v2",
        minutes=0.5,
    ),
    "kubelet": Tool(
        module="kubernetes", package="k8s.io/kubernetes/cmd/kubelet", source="k8s.io/kubernetes", stamp=_KUBERNETES_STAMP, node=True
    ),
    "kube-proxy": Tool(
        module="kubernetes",
        package="k8s.io/kubernetes/cmd/kube-proxy",
        source="k8s.io/kubernetes",
        stamp=_KUBERNETES_STAMP,
        minutes=0.2,
        node=True,
    ),
    "containerd": Tool(
        module="containerd",
        package=f"{_CONTAINERD}/cmd/containerd",
        source=_CONTAINERD,
        stamp=f"{_CONTAINERD}/version.Version",
        tags="no_btrfs,no_devmapper,no_zfs",
        environment=_NO_C,
        node=True,
    ),
    "containerd-shim-runc-v2": Tool(
        module="containerd",
        package=f"{_CONTAINERD}/cmd/containerd-shim-runc-v2",
        source=_CONTAINERD,
        stamp=f"{_CONTAINERD}/version.Version",
        minutes=0.2,
        environment=_NO_C,
        node=True,
    ),
    # Without seccomp it refuses every pod there is; so it needs a C compiler and libseccomp's headers.
    "runc": Tool(
        module="runc",
        package="github.com/opencontainers/runc",
        source="github.com/opencontainers/runc",
        minutes=0.3,
        tags="seccomp",
        environment={"CGO_ENABLED": "1"},
        node=True,
    ),
    "resident": Tool(module="resident", package="mlwarden.io/tools/resident", source="", minutes=0.1, environment=_NO_C, node=True),
    **{
        name: Tool(
            module="containerd", package=f"{_PLUGINS}/plugins/{kind}/{name}", source=_PLUGINS, minutes=0.1, environment=_NO_C, node=True
        )
        for name, kind in (("bridge", "main"), ("loopback", "main"), ("host-local", "ipam"))
    },
}

_KUBERAY = "github.com/ray-project/kuberay/ray-operator"
_TRAINER = "github.com/kubeflow/trainer/v2"

OPERATORS: Mapping[str, Tool] = {
    "jobset": Tool(
        module="jobset",
        package="sigs.k8s.io/jobset",
        source="sigs.k8s.io/jobset",
        minutes=3,
        carries=("config/components/crd/bases", "config/components/rbac/role.yaml", "config/components/webhook/manifests.yaml"),
    ),
    "trainer": Tool(
        module="trainer",
        package="mlwarden.io/tools/trainer",
        source=_TRAINER,
        minutes=1.5,
        carries=("manifests/base/crds", "manifests/base/rbac/role.yaml", "manifests/base/webhook/manifests.yaml"),
    ),
    "kuberay": Tool(
        module="kuberay",
        package=_KUBERAY,
        source=_KUBERAY,
        minutes=5,
        carries=("config/crd/bases", "config/rbac/role.yaml"),
    ),
    "kueue": Tool(
        module="kueue",
        package="sigs.k8s.io/kueue/cmd/kueue",
        source="sigs.k8s.io/kueue",
        minutes=6,
        carries=(
            "config/components/crd/bases",
            "config/components/rbac/role.yaml",
            "config/components/rbac/manager_secrets_role.yaml",
            "config/components/webhook/manifests.yaml",
        ),
    ),
}
"""The ecosystem's operators. Nothing but `make operators` builds them: what only needs Kubernetes should not wait for them."""
