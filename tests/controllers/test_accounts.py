"""What a stolen token of one of mlwarden's accounts can change: the chart's policies in a real API server, whatever RBAC would allow."""

import json
import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mlwarden.controllers.release import pin_patch, release_patch
from mlwarden.embedded.api import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, ApiError
from mlwarden.evidence import pending
from mlwarden.evidence.pullers import Puller
from mlwarden.evidence.store import Requester
from mlwarden.model.finding import Decision, Verdict
from mlwarden.workloads import is_gated

from .conftest import account_policies, admission_path, pod, until  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from conftest import FailHeld

pytestmark = pytest.mark.cluster

DIGEST = "sha256:" + "a" * 64
GATE_OFF = {"schedulingGates": [{"name": "mlwarden.io/evidence", "$patch": "delete"}]}
SEAL = {"annotations": {"mlwarden.io/judged": "{}"}}
HELD = "mlwarden.io/Held"


def refused(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(ApiError) as caught:
        call()
    assert caught.value.code == 403, caught.value.message
    assert text in caught.value.message


@pytest.fixture(scope="module")
def guarded(held: "FailHeld") -> Iterator["FailHeld"]:
    """The chart's policies in force, with accounts that RBAC allows everything."""
    objects = account_policies(held.cluster, held.settings)
    for obj in objects:
        held.admin.apply(admission_path(obj), obj)
    space = held.namespace("")
    held.create(space, pod("probe"), user=held.admin)

    def in_force() -> bool:
        try:
            held.releaser.patch(f"/api/v1/namespaces/{space}/pods/probe", {"metadata": {"labels": {"a": "b"}}}, dryRun="All")
        except ApiError as error:
            return "mlwarden's accounts change pods that mlwarden holds" in error.message
        return False

    until(in_force)
    yield held
    for obj in reversed(objects):
        held.admin.delete(admission_path(obj))


@pytest.fixture
def space(guarded: "FailHeld") -> str:
    return guarded.namespace()


def path(space: str, name: str = "p") -> str:
    return f"/api/v1/namespaces/{space}/pods/{name}"


class TestTheReleaser:
    @pytest.mark.parametrize(
        ("image", "pinned"),
        [
            ("registry.example/app:1", f"registry.example/app:1@{DIGEST}"),
            ("registry.example/app", f"registry.example/app:latest@{DIGEST}"),
            ("python:3.12", f"docker.io/library/python:3.12@{DIGEST}"),
            ("bitnami/redis", f"docker.io/bitnami/redis:latest@{DIGEST}"),
            ("index.docker.io/library/python:3", f"docker.io/library/python:3@{DIGEST}"),
            ("localhost:5000/x:1", f"localhost:5000/x:1@{DIGEST}"),
        ],
    )
    def test_pins_and_releases(self, guarded: "FailHeld", space: str, image: str, pinned: str) -> None:
        stored = guarded.create(space, pod(image=image))
        patch = pin_patch(stored, Verdict(decision=Decision.ADMIT, findings=(), pins={"spec.containers[0].image": pinned}))
        stored = guarded.releaser.patch(path(space), patch, content_type=STRATEGIC_PATCH)
        assert stored["spec"]["containers"][0]["image"] == pinned
        assert is_gated(stored)
        stored = guarded.releaser.patch(path(space), release_patch(stored, seal="{}"), content_type=STRATEGIC_PATCH)
        assert not is_gated(stored)

    @pytest.mark.parametrize(
        "image",
        [
            f"registry.example/miner:1@{DIGEST}",
            f"evil.example/app:1@{DIGEST}",
            f"docker.io/registry.example/app:1@{DIGEST}",
            f"registry.example/app@{DIGEST}",
            f"registry.example/app:1@{DIGEST}@{DIGEST}",
            "registry.example/app:2",
            "miner",
        ],
    )
    def test_names_no_other_image(self, guarded: "FailHeld", space: str, image: str) -> None:
        guarded.create(space, pod())
        patch = [{"op": "replace", "path": "/spec/containers/0/image", "value": image}]
        refused(lambda: guarded.releaser.patch(path(space), patch, content_type=JSON_PATCH), "an image is pinned to a digest")

    def test_a_digest_that_a_person_wrote_stays(self, guarded: "FailHeld", space: str) -> None:
        guarded.create(space, pod(image=f"registry.example/app@{DIGEST}"))
        other = [{"op": "replace", "path": "/spec/containers/0/image", "value": f"registry.example/app@sha256:{'b' * 64}"}]
        refused(lambda: guarded.releaser.patch(path(space), other, content_type=JSON_PATCH), "an image is pinned to a digest")

    @pytest.mark.parametrize(
        ("patch", "text"),
        [
            ({"metadata": {"labels": {"app": "victim"}}}, "labels, owners and finalizers"),
            ({"metadata": {"finalizers": ["mlwarden.io/for-ever"]}}, "labels, owners and finalizers"),
            ({"metadata": {"annotations": {"a": "b"}}}, "is its seal, in the request that releases"),
            ({"metadata": SEAL}, "is its seal, in the request that releases"),
            ({"spec": {"activeDeadlineSeconds": 1}}, "and nothing else"),
            ({"spec": {"nodeSelector": {"kubernetes.io/hostname": "node-0"}}}, "and nothing else"),
            ({"metadata": {**SEAL, "labels": {"a": "b"}}, "spec": GATE_OFF}, "labels, owners and finalizers"),
            ({"metadata": SEAL, "spec": {**GATE_OFF, "activeDeadlineSeconds": 1}}, "and nothing else"),
            ({"metadata": SEAL, "spec": {"schedulingGates": None}}, "takes off mlwarden's gate and no other"),
        ],
    )
    def test_changes_nothing_else_of_a_held_pod(self, guarded: "FailHeld", space: str, patch: dict[str, Any], text: str) -> None:
        guarded.create(space, pod(schedulingGates=[{"name": "example.com/other"}]))
        refused(lambda: guarded.releaser.patch(path(space), patch, content_type=STRATEGIC_PATCH), text)
        released = guarded.releaser.patch(path(space), {"metadata": SEAL, "spec": GATE_OFF}, content_type=STRATEGIC_PATCH)
        assert released["spec"]["schedulingGates"] == [{"name": "example.com/other"}]

    def test_narrows_to_platforms_only_and_not_in_the_request_that_releases(self, guarded: "FailHeld", space: str) -> None:
        def kept(key: str, value: str) -> dict[str, Any]:
            terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}]
            return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}

        guarded.create(space, pod())
        there, platform = kept("kubernetes.io/hostname", "node-0"), kept("kubernetes.io/arch", "amd64")
        patch = guarded.releaser.patch
        refused(lambda: patch(path(space), {"spec": there}, content_type=STRATEGIC_PATCH), "keeps a held pod to platforms")
        both = {"metadata": SEAL, "spec": {**GATE_OFF, **platform}}
        refused(lambda: patch(path(space), both, content_type=STRATEGIC_PATCH), "a release changes nothing but")
        assert is_gated(patch(path(space), {"spec": platform}, content_type=STRATEGIC_PATCH))

    def test_tolerates_nothing_more_in_a_pods_name(self, guarded: "FailHeld", space: str) -> None:
        guarded.create(space, pod())
        patch = [{"op": "add", "path": "/spec/tolerations/-", "value": {"operator": "Exists"}}]
        refused(lambda: guarded.releaser.patch(path(space), patch, content_type=JSON_PATCH), "and nothing else")

    def test_touches_no_pod_that_is_not_held(self, guarded: "FailHeld") -> None:
        space = guarded.namespace("")  # where nothing is held no other guard is in the way
        guarded.create(space, pod())
        text = "mlwarden's accounts change pods that mlwarden holds"
        image = [{"op": "replace", "path": "/spec/containers/0/image", "value": f"registry.example/app:1@{DIGEST}"}]
        refused(lambda: guarded.releaser.patch(path(space), image, content_type=JSON_PATCH), text)
        refused(lambda: guarded.releaser.patch(f"{path(space)}/status", {"status": {"message": "x"}}, content_type=MERGE_PATCH), text)

    def test_says_that_a_pod_is_held_and_nothing_else_of_its_status(self, guarded: "FailHeld", space: str) -> None:
        guarded.create(space, pod())
        condition = {"type": HELD, "status": "True", "reason": "Held", "message": "waits"}
        write = lambda status, **more: guarded.releaser.patch(  # noqa: E731 -- one use
            f"{path(space)}/status", {"status": status, **more}, content_type=STRATEGIC_PATCH
        )
        assert write({"conditions": [condition]})["status"]["conditions"]
        refused(lambda: write({"conditions": [{"type": "Ready", "status": "True"}]}), "its own condition")
        refused(lambda: write({"phase": "Succeeded"}), "its own condition")
        refused(lambda: write({"conditions": [condition | {"status": "False"}]}, metadata={"labels": {"a": "b"}}), "labels, owners")
        guarded.release(space, "p")
        assert write({"conditions": [condition | {"status": "False"}]})

    @pytest.mark.parametrize("verb", ["create", "binding", "ephemeralcontainers", "eviction"])
    def test_makes_no_pod_and_brings_nothing_into_one(self, guarded: "FailHeld", verb: str) -> None:
        space = guarded.namespace("")
        guarded.create(space, pod())
        api, text = guarded.releaser, "of mlwarden's accounts the releaser alone changes pods"
        target = {"apiVersion": "v1", "kind": "Node", "name": "node-0"}
        calls: dict[str, Callable[[], Any]] = {
            "create": lambda: api.create(path(space).rpartition("/")[0], pod("q")),
            "binding": lambda: api.create(f"{path(space)}/binding", {"metadata": {"name": "p"}, "target": target}),
            "ephemeralcontainers": lambda: api.patch(
                f"{path(space)}/ephemeralcontainers",
                {"spec": {"ephemeralContainers": [{"name": "d", "image": f"x@{DIGEST}"}]}},
                content_type=STRATEGIC_PATCH,
            ),
            "eviction": lambda: api.create(
                f"{path(space)}/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
            ),
        }
        refused(calls[verb], text)


