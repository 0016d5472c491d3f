"""Pull Secrets, read from a real API server as a service account that may read some of them."""

import base64
import ssl
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.cluster import Client
from mlwarden.cluster.client import Token
from mlwarden.evidence import pending
from mlwarden.evidence.credentials import Credential
from mlwarden.evidence.failure import DefinitiveError
from mlwarden.evidence.pullers import Puller
from mlwarden.evidence.store import ImageEvidence, Requester, read
from mlwarden.scanner.protocol import PullCredential, shown
from mlwarden.scanner.pull import MAX_CREDENTIALS, PullSecrets

if TYPE_CHECKING:
    from pathlib import Path

    from mlwarden.embedded.cluster import EmbeddedCluster

pytestmark = pytest.mark.cluster
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
async def scanner_client(scanner_kubeconfig: "Path") -> AsyncIterator[Client]:
    async with await Client.from_kubeconfig(scanner_kubeconfig) as client:
        yield client


def wanted(*pullers: Puller, images: tuple[str, ...] = ("reg.example:5000/team/x",)) -> ImageEvidence:
    raw = pending(f"{images[0]}@{DIGEST}", Requester(pullers=pullers))
    raw["spec"]["references"] = [f"{image}@{DIGEST}" for image in images]
    return read(raw)


def users(credentials: tuple[PullCredential, ...]) -> list[tuple[str, str]]:
    return [(key.image, key.credential.username) for key in credentials]


async def test_only_what_is_written_for_the_image_is_taken(
    scanner_client: Client, namespace: str, pull_secret: Any, may_read: None
) -> None:
    pull_secret("one", {"reg.example:5000": "host", "reg.example:5000/team": "team", "reg.example": "other port", "*.example:5000": "glob"})
    pull_secret(
        "two", {"evil.example": "evil", "reg.example:5000/else": "else", "https://index.docker.io/v1/": "hub"}, "kubernetes.io/dockercfg"
    )
    who = Puller(namespace=namespace, service_account="default", secrets=("one", "two"))
    secrets = PullSecrets(scanner_client, allowed=True)
    image = "reg.example:5000/team/x"
    given = await secrets.credentials_for(wanted(who, images=(image, "docker.io/library/x")))
    assert users(given.credentials) == [(image, "team"), (image, "host"), (image, "glob"), ("docker.io/library/x", "hub")]
    assert given.missing == ()
    assert [found.username for found in shown(given.credentials).all(image)] == ["team", "host", "glob"]
    assert not shown(given.credentials).all("evil.example/x")
    assert not shown(given.credentials).all("reg.example:5000/other")


async def test_the_service_account_counts_where_the_pod_names_no_secret_and_the_newest_pod_comes_first(
    cluster: "EmbeddedCluster", scanner_client: Client, namespace: str, pull_secret: Any, may_read: None
) -> None:
    pull_secret("old", {"reg.example:5000": "old"})
    pull_secret("new", {"reg.example:5000": "new"})
    account = {"metadata": {"name": "runner"}, "imagePullSecrets": [{"name": "new"}]}
    cluster.api().create(f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
    older = Puller(namespace=namespace, service_account="runner", secrets=("old",))
    newer = Puller(namespace=namespace, service_account="runner")
    given = await PullSecrets(scanner_client, allowed=True).credentials_for(wanted(older, newer))
    assert [key.credential.username for key in given.credentials] == ["new", "old"]


async def test_what_cannot_be_read_is_a_reason_in_words_and_no_failure(
    cluster: "EmbeddedCluster", scanner_client: Client, namespace: str, pull_secret: Any, may_read: None
) -> None:
    pull_secret("good", {"reg.example:5000": "ana"})
    base = f"/api/v1/namespaces/{namespace}/secrets"
    cluster.api().create(base, {"metadata": {"name": "opaque"}, "data": {".dockerconfigjson": ""}})
    broken = base64.b64encode(b'{"auths": {"reg.example:5000": {"auth": "hunter2!"}}}').decode()
    kind = "kubernetes.io/dockerconfigjson"
    cluster.api().create(base, {"metadata": {"name": "broken"}, "type": kind, "data": {".dockerconfigjson": broken}})
    who = Puller(namespace=namespace, service_account="default", secrets=("nothing", "opaque", "broken", "good"))
    elsewhere = Puller(namespace="kube-system", service_account="default", secrets=("theirs",))
    given = await PullSecrets(scanner_client, allowed=True).credentials_for(wanted(who, elsewhere))
    assert [key.credential.username for key in given.credentials] == ["ana"]
    assert given.missing == (
        "mlwarden may not read the Secret kube-system/theirs",
        f"there is no Secret {namespace}/nothing",
        f"the Secret {namespace}/opaque is not a pull Secret",
        f"the Secret {namespace}/broken holds no docker configuration",
    )
    said = given.explained(DefinitiveError("reg.example:5000/team/x: the registry denies access (401)"))
    assert said.message == f"reg.example:5000/team/x: the registry denies access (401); {given.missing[0]} (and 3 more)"


async def test_nothing_is_read_unless_the_administrator_says_so(
    scanner_client: Client, namespace: str, pull_secret: Any, may_read: None
) -> None:
    pull_secret("good", {"reg.example:5000": "ana"})
    who = Puller(namespace=namespace, service_account="default", secrets=("good",))
    given = await PullSecrets(scanner_client, allowed=False).credentials_for(wanted(who))
    assert given.credentials == ()
    assert "scanner.podPullSecrets" in given.missing[0]


async def test_an_api_server_that_does_not_answer_is_a_reason_too(unused_tcp_port: int) -> None:
    context = ssl.create_default_context()
    async with Client(server=f"https://127.0.0.1:{unused_tcp_port}", context=context, token=Token(text="x"), timeout=1) as gone:
        given = await PullSecrets(gone, allowed=True).credentials_for(wanted(Puller(namespace="team", service_account="runner")))
    assert given.credentials == ()
    assert "the service account team/runner cannot be read" in given.missing[0]


async def test_a_question_has_bounds_whatever_the_secrets_hold(
    scanner_client: Client, namespace: str, pull_secret: Any, may_read: None
) -> None:
    pull_secret("many", {f"reg.example:5000/{'t' * number}": "x" * number for number in range(1, 60)} | {"reg.example:5000": "y" * 20_000})
    who = Puller(namespace=namespace, service_account="default", secrets=("many",))
    image = "reg.example:5000/" + "t" * 100
    given = await PullSecrets(scanner_client, allowed=True).credentials_for(wanted(who, images=(image,)))
    assert len(given.credentials) == MAX_CREDENTIALS


def test_a_credential_is_for_its_image_alone_even_where_the_repository_looks_like_a_version() -> None:
    ana = Credential(username="ana")
    for image in ("reg.example/v2/x", "reg.example/v1/v2/x", "reg.example/x"):
        found = shown((PullCredential(image=image, credential=ana),))
        assert found.all(image) == (ana,)
        assert found.all("reg.example/other") == ()
