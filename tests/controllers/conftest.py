"""Fixtures of the controllers' tests: the gate and its guards in force on a real API server, mlwarden's accounts, hostile webhooks.

What is cluster-scoped is taken away again at the end of each module, and the end is waited for: other folders share the cluster.
"""

import contextlib
import datetime as dt
import json
import os
import secrets
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mlwarden.model.policy import PROFILE_LABEL, Settings

from .hostile import HostileWebhook  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from mlwarden.embedded.api import Api
    from mlwarden.embedded.cluster import EmbeddedCluster

PLURALS = {
    "MutatingAdmissionPolicy": "mutatingadmissionpolicies",
    "MutatingAdmissionPolicyBinding": "mutatingadmissionpolicybindings",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
}


PROCESSES = ("controller", "releaser")
ACCOUNTS = "mlwarden-accounts-"
"""Policies of the chart, about what mlwarden's accounts may change."""
UNINSTALL, PRUNE = "mlwarden-uninstall", "mlwarden-prune"


def admission_path(obj: dict[str, Any]) -> str:
    return f"/apis/admissionregistration.k8s.io/v1/{PLURALS[obj['kind']]}/{obj['metadata']['name']}"


def until(condition: Callable[[], Any], *, seconds: float = 30) -> Any:
    """Polls until `condition` returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def pod(name: str = "p", *, image: str = "registry.example/app:1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": image}], **spec},
    }


def account_policies(cluster: "EmbeddedCluster", settings: Settings) -> list[dict[str, Any]]:
    """What the chart's own policies say about mlwarden's accounts, under names of this test's."""
    import yaml

    options = ["--namespace", settings.namespace, "--show-only", "templates/accounts.yaml"]
    options += ["--set", f"webhook.url={settings.webhook_url}"] if settings.webhook_url else []
    objects = [obj for obj in yaml.safe_load_all(cluster.helm("template", "mlwarden", "charts/mlwarden", *options)) if obj]
    for obj in objects:
        for where, field in ((obj["metadata"], "name"), (obj["spec"], "policyName")):
            if field in where:
                where[field] = f"{settings.namespace}-{where[field]}"
    return objects


