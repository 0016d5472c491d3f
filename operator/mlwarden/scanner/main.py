"""`mlwarden scanner`: options and wiring.

`mlwarden scanner agent`, `worker` and `verifier` are the containers of the chart's pod. `mlwarden scanner` alone runs all three: worker and
verifier as children with a clean environment, on sockets in a directory of its own, started again when they die.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import re
import signal
import socket as sockets
import sys
import tempfile
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

from mlwarden.cluster import clock
from mlwarden.cluster.definitions import Definitions
from mlwarden.cluster.probes import Probes
from mlwarden.cluster.process import add_options, connect, start_logging
from mlwarden.evidence.cosign import Cosign
from mlwarden.evidence.credentials import Credentials
from mlwarden.evidence.database import Origin
from mlwarden.evidence.gather import ARCHITECTURES, Gatherer
from mlwarden.evidence.process import Limits
from mlwarden.evidence.proofs import Prover, trust_roots
from mlwarden.evidence.registries import Registries
from mlwarden.evidence.registry import Registry
from mlwarden.evidence.room import Room, at_once
from mlwarden.evidence.sboms import SBOMs
from mlwarden.evidence.tool import on_path
from mlwarden.evidence.trivy import Trivy, program
from mlwarden.scanner import agent as agents
from mlwarden.scanner import canary
from mlwarden.scanner.agenda import Terms
from mlwarden.scanner.exhibits import Suspect
from mlwarden.scanner.keys import Keys
from mlwarden.scanner.lane import Lane
from mlwarden.scanner.protocol import Worker
from mlwarden.scanner.pull import PullSecrets
from mlwarden.scanner.worker import Scratch, Service, keep_database, serve

LOG = logging.getLogger(__name__)
_RESTART_SECONDS = 1.0
_CHILDREN = ("worker", "verifier")
_MODES = ("agent", *_CHILDREN)
_KEPT = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "TMPDIR", "MLWARDEN_LOG", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
"""What worker and verifier, as children, inherit of the environment."""
_EXAMPLE = "example: mlwarden scanner --kubeconfig ~/.kube/config --trivy $(which trivy) --plain-http localhost:5000"


def main(argv: list[str]) -> int:
    """Runs agent, worker, verifier, or all of them."""
    mode = argv[0] if argv and argv[0] in _MODES else ""
    options = _parser(mode).parse_args(argv[1:] if mode else argv)
    start_logging()
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    run = {"agent": _agent, "worker": _worker, "verifier": _verifier, "": _all}[mode]
    return asyncio.run(_until_signalled(run(options)))


def _parser(mode: str) -> argparse.ArgumentParser:
    formatter = argparse.ArgumentDefaultsHelpFormatter
    name = f"mlwarden scanner {mode}".strip()
    parser = argparse.ArgumentParser(prog=name, description=__doc__.partition("\n")[0], epilog=_EXAMPLE, formatter_class=formatter)
    parser.add_argument("--workers", type=_positive, default=2, metavar="N", help="images scanned at the same time")
    more = "beyond those: for scans that run for over a minute, and for registries and namespaces with none"
    parser.add_argument("--slow-workers", type=_natural, default=2, metavar="N", help=more)
    peer = "worker" if mode in {"", "agent"} else "it"
    parser.add_argument("--socket", required=bool(mode), default="", metavar="PATH", help=f"unix socket between the agent and {peer}")
    if mode not in _CHILDREN:
        text = "unix socket between the agent and what verifies signatures"
        parser.add_argument("--verifier-socket", required=bool(mode), default="", metavar="PATH", help=text)
        add_options(parser)
        parser.add_argument("--identity", default="", metavar="NAME", help="name in claims; default: POD_NAME, else host and process")
        parser.add_argument("--lease", type=_positive, default=45, metavar="SECONDS", help="what a killed scanner had claimed is free then")
        looks = "of all answers that are made again, at random, by another replica or the next scan: from 0 to 1"
        parser.add_argument("--second-looks", type=_share, default=0.01, metavar="SHARE", help=looks)
        parser.add_argument("--max-age", type=float, default=24, metavar="HOURS", help="scans older than this are made again; 0: never")
        namespace = os.environ.get("POD_NAMESPACE", "mlwarden-system")
        parser.add_argument("--key-namespace", default=namespace, metavar="NAME", help="of Secrets with public keys that policies name")
        pods = "pull with the pull Secrets of pods, too; needs the right to read them"
        parser.add_argument("--pod-pull-secrets", action="store_true", help=pods)
    if mode != "agent":
        _add_worker_options(parser)
    return parser


def _add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Of worker and verifier: each takes those of the other, too, and has no use for them."""
    group = "the sockets may be connected to by the group of their directory (fsGroup): worker and verifier run as users of their own"
    parser.add_argument("--shared-socket", action="store_true", help=group)
    parser.add_argument("--trivy", default="trivy", metavar="PROGRAM", help="trivy 0.71 or later")
    parser.add_argument(
        "--trivy-cache", default="", metavar="DIR", help="its cache, with the vulnerability database; default: in --scratch"
    )
    parser.add_argument("--cosign", default="cosign", metavar="PROGRAM", help="cosign 3.1.2 or later")
    text = "trusted_root.json that policies call NAME; an empty NAME replaces Sigstore's public one (repeatable)"
    parser.add_argument("--trust-root", action="append", default=[], metavar="NAME=FILE", help=text)
    parser.add_argument("--db-repository", action="append", default=[], metavar="REPOSITORY", help="mirror of the database (repeatable)")
    file = "the database itself, a db.tar.gz or a directory: nothing is downloaded then"
    parser.add_argument("--database-file", default="", metavar="PATH", help=file)
    often = "how often to look for a newer database; a download is tried at most once an hour"
    parser.add_argument("--database-every", type=_positive, default=600, metavar="SECONDS", help=often)
    beside = "what trivy looks for beside vulnerabilities: secret, misconfig (repeatable)"
    parser.add_argument("--scanners", action="append", default=[], choices=["secret", "misconfig"], help=beside)
    kept = "for the packages of images, so that a new database needs no image again; 0: none are kept"
    parser.add_argument("--sboms-size", type=_natural, default=1024, metavar="MIB", help=kept)
    parser.add_argument("--sboms", default="", metavar="DIR", help="where they are; default: in --scratch")
    parser.add_argument("--no-database-update", action="store_true", help="never fetch the vulnerability database")
    parser.add_argument("--scratch", default=tempfile.gettempdir(), metavar="DIR", help="where images are unpacked")
    parser.add_argument("--scratch-size", type=_natural, default=0, metavar="MIB", help="of that disk; 0: all of it")
    whole = "for one digest, in all its repositories and with all the images that it stands for"
    parser.add_argument("--scan-timeout", type=_positive, default=1800, metavar="SECONDS", help=whole)
    stall = "a scan that neither receives anything nor computes for so long is stopped"
    parser.add_argument("--stall-timeout", type=_positive, default=60, metavar="SECONDS", help=stall)
    parser.add_argument(
        "--scan-memory", type=_positive, default=768, metavar="MIB", help="heap of one trivy (GOMEMLIMIT); it ends at three times that"
    )
    must = "what must be found in an image of the scanner's own, tried out every hour"
    parser.add_argument("--canary", type=_suspect, default=Suspect(), metavar="PACKAGE==VERSION=ID", help=must)
    parser.add_argument("--plain-http", action="append", default=[], metavar="HOST", help="registry spoken to in plain HTTP (repeatable)")
    parser.add_argument("--docker-config", default="", metavar="FILE", help="registry credentials, a docker config.json")
    parser.add_argument("--registry-ca", default="", metavar="FILE", help="PEM of certificate authorities of registries")
    parser.add_argument("--registries", default="", metavar="FILE", help="YAML: mirrors, authorities and plain HTTP by registry host")
    parser.add_argument("--registry-timeout", type=_positive, default=20, metavar="SECONDS")
    default = "of the nodes (repeatable); default: amd64 and arm64"
    parser.add_argument("--architecture", action="append", default=[], metavar="ARCH", help=default)


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("at least 0")
    return number


