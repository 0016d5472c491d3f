"""`mlwarden webhook` as processes that a real API server asks: with the chart's rights, a token bound to a pod, and the controller's
webhook configurations and certificates. No controller runs: what it would write, the tests write.
"""

import asyncio
import http.client
import json
import os
import secrets
import signal
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import yaml

from mlwarden import policy
from mlwarden.model.policy import PROFILE_LABEL, Settings

if TYPE_CHECKING:
    from mlwarden.controllers.certificates import Issued
    from mlwarden.embedded.api import Api
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.processes import Process

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
EVIDENCE = "/apis/mlwarden.io/v1alpha1/imageevidences"
POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"
REVOKED = "/apis/mlwarden.io/v1alpha1/revokedartifacts"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
KINDS = [("", "pods"), ("apps", "deployments")]
IN_FORCE = ("baseline/host-namespaces.yaml", "experiment/image-scanned.yaml")
"""The shipped policies that the webhook judges by here."""
DENIED = "denied the request: Pod"
"""What the API server says where the webhook answered and refused."""


def until(condition: Callable[[], Any], *, seconds: float = 30) -> Any:
    """Polls until `condition` returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


async def until_async(condition: Callable[[], Any], *, seconds: float = 30) -> None:
    """The same from within an event loop, which goes on meanwhile."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.05)


def good_pod(name: str, image: str = "registry.example/app:1", *, namespace: str = "", **changes: Any) -> dict[str, Any]:
    """A pod with nothing wrong but that its image was not scanned yet."""
    container = {
        "name": "main",
        "image": image,
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, **changes}}


def bad_pod(name: str = "bad") -> dict[str, Any]:
    """A pod that the webhook refuses, and nobody else: where it is created, the webhook was passed over."""
    return good_pod(name, hostPID=True)


def said(call: Callable[[], Any]) -> str:
    """What the API server refuses with, or `created`."""
    from mlwarden.embedded.api import ApiError

    try:
        call()
    except ApiError as error:
        return error.message
    return "created"


