"""Fixtures every test folder shares: one embedded cluster for the session, one namespace for each test.

A machine on which the tools cannot be built fails these tests. It does not skip them: a skipped integration test is one nobody misses.
"""

import http.client
import re
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mlwarden.cluster import Client
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.kubelet import HostKubelet
    from mlwarden.embedded.sigstore import Sigstore


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Prints the table of attacks: each one, what it did before it was mended, what it does in this run."""
    rows = [value for reports in terminalreporter.stats.values() for each in reports for value in _attacks(each)]
    if not rows:
        return
    terminalreporter.section("attacks")
    for name, before, after in sorted(set(rows)):
        terminalreporter.write_line(f"{name}\n    before: {before}\n    now:    {after}")


def _attacks(report: object) -> list[tuple[str, str, str]]:
    properties = getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ()
    return [tuple(value) for key, value in properties if key == "attack"]


@pytest.fixture
def attack(request: pytest.FixtureRequest) -> Callable[[str, str, str], None]:
    """`attack(name, before, now)`: a row of the table that is printed at the end. Called after the asserts, with what was seen."""
    return lambda name, before, now: request.node.user_properties.append(("attack", (name, before, now)))


@pytest.fixture(scope="session")
def cluster() -> "Iterator[EmbeddedCluster]":
    """One embedded control plane for the whole session, audit log on. Leave no cluster-scoped object behind."""
    from mlwarden.embedded.cluster import EmbeddedCluster

    with EmbeddedCluster(audit=True) as running:
        yield running


@pytest.fixture
def namespace(cluster: "EmbeddedCluster", request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a fresh namespace, named after the test; it is deleted afterwards, without waiting."""
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-")
    name = cluster.create_namespace(f"{readable}-{secrets.token_hex(3)}")
    yield name
    cluster.api().delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def kubectl(cluster: "EmbeddedCluster") -> Callable[..., str]:
    """`kubectl(*args, user="admin", input=None, check=True) -> str`."""
    return cluster.kubectl


@pytest.fixture(scope="session")
def kubelet(cluster: "EmbeddedCluster") -> "Iterator[HostKubelet]":
    """The host node: mlwarden's own pods run there as host processes."""
    from mlwarden.embedded.kubelet import HostKubelet

    with HostKubelet(cluster) as running:
        yield running


@pytest.fixture(scope="session")
def sigstore(cluster: "EmbeddedCluster") -> "Iterator[Sigstore]":
    """Keyless signing by the cluster's service accounts, with services and a trust root of its own."""
    from mlwarden.embedded.sigstore import Sigstore

    with Sigstore(cluster) as running:
        yield running


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """A real registry, `host:port`, plain HTTP, no authentication."""
    from mlwarden.embedded.build import binary
    from mlwarden.embedded.processes import Keeper, Process, free_port, wait_until

    keeper = Keeper()
    host = f"127.0.0.1:{free_port()}"
    process = Process("registry", [binary("crane"), "registry", "serve", "--address", host], log=keeper.directory / "log", keeper=keeper)

    def answers() -> bool:
        connection = http.client.HTTPConnection(host, timeout=1)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    try:
        assert wait_until(answers, seconds=20)
        yield host
    finally:
        process.kill()
        keeper.close()


@pytest.fixture(scope="session")
def private_tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """A server's TLS on 127.0.0.1, and the PEM of the authority that no system knows."""
    from mlwarden.embedded import pki

    made = pki.make(tmp_path_factory.mktemp("pki"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server_certificate, made.server_key)
    return context, made.ca.read_text()


@pytest.fixture
async def client(cluster: "EmbeddedCluster") -> "AsyncIterator[Client]":
    """The product's own client, as admin."""
    from mlwarden.cluster import Client

    connected: Any = await Client.from_kubeconfig(cluster.kubeconfig())
    try:
        yield connected
    finally:
        await connected.close()
