"""`mlwarden check`: what the cluster would say, offline."""

import io
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlwarden import engine, policy, workloads
from mlwarden.model.evidence import Facts
from mlwarden.model.policy import Settings

from .conftest import POLICY  # type: ignore[import-not-found]

Run = Callable[..., Any]

POD = """
apiVersion: v1
kind: Pod
metadata: {name: trainer, namespace: team}
spec:
  containers:
    - {name: main, image: "registry.example/a:1", securityContext: {privileged: true}}
"""
GOOD = """
apiVersion: v1
kind: Pod
metadata: {name: good, namespace: team}
spec:
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: main
      image: "registry.example/a:1"
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      resources: {requests: {cpu: "1", memory: 1Gi}, limits: {cpu: "1", memory: 1Gi}}
"""
NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: team, labels: {mlwarden.io/profile: experiment}}
"""


def write(**files: str) -> None:
    for name, text in files.items():
        path = Path(name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_what_is_denied_is_said_word_for_word_and_exits_1(run: Run) -> None:
    write(pod=POD)
    done = run("pod.yaml", "--profile", "production")
    workload = workloads.extract(policy.yaml_loads(POD)[0])
    namespace = {"metadata": {"name": "team", "labels": {"mlwarden.io/profile": "production"}}}
    facts = Facts(now=datetime.now(UTC), namespace=namespace, profile="production")
    verdict = engine.evaluate(workload, [policy.compile_policy(each) for each in policy.shipped()], facts, Settings())
    assert engine.refusal(verdict, workload.resource) in done.out
    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines()[-1] == "1 object: 1 denied, 0 held until there is evidence, 0 admitted"


def test_missing_evidence_is_held_and_exits_0(run: Run) -> None:
    write(pod=GOOD)
    done = run("pod.yaml", "--profile", "experiment")
    assert done.code == 0
    assert "Warning: held, image-scanned" in done.out
    assert "1 held" in done.out


def test_strict_makes_missing_evidence_a_failure(run: Run) -> None:
    write(pod=GOOD)
    assert run("pod.yaml", "--profile", "experiment", "--strict").code == 1


def test_the_json_contract_has_exactly_these_fields(run: Run) -> None:
    write(pod=POD)
    done = run("pod.yaml", "--profile", "production", "--output", "json")
    assert list(done.report) == ["verdict", "findings", "notes", "objects", "unread", "leftOut", "totals"]
    assert done.report["verdict"] == "Deny"
    place = ["file", "line"]
    for finding in done.report["findings"]:
        assert list(finding) == [
            "policy",
            "outcome",
            "action",
            "severity",
            "resource",
            "path",
            "message",
            "why",
            "fix",
            "exception",
            *place,
        ]
        assert finding["resource"] == {"apiVersion": "v1", "kind": "Pod", "namespace": "team", "name": "trainer"}
        assert finding["outcome"] in {"Pass", "Fail", "Unknown", "Excepted"}
        assert finding["action"] in {"Deny", "Hold", "Warn", "Audit"}
        assert (finding["file"], finding["line"]) == ("pod.yaml", 2)
    (one,) = done.report["objects"]
    assert one == {
        "file": "pod.yaml",
        "line": 2,
        "rendered": "",
        "resource": {"apiVersion": "v1", "kind": "Pod", "namespace": "team", "name": "trainer"},
        "standing": "sent",
        "verdict": "Deny",
    }
    assert list(done.report["totals"]) == [
        "objects",
        "denied",
        "held",
        "admitted",
        "warned",
        "judgedByPods",
        "withoutNamespace",
        "notUnderstood",
        "neverGoverned",
        "unread",
        "leftOut",
    ]


def test_json_says_hold_where_evidence_is_missing(run: Run) -> None:
    write(pod=GOOD)
    report = run("pod.yaml", "--profile", "experiment", "--output", "json").report
    assert report["verdict"] == "Hold"
    assert [(finding["outcome"], finding["action"]) for finding in report["findings"] if finding["policy"] == "image-scanned"] == [
        ("Unknown", "Hold")
    ]


def test_a_namespace_in_the_input_says_which_profile_is_in_force(run: Run) -> None:
    write(manifests__a=GOOD, manifests__b=NAMESPACE)
    assert run("manifests", "--output", "json").report["verdict"] == "Hold"
    assert run("manifests/a.yaml", "--output", "json").report["verdict"] == "Admit"


def test_the_profile_argument_is_only_for_namespaces_that_do_not_say(run: Run) -> None:
    write(pod=GOOD, namespace=NAMESPACE.replace("experiment", "baseline"))
    assert run("pod.yaml", "namespace.yaml", "--profile", "production", "--output", "json").report["verdict"] == "Admit"


def test_a_namespace_that_is_never_governed_is_not_judged(run: Run) -> None:
    write(pod=POD.replace("namespace: team", "namespace: kube-system"))
    done = run("pod.yaml", "--profile", "production")
    assert done.code == 0
    assert "never governed" in done.out


def test_unknown_kinds_are_judged_too(run: Run) -> None:
    spec = policy.yaml_loads(POD)[0]["spec"]
    thing = {"apiVersion": "example.org/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {"deep": {"template": {"spec": spec}}}}
    Path("gadget.json").write_text(json.dumps(thing))
    done = run("gadget.json", "--profile", "production", "--output", "json")
    assert done.report["verdict"] == "Deny"
    assert "spec.deep.template.spec.containers[0].securityContext.privileged" in {finding["path"] for finding in done.report["findings"]}


def test_policies_of_one_s_own_replace_the_shipped_ones(run: Run) -> None:
    write(pod=POD, rules__own=POLICY)
    report = run("pod.yaml", "--policies", "rules", "--output", "json").report
    assert [(finding["policy"], finding["path"]) for finding in report["findings"]] == [("named-well", "metadata.name")]


def test_a_limit_range_in_the_input_fills_in_pods_and_templates_alike(run: Run) -> None:
    pod = GOOD.replace('      resources: {requests: {cpu: "1", memory: 1Gi}, limits: {cpu: "1", memory: 1Gi}}\n', "")
    spec = pod.partition("spec:\n")[2].replace("\n  ", "\n      ")
    head = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: same, namespace: team}\nspec:\n  template:\n    spec:\n    "
    limits = "{limits: [{type: Container, default: {cpu: 200m, memory: 128Mi}}]}"
    filled = f"apiVersion: v1\nkind: LimitRange\nmetadata: {{name: defaults, namespace: team}}\nspec: {limits}\n"
    both = f"{pod}---\n{head}{spec}"
    write(both=both, filled=f"{both}---\n{filled}", elsewhere=f"{both}---\n{filled.replace('team', 'other')}")
    for name, refused in (("both", 2), ("filled", 0), ("elsewhere", 2)):
        said = json.loads(run("--profile", "production", "--output", "json", f"{name}.yaml").out)
        assert [each["policy"] for each in said["findings"]].count("resource-limits") == refused


@pytest.mark.parametrize("bad", ["object.metadata.name.startsWith(", "no_such_function(object)", "1 + 1"])
def test_a_policy_that_does_not_compile_exits_2_and_the_others_still_judge(run: Run, bad: str) -> None:
    write(pod=GOOD, rules__own=POLICY)
    write(rules__broken=POLICY.replace("named-well", "broken").replace("object.metadata.name.startsWith('ml-')", bad))
    done = run("pod.yaml", "--policies", "rules", "--profile", "production", "--output", "json")
    assert done.code == 2
    assert "broken" in done.err
    assert {(finding["policy"], finding["outcome"]) for finding in done.report["findings"]} == {
        ("broken", "Unknown"),
        ("named-well", "Fail"),
    }


def test_two_policies_of_one_name_are_a_mistake(run: Run) -> None:
    write(pod=POD, rules__a=POLICY, rules__b=POLICY)
    done = run("pod.yaml", "--policies", "rules")
    assert done.code == 2
    assert "named-well" in done.err


def test_no_policies_where_policies_should_be_is_a_mistake(run: Run) -> None:
    Path("empty").mkdir()
    write(pod=POD)
    assert run("pod.yaml", "--policies", "empty").code == 2
    assert run("pod.yaml", "--policies", "missing.yaml").code == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [", "not YAML"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"kind: Pod", "apiVersion or kind is missing"),
        (b"apiVersion: v1\nkind: Pod\nkind: Pod\n", "twice"),
        (b'{"apiVersion": "v1", "kind": "Pod", "kind": "Pod"}', "twice"),
        (b"[" * 100_000, "deep"),
    ],
)
def test_what_cannot_be_read_exits_2_and_the_rest_is_judged(run: Run, content: bytes, says: str) -> None:
    write(manifests__good=POD)
    Path("manifests/bad.yaml").write_bytes(content)
    done = run("manifests", "--profile", "production")
    assert done.code == 2
    assert says in done.err
    assert "manifests/bad.yaml" in done.err
    assert "1 denied" in done.out


def test_a_path_that_does_not_exist_exits_2(run: Run) -> None:
    done = run("nothing-here.yaml")
    assert done.code == 2
    assert "nothing-here.yaml: cannot be read: No such file" in done.err


def test_an_empty_folder_is_nothing_to_check(run: Run) -> None:
    Path("empty").mkdir()
    assert run("empty").code == 2


def test_standard_input_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{POD}---\n{GOOD}".encode())))
    done = run("-", "--profile", "production")
    assert "2 objects: " in done.out
    assert "  denied   standard input:2: Pod team/trainer: " in done.out


def test_lists_are_their_items(run: Run) -> None:
    pod = policy.yaml_loads(POD)[0]
    for kind in ("List", "PodList"):
        Path("list.json").write_text(json.dumps({"apiVersion": "v1", "kind": kind, "items": [pod, pod]}))
        assert "2 objects: 2 denied" in run("list.json", "--profile", "production").out


def test_items_of_a_typed_list_need_not_repeat_what_they_are(run: Run) -> None:
    pod = {key: value for key, value in policy.yaml_loads(POD)[0].items() if key not in {"apiVersion", "kind"}}
    Path("list.json").write_text(json.dumps({"apiVersion": "v1", "kind": "PodList", "items": [pod]}))
    assert "1 denied" in run("list.json", "--profile", "production").out


def test_only_manifests_of_a_folder_are_read(run: Run) -> None:
    write(manifests__pod=POD, manifests__deeper__pod=POD)
    Path("manifests/README.md").write_text("hello")
    Path("manifests/.hidden").mkdir()
    Path("manifests/.hidden/pod.yaml").write_text(POD)
    assert "2 objects" in run("manifests").out


def test_a_profile_that_does_not_exist_is_said(run: Run) -> None:
    write(pod=GOOD)
    done = run("pod.yaml", "--profile", "porduction", "--output", "json")
    assert done.report["verdict"] == "Hold"
    assert any("'porduction'" in finding["message"] for finding in done.report["findings"])


def test_what_stands_in_a_manifest_cannot_write_to_the_terminal(run: Run) -> None:
    Path("pod.json").write_text(json.dumps({**policy.yaml_loads(POD)[0], "metadata": {"name": "a\x1b[2Jb\nc", "namespace": "team"}}))
    done = run("pod.json", "--profile", "production")
    assert "\x1b" not in done.out
    assert r"a\x1b[2Jb\nc" in done.out


def test_a_secret_in_the_environment_is_never_printed(run: Run) -> None:
    pod = policy.yaml_loads(GOOD)[0]
    pod["spec"]["containers"][0]["env"] = [{"name": "AWS_SECRET_ACCESS_KEY", "value": "hunter2hunter2"}]
    Path("pod.json").write_text(json.dumps(pod))
    for output in ("text", "json"):
        done = run("pod.json", "--profile", "production", "--output", output)
        assert "env-credentials" in done.out
        assert "hunter2" not in done.out + done.err


ANYBODYS = POD.replace("registry.example/a:1", "quay.io/anybody/a:1").replace("securityContext: {privileged: true}", "")


def test_which_registries_are_trusted_is_said_to_be_undecided_until_it_is(run: Run) -> None:
    write(pod=ANYBODYS)
    undecided = run("pod.yaml", "--profile", "production")
    assert undecided.out.splitlines()[0].startswith("which registries are trusted is not decided here: --trusted-registry PREFIX")
    assert "warning of trusted-registries: which registries are trusted is not decided" in undecided.out
    denied = run("pod.yaml", "--profile", "production", "--trusted-registry", "registry.example.com", "--trusted-registry", "docker.io")
    assert "refused by trusted-registries: image quay.io/anybody/a:1 is not from a registry that is trusted" in denied.out
    trusted = run("pod.yaml", "--profile", "production", "--trusted-registry", "quay.io/anybody")
    for done in (denied, trusted):
        assert "not decided" not in done.out
    assert "trusted-registries" not in trusted.out


def test_a_trusted_registry_that_is_none_cannot_be_read(run: Run) -> None:
    write(pod=ANYBODYS)
    done = run("pod.yaml", "--trusted-registry", "https://quay.io")
    assert done.code == 2
    assert "'https://quay.io' is not a registry" in done.err
