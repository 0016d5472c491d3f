"""`mlwarden releaser`: wiring.

The only process that patches pods, under an account that may do little else: who takes it over can release what is held, and nothing more;
who takes over the controller, which writes admission policies, can release nothing. Every replica watches and releases, the leader at once
and the others two seconds later; the leader alone asks for evidence and writes Events.

A task that ends by an error ends the process: the kubelet starts it again, and everything here begins by looking at what is.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
from dataclasses import dataclass, field

from mlwarden import evidence
from mlwarden.cluster.client import Client
from mlwarden.cluster.definitions import Definitions
from mlwarden.cluster.lease import Lease
from mlwarden.cluster.probes import DEAD, SILENT, Probes, unheard
from mlwarden.cluster.process import add_options, connect, load_settings, start_logging
from mlwarden.cluster.snapshot import SnapshotSource
from mlwarden.controllers.releaser import Releaser
from mlwarden.controllers.reporter import Reporter
from mlwarden.model.policy import Settings

LEASE = "mlwarden-releaser"


@dataclass
class Process:
    """The parts of one replica."""

    client: Client
    settings: Settings
    identity: str
    lease: Lease = field(init=False)
    definitions: Definitions = field(init=False)
    source: SnapshotSource = field(init=False)
    reporter: Reporter = field(init=False)
    releaser: Releaser = field(init=False)

    def __post_init__(self) -> None:
        """Wires them."""
        self.lease = Lease(self.client, name=LEASE, namespace=self.settings.namespace, identity=self.identity)
        self.definitions = Definitions(self.client)
        self.source = SnapshotSource(self.client, self.settings, convert=evidence.to_facts)
        self.reporter = Reporter(self.client, component=self.settings.releaser)
        self.releaser = Releaser(self.client, self.source, self.reporter, is_leader=lambda: self.lease.is_leader)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self.source.run, self.reporter.run, self.releaser.run, self.lease.run, self.definitions.run, self._leadership):
                tasks.create_task(work(), name=work.__qualname__)

    def ready(self) -> str:
        """Why this replica could not release what is good."""
        if not self.source.ready.is_set():
            return "policies, namespaces and evidence have not been read yet"
        if not self.releaser.pods.synced.is_set():
            return "pods have not been read yet"
        if self.source.current.missing:
            return f"policies that come with mlwarden are missing: {', '.join(self.source.current.missing)}; the controller applies them"
        if silent := unheard(self._age(), SILENT):
            return silent
        if self.definitions.problem:
            return self.definitions.problem
        return "" if self.lease.is_leader or self.lease.holder else "nobody leads yet"

    def healthy(self) -> str:
        """Why this replica should be started again."""
        return unheard(self._age(), DEAD)

    def _age(self) -> float:
        return max(self.source.age, self.releaser.pods.age)

    async def _leadership(self) -> None:
        while True:
            await self.lease.leading.wait()
            self.releaser.look_at_everything()
            await self.lease.following.wait()


def main(argv: list[str]) -> int:
    """Runs the releaser until SIGTERM, and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mlwarden releaser",
        description="Judges held pods as they are stored, and releases those that are good. A process of the chart.",
        epilog="example: mlwarden releaser --settings settings.yaml --kubeconfig ~/.kube/config --probe-port 0",
    )
    add_options(parser)
    options = parser.parse_args(argv)
    start_logging()
    asyncio.run(_run(options, load_settings(options.settings)))
    return 0


async def _run(options: argparse.Namespace, settings: Settings) -> None:
    identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}-{os.getpid()}"
    async with await connect(options) as client:
        process = Process(client=client, settings=settings, identity=identity)
        probes = Probes(ready=process.ready, healthy=process.healthy)

        async def everything() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(probes.run(host=options.host, port=options.probe_port))
                tasks.create_task(process.run())

        work = asyncio.create_task(everything())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await work
