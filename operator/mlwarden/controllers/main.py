"""`mlwarden controller`: wiring.

Every replica watches; the leader alone applies what is generated, judges again what runs, asks for what templates will need, writes status
and Events. It patches no pod: that is the releaser's, under an account of its own. A task that ends by an error ends the process: the
kubelet starts it again, and everything here begins by looking at what is.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import kopf
import msgspec

from mlwarden import evidence, policy
from mlwarden.cluster.client import SERVICE_ACCOUNT, Client
from mlwarden.cluster.definitions import Definitions
from mlwarden.cluster.lease import Lease
from mlwarden.cluster.probes import DEAD, SILENT, unheard
from mlwarden.cluster.snapshot import Snapshot, SnapshotSource
from mlwarden.controllers import probes, status
from mlwarden.controllers.applier import Applier
from mlwarden.controllers.doubts import Doubts
from mlwarden.controllers.eviction import Evictions
from mlwarden.controllers.forget import Forgetter
from mlwarden.controllers.gating import Gate
from mlwarden.controllers.injected import Told
from mlwarden.controllers.reporter import Reporter, gained
from mlwarden.controllers.running import RunningPods
from mlwarden.controllers.templates import Templates
from mlwarden.errors import Error, InputError
from mlwarden.model.policy import Settings

LOG = logging.getLogger(__name__)
LEASE = "mlwarden-controller"


@dataclass
class Controller:
    """The parts of one replica."""

    client: Client
    settings: Settings
    connection: status.Connection
    identity: str
    lease: Lease = field(init=False)
    definitions: Definitions = field(init=False)
    source: SnapshotSource = field(init=False)
    applier: Applier = field(init=False)
    reporter: Reporter = field(init=False)
    running: RunningPods = field(init=False)
    forgetter: Forgetter = field(init=False)
    doubts: Doubts = field(init=False)
    templates: Templates = field(init=False)
    told: Told = field(init=False)
    _held: dict[str, bool] = field(default_factory=dict)
    _gained: "asyncio.Queue[str]" = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        """Wires them."""
        self.lease = Lease(self.client, name=LEASE, namespace=self.settings.namespace, identity=self.identity)
        self.definitions = Definitions(self.client)
        self.source = SnapshotSource(self.client, self.settings, convert=evidence.to_facts)
        self.told = Told(self.client, self.source, left=lambda: self.applier.left)
        self.applier = Applier(self.client, self.settings, self.source, on_left=self.told.look_again)
        self.reporter = Reporter(self.client)
        evictions = Evictions(self.client, self.reporter, allowed=self.settings.eviction, per_minute=self.settings.evictions_per_minute)
        self.running = RunningPods(self.client, self.source, self.reporter, evictions)
        self.forgetter = Forgetter(self.client, self.source)
        self.doubts = Doubts(self.source, self.reporter, is_leader=lambda: self.lease.is_leader)
        self.templates = Templates(self.client, self.source)
        self.source.subscribe(self._namespaces_changed)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self.source.run, self.applier.watch, self.reporter.run, self.lease.run, self.definitions.run, self._leadership):
                tasks.create_task(work(), name=work.__qualname__)
            tasks.create_task(self._report_gained())

    def ready(self) -> str:
        """Why this replica is not ready: a leader is when everything it generates is in force, a follower when it could take over.

        Not that policies are missing: in an upgrade it is a follower of the version before, which will never apply them.
        """
        if not self.source.ready.is_set():
            return "policies, namespaces and evidence have not been read yet"
        if silent := unheard(self.source.age, SILENT):
            return silent
        if self.definitions.problem:
            return self.definitions.problem
        if self.lease.is_leader and not self.applier.applied.is_set():
            return "not everything that is generated is in force yet"
        if not self.lease.is_leader and not self.lease.holder:
            return "nobody leads yet"
        return ""

    def healthy(self) -> str:
        """Why this replica should be started again."""
        return unheard(self.source.age, DEAD)

    async def _leadership(self) -> None:
        """Leads while the Lease says so, and not a moment longer."""
        while True:
            await self.lease.leading.wait()
            self.doubts.look_at_everything()
            lead = asyncio.create_task(self._lead(), name="lead")
            stop = asyncio.create_task(self.lease.following.wait(), name="following")
            try:
                await asyncio.wait({lead, stop}, return_when=asyncio.FIRST_COMPLETED)
                if lead.done():
                    lead.result()
            finally:
                for task in (lead, stop):
                    task.cancel()
                await asyncio.gather(lead, stop, return_exceptions=True)

    async def _lead(self) -> None:
        await self.source.ready.wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.applier.lead())
            tasks.create_task(self._say_gate())
            tasks.create_task(self.forgetter.lead())
            tasks.create_task(self.running.lead())
            tasks.create_task(self.templates.lead())
            tasks.create_task(self.told.lead())
            tasks.create_task(status.run(self.connection, self.told.status))

    async def _say_gate(self) -> None:
        await self.applier.applied.wait()
        if self.applier.gate is Gate.WEBHOOK:
            await self.reporter.gate_by_webhook(self.source.current)

    def _namespaces_changed(self, snapshot: Snapshot, changes: frozenset[str]) -> None:
        if any(change.startswith("namespace/") for change in changes) or not self._held:
            for name in gained(snapshot, self._held):
                self._gained.put_nowait(name)

    async def _report_gained(self) -> None:
        while True:
            namespace = await self._gained.get()
            if not self.lease.is_leader:
                continue
            try:
                await self.reporter.report_existing(self.source.current, namespace)
            except Error as error:
                LOG.warning("namespace %s began to hold pods; what ran there before could not be reported: %s", namespace, error)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the controller until SIGTERM, and returns the exit code."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf").setLevel(logging.WARNING)
    settings = read_settings(arguments.settings)
    asyncio.run(_run(arguments, settings))
    return 0


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    made = argparse.ArgumentParser(
        prog="mlwarden controller",
        description="Applies what mlwarden generates, and judges again what runs. A process of the chart.",
        epilog="example: mlwarden controller --settings settings.yaml --kubeconfig ~/.kube/config --probe-port 0",
    )
    add_connection(made)
    made.add_argument("--settings", default=os.environ.get("MLWARDEN_SETTINGS", ""), metavar="FILE", help="the chart's settings (YAML)")
    made.add_argument(
        "--probe-port", type=int, default=int(os.environ.get("MLWARDEN_PROBE_PORT", "8081")), help="port of probes and metrics"
    )
    made.add_argument("--host", default=os.environ.get("MLWARDEN_HOST", ""), help="address of probes and metrics, every one where empty")
    made.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return made


def add_connection(to: argparse.ArgumentParser) -> None:
    """Adds the arguments that say how to reach the API server."""
    directory = os.environ.get("MLWARDEN_SERVICE_ACCOUNT_DIR", SERVICE_ACCOUNT)
    to.add_argument("--service-account-dir", default=directory, metavar="DIR", help="token, ca.crt and namespace")
    to.add_argument("--kubeconfig", metavar="FILE", help="instead of a service account")
    to.add_argument("--context", help="of the kubeconfig")


async def connect(arguments: argparse.Namespace) -> Client:
    """Returns a client for the arguments of `add_connection`.

    Raises:
        Error: there is nothing to connect with.
    """
    if arguments.kubeconfig:
        return await Client.from_kubeconfig(arguments.kubeconfig, arguments.context)
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise InputError("this is not a pod: KUBERNETES_SERVICE_HOST is not set", hint="outside of a pod, use --kubeconfig")
    return Client.in_cluster(service_account_dir=arguments.service_account_dir, host=host, port=port)


def read_settings(path: str) -> Settings:
    """Returns the settings of a file, the defaults without one.

    Raises:
        InputError: it cannot be read, or says what nobody knows.
    """
    if not path:
        return Settings(namespace=os.environ.get("MLWARDEN_NAMESPACE") or os.environ.get("POD_NAMESPACE") or Settings().namespace)
    try:
        documents = policy.yaml_loads(Path(path).read_text(encoding="utf-8"))
        found = msgspec.convert(documents[0] if documents else {}, Settings)
    except (OSError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise InputError(f"settings {path}: {error}", hint="the chart writes this file; its values.yaml explains each value") from error
    policy.shipped(found.trusted_registries)  # what is none is refused now, by name
    return found


def connection(arguments: argparse.Namespace) -> kopf.ConnectionInfo:
    """Returns how kopf reaches the API server: what the client uses, with the token as it is now."""
    if arguments.kubeconfig:
        found = kopf.login_with_kubeconfig(logger=LOG, settings=kopf.OperatorSettings())
        if found is None:
            raise kopf.LoginError(f"kubeconfig {arguments.kubeconfig} cannot be used")
        return found
    folder = Path(arguments.service_account_dir)
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return kopf.ConnectionInfo(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ca_path=str(folder / "ca.crt"),
        scheme="Bearer",
        token=(folder / "token").read_text(encoding="ascii").strip(),
    )


async def _run(arguments: argparse.Namespace, settings: Settings) -> None:
    if arguments.kubeconfig:
        os.environ["KUBECONFIG"] = arguments.kubeconfig
    identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}-{os.getpid()}"
    async with await connect(arguments) as client:
        controller = Controller(client=client, settings=settings, connection=partial(connection, arguments), identity=identity)
        async with probes.serve(host=arguments.host, port=arguments.probe_port, ready=controller.ready, healthy=controller.healthy):
            work = asyncio.create_task(controller.run())
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, work.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await work
