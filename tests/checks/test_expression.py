"""An expression asked of each element: the place to blame, the words, and a fix that was tried."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlwarden import checks, policy, workloads
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Outcome

FACTS = Facts(
    now=datetime(2026, 11, 24, tzinfo=UTC), namespace={"metadata": {"name": "team", "labels": {"tier": "gpu"}}}, profile="production"
)


def compiled(
    expression: str, *, each: str = "container", path: str = "", patch: dict[str, Any] | None = None, **spec: Any
) -> policy.CompiledPolicy:
    return policy.compile_policy(
        policy.parse(
            {
                "apiVersion": "mlwarden.io/v1alpha1",
                "kind": "WardenPolicy",
                "metadata": {"name": "under-test"},
                "spec": {
                    "profiles": {"production": "Deny"},
                    "requirement": {"expression": {"forEach": each, "expression": expression, "path": path}},
                    "message": "{name} is wrong: {value}",
                    "why": "because",
                    "fix": {"text": "put it right", **({"patch": patch} if patch else {})},
                }
                | spec,
            }
        )
    )


def pod(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": "x"}]} | spec}


def answers(rule: policy.CompiledPolicy, obj: dict[str, Any]) -> list[checks.Answer]:
    return list(checks.judge(rule, workloads.extract(obj), FACTS))


NOT_PRIVILEGED = "!has(container.securityContext) || !has(container.securityContext.privileged) || !container.securityContext.privileged"
PRIVILEGED = {"name": "agent", "image": "x", "securityContext": {"privileged": True}}


def test_each_container_of_every_role_is_asked() -> None:
    rule = compiled(NOT_PRIVILEGED, path="securityContext.privileged")
    found = answers(
        rule, pod(containers=[{"name": "ok", "image": "x"}, PRIVILEGED], initContainers=[PRIVILEGED], ephemeralContainers=[PRIVILEGED])
    )
    failed = sorted(answer.path for answer in found if answer.outcome is Outcome.FAIL)
    assert failed == [
        "spec.containers[1].securityContext.privileged",
        "spec.ephemeralContainers[0].securityContext.privileged",
        "spec.initContainers[0].securityContext.privileged",
    ]
    assert sum(answer.outcome is Outcome.PASS for answer in found) == 1


def test_the_message_names_the_element_and_the_value() -> None:
    rule = compiled(NOT_PRIVILEGED, path="securityContext.privileged")
    assert [answer.message for answer in answers(rule, pod(containers=[PRIVILEGED]))] == ["agent is wrong: true"]


def test_a_patch_that_helps_is_the_fix() -> None:
    rule = compiled(NOT_PRIVILEGED, patch={"securityContext": {"privileged": False}})
    (found,) = answers(rule, pod(containers=[PRIVILEGED]))
    assert found.fix == "set securityContext: {privileged: false} in spec.containers[0]"


def test_a_patch_that_does_not_help_is_not_shown() -> None:
    rule = compiled(NOT_PRIVILEGED, patch={"securityContext": {"runAsNonRoot": True}})
    (found,) = answers(rule, pod(containers=[PRIVILEGED]))
    assert found.fix == "put it right"


def test_a_patched_container_is_seen_in_its_pod_too() -> None:
    rule = compiled("object.spec.containers.all(c, has(c.tty))", patch={"tty": True})
    (found,) = answers(rule, pod())
    assert found.fix == "set tty: true in spec.containers[0]"


def test_the_pod_of_a_template_is_a_pod_and_its_paths_are_the_template_s() -> None:
    rule = compiled(
        "!has(object.spec.hostNetwork) || !object.spec.hostNetwork",
        each="pod",
        path="spec.hostNetwork",
        patch={"spec": {"hostNetwork": False}},
    )
    template = {"spec": {"hostNetwork": True, "containers": [{"name": "main", "image": "x"}]}}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": template}}
    (found,) = answers(rule, deployment)
    assert found.path == "spec.template.spec.hostNetwork"
    assert found.fix == "set spec: {hostNetwork: false} in spec.template"


def test_a_bare_pod_spec_has_no_second_spec_in_its_path() -> None:
    rule = compiled(
        "!has(object.spec.hostNetwork) || !object.spec.hostNetwork",
        each="pod",
        path="spec.hostNetwork",
        patch={"spec": {"hostNetwork": False}},
    )
    predictor = {"hostNetwork": True, "containers": [{"name": "main", "image": "x"}]}
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "i"},
        "spec": {"predictor": predictor},
    }
    (found,) = answers(rule, service)
    assert found.path == "spec.predictor.hostNetwork"
    assert found.fix == "set hostNetwork: false in spec.predictor"


def test_the_fix_is_as_little_as_helps_and_the_blame_is_its_field() -> None:
    rule = compiled(
        "(!has(object.spec.hostPID) || !object.spec.hostPID) && (!has(object.spec.hostIPC) || !object.spec.hostIPC)",
        each="pod",
        patch={"spec": {"hostPID": False, "hostIPC": False}},
    )
    (found,) = answers(rule, pod(hostPID=True))
    assert (found.path, found.fix) == ("spec.hostPID", "set spec: {hostPID: false}")
    (found,) = answers(rule, pod(hostPID=True, hostIPC=True))
    assert (found.path, found.fix) == ("", "set spec: {hostPID: false, hostIPC: false}")


def test_each_volume_is_asked() -> None:
    rule = compiled("!has(volume.hostPath)", each="volume", path="hostPath.path")
    (found,) = answers(rule, pod(volumes=[{"name": "host", "hostPath": {"path": "/etc"}}]))
    assert (found.path, found.message) == ("spec.volumes[0].hostPath.path", "host is wrong: /etc")


def test_each_image_is_asked_image_volumes_included() -> None:
    rule = compiled("image.startsWith('trusted/')", each="image", message="{image} is not trusted")
    found = answers(rule, pod(volumes=[{"name": "m", "image": {"reference": "evil/model"}}]))
    assert {(answer.path, answer.message) for answer in found} == {
        ("spec.containers[0].image", "x is not trusted"),
        ("spec.volumes[0].image.reference", "evil/model is not trusted"),
    }


def test_the_namespace_can_be_asked_about() -> None:
    rule = compiled("namespaceObject.metadata.labels.tier == 'cpu'", each="pod")
    assert [answer.outcome for answer in answers(rule, pod())] == [Outcome.FAIL]


def test_an_expression_that_fails_to_run_is_unknown_with_the_reason() -> None:
    rule = compiled("container.securityContext.privileged == false")
    (found,) = answers(rule, pod())
    assert found.outcome is Outcome.UNKNOWN
    assert "securityContext" in found.message
    assert found.path == "spec.containers[0]"


def test_env_values_are_never_in_a_message() -> None:
    rule = compiled("!has(container.env)", path="env")
    (found,) = answers(rule, pod(containers=[{"name": "c", "image": "x", "env": [{"name": "TOKEN", "value": "hunter2"}]}]))
    assert "hunter2" not in repr(found)


def test_a_requirement_is_one_file() -> None:
    assert set(checks.CHECKS) == {"expression", "image_scan", "image_signature", "image_attestation"}


@pytest.mark.parametrize("spec", [None, [], "x", {"containers": None}, {"containers": [None, 7, []]}, {"volumes": [None, "x"]}])
def test_nonsense_where_a_pod_spec_should_be_is_answered(spec: Any) -> None:
    for each in ("pod", "container", "volume", "image", "object"):
        match = {"match": {"resources": [{"apiGroups": ["*"], "resources": ["*"]}]}} if each == "object" else {}
        rule = compiled("has(object.spec)", each=each, **match)
        answers(rule, {"apiVersion": "v1", "kind": "Pod", "metadata": None, "spec": spec})


def test_a_new_requirement_is_found_by_its_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brand_new.py").write_text("REQUIREMENT = 'brand_new'\ndef judge(compiled, view, facts):\n    yield from ()\n")
    monkeypatch.setattr(checks, "__path__", [*checks.__path__, str(tmp_path)])
    assert set(checks._table()) == {*checks.CHECKS, "brand_new"}