class TestTheOthers:
    @pytest.mark.parametrize("account", ["controller", "webhook", "scanner"])
    def test_change_no_pod(self, guarded: "FailHeld", account: str, attack: Callable[[str, str, str], None]) -> None:
        space = guarded.namespace("")
        guarded.create(space, pod(schedulingGates=[{"name": "mlwarden.io/evidence"}]))
        api = guarded.account(getattr(guarded.settings, account))
        text = "of mlwarden's accounts the releaser alone changes pods"
        image = [{"op": "replace", "path": "/spec/containers/0/image", "value": f"registry.example/app:1@{DIGEST}"}]
        refused(lambda: api.patch(path(space), image, content_type=JSON_PATCH), text)
        refused(lambda: api.patch(path(space), {"metadata": SEAL, "spec": GATE_OFF}, content_type=STRATEGIC_PATCH), text)
        refused(lambda: api.patch(f"{path(space)}/status", {"status": {"phase": "Failed"}}), text)
        refused(lambda: api.delete(path(space)), text)
        refused(lambda: api.create(path(space).rpartition("/")[0], pod("q")), text)
        attack(
            "the controller's stolen token exchanges the image of a running pod",
            "it ran: one account released pods and wrote what is generated",
            "refused by a policy of the chart; the releaser alone changes pods, held ones, to a digest of their own repository",
        )

    def test_the_controller_tries_the_gate_and_evicts(self, guarded: "FailHeld", space: str) -> None:
        guarded.controller.create(path(space).rpartition("/")[0], pod("q"), dryRun="All")
        guarded.create(space, pod())
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
        guarded.controller.create(f"{path(space)}/eviction", eviction, dryRun="All")


