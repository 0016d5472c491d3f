"""`mlwarden webhook`: the process around the application.

A wiring list: client, snapshot, certificate, server, probes, requests for evidence, Events.

Ready when the policies were read, a certificate is there and every watch was heard of lately; healthy while they give signs of life. On
SIGTERM it stops being ready, serves on until the endpoints have followed, ending the connection with every answer (the API server keeps its
connections for as long as they work, and does not repeat a POST), and only then closes.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
import uvloop

from mlwarden import evidence
from mlwarden.admission import certificate, metrics
from mlwarden.admission.app import STALE, App
from mlwarden.admission.events import Events
from mlwarden.admission.listener import Listener
from mlwarden.admission.sender import ANYBODY, API_SERVER
from mlwarden.admission.tokens import Tokens
from mlwarden.cluster import SECRET, Client, Informer, Snapshot, SnapshotSource, clock
from mlwarden.cluster.listening import listen
from mlwarden.cluster.probes import Probes
from mlwarden.cluster.process import add_options, connect, load_settings, start_logging
from mlwarden.errors import Error
from mlwarden.evidence.bounds import Unanswered
from mlwarden.evidence.requests import Requests
from mlwarden.evidence.store import Requester

LOG = logging.getLogger(__name__)
_TLS_SECRET = "mlwarden-webhook-tls"  # noqa: S105 -- a name
_SILENT = 300.0  # seconds without a sign of life on a watch, after which a restart is the better idea
_QUEUE = 10_000
_LAST_WORDS = 0.5  # seconds from the last handshake to its request


class Server(Listener):
    """Without uvicorn's own signal handling: we drain first. And without its haste at the end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets nobody in any more, and hears out who came in last: uvicorn hangs up on whoever has shaken hands and not asked yet."""
        self.close()
        for each in sockets or ():
            each.close()
        await asyncio.sleep(_LAST_WORDS)
        await super().shutdown(sockets)


def main(argv: list[str]) -> int:
    """Serves until told to stop; returns 0."""
    parser = argparse.ArgumentParser(
        prog="mlwarden webhook",
        description="The request path: answers the API server's admission reviews.",
        epilog="example: mlwarden webhook --settings settings.yaml --kubeconfig ~/.kube/config --port 8443",
    )
    add_options(parser)
    parser.add_argument("--port", type=int, default=_environment_port(), help="for reviews, TLS")
    parser.add_argument("--client-ca", default="", metavar="FILE", help="PEM: only its clients are answered, and believed")
    parser.add_argument("--drain", type=float, default=5.0, metavar="SECONDS", help="how long to serve on after SIGTERM")
    options = parser.parse_args(argv)
    start_logging()
    uvloop.run(_run(options))
    return 0


def _environment_port() -> int:
    return int(os.environ.get("MLWARDEN_PORT", "8443"))


async def _run(options: argparse.Namespace) -> None:
    settings = load_settings(options.settings)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await connect(options) as client:
        source = SnapshotSource(client, settings, convert=evidence.to_facts, templates=True)
        tls = Tls(client, settings.namespace, certificate.server_context(options.client_ca))
        unanswered = Unanswered(settings.evidence_per_namespace)
        source.read_evidence(unanswered.changed)
        wanted, events, tokens = Wanted(client, unanswered), Events(client), Tokens(client, settings)
        app = App(
            snapshot=lambda: source.current if source.ready.is_set() and not source.current.missing else None,
            want=wanted.add,
            tell=events.add,
            leaving=stop.is_set,
            silence=lambda: source.age,
            bearer=tokens.sender,
            sender=API_SERVER if options.client_ca else ANYBODY,
        )
        server = _server(options, app, tls.context)
        source.subscribe(_measure)
        metrics.AGE.set_function(lambda: source.age)

        def ready() -> str:
            if stop.is_set():
                return "going away"
            if reason := _unready(source, tls):
                return reason
            return "" if server.started else "not listening yet"

        def healthy() -> str:
            return f"a watch has been silent for {source.age:.0f} s" if source.ready.is_set() and source.age > _SILENT else ""

        async with _tasks(
            source.run(),
            tls.run(),
            wanted.run(),
            events.run(),
            tokens.run(),
            Probes(ready=ready, healthy=healthy).run(host=options.host, port=options.probe_port),
        ) as failed:
            await _first(stop.wait(), source.ready.wait(), failed)
            await _first(stop.wait(), tls.loaded.wait(), failed)
            if stop.is_set():
                return
            serving = asyncio.create_task(server.serve(sockets=[listen(options.host, options.port, shared=True)]))
            LOG.info("serving on %s:%d", options.host or "every address", options.port)
            await _first(stop.wait(), asyncio.shield(serving), failed)
            if stop.is_set():
                await asyncio.sleep(options.drain)
            server.should_exit = True
            await serving


