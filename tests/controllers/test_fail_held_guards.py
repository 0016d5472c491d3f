"""What the gate hangs on is guarded: a namespace's profile, mlwarden's identity, evidence and webhooks, and what enters a pod later."""

import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.controllers.gate import gate_objects
from mlwarden.embedded.api import JSON_PATCH, Api, ApiError
from mlwarden.model.policy import PROFILE_LABEL, Settings

if TYPE_CHECKING:
    from conftest import FailHeld

pytestmark = pytest.mark.cluster

DIGEST = "registry.example/debug:1@sha256:" + "a" * 64


def refused(call: Callable[[], Any], *texts: str, code: int = 403) -> None:
    with pytest.raises(ApiError) as caught:
        call()
    assert caught.value.code == code, caught.value.message
    for text in texts:
        assert text in caught.value.message


def a_pod(name: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "main", "image": "registry.example/app:1"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, **spec}}


@pytest.fixture(scope="module")
def lead(held: "FailHeld") -> Iterator[Api]:
    """Somebody who may write namespaces, with all their subresources, and nothing of mlwarden's."""
    name = f"namespaces-{held.settings.namespace}"
    roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    resources = ["namespaces", "namespaces/status", "namespaces/finalize"]
    rules = [{"apiGroups": [""], "resources": resources, "verbs": ["*"]}]
    rules += [
        {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["validatingwebhookconfigurations"], "verbs": ["*"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["*"]},
    ]
    held.admin.create(roles, {"metadata": {"name": name}, "rules": rules})
    held.cluster.grant("lead", name)
    held.await_right("lead", verb="update", resource="namespaces")
    yield held.cluster.api("lead")
    held.admin.delete(f"{roles}/{name}")
    held.admin.delete(f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/lead-{name}")


class TestTheProfileOfANamespace:
    @pytest.mark.parametrize("through", ["", "/status", "/finalize"])
    @pytest.mark.parametrize("label", [None, "baseline", "production", ""])
    def test_is_changed_by_those_with_the_verb_only(self, held: "FailHeld", lead: Api, through: str, label: str | None) -> None:
        namespace = held.namespace("experiment")
        path = f"/api/v1/namespaces/{namespace}"
        body = held.admin.get(path)
        body["metadata"]["labels"].pop(PROFILE_LABEL)
        if label is not None:
            body["metadata"]["labels"][PROFILE_LABEL] = label
        text = "is one of baseline, experiment, production" if label == "" else "needs the verb change"
        refused(lambda: lead.request("PUT", f"{path}{through}", body), text)
        assert held.admin.get(path)["metadata"]["labels"][PROFILE_LABEL] == "experiment"

    def test_is_not_changed_by_a_patch_either(self, held: "FailHeld", lead: Api) -> None:
        path = f"/api/v1/namespaces/{held.namespace('experiment')}"
        refused(lambda: lead.patch(path, {"metadata": {"labels": None}}), "needs the verb change")
        refused(lambda: lead.patch(path, {"metadata": {"labels": {PROFILE_LABEL: None}}}), "needs the verb change")

    def test_changes_for_an_administrator(self, held: "FailHeld") -> None:
        path = f"/api/v1/namespaces/{held.namespace('experiment')}"
        for profile in ("production", "baseline", None):
            held.admin.patch(path, {"metadata": {"labels": {PROFILE_LABEL: profile}}})

    def test_goes_from_none_to_one_that_holds_for_everybody(self, held: "FailHeld", lead: Api) -> None:
        path = f"/api/v1/namespaces/{held.namespace('')}"
        assert lead.patch(path, {"metadata": {"labels": {PROFILE_LABEL: "production"}}})

    def test_is_one_that_exists(self, held: "FailHeld") -> None:
        path = f"/api/v1/namespaces/{held.namespace('')}"
        refused(lambda: held.admin.patch(path, {"metadata": {"labels": {PROFILE_LABEL: "produktion"}}}), "is one of baseline, experiment")

    def test_is_nobodys_business_when_something_else_changes(self, held: "FailHeld", lead: Api) -> None:
        path = f"/api/v1/namespaces/{held.namespace('experiment')}"
        assert lead.patch(path, {"metadata": {"labels": {"team": "ml"}, "annotations": {"a": "b"}}})

    def test_is_free_at_birth_as_far_as_it_is_not_weaker_than_the_default(self, lead: Api) -> None:
        for profile in ("", "baseline", "experiment"):
            labels = {PROFILE_LABEL: profile} if profile else {}
            lead.create("/api/v1/namespaces", {"metadata": {"name": f"born-{secrets.token_hex(3)}", "labels": labels}}, dryRun="All")

    def test_an_exempt_name_is_not_for_everybody(self, held: "FailHeld", lead: Api) -> None:
        """An exempt namespace that does not exist yet would be a way out."""
        body = {"metadata": {"name": "exempt-later"}}
        assert "exempt-later" in held.settings.never_governed
        refused(lambda: lead.create("/api/v1/namespaces", body, dryRun="All"), "needs the verb change")
        body["metadata"]["labels"] = {PROFILE_LABEL: "production"}  # type: ignore[assignment]
        refused(lambda: lead.create("/api/v1/namespaces", body, dryRun="All"), "needs the verb change")
        held.admin.create("/api/v1/namespaces", body, dryRun="All")


class TestMlwardensIdentity:
    @pytest.fixture
    def own(self, held: "FailHeld") -> str:
        """mlwarden's namespace, of which gitops is admin."""
        own = held.settings.namespace
        held.cluster.grant("gitops", "admin", own)
        held.await_right("gitops", verb="create", resource="secrets", namespace=own)
        return own

    @pytest.mark.parametrize("user", ["gitops", "admin"])
    def test_no_tokens_but_the_kubelets(self, held: "FailHeld", own: str, user: str) -> None:
        path = f"/api/v1/namespaces/{own}/serviceaccounts/{held.settings.controller}/token"
        refused(lambda: held.cluster.api(user).create(path, {"spec": {}}), "come from the kubelet only")

    def test_no_token_secrets(self, held: "FailHeld", own: str) -> None:
        annotations = {"kubernetes.io/service-account.name": held.settings.controller}
        body = {"metadata": {"name": "loot", "annotations": annotations}, "type": "kubernetes.io/service-account-token"}
        for user in ("gitops", "admin"):
            refused(
                lambda user=user: held.cluster.api(user).create(f"/api/v1/namespaces/{own}/secrets", body),
                "no service account token Secrets",
            )

    def test_no_thief_pods_nor_anything_that_makes_one(self, held: "FailHeld", own: str) -> None:
        thief = held.cluster.api("gitops")
        body = a_pod("thief", serviceAccountName=held.settings.controller)
        refused(lambda: thief.create(f"/api/v1/namespaces/{own}/pods", body), "is for those with the verb change")
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {**body["spec"], "restartPolicy": "Always"}}
        selected = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        job = {"template": {"spec": {**body["spec"], "restartPolicy": "Never"}}}
        for path, spec in (
            ("apis/apps/v1/namespaces/{}/deployments", selected),
            ("apis/apps/v1/namespaces/{}/replicasets", selected),
            ("apis/apps/v1/namespaces/{}/daemonsets", selected),
            ("apis/apps/v1/namespaces/{}/statefulsets", {**selected, "serviceName": "s"}),
            ("api/v1/namespaces/{}/replicationcontrollers", {"selector": {"a": "b"}, "template": template}),
            ("apis/batch/v1/namespaces/{}/jobs", job),
            ("apis/batch/v1/namespaces/{}/cronjobs", {"schedule": "* * * * *", "jobTemplate": {"spec": job}}),
        ):
            refused(
                lambda path=path, spec=spec: thief.create("/" + path.format(own), {"metadata": {"name": "thief"}, "spec": spec}),
                "is for those with the verb change",
            )

    def test_nobody_enters_its_pods(self, held: "FailHeld", own: str) -> None:
        for subresource in ("exec", "attach"):
            path = f"/api/v1/namespaces/{own}/pods/{held.settings.controller}-0/{subresource}"
            refused(
                lambda path=path: held.cluster.api("gitops").request("POST", path, query={"container": "main", "command": "sh"}),
                "is for those with the verb change",
            )

    def test_its_settings_certificates_and_endpoints_are_its_own(self, held: "FailHeld", own: str, lead: Api) -> None:
        thief = held.cluster.api("gitops")
        core = f"/api/v1/namespaces/{own}"
        for path, body in (
            (f"{core}/configmaps", {"metadata": {"name": "mlwarden-settings"}, "data": {}}),
            (f"{core}/secrets", {"metadata": {"name": "mlwarden-webhook-ca"}}),
            (f"{core}/services", {"metadata": {"name": "mlwarden-webhook"}, "spec": {"ports": [{"port": 443}]}}),
            (f"/apis/coordination.k8s.io/v1/namespaces/{own}/leases", {"metadata": {"name": "mlwarden-controller"}, "spec": {}}),
        ):
            refused(lambda path=path, body=body: thief.create(path, body), "is for those with the verb change")
        labels = {"kubernetes.io/service-name": "mlwarden-webhook"}
        body = {"metadata": {"name": "x", "labels": labels}, "addressType": "IPv4", "endpoints": [], "ports": []}
        refused(
            lambda: lead.create(f"/apis/discovery.k8s.io/v1/namespaces/{own}/endpointslices", body), "is for those with the verb change"
        )

    @pytest.mark.parametrize(
        ("name", "more"),
        [
            ("sh.helm.release.v1.mlwarden.v1", {"type": "helm.sh/release.v1"}),
            ("sh.helm.release.v1.mlwarden.v1", {}),
            ("another-name", {"type": "helm.sh/release.v1"}),
            ("release-key", {}),
        ],
    )
    def test_what_helm_and_the_administrator_put_there_is_not_for_editors(
        self, held: "FailHeld", own: str, name: str, more: dict[str, Any], attack: Callable[[str, str, str], None]
    ) -> None:
        thief, secrets_ = held.cluster.api("gitops"), f"/api/v1/namespaces/{own}/secrets"
        body = {"metadata": {"name": name}, **more}
        refused(lambda: thief.create(secrets_, body), "is for those with the verb change")
        held.admin.create(secrets_, body)
        refused(lambda: thief.patch(f"{secrets_}/{name}", {"data": {"release": "AAAA"}}), "is for those with the verb change")
        refused(lambda: thief.delete(f"{secrets_}/{name}"), "is for those with the verb change")
        held.admin.patch(f"{secrets_}/{name}", {"data": {"release": "AAAA"}})
        held.admin.delete(f"{secrets_}/{name}")
        attack(
            "who may edit mlwarden's namespace writes into Helm's release Secret",
            "stored: an administrator's helm rollback created what was written there",
            "refused; the same for public keys that policies name, and pull Secrets",
        )

    def test_editors_stop_none_of_its_processes_and_open_no_door_to_them(self, held: "FailHeld", own: str) -> None:
        editor = held.cluster.api("gitops")
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {**a_pod("x")["spec"], "nodeSelector": {"no": "where"}}}
        spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template}
        path = f"/apis/apps/v1/namespaces/{own}/deployments"
        held.admin.create(path, {"metadata": {"name": "mlwarden-webhook"}, "spec": spec})
        refused(lambda: editor.patch(f"{path}/mlwarden-webhook/scale", {"spec": {"replicas": 1}}), "is for those with the verb change")
        refused(lambda: editor.delete(f"{path}/mlwarden-webhook"), "is for those with the verb change")
        held.admin.delete(f"{path}/mlwarden-webhook")
        network = f"/apis/networking.k8s.io/v1/namespaces/{own}/networkpolicies"
        for name in ("mlwarden-scanner", "theirs"):
            held.admin.create(network, {"metadata": {"name": name}, "spec": {"podSelector": {}}})
        refused(lambda: editor.delete(f"{network}/mlwarden-scanner"), "is for those with the verb change")
        editor.delete(f"{network}/theirs")
        held.admin.delete(f"{network}/mlwarden-scanner")

    def test_other_things_there_are_nobodys_business(self, held: "FailHeld", own: str) -> None:
        gitops = held.cluster.api("gitops")
        core = f"/api/v1/namespaces/{own}"
        gitops.create(f"{core}/configmaps", {"metadata": {"name": "istio-ca-root-cert"}}, dryRun="All")
        gitops.create(f"{core}/secrets", {"metadata": {"name": "pull-secret"}}, dryRun="All")
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": f"{held.settings.controller}-0"}}
        gitops.create(f"{core}/pods/{held.settings.controller}-0/eviction", eviction, dryRun="All")

    def test_an_installer_and_kubernetes_do_their_work(self, held: "FailHeld", own: str) -> None:
        """Who may change profiles installs; the ReplicaSet controller makes the pods."""
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {**a_pod("x")["spec"], "nodeSelector": {"no": "where"}}}
        spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
        path = f"/apis/apps/v1/namespaces/{own}/deployments"
        held.admin.create(path, {"metadata": {"name": "installed"}, "spec": spec})
        held.until(lambda: [pod for pod in held.pods(own) if pod["metadata"]["name"].startswith("installed-")])
        held.admin.delete(f"{path}/installed", propagationPolicy="Foreground")

    def test_the_controller_itself_makes_no_pods_but_the_probe_that_is_never_stored(self, held: "FailHeld", own: str) -> None:
        path = f"/api/v1/namespaces/{own}/pods"
        # In these tests its RBAC allows everything, the verb `change` too; the scanner has the same, so ask as somebody who has not.
        held.controller.create(path, a_pod("probe"), dryRun="All")


