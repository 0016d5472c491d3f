"""The chart over its life: from the commit before to this one, to other values and back, and away, with pods held meanwhile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.embedded import images
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.cluster import ToolError
from mlwarden.embedded.installed import NAMESPACE, chart

if TYPE_CHECKING:
    from conftest import Installed

pytestmark = pytest.mark.cluster
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def space(installed: "Installed") -> str:
    return installed.namespace("upgrade-serving")


def uids(installed: "Installed", namespace: str) -> dict[str, str]:
    listed = installed.admin.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in listed}


def gated(installed: "Installed", namespace: str, pod: dict[str, Any]) -> bool | None:
    """Whether a pod would be held now, None where it would be refused. What was in force before the last upgrade is so for a moment."""
    try:
        return bool(installed.create(namespace, pod, dryRun="All")["spec"].get("schedulingGates"))
    except ApiError:
        return None


class TestUpgrade:
    """One story, in this order."""

    def test_from_the_chart_of_the_commit_before_keeps_what_is_held_and_judges_what_comes(
        self, installed: "Installed", space: str, previous_chart: Path
    ) -> None:
        installed.release.uninstall()
        installed.release.install(source=previous_chart)
        images.vulnerable(installed.cluster.registry, "held:1.0")
        installed.create(space, installed.pod("held", "held:1.0"))
        installed.said(space, "held", "CVE-2025-32434")
        before = uids(installed, space)
        installed.release.upgrade()
        assert uids(installed, space) == before
        assert installed.state(space, "held") == "Held"
        installed.create(space, installed.pod("good"))
        installed.runs(space, "good")

    def test_to_an_audit_refuses_nothing_holds_nothing_and_lets_go_what_was_held(self, installed: "Installed", space: str) -> None:
        installed.release.upgrade(rollout="audit")
        bad = installed.pod("audited")
        bad["spec"]["containers"][0]["securityContext"] = {"privileged": True}

        installed.until(lambda: gated(installed, space, bad) is False)
        installed.create(space, bad)
        installed.runs(space, "audited")
        installed.runs(space, "held")
        said = installed.cluster.kubectl(
            *("apply", "--dry-run=server", "--namespace", space, "--filename", "-"),
            user="alice",
            input=json.dumps(bad | {"metadata": {"name": "x"}}),
            check=False,
        )
        assert "Warning: privileged-containers" in said

    def test_and_back_holds_again(self, installed: "Installed", space: str) -> None:
        installed.release.upgrade(rollout="enforce", requireProfile=True)
        installed.until(lambda: gated(installed, space, installed.pod("probe")))
        images.vulnerable(installed.cluster.registry, "again:1.0")
        installed.create(space, installed.pod("again", "again:1.0"))
        installed.said(space, "again", "CVE-2025-32434")
        assert installed.state(space, "again") == "Held"

    def test_who_edits_its_namespace_writes_nothing_that_a_rollback_would_take(
        self, installed: "Installed", attack: Callable[[str, str, str], None]
    ) -> None:
        installed.cluster.grant("gitops", "edit", NAMESPACE)
        editor, path = installed.cluster.api("gitops"), f"/api/v1/namespaces/{NAMESPACE}"
        releases = {each["metadata"]["name"]: each for each in installed.admin.get(f"{path}/secrets", labelSelector="owner=helm")["items"]}
        newest = releases[max(releases, key=lambda name: int(name.rpartition(".v")[2]))]
        labels = {"owner": "helm", "name": "mlwarden", "status": "deployed", "version": "99"}
        copied = {"type": newest["type"], "data": newest["data"]}
        installed.until(lambda: editor.create(f"{path}/secrets", {"metadata": {"name": "theirs"}}, dryRun="All"))
        editor.create(f"{path}/secrets", {"metadata": {"name": "theirs"}})

        def refused(call: Callable[[], Any]) -> None:
            with pytest.raises(ApiError, match="is for those with the verb change on profiles"):
                call()

        for kind in ("secrets", "configmaps"):  # Helm keeps them in either
            for metadata in (
                {"name": "sh.helm.release.v1.mlwarden.v99"},
                {"generateName": "sh.helm.release.v1.mlwarden.v"},
                {"name": "other", "labels": labels},
            ):
                body = {"metadata": metadata, **(copied if kind == "secrets" else {"data": {"release": "AAAA"}})}
                refused(lambda kind=kind, body=body: editor.create(f"{path}/{kind}", body))
        refused(lambda: editor.patch(f"{path}/secrets/theirs", {"metadata": {"labels": labels}}))
        for name in releases:
            refused(lambda name=name: editor.patch(f"{path}/secrets/{name}", {"data": {"release": "AAAA"}}))
            refused(lambda name=name: editor.patch(f"{path}/secrets/{name}", {"metadata": {"labels": {"status": "failed"}}}))
            refused(lambda name=name: editor.delete(f"{path}/secrets/{name}"))
        refused(lambda: editor.delete(f"{path}/secrets"))
        editor.delete(f"{path}/secrets/theirs")
        attack(
            "who may edit mlwarden's namespace prepares an administrator's helm rollback", "stored, and created by it", "refused, each way"
        )

    def test_rolled_back_to_the_chart_before_and_forth_it_works(self, installed: "Installed", space: str) -> None:
        before = uids(installed, space)
        for revision, name in (("1", "rolled-back"), ("4", "rolled-forth")):
            installed.cluster.helm("rollback", "mlwarden", revision, "--namespace", NAMESPACE, "--wait", "--timeout", "120s")
            refused = installed.pod("refused")
            refused["spec"]["containers"][0]["securityContext"] = {"privileged": True}
            installed.until(lambda refused=refused: gated(installed, space, refused) is None)
            installed.create(space, installed.pod(name))
            installed.runs(space, name)
            assert installed.state(space, "again") == "Held"
            assert before.items() <= uids(installed, space).items()
        status = installed.cluster.helm("status", "mlwarden", "--namespace", NAMESPACE)
        assert "STATUS: deployed" in status
        assert "REVISION: 6" in status

    def test_and_where_a_profile_is_required_a_namespace_is_not_made_anew_without_one(self, installed: "Installed") -> None:
        role = {"metadata": {"name": "upgrade-namespaces"}, "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["*"]}]}
        installed.admin.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
        installed.cluster.grant("lead", "upgrade-namespaces")

        def refusal(labels: dict[str, str]) -> str:
            body = {"metadata": {"name": "made-anew", "labels": labels}}
            try:
                installed.cluster.api("lead").create("/api/v1/namespaces", body, dryRun="All")
            except ApiError as error:
                return error.message
            return ""

        installed.until(lambda: "a new namespace carries mlwarden.io/profile" in refusal({}))
        assert refusal({"mlwarden.io/profile": "experiment"}) == ""
        installed.admin.create("/api/v1/namespaces", {"metadata": {"name": "made-anew"}}, dryRun="All")

    def test_uninstalled_it_frees_what_is_held_and_leaves_only_the_definitions(self, installed: "Installed", space: str) -> None:
        before = uids(installed, space)
        installed.release.uninstall()
        installed.runs(space, "again")
        assert uids(installed, space) == before
        installed.until(lambda: not installed.generated())
        kept = {crd["metadata"]["name"] for crd in installed.admin.get(CRDS)["items"] if crd["spec"]["group"] == "mlwarden.io"}
        assert kept == {"wardenpolicies.mlwarden.io", "revokedartifacts.mlwarden.io", "imageevidences.mlwarden.io"}
        plain = installed.create(space, installed.pod("plain", "again:1.0"))
        assert not plain["spec"].get("schedulingGates")
        installed.release.install()
        assert gated(installed, space, installed.pod("held-again"))


@pytest.mark.parametrize(
    "option",
    ["rollout=perhaps", "defaultProfile=unheard-of", "webhook.replicas=none", "gate=sometimes", "webhook.timeoutSeconds=60", "unknown=1"],
)
def test_values_that_make_no_sense_are_refused_in_words(installed: "Installed", option: str) -> None:
    with pytest.raises(ToolError) as refused:
        installed.cluster.helm("template", "mlwarden", str(chart()), "--set", option)
    assert option.partition("=")[0].split(".")[-1] in refused.value.output