class TestWebhookConfigurations:
    @pytest.mark.parametrize(
        "client",
        [
            {"service": {"name": "thief", "namespace": "theirs"}},
            {"service": {"name": "mlwarden-webhook", "namespace": "theirs"}},
            {"url": "https://thief.example/"},
        ],
    )
    @pytest.mark.parametrize("plural", ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"])
    def test_send_nothing_to_anybody_else(
        self, guarded: "FailHeld", plural: str, client: dict[str, Any], attack: Callable[[str, str, str], None]
    ) -> None:
        base = f"/apis/admissionregistration.k8s.io/v1/{plural}"
        ours = {"service": {"name": "mlwarden-webhook", "namespace": guarded.settings.namespace}}

        def body(name: str, where: dict[str, Any]) -> dict[str, Any]:
            hook = {"name": "w.mlwarden.io", "clientConfig": where, "sideEffects": "None", "admissionReviewVersions": ["v1"]}
            return {"metadata": {"name": name}, "webhooks": [hook]}

        create = guarded.controller.create
        refused(lambda: create(base, body("mlwarden", client), dryRun="All"), "to mlwarden's webhook and to nobody else")
        refused(lambda: create(base, body("other", ours), dryRun="All"), "and only mlwarden's")
        create(base, body("mlwarden", ours), dryRun="All")
        theirs = guarded.account(guarded.settings.webhook)
        refused(lambda: theirs.create(base, body("mlwarden", ours), dryRun="All"), "the controller alone writes webhook configurations")
        attack(
            "the controller's stolen token points mlwarden's webhooks at a thief's server",
            "accepted: every object of the cluster passed by there",
            "refused by a policy of the chart, which no account of mlwarden may change",
        )


class TestEvidence:
    def test_has_no_finalizers_owners_or_marks_of_anybody(
        self, guarded: "FailHeld", evidence: str, attack: Callable[[str, str, str], None]
    ) -> None:
        digest = f"sha256:{secrets.token_hex(32)}"
        body = pending(f"registry.example/app@{digest}")
        name, text = body["metadata"]["name"], "evidence has no finalizers"
        owner = {"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": "1"}
        foreign: tuple[dict[str, Any], ...] = (
            {"finalizers": ["thief.example/x"]},
            {"ownerReferences": [owner]},
            {"annotations": {"a": "b"}},
        )
        webhook, scanner = guarded.account(guarded.settings.webhook), guarded.account(guarded.settings.scanner)
        for more in (*foreign, {"labels": {"app.kubernetes.io/managed-by": "thief"}}):
            refused(lambda more=more: webhook.create(evidence, {**body, "metadata": {**body["metadata"], **more}}), text)
        webhook.create(evidence, body)
        for more in foreign:
            for api in (webhook, guarded.controller, guarded.releaser, scanner):
                refused(lambda more=more, api=api: api.patch(f"{evidence}/{name}", {"metadata": more}), text)
            answered = scanner.patch(f"{evidence}/{name}/status", {"metadata": more, "status": {"reason": "tried"}})
            assert not set(more) & set(answered["metadata"])
        more = [*body["spec"]["references"], f"mirror.example/app@{digest}"]
        webhook.patch(f"{evidence}/{name}", {"spec": {"references": more}})
        for api in (webhook, scanner):
            refused(lambda api=api: api.delete(f"{evidence}/{name}"), "the controller alone what is known")
        guarded.controller.delete(f"{evidence}/{name}")
        attack("the webhook's stolen token puts finalizers and owners on evidence", "stored", "refused by a policy of the chart")

    def test_names_no_pull_secrets_by_the_word_of_the_webhook(
        self, guarded: "FailHeld", evidence: str, attack: Callable[[str, str, str], None]
    ) -> None:
        text = "whose pull Secrets an image is pulled with is not the webhook's to say"
        digest = f"sha256:{secrets.token_hex(32)}"
        theirs = Puller(namespace="payments", service_account="default", secrets=("registry",))
        webhook = guarded.account(guarded.settings.webhook)
        foreign = Requester(namespace="team", pullers=(theirs,))
        refused(lambda: webhook.create(evidence, pending(f"registry.example/payments@{digest}", foreign)), text)
        stored = webhook.create(evidence, pending(f"registry.example/payments@{digest}", Requester(namespace="team")))
        name = stored["metadata"]["name"]
        added = {"spec": {"pullers": json.loads(msgspec.json.encode([theirs]))}}
        refused(lambda: webhook.patch(f"{evidence}/{name}", added), text)
        for api in (guarded.releaser, guarded.controller):
            assert api.patch(f"{evidence}/{name}", added)["spec"]["pullers"] == added["spec"]["pullers"]
            refused(lambda: webhook.patch(f"{evidence}/{name}", {"spec": {"pullers": None}}), text)
            again = webhook.patch(f"{evidence}/{name}", {"spec": {"requestedAt": "2026-11-30T00:00:00.000000Z"}})
            assert again["spec"]["pullers"] == added["spec"]["pullers"]
            guarded.controller.patch(f"{evidence}/{name}", {"spec": {"pullers": None}})
        attack(
            "the webhook's stolen token names another team's pull Secrets in evidence about a private image",
            "stored: the image was pulled with them, and what was found could be read",
            "refused by a policy of the chart: the releaser and the controller say it, of pods and templates as they are stored",
        )


class TestEvents:
    def event(self, space: str, component: str) -> dict[str, Any]:
        about = {"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": space, "uid": "1"}
        said = {"reason": "Held", "message": "waits", "type": "Normal", "source": {"component": component}, "reportingComponent": component}
        return {"metadata": {"name": f"p.{secrets.token_hex(4)}"}, "involvedObject": about, **said, "count": 1}

    @pytest.mark.parametrize("account", ["controller", "releaser", "webhook"])
    def test_are_written_in_nobody_elses_name(self, guarded: "FailHeld", space: str, account: str) -> None:
        name = getattr(guarded.settings, account)
        api, events = guarded.account(name), f"/api/v1/namespaces/{space}/events"
        made = self.event(space, name)
        api.create(events, made)
        refused(lambda: api.create(events, self.event(space, "kubelet")), "in their own name")
        api.patch(f"{events}/{made['metadata']['name']}", {"count": 2, "lastTimestamp": "2026-11-30T00:00:00Z"})
        refused(lambda: api.patch(f"{events}/{made['metadata']['name']}", {"message": "all is well"}), "says the same")
        theirs = self.event(space, "kubelet")
        guarded.admin.create(events, theirs)
        refused(lambda: api.patch(f"{events}/{theirs['metadata']['name']}", {"count": 9}), "in their own name")
        refused(lambda: api.delete(f"{events}/{theirs['metadata']['name']}"), "in their own name")


class TestTheApiServer:
    def test_finds_no_fault_with_the_expressions(self, guarded: "FailHeld") -> None:
        names = [obj["metadata"]["name"] for obj in account_policies(guarded.cluster, guarded.settings) if "validations" in obj["spec"]]
        base = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"

        def checked() -> dict[str, Any]:
            found = {name: guarded.admin.get(f"{base}/{name}").get("status", {}).get("typeChecking") for name in names}
            return found if all(each is not None for each in found.values()) else {}

        assert until(checked) == {name: {} for name in names}
