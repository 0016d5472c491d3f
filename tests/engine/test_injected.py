"""What is done about the platform's containers, and what is said."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mlwarden import engine, policy, workloads
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Decision, Finding, Outcome
from mlwarden.model.platform import Platform
from mlwarden.model.policy import Settings
from mlwarden.workloads import injectors
from mlwarden.workloads.injectors import Source

NOW = datetime(2026, 11, 30, tzinfo=UTC)
CONTAINER = {"name": "storage-initializer", "image": "kserve/storage-initializer:v0.17.0"}
KNOWN = Platform(
    injected=injectors.described(Source.STORAGE_CONTAINERS, {"metadata": {"name": "default"}, "spec": {"container": CONTAINER}})
)
UNREAD = Platform(unread=frozenset({"kserve-storage-initializer"}))
SHIPPED = [policy.compile_policy(each) for each in policy.shipped() if each.spec.requirement.expression]


def pod(**changes: Any) -> dict[str, Any]:
    resources = {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    initializer = {**CONTAINER, "args": ["s3://x", "/mnt/models"], "resources": resources}
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [initializer | changes],
        "containers": [{"name": "kserve-container", "image": "registry.example/app:1", "resources": resources, "securityContext": secure}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": spec}


def judged(
    obj: dict[str, Any], platform: Platform, *, policies: Any = SHIPPED, profile: str = "experiment", **options: Any
) -> tuple[Decision, list[Finding]]:
    facts = Facts(now=NOW, namespace={}, profile=profile, platform=platform)
    verdict = engine.evaluate(workloads.extract(obj), policies, facts, Settings(), **options)
    about = [each for each in verdict.findings if each.path.startswith("spec.initContainers[0]") and each.policy != "trusted-registries"]
    return verdict.decision, about


def test_kserves_own_container_is_warned_of_and_its_administrator_is_named() -> None:
    decision, findings = judged(pod(), KNOWN)
    assert decision is Decision.ADMIT
    assert [(each.policy, each.action, each.outcome) for each in findings] == [
        ("privilege-escalation", "Warn", Outcome.FAIL),
        ("capabilities-dropped", "Warn", Outcome.FAIL),
    ]
    assert findings[0].message.endswith("; KServe adds this container, as ClusterStorageContainer default says")
    assert findings[0].fix == (
        "not yours to change: whoever runs the platform does it in spec.container of ClusterStorageContainer default: "
        "set securityContext.allowPrivilegeEscalation to false"
    )


def test_an_impostor_is_refused_like_any_container() -> None:
    for changes, platform in ((({"image": "evil:1"}), KNOWN), ({}, Platform())):
        decision, findings = judged(pod(**changes), platform)
        assert decision is Decision.DENY
        assert {each.action for each in findings} == {"Deny"}
        assert "KServe" not in findings[0].message


def test_what_is_dangerous_is_refused_whoever_adds_it_and_says_who() -> None:
    privileged = {"securityContext": {"privileged": True}}
    known = Platform(
        injected=injectors.described(
            Source.STORAGE_CONTAINERS, {"metadata": {"name": "default"}, "spec": {"container": CONTAINER | privileged}}
        )
    )
    for profile in ("baseline", "experiment"):
        decision, findings = judged(pod(**privileged), known, profile=profile)
        assert decision is Decision.DENY
        (dangerous,) = (each for each in findings if each.action == "Deny")
        assert dangerous.policy == "privileged-containers"
        assert "KServe adds this container" in dangerous.message
        assert "ClusterStorageContainer default" in dangerous.fix


def test_whose_it_is_is_not_known_before_the_configuration_was_read() -> None:
    decision, findings = judged(pod(), UNREAD)
    assert decision is Decision.HOLD
    assert {each.outcome for each in findings} == {Outcome.UNKNOWN}
    assert "whether KServe added it is not known" in findings[0].message
    assert judged(pod(), UNREAD, holdable=False)[0] is Decision.DENY
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert judged(pod(securityContext=secure), UNREAD)[0] is Decision.ADMIT


@pytest.mark.parametrize(
    ("injected", "profile", "action", "decision"),
    [
        ("Deny", "production", "Deny", Decision.DENY),
        ("Hold", "production", "Hold", Decision.HOLD),
        ("Warn", "production", "Warn", Decision.ADMIT),
        ("Audit", "production", "Audit", Decision.ADMIT),
        ("Deny", "baseline", "Warn", Decision.ADMIT),
        (None, "production", "Deny", Decision.DENY),
    ],
)
def test_what_is_done_is_set_apart_and_never_more_than_for_an_author(
    make: Any, injected: str | None, profile: str, action: str, decision: Decision
) -> None:
    made = make(**({"injected": injected} if injected else {}))
    obj = pod()
    obj["spec"]["containers"][0]["good"] = True
    assert judged(obj, KNOWN, policies=[made], profile=profile)[0] is decision
    assert [each.action for each in judged(obj, KNOWN, policies=[made], profile=profile)[1]] == [action]


def test_the_scan_of_its_image_is_asked_for_like_any_other(scan: Any) -> None:
    decision, findings = judged(pod(), KNOWN, policies=[scan], profile="production")
    assert decision is Decision.HOLD
    assert "KServe adds this container" in findings[0].message


def test_a_policy_may_say_injected_only_where_it_asks_of_each_container(make: Any) -> None:
    with pytest.raises(Exception, match="forEach: container"):
        make(injected="Warn", requirement={"expression": {"forEach": "pod", "expression": "true"}})


def service(address: str = "s3://models/x", **predictor: Any) -> dict[str, Any]:
    server = {"modelFormat": {"name": "sklearn"}, "storageUri": address}
    spec = {"predictor": {"automountServiceAccountToken": False, **predictor, "model": server}}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "s", "namespace": "n"},
        "spec": spec,
    }


def about_storage(obj: dict[str, Any], platform: Platform) -> list[tuple[str, str]]:
    facts = Facts(now=NOW, namespace={}, profile="experiment", platform=platform)
    verdict = engine.evaluate(workloads.extract(obj), SHIPPED, facts, Settings())
    return [(each.policy, each.action) for each in verdict.findings if each.path == "spec.predictor.model.storageUri"]


def known(**container: Any) -> Platform:
    spec = {"container": CONTAINER | container, "supportedUriFormats": [{"prefix": "s3://"}, {"regex": "https?://(.+)/(.+)"}]}
    return Platform(injected=injectors.described(Source.STORAGE_CONTAINERS, {"metadata": {"name": "default"}, "spec": spec}))


def test_what_will_be_added_is_told_when_the_object_is_applied() -> None:
    secure = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    warned = [("privilege-escalation", "Warn"), ("capabilities-dropped", "Warn")]
    for address in ("s3://models/x", "https://host/model"):
        assert about_storage(service(address, securityContext=secure), known()) == warned
    mended = known(securityContext={"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}})
    assert about_storage(service(securityContext=secure), mended) == []
    assert ("privileged-containers", "Deny") in about_storage(service(), known(securityContext={"privileged": True}))


def test_a_container_of_ones_own_that_names_a_model_gets_it_too() -> None:
    obj = service()
    obj["spec"]["predictor"] = {"containers": [{"name": "kserve-container", "env": [{"name": "STORAGE_URI", "value": "s3://x"}]}]}
    facts = Facts(now=NOW, namespace={}, profile="experiment", platform=known())
    findings = engine.evaluate(workloads.extract(obj), SHIPPED, facts, Settings()).findings
    told = {each.action for each in findings if each.path == "spec.predictor.containers[0].env[0]" and "KServe adds" in each.message}
    assert told == {"Warn"}


@pytest.mark.parametrize("address", ["pvc://claim/x", "oci://registry.example/m:1", "gs://other/x", "no-address"])
def test_nothing_is_predicted_where_nothing_is_added(address: str) -> None:
    assert about_storage(service(address), known()) == []


def test_nothing_is_predicted_of_what_is_not_configured_or_not_to_be_read() -> None:
    assert about_storage(service(), Platform()) == []
    odd = {"metadata": {"name": "x"}, "spec": {"container": CONTAINER, "supportedUriFormats": [{"regex": "("}, "x", {"prefix": 3}]}}
    assert about_storage(service(), Platform(injected=injectors.described(Source.STORAGE_CONTAINERS, odd))) == []