class FailHeld:
    """mlwarden's part of the API server in force, and who is who."""

    def __init__(self, cluster: "EmbeddedCluster", settings: Settings) -> None:
        self.cluster = cluster
        self.settings = settings
        self.admin = cluster.api()
        self.alice = cluster.api("alice")
        self.tokens: dict[str, str] = {}
        self._accounts: dict[str, Api] = {}

    until = staticmethod(until)
    admission_path = staticmethod(admission_path)

    def create_many(self, namespace: str, numbers: range) -> list[dict[str, Any]]:
        """Creates a pod for each number, from a thread of its own."""
        try:
            return [self.create(namespace, pod(f"p-{number}")) for number in numbers]
        finally:
            self.alice.close()

    def account(self, name: str) -> "Api":
        """One of mlwarden's accounts, with a token bound to a pod, as a kubelet gets it."""
        return self._accounts[name]

    @property
    def controller(self) -> "Api":
        return self.account(self.settings.controller)

    @property
    def releaser(self) -> "Api":
        return self.account(self.settings.releaser)

    def make_accounts(self, *, rbac: bool = True) -> None:
        from mlwarden.embedded.api import Api

        own = self.settings.namespace
        self.cluster.create_namespace(own)
        settings = self.settings
        for name in (settings.controller, settings.releaser, settings.webhook, settings.scanner, UNINSTALL, PRUNE):
            self.admin.create(f"/api/v1/namespaces/{own}/serviceaccounts", {"metadata": {"name": name}})
            body = pod(f"{name}-0", serviceAccountName=name, nodeSelector={"nowhere": ""})
            self.admin.create(f"/api/v1/namespaces/{own}/pods", body)
            request = {"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": f"{name}-0"}}}
            token = self.admin.create(f"/api/v1/namespaces/{own}/serviceaccounts/{name}/token", request)["status"]["token"]
            self.tokens[name] = token
            self._accounts[name] = Api(server=self.cluster.server, ca=str(self.cluster.pki.ca), token=token)
            if not rbac:
                continue
            self.bind_account(name, own, "cluster-admin")  # RBAC is not what is tested here: admission is

    def close(self) -> None:
        for api in self._accounts.values():
            api.close()

    def bind_account(self, name: str, namespace: str, role: str) -> None:
        body = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{namespace}-{name}"},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        }
        self.admin.apply(f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{namespace}-{name}", body)

    def namespace(self, profile: str = "experiment") -> str:
        """A fresh namespace, in which alice may edit, under this profile (`""`: without the label)."""
        name = self.cluster.create_namespace(f"t-{secrets.token_hex(4)}", labels={PROFILE_LABEL: profile} if profile else None)
        self.cluster.grant("alice", "edit", name)
        self.await_right("alice", verb="create", group="batch", resource="cronjobs", namespace=name)
        return name

    def await_right(self, user: str, **attributes: str) -> None:
        """Waits until the authorizer has seen a new binding."""
        review = {"spec": {"resourceAttributes": attributes}}
        api = self.cluster.api(user)
        until(lambda: api.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)["status"]["allowed"])

    def pods(self, namespace: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.admin.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
        return found

    def create(self, namespace: str, body: dict[str, Any], *, user: "Api | None" = None, **query: str) -> dict[str, Any]:
        created: dict[str, Any] = (user or self.alice).create(f"/api/v1/namespaces/{namespace}/pods", body, **query)
        return created

    def release(self, namespace: str, name: str, *, user: "Api | None" = None) -> dict[str, Any]:
        """The release as mlwarden does it, by whoever is asked to."""
        from mlwarden.embedded.api import STRATEGIC_PATCH

        body = {"spec": {"schedulingGates": [{"name": "mlwarden.io/evidence", "$patch": "delete"}]}}
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        released: dict[str, Any] = (user or self.releaser).patch(path, body, content_type=STRATEGIC_PATCH)
        return released


@contextlib.contextmanager
def in_force(cluster: "EmbeddedCluster", settings: Settings) -> Iterator[FailHeld]:
    """Applies the gate and the guards, waits until they are in force, and afterwards until they are not."""
    from mlwarden.controllers.gate import gate_objects, probe_pod
    from mlwarden.embedded.api import ApiError
    from mlwarden.workloads import is_gated

    held = FailHeld(cluster, settings)
    held.make_accounts()
    objects = gate_objects(settings, enforced=True)
    hold, guards = objects[:3], objects[3:]
    pods = f"/api/v1/namespaces/{settings.namespace}/pods"

    def gated() -> bool:
        return is_gated(held.admin.create(pods, probe_pod(settings), dryRun="All"))

    def guarded() -> bool:
        try:
            held.admin.apply(f"{pods}/guarded", {**pod("guarded"), "spec": pod()["spec"]})
            held.admin.create(f"/api/v1/namespaces/{settings.namespace}/serviceaccounts/default/token", {"spec": {}}, dryRun="All")
        except ApiError as error:
            return error.code == 403
        return False

    for obj in hold:
        held.admin.apply(admission_path(obj), obj, manager="mlwarden")
    until(gated)
    for obj in guards:
        held.admin.apply(admission_path(obj), obj, manager="mlwarden")
    until(guarded)
    try:
        yield held
    finally:
        for obj in reversed(objects):
            held.admin.delete(admission_path(obj))
        until(lambda: not gated() and not guarded())
        held.admin.delete(f"/api/v1/namespaces/{settings.namespace}")
        held.close()


@pytest.fixture(scope="module")
def held(cluster: "EmbeddedCluster") -> Iterator[FailHeld]:
    """Gate and guards with the chart's settings (the default profile does not hold), in a namespace of their own."""
    exempt = (*Settings().exempt_namespaces, "exempt-later")
    with in_force(
        cluster, Settings(namespace=f"mlwarden-{secrets.token_hex(3)}", exempt_namespaces=exempt, own_secrets=("release-key",))
    ) as running:
        yield running


@pytest.fixture(scope="module")
def evidence(held: FailHeld) -> Iterator[str]:
    """The path of evidence, whose custom resource definition is there meanwhile."""
    from mlwarden import evidence as kept

    definitions, collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/mlwarden.io/v1alpha1/imageevidences"
    path = f"{definitions}/imageevidences.mlwarden.io"
    made = not exists(held.admin, path)
    if made:
        held.admin.create(definitions, kept.crd())
    until(lambda: _answers(held.admin, collection))
    yield collection
    if made:
        held.admin.delete(path)
        until(lambda: not exists(held.admin, path))


@pytest.fixture
def hostile(private_tls: tuple[ssl.SSLContext, str], cluster: "EmbeddedCluster") -> Iterator[Callable[[str], HostileWebhook]]:
    """`hostile(namespace)` puts a mutating webhook in force there; set its `patch` afterwards."""
    made: list[tuple[HostileWebhook, str]] = []

    def make(namespace: str) -> HostileWebhook:
        webhook = HostileWebhook(*private_tls)
        configuration = webhook.configuration(namespace)
        made.append((webhook, admission_path(configuration)))
        cluster.api().apply(admission_path(configuration), configuration)

        def called() -> bool:
            cluster.api().create(f"/api/v1/namespaces/{namespace}/pods", pod("called"), dryRun="All")
            return bool(webhook.reviews)

        until(called)
        webhook.reviews.clear()
        return webhook

    yield make
    for webhook, path in made:
        cluster.api().delete(path)
        webhook.server.shutdown()
        webhook.server.server_close()


class Running:
    """`mlwarden controller` and `mlwarden releaser` as processes, with the chart's RBAC and tokens bound to pods, as a kubelet gets them.

    A replica is one of each.

    No webhook runs: its address is a closed port.
    """

    def __init__(self, cluster: "EmbeddedCluster", directory: Path, **settings: Any) -> None:
        from mlwarden.embedded.processes import free_port

        own = f"mlwarden-{secrets.token_hex(3)}"
        self.settings = Settings(namespace=own, anchor=own, webhook_url=f"https://127.0.0.1:{free_port()}", **settings)
        self.cluster, self.directory, self.admin, self.alice = cluster, directory, cluster.api(), cluster.api("alice")
        self.held = FailHeld(cluster, self.settings)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}
        self._crds: list[str] = []
        self._own: list[str] = []

    def install(self) -> None:
        from mlwarden.controllers.install import crds

        for crd in crds():
            path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
            self._crds.append(path)
            self.admin.apply(path, crd)
            until(lambda path=path: _is_established(self.admin.get(path)))
        self.admin.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", {"metadata": {"name": self.settings.anchor}, "rules": []})
        self.held.make_accounts(rbac=False)
        for obj in account_policies(self.cluster, self.settings):
            self._own.append(admission_path(obj))
            self.admin.apply(self._own[-1], obj)
        for obj in self._rbac():
            obj["metadata"]["name"] = self._renamed(obj["metadata"]["name"])
            if "roleRef" in obj:
                obj["roleRef"]["name"] = self._renamed(obj["roleRef"]["name"])
            scope = f"namespaces/{self.settings.namespace}/" if obj["metadata"].get("namespace") else ""
            plural = f"{obj['kind'].lower()}s"
            self.admin.apply(f"/apis/rbac.authorization.k8s.io/v1/{scope}{plural}/{obj['metadata']['name']}", obj)
        for name in (self.settings.controller, self.settings.releaser, UNINSTALL, PRUNE):
            account = self.directory / name
            account.mkdir()
            (account / "ca.crt").write_bytes(self.cluster.pki.ca.read_bytes())
            (account / "token").write_text(self.held.tokens[name])
            (account / "namespace").write_text(self.settings.namespace)
        text = json.dumps(msgspec.to_builtins(self.settings))
        (self.directory / "settings.yaml").write_text(text)

    def _renamed(self, name: str) -> str:
        return f"{self.settings.namespace}-{name.removeprefix('mlwarden-')}"

    def _rbac(self) -> list[dict[str, Any]]:
        """The roles and bindings of the chart, as Helm renders them for this namespace."""
        import yaml

        eviction = f"controller.eviction={str(self.settings.eviction).lower()}"
        values = [eviction, *(f"platform.{injector}={namespace}" for injector, namespace in self.settings.platform.items())]
        chart = ("template", "mlwarden", "charts/mlwarden", "--namespace", self.settings.namespace, "--set", ",".join(values))
        rendered = self.cluster.helm(*chart)
        found = [
            obj
            for obj in yaml.safe_load_all(rendered)
            if obj and obj["kind"] in {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
        ]
        before = [obj for obj in found if obj["metadata"]["name"] == "mlwarden-install"]
        for obj in found:
            for rule in obj.get("rules") or []:
                if rule["resources"] == ["clusterroles"]:
                    rule["resourceNames"] = [self.settings.anchor]
        return [obj for obj in found if obj not in before and obj["metadata"]["name"] != "mlwarden"]

    def start(self, name: str = "a") -> None:
        """Starts a replica; does not wait."""
        for process in PROCESSES:
            self._start(process, name)

    def _start(self, process: str, name: str) -> None:
        from urllib.parse import urlsplit

        from mlwarden.embedded.processes import free_port

        address, key = urlsplit(self.cluster.server), f"{process}-{name}"
        port = self.ports[key] = free_port()
        environment = {
            **os.environ,
            "KUBERNETES_SERVICE_HOST": str(address.hostname),
            "KUBERNETES_SERVICE_PORT": str(address.port),
            "POD_NAME": f"mlwarden-{key}",
        }
        command = [sys.executable, "-m", "mlwarden.cli.main", process, "--settings", str(self.directory / "settings.yaml")]
        command += ["--service-account-dir", str(self.directory / f"mlwarden-{process}")]
        command += ["--probe-port", str(port), "--host", "127.0.0.1"]
        with (self.directory / f"{key}.log").open("ab") as log:
            self.processes[key] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def probe(self, name: str = "a", path: str = "/readyz") -> str:
        """What the probes say: `ok`, or why not."""
        said = {process: self._probe_one(f"{process}-{name}", path) for process in PROCESSES}
        return "; ".join(f"{process}: {why}" for process, why in said.items() if why != "ok") or "ok"

    def _probe_one(self, key: str, path: str) -> str:
        import urllib.error
        import urllib.request

        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[key]}{path}", timeout=5) as answer:
                return str(answer.read().decode().strip())
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode().strip()
        except OSError as error:
            return str(error)

    def await_ready(self, name: str = "a") -> None:
        deadline = time.monotonic() + 60
        while self.probe(name) != "ok":
            for process in PROCESSES:
                assert self.processes[f"{process}-{name}"].poll() is None, self.log(name)
            assert time.monotonic() < deadline, f"{self.probe(name)}\n{self.log(name)}"
            time.sleep(0.1)

    def kill(self, name: str = "a") -> None:
        """kill -9."""
        for process in PROCESSES:
            killed = self.processes.pop(f"{process}-{name}")
            killed.kill()
            killed.wait()

    def stop(self, name: str = "a") -> int:
        """SIGTERM; returns the exit code, 0 where both ended well."""
        ended = [self.processes.pop(f"{process}-{name}") for process in PROCESSES]
        for process in ended:
            process.terminate()
        return max(process.wait(20) for process in ended)

    def log(self, name: str = "a") -> str:
        return "\n".join((self.directory / f"{process}-{name}.log").read_text()[-6000:] for process in PROCESSES)

    def call(self, *arguments: str, account: str = UNINSTALL) -> str:
        """A hook of the chart, as its account."""
        from urllib.parse import urlsplit

        address = urlsplit(self.cluster.server)
        environment = {**os.environ, "KUBERNETES_SERVICE_HOST": str(address.hostname), "KUBERNETES_SERVICE_PORT": str(address.port)}
        options = ["--settings", str(self.directory / "settings.yaml"), "--service-account-dir", str(self.directory / account)]
        command = [sys.executable, "-m", "mlwarden.cli.main", *arguments, *options]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    def answer(
        self, reference: str, *, digest: str = "", scan: dict[str, Any] | None = None, phase: str = "Ready", reason: str = ""
    ) -> None:
        """Plays the scanner: waits until `reference` is asked for, and answers."""
        from mlwarden import evidence

        path = f"/apis/mlwarden.io/v1alpha1/imageevidences/{evidence.name_for(reference)}"
        until(lambda: exists(self.admin, path))
        now = dt.datetime.now(dt.UTC).isoformat()
        by = f"{self.settings.scanner}-0"
        status = {"phase": phase, "at": now, "reason": reason, "answeredBy": by, **({"digest": digest} if digest else {})}
        if scan is not None:
            status["scan"] = {"scanner": "trivy 0.72.0", "scannedAt": now, "databaseAt": now, "os": "debian 12", "packages": 7, **scan}
        self.write_status(path, status)

    def write_status(self, path: str, status: dict[str, Any], *, more: bool = False) -> None:
        """Writes the status of evidence as the scanner does, by PUT: as a whole, or `more` beside what stands there."""
        from mlwarden.embedded.api import ApiError

        scanner = self.held.account(self.settings.scanner)

        def written() -> bool:
            stored = scanner.get(path)
            before = stored.get("status", {}) if more else {}
            try:
                scanner.update(f"{path}/status", {**stored, "status": {**before, **status}})
            except ApiError as error:
                if error.code == 409:  # somebody asked again meanwhile
                    return False
                raise
            return True

        until(written)

    def close(self) -> None:
        """Stops what runs and takes away everything cluster-scoped."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        base = "/apis/admissionregistration.k8s.io/v1"
        for kind in reversed(PLURALS.values()):
            for obj in self.admin.get(f"{base}/{kind}")["items"]:
                if obj["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "mlwarden":
                    with contextlib.suppress(Exception):
                        self.admin.delete(f"{base}/{kind}/{obj['metadata']['name']}")
        roles = "/apis/rbac.authorization.k8s.io/v1"
        for plural in ("clusterrolebindings", "clusterroles"):
            for obj in self.admin.get(f"{roles}/{plural}")["items"]:
                if obj["metadata"]["name"].startswith(self.settings.namespace):
                    self.admin.delete(f"{roles}/{plural}/{obj['metadata']['name']}")
        for path in reversed(self._own):
            self.admin.delete(path)
        for path in self._crds:
            self.admin.delete(path)
            until(lambda path=path: not exists(self.admin, path))
        until(self._lets_go)
        self.admin.delete(f"/api/v1/namespaces/{self.settings.namespace}")
        self.held.close()

    def _lets_go(self) -> bool:
        """Nothing gates a pod any more, and nothing demands the gate."""
        from mlwarden.embedded.api import ApiError

        try:
            return "schedulingGates" not in self.held.create(self._free(), good_pod("p"), user=self.admin, dryRun="All")["spec"]
        except ApiError:
            return False

    def _free(self) -> str:
        if not hasattr(self, "_probe"):
            self._probe = self.cluster.create_namespace(f"t-{secrets.token_hex(4)}", labels={PROFILE_LABEL: "experiment"})
        return self._probe


def good_pod(name: str, image: str = "registry.example/app:1", **changes: Any) -> dict[str, Any]:
    """A pod with which no policy but the one about scans finds fault."""
    container = {
        "name": "main",
        "image": image,
        "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}, "limits": {"cpu": "10m", "memory": "10Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {**spec, **changes}}


def exists(api: "Api", path: str) -> bool:
    from mlwarden.embedded.api import ApiError

    try:
        api.get(path)
    except ApiError as error:
        if error.code == 404:
            return False
        raise
    return True


def _answers(api: "Api", path: str) -> bool:
    from mlwarden.embedded.api import ApiError

    try:
        api.get(path)
    except ApiError:
        return False
    return True


def _is_established(crd: dict[str, Any]) -> bool:
    return any(each["type"] == "Established" and each["status"] == "True" for each in (crd.get("status", {}).get("conditions") or []))


@pytest.fixture(scope="module")
def running(cluster: "EmbeddedCluster", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A controller that is ready."""
    with ready(cluster, tmp_path_factory.mktemp("controller")) as controller:
        yield controller


@contextlib.contextmanager
def ready(cluster: "EmbeddedCluster", directory: Path, **settings: Any) -> Iterator[Running]:
    """A controller with these settings, installed, started and ready; closed afterwards."""
    controller = Running(cluster, directory, **settings)
    try:
        controller.install()
        controller.start()
        controller.await_ready()
        yield controller
    finally:
        controller.close()


@pytest.fixture(name="good_pod")
def good_pod_fixture() -> Callable[..., dict[str, Any]]:
    """`good_pod(name, image, **spec)`."""
    return good_pod


@pytest.fixture(scope="session")
def running_type() -> type[Running]:
    """`running_type(cluster, directory, **settings)`: a controller that a test starts when it wants."""
    return Running