class TestWhatEntersAPodLater:
    @pytest.fixture(scope="class")
    @classmethod
    def pods(cls, held: "FailHeld") -> dict[str, str]:
        """Paths of a held and of a running pod."""
        namespace = held.namespace()
        for name in ("held", "running"):
            held.create(namespace, a_pod(name))
        held.release(namespace, "running")
        return {name: f"/api/v1/namespaces/{namespace}/pods/{name}" for name in ("held", "running")}

    @pytest.mark.parametrize(
        ("state", "image", "text"),
        [
            ("held", DIGEST, "a held pod takes no ephemeral containers"),
            ("held", "registry.example/debug:1", "a held pod takes no ephemeral containers"),
            ("running", "registry.example/debug:1", "names its image by digest"),
            ("running", "registry.example/debug@sha256:abc", "names its image by digest"),
        ],
    )
    def test_an_ephemeral_container_that_cannot_be_judged_is_refused(
        self, held: "FailHeld", pods: dict[str, str], state: str, image: str, text: str
    ) -> None:
        container = {"name": f"debug-{secrets.token_hex(2)}", "image": image}
        patch = {"spec": {"ephemeralContainers": [container]}}
        path = f"{pods[state]}/ephemeralcontainers"
        refused(lambda: held.admin.patch(path, patch, content_type="application/strategic-merge-patch+json"), text)

    def test_one_with_a_digest_is_left_to_the_webhook(self, held: "FailHeld", pods: dict[str, str]) -> None:
        patch = {"spec": {"ephemeralContainers": [{"name": "debug", "image": DIGEST}]}}
        path = f"{pods['running']}/ephemeralcontainers"
        added = held.admin.patch(path, patch, content_type="application/strategic-merge-patch+json")
        assert added["spec"]["ephemeralContainers"][0]["image"] == DIGEST

    def test_subresources_that_bring_in_no_code_work(self, held: "FailHeld", pods: dict[str, str]) -> None:
        held.admin.patch(f"{pods['held']}/status", {"status": {"message": "hello"}})
        resize = [{"op": "add", "path": "/spec/containers/0/resources", "value": {"requests": {"cpu": "1m"}}}]
        call = lambda: held.admin.patch(f"{pods['running']}/resize", resize, content_type=JSON_PATCH)  # noqa: E731 -- one use
        refused(call, "without support for resize", code=422)  # by the fake node

    def test_exec_is_out_of_reach_of_the_gate(self, held: "FailHeld", pods: dict[str, str]) -> None:
        """Known limit: who may exec where is a policy of its own. What answers here is the missing kubelet, not mlwarden."""
        with pytest.raises(ApiError) as caught:
            held.admin.request("POST", f"{pods['running']}/exec", query={"command": "sh"})
        assert "mlwarden" not in caught.value.message