def _suspect(text: str) -> Suspect:
    match = re.fullmatch(r"([\w.-]{1,80})==([\w.]{1,40})=([\w-]{1,60})", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError("a Python package with a vulnerability, as torch==2.5.1=CVE-2025-32434")
    return Suspect(package=match[1], version=match[2], vulnerability=match[3])


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("from 0 to 1")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


async def _agent(options: argparse.Namespace) -> int:
    identity = options.identity or os.environ.get("POD_NAME") or f"{sockets.gethostname()}-{os.getpid()}"
    terms = Terms(
        identity=identity[:253],
        started=clock.now(),
        lease=timedelta(seconds=options.lease),
        max_age=timedelta(hours=options.max_age),
        second_looks=options.second_looks,
    )
    async with await connect(options) as client:
        lanes = {
            agents.RESOLVE: Lane(fast=4 * options.workers, total=8 * options.workers),
            agents.SCAN: Lane(fast=options.workers, total=options.workers + options.slow_workers, ahead=options.workers),
            agents.VERIFY: Lane(fast=2 * options.workers, total=3 * options.workers),
        }
        keys, secrets = Keys(client, options.key_namespace), PullSecrets(client, allowed=options.pod_pull_secrets)
        worker = Worker(options.socket, verifier=options.verifier_socket)
        agent = agents.Agent(client=client, worker=worker, terms=terms, lanes=lanes, keys=keys, secrets=secrets)
        async with asyncio.TaskGroup() as tasks:
            definitions = Definitions(client)
            tasks.create_task(definitions.run())
            probes = Probes(ready=lambda: agent.ready() or definitions.problem)
            tasks.create_task(probes.run(host=options.host, port=options.probe_port))
            tasks.create_task(agent.run())
    return 0


def _trivy(options: argparse.Namespace, scratch: Scratch) -> Trivy:
    binary = program(options.trivy)
    cache = Path(options.trivy_cache) if options.trivy_cache else Path(options.scratch) / "mlwarden-trivy-cache"
    room = Room(scratch.path, most=options.scratch_size << 20)
    limits = Limits(
        seconds=options.scan_timeout,
        cpu_seconds=4 * options.scan_timeout,
        heap=options.scan_memory << 20,
        data=3 * options.scan_memory << 20,
        stalled=options.stall_timeout,
        disk=room.share,
    )
    docker_config = Path(options.docker_config).read_bytes() if options.docker_config else Origin().docker_config
    file = Path(options.database_file) if options.database_file else None
    mirror = any(each.startswith(f"{host}/") for each in options.db_repository for host in options.plain_http)
    origin = Origin(repositories=tuple(options.db_repository), file=file, docker_config=docker_config, plain_http=mirror)
    return Trivy(
        binary=binary,
        cache=cache,
        scratch=scratch.path,
        limits=limits,
        ca_file=options.registry_ca,
        room=room,
        scanners=options.scanners,
        origin=origin,
    )


def _sboms(options: argparse.Namespace) -> SBOMs | None:
    directory = Path(options.sboms) if options.sboms else Path(options.scratch) / "mlwarden-sboms"
    return SBOMs(directory, limit=options.sboms_size << 20) if options.sboms_size else None


def _cosign(options: argparse.Namespace, scratch: Scratch) -> Cosign | None:
    """None where there is none: images are scanned, and signatures are `Unknown` with this as the reason."""
    binary = on_path(options.cosign)
    if binary is None:
        LOG.warning("there is no program %s: no signature can be verified", options.cosign)
        return None
    roots = trust_roots(options.trust_root)
    tuf = Path(options.scratch) / "mlwarden-tuf-cache"
    return Cosign(binary=binary, scratch=scratch.path, ca_file=options.registry_ca, trust_roots=roots, tuf=tuf)


def _registry(options: argparse.Namespace) -> Registry:
    credentials = Credentials.load(Path(options.docker_config)) if options.docker_config else None
    registries = Registries.load(options.registries, plain_http=frozenset(options.plain_http))
    return Registry(registries=registries, credentials=credentials, timeout=options.registry_timeout, ca_file=options.registry_ca)


async def _worker(options: argparse.Namespace) -> int:
    scratch = Scratch(Path(options.scratch))
    try:
        trivy = _trivy(options, scratch)
        LOG.info("trivy %s", await trivy.version())
        async with _registry(options) as registry:
            architectures = options.architecture or ARCHITECTURES
            gatherer = Gatherer(registry=registry, trivy=trivy, architectures=architectures, sboms=_sboms(options))
            workers = min(options.workers + options.slow_workers, at_once(options.scan_memory << 20))
            tried = canary.of_trivy(trivy, options.canary)
            service = Service(gatherer=gatherer, trivy=trivy, canaries=[tried], workers=workers, seconds=options.scan_timeout)
            async with asyncio.TaskGroup() as tasks:
                if not options.no_database_update:
                    tasks.create_task(keep_database(trivy, every=options.database_every))
                tasks.create_task(tried.keep())
                tasks.create_task(serve(service, Path(options.socket), shared=options.shared_socket))
    finally:
        scratch.close()
    return 0


async def _verifier(options: argparse.Namespace) -> int:
    scratch = Scratch(Path(options.scratch))
    try:
        cosign, roots = _cosign(options, scratch), trust_roots(options.trust_root)
        LOG.info("cosign %s", await cosign.version() if cosign else "none")
        async with _registry(options) as registry:
            tried = [canary.of_cosign(cosign)] if cosign else []
            prover = Prover(registry=registry, verifier=cosign)
            service = Service(prover=prover, canaries=tried, workers=options.workers, roots=roots)
            async with asyncio.TaskGroup() as tasks:
                for each in tried:
                    tasks.create_task(each.keep())
                tasks.create_task(serve(service, Path(options.socket), shared=options.shared_socket))
    finally:
        scratch.close()
    return 0


async def _all(options: argparse.Namespace) -> int:
    """The agent here, the others as children that die with us."""
    with tempfile.TemporaryDirectory(prefix="mlwarden-") as directory:
        options.socket = options.socket or f"{directory}/scanner.sock"
        options.verifier_socket = options.verifier_socket or f"{directory}/verifier.sock"
        async with asyncio.TaskGroup() as tasks:
            for mode in _CHILDREN:
                tasks.create_task(_keep_child(mode, _child_arguments(mode, options)))
            tasks.create_task(_agent(options))
    return 0


def _child_arguments(mode: str, options: argparse.Namespace) -> list[str]:
    """The command line of worker or verifier, from what this process was told."""
    found: list[str] = []
    options = argparse.Namespace(**{**vars(options), "socket": options.socket if mode == "worker" else options.verifier_socket})
    for action in _parser(mode)._actions:  # noqa: SLF001 -- argparse has no other way to list its options
        value = getattr(options, action.dest, None)
        if not action.option_strings or action.dest == "help" or value is None or value is False or value in ("", []):
            continue
        flag = action.option_strings[0]
        if value is True:
            found.append(flag)
        else:
            found += [f"{flag}={one}" for one in (value if isinstance(value, list) else [value])]
    return found


async def _keep_child(mode: str, arguments: list[str]) -> None:
    environment = {name: value for name in _KEPT if (value := os.environ.get(name))}
    command = [sys.executable, "-c", _CHILD, str(os.getpid()), mode, *arguments]
    while True:
        child = await asyncio.create_subprocess_exec(*command, env=environment, stdin=asyncio.subprocess.DEVNULL, start_new_session=True)
        try:
            code = await child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            await asyncio.shield(child.wait())
        LOG.warning("the %s ended (%s), and is started again", mode, code)
        await asyncio.sleep(_RESTART_SECONDS)


_CHILD = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
from mlwarden.cli.main import main
sys.exit(main(["scanner", *sys.argv[2:]]))
"""
"""Worker or verifier as a child: the kernel kills it (PR_SET_PDEATHSIG) when its parent dies."""


async def _until_signalled(work: Coroutine[Any, Any, int]) -> int:
    """Runs until done, or until SIGTERM or SIGINT: then it is cancelled, and that is a good end."""
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    stop: Callable[[], object] = task.cancel
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        return 0
    except BaseExceptionGroup as several:
        raise _first(several) from None


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure of a task group: what a person is told."""
    found: BaseException = several
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