class Tls:
    """Follows the Secret and keeps the live context on its certificate."""

    def __init__(self, client: Client, namespace: str, context: ssl.SSLContext) -> None:
        self.context = context
        self.loaded = asyncio.Event()
        query = {"fieldSelector": f"metadata.name={_TLS_SECRET}"}
        self._informer = Informer(client, SECRET, namespace=namespace, query=query, on_change=self._changed)

    async def run(self) -> None:
        """Follows until cancelled."""
        await self._informer.run()

    def _changed(self, _key: tuple[str, str], secret: dict[str, Any] | None) -> None:
        if secret is None:
            LOG.warning("the Secret %s is gone; serving on with the certificate that is loaded", _TLS_SECRET)
            return
        try:
            certificate.load(self.context, secret)
        except Error as error:
            LOG.error("%s: %s", _TLS_SECRET, error)  # noqa: TRY400 -- the error says it all
            return
        self.loaded.set()


class Wanted:
    """References without evidence, on their way to the scanner's queue. Bounded: what does not fit is asked for at release."""

    def __init__(self, client: Client, unanswered: Unanswered) -> None:
        self._requests = Requests(client, unanswered=unanswered, waits=None)
        self._queue: asyncio.Queue[tuple[tuple[str, ...], Requester | None]] = asyncio.Queue(_QUEUE)

    def add(self, references: tuple[str, ...], requester: Requester | None = None) -> None:
        """Never blocks."""
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait((references, requester))

    async def run(self) -> None:
        """Asks until cancelled."""
        while True:
            references, requester = await self._queue.get()
            try:
                await self._requests.ensure(references, clock.now(), requester)
            except Exception:  # one reference must not end the process that everybody else is answered by; it is asked for at release
                LOG.exception("evidence for %.500s", references)


def _unready(source: SnapshotSource, tls: Tls) -> str:
    """What is missing to answer by."""
    if not source.ready.is_set():
        return "the policies were not read yet"
    if source.age > STALE:
        return f"nothing heard from the API server for {source.age:.0f} s"
    if source.current.missing:
        return f"policies that come with mlwarden are missing: {', '.join(source.current.missing)}; the controller applies them"
    if not tls.loaded.is_set():
        return f"the Secret {_TLS_SECRET} holds no certificate yet; the controller makes it"
    return ""


def _measure(snapshot: Snapshot, _changes: frozenset[str]) -> None:
    metrics.REVISION.set(snapshot.revision)
    metrics.BROKEN.set(len(snapshot.broken))


def _server(options: argparse.Namespace, app: App, context: ssl.SSLContext) -> Server:
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_keep_alive=120,  # the API server keeps idle connections for 90 s and does not repeat a POST
        timeout_graceful_shutdown=10,
        server_header=False,
        date_header=False,
    )
    config.load()
    return Server(config, context)


@contextlib.asynccontextmanager
async def _tasks(*work: Any) -> AsyncIterator[asyncio.Future[Any]]:
    """Runs background work; yields what ends when any of it ends, which none of it should."""
    tasks = [asyncio.create_task(each) for each in work]
    failed = asyncio.ensure_future(asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))
    try:
        yield failed
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()
    finally:
        for task in (*tasks, failed):
            task.cancel()
        await asyncio.gather(*tasks, failed, return_exceptions=True)


async def _first(*things: Any) -> None:
    """Waits for the first of these; the rest goes on or is cancelled by its owner."""
    waiting = [asyncio.ensure_future(each) for each in things]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for each, thing in zip(waiting, things, strict=True):
        if each is not thing and not each.done():
            each.cancel()