class TestPodsThatNameTheirNode:
    def test_are_left_to_the_fail_closed_webhook(self, held: "FailHeld") -> None:
        created = held.create(
            held.namespace(), a_pod("placed", containers=[{"name": "main", "image": f"a:1@sha256:{'c' * 64}"}], nodeName="node-0")
        )
        assert "schedulingGates" not in created["spec"]

    def test_name_their_images_by_digest_because_nobody_judges_them_again(self, held: "FailHeld") -> None:
        refused(lambda: held.create(held.namespace(), a_pod("placed", nodeName="node-0")), "names its images by digest")

    def test_an_empty_name_is_no_name(self, held: "FailHeld") -> None:
        created = held.create(held.namespace(), a_pod("placed", nodeName=""))
        assert created["spec"]["schedulingGates"]

    def test_a_mirror_annotation_is_no_way_past(self, held: "FailHeld") -> None:
        body = a_pod("mirror")
        body["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
        refused(lambda: held.create(held.namespace(), body), "mirror", code=422)


class TestEvidence:
    def test_is_written_by_mlwarden_alone(self, held: "FailHeld", evidence: str) -> None:
        from mlwarden.evidence import pending

        body = pending(f"registry.example/app@sha256:{'b' * 64}")
        name = body["metadata"]["name"]
        refused(lambda: held.admin.create(evidence, body), "only mlwarden writes evidence")
        held.account(held.settings.webhook).create(evidence, body)
        forged = {"status": {"phase": "Failed", "reason": "forged"}}
        for user in (held.admin, held.account(held.settings.webhook), held.controller):
            refused(lambda user=user: user.patch(f"{evidence}/{name}/status", forged), "only mlwarden writes evidence")
        scanner, by = held.account(held.settings.scanner), f"{held.settings.scanner}-0"
        answer = {"status": {**forged["status"], "answeredBy": by}}
        assert scanner.patch(f"{evidence}/{name}/status", answer)["status"]["phase"] == "Failed"
        more = [*body["spec"]["references"], f"evil.example/x@sha256:{'b' * 64}"]
        refused(lambda: held.admin.patch(f"{evidence}/{name}", {"spec": {"references": more}}), "only mlwarden writes evidence")
        held.admin.patch(f"{evidence}/{name}", {"metadata": {"annotations": {"seen": "yes"}}})
        held.admin.delete(f"{evidence}/{name}")

    def test_that_answers_is_not_taken_away_by_who_makes_room_for_requests(self, held: "FailHeld", evidence: str) -> None:
        from mlwarden.evidence import pending

        body = pending("registry.example/room:1")
        name, by = body["metadata"]["name"], f"{held.settings.scanner}-0"
        releaser = held.account(held.settings.releaser)
        releaser.create(evidence, body)
        ready = {"phase": "Ready", "at": "2026-11-30T12:00:00Z", "digest": "sha256:" + "a" * 64, "answeredBy": by}
        held.account(held.settings.scanner).patch(f"{evidence}/{name}/status", {"status": ready})
        refused(lambda: releaser.delete(f"{evidence}/{name}"), "nothing that is known")
        held.admin.delete(f"{evidence}/{name}")
        releaser.create(evidence, body)
        releaser.delete(f"{evidence}/{name}")

    def test_carries_the_name_of_the_pod_that_wrote_it(
        self, held: "FailHeld", evidence: str, attack: Callable[[str, str, str], None]
    ) -> None:
        from mlwarden.evidence import pending

        body = pending(f"registry.example/app@sha256:{'e' * 64}")
        name, own = body["metadata"]["name"], f"{held.settings.scanner}-0"
        held.account(held.settings.webhook).create(evidence, body)
        scanner = held.account(held.settings.scanner)

        def write(**status: Any) -> dict[str, Any]:
            written: dict[str, Any] = scanner.patch(f"{evidence}/{name}/status", {"status": status})
            return written

        failed = {"phase": "Failed", "at": "2026-11-30T12:00:00Z"}
        for forged in (failed, {**failed, "answeredBy": "scanner-of-another"}, {**failed, "answeredBy": ""}, {"answeredBy": "another"}):
            refused(lambda forged=forged: write(**forged), "carries the name of the pod that writes it")
        look = {"at": "2026-11-30T12:00:00Z", "outcome": "Agrees"}
        refused(lambda: write(secondLook={**look, "by": "another"}), "carries the name of the pod that writes it")
        refused(lambda: write(claimedBy="another", claimedUntil="2026-11-30T12:00:00Z"), "carries the name of the pod that writes it")

        write(phase="Pending", claimedBy=own, claimedUntil="2026-11-30T12:00:00Z")
        write(**failed, answeredBy=own)
        assert write(secondLook={**look, "by": own}, claimedBy=None, claimedUntil=None)["status"]["answeredBy"] == own
        write(reason="what is no answer needs no name", attempts=2, at="2026-11-30T12:01:00Z")
        held.admin.delete(f"{evidence}/{name}")
        attack(
            "a scanner's stolen token writes an answer, a second look or a claim in another pod's name",
            "nobody knew who had written which answer",
            "refused by the API server, and so is an answer without a name",
        )


class TestWebhookConfigurations:
    def test_who_may_edit_webhooks_may_not_edit_mlwardens(self, held: "FailHeld", lead: Api) -> None:
        path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        body: dict[str, Any] = {"metadata": {"name": "mlwarden"}, "webhooks": []}
        refused(lambda: lead.create(path, body), "are for those with the verb change")
        held.controller.create(path, body)
        refused(lambda: lead.patch(f"{path}/mlwarden", {"metadata": {"labels": {"a": "b"}}}), "are for those with the verb change")
        refused(lambda: lead.delete(f"{path}/mlwarden"), "are for those with the verb change")
        refused(lambda: lead.delete(path), "are for those with the verb change")
        lead.create(path, {"metadata": {"name": "theirs"}, "webhooks": []}, dryRun="All")
        held.admin.delete(f"{path}/mlwarden")


class TestAllOfIt:
    @pytest.mark.parametrize("default", ["baseline", "experiment"])
    @pytest.mark.parametrize("rollout", ["enforce", "audit"])
    @pytest.mark.parametrize("enforced", [True, False])
    def test_fails_closed_and_says_whose_it_is(self, default: str, rollout: str, enforced: bool) -> None:  # noqa: FBT001 -- a parameter of the test
        objects = gate_objects(Settings(default_profile=default, rollout=rollout), enforced=enforced)
        for obj in objects:
            assert obj["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "mlwarden"}
            if not obj["kind"].endswith("Binding"):
                assert obj["spec"]["failurePolicy"] == "Fail"
        assert len({(obj["kind"], obj["metadata"]["name"]) for obj in objects}) == len(objects)
        held = any(obj["kind"] == "MutatingAdmissionPolicy" for obj in objects)
        assert held == (enforced and rollout == "enforce")

    def test_the_api_server_finds_no_fault_with_the_expressions(self, held: "FailHeld") -> None:
        policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
        names = {obj["metadata"]["name"] for obj in gate_objects(held.settings, enforced=True)}

        def checked() -> list[dict[str, Any]]:
            found = [policy for policy in held.admin.get(policies)["items"] if policy["metadata"]["name"] in names]
            return found if all("typeChecking" in policy.get("status", {}) for policy in found) else []

        assert [policy["metadata"]["name"] for policy in held.until(checked) if policy["status"]["typeChecking"]] == []
