"""Tokens that the API server itself makes (TokenRequest), and what it signs for others."""

import asyncio
import base64
import contextlib
import copy
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlwarden.admission.app import App
from mlwarden.admission.sender import ANYBODY
from mlwarden.admission.tokens import CONFIGURATION, Tokens
from mlwarden.cluster import Client, Snapshot
from mlwarden.controllers.guards import WEBHOOKS
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.model.policy import Settings

from .conftest import review  # type: ignore[import-not-found]
from .serving import until_async  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster
URL = "https://webhook.example:8443"
SETTINGS = Settings(webhook_url=URL)
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"


@pytest.fixture(scope="module")
def issuing() -> Iterator[EmbeddedCluster]:
    """An API server with the feature on, two webhook configurations, and an account that may attest."""
    with EmbeddedCluster(nodes=0, apiserver_arguments=["--feature-gates=APIServerWebhookAuthenticationToken=true"]) as cluster:
        admin = cluster.api()
        for name in (WEBHOOKS, "somebody-elses"):
            webhook = {
                "name": "w.example.com",
                "clientConfig": {"url": f"{URL}/mutate"},
                "rules": [{"apiGroups": ["", "apps"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["nothing"]}],
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Ignore",
            }
            admin.create(f"{ADMISSION}/mutatingwebhookconfigurations", {"metadata": {"name": name}, "webhooks": [webhook]})
        rule = {"apiGroups": ["authentication.k8s.io"], "resources": ["admissionReviewAPIGroups"], "verbs": ["attest"]}
        role = {"metadata": {"name": "attest"}, "rules": [rule]}
        admin.create(f"{RBAC}/clusterroles", role)
        for account in ("attests", "anybody"):
            admin.create(ACCOUNTS, {"metadata": {"name": account}})
        subject = {"kind": "ServiceAccount", "name": "attests", "namespace": "default"}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "attest"}
        admin.create(f"{RBAC}/clusterrolebindings", {"metadata": {"name": "attest"}, "subjects": [subject], "roleRef": reference})
        yield cluster


@pytest.fixture
async def tokens(issuing: EmbeddedCluster) -> AsyncIterator[Tokens]:
    async with await Client.from_kubeconfig(issuing.kubeconfig()) as client:
        made = Tokens(client, SETTINGS)
        task = asyncio.create_task(made.run())
        made.sender(token(issuing, "anybody"), "/mutate")
        await until_async(lambda: made._keys)
        yield made
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def token(cluster: EmbeddedCluster, account: str = "attests", *, group: str = "", bound: str = "", audience: str = f"{URL}/mutate") -> str:
    """A token that the API server makes; `group` attested and bound to a configuration where one is named."""
    spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": 600}
    if bound:
        spec["boundObjectRef"] = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "name": bound}
        spec["attestations"] = {"admissionReviewAPIGroups": [group]}
    return str(cluster.api().create(f"{ACCOUNTS}/{account}/token", {"spec": spec})["status"]["token"])


def rewritten(made: str, change: Callable[[dict[str, Any]], None]) -> str:
    """The same token with other claims, under the old signature."""
    head, body, signature = made.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    change(claims)
    return f"{head}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.{signature}"


async def test_one_that_is_bound_to_our_webhook_and_attested_speaks_for_its_api_groups(issuing: EmbeddedCluster, tokens: Tokens) -> None:
    everything = tokens.sender(token(issuing, group="*", bound=WEBHOOKS), "/mutate")
    assert [everything.speaks_for(group) for group in ("", "apps", "kubeflow.org")] == [True] * 3
    apps = tokens.sender(token(issuing, group="apps", bound=WEBHOOKS), "/mutate")
    assert [apps.speaks_for(group) for group in ("apps", "", "kubeflow.org")] == [True, False, False]


async def test_any_other_speaks_for_nothing(issuing: EmbeddedCluster, tokens: Tokens, attack: Callable[[str, str, str], None]) -> None:
    good = token(issuing, group="*", bound=WEBHOOKS)
    others = {
        "an account's own, for our address": token(issuing, "anybody"),
        "bound to somebody else's configuration": token(issuing, group="apps", bound="somebody-elses"),
        "for another address": token(issuing, group="*", bound=WEBHOOKS, audience=f"{URL}/validate"),
        "with other claims": rewritten(token(issuing, "anybody"), lambda claims: claims.update(json.loads(json.dumps(_claims(good))))),
        "without a signature": good.rpartition(".")[0] + ".",
        "that says it needs none": _unsigned(good),
        "cut off": good[:-10],
        "nonsense": "a.b.c",
        "empty": "",
        "large": "a" * 100_000,
    }
    assert {name: tokens.sender(each, "/mutate") for name, each in others.items()} == dict.fromkeys(others, ANYBODY)
    assert tokens.sender(good, "/validate") == ANYBODY
    assert tokens.sender(good, "/mutate") != ANYBODY
    attack("tokens of the cluster that nobody attested", "not looked at", f"{len(others)} sorts of token count for nothing")


async def test_one_is_good_until_it_expires(issuing: EmbeddedCluster, tokens: Tokens) -> None:
    good = token(issuing, group="*", bound=WEBHOOKS)
    assert tokens.sender(good, "/mutate") != ANYBODY
    tokens._now = lambda: datetime.now(UTC) + timedelta(seconds=700)
    assert tokens.sender(good, "/mutate") == ANYBODY


async def test_the_api_server_is_believed_by_its_token_and_nobody_refuses_those_without(
    issuing: EmbeddedCluster, tokens: Tokens, snapshot: Snapshot, good: dict[str, Any]
) -> None:
    told: list[Any] = []
    app = App(snapshot=lambda: snapshot, want=lambda _wanted, _requester: None, tell=told.append, bearer=tokens.sender)
    sent: list[Any] = []
    good["metadata"]["uid"] = "u-1"
    debugged = copy.deepcopy(good)
    debugged["spec"]["ephemeralContainers"] = [{"name": "x", "image": "busybox", "securityContext": {"privileged": True}}]
    body = json.dumps(review(debugged, operation="UPDATE", subResource="ephemeralcontainers", oldObject=good)).encode()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    for shown in ("", token(issuing, "anybody"), token(issuing, group="apps", bound=WEBHOOKS)):
        headers = [(b"authorization", f"Bearer {shown}".encode())] if shown else []
        await app({"type": "http", "path": "/mutate", "method": "POST", "query_string": b"", "headers": headers}, receive, send)
    assert told == []
    headers = [(b"host", b"x"), (b"authorization", b"bearer " + token(issuing, group="*", bound=WEBHOOKS).encode())]
    await app({"type": "http", "path": "/mutate", "method": "POST", "query_string": b"", "headers": headers}, receive, send)
    assert len(told) == 1  # an Event in a person's name
    assert [each["status"] for each in sent[::2]] == [200] * 4


def test_the_configuration_is_the_one_that_the_controller_makes() -> None:
    assert CONFIGURATION == WEBHOOKS


def _claims(made: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(made.split(".")[1] + "==")))


def _unsigned(made: str) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": _head(made)["kid"]}).encode()).decode().rstrip("=")
    return f"{head}.{made.split('.')[1]}."


def _head(made: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(made.split(".", maxsplit=1)[0] + "==")))
