"""What runs is judged again: when it is revoked, when its scan or a policy changes. Reported, and evicted only where that is allowed."""

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden import evidence, policy
from mlwarden.cluster import Snapshot
from mlwarden.controllers.eviction import kept
from mlwarden.controllers.running import judge
from mlwarden.embedded.api import ApiError
from mlwarden.model.digest import Digest, digest
from mlwarden.model.evidence import ImageFacts, Phase, Scan
from mlwarden.model.policy import PROFILE_LABEL, Settings
from mlwarden.model.revocation import Revocation, RevocationSpec, Revoked
from mlwarden.model.revocation import Running as OnRunning
from mlwarden.workloads import is_gated

if TYPE_CHECKING:
    from conftest import Running

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = digest("sha256:" + "a" * 64)
INDEX = digest("sha256:" + "b" * 64)
CLEAN: dict[str, Any] = {"counts": {}}
VULNERABLE: dict[str, Any] = {
    "counts": {"CRITICAL": 1},
    "vulnerabilities": [{"id": "CVE-2026-1", "package": "openssl", "installed": "1", "fixed": "2", "severity": "CRITICAL"}],
}
REVOKED = "/apis/mlwarden.io/v1alpha1/revokedartifacts"
EVIDENCE = "/apis/mlwarden.io/v1alpha1/imageevidences"
POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"


