"""What comes of a review that anybody could have sent: its own answer and nothing else."""

import copy
import json
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mlwarden import evidence
from mlwarden.admission import handle
from mlwarden.admission.app import App
from mlwarden.admission.sender import ANYBODY, API_SERVER, PER_MINUTE, Scarce, Sender
from mlwarden.cluster import Snapshot
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import ImageFacts, Phase, Scan, Vulnerability

from .conftest import NOW, review  # type: ignore[import-not-found]
from .serving import EVIDENCE, Installed, Serving, good_pod, until  # type: ignore[import-not-found]
from .test_app import call  # type: ignore[import-not-found]
from .test_serve import anew  # type: ignore[import-not-found]

Ask = Callable[..., Any]
D = Digest("sha256:" + "a" * 64)
IMAGE = f"registry.example.com/team/app@{D}"
GENERIC = "was judged and refused; ask for mlwarden-evidence-reader"
ONLY_APPS = Sender(groups=frozenset({"apps"}))


@pytest.fixture
def bad(snapshot: Snapshot) -> Snapshot:
    """A snapshot in which an image is known to be bad, that was pulled for pods of `production`."""
    hole = Vulnerability(id="CVE-2025-32434", severity="CRITICAL", package="torch", installed="2.5.1", fixed="2.6.0")
    scan = Scan(
        scanner="trivy", scanned_at=NOW, database_at=NOW, scanners=("vuln",), packages=9, counts={"CRITICAL": 1}, vulnerabilities=(hole,)
    )
    facts = ImageFacts(digest=D, phase=Phase.READY, scan=scan, pulled_for=frozenset({"production"}))
    return msgspec.structs.replace(snapshot, images={D: facts})


def said(snapshot: Snapshot, body: dict[str, Any], sender: Sender, namespace: str, **changes: Any) -> tuple[bool, str]:
    answer = handle(json.dumps(review(body, namespace=namespace, **changes)).encode(), "/mutate", snapshot, NOW, sender)
    response = json.loads(answer.body)["response"]
    return response["allowed"], response.get("status", {}).get("message", "") + str(response.get("auditAnnotations"))


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    ("sender", "namespace", "in_full"),
    [
        (API_SERVER, "production", True),
        (API_SERVER, "experiment", False),
        (ANYBODY, "production", False),
        (ANYBODY, "experiment", False),
        (ONLY_APPS, "production", False),
    ],
)
def test_a_finding_is_told_in_full_where_the_image_was_pulled_and_to_the_api_server_alone(
    bad: Snapshot, good: dict[str, Any], sender: Sender, namespace: str, *, dry: bool, in_full: bool
) -> None:
    good["spec"]["containers"][0]["image"] = IMAGE
    allowed, text = said(bad, good, sender, namespace, dryRun=dry)
    assert not allowed
    assert "refused by image-scanned" in text
    assert ("CVE-2025-32434" in text and "torch" in text) is in_full
    assert (GENERIC in text) is not in_full


@pytest.mark.parametrize("public", [False, True])
@pytest.mark.parametrize(("sender", "namespace"), [(ANYBODY, "production"), (API_SERVER, "experiment")])
def test_what_is_in_an_image_that_anybody_could_pull_is_told_to_anybody(
    bad: Snapshot, good: dict[str, Any], sender: Sender, namespace: str, *, public: bool
) -> None:
    known = bad.images[D]
    assert known.scan is not None
    scan = msgspec.structs.replace(known.scan, anonymous=public)
    snapshot = msgspec.structs.replace(bad, images={D: msgspec.structs.replace(known, scan=scan)})
    good["spec"]["containers"][0]["image"] = IMAGE
    allowed, text = said(snapshot, good, sender, namespace)
    assert not allowed
    assert ("CVE-2025-32434" in text) is public
    assert (GENERIC in text) is not public


def test_what_is_not_known_of_a_failed_scan_is_not_told_either_and_that_nothing_is_known_is(
    snapshot: Snapshot, good: dict[str, Any]
) -> None:
    good["spec"]["containers"][0]["image"] = IMAGE
    failed = ImageFacts(digest=D, phase=Phase.FAILED, reason="the Secret team-pull of payments was refused")
    known = msgspec.structs.replace(snapshot, images={D: failed})
    answer = handle(json.dumps(review(good)).encode(), "/mutate", known, NOW, ANYBODY)
    assert b"team-pull" not in answer.body
    assert b"not known to be good; ask for mlwarden-evidence-reader" in answer.body
    answer = handle(json.dumps(review(good)).encode(), "/mutate", snapshot, NOW, ANYBODY)
    assert b"has not been scanned yet" in answer.body


def test_what_is_refused_for_want_of_evidence_is_asked_about_and_what_is_stored_by_who_sees_it_stored(
    ask: Ask, good: dict[str, Any]
) -> None:
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {"spec": good["spec"]}}}
    apps = {"resource": "deployments", "group": "apps"}
    node = {**good, "spec": {**good["spec"], "nodeName": "node-0"}}
    for body, changes, stored in ((good, {}, True), (deployment, apps, True), (node, {}, False)):
        for sender in (API_SERVER, ANYBODY):
            answer, _ = ask(body, sender=sender, **changes)
            assert bool(answer.wanted) is not stored
            assert answer.is_scarce is (not stored and sender is ANYBODY)
            assert answer.requester.pullers == ()  # whose credentials are used is nothing that a review may say
    assert not ask(node, sender=ANYBODY, dryRun=True)[0].wanted
    assert not ask(node, sender=ANYBODY, namespace="nobody-has-this")[0].wanted


