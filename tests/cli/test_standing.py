"""`check` says of an object what the cluster says: one registry makes the webhook's rules and this."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlwarden import workloads
from mlwarden.controllers import generated
from mlwarden.model.policy import Settings
from mlwarden.workloads import Standing, builtin

from .conftest import POLICY  # type: ignore[import-not-found]

Run = Callable[..., Any]
SPEC = {"containers": [{"name": "c", "image": "registry.example.com/a:1", "securityContext": {"privileged": True}}]}
HARMLESS = {
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "c",
            "image": "registry.example.com/a:1",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        }
    ],
}


def check(run: Run, *arguments: str, **obj: Any) -> Any:
    Path("object.json").write_text(json.dumps({"metadata": {"name": "x"}, **obj}))
    return run("object.json", *arguments)


def test_a_kind_outside_of_the_table_is_judged_by_its_pods(run: Run) -> None:
    done = check(run, apiVersion="example.org/v1", kind="Gadget", spec={"template": {"spec": SPEC}})
    assert done.code == 1
    assert "the cluster judges the pods of this object, not the object; its answer to them:\nGadget x is refused by" in done.out
    assert "1 object: 1 denied" in done.out


def test_one_whose_pods_are_good_passes_and_is_not_called_admitted(run: Run) -> None:
    done = check(run, "--profile", "production", apiVersion="example.org/v1", kind="Gadget", spec={"template": {"spec": HARMLESS}})
    assert done.code == 0
    assert "0 admitted, 1 judged by their pods alone" in done.out


def test_a_kind_that_is_not_understood_is_said_to_be_so(run: Run) -> None:
    obj = {"apiVersion": "example.org/v1", "kind": "Riddle", "spec": {"run": "something"}}
    done = check(run, **obj)
    assert done.code == 0
    assert "Riddle x is of a kind that is not understood" in done.out
    assert "0 admitted, 1 of kinds that are not understood" in done.out
    assert check(run, "--strict", **obj).code == 1


@pytest.mark.parametrize("kind", ["Podd", "Foo"])
def test_a_kind_that_kubernetes_does_not_have_is_not_understood(run: Run, kind: str) -> None:
    assert "of a kind that is not understood" in check(run, apiVersion="v1", kind=kind).out


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        *(("v1", "ConfigMap"), ("networking.k8s.io/v1", "NetworkPolicy"), ("mlwarden.io/v1alpha1", "WardenPolicy")),
        *(("mlops.seldon.io/v1alpha1", "Model"), ("kubeflow.org/v1beta1", "Workspace")),
        ("autoscaling.aibrix.ai/v1alpha1", "PodAutoscaler"),
    ],
)
def test_a_kind_of_kubernetes_or_of_an_operator_that_runs_nothing_is_admitted(run: Run, version: str, kind: str) -> None:
    done = check(run, "--strict", apiVersion=version, kind=kind)
    assert (done.code, done.err) == (0, "")
    assert "1 object: 0 denied, 0 held until there is evidence, 1 admitted" in done.out


def test_a_kind_without_a_namespace_is_a_note_of_what_baseline_finds(run: Run) -> None:
    obj = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ClusterServingRuntime", "spec": SPEC}
    done = check(run, "--profile", "production", **obj)
    assert done.code == 0
    assert (
        "ClusterServingRuntime x has no namespace and is not judged: its pods are, where they are made; baseline finds in them:" in done.out
    )
    assert "privileged-containers" in done.out
    assert "run-as-non-root" not in done.out
    assert "0 admitted, 1 without a namespace, judged where their pods are made" in done.out
    report = check(run, "--output", "json", **obj).report
    assert (report["verdict"], report["findings"]) == ("Admit", [])
    assert "privileged-containers" in {finding["policy"] for finding in report["notes"]}
    namespaced = check(run, **{**obj, "kind": "ServingRuntime"})
    assert namespaced.code == 1


def test_a_namespace_written_into_it_does_not_take_it_out_of_sight(run: Run) -> None:
    obj = {"apiVersion": "argoproj.io/v1alpha1", "kind": "ClusterWorkflowTemplate", "metadata": {"name": "x", "namespace": "kube-system"}}
    spec = {"templates": [{"name": "t", "container": SPEC["containers"][0]}]}
    assert "privileged-containers" in check(run, **obj, spec=spec).out


def test_the_cluster_s_own_policies_about_objects_count_where_the_api_server_asks_them(run: Run) -> None:
    Path("rules.yaml").write_text(POLICY)
    for version, kind, code in (("v1", "ConfigMap", 1), ("v1", "Namespace", 0), ("rbac.authorization.k8s.io/v1", "ClusterRole", 0)):
        assert check(run, "--policies", "rules.yaml", apiVersion=version, kind=kind).code == code
    assert check(run, "--policies", "rules.yaml", apiVersion="v1", kind="ConfigMap", metadata={"name": "ml-x"}).code == 0
    assert check(run, "--policies", "rules.yaml", apiVersion="example.org/v1", kind="Riddle").code == 1


def test_the_webhook_is_asked_about_exactly_what_check_takes_to_be_sent() -> None:
    rules = {
        (group, resource)
        for webhook in generated.before_gate(Settings(), b"PEM", enforced=True)[0]["webhooks"]
        if webhook["name"] == "workloads.mlwarden.io"
        for rule in webhook["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    found = {}
    for row in workloads.KINDS:
        obj = {"apiVersion": f"{row.group}/v1" if row.group else "v1", "kind": row.kind, "metadata": {"name": "x"}}
        found[row.group, row.resource] = workloads.standing(workloads.extract(obj))
    assert {each for each, standing in found.items() if standing is Standing.SENT} == rules
    assert set(found.values()) == {Standing.SENT, Standing.CLUSTER}


@pytest.mark.cluster
def test_every_kind_that_the_api_server_has_is_in_one_of_the_two_lists(cluster: Any) -> None:
    api = cluster.api()
    rows = {(row.group, row.kind): row.namespaced for row in workloads.KINDS}
    served = {group["name"]: f"/apis/{group['preferredVersion']['groupVersion']}" for group in api.get("/apis")["groups"]}
    groups = {"": "/api/v1"} | {group: path for group, path in served.items() if "." not in group or group.endswith(".k8s.io")}
    assert groups.keys() <= builtin.RUNS_NOTHING.keys()
    seen: set[tuple[str, str]] = set()
    missing: set[tuple[str, str]] = set()
    for group, path in groups.items():
        for each in api.get(path)["resources"]:
            own, kind = each.get("group", group), each["kind"]
            if kind.endswith("Options"):
                continue  # options of a connection (pods/exec) are no objects
            seen.add((own, kind))
            if (own, kind) in rows:
                assert rows[own, kind] == each["namespaced"], kind
            else:
                missing |= {(own, kind)} - {(own, kind) for kind in builtin.RUNS_NOTHING.get(own, ())}
                assert (kind in builtin.CLUSTER_SCOPED.get(own, ())) != each["namespaced"], (own, kind)
    assert missing == set()
    assert len(seen) > 50