class TestTheJudgement:
    """Pure."""

    def pod(self, **metadata: Any) -> dict[str, Any]:
        body = {"containers": [{"name": "main", "image": "registry.example/app:1"}]}
        status = {"containerStatuses": [{"name": "main", "imageID": f"registry.example/app@{DIGEST}"}]}
        return {"metadata": {"name": "p", "namespace": "n", **metadata}, "spec": body, "status": status}

    def snapshot(
        self, *, rollout: str = "enforce", counts: dict[str, int] | None = None, running: str = "Report", **known: Any
    ) -> Snapshot:
        spec = {
            "profiles": {"production": "Deny", "baseline": "Warn"},
            "requirement": {"imageScan": {"severity": "HIGH"}},
            "running": running,
            "message": "image {image} is not good",
            "why": "w",
            "fix": {"text": "f"},
        }
        manifest = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": "scanned"}, "spec": spec}
        scan = Scan(scanner="trivy", scanned_at=NOW, os="debian 13", packages=9, counts=counts or {})
        return Snapshot(
            revision=1,
            settings=Settings(rollout=rollout, shipped_policies=False),
            policies=(policy.compile_policy(policy.parse(manifest)),),
            namespaces={"n": {"name": "n", "labels": {PROFILE_LABEL: "production"}}},
            **({"images": {DIGEST: ImageFacts(digest=DIGEST, phase=Phase.READY, scan=scan)}} | known),
        )

    def test_of_what_is_good_says_nothing(self) -> None:
        assert judge(self.pod(), self.snapshot(), NOW).reason == ""

    def test_names_the_policies_that_would_refuse_it(self) -> None:
        found = judge(self.pod(), self.snapshot(counts={"HIGH": 2}), NOW)
        assert found.policies == {"scanned"}
        assert found.reason.startswith("Would be refused now by scanned: image registry.example/app@sha256:")
        assert found.evict == ""

    def test_reports_in_a_roll_out_that_audits_and_evicts_nothing(self) -> None:
        found = judge(self.pod(), self.snapshot(counts={"HIGH": 2}, rollout="audit", running="Evict"), NOW)
        assert "did the roll-out not only audit" in found.reason
        assert found.evict == ""

    def test_evicts_where_the_policy_says_so(self) -> None:
        found = judge(self.pod(), self.snapshot(counts={"HIGH": 2}, running="Evict"), NOW)
        assert found.evict.startswith("Eviction is asked for by scanned: ")

    def test_or_the_revocation(self) -> None:
        def revoked(running: str) -> Revoked:
            spec = RevocationSpec(digest=DIGEST, reason="it mines coins", running=OnRunning(running))
            return Revoked.of([Revocation(name="r", spec=spec)])

        reported = judge(self.pod(), self.snapshot(revoked=revoked("Report"), running="Evict"), NOW)
        assert (reported.policies, reported.evict) == ({"mlwarden-revoked"}, "")
        assert "it mines coins" in judge(self.pod(), self.snapshot(revoked=revoked("Evict")), NOW).evict

    @pytest.mark.parametrize(("named", "other"), [(INDEX, DIGEST), (DIGEST, INDEX)])
    @pytest.mark.parametrize("reported", [INDEX, DIGEST])
    def test_whichever_of_index_and_manifest_is_revoked_and_reported(self, named: Digest, other: Digest, reported: Digest) -> None:
        spec = RevocationSpec(digest=named, reason="it mines coins", running=OnRunning.EVICT)
        together = Revoked.of([Revocation(name="r", spec=spec)], related=lambda _: [other])
        body = self.pod() | {"status": {"containerStatuses": [{"name": "main", "imageID": f"registry.example/app@{reported}"}]}}
        found = judge(body, self.snapshot(revoked=together), NOW)
        assert "mlwarden-revoked" in found.policies
        assert "it mines coins" in found.evict

    def test_says_of_a_static_pod_that_nobody_judged_it_whatever_is_found(self) -> None:
        static = self.pod(annotations={"kubernetes.io/config.mirror": "x"})
        static["spec"]["nodeName"] = "node-0"
        assert judge(static, self.snapshot(), NOW).unjudged.startswith("Runs unjudged: node-0 started it from a file of its own")
        bad = judge(static, self.snapshot(counts={"HIGH": 2}), NOW)
        assert (bad.policies, bool(bad.unjudged)) == ({"scanned"}, True)
        assert judge(self.pod(), self.snapshot(), NOW).unjudged == ""

    def test_asks_for_what_is_missing_by_digest_and_never_for_a_tag(self) -> None:
        found = judge(self.pod(), self.snapshot(images={}), NOW)
        assert (found.policies, found.open, found.wanted) == (frozenset(), {"scanned"}, (f"registry.example/app@{DIGEST}",))
        by_tag = {**self.pod(), "status": {}}
        assert judge(by_tag, self.snapshot(images={}), NOW).wanted == ()

    @pytest.mark.parametrize(
        ("metadata", "why"),
        [
            ({}, "no controller owns it"),
            ({"ownerReferences": [{"kind": "Notebook", "uid": "u"}]}, "no controller owns it"),
            ({"ownerReferences": [{"kind": "Node", "uid": "u", "controller": True}]}, "static pod"),
            ({"annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": [{"kind": "Job", "controller": True}]}, "static pod"),
            ({"ownerReferences": [{"kind": "ReplicaSet", "uid": "u", "controller": True}]}, ""),
        ],
    )
    def test_never_evicts_what_nobody_would_start_again(self, metadata: dict[str, Any], why: str) -> None:
        assert why in kept(self.pod(**metadata))
        assert bool(kept(self.pod(**metadata))) == bool(why)


@pytest.fixture(scope="module")
def evicting(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Running]":
    """A controller that may evict."""
    from .conftest import ready  # type: ignore[import-not-found]

    with ready(cluster, tmp_path_factory.mktemp("evicting"), eviction=True, evictions_per_minute=60) as controller:
        yield controller


