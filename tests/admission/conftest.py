"""Fixtures of the request path's tests: a snapshot to ask, and `mlwarden webhook` as a process that a real API server asks."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden import policy
from mlwarden.admission import Answer, handle
from mlwarden.admission.sender import API_SERVER, Sender
from mlwarden.cluster import Snapshot
from mlwarden.model.policy import PROFILE_LABEL, Settings

from .serving import Installed, Serving, good_pod  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def snapshot() -> Snapshot:
    spaces = {
        name: {"name": name, "labels": {PROFILE_LABEL: name} if name != "sandbox" else {}}
        for name in ("production", "experiment", "sandbox")
    }
    return Snapshot(
        revision=1,
        settings=Settings(),
        policies=tuple(policy.compile_policy(each) for each in policy.shipped()),
        namespaces=spaces,
    )


@pytest.fixture
def ask(snapshot: Snapshot) -> Callable[..., tuple[Answer, dict[str, Any]]]:
    """Asks about an object, as the API server unless another sender is named; returns the answer and its `response`."""

    def asked(obj: Any, path: str = "/mutate", *, sender: Sender = API_SERVER, **changes: Any) -> tuple[Answer, dict[str, Any]]:
        answer = handle(json.dumps(review(obj, **changes)).encode(), path, snapshot, NOW, sender)
        assert answer.status == 200, answer.body
        response = json.loads(answer.body)["response"]
        assert response["uid"] == "1-2-3"
        return answer, response

    return asked


def kind_of(obj: Any) -> dict[str, str]:
    if not isinstance(obj, dict):
        return {"group": "", "version": "v1", "kind": "Pod"}
    group, _, version = obj["apiVersion"].rpartition("/")
    return {"group": group, "version": version, "kind": obj["kind"]}


def review(obj: Any, *, resource: str = "pods", group: str = "", namespace: str = "production", **changes: Any) -> dict[str, Any]:
    request = {
        "uid": "1-2-3",
        "kind": kind_of(obj),
        "resource": {"group": group, "version": "v1", "resource": resource},
        "operation": "CREATE",
        "namespace": namespace,
        "userInfo": {"username": "alice", "groups": ["data-scientists"]},
        "object": obj,
        "oldObject": None,
        "dryRun": False,
        "options": None,
        **changes,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


@pytest.fixture
def good() -> dict[str, Any]:
    """A pod with nothing wrong but that its image was not scanned yet."""
    return good_pod("good", "registry.example.com/team/app:1.0", namespace="production")


@pytest.fixture(scope="module")
def installed(cluster: "EmbeddedCluster", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """What the chart and the controller put into the cluster for the webhook; gone, and waited for, at the end of the module."""
    made = Installed(cluster, tmp_path_factory.mktemp("webhook"))
    try:
        made.install()
        yield made
    finally:
        made.remove()


@pytest.fixture
def serving(installed: Installed) -> Iterator[Serving]:
    """Starts webhooks; a good certificate lies ready. They end with the test, and their logs are shown with a failure."""
    found = Serving(installed)
    try:
        found.renew()
        yield found
    finally:
        found.close()
