from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden import evidence
from mlwarden.evidence import store
from mlwarden.evidence.pullers import MAX_PULLERS, Puller, pullers
from mlwarden.evidence.requests import worth_asking
from mlwarden.evidence.store import ImageEvidence, Requester
from mlwarden.model.evidence import Phase
from mlwarden.workloads import extract

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ONE, TWO = Puller(namespace="one", service_account="default"), Puller(namespace="two", service_account="runner", secrets=("regcred",))


def pod(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": [{"name": "c", "image": "x"}], **spec}}


def test_a_pod_is_pulled_with_its_secrets_and_its_service_account_in_the_namespace_of_the_request() -> None:
    obj = pod(serviceAccountName="runner", imagePullSecrets=[{"name": "regcred"}, {"name": "regcred"}, {"name": "other"}])
    obj["metadata"]["namespace"] = "kube-system"
    assert pullers(extract(obj), "team") == (Puller(namespace="team", service_account="runner", secrets=("regcred", "other")),)
    assert pullers(extract(pod()), "team") == (Puller(namespace="team", service_account="default"),)
    assert pullers(extract(pod()), "") == ()


def test_every_template_of_a_workload_has_its_puller_once() -> None:
    def template(account: str) -> dict[str, Any]:
        return {"template": {"spec": {"serviceAccountName": account, "containers": [{"name": "c", "image": "x"}]}}}

    job = {"replicatedJobs": [{"name": name, "template": {"spec": template(name)}} for name in ("driver", "worker", "worker")]}
    found = pullers(extract({"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "spec": job}), "team")
    assert [each.service_account for each in found] == ["driver", "worker"]


@pytest.mark.parametrize(
    "spec",
    [
        {"imagePullSecrets": "regcred"},
        {"imagePullSecrets": [None, 5, {}, {"name": 5}, {"name": "../../x"}, {"name": "A"}, {"name": "x" * 254}, {"name": ""}]},
        {"serviceAccountName": ["x"]},
        {"serviceAccountName": "../tokens"},
        {"serviceAccount": {"name": "x"}},
    ],
)
def test_what_is_no_name_is_left_out(spec: dict[str, Any]) -> None:
    assert pullers(extract(pod(**spec)), "team") == (Puller(namespace="team", service_account="default"),)


JSON = st.recursive(st.none() | st.integers() | st.text(max_size=4), lambda inner: st.lists(inner, max_size=3) | st.just({"name": "x"}))


@settings(max_examples=100, deadline=None)
@given(JSON, JSON, st.text(max_size=5))
def test_whatever_stands_in_a_pod_its_pullers_can_be_stored(secrets: Any, account: Any, namespace: str) -> None:
    found = pullers(extract(pod(imagePullSecrets=secrets, serviceAccountName=account)), namespace)
    stored = evidence.pending("x:1", Requester(pullers=found))
    assert store.read(stored).spec.pullers == found


def stored(phase: Phase, *known: Puller, at: datetime | None = NOW) -> ImageEvidence:
    raw = evidence.pending("x:1", Requester(pullers=known))
    raw["metadata"] |= {"resourceVersion": "7", "creationTimestamp": NOW.isoformat()}
    return store.read(raw | {"status": msgspec.to_builtins(store.EvidenceStatus(phase=phase, at=at))})


def test_a_new_puller_is_appended_under_the_resource_version_and_a_known_one_changes_nothing() -> None:
    known = stored(Phase.FAILED, ONE)
    patch = evidence.request(known, "x:1", NOW, Requester(pullers=(TWO,)))
    assert patch["metadata"] == {"resourceVersion": "7"}
    assert patch["spec"]["pullers"] == msgspec.to_builtins((ONE, TWO))
    assert set(evidence.request(known, "x:1", NOW, Requester(pullers=(ONE,)))["spec"]) == {"requestedAt", "purpose", "namespaces"}


def test_of_many_pullers_the_newest_are_kept() -> None:
    many = [Puller(namespace=f"n{number}", service_account="default") for number in range(MAX_PULLERS)]
    patch = evidence.request(stored(Phase.FAILED, *many), "x:1", NOW, Requester(pullers=(TWO,)))
    assert [each["namespace"] for each in patch["spec"]["pullers"]] == [*(f"n{number}" for number in range(1, MAX_PULLERS)), "two"]


@pytest.mark.parametrize(
    ("phase", "who", "worth"),
    [
        (Phase.FAILED, TWO, True),
        (Phase.FAILED, ONE, False),
        (Phase.PENDING, TWO, True),
        (Phase.PENDING, ONE, False),
        (Phase.READY, TWO, False),  # as for everybody: it was answered a moment ago
    ],
)
def test_other_credentials_are_worth_another_try_at_once(phase: Phase, who: Puller, *, worth: bool) -> None:
    known = stored(phase, ONE, at=None if phase is Phase.PENDING else NOW)
    assert worth_asking(known, "x:1", NOW, Requester(pullers=(who,))) is worth