def test_nobody_but_the_api_server_has_an_event_written_in_a_persons_name(ask: Ask, good: dict[str, Any]) -> None:
    good["metadata"]["uid"] = "u-1"
    new = copy.deepcopy(good)
    new["spec"]["ephemeralContainers"] = [{"name": "x", "image": "busybox", "securityContext": {"privileged": True}}]
    change = {"path": "/validate", "operation": "UPDATE", "subResource": "ephemeralcontainers", "oldObject": good}
    assert ask(new, **change)[0].told is not None
    answer, response = ask(new, sender=ANYBODY, **change)
    assert answer.told is None
    assert response["auditAnnotations"]["debug-person"] == "alice"  # goes to the API server's log, or nowhere


def test_ten_references_of_a_namespace_are_asked_about_in_a_minute() -> None:
    scarce = Scarce()
    many = tuple(f"r.example/a:{number}" for number in range(30))
    assert scarce.let("a", many[:6], 0.0) == many[:6]
    assert scarce.let("a", many, 1.0) == many[:PER_MINUTE]
    assert scarce.let("a", many[20:], 59.0) == ()
    assert scarce.let("a", many[3:4], 59.0) == many[3:4]  # the same one again
    assert scarce.let("b", many, 59.0) == many[:PER_MINUTE]
    assert scarce.let("a", many[20:], 61.0) == many[20:]


async def test_a_thousand_forged_reviews_are_ten_requests(snapshot: Snapshot, good: dict[str, Any]) -> None:
    asked: list[str] = []
    app = App(snapshot=lambda: snapshot, want=lambda wanted, _: asked.extend(wanted))
    good["spec"]["nodeName"] = "node-0"
    for number in range(1000):
        good["spec"]["containers"][0]["image"] = f"r.example/forged:{number}"
        await call(app, "/mutate", json.dumps(review(good)).encode())
    assert len(asked) == PER_MINUTE


@pytest.mark.cluster
class TestForged:
    """Sent by hand to a webhook without `--client-ca`, as the chart has it by default."""

    def test_reviews_leave_no_event_and_ten_requests_for_evidence(
        self, installed: Installed, serving: Serving, attack: Callable[[str, str, str], None]
    ) -> None:
        serving.serve()
        mark = secrets.token_hex(4)
        victim = installed.create(good_pod(f"victim-{mark}"))
        events = f"/api/v1/namespaces/{installed.space}/events"

        def post(body: dict[str, Any], path: str = "/mutate", **changes: Any) -> dict[str, Any]:
            sent = json.dumps(review(body, namespace=installed.space, **changes)).encode()
            return dict(json.loads(anew(serving, "POST", path, sent).content)["response"])

        for number in range(60):
            post(good_pod("p", f"registry.example/forged-{mark}-{number}:1"))
            post(good_pod("p", f"registry.example/forged-{mark}-{number}:1", nodeName="node-0"), "/validate")
        old = {**victim, "apiVersion": "v1", "kind": "Pod"}
        new = copy.deepcopy(old)
        new["spec"]["ephemeralContainers"] = [{"name": "x", "image": "busybox", "securityContext": {"privileged": True}}]
        change = {"operation": "UPDATE", "subResource": "ephemeralcontainers", "oldObject": old, "name": victim["metadata"]["name"]}
        answer = post(new, "/validate", **change)
        assert answer["allowed"] is False

        def made() -> list[str]:
            listed = installed.admin.get(EVIDENCE)["items"]
            return [each["spec"]["references"][0] for each in listed if f"forged-{mark}" in each["spec"]["references"][0]]

        until(lambda: len(made()) >= PER_MINUTE)
        assert serving.metric("mlwarden_admission_requests_total") >= 121
        assert len(made()) == PER_MINUTE
        told = installed.admin.get(events, fieldSelector=f"involvedObject.name={victim['metadata']['name']},reason=DebugContainer")
        assert told["items"] == []
        attack(
            "forged reviews: 120 of pods and one of a debug container in alice's name",
            "120 evidence objects, and an Event that says alice did it",
            f"{len(made())} evidence objects, no Event",
        )


def test_evidence_says_for_whose_pods_an_image_was_pulled() -> None:
    pullers = [{"namespace": "a", "serviceAccount": "default"}, {"namespace": "b", "serviceAccount": "default"}]
    for name, about in ((f"sha256-{'a' * 64}", "images"), (f"signatures-{'a' * 64}", "proofs")):
        obj = {"metadata": {"name": name}, "spec": {"references": [IMAGE], "pullers": pullers}, "status": {}}
        known = evidence.to_facts({"apiVersion": "mlwarden.io/v1alpha1", "kind": "ImageEvidence", **obj})[1]
        assert known.pulled_for == {"a", "b"}, about  # type: ignore[union-attr]
