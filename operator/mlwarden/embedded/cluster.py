"""A throwaway, real Kubernetes control plane: started in seconds, gone with the process that started it.

etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok for fake nodes (pods get scheduled, become Running, Jobs complete) and
an OCI registry, all on free ports of the loopback interface, all state in one temporary directory. Authorisation, admission policies,
garbage collection, service accounts and their tokens are therefore the real thing; what is fake is that containers run. mlwarden's own pods
do run, as host processes: see `kubelet.py`.

Rejected: kind and minikube (they need a container engine and a registry to pull from), and a fake API server (every interesting question
here is one about the real one's behaviour).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mlwarden.embedded import build, configuration, pki
from mlwarden.embedded.api import Api, ApiError
from mlwarden.embedded.ground import Ground
from mlwarden.embedded.node import NODE, Node
from mlwarden.embedded.node import TOOLS as NODE_TOOLS
from mlwarden.embedded.processes import Keeper, Process, free_port, wait_until
from mlwarden.embedded.stages import fake_node
from mlwarden.errors import ClusterError

USERS: dict[str, tuple[str, ...]] = {
    "admin": ("system:masters",),
    "alice": ("data-scientists",),
    "lead": ("team-leads",),
    "gitops": ("gitops",),
    "kubelet": ("system:nodes",),
    "node": ("system:nodes",),
    "kube-proxy": (),
}
HOST_NODE = "mlwarden-host"
_NAMES = {"kubelet": f"system:node:{HOST_NODE}", "node": f"system:node:{NODE}", "kube-proxy": "system:kube-proxy"}
_LOOPBACK = "127.0.0.1"
_READY_SECONDS = 60.0
_ATTEMPTS = 4


class StartError(ClusterError):
    """A part of the embedded cluster did not start; the message ends with the tail of its log."""


class _PortTakenError(Exception):
    """Somebody was faster: choose other ports and start again."""


class ToolError(ClusterError):
    """kubectl or helm exited with something other than 0.

    Attributes:
        code: the exit code.
        output: standard error, and standard output where that is empty.
    """

    def __init__(self, message: str, *, code: int, output: str) -> None:
        super().__init__(message)
        self.code = code
        self.output = output


class EmbeddedCluster:
    """One control plane. Use as a context manager, or call `start` and `close`.

    Args:
        nodes: how many fake nodes, named `node-0` and so on, each with 8 GPUs.
        real_node: whether there is a real one, too; `ground.obstacle` says whether there can be.
        apiserver_arguments: added to the API server's command line.
        audit: whether the API server logs every write, and what mlwarden reads, at Metadata level, for `audit_events`.
        say: gets one line per step that takes long; nothing by default.

    Attributes:
        directory: everything on disk: data, logs, kubeconfigs.
        host: the address of everything that listens: 127.0.0.1 or, with a real node, where its pods find this machine.
        server: URL of the API server.
        registry: `host:port` of the OCI registry (plain HTTP, in memory).
        node: the real node, if there is one.
        pki: paths of the certificates.
        keeper: sees to it that nothing is left when this process goes.
    """

    def __init__(
        self,
        *,
        nodes: int = 3,
        real_node: bool = False,
        apiserver_arguments: Sequence[str] = (),
        audit: bool = False,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._nodes = nodes
        self._real_node = real_node
        self._ground: Ground | None = None
        self._apiserver_arguments = tuple(apiserver_arguments)
        self._audit = audit
        self._say = say
        self._tokens = {user: secrets.token_urlsafe(24) for user in USERS}
        self._processes: dict[str, Process] = {}
        self._apis: dict[str, Api] = {}
        self.keeper: Keeper
        self._port = self._etcd_port = 0
        self.directory: Path
        self.pki: pki.Pki
        self.host = _LOOPBACK
        self.server = self.registry = ""
        self.node: Node | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Starts everything and returns when a pod could be created and would run.

        Raises:
            BuildError: a tool is missing and could not be built.
            StartError: a part did not become ready.
        """
        parts = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "crane", "kubectl")
        for tool in (*parts, *(NODE_TOOLS if self._real_node else ())):
            build.binary(tool)
        kinds = [*([f"{self._nodes} fake nodes"] if self._nodes else []), *(["a real node"] if self._real_node else [])]
        duration = "10 to 20" if self._real_node else "3 to 10"
        self._say(f"starting Kubernetes {build.version('kube-apiserver')} with {' and '.join(kinds)}, usually {duration} seconds")
        started = time.monotonic()
        self.keeper = Keeper()
        try:
            self.directory = self.keeper.directory
            for name in ("logs", "pki", "users"):
                (self.directory / name).mkdir()
            if self._real_node:
                self._ground = Ground(self.keeper)
                self._ground.start()
                where = self._ground.addresses
                self.host = where.host
                self.pki = pki.make(self.directory / "pki", server_addresses=[where.host, where.api_service], kubelet_address=where.node)
            else:
                self.pki = pki.make(self.directory / "pki")
            for attempt in range(_ATTEMPTS):
                try:
                    self._start_all()
                    break
                except _PortTakenError as error:
                    self._stop_all()
                    if attempt == _ATTEMPTS - 1:
                        raise StartError(
                            f"no free ports in {_ATTEMPTS} attempts: {error}", hint="what else starts servers here?"
                        ) from error
            self._populate()
            if self._ground is not None:
                self.node = Node(self, self._ground)
                self.node.start()
            self._say(f"{self.server} is ready after {time.monotonic() - started:.0f} s; KUBECONFIG={self.kubeconfig()}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Kills everything and removes the directory. Harmless when called again."""
        if self.node is not None:
            self.node.close()
        if self._ground is not None:
            self._ground.stop()
        self._stop_all()
        for api in self._apis.values():
            api.close()
        self.keeper.close()

    # What users of the cluster need.

    def kubeconfig(self, user: str = "admin") -> Path:
        """Returns the path of the kubeconfig of one of `USERS`."""
        return self.directory / "users" / f"{user}.kubeconfig"

    def token(self, user: str = "admin") -> str:
        """Returns the bearer token of one of `USERS`."""
        return self._tokens[user]

    def api(self, user: str = "admin") -> Api:
        """Returns a client that speaks as one of `USERS`."""
        if user not in self._apis:
            self._apis[user] = Api(server=self.server, ca=str(self.pki.ca), token=self._tokens[user])
        return self._apis[user]

    @property
    def webhook_client_ca(self) -> Path:
        """The CA (PEM) that signs only the client certificate the API server shows to webhooks."""
        return self.pki.webhook_client_ca

    def kubectl(self, *arguments: str, user: str = "admin", input: str | None = None, check: bool = True) -> str:  # noqa: A002 -- as subprocess
        """Runs kubectl as one of `USERS` and returns its standard output (and, unchecked, its standard error).

        Raises:
            ToolError: it exited with something other than 0 and `check` is set.
        """
        return self.run("kubectl", *arguments, user=user, input=input, check=check)

    def helm(self, *arguments: str, user: str = "admin", check: bool = True) -> str:
        """Runs helm as one of `USERS`; as `kubectl`."""
        return self.run("helm", *arguments, user=user, check=check)

    def run(self, tool: str, *arguments: str, user: str = "admin", input: str | None = None, check: bool = True) -> str:  # noqa: A002 -- as subprocess
        """Runs one of the built tools with `KUBECONFIG` set; as `kubectl`."""
        answer = subprocess.run(
            [build.binary(tool), *arguments], env=self.environment(user), input=input, capture_output=True, text=True, check=False
        )
        if check and answer.returncode != 0:
            output = answer.stderr.strip() or answer.stdout.strip()
            raise ToolError(
                f"{tool} {' '.join(arguments)} exited with {answer.returncode}: {output}", code=answer.returncode, output=output
            )
        return answer.stdout if check else answer.stdout + answer.stderr

    def environment(self, user: str = "admin") -> dict[str, str]:
        """Returns the environment for a command that should use this cluster as one of `USERS`."""
        own = {"KUBECONFIG": str(self.kubeconfig(user)), "HOME": str(self.directory), "PATH": self._path()}
        return {**os.environ, **own}

    def create_namespace(self, name: str, *, labels: dict[str, str] | None = None) -> str:
        """Creates a namespace, waits until pods can be created in it (its default service account exists), and returns its name."""
        self.api().create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels or {}}})
        self._wait_for(
            f"the default service account in namespace {name}", lambda: self._exists(f"/api/v1/namespaces/{name}/serviceaccounts/default")
        )
        return name

    def grant(self, user: str, role: str, namespace: str = "") -> None:
        """Binds a ClusterRole (such as `edit`, `admin`, `view`) to a user, in one namespace or, without one, in the whole cluster."""
        name = _NAMES.get(user, user)
        scope = f"namespaces/{namespace}/rolebindings" if namespace else "clusterrolebindings"
        body: dict[str, Any] = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
            "metadata": {"name": f"{user}-{role}".replace(":", "-")},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        }
        self.api().apply(f"/apis/rbac.authorization.k8s.io/v1/{scope}/{body['metadata']['name']}", body)

    def audit_events(self) -> list[dict[str, Any]]:
        """Returns what the API server has logged so far, oldest first; needs `audit=True`. The log lags by a moment: poll."""
        lines = (self.directory / "logs" / "audit.log").read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    # Accidents.

    def stop_apiserver(self, *, kill: bool = False) -> None:
        """Takes the API server away: orderly, or with SIGKILL."""
        process = self._processes.pop("kube-apiserver")
        if kill:
            process.kill()
        else:
            process.stop()
        for api in self._apis.values():
            api.close()

    def start_apiserver(self) -> None:
        """Brings the API server back on the same port, and returns when it is ready."""
        for attempt in range(_ATTEMPTS):
            try:
                self._start_apiserver()
                self._await_apiserver()
            except _PortTakenError as error:
                self._processes.pop("kube-apiserver").kill()
                if attempt == _ATTEMPTS - 1:
                    raise StartError(f"port {self._port} of the API server was taken while it was down") from error
                time.sleep(1)
            else:
                return

    def restart_apiserver(self, *, kill: bool = False) -> None:
        """`stop_apiserver`, then `start_apiserver`."""
        self.stop_apiserver(kill=kill)
        self.start_apiserver()

    def stop_registry(self) -> None:
        """Takes the registry away, with everything in it: it is in memory."""
        self._processes.pop("registry").kill()

    def start_registry(self) -> None:
        """Brings it back on the same port, empty, and returns when it answers."""
        self._spawn_registry()

        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection((self.host, int(self.registry.rpartition(":")[2])), timeout=1):
                return True
            return False

        self._wait_for("the registry", answers)

    # Starting.

    def _start_all(self) -> None:
        self._port, self._etcd_port, peer, registry = (free_port() for _ in range(4))
        self.server = f"https://{self.host}:{self._port}"
        self.registry = f"{self.host}:{registry}"
        self._apis.clear()
        names = {user: _NAMES.get(user, user) for user in USERS}
        configuration.write(self.directory, server=self.server, pki=self.pki, tokens=self._tokens, names=names, groups=USERS)
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        self._spawn_registry()
        self._spawn(
            "etcd",
            "etcd",
            *(f"--data-dir={self.directory}/etcd-{self._etcd_port}", f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}"),
            *(f"--listen-peer-urls=http://127.0.0.1:{peer}", "--unsafe-no-fsync", "--log-level=warn"),
        )
        self._start_apiserver()
        self._await_apiserver()
        kubeconfig = f"--kubeconfig={self.kubeconfig()}"
        unhurried = ("--kube-api-qps=500", "--kube-api-burst=1000")  # the defaults spend seconds of every start on waiting
        self._spawn(
            "kube-controller-manager",
            "kube-controller-manager",
            *(kubeconfig, "--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0", "--node-monitor-period=1s"),
            *(f"--service-account-private-key-file={self.pki.service_accounts}", f"--root-ca-file={self.pki.ca}", *unhurried),
        )
        self._spawn("kube-scheduler", "kube-scheduler", kubeconfig, "--leader-elect=false", "--secure-port=0", *unhurried)
        self._spawn(
            "kwok",
            "kwok",
            *(kubeconfig, f"--config={self.directory}/kwok.yaml", "--node-ip=10.0.0.1", "--node-lease-duration-seconds=40"),
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        )

    def _spawn_registry(self) -> None:
        self._spawn("registry", "crane", "registry", "serve", "--address", self.registry)

    def _start_apiserver(self) -> None:
        audit = (f"--audit-policy-file={self.directory}/audit.yaml", f"--audit-log-path={self.directory}/logs/audit.log")
        self._spawn(
            "kube-apiserver",
            "kube-apiserver",
            *(f"--etcd-servers=http://127.0.0.1:{self._etcd_port}", f"--secure-port={self._port}"),
            *(f"--bind-address={self.host}", f"--advertise-address={self.host}", *self._towards_node()),
            *(f"--tls-cert-file={self.pki.server_certificate}", f"--tls-private-key-file={self.pki.server_key}"),
            *(f"--service-account-key-file={self.pki.service_accounts}", f"--service-account-signing-key-file={self.pki.service_accounts}"),
            *(f"--service-account-issuer={self.server}", f"--token-auth-file={self.directory}/tokens.csv"),
            *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true"),
            f"--admission-control-config-file={self.directory}/admission.yaml",
            *(audit if self._audit else ()),
            *self._apiserver_arguments,
        )

    def _towards_node(self) -> tuple[str, ...]:
        """Where Services are; with a real node also that the API server has one itself, and how it speaks to the kubelet."""
        if self._ground is None:
            return ("--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none")
        certificate = (
            f"--kubelet-client-certificate={self.pki.kubelet_client_certificate}",
            f"--kubelet-client-key={self.pki.kubelet_client_key}",
            f"--kubelet-certificate-authority={self.pki.ca}",
        )
        services = f"--service-cluster-ip-range={self._ground.addresses.services}"
        return (services, "--kubelet-preferred-address-types=InternalIP", f"--client-ca-file={self.pki.ca}", *certificate)

    def _await_apiserver(self) -> None:
        probe = Api(server=self.server, ca=str(self.pki.ca), token=self._tokens["admin"], timeout=2)

        def is_ready() -> bool:
            try:
                return bool(probe.get("/readyz") == "ok")
            except ApiError:
                return False

        try:
            self._wait_for("the API server", is_ready)
        finally:
            probe.close()

    def _populate(self) -> None:
        """Fake nodes, and the wait until the controllers do their work."""
        api = self.api()
        for number in range(self._nodes):
            api.create("/api/v1/nodes", fake_node(f"node-{number}"))
        self._wait_for("the default service account", lambda: self._exists("/api/v1/namespaces/default/serviceaccounts/default"))
        self._wait_for("the fake nodes", self._nodes_are_ready)

    def _nodes_are_ready(self) -> bool:
        nodes = self.api().get("/api/v1/nodes")["items"]
        conditions = [condition for node in nodes for condition in node.get("status", {}).get("conditions", [])]
        tainted = any(taint["effect"] == "NoSchedule" for node in nodes for taint in node["spec"].get("taints", []))
        return (
            not tainted and sum(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions) >= self._nodes
        )

    def _exists(self, path: str) -> bool:
        try:
            self.api().get(path)
        except ApiError as error:
            if error.code in {404, 403, 0}:
                return False
            raise
        return True

    def _spawn(self, name: str, tool: str, *arguments: str) -> None:
        log = self.directory / "logs" / f"{name}.log"
        environment = self.environment_of_parts()
        self._processes[name] = Process(name, [build.binary(tool), *arguments], log=log, keeper=self.keeper, environment=environment)

    def environment_of_parts(self) -> dict[str, str]:
        """Returns the environment of the cluster's own processes: ours, without what would lead them elsewhere."""
        noise = {"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "KUBECONFIG", "PORT"}
        return {**{name: value for name, value in os.environ.items() if name not in noise}, "HOME": str(self.directory)}

    def _wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """Waits, but not for the dead: a part that ended is the reason, not the deadline."""

        def done() -> bool:
            self._check_processes()
            return condition()

        if not wait_until(done, seconds=_READY_SECONDS):
            tails = "\n".join(f"--- {process.name}\n{process.tail(5)}" for process in self._processes.values())
            raise StartError(
                f"the embedded cluster waited {_READY_SECONDS:.0f} s in vain for {what}:\n{tails}", hint="is the machine overloaded?"
            )

    def _check_processes(self) -> None:
        for process in self._processes.values():
            if not process.alive:
                tail = process.tail()
                if "address already in use" in tail:
                    raise _PortTakenError(process.name)
                raise StartError(f"{process.name} exited with {process.returncode}:\n{tail}", hint="the last lines of its log say why")

    def _stop_all(self) -> None:
        for process in reversed(self._processes.values()):
            process.kill()
        self._processes.clear()

    def _path(self) -> str:
        return os.pathsep.join([build.tools_path(), os.environ.get("PATH", os.defpath)])
