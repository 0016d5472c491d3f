"""A token of the scanner's and one of the webhook's, stolen, on an installation with nothing but the chart's defaults."""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden import evidence
from mlwarden.embedded import images
from mlwarden.embedded.api import Api, ApiError
from mlwarden.embedded.installed import NAMESPACE
from mlwarden.evidence.pullers import Puller
from mlwarden.evidence.store import Requester

if TYPE_CHECKING:
    from .conftest import Installed  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster
EVIDENCE = "/apis/mlwarden.io/v1alpha1/imageevidences"


def pod_of(installed: "Installed", component: str) -> str:
    """The name of a pod of one of mlwarden's processes."""
    pods = installed.admin.get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=f"app.kubernetes.io/component={component}")["items"]
    return str(pods[0]["metadata"]["name"])


@contextlib.contextmanager
def stolen(installed: "Installed", component: str) -> Iterator[Api]:
    """Somebody who has the token that the kubelet got for that pod."""
    name = pod_of(installed, component)
    pod = installed.admin.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}")
    bound = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod["metadata"]["uid"]}
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/mlwarden-{component}/token"
    token = installed.cluster.api("kubelet").create(path, {"spec": {"boundObjectRef": bound}})["status"]["token"]
    api = Api(server=installed.cluster.server, ca=str(installed.cluster.pki.ca), token=token)
    yield api
    api.close()


@pytest.fixture
def scanner(installed: "Installed") -> str:
    """The name of the scanner's pod."""
    return pod_of(installed, "scanner")


@pytest.fixture
def thief(installed: "Installed") -> Iterator[Api]:
    """Who stole the scanner's token."""
    with stolen(installed, "scanner") as api:
        yield api


def test_a_clean_scan_that_somebody_writes_with_it_is_found_and_an_honest_one_stays(
    installed: "Installed", scanner: str, thief: Api, attack: Callable[[str, str, str], None]
) -> None:
    space = installed.namespace("chart-stolen", "production")
    registry = installed.cluster.registry
    images.vulnerable(registry, "stolen:1.0")
    installed.create(space, installed.pod("bad", "stolen:1.0"))
    installed.create(space, installed.pod("good"))
    installed.said(space, "bad", "CVE-2025-32434")
    installed.runs(space, "good")

    def scan(image: str) -> dict[str, Any]:
        of = installed.admin.get(f"{EVIDENCE}/{evidence.name_for(f'{registry}/{image}')}")["status"]["digest"]
        found: dict[str, Any] = installed.admin.get(f"{EVIDENCE}/{evidence.name_for(f'{registry}/x@{of}')}")
        return found

    installed.admin.delete(f"/api/v1/namespaces/{space}/pods/bad")  # what is released in between would run, and be reported
    before, honest = scan("stolen:1.0"), scan("clean:1.0")
    assert before["status"]["answeredBy"] == honest["status"]["answeredBy"] == scanner
    status = f"{EVIDENCE}/{before['metadata']['name']}/status"
    found = {each: said for each, said in before["status"]["scan"].items() if each not in ("counts", "vulnerabilities")}
    clean = {**before, "status": {**before["status"], "scan": found}}
    with pytest.raises(ApiError, match="carries the name of the pod that writes it"):
        thief.update(status, {**clean, "status": {**clean["status"], "answeredBy": "mlwarden-scanner-another"}})
    assert "counts" not in thief.update(status, clean)["status"]["scan"]

    installed.until(lambda: scan("stolen:1.0")["status"].get("scan", {}).get("counts") == before["status"]["scan"]["counts"])
    (said,) = installed.until(
        lambda: installed.admin.get("/api/v1/namespaces/default/events", fieldSelector="reason=AnswerTakenBack")["items"]
    )
    assert said["involvedObject"]["name"] == before["metadata"]["name"]
    assert f"delete pod {scanner}" in said["message"]
    assert scan("clean:1.0")["status"] == honest["status"]
    attack(
        "a clean scan is forged with the scanner's token, on an installation with the chart's defaults",
        "nobody noticed, and the image ran",
        f"taken back and made again at once, with an Event: {said['message'][:88]}…",
    )


def test_the_webhooks_asks_for_evidence_and_names_nobody_whose_pull_secrets_are_used(
    installed: "Installed", attack: Callable[[str, str, str], None]
) -> None:
    image = f"{installed.cluster.registry}/payments/model@sha256:{secrets.token_hex(32)}"
    theirs = Requester(namespace="chart-stolen", pullers=(Puller(namespace="payments", service_account="default", secrets=("pull",)),))
    with stolen(installed, "webhook") as webhook:
        with pytest.raises(ApiError, match="not the webhook's to say") as caught:
            webhook.create(EVIDENCE, evidence.pending(image, theirs))
        assert caught.value.code == 403
        asked = webhook.create(EVIDENCE, evidence.pending(image, Requester(namespace="chart-stolen")))
    installed.admin.delete(f"{EVIDENCE}/{asked['metadata']['name']}")
    attack(
        "the webhook's stolen token has a private image pulled with another team's Secrets, on an installation with the chart's defaults",
        "stored, and pulled with them",
        f"refused: {caught.value.message[-70:]}",
    )
