"""The ecosystem's real operators, as host processes beside the embedded cluster.

Each is built from its released Go module (`make operators`), with what the module carries: the definitions of its kinds, the rights of its
account, its webhooks. It speaks to the API server as its own service account, and the API server calls its webhooks by URL. What differs
from an installation in a cluster stands in the table below and nowhere else. Only kwok's nodes are there to run what it makes: a container
does nothing.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mlwarden.embedded import build, configuration
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.cluster import EmbeddedCluster, StartError
from mlwarden.embedded.processes import Process, free_port, wait_until

_READY_SECONDS = 60.0
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where an operator runs on this machine.

    Attributes:
        directory: its own: configuration, certificates, log; TMPDIR, too.
        namespace: where its account is.
        webhook_port: for its webhooks.
        probe_port: for its probes.
    """

    directory: Path
    namespace: str
    webhook_port: int
    probe_port: int

    @property
    def certificates(self) -> Path:
        """Where controller-runtime looks for the certificate of the webhooks, unless it is told another place."""
        return self.directory / "k8s-webhook-server" / "serving-certs"


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator: what of its module is applied, and how it is started.

    Attributes:
        namespace: where its account is.
        definitions: files and folders with the definitions of its kinds.
        rights: files with the roles of its account.
        arguments: its command line.
        webhooks: file with its webhooks, if they are used.
        selected: webhook → label that an object must have for it to be called: as the module says, or so that others need not wait for it.
        settings: content of `config.yaml` in its directory.
        environment: added to the environment.
        secret: where it keeps certificates of its own making, which nobody uses here.
        stands_for: webhook configurations that it puts these certificates into, without webhooks; its kinds' conversion gets them, too.
    """

    namespace: str
    definitions: tuple[str, ...]
    rights: tuple[str, ...]
    arguments: Callable[[Location], list[str]]
    webhooks: str = ""
    selected: Mapping[str, str] = field(default_factory=dict)
    settings: Callable[[Location], Mapping[str, Any]] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    secret: str = ""
    stands_for: tuple[str, ...] = ()


def _jobset(location: Location) -> Mapping[str, Any]:
    return {
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "webhook": {"port": location.webhook_port, "host": "127.0.0.1", "certDir": str(location.certificates)},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{location.probe_port}"},
    }


def _kueue(location: Location) -> Mapping[str, Any]:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": location.namespace,
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": True, "webhookServiceName": "unused-webhook-service", "webhookSecretName": "unused"},
        "webhook": {"port": location.webhook_port, "host": "127.0.0.1", "certDir": str(location.certificates)},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{location.probe_port}"},
        "metrics": {"bindAddress": "0"},
        "integrations": {"frameworks": ["batch/job", "pod"]},
        "featureGates": {"VisibilityOnDemand": False},
    }


_JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"

OPERATORS: Mapping[str, Operator] = {
    "jobset": Operator(
        namespace="jobset-system",
        definitions=("config/components/crd/bases",),
        rights=("config/components/rbac/role.yaml",),
        webhooks="config/components/webhook/manifests.yaml",
        selected={"mpod.kb.io": _JOBSET_LABEL, "vpod.kb.io": _JOBSET_LABEL},
        settings=_jobset,
        arguments=lambda location: [f"--config={location.directory}/config.yaml", "--metrics-bind-address=0"],
    ),
    "trainer": Operator(
        namespace="kubeflow-system",
        definitions=("manifests/base/crds",),
        rights=("manifests/base/rbac/role.yaml",),
        webhooks="manifests/base/webhook/manifests.yaml",
        arguments=lambda location: [
            f"--webhook-server-port={location.webhook_port}",
            f"--health-probe-bind-address=127.0.0.1:{location.probe_port}",
        ],
    ),
    "kuberay": Operator(
        namespace="ray-system",
        definitions=("config/crd/bases",),
        rights=("config/rbac/role.yaml",),
        arguments=lambda location: [
            "--metrics-addr=127.0.0.1:0",
            f"--health-probe-bind-address=127.0.0.1:{location.probe_port}",
            "--enable-leader-election=false",
            f"--leader-election-namespace={location.namespace}",
        ],
        environment={"ENABLE_WEBHOOKS": "false"},
    ),
    # Without certificates of its own making it looks for those of its metrics in one fixed folder of the machine.
    "kueue": Operator(
        namespace="kueue-system",
        definitions=("config/components/crd/bases",),
        rights=("config/components/rbac/role.yaml", "config/components/rbac/manager_secrets_role.yaml"),
        webhooks="config/components/webhook/manifests.yaml",
        selected={f"{verb}{kind}.kb.io": _QUEUE_LABEL for verb in ("m", "v") for kind in ("pod", "deployment", "statefulset")},
        settings=_kueue,
        arguments=lambda location: [f"--config={location.directory}/config.yaml"],
        secret="unused",  # noqa: S106 -- its name
        stands_for=("unused-mutating-webhook-configuration", "unused-validating-webhook-configuration"),
    ),
}


def obstacle(name: str) -> str:
    """Returns why an operator cannot run here, in words; `""` where it can."""
    return "" if build.is_built(name) else f"{name} {build.version(name)} is not built here: `make operators` builds it"


class Beside:
    """One operator beside a cluster.

    Args:
        cluster: where.
        name: one of `OPERATORS`.
    """

    def __init__(self, cluster: EmbeddedCluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        self._operator = OPERATORS[name]
        self._api = cluster.api()
        self._module = build.carried(name)
        directory = cluster.directory / "operators" / name
        self.location = Location(directory=directory, namespace=self._operator.namespace, webhook_port=free_port(), probe_port=free_port())
        self._process: Process | None = None

    def start(self) -> None:
        """Applies what the module carries and starts the program; returns when it is ready and its kinds can be created.

        Raises:
            StartError: it ended, or did not become ready.
        """
        self.location.certificates.mkdir(parents=True)
        shutil.copyfile(self.cluster.pki.server_certificate, self.location.certificates / "tls.crt")
        shutil.copyfile(self.cluster.pki.server_key, self.location.certificates / "tls.key")
        with contextlib.suppress(ApiError):
            self.cluster.create_namespace(self.location.namespace)
        self._define()
        self._admit()
        self.resume()
        for obj in self._read(self._operator.webhooks) if self._operator.webhooks else ():
            self._api.apply(f"{_ADMISSION}/{obj['kind'].lower()}s/{self._named(obj)}", self._reached(obj))

    def stop(self) -> None:
        """Kills the program; what it made stays."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def resume(self) -> None:
        """Starts the program, again if it was stopped; returns when it is ready."""
        settings = self._operator.settings
        if settings is not None:
            (self.location.directory / "config.yaml").write_text(yaml.safe_dump(dict(settings(self.location))), encoding="utf-8")
        environment = {
            **self.cluster.environment_of_parts(),
            "KUBECONFIG": str(self._kubeconfig()),
            "TMPDIR": str(self.location.directory),
            "POD_NAMESPACE": self.location.namespace,
            **self._operator.environment,
        }
        command: list[str | Path] = [build.binary(self.name), *self._operator.arguments(self.location)]
        log = self.location.directory / "log"
        process = self._process = Process(self.name, command, log=log, keeper=self.cluster.keeper, environment=environment)
        if not wait_until(lambda: not process.alive or self._is_ready(), seconds=_READY_SECONDS) or not process.alive:
            raise StartError(f"{self.name} did not become ready:\n{process.tail(20)}")

    def log(self, lines: int = 30) -> str:
        """Returns the last lines of what it said."""
        return self._process.tail(lines) if self._process is not None else ""

    def _define(self) -> None:
        """Its kinds, and that who may edit workloads may edit these: operators ship such a role."""
        names: list[str] = []
        for crd in self._read(*self._operator.definitions):
            if crd["kind"] != "CustomResourceDefinition":
                continue
            names.append(crd["metadata"]["name"])
            crd["spec"].pop("conversion", None)
            if self._operator.secret:  # the certificate for conversion would be that of its own making: nothing is left to be converted
                crd["spec"]["versions"] = [version for version in crd["spec"]["versions"] if version["storage"]]
                crd["spec"]["conversion"] = {
                    "strategy": "Webhook",
                    "webhook": {"clientConfig": self._client("/convert"), "conversionReviewVersions": ["v1"]},
                }
            self._api.apply(f"{_CRDS}/{names[-1]}", crd)
        groups = sorted({name.partition(".")[2] for name in names})
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": f"{self.name}-edit", "labels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}},
            "rules": [{"apiGroups": groups, "resources": ["*"], "verbs": ["*"]}],
        }
        self._api.apply(f"{_RBAC}/clusterroles/{self.name}-edit", role)

        def established() -> bool:
            found = [self._api.get(f"{_CRDS}/{name}").get("status", {}).get("conditions") or [] for name in names]
            return all(any(each["type"] == "Established" and each["status"] == "True" for each in one) for one in found)

        if not wait_until(established, seconds=_READY_SECONDS):
            raise StartError(f"the definitions of {self.name}'s kinds are not in force: {', '.join(names)}")

    def _admit(self) -> None:
        """Its account, with the rights that its module gives it."""
        own = f"/api/v1/namespaces/{self.location.namespace}"
        self._api.apply(
            f"{own}/serviceaccounts/{self.name}", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": self.name}}
        )
        for obj in self._read(*self._operator.rights):
            kind, name = obj["kind"], self._named(obj)
            if kind not in {"ClusterRole", "Role"}:
                continue
            base = _RBAC if kind == "ClusterRole" else f"{_RBAC}/namespaces/{self.location.namespace}"
            self._api.apply(f"{base}/{kind.lower()}s/{name}", {**obj, "metadata": {"name": name}})
            binding = {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": f"{kind}Binding",
                "metadata": {"name": name},
                "subjects": [{"kind": "ServiceAccount", "name": self.name, "namespace": self.location.namespace}],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            }
            self._api.apply(f"{base}/{kind.lower()}bindings/{name}", binding)
        if name := self._operator.secret:
            self._api.apply(f"{own}/secrets/{name}", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}})
        for name in self._operator.stands_for:
            kind = "MutatingWebhookConfiguration" if "mutating" in name else "ValidatingWebhookConfiguration"
            stand_in = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}}
            self._api.apply(f"{_ADMISSION}/{kind.lower()}s/{name}", stand_in)

    def _kubeconfig(self) -> Path:
        account = f"/api/v1/namespaces/{self.location.namespace}/serviceaccounts/{self.name}"
        token = self._api.create(f"{account}/token", {"spec": {"expirationSeconds": 86400}})["status"]["token"]
        return configuration.kubeconfig(
            self.location.directory / "kubeconfig", self.name, token, server=self.cluster.server, ca=self.cluster.pki.ca
        )

    def _named(self, obj: Mapping[str, Any]) -> str:
        """Names in modules are completed by kustomize."""
        return f"{self.name}-{obj['metadata']['name']}"

    def _reached(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Webhooks that the API server calls by URL."""
        webhooks = []
        for webhook in obj["webhooks"]:
            client = self._client(webhook["clientConfig"]["service"]["path"])
            label = self._operator.selected.get(webhook["name"])
            selector = {"objectSelector": {"matchExpressions": [{"key": label, "operator": "Exists"}]}} if label else {}
            webhooks.append({**webhook, "clientConfig": client, **selector})
        return {**obj, "metadata": {"name": self._named(obj)}, "webhooks": webhooks}

    def _client(self, path: str) -> dict[str, str]:
        return {"url": f"https://127.0.0.1:{self.location.webhook_port}{path}", "caBundle": configuration.encoded(self.cluster.pki.ca)}

    def _read(self, *names: str) -> Iterator[dict[str, Any]]:
        for name in names:
            path = self._module / name
            for file in sorted(path.rglob("*.yaml")) if path.is_dir() else [path]:
                for obj in yaml.safe_load_all(file.read_text(encoding="utf-8")):
                    if obj and not str(obj.get("apiVersion", "")).startswith("kustomize."):
                        yield obj

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.location.probe_port), timeout=2) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        return False
