from datetime import UTC, datetime
from typing import Any

import pytest

from mlwarden import engine, policy, workloads
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Decision, Outcome
from mlwarden.model.limits import Defaults
from mlwarden.model.policy import Settings
from mlwarden.workloads import limits

NOW = datetime(2026, 11, 30, tzinfo=UTC)
LIMIT = [policy.compile_policy(each) for each in policy.shipped() if each.name in {"resource-limits", "gpu-limits"}]
DEFAULTS = Defaults(limits={"cpu": "200m", "memory": "128Mi"}, requests={"cpu": "100m", "memory": "64Mi"})


def limit_range(name: str = "defaults", namespace: str = "n", **item: Any) -> dict[str, Any]:
    item = {"type": "Container", "default": dict(DEFAULTS.limits), "defaultRequest": dict(DEFAULTS.requests)} | item
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": name, "namespace": namespace}, "spec": {"limits": [item]}}


def deployment(**container: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "main", "image": "a:1", **container}], "initContainers": [{"name": "i", "image": "a:1"}]}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {"spec": spec}}}


def judged(known: Defaults | None, obj: dict[str, Any]) -> tuple[Decision, set[Outcome]]:
    facts = Facts(now=NOW, namespace={}, profile="production", limits=known)
    verdict = engine.evaluate(workloads.extract(obj), LIMIT, facts, Settings())
    return verdict.decision, {each.outcome for each in verdict.findings}


def test_what_a_limit_range_fills_in_counts_for_a_template() -> None:
    assert judged(Defaults(), deployment()) == (Decision.DENY, {Outcome.FAIL})
    assert judged(DEFAULTS, deployment()) == (Decision.ADMIT, set())
    assert judged(Defaults(requests=DEFAULTS.requests), deployment())[0] is Decision.DENY


def test_ranges_that_were_not_read_are_unknown_and_never_missing_limits() -> None:
    assert judged(None, deployment()) == (Decision.ADMIT, {Outcome.UNKNOWN})
    assert judged(None, {**deployment(), "apiVersion": "example.com/v1", "kind": "Odd"}) == (Decision.ADMIT, {Outcome.UNKNOWN})
    whole = {"resources": {"limits": {"memory": "1Gi", "cpu": "1"}}}
    obj = deployment(**whole)
    obj["spec"]["template"]["spec"]["initContainers"][0] |= whole
    assert judged(None, obj) == (Decision.ADMIT, set())


def test_what_a_limit_range_fills_in_is_not_made_up_for_a_pod_that_is_stored() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": deployment()["spec"]["template"]["spec"]}
    assert judged(DEFAULTS, pod)[0] is Decision.DENY
    assert judged(None, pod) == (Decision.DENY, {Outcome.FAIL})


def test_a_default_that_is_too_much_is_found() -> None:
    assert judged(Defaults(limits={"nvidia.com/gpu": "9", "memory": "1Gi", "cpu": "1"}), deployment())[0] is Decision.DENY


def test_only_containers_get_defaults_and_only_where_they_say_nothing() -> None:
    spec = {
        "containers": [{"name": "own", "resources": {"limits": {"memory": "1Gi"}}}, "x"],
        "ephemeralContainers": [{"name": "debug"}],
    }
    (own, odd) = limits.defaulted(spec, DEFAULTS)["containers"]
    assert own["resources"]["limits"] == {"memory": "1Gi", "cpu": "200m"}
    assert odd == "x"
    assert limits.defaulted(spec, DEFAULTS)["ephemeralContainers"] == [{"name": "debug"}]
    assert spec["containers"][0] == {"name": "own", "resources": {"limits": {"memory": "1Gi"}}}


def test_ranges_are_of_their_namespace_and_the_first_by_name_wins() -> None:
    listed = [limit_range("b", default={"memory": "2Gi"}), limit_range("a", default={"memory": "1Gi"}), limit_range(namespace="other")]
    found = limits.by_namespace(listed)
    assert found["n"].limits == {"memory": "1Gi"}
    assert found["other"] == DEFAULTS
    assert limits.by_namespace([limit_range(type="Pod")])["n"] == Defaults()


@pytest.mark.parametrize("odd", [None, [], {"spec": {"limits": "x"}}, {"spec": {"limits": [None, {"type": "Container", "default": "x"}]}}])
def test_what_is_no_limit_range_fills_nothing_in(odd: Any) -> None:
    assert limits.defaults_of([odd]) == Defaults()


@pytest.mark.cluster
def test_a_pod_is_filled_in_as_the_api_server_does_it(cluster: Any) -> None:
    space, api = cluster.create_namespace("limits-of-a-test"), cluster.api()
    api.create(f"/api/v1/namespaces/{space}/limitranges", limit_range(namespace=space, max={"ephemeral-storage": "1Gi"}))
    stored = api.get(f"/api/v1/namespaces/{space}/limitranges/defaults")
    known = limits.by_namespace([stored])[space]
    some = [{}, {"limits": {"cpu": "150m"}}, {"requests": {"memory": "70Mi"}}, {"limits": {"memory": "1Gi", "nvidia.com/gpu": "1"}}]
    lists = [[{"name": f"{kind}{at}", "image": "a:1", "resources": each} for at, each in enumerate(some)] for kind in ("c", "i")]
    spec = {"containers": lists[0], "initContainers": lists[1]}
    made = api.create(f"/api/v1/namespaces/{space}/pods", {"metadata": {"name": "p"}, "spec": spec}, dryRun="All")["spec"]
    ours = limits.defaulted(spec, known)
    for field in ("containers", "initContainers"):
        assert [each["resources"] for each in ours[field]] == [each["resources"] for each in made[field]]