@pytest.mark.cluster
class TestOnACluster:
    """One controller, whose chart allows evictions."""

    @pytest.fixture
    def space(self, evicting: "Running") -> str:
        return evicting.held.namespace()

    @pytest.fixture
    def revoke(self, evicting: "Running") -> Iterator[Callable[..., str]]:
        made: list[str] = []

        def make(of: str, **spec: Any) -> str:
            name = f"r-{secrets.token_hex(4)}"
            body = {"digest": of, "reason": "a miner was found in it", **spec}
            kind = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "RevokedArtifact"}
            evicting.admin.create(REVOKED, {**kind, "metadata": {"name": name}, "spec": body})
            made.append(name)
            return name

        yield make
        for name in made:
            with contextlib.suppress(ApiError):  # the test has done it
                evicting.admin.delete(f"{REVOKED}/{name}")

    def events(self, evicting: "Running", space: str, reason: str) -> dict[str, str]:
        """Kind → message."""
        found = evicting.admin.get(f"/api/v1/namespaces/{space}/events", fieldSelector=f"reason={reason}")["items"]
        return {event["involvedObject"]["kind"]: event["message"] for event in found}

    def metric(self, evicting: "Running", name: str) -> float:
        lines = evicting.probe(path="/metrics").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def deploy(self, evicting: "Running", space: str, template: dict[str, Any], *, replicas: int = 2) -> None:
        labels = {"app": "w"}
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}}
        spec["template"] = {"metadata": {"labels": labels}, "spec": template["spec"]}
        evicting.alice.create(f"/apis/apps/v1/namespaces/{space}/deployments", {"metadata": {"name": "w"}, "spec": spec})

    def run(self, evicting: "Running", space: str, *, replicas: int = 2, good_pod: Any) -> tuple[str, str]:
        """Pods of a Deployment that were judged good and run; returns their image and its digest."""
        of = f"sha256:{secrets.token_hex(32)}"
        image = f"registry.example/app-{secrets.token_hex(4)}@{of}"
        self.deploy(evicting, space, good_pod("x", image), replicas=replicas)
        evicting.answer(image, scan=CLEAN)
        evicting.held.until(lambda: self.phases(evicting, space) == ["Running"] * replicas)
        return image, of

    def phases(self, evicting: "Running", space: str) -> list[str]:
        return [pod["status"].get("phase") for pod in evicting.held.pods(space)]

    def test_what_is_revoked_is_reported_counted_and_left_alone(self, evicting: "Running", space: str, good_pod: Any, revoke: Any) -> None:
        _, of = self.run(evicting, space, good_pod=good_pod)
        name = revoke(of)
        evicting.held.until(lambda: self.events(evicting, space, "WouldBeRefusedNow").keys() >= {"Pod", "Deployment"})
        said = self.events(evicting, space, "WouldBeRefusedNow")["Deployment"]
        assert said.startswith("Would be refused now by mlwarden-revoked: ")
        assert "a miner was found in it" in said
        failing = 'mlwarden_running_pods_failing{policy="mlwarden-revoked"}'
        evicting.held.until(lambda: self.metric(evicting, failing) == 2)
        evicting.held.until(lambda: evicting.admin.get(f"{REVOKED}/{name}").get("status", {}).get("runningPods") == 2)
        evicting.admin.patch(f"/apis/apps/v1/namespaces/{space}/deployments/w", {"spec": {"replicas": 1}})
        evicting.held.until(lambda: self.metric(evicting, failing) == 1)
        evicting.held.until(lambda: evicting.admin.get(f"{REVOKED}/{name}")["status"]["runningPods"] == 1)
        evicting.admin.delete(f"{REVOKED}/{name}")
        evicting.held.until(lambda: self.metric(evicting, failing) == 0)
        assert self.phases(evicting, space) == ["Running"]
        assert not self.events(evicting, space, "Evicting")

    def test_a_new_scan_is_a_new_judgement(self, evicting: "Running", space: str, good_pod: Any) -> None:
        image, _ = self.run(evicting, space, replicas=1, good_pod=good_pod)
        evicting.answer(image, scan=VULNERABLE)
        said = evicting.held.until(lambda: self.events(evicting, space, "WouldBeRefusedNow").get("Deployment"))
        assert "CVE-2026-1" in said
        evicting.answer(image, scan=CLEAN)
        evicting.held.until(lambda: self.metric(evicting, 'mlwarden_running_pods_failing{policy="image-scanned"}') == 0)

    def test_so_is_a_new_policy(self, evicting: "Running", space: str, good_pod: Any) -> None:
        self.run(evicting, space, replicas=1, good_pod=good_pod)
        spec = {"profiles": {"experiment": "Deny"}, "message": "{name} is not wanted", "why": "w", "fix": {"text": "f"}}
        match = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space}}}
        body = {"metadata": {"name": "unwanted"}, "spec": {**spec, "match": match, "requirement": {"expression": {"expression": "false"}}}}
        evicting.admin.create(POLICIES, {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", **body})
        try:
            said = evicting.held.until(lambda: self.events(evicting, space, "WouldBeRefusedNow").get("Pod"))
            assert "unwanted" in said
        finally:
            evicting.admin.delete(f"{POLICIES}/unwanted")

    def test_what_a_tag_turned_out_to_be_is_asked_about_in_the_background_until_somebody_waits(
        self, evicting: "Running", space: str, good_pod: Any
    ) -> None:
        """Where nothing is held a pod runs by its tag, and its kubelet says what that was."""
        lenient = evicting.held.namespace("baseline")
        of = f"sha256:{secrets.token_hex(32)}"
        image = f"registry.example/app-{secrets.token_hex(4)}"
        evicting.held.create(lenient, good_pod("p", f"{image}:1", imagePullSecrets=[{"name": "pull"}]))
        path = f"/api/v1/namespaces/{lenient}/pods/p"
        running = evicting.held.until(lambda: (pod := evicting.admin.get(path))["status"].get("phase") == "Running" and pod)
        status = {"containerStatuses": [{**running["status"]["containerStatuses"][0], "imageID": f"{image}@{of}"}]}
        evicting.admin.patch(f"{path}/status", {"status": status})
        known = f"{EVIDENCE}/{evidence.name_for(f'{image}@{of}')}"

        def asked() -> Any:
            listed = evicting.admin.get(EVIDENCE)["items"]
            return next((each["spec"] for each in listed if known.endswith(each["metadata"]["name"])), None)

        by = {f"{image}@{of}": [lenient]}
        whose = {"pullers": [{"namespace": lenient, "serviceAccount": "default", "secrets": ["pull"]}]}
        assert evicting.held.until(asked) == {"references": [*by], "namedBy": by, "purpose": "Renewal", "namespaces": [lenient], **whose}
        evicting.held.create(space, good_pod("p", f"{image}@{of}"))
        evicting.held.until(lambda: asked()["purpose"] == "Pod")

    def test_a_held_pod_that_is_revoked_is_told_at_once_and_released_when_it_is_not_any_more(
        self, evicting: "Running", space: str, good_pod: Any, revoke: Any
    ) -> None:
        of = f"sha256:{secrets.token_hex(32)}"
        image = f"registry.example/app@{of}"
        evicting.held.create(space, good_pod("p", image))
        name = revoke(of)
        said = evicting.held.until(lambda: self.events(evicting, space, "NotReleased").get("Pod"))
        assert "mlwarden-revoked" in said
        evicting.answer(image, scan=CLEAN)
        assert is_gated(evicting.held.pods(space)[0])
        evicting.admin.delete(f"{REVOKED}/{name}")
        evicting.held.until(lambda: not is_gated(evicting.held.pods(space)[0]))

    def test_eviction_waits_for_the_disruption_budget(self, evicting: "Running", space: str, good_pod: Any, revoke: Any) -> None:
        _, of = self.run(evicting, space, replicas=1, good_pod=good_pod)
        budgets = f"/apis/policy/v1/namespaces/{space}/poddisruptionbudgets"
        spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "w"}}}
        evicting.admin.create(budgets, {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "w"}, "spec": spec})
        evicting.held.until(lambda: evicting.admin.get(f"{budgets}/w").get("status", {}).get("currentHealthy") == 1)
        uid = evicting.held.pods(space)[0]["metadata"]["uid"]
        revoke(of, running="Evict")
        evicting.held.until(lambda: self.events(evicting, space, "Evicting").keys() >= {"Pod", "Deployment"})
        evicting.held.until(lambda: "is not evicted yet" in evicting.log())
        assert [pod["metadata"]["uid"] for pod in evicting.held.pods(space)] == [uid]
        evicting.admin.delete(f"{budgets}/w")
        pods = evicting.held.until(
            lambda: uid not in [pod["metadata"]["uid"] for pod in evicting.held.pods(space)] and evicting.held.pods(space), seconds=60
        )
        assert all(map(is_gated, pods))  # what came in its place is not released
        assert self.metric(evicting, "mlwarden_evicted_pods_total") >= 1

    def test_a_pod_that_nobody_would_start_again_is_never_evicted(
        self, evicting: "Running", space: str, good_pod: Any, revoke: Any
    ) -> None:
        of = f"sha256:{secrets.token_hex(32)}"
        image = f"registry.example/app@{of}"
        evicting.held.create(space, good_pod("mine", image))
        evicting.answer(image, scan=CLEAN)
        evicting.held.until(lambda: self.phases(evicting, space) == ["Running"])
        revoke(of, running="Evict")
        said = evicting.held.until(lambda: self.events(evicting, space, "WouldBeRefusedNow").get("Pod"))
        assert said.endswith("It is not evicted: no controller owns it, so nothing would start it again")
        assert self.phases(evicting, space) == ["Running"]
        assert not self.events(evicting, space, "Evicting")

    def test_what_a_node_starts_from_a_file_of_its_own_is_shown_and_reported_as_unjudged(
        self, evicting: "Running", space: str, good_pod: Any, attack: Callable[[str, str, str], None]
    ) -> None:
        """Privileged, by tag, where pods are held: it runs already. From anybody else it is refused."""
        nodes = evicting.admin.get("/api/v1/nodes")["items"]
        host = next((node for node in nodes if node["metadata"]["name"] == "mlwarden-host"), None)
        node = host or evicting.admin.create("/api/v1/nodes", {"metadata": {"name": "mlwarden-host"}})
        body = good_pod("static-mlwarden-host", "registry.example/agent:1", nodeName="mlwarden-host", hostNetwork=True)
        body["spec"]["containers"][0]["securityContext"] = {"privileged": True}
        owner = {"apiVersion": "v1", "kind": "Node", "name": "mlwarden-host", "uid": node["metadata"]["uid"], "controller": True}
        body["metadata"] |= {"annotations": {"kubernetes.io/config.mirror": "abc"}, "ownerReferences": [owner]}
        with pytest.raises(ApiError):
            evicting.held.create(space, body)
        before = self.metric(evicting, "mlwarden_running_pods_unjudged")
        try:
            evicting.held.create(space, body, user=evicting.cluster.api("kubelet"))
            said = evicting.held.until(lambda: self.events(evicting, space, "RunsUnjudged").get("Pod"))
            assert "mlwarden-host started it from a file of its own" in said
            assert "privileged" in evicting.held.until(lambda: self.events(evicting, space, "WouldBeRefusedNow").get("Pod"))
            assert self.metric(evicting, "mlwarden_running_pods_unjudged") == before + 1
        finally:
            if host is None:
                evicting.admin.delete("/api/v1/nodes/mlwarden-host")
        attack("a node shows a static pod where pods are held", "refused, and so it ran hidden", "shown, and reported as unjudged")


def test_the_right_to_evict_comes_with_the_value_and_not_without(cluster: Any) -> None:
    import yaml

    def rights(*options: str) -> list[str]:
        rendered = cluster.helm("template", "mlwarden", "charts/mlwarden", *options)
        roles = [obj for obj in yaml.safe_load_all(rendered) if obj and obj["kind"] == "ClusterRole"]
        return [json.dumps(role["rules"]) for role in roles if "pods/eviction" in json.dumps(role["rules"])]

    assert rights() == []
    assert len(rights("--set", "controller.eviction=true")) == 1