class Installed:
    """The cluster's side: what stays while webhooks come and go.

    Attributes:
        port: where webhooks listen.
        space: a namespace that holds.
    """

    def __init__(self, cluster: "EmbeddedCluster", directory: Path) -> None:
        from mlwarden.embedded.processes import free_port

        own = f"mlwarden-{secrets.token_hex(3)}"
        self.port = free_port()
        self.settings = Settings(namespace=own, anchor=own, webhook_url=f"https://127.0.0.1:{self.port}", shipped_policies=False)
        self.cluster, self.directory, self.admin = cluster, directory, cluster.api()
        self.space = ""
        self.token = ""
        self._revision = 0
        self._crds: list[str] = []
        self._made: list[str] = []  # cluster-scoped, in the order to remove

    @property
    def secrets(self) -> str:
        return f"/api/v1/namespaces/{self.settings.namespace}/secrets"

    def install(self) -> None:
        self._install_crds()
        own, name = self.settings.namespace, self.settings.webhook
        self.cluster.create_namespace(own)
        self.space = self.cluster.create_namespace(f"{own}-space", labels={PROFILE_LABEL: "experiment"})
        self.token = self._account(own, name)
        account = self.directory / "account"
        account.mkdir()
        (account / "ca.crt").write_bytes(self.cluster.pki.ca.read_bytes())
        self.write_token(self.token)
        (self.directory / "settings.yaml").write_text(json.dumps(msgspec.to_builtins(self.settings)))
        for file in IN_FORCE:
            for manifest in policy.yaml_loads((files("mlwarden") / "packs" / file).read_text(encoding="utf-8")):
                self.admin.create(POLICIES, manifest)
                self._made.append(f"{POLICIES}/{manifest['metadata']['name']}")
        self._hold()

    def write_token(self, token: str) -> None:
        (self.directory / "account" / "token").write_text(token)

    @contextmanager
    def policy(self, expression: str) -> Iterator[str]:
        """A policy of the cluster's own, for a while; yields its name."""
        name = f"own-{secrets.token_hex(3)}"
        spec = {
            "profiles": {"*": "Deny"},
            "requirement": {"expression": {"expression": expression}},
            "message": "pod {name} is not wanted",
            "why": "a test",
            "fix": {"text": "none"},
        }
        self.admin.create(
            POLICIES, {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": name}, "spec": spec}
        )
        try:
            yield name
        finally:
            self.admin.delete(f"{POLICIES}/{name}")

    def configure(self, bundle: bytes) -> None:
        """Puts the webhook configurations in force with this `caBundle`, and returns when the API server goes by them.

        Two webhooks more, which nobody answers, say so: each is about ConfigMaps with the label of its configuration.
        """
        from mlwarden.controllers.webhooks import webhook_configurations
        from mlwarden.embedded.processes import free_port

        self._revision += 1
        for configuration in webhook_configurations(self.settings, bundle, kinds=KINDS):
            configuration["webhooks"].append(self._marker(configuration["kind"], free_port()))
            path = f"{ADMISSION}/{configuration['kind'].lower()}s/{configuration['metadata']['name']}"
            self.admin.apply(path, configuration, manager="mlwarden")
            self._made = [path, *(each for each in self._made if each != path)]
        for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
            until(lambda kind=kind: f"marker-{self._revision}.example.com" in self._marked(kind))

    def create(self, body: dict[str, Any], **query: str) -> dict[str, Any]:
        """Creates a pod in the namespace that holds."""
        created: dict[str, Any] = self.admin.create(f"/api/v1/namespaces/{self.space}/pods", body, **query)
        return created

    def try_bad(self) -> str:
        """What becomes of a pod that the webhook refuses."""
        return said(lambda: self.create(bad_pod(), dryRun="All"))

    def failed_open(self) -> int:
        """How many calls of our webhooks failed without refusing the request, as the API server counts them."""
        lines = str(self.admin.get("/metrics")).splitlines()
        counts = [line for line in lines if line.startswith("apiserver_admission_webhook_fail_open_count{") and ".mlwarden.io" in line]
        return sum(int(float(line.rpartition(" ")[2])) for line in counts)

    def remove(self) -> None:
        """Takes away everything cluster-scoped, and waits until it is gone."""
        for path in self._made:
            said(lambda path=path: self.admin.delete(path))
        if self.space:
            until(lambda: self._marked("MutatingWebhookConfiguration") == self._marked("ValidatingWebhookConfiguration") == "created")
            until(lambda: "schedulingGates" not in self.create(good_pod("free"), dryRun="All")["spec"])
        if not self._crds:  # somebody else's: only the objects are ours
            self.admin.delete(EVIDENCE)
        for path in self._crds:
            said(lambda path=path: self.admin.delete(path))
            until(lambda path=path: "not found" in said(lambda: self.admin.get(path)))
        for name in (self.space, self.settings.namespace):
            said(lambda name=name: self.admin.delete(f"/api/v1/namespaces/{name}"))

    def _install_crds(self) -> None:
        from mlwarden.controllers.install import crds

        known = {each["metadata"]["name"] for each in self.admin.get(DEFINITIONS)["items"]}
        for crd in crds():
            path = f"{DEFINITIONS}/{crd['metadata']['name']}"
            if crd["metadata"]["name"] not in known:
                self._crds.append(path)
            self.admin.apply(path, crd)
        for collection in (EVIDENCE, POLICIES, REVOKED):
            until(lambda collection=collection: said(lambda: self.admin.get(collection)) == "created")

    def _account(self, own: str, name: str) -> str:
        """The webhook's account with the chart's rights; returns a token bound to a pod, as a kubelet gets it."""
        from mlwarden.embedded.api import Api

        accounts = f"/api/v1/namespaces/{own}/serviceaccounts"
        self.admin.create(accounts, {"metadata": {"name": name}})
        body = good_pod(f"{name}-0", serviceAccountName=name, nodeSelector={"nowhere": ""})
        self.admin.create(f"/api/v1/namespaces/{own}/pods", body)
        for obj in self._chart_rbac():
            scoped = f"namespaces/{own}/" if obj["metadata"].get("namespace") else ""
            if not scoped:
                obj["metadata"]["name"] = f"{own}-webhook"
                if "roleRef" in obj:
                    obj["roleRef"]["name"] = f"{own}-webhook"
            collection = f"{RBAC}/{scoped}{obj['kind'].lower()}s"
            self.admin.create(collection, obj)
            if not scoped:
                self._made.append(f"{collection}/{obj['metadata']['name']}")
        bound = {"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": f"{name}-0"}}}
        token = str(self.admin.create(f"{accounts}/{name}/token", bound)["status"]["token"])
        api = Api(server=self.cluster.server, ca=str(self.cluster.pki.ca), token=token)
        try:
            self._await_rights(api)
        finally:
            api.close()
        return token

    def _await_rights(self, api: "Api") -> None:
        """Waits until the authorizer has seen the bindings."""
        own = {"namespace": self.settings.namespace, "group": "", "resource": "secrets", "name": "mlwarden-webhook-tls"}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        for attributes in ({"group": "mlwarden.io", "resource": "revokedartifacts"}, own):
            review = {"spec": {"resourceAttributes": {"verb": "watch", **attributes}}}
            until(lambda review=review: api.create(path, review)["status"]["allowed"])

    def _chart_rbac(self) -> list[dict[str, Any]]:
        rendered = self.cluster.helm("template", "mlwarden", "charts/mlwarden", "--namespace", self.settings.namespace)
        kinds = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
        found = [obj for obj in yaml.safe_load_all(rendered) if obj and obj["kind"] in kinds]
        return [obj for obj in found if obj["metadata"]["name"] == "mlwarden-webhook"]

    def _hold(self) -> None:
        """The gate inside the API server, in force."""
        from mlwarden.controllers.gate import hold_objects

        for obj in hold_objects(self.settings):
            plural = obj["kind"].lower().removesuffix("y") + "ies" if obj["kind"].endswith("Policy") else f"{obj['kind'].lower()}s"
            path = f"{ADMISSION}/{plural}/{obj['metadata']['name']}"
            self.admin.apply(path, obj, manager="mlwarden")
            self._made.insert(0, path)
        until(lambda: "schedulingGates" in self.create(good_pod("held"), dryRun="All")["spec"])

    def _marker(self, kind: str, port: int) -> dict[str, Any]:
        return {
            "name": f"marker-{self._revision}.example.com",
            "clientConfig": {"url": f"https://127.0.0.1:{port}/"},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.settings.namespace}},
            "objectSelector": {"matchLabels": {"marker": kind}},
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
        }

    def _marked(self, kind: str) -> str:
        body = {"metadata": {"name": "marker", "labels": {"marker": kind}}}
        return said(lambda: self.admin.create(f"/api/v1/namespaces/{self.settings.namespace}/configmaps", body, dryRun="All"))


class Serving:
    """The webhooks of one test, and the certificate they serve with.

    Attributes:
        certificates: what the two Secrets should hold.
        processes: by name.
        through: a port in place of the API server's.
    """

    def __init__(self, installed: Installed) -> None:
        self.installed, self.port = installed, installed.port
        self.certificates: Issued
        self.processes: dict[str, Process] = {}
        self.probe_ports: dict[str, int] = {}
        self.through = 0

    def issue(self, *, now: datetime | None = None, renew: bool = False) -> "Issued":
        """What the controller would have in the Secrets at `now`, going on from what it had; `renew` as if the leaf were lost."""
        from mlwarden.controllers.certificates import issue

        held = getattr(self, "certificates", None)
        ca, tls = (held.ca, {} if renew else held.tls) if held else ({}, {})
        self.certificates = issue(self.installed.settings, ca, tls, now=now or datetime.now(UTC))
        return self.certificates

    def renew(self) -> None:
        """A new certificate of the same authority, known to the API server and in the Secret.

        Other bytes in `caBundle` are another client to the API server: the next request is a new handshake.
        """
        self.issue(renew=True)
        self.installed.configure(self.certificates.bundle + b"\n" * secrets.randbelow(1000))
        self.write(self.certificates.tls)

    def write(self, tls: dict[str, bytes]) -> None:
        """Writes the Secret."""
        from mlwarden.controllers.certificates import TLS_SECRET, secret

        body = secret(self.installed.settings, TLS_SECRET, tls)
        self.installed.admin.apply(f"{self.installed.secrets}/{TLS_SECRET}", body)

    def start(self, *arguments: str, name: str = "a") -> None:
        """Starts a webhook; does not wait."""
        from mlwarden.embedded.processes import Process, free_port

        installed, directory = self.installed, self.installed.directory
        address = urlsplit(installed.cluster.server)
        host = {"KUBERNETES_SERVICE_HOST": str(address.hostname), "KUBERNETES_SERVICE_PORT": str(self.through or address.port)}
        self.probe_ports[name] = free_port()
        command = [sys.executable, "-m", "mlwarden.cli.main", "webhook", f"--settings={directory / 'settings.yaml'}", "--host=127.0.0.1"]
        command += [f"--service-account-dir={directory / 'account'}", f"--port={self.port}", f"--probe-port={self.probe_ports[name]}"]
        log = directory / f"{name}-{secrets.token_hex(3)}.log"
        self.processes[name] = Process(
            name, [*command, *arguments], log=log, keeper=installed.cluster.keeper, environment={**os.environ, **host}
        )

    def serve(self, *arguments: str, name: str = "a") -> None:
        """Starts a webhook, and returns when the API server gets its answers."""
        self.start(*arguments, name=name)
        until(lambda: self.probe(name=name) == "ok")
        until(lambda: DENIED in self.installed.try_bad())

    def probe(self, path: str = "/readyz", *, name: str = "a") -> str:
        """What a probe says: `ok`, or why not."""
        process = self.processes[name]
        assert process.alive or process.returncode == 0, process.tail(40)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.probe_ports[name]}{path}", timeout=5) as answer:
                return str(answer.read().decode().strip())
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode().strip()
        except OSError as error:
            return str(error)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.probe("/metrics").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition(" ")[0].partition("{")[0] == name)

    def terminate(self, name: str = "a") -> None:
        """SIGTERM; does not wait."""
        self.processes[name].signal(signal.SIGTERM)

    def exit_code(self, name: str = "a") -> int:
        """Waits for the end."""
        process = self.processes[name]
        until(lambda: not process.alive)
        return int(process.returncode or 0)

    def log(self, name: str = "a") -> str:
        return str(self.processes[name].log.read_text())

    def presented(self) -> bytes:
        """The certificate that a new handshake gets, as PEM."""
        return ssl.get_server_certificate(("127.0.0.1", self.port), timeout=10).encode()

    @contextmanager
    def connect(
        self, *, client: tuple[Path, Path] | None = None, context: ssl.SSLContext | None = None
    ) -> Iterator[http.client.HTTPSConnection]:
        """A connection of our own, past the API server; `client`: certificate and key to show."""
        context = context or ssl.create_default_context(cadata=self.certificates.bundle.decode())
        if client is not None:
            context.load_cert_chain(*client)
        with closing(http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)) as connection:
            yield connection

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            print(f"--- {process.name}\n{process.tail(60)}")  # noqa: T201 -- shown with a failure


class Load:
    """Requests from a thread, one after the other, and what was said to each; a bounded number of them."""

    def __init__(self, ask: Callable[[], str], *, most: int = 5000) -> None:
        self.answers: list[str] = []
        self._ask, self._most, self._enough = ask, most, threading.Event()

    def run(self) -> None:
        for _ in range(self._most):
            if self._enough.is_set():
                return
            self.answers.append(self._ask())

    def go_on(self, more: int = 30) -> None:
        """Waits until so many more were answered."""
        enough = len(self.answers) + more
        until(lambda: len(self.answers) >= enough)

    def stop(self) -> None:
        self._enough.set()


@contextmanager
def load(*asks: Callable[[], str]) -> Iterator[list[Load]]:
    """Keeps asking, one thread for each."""
    loads = [Load(ask) for ask in asks]
    threads = [threading.Thread(target=each.run, daemon=True) for each in loads]
    for thread in threads:
        thread.start()
    try:
        yield loads
    finally:
        for each in loads:
            each.stop()
        for thread in threads:
            thread.join(60)


def backdated(days: int) -> datetime:
    """So many days ago."""
    return datetime.now(UTC) - timedelta(days=days)
